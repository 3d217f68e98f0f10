"""Panel aspect ratios, an area and a multiple, to the panels' places in pixels. Who stands there: groups.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from lycoris_composite.data.buckets import Canvas, Size


class Box(NamedTuple):
    """A panel's place in a composite, in pixels from its left upper corner."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        return self.width, self.height


def panel_boxes(buckets: Sequence[Size], canvas: Canvas) -> tuple[Box, ...]:
    """The places of panels whose images are in these buckets, by the canvas's layout. Sizes are in multiples, the composite's
    area is at most the canvas's. Raises ValueError where not even one multiple per panel fits.

    >>> panel_boxes([(512, 768), (768, 512)], Canvas((768, 768)))
    (Box(left=0, top=0, width=320, height=512), Box(left=320, top=0, width=768, height=512))
    """
    boxes = LAYOUTS[canvas.aspect](buckets, canvas)
    if boxes is None:
        width, height = canvas.size
        raise ValueError(f"{width}x{height} is too small for {len(buckets)} panels in multiples of {canvas.multiple}")
    return boxes


def _natural_row(buckets: Sequence[Size], canvas: Canvas) -> tuple[Box, ...] | None:
    """Side by side, one height for all, widths by the buckets' aspect ratios. The tallest height that fits is taken."""
    step = canvas.multiple
    aspects = [width / height for width, height in buckets]
    tallest = canvas.area // (len(buckets) * step)  # no panel is narrower than a multiple
    if canvas.no_upscale:
        tallest = min(tallest, *(height for _, height in buckets))
    for height in range(tallest // step * step, 0, -step):
        widths = [max(step, round(aspect * height / step) * step) for aspect in aspects]
        if height * sum(widths) <= canvas.area:
            return _row(widths, height)
    return None


def _equal_row(buckets: Sequence[Size], canvas: Canvas) -> tuple[Box, ...] | None:
    """Side by side, the canvas split into equal panels, whatever the buckets are."""
    panels, step = len(buckets), canvas.multiple
    width, height = canvas.size[0] // panels // step * step, canvas.size[1] // step * step
    return _row([width] * panels, height) if width and height else None


# What `aspect` names, in one signature: buckets and canvas to places, or None where not even one multiple per panel fits.
LAYOUTS: Mapping[str, Callable[[Sequence[Size], Canvas], tuple[Box, ...] | None]] = {
    "natural": _natural_row,
    "equal": _equal_row,
}


def _row(widths: Sequence[int], height: int) -> tuple[Box, ...]:
    lefts = accumulate(widths, initial=0)
    return tuple(Box(left, 0, width, height) for left, width in zip(lefts, widths, strict=False))


def composite_size(boxes: Sequence[Box]) -> Size:
    """The size of what holds all panels."""
    return max(box.left + box.width for box in boxes), max(box.top + box.height for box in boxes)
