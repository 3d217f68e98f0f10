"""numpy.savez, which writes a file that is complete under its name, or not there.

Why: upstream's disk caches (latents, text encoder outputs) go through it under their final names; a kill in between
leaves a torn cache that every later run stops at.
Until: upstream writes its caches aside and renames them.
Fits: numpy 1.26 to 2.4, all upstream versions. Checked: that upstream's latent caches look it up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy
from library.strategy_base import LatentsCachingStrategy

from sd_scripts_patches.tools import Undo, replace, require, require_lookup


def check() -> None:
    require(numpy, "savez")
    require(LatentsCachingStrategy, "save_latents_to_disk")
    require_lookup(LatentsCachingStrategy.save_latents_to_disk, "savez", numpy.savez)


def apply(whole: Callable[[str], AbstractContextManager[Path]]) -> Undo:
    """`whole(path)` yields the path to write to."""
    original = numpy.savez

    def savez(file: Any, *args: Any, **arrays: Any) -> None:
        if not isinstance(file, (str, os.PathLike)) or not str(file).endswith(".npz"):
            return original(file, *args, **arrays)
        with whole(file) as part:
            return original(part, *args, **arrays)

    return replace(numpy, "savez", savez)
