"""Image files that upstream, or Pillow left alone, would read wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lycoris_composite.data.images import image_size, list_images, read_image
from lycoris_composite.errors import UserError
from tests.tiny import broken_images, odd_images, reference_picture


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return odd_images(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return broken_images(tmp_path_factory.mktemp("broken"))


def expected(oddity: str) -> np.ndarray:
    picture = reference_picture()
    return np.array(picture.convert("L").convert("RGB") if oddity.startswith("grey") else picture).astype(int)


@pytest.mark.parametrize("oddity", ["palette", "grey", "grey16", "rgba", "cmyk", "exif_rotated"])
def test_an_odd_image_is_read_right(odd, oddity):
    picture = read_image(odd[oddity])
    assert picture.shape == (48, 64, 3)
    assert picture.dtype == np.uint8
    off = np.abs(picture - expected(oddity))
    # A JPEG is off by a few levels within the quarters; everything else is exact.
    lossy = oddity in ("cmyk", "exif_rotated")
    inner = off.reshape(2, 24, 2, 32, 3)[:, 8:16, :, 8:24]
    assert (inner.max() < 12) if lossy else (off.max() == 0)


@pytest.mark.parametrize("oddity", ["palette", "grey", "grey16", "rgba", "cmyk", "exif_rotated"])
def test_an_odd_image_has_its_upright_size(odd, oddity):
    assert image_size(odd[oddity]) == (64, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_pixels_agree_in_every_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    reference_picture().save(path, exif=exif)
    height, width, _ = read_image(path).shape
    assert image_size(path) == (width, height) == ((48, 64) if orientation > 4 else (64, 48))


def test_sixteen_bits_do_not_turn_white(odd):
    """Pillow's own conversion clips at 255: red's luma of 87 would become 255."""
    assert read_image(odd["grey16"])[5, 5].tolist() == [87, 87, 87]


def test_alpha_is_read_where_it_is_asked_for(odd):
    picture = read_image(odd["rgba"], alpha=True)
    assert picture.shape == (48, 64, 4)
    assert picture[5, 5].tolist() == [220, 30, 30, 255]
    assert picture[40, 60, 3] == 0


@pytest.mark.parametrize("oddity", ["grey", "grey16", "cmyk", "exif_rotated"])
def test_an_image_without_alpha_is_opaque(odd, oddity):
    picture = read_image(odd[oddity], alpha=True)
    assert picture.shape == (48, 64, 4)
    assert (picture[:, :, 3] == 255).all()


@pytest.mark.parametrize("fault", ["empty", "text", "truncated_png", "truncated_jpg"])
def test_a_broken_image_raises(broken, fault):
    with pytest.raises(UserError, match=r"cannot be decoded \((cannot identify|.*truncated)"):
        read_image(broken[fault])


@pytest.mark.parametrize("fault", ["truncated_png", "truncated_jpg"])
def test_a_size_needs_no_more_than_the_header(broken, fault):
    assert image_size(broken[fault]) == (64, 64)


def test_a_listing_is_sorted_and_holds_images_only(tmp_path):
    for name in ("b.PNG", "a.webp", "c.jpg", "notes.txt", "a.npz", "d.jpeg", "e.bmp"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.webp", "b.PNG", "c.jpg", "d.jpeg", "e.bmp"]


def test_hidden_files_are_no_images(tmp_path):
    """Upstream's glob leaves them out; macOS puts a `._01.png` beside each file that it copies to a foreign disk."""
    for name in ("01.png", "._01.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["01.png"]
