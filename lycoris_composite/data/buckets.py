"""Upstream's buckets: image sizes to the sizes that training crops them to. Sizes are (width, height) in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

Size = tuple[int, int]


@dataclass(frozen=True)
class Canvas:
    """What limits a composite. `size` is kohya's `resolution`, `multiple` its `bucket_reso_steps`, `bucket_range`
    its `min_bucket_reso` and `max_bucket_reso` (both None without `enable_bucket`)."""

    size: Size
    multiple: int = 64
    bucket_range: tuple[int, int] | None = None
    no_upscale: bool = False
    aspect: str = "natural"

    @property
    def area(self) -> int:
        return self.size[0] * self.size[1]


@lru_cache(maxsize=64)
def bucket_sizes(canvas: Canvas) -> tuple[Size, ...]:
    """The buckets of upstream's `model_util.make_bucket_resolutions`, which a test compares with it. Written again
    because previews and checks before a run have no sd-scripts to ask."""
    if canvas.bucket_range is None:
        return (canvas.size,)
    smallest, largest = canvas.bucket_range
    step = canvas.multiple
    side = int(math.sqrt(canvas.area) // step) * step
    sizes = {(side, side)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, canvas.area // width // step * step)
        if height >= smallest:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def bucket_of(image_size: Size, canvas: Canvas) -> Size:
    """The bucket of upstream's `BucketManager.select_bucket`. With `no_upscale` it is the image's own size, scaled
    down to the area where larger, and cut to the multiple."""
    width, height = image_size
    if canvas.no_upscale and canvas.bucket_range is not None:
        return _own_bucket(width, height, canvas)
    sizes = bucket_sizes(canvas)
    if image_size in sizes:
        return image_size
    aspect = width / height
    errors = [abs(own - aspect) for own in _aspects(canvas)]
    return sizes[errors.index(min(errors))]


@lru_cache(maxsize=64)
def _aspects(canvas: Canvas) -> tuple[float, ...]:
    return tuple(width / height for width, height in bucket_sizes(canvas))


def _own_bucket(width: int, height: int, canvas: Canvas) -> Size:
    """Upstream's two candidates for a size that is too large, width or height cut to the multiple first; the one
    nearer to the image's aspect ratio is taken."""
    step = canvas.multiple
    if width * height > canvas.area:
        aspect = width / height
        by_width = _cut(math.sqrt(canvas.area * aspect), step)
        by_height = _cut(math.sqrt(canvas.area / aspect), step)
        width_error = abs(by_width / max(step, _cut(by_width / aspect, step)) - aspect)
        height_error = abs(_cut(by_height * aspect, step) / max(step, by_height) - aspect)
        if width_error < height_error:
            width, height = by_width, int(by_width / aspect + 0.5)
        else:
            width, height = int(by_height * aspect + 0.5), by_height
    return max(step, width // step * step), max(step, height // step * step)


def has_no_bucket(image_size: Size, canvas: Canvas) -> bool:
    """Whether upstream, which with `no_upscale` cuts a size to the multiple, comes to a bucket of no width or height, or
    divides by that."""
    if canvas.bucket_range is None or not canvas.no_upscale:
        return False
    (width, height), step = image_size, canvas.multiple
    if width * height <= canvas.area:
        return min(image_size) < step
    aspect = width / height
    by_width, by_height = _cut(math.sqrt(canvas.area * aspect), step), _cut(math.sqrt(canvas.area / aspect), step)
    beside_width = _cut(by_width / aspect, step)
    if not (by_width and by_height and beside_width):
        return True
    return not _cut(by_height * aspect, step) and abs(by_width / beside_width - aspect) >= aspect


def _cut(length: float, step: int) -> int:
    return int(length + 0.5) // step * step
