"""Panels to one image, latent or mask, side by side. Works on any arrays that have numpy's or torch's own methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def join_panels(panels: Sequence[Any], axis: int = -1) -> Any:
    """The panels side by side along `axis`, first one left: (…, h, w_i) each -> (…, h, sum of w_i).

    Latents, masks and channel-first images join at -1, channel-last images at -2. All panels need one dtype and
    one shape but for that axis, else ValueError naming the panel. One allocation; the panels stay as they were.
    """
    first = panels[0]
    axis %= first.ndim
    for number, panel in enumerate(panels):
        same = panel.ndim == first.ndim and panel.dtype == first.dtype
        if not same or _without(panel.shape, axis) != _without(first.shape, axis):
            raise ValueError(
                f"panel {number} is {tuple(panel.shape)} {panel.dtype}, panel 0 {tuple(first.shape)} {first.dtype}: "
                f"only axis {axis} may differ"
            )
    shape = list(first.shape)
    shape[axis] = sum(panel.shape[axis] for panel in panels)
    joined = _empty_like(first, shape)
    start = 0
    for panel in panels:
        stop = start + panel.shape[axis]
        joined[(slice(None),) * axis + (slice(start, stop),)] = panel
        start = stop
    return joined


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _empty_like(array: Any, shape: Sequence[int]) -> Any:
    if hasattr(array, "new_empty"):  # a torch tensor, on its own device
        return array.new_empty(tuple(shape))
    return np.empty(tuple(shape), array.dtype)
