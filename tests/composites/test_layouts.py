"""Sizes of panels and composites."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lycoris_composite.composites.layouts import composite_size, panel_boxes
from lycoris_composite.data.buckets import Canvas, bucket_of, bucket_sizes
from tests.helpers import fast, thorough

PLAIN = Canvas((640, 640))


def sizes_of(buckets, canvas):
    return tuple(box.size for box in panel_boxes(buckets, canvas))


BUCKETED = Canvas((640, 640), 64, (256, 1024))

steps = st.sampled_from([8, 16, 32, 64])
image_sizes = st.tuples(st.integers(128, 2048), st.integers(128, 2048))


@st.composite
def canvases(draw: st.DrawFn) -> Canvas:
    """Upstream's: with or without buckets, whose range is in multiples and holds the resolution."""
    step = draw(steps)
    size = (draw(st.integers(4, 16)) * 64, draw(st.integers(4, 16)) * 64)
    if not draw(st.booleans()):
        return Canvas(size, step)
    smallest, largest = draw(st.integers(1, 4)) * 64, draw(st.integers(16, 32)) * 64
    return Canvas(size, step, (smallest, largest), no_upscale=draw(st.booleans()))


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[list[tuple[int, int]], Canvas]:
    """The buckets that two images fall into, and the canvas that made them."""
    canvas = draw(canvases())
    buckets = [bucket_of(draw(image_sizes), canvas) for _ in range(2)]
    columns = sum(max(1, round(width / height)) for width, height in buckets)
    assume(columns * canvas.multiple**2 <= canvas.area)  # a single row fits
    return buckets, canvas


# --- panels ------------------------------------------------------------------------------------------------------


@thorough
@given(laid_out())
def test_panels_have_one_height_in_multiples_and_the_area_is_kept(case):
    buckets, canvas = case
    boxes = panel_boxes(buckets, canvas)
    panels = [box.size for box in boxes]
    assert [box.left for box in boxes] == [sum(width for width, _ in panels[:place]) for place in range(len(panels))]
    width, height = composite_size(boxes)
    assert width == sum(width for width, _ in panels)
    assert {height for _, height in panels} == {height}
    assert width * height <= canvas.area
    assert all(length % canvas.multiple == 0 and length > 0 for panel in panels for length in panel)


@thorough
@given(laid_out())
def test_a_panel_has_its_buckets_shape_to_within_a_multiple(case):
    buckets, canvas = case
    for (width, height), bucket in zip(sizes_of(buckets, canvas), buckets, strict=True):
        assert abs(width - height * bucket[0] / bucket[1]) <= canvas.multiple


