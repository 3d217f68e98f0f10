"""torch.load, which then reads weights only.

Why: upstream opens `.ckpt` files with `weights_only=False`, and everything else, network weights and states included,
with torch's default, which ran a hostile file's code until torch 2.6.
Until: upstream loads checkpoints as weights only and wants torch 2.6.
Fits: torch 2.0 to 2.15. Checked: the function's first parameter; that upstream's loader looks it up.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import torch
from library import model_util

from sd_scripts_patches.tools import Undo, replace, require, require_lookup, require_parameters


def check() -> None:
    require(torch, "load")
    require_parameters(torch.load, "f")
    require(model_util, "load_checkpoint_with_text_encoder_conversion")
    require_lookup(model_util.load_checkpoint_with_text_encoder_conversion, "load", torch.load)


def apply(refuse: Callable[[str], Exception]) -> Undo:
    """`refuse(path)` makes the exception for a file that holds more than weights."""
    original = torch.load

    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(f, *args, **{**kwargs, "weights_only": True})
        except pickle.UnpicklingError as error:
            raise refuse(str(getattr(f, "name", f))) from error

    return replace(torch, "load", load)
