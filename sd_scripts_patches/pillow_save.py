"""Pillow's Image.save, which writes a picture that is complete under its name, or not there.

Why: every trainer's sampling saves its pictures through it under their final names.
Until: Pillow or upstream writes aside and renames.
Fits: Pillow 9.4 to 12. Checked: the method's parameters.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sd_scripts_patches.tools import Undo, replace, require, require_parameters


def check() -> None:
    require(Image, "save")
    require_parameters(Image.save, "fp", "format")


def apply(whole: Callable[[str], AbstractContextManager[Path]]) -> Undo:
    """`whole(path)` yields the path to write to."""
    original = Image.save

    def save(self: Any, fp: Any, *args: Any, **params: Any) -> None:
        if not isinstance(fp, (str, os.PathLike)):
            return original(self, fp, *args, **params)
        with whole(fp) as part:
            return original(self, part, *args, **params)

    return replace(Image, "save", save)
