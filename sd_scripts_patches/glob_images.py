"""The glob_images that DreamBoothDataset looks up, which leaves out the images that are to be skipped.

Why: upstream lists a subset's folder itself, and stops at the first image or caption that it cannot read.
Until: upstream can be told what to leave out.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: its parameters; that DreamBoothDataset
looks it up, wherever it is defined.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from library import config_util

from sd_scripts_patches.tools import Undo, looked_up, replace_everywhere, require, require_parameters


def check() -> None:
    require(config_util, "DreamBoothDataset")
    require_parameters(_original(), "directory")


def _original() -> Any:
    [dataset] = [one for one in config_util.DreamBoothDataset.__mro__ if one.__name__ == "DreamBoothDataset"]
    return looked_up(dataset.__init__, "glob_images")


def apply(skipped: Collection[str]) -> Undo:
    """`skipped` are normalized paths."""
    original = _original()

    def glob_images(directory: str, *args: Any, **named: Any) -> list[str]:
        return [path for path in original(directory, *args, **named) if os.path.normpath(path) not in skipped]

    return replace_everywhere("glob_images", original, glob_images)
