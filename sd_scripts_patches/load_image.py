"""The load_image that datasets and caches look up, and BaseDataset.get_image_size, replaced by a reader that turns EXIF
images upright and scales 16-bit ones. Only in runs with composites: both stages then see the same upright pictures.

Why: upstream ignores EXIF orientation, so a phone's photos are trained lying down, and Pillow clips 16 bits to white.
Until: upstream reads them right.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: parameters; that a batch's loader and a cache's look up one
load_image, wherever it is defined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from library import config_util
from library.strategy_base import LatentsCachingStrategy

from sd_scripts_patches.tools import Misfit, Undo, all_of, looked_up, replace, replace_everywhere, require, require_parameters


def check() -> None:
    require(_base_dataset(), "get_image_size", "load_image_with_face_info", "new_cache_latents")
    require(LatentsCachingStrategy, "_default_cache_batch_latents")
    original = _original()
    require_parameters(original, "image_path", "alpha")
    caching = looked_up(LatentsCachingStrategy._default_cache_batch_latents, "load_images_and_masks_for_caching")
    for caller in (caching, _base_dataset().new_cache_latents):
        if looked_up(caller, "load_image") is not original:
            raise Misfit(f"{caller.__qualname__} looks up another load_image than BaseDataset.load_image_with_face_info")


def _base_dataset() -> type:
    require(config_util, "DreamBoothDataset")
    [dataset] = [one for one in config_util.DreamBoothDataset.__mro__ if one.__name__ == "BaseDataset"]
    return dataset


def _original() -> Any:
    return looked_up(_base_dataset().load_image_with_face_info, "load_image")


def apply(read_image: Callable, image_size: Callable) -> Undo:
    """`read_image(path, alpha=False)` makes an array, `image_size(path)` is (width, height)."""

    def get_image_size(self: Any, image_path: str) -> tuple[int, int]:
        return image_size(image_path)

    return all_of(
        [
            replace_everywhere("load_image", _original(), read_image),
            replace(_base_dataset(), "get_image_size", get_image_size),
        ]
    )
