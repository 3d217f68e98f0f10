"""Panels to one image, latent or mask, each at its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lycoris_composite.composites.layouts import Box, composite_size


def join_panels(panels: Sequence[Any], boxes: Sequence[Box], axes: tuple[int, int] = (-2, -1)) -> Any:
    """Arrays of numpy or torch, each laid at its box: (…, h_i, w_i) each -> (…, h, w).

    `axes` are those of height and width: (-2, -1) for latents, masks and channel-first pictures, (0, 1) for channel-last
    ones. An element stands for as many pixels as the first box has per element: 1 in a picture, 8 in a latent of SD. All
    panels need one dtype and the shape that their boxes say, else ValueError naming the panel. The panels stay as they were.

    >>> join_panels([np.zeros((1, 2)), np.ones((1, 1))], [Box(0, 0, 2, 1), Box(2, 0, 1, 1)])
    array([[0., 0., 1.]])
    """
    first = panels[0]
    rows, columns = (axis % first.ndim for axis in axes)
    cell = boxes[0].width // first.shape[columns]

    def shape(width: int, height: int) -> tuple[int, ...]:
        found = list(first.shape)
        found[rows], found[columns] = height // cell, width // cell
        return tuple(found)

    whole = shape(*composite_size(boxes))
    joined = np.zeros(whole, first.dtype) if isinstance(first, np.ndarray) else first.new_zeros(whole)
    for number, (panel, box) in enumerate(zip(panels, boxes, strict=True)):
        expected = shape(*box.size)
        if tuple(panel.shape) != expected or panel.dtype != first.dtype:
            raise ValueError(
                f"panel {number} is {tuple(panel.shape)} {panel.dtype}, but {expected} {first.dtype} has its place"
            )
        place = [slice(None)] * first.ndim
        place[rows] = slice(box.top // cell, box.top // cell + expected[rows])
        place[columns] = slice(box.left // cell, box.left // cell + expected[columns])
        joined[tuple(place)] = panel
    return joined
