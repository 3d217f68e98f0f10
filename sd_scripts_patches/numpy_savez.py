"""numpy.savez, which writes a file that is complete under its name, or not there.

Why: upstream's disk caches (latents, text encoder outputs) go through it under their final names; a kill in between
leaves a torn cache that every later run stops at.
Until: upstream writes its caches aside and renames them.
Fits: numpy 1.26 to 2.4, all upstream versions. Checked: upstream's strategies look it up as `np.savez`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy
from library import strategy_base

from sd_scripts_patches.tools import Misfit, Undo, replace, require


def check() -> None:
    require(numpy, "savez")
    if getattr(strategy_base, "np", None) is not numpy:
        raise Misfit("library.strategy_base no longer saves caches with numpy")


def apply(whole: Callable[[str], AbstractContextManager[Path]]) -> Undo:
    """`whole(path)` yields the path to write to."""
    original = numpy.savez

    def savez(file: Any, *args: Any, **arrays: Any) -> None:
        if not isinstance(file, (str, os.PathLike)) or not str(file).endswith(".npz"):
            return original(file, *args, **arrays)
        with whole(file) as part:
            return original(part, *args, **arrays)

    return replace(numpy, "savez", savez)
