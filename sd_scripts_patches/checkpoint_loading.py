"""The `torch` that model_util and sdxl_model_util see, replaced by one whose `load` reads weights only.

Why: upstream opens `.ckpt` files with `weights_only=False`, so a hostile file runs its code on the user's machine.
Until: upstream loads checkpoints as weights only.
Fits: v0.10.0, v0.10.1, 48d368fa. Checked: both modules have a global `torch`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

from library import model_util, sdxl_model_util

from sd_scripts_patches.tools import Undo, all_of, replace, require

_MODULES = (model_util, sdxl_model_util)


def check() -> None:
    for module in _MODULES:
        require(module, "torch")


def apply(refuse: Callable[[str], Exception]) -> Undo:
    """`refuse(path)` makes the exception for a file that holds more than weights."""
    import torch

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return torch.load(file, *args, **{**kwargs, "weights_only": True})
        except pickle.UnpicklingError as error:
            raise refuse(str(file)) from error

    class WeightsOnlyTorch(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    safe = WeightsOnlyTorch("torch")
    safe.load = load
    return all_of(replace(module, "torch", safe) for module in _MODULES)
