"""Loss curves as a drawing for a page, whose colours it takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from lycoris_composite.losses import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 100
_POINTS_PER_PIXEL = 72 / _DPI


@dataclass(frozen=True)
class Look:
    """Colours as matplotlib takes them, `stages` one after another; and how high `text` is, in pixels."""

    ink: str
    line: str
    stages: tuple[str, ...]
    text: int


# Stand-ins: matplotlib wants numbers, and a page gives its own colours by name.
_NAMED = {"#010101": "currentColor", "#020202": "var(--line)", "#030303": "var(--right)", "#040404": "var(--left)"}
_OF_PAGE = Look("#010101", "#020202", ("#030303", "#040404"), 13)


def svg(curves: Sequence[tuple[str, Curve]], size: tuple[int, int]) -> str:
    """An <svg> element to stand in a page, `size` pixels (width, height) in proportion, text as text. The curves are
    those of stages that follow one another, each with its name."""
    import matplotlib

    written = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{size}"}):
        _figure(curves, size, _OF_PAGE).savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return _for_a_page(written.getvalue(), f"chart{size[0]}-")


def _for_a_page(text: str, prefix: str) -> str:
    """matplotlib's file as an element among others: no size, font, style sheet or ids that meet the page's own."""
    text = re.sub(r"<(metadata|style).*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (width|height)="[^"]*"', "", text, count=2)
    text = re.sub(r"font-family: [^;\"]*|(?<=font: )([\d.]+px) [^;\"]*", lambda found: found[1] or "font-family: inherit", text)
    text = re.sub(r'( id="|url\(#|href="#)', rf"\1{prefix}", text)
    for stand_in, name in _NAMED.items():
        text = text.replace(stand_in, name)
    return text


def _figure(curves: Sequence[tuple[str, Curve]], size: tuple[int, int], look: Look) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    begun = 0
    for (name, curve), colour in zip(curves, look.stages, strict=False):
        if begun:
            axes.axvline(begun, color=look.line, linewidth=1)
        shown = _thinned(curve, size[0] // 2)
        steps = shown.steps + begun
        axes.plot(steps, shown.raw, color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(steps, shown.average, color=colour, linewidth=1.8, label=name, marker="." if len(steps) == 1 else None)
        begun += int(curve.steps[-1])
    _dress(axes, look, size)
    lowest, highest = _range([curve for _, curve in curves])
    axes.set_ylim(lowest, highest)
    return figure


def _dress(axes: Axes, look: Look, size: tuple[int, int]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    text = look.text * _POINTS_PER_PIXEL
    axes.set_xlabel("step", color=look.ink, fontsize=text)
    axes.set_ylabel("loss", color=look.ink, fontsize=text)
    axes.xaxis.set_major_locator(MaxNLocator(size[0] // (6 * look.text), steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(colors=look.ink, labelsize=text, length=0)
    axes.grid(axis="y", color=look.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.spines[:].set_visible(False)
    axes.legend(loc="upper right", frameon=False, labelcolor=look.ink, fontsize=text, ncols=2)


def _thinned(curve: Curve, most: int) -> Curve:
    """The curve with at most so many points, the last one among them."""
    count = len(curve.steps)
    kept = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
    return Curve(curve.steps[kept], curve.raw[kept], curve.average[kept])


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Room for every average and for all raw losses but the few that would press the rest together."""
    averages, raw = (np.concatenate([getattr(curve, name) for curve in curves]) for name in ("average", "raw"))
    averages, raw = averages[np.isfinite(averages)], raw[np.isfinite(raw)]
    if not len(averages) or not len(raw):
        return 0.0, 1.0
    lowest, highest = min(averages.min(), np.percentile(raw, 1)), max(averages.max(), np.percentile(raw, 99))
    room = (highest - lowest) * 0.08 or abs(highest) * 0.1 or 0.1
    return float(lowest - room), float(highest + 2 * room)
