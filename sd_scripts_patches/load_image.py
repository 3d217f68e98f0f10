"""train_util.load_image and BaseDataset.get_image_size, replaced by a reader that turns EXIF images upright and
scales 16-bit ones. Only in runs with composites: both stages then see the same upright pictures.

Why: upstream ignores EXIF orientation, so a phone's photos are trained lying down, and Pillow clips 16 bits to white.
Until: upstream reads them right.
Fits: v0.10.0, v0.10.1, 48d368fa. Checked: parameters; the loaders of train_util look load_image up by that global.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from library import train_util

from sd_scripts_patches.tools import Misfit, Undo, all_of, replace, require, require_parameters


def check() -> None:
    require(train_util, "load_image", "load_images_and_masks_for_caching", "BaseDataset")
    require(train_util.BaseDataset, "get_image_size", "load_image_with_face_info")
    require_parameters(train_util.load_image, "image_path", "alpha")
    if "load_image" not in train_util.load_images_and_masks_for_caching.__code__.co_names:
        raise Misfit("load_images_and_masks_for_caching no longer calls load_image")


def apply(read_image: Callable, image_size: Callable) -> Undo:
    def load_image(image_path: str, alpha: bool = False) -> Any:
        return read_image(image_path, alpha)

    def get_image_size(self: Any, image_path: str) -> tuple[int, int]:
        return image_size(image_path)

    return all_of(
        [
            replace(train_util, "load_image", load_image),
            replace(train_util.BaseDataset, "get_image_size", get_image_size),
        ]
    )