def slow_heights(buckets: list[tuple[int, int]], canvas: Canvas) -> list[int]:
    """Every height that fits, from the smallest up, counted in whole multiples."""
    step = canvas.multiple
    fitting = []
    for rows in range(1, canvas.area // step**2 + 1):
        columns = 0
        for width, height in buckets:
            exact = rows * width / height
            columns += max(1, min((int(exact), int(exact) + 1), key=lambda c, exact=exact: (abs(c - exact), c % 2)))
        allowed = not canvas.no_upscale or all(rows * step <= height for _, height in buckets)
        if allowed and rows * columns * step**2 <= canvas.area:
            fitting.append(rows * step)
    return fitting


@fast
@given(laid_out())
@example(([(128, 1024), (128, 1024)], Canvas((512, 640), 64, (128, 1024))))
def test_the_tallest_height_that_fits_is_taken(case):
    buckets, canvas = case
    assert sizes_of(buckets, canvas)[0][1] == slow_heights(buckets, canvas)[-1]


def test_left_and_right_only_change_places():
    tall, wide = (448, 832), (832, 448)
    assert sizes_of([tall, wide], BUCKETED) == sizes_of([wide, tall], BUCKETED)[::-1]


def test_the_guides_squares_become_two_squares():
    """768x768 of stage 2: the largest two squares in multiples of 64 whose area is at most that."""
    assert sizes_of([(640, 640)] * 2, Canvas((768, 768))) == ((512, 512), (512, 512))


@fast
@given(laid_out())
def test_without_upscaling_no_panel_is_taller_than_its_bucket(case):
    buckets, canvas = case
    if canvas.no_upscale:
        assert sizes_of(buckets, canvas)[0][1] <= min(height for _, height in buckets)


def test_upscaling_happens_unless_it_is_forbidden():
    """A narrow bucket in a large canvas grows; `bucket_no_upscale` is what stops it."""
    narrow = [(256, 512)] * 2
    assert sizes_of(narrow, BUCKETED)[0][1] > 512
    assert sizes_of(narrow, replace(BUCKETED, no_upscale=True)) == ((256, 512),) * 2


@fast
@given(canvases(), st.lists(image_sizes, min_size=2, max_size=2))
def test_equal_panels_are_alike_whatever_the_images(canvas, images):
    equal = replace(canvas, aspect="equal")
    boxes = panel_boxes([bucket_of(size, canvas) for size in images], equal)
    panels = [box.size for box in boxes]
    assert panels[0] == panels[1]
    width, height = composite_size(boxes)
    assert 0 < width <= canvas.size[0]
    assert 0 < height <= canvas.size[1]
    assert width % canvas.multiple == height % canvas.multiple == 0


def test_equal_panels_fill_the_canvas():
    assert sizes_of([(256, 640), (640, 256)], Canvas((768, 512), aspect="equal")) == ((384, 512), (384, 512))


def test_panels_too_wide_for_the_canvas_are_an_error():
    with pytest.raises(ValueError, match="256x256 is too small for 2 panels in multiples of 64"):
        sizes_of([(256, 256), (1024, 64)], Canvas((256, 256), 64, (64, 1024)))


@pytest.mark.parametrize("aspect", ["natural", "equal"])
def test_a_canvas_without_room_for_a_multiple_each_is_an_error(aspect):
    with pytest.raises(ValueError, match="64x64 is too small for 2 panels in multiples of 64"):
        sizes_of([(64, 64)] * 2, Canvas((64, 64), aspect=aspect))


def test_the_smallest_canvas_has_one_multiple_each():
    assert sizes_of([(64, 64)] * 2, Canvas((128, 64))) == ((64, 64), (64, 64))


# --- buckets -----------------------------------------------------------------------------------------------------


def test_kohyas_default_buckets():
    """Upstream's own list for 512x512 with its default range."""
    wide = [(576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256)]
    sizes = [(512, 512), *wide, *(size[::-1] for size in wide)]
    assert bucket_sizes(Canvas((512, 512), 64, (256, 1024))) == tuple(sorted(sizes))


def test_without_buckets_every_image_takes_the_resolution():
    assert bucket_sizes(PLAIN) == ((640, 640),)
    assert bucket_of((100, 900), PLAIN) == (640, 640)


@thorough
@given(canvases(), image_sizes)
def test_a_bucket_is_in_multiples_and_within_the_area(canvas, image_size):
    width, height = bucket_of(image_size, canvas)
    if canvas.no_upscale and canvas.bucket_range is not None:
        # upstream rounds a scaled side up to the next pixel, and that may just be a multiple
        assert (width - canvas.multiple) * height < canvas.area
    else:
        assert width * height <= canvas.area
    if canvas.bucket_range is not None:
        assert width % canvas.multiple == height % canvas.multiple == 0
    if canvas.no_upscale:
        assert width <= image_size[0]
        assert height <= image_size[1]


def test_a_bucket_that_upstream_rounds_up_is_a_pixel_too_large():
    """279.5 x 351.7 pixels have the area, 280 x 352 are in multiples of 8."""
    canvas = Canvas((256, 384), 8, (64, 1024), no_upscale=True)
    assert bucket_of((290, 365), canvas) == (280, 352)
    assert canvas.area < 280 * 352


@fast
@given(image_sizes)
def test_a_bucket_has_the_nearest_shape(image_size):
    aspect = image_size[0] / image_size[1]
    width, height = bucket_of(image_size, BUCKETED)
    assert all(abs(width / height - aspect) <= abs(w / h - aspect) for w, h in bucket_sizes(BUCKETED))


def test_an_image_of_a_buckets_size_stays_as_it_is():
    for canvas in (BUCKETED, Canvas((1024, 1024), 64, (64, 2048))):
        assert all(bucket_of(size, canvas) == size for size in bucket_sizes(canvas))


def test_small_images_keep_their_size_where_upscaling_is_forbidden():
    assert bucket_of((300, 200), replace(BUCKETED, no_upscale=True)) == (256, 192)
    assert bucket_of((300, 200), BUCKETED) != (256, 192)


def test_an_image_smaller_than_a_multiple_takes_one():
    """Upstream's bucket would be 0 pixels high."""
    assert bucket_of((100, 40), replace(BUCKETED, no_upscale=True)) == (64, 64)
