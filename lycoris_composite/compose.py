"""Panels to one image, latent or mask, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def join_panels(panels: Sequence[Any], axis: int = -1, concatenate: Callable[..., Any] = np.concatenate) -> Any:
    """The panels side by side along `axis`, first one left: (…, h, w_i) each -> (…, h, sum of w_i).

    Latents, masks and channel-first images join at -1, channel-last images at -2. `concatenate` is that of the
    arrays' library, `torch.cat` for tensors. All panels need one dtype and one shape but for that axis, else
    ValueError naming the panel. One allocation; the panels stay as they were.
    """
    first = panels[0]
    axis %= first.ndim
    for number, panel in enumerate(panels[1:], start=1):
        same = panel.ndim == first.ndim and panel.dtype == first.dtype
        if not same or _without(panel.shape, axis) != _without(first.shape, axis):
            raise ValueError(
                f"panel {number} is {tuple(panel.shape)} {panel.dtype}, panel 0 {tuple(first.shape)} {first.dtype}: "
                f"only axis {axis} may differ"
            )
    return concatenate(list(panels), axis)


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])
