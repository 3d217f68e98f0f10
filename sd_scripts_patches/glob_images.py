"""train_util.glob_images, which leaves out the images that are to be skipped.

Why: upstream lists a subset's folder itself, and stops at the first image or caption that it cannot read.
Until: upstream can be told what to leave out.
Fits: v0.10.0, v0.10.1, 48d368fa. Checked: its parameters; that DreamBoothDataset looks it up in train_util.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from library import train_util

from sd_scripts_patches.tools import Misfit, Undo, replace, require, require_parameters


def check() -> None:
    require(train_util, "glob_images", "DreamBoothDataset")
    require_parameters(train_util.glob_images, "directory")
    constants = train_util.DreamBoothDataset.__init__.__code__.co_consts
    nested = [constant.co_names for constant in constants if hasattr(constant, "co_names")]
    if not any("glob_images" in names for names in (*nested, train_util.DreamBoothDataset.__init__.__code__.co_names)):
        raise Misfit("DreamBoothDataset no longer lists images by glob_images")


def apply(skipped: Collection[str]) -> Undo:
    """`skipped` are normalized paths."""
    original = train_util.glob_images

    def glob_images(directory: str, *args: Any, **named: Any) -> list[str]:
        return [path for path in original(directory, *args, **named) if os.path.normpath(path) not in skipped]

    return replace(train_util, "glob_images", glob_images)
