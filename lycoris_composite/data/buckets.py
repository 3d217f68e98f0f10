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
    errors = [abs(other - aspect) for other in _aspects(canvas)]
    return sizes[errors.index(min(errors))]


@lru_cache(maxsize=64)
def _aspects(canvas: Canvas) -> tuple[float, ...]:
    return tuple(width / height for width, height in bucket_sizes(canvas))


def _own_bucket(width: int, height: int, canvas: Canvas) -> Size:
    """The image's size in multiples. One that is too large is scaled to the candidate nearer to the image's aspect ratio."""
    step, aspect = canvas.multiple, width / height
    if width * height > canvas.area:
        (by_width, beside_width), (beside_height, by_height) = _candidates(aspect, canvas)
        if abs(by_width / max(step, beside_width) - aspect) < abs(beside_height / max(step, by_height) - aspect):
            width, height = by_width, int(by_width / aspect + 0.5)
        else:
            width, height = int(by_height * aspect + 0.5), by_height
    return max(step, width // step * step), max(step, height // step * step)


def has_no_bucket(image_size: Size, canvas: Canvas) -> bool:
    """Whether upstream, which with `no_upscale` cuts a size to the multiple, comes to a bucket of no width or height, or
    divides by that."""
    if canvas.bucket_range is None or not canvas.no_upscale:
        return False
    width, height = image_size
    if width * height <= canvas.area:
        return min(image_size) < canvas.multiple
    aspect = width / height
    (by_width, beside_width), (beside_height, by_height) = _candidates(aspect, canvas)
    if not (by_width and by_height and beside_width):
        return True
    return not beside_height and abs(by_width / beside_width - aspect) >= aspect


def _candidates(aspect: float, canvas: Canvas) -> tuple[Size, Size]:
    """Upstream's two for a size that is too large: first its width is cut to the multiple and its height fits that, then
    the other way round."""

    def cut(length: float) -> int:
        return int(length + 0.5) // canvas.multiple * canvas.multiple

    by_width, by_height = cut(math.sqrt(canvas.area * aspect)), cut(math.sqrt(canvas.area / aspect))
    return (by_width, cut(by_width / aspect)), (cut(by_height * aspect), by_height)
