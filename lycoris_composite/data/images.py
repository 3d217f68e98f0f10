"""Image files to upright arrays. Upstream reads some of them wrongly: turned by EXIF, or 16 bits clipped to white."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from lycoris_composite.errors import UserError

_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
# Pictures to everybody but sd-scripts; some of them it reads where a plugin is installed.
_OTHERS = frozenset(
    [
        *(".tiff", ".tif", ".avif", ".jfif", ".pjpeg", ".jpe", ".gif", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".psd"),
        *(".svg", ".ico", ".ppm", ".pgm", ".pnm", ".apng", ".dng", ".cr2", ".nef"),
    ]
)


@cache
def extensions() -> frozenset[str]:
    """The extensions of upstream's `train_util.IMAGE_EXTENSIONS`, those of installed Pillow plugins among them."""
    known = [".png", ".jpg", ".jpeg", ".webp", ".bmp"]
    if find_spec("pillow_avif"):
        known.append(".avif")
    if find_spec("pillow_jxl") or find_spec("jxlpy"):
        known.append(".jxl")
    return frozenset(known + [extension.upper() for extension in known])


def list_images(folder: Path) -> list[Path]:
    """The folder's own image files, sorted; hidden ones are left out, as upstream's glob does."""
    known = extensions()
    return sorted(path for path in folder.iterdir() if path.suffix in known and not path.name.startswith("."))


def pictures_below(folder: Path, depth: int = 8) -> list[str]:
    """The paths of all pictures in a folder and its subfolders, relative to it and sorted. What is hidden is left out, and
    links are not followed."""
    pictures = []
    for root, folders, files in os.walk(folder):
        inner = os.path.relpath(root, folder)
        is_deepest = inner.count(os.sep) >= depth
        folders[:] = [] if is_deepest else sorted(name for name in folders if not name.startswith("."))
        pictures += [os.path.normpath(os.path.join(inner, name)) for name in files if is_picture(name) and name[0] != "."]
    return sorted(pictures)


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name, whoever can read it."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in _OTHERS or suffix in extensions()


def image_size(file: str | Path | BinaryIO) -> tuple[int, int]:
    """(width, height) in pixels as seen upright; from the header alone."""
    with Image.open(file) as image:
        turned = _header_exif(image).get(_EXIF_ORIENTATION) in _TURNED
        return image.size[::-1] if turned else image.size


def _header_exif(image: Image.Image) -> Mapping[int, Any]:
    """The EXIF that stands before the pixels. Pillow would decode a whole PNG to look for one behind them."""
    return {} if image.format == "PNG" and "exif" not in image.info else image.getexif()


def read_image(path: str | Path, alpha: bool = False, file: BinaryIO | None = None) -> np.ndarray:
    """The upright image as uint8 (height, width, 3), or (height, width, 4) with `alpha`: upstream's `load_image`,
    but with EXIF orientation applied and 16-bit images scaled. `file` holds the content where that is read already. Raises
    UserError for what cannot be decoded."""
    wanted = "RGBA" if alpha else "RGB"
    try:
        with Image.open(file or path) as image:
            if _header_exif(image).get(_EXIF_ORIENTATION, 1) != 1:
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16") or image.mode == "I":
                # Pillow's conversion clips at 255, which turns most of a 16-bit picture white.
                values = np.array(image).astype(np.int64).clip(0, 65535) // 257
                image = Image.fromarray(values.astype(np.uint8))
            return np.array(image if image.mode == wanted else image.convert(wanted), np.uint8)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is gone; put it back, then run the same command again.") from error
    except Exception as error:  # Pillow raises many kinds for broken data
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be decoded ({reason}); remove or replace it.") from error


def panel_picture(path: str | Path, size: tuple[int, int], flipped: bool = False) -> np.ndarray:
    """uint8 (height, width, 3) of (width, height) `size`: the upright image scaled until it covers the panel, then cut
    at the middle, as upstream does by default. Raises UserError for what cannot be decoded."""
    image = Image.fromarray(read_image(path))
    covering = covering_size(image.size, size)
    if covering != image.size:
        smaller = covering[0] <= image.width and covering[1] <= image.height
        image = image.resize(covering, Image.Resampling.BOX if smaller else Image.Resampling.LANCZOS)
    left, top = ((scaled - wanted) // 2 for scaled, wanted in zip(covering, size, strict=True))
    picture = np.asarray(image)[top : top + size[1], left : left + size[0]]
    return np.array(picture[:, ::-1] if flipped else picture, order="C")  # a copy: torch wants to own its memory


def covering_size(image_size: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) at which an image just covers a panel."""
    scale = max(wanted / given for wanted, given in zip(size, image_size, strict=True))
    width, height = (int(given * scale + 0.5) for given in image_size)
    return width, height
