"""Panels side by side, in numpy and in torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lycoris_composite.compose import join_panels
from tests.helpers import fast


def numbered(*shape: int, start: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.arange(start, start + np.prod(shape)).reshape(shape).astype(dtype)


@fast
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 6))
def test_every_panel_lies_where_the_ones_before_it_end(widths, channels, height):
    panels = [numbered(channels, height, width, start=1000 * n) for n, width in enumerate(widths)]
    joined = join_panels(panels)
    assert joined.shape == (channels, height, sum(widths))
    start = 0
    for panel, width in zip(panels, widths, strict=True):
        assert (joined[:, :, start : start + width] == panel).all()
        start += width


def test_the_first_panel_is_left():
    joined = join_panels([np.zeros((2, 3)), np.ones((2, 1))])
    assert joined.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_pictures_join_along_their_width_and_keep_their_dtype(dtype):
    panels = [numbered(4, width, 3, dtype=dtype) for width in (5, 2)]
    joined = join_panels(panels, axis=-2)
    assert joined.shape == (4, 7, 3)
    assert joined.dtype == dtype
    assert (joined == np.concatenate(panels, axis=1)).all()


def test_the_panels_stay_as_they_were_and_share_no_memory_with_the_composite():
    panels = [numbered(1, 2, 3), numbered(1, 2, 2, start=50)]
    before = [panel.copy() for panel in panels]
    joined = join_panels(panels)
    joined[:] = -1
    assert all((panel == copy).all() for panel, copy in zip(panels, before, strict=True))
    assert not np.shares_memory(join_panels(panels[:1]), panels[0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            np.zeros((4, 8, 5), "float16"),
            r"panel 1 is \(4, 8, 5\) float16, panel 0 \(4, 8, 6\) float32: only axis 2 may differ",
        ),
        (np.zeros((4, 7, 6), "float32"), r"panel 1 is \(4, 7, 6\) float32, panel 0 \(4, 8, 6\) float32"),
        (np.zeros((3, 8, 6), "float32"), r"panel 1 is \(3, 8, 6\) float32"),
        (np.zeros((8, 6), "float32"), r"panel 1 is \(8, 6\) float32"),
    ],
)
def test_panels_that_do_not_fit_are_named(other, message):
    with pytest.raises(ValueError, match=message):
        join_panels([np.zeros((4, 8, 6), "float32"), other])


def test_torch_latents_join_as_numpys_do():
    torch = pytest.importorskip("torch")
    arrays = [numbered(4, 8, width, start=1000 * width) for width in (6, 3)]
    panels = [torch.from_numpy(array.copy()) for array in arrays]
    joined = join_panels(panels, concatenate=torch.cat)
    assert isinstance(joined, torch.Tensor)
    assert joined.dtype == torch.float32
    assert (joined.numpy() == join_panels(arrays)).all()
    assert all((panel.numpy() == array).all() for panel, array in zip(panels, arrays, strict=True))
    with pytest.raises(ValueError, match=r"panel 1 is \(4, 8, 3\) torch.float16, panel 0 \(4, 8, 6\) torch.float32"):
        join_panels([panels[0], panels[1].half()], concatenate=torch.cat)
