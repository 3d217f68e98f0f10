"""The losses that a run has logged for TensorBoard, and a drawing of them. The journal names the folder of both stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lycoris_composite.errors import UserError
from lycoris_composite.look.sample_files import Grid, StageSamples
from lycoris_composite.run.journal import Journal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RAW, _AVERAGE = "loss/current", "loss/average"  # upstream's tags
_FILES = "events.out.tfevents.*"

_DPI = 100
_TEXT = 13  # pixels
_STYLE = {
    "font.size": _TEXT * 72 / _DPI,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0.01,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.loc": "upper right",
    "svg.hashsalt": "loss",  # the same losses make the same file
}


@dataclass(frozen=True)
class Curve:
    """A stage's loss at each step: three (n,) arrays. `steps` rise, from 1. `average` is upstream's, over the last epoch;
    NaN where it is not logged."""

    steps: np.ndarray
    raw: np.ndarray
    average: np.ndarray


def read_curves(grid: Grid, output_dir: Path, logs: Path | None) -> tuple[dict[int, Curve], str]:
    """The losses by index of the stage, and why there are none at all. Raises UserError if the folder `logs` is missing."""
    if logs is not None and not logs.is_dir():
        raise UserError(f"{logs}: no such folder; give --logs the config's logging_dir.")
    folders = [logs] if logs else _logging_dirs(grid.stages, output_dir)
    if not folders:
        return {}, "No loss curve: the config's logging_dir is not set or not here (give --logs DIR)."
    try:
        from tensorboard.backend.event_processing import event_accumulator  # noqa: F401
    except ImportError:
        return {}, "No loss curve: reading the logs needs TensorBoard (pip install tensorboard)."
    journal = Journal(output_dir / f"{grid.output_name}.run.json")
    journal.read(or_nothing=True)
    if logs and not journal.stages and len(grid.stages) == 1:  # a run of sd-scripts' own scripts, whose logs the user names
        curves = {0: _read([logs])}
    else:
        curves = {
            index: _stage_curve(journal, stage.number, folders)
            for index, stage in enumerate(grid.stages)
            if stage.number in journal.stages
        }
    curves = {index: curve for index, curve in curves.items() if len(curve.steps)}
    return curves, "" if curves else f"No loss curve: {folders[0]} holds no losses of this run."


def _logging_dirs(stages: Sequence[StageSamples], output_dir: Path) -> list[Path]:
    """Each stage's logging_dir, or the folder of that name in or beside the output, in case both were moved."""
    dirs = []
    for path in (Path(stage.settings.logging_dir) for stage in stages if stage.settings.logging_dir):
        moved = (path, output_dir / path.name, output_dir.parent / path.name) if path.name else ()
        dirs += [folder for folder in moved if folder.is_dir()][:1]
    return list(dict.fromkeys(dirs))


def _stage_curve(journal: Journal, number: int, folders: Sequence[Path]) -> Curve:
    """A stage's part of what the run has logged. Its steps count on from stage 1's, so those are taken off."""
    record = journal.stages[number]
    log = journal.run_log(number, record.run)
    curve = _read([path for folder in folders for path in folder.rglob(f"*{escape(log.name)}")])
    steps = curve.steps - log.steps
    kept = (steps > 0) & (steps <= record.steps) if record.steps else steps > 0
    return Curve(steps[kept], curve.raw[kept], curve.average[kept])


def _read(runs: Sequence[Path]) -> Curve:
    """The losses in the folders of one run. What cannot be read is passed over."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses: dict[str, dict[int, float]] = {_RAW: {}, _AVERAGE: {}}
    for folder in sorted({file.parent for run in runs for file in run.rglob(_FILES)}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
        try:
            events.Reload()
            for tag in losses.keys() & events.Tags()["scalars"]:
                losses[tag] |= _by_step(events.Scalars(tag))
        except Exception:  # a torn or foreign file raises whatever its parser stumbles over
            continue
    steps = sorted(losses[_RAW])
    return Curve(np.array(steps), *(np.array([by_step.get(step, np.nan) for step in steps]) for by_step in losses.values()))


def _by_step(events: Iterable[Any]) -> dict[int, float]:
    """Each step's mean, because upstream logs every batch of a step with gradient accumulation. A resumed run takes the
    steps after its state again; what was logged of them before no longer counts."""
    values: dict[int, list[float]] = {}
    last = 0
    for event in events:
        if event.step < last:
            values = {step: logged for step, logged in values.items() if step < event.step}
        values.setdefault(event.step, []).append(event.value)
        last = event.step
    return {step: float(np.mean(logged)) for step, logged in values.items()}


# --- drawing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Palette:
    """Colours of the text, of the grid, and of the stages in their order."""

    ink: str
    line: str
    stages: tuple[str, ...]


# As in templates/page.html.j2.
PALETTES = {
    "light": Palette("#1c1e22", "#d9dce2", ("#17559f", "#a8321a")),
    "dark": Palette("#e8eaee", "#383d47", ("#8fc1ff", "#ff9d85")),
}


def svg(curves: Sequence[tuple[str, Curve]], size: tuple[int, int], palette: Palette) -> bytes:
    """The curves of stages that follow one another, each with its name, as an SVG file of `size` (width, height) pixels."""
    import matplotlib
    from matplotlib.figure import Figure

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), palette.ink)
    file = BytesIO()
    with matplotlib.rc_context({**_STYLE, **ink, "grid.color": palette.line}):
        figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="loss", ylim=_range([curve for _, curve in curves]))
        axes.spines[:].set_visible(False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        _plot(axes, curves, palette, most=size[0] // 2)
        axes.locator_params("x", nbins=size[0] // (6 * _TEXT), steps=[1, 2, 5, 10], integer=True)
        axes.locator_params("y", nbins=5)
        axes.legend(ncols=2)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def _plot(axes: Axes, curves: Sequence[tuple[str, Curve]], palette: Palette, most: int) -> None:
    """Draws at most `most` points of each curve. A stage's steps are counted on from those of the stage before."""
    start = 0
    for (name, curve), colour in zip(curves, palette.stages, strict=False):
        if start:
            axes.axvline(start, color=palette.line, linewidth=1)
        count = len(curve.steps)
        kept = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
        steps, marker = start + curve.steps[kept], "." if count == 1 else None
        axes.plot(steps, curve.raw[kept], color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(steps, curve.average[kept], color=colour, linewidth=1.8, label=name, marker=marker)
        start += int(curve.steps[-1])


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Room for every average, and for 98 % of the raw losses: the few beyond would press the rest together."""
    average = np.concatenate([curve.average for curve in curves])
    raw = np.concatenate([curve.raw for curve in curves])
    average, raw = average[np.isfinite(average)], raw[np.isfinite(raw)]
    if not len(average) or not len(raw):
        return 0.0, 1.0
    shown = [*average, *np.percentile(raw, [1, 99])]
    lowest, highest = float(min(shown)), float(max(shown))
    room = (highest - lowest) * 0.08 or abs(highest) * 0.1 or 0.1
    return lowest - room, highest + 2 * room
