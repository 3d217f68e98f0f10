"""Panels at their places, in numpy and in torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lycoris_composite.composites.join import join_panels
from lycoris_composite.composites.layouts import Box
from tests.helpers import fast


def numbered(*shape: int, start: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.arange(start, start + np.prod(shape)).reshape(shape).astype(dtype)


def row(widths: list[int], height: int, cell: int = 1) -> list[Box]:
    """Boxes side by side, an element standing for `cell` pixels."""
    return [Box(sum(widths[:n]) * cell, 0, width * cell, height * cell) for n, width in enumerate(widths)]


@fast
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 6), st.sampled_from([1, 8, 16]))
def test_panels_of_a_row_lie_where_the_ones_before_them_end(widths, channels, height, cell):
    panels = [numbered(channels, height, width, start=1000 * n) for n, width in enumerate(widths)]
    joined = join_panels(panels, row(widths, height, cell))
    assert (joined == np.concatenate(panels, axis=-1)).all()


def test_panels_of_a_grid_lie_below_one_another():
    panels = [np.full((1, 2), n) for n in range(3)]
    boxes = [Box(0, 0, 16, 8), Box(16, 0, 16, 8), Box(8, 8, 16, 8)]
    assert join_panels(panels, boxes).tolist() == [[0, 0, 1, 1], [0, 2, 2, 0]]


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_pictures_join_along_their_width_and_keep_their_dtype(dtype):
    panels = [numbered(4, width, 3, dtype=dtype) for width in (5, 2)]
    joined = join_panels(panels, row([5, 2], 4), axes=(0, 1))
    assert joined.shape == (4, 7, 3)
    assert joined.dtype == dtype
    assert (joined == np.concatenate(panels, axis=1)).all()


def test_the_panels_stay_as_they_were_and_share_no_memory_with_the_composite():
    panels = [numbered(1, 2, 3), numbered(1, 2, 2, start=50)]
    before = [panel.copy() for panel in panels]
    joined = join_panels(panels, row([3, 2], 2))
    joined[:] = -1
    assert all((panel == copy).all() for panel, copy in zip(panels, before, strict=True))
    assert not np.shares_memory(join_panels(panels[:1], row([3], 2)), panels[0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (np.zeros((4, 8, 5), "float16"), r"panel 1 is \(4, 8, 5\) float16, but \(4, 8, 5\) float32 has its place"),
        (np.zeros((4, 7, 5), "float32"), r"panel 1 is \(4, 7, 5\) float32, but \(4, 8, 5\)"),
        (np.zeros((4, 8, 6), "float32"), r"panel 1 is \(4, 8, 6\) float32"),
        (np.zeros((3, 8, 5), "float32"), r"panel 1 is \(3, 8, 5\) float32"),
        (np.zeros((8, 5), "float32"), r"panel 1 is \(8, 5\) float32"),
    ],
)
def test_panels_that_do_not_fit_are_named(other, message):
    with pytest.raises(ValueError, match=message):
        join_panels([np.zeros((4, 8, 6), "float32"), other], row([6, 5], 8, cell=8))


def test_torch_latents_join_as_numpys_do():
    torch = pytest.importorskip("torch")
    arrays, boxes = [numbered(4, 8, width, start=1000 * width) for width in (6, 3)], row([6, 3], 8, cell=8)
    panels = [torch.from_numpy(array.copy()) for array in arrays]
    joined = join_panels(panels, boxes)
    assert isinstance(joined, torch.Tensor)
    assert joined.dtype == torch.float32
    assert (joined.numpy() == join_panels(arrays, boxes)).all()
    assert all((panel.numpy() == array).all() for panel, array in zip(panels, arrays, strict=True))
    with pytest.raises(ValueError, match=r"panel 1 is \(4, 8, 3\) torch.float16, but \(4, 8, 3\) torch.float32"):
        join_panels([panels[0], panels[1].half()], boxes)
