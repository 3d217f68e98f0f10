"""What lies in a folder and is not trained on is counted and named; so are latents of pictures that were replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from lycoris_composite.architectures import ARCHITECTURES
from lycoris_composite.data.characters import Subset, read_subset
from lycoris_composite.data.left_out import left_out, replaced
from lycoris_composite.data.tags import CaptionRules
from tests.helpers import write_subset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_subset(tmp_path / "1_rin", {"01": "rin, hat", "02": "rin, smile"})


def lines(folder: Path, latents: str | None = None, **rules: object) -> list[str]:
    own = read_subset(Subset(str(folder), 1, "rin", ".txt", CaptionRules(**rules)))
    return [line.removeprefix(f"{folder}: ") for line in left_out(own, latents)]


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name, "PNG")


def test_of_a_tidy_folder_nothing_is_said(folder):
    put(folder, "._01.png")  # macOS's own, no picture
    (folder / "metadata_cache.json").write_text("{}")
    assert lines(folder) == []


def test_extensions_that_sd_scripts_does_not_read(folder):
    """Case 14. Whether .avif and .jxl are read hangs on what is installed."""
    put(folder, "a.tiff", "b.tif", "c.jfif", "d.gif", "e.heic", "f.Jpg", "g.PnG")
    [line] = lines(folder)
    assert line == (
        "7 picture(s) left out, as sd-scripts does not read .Jpg, .PnG, .gif, .heic, .jfif, .tif, .tiff: a.tiff, b.tif, c.jfif "
        "and 4 more; save them as .png or .jpg."
    )


def test_extensions_in_capitals_are_read(folder):
    put(folder, "a.PNG", "b.JPG", "c.WEBP")
    for name in "abc":
        (folder / f"{name}.txt").write_text("rin")
    assert lines(folder) == []


def test_pictures_in_subfolders(folder):
    """Case 21."""
    put(folder, "more/a.png", "more/deep/b.tiff", ".ipynb_checkpoints/01-checkpoint.png")
    assert lines(folder) == [
        f"2 picture(s) in subfolders left out: more/a.png, more{os.sep}deep/b.tiff; move them into the folder itself."
    ]


def test_hidden_pictures(folder):
    put(folder, ".a.png")
    assert lines(folder) == ["1 hidden picture(s) left out: .a.png; rename them."]


def test_captions_without_a_picture(folder):
    for name in ("03.txt", "04.txt", "05.caption"):
        (folder / name).write_text("rin")
    assert lines(folder) == ["2 caption(s) without a picture: 03.txt, 04.txt; add the pictures, or remove them."]


def test_captions_of_pictures_that_are_left_out_and_of_faces_have_a_picture(folder):
    put(folder, "03.tiff", "04_1_2_3_4.png")
    for name in ("03.txt", "04.txt"):
        (folder / name).write_text("rin")
    [line] = lines(folder)
    assert line.startswith("1 picture(s) left out")


def test_a_caption_of_several_lines_is_said_once_a_folder(folder):
    """Case 22."""
    for name in ("01", "02"):
        (folder / f"{name}.txt").write_text("rin, day\n\nrin, night\n")
    assert lines(folder) == [
        "of 2 caption(s) with several lines only the first is read: 01.png, 02.png; write one line, or set "
        "enable_wildcard = true to draw one."
    ]
    assert lines(folder, enable_wildcard=True) == []


def test_an_empty_line_at_the_end_is_none(folder):
    (folder / "01.txt").write_text("rin, day\n\n  \n")
    assert lines(folder) == []


def test_pictures_of_one_name(folder):
    """Case 24."""
    put(folder, "01.jpg", "01.webp")
    assert lines(folder) == ["pictures of one name have one caption file: 01.jpg and 01.png and 01.webp; rename them."]
    assert "one cache file, so stage 1 sees one for all: 01.jpg and 01.png and 01.webp;" in lines(folder, "_sd.npz")[0]


# --- latents on disk (case 18) -----------------------------------------------------------------------------------


def cache(folder: Path, *names: str) -> None:
    """Cache files that are a second newer than the pictures."""
    for name in names:
        (folder / name).write_bytes(b"npz")
        os.utime(folder / name, (2_000_000_001, 2_000_000_001))


@pytest.fixture
def cached(folder: Path) -> Path:
    for path in folder.iterdir():
        os.utime(path, (2_000_000_000, 2_000_000_000))
    cache(folder, "01_0032x0032_sd.npz", "02_0032x0032_sd.npz")
    return folder


def renew(path: Path) -> None:
    os.utime(path, (2_000_000_002, 2_000_000_002))


def test_pictures_that_are_newer_than_their_latents(cached):
    assert lines(cached, "_sd.npz") == []
    renew(cached / "01.png")
    assert lines(cached) == []  # nobody reads them
    assert lines(cached, "_sd.npz") == [
        "1 picture(s) are newer than sd-scripts' latents beside them or of another size, and stage 1 trains on those latents: "
        "01.png (01_0032x0032_sd.npz); delete these .npz files."
    ]


def test_a_caption_that_is_newer_is_no_matter(cached):
    renew(cached / "01.txt")
    assert lines(cached, "_sd.npz") == []


def test_a_picture_of_another_size_whatever_its_time(cached):
    Image.new("RGB", (48, 32)).save(cached / "01.png")
    os.utime(cached / "01.png", (1_000_000_000, 1_000_000_000))
    [line] = lines(cached, "_sd.npz")
    assert "01.png (01_0032x0032_sd.npz)" in line


def test_latents_of_another_model_are_left_alone(cached):
    renew(cached / "01.png")
    assert lines(cached, "_sdxl.npz") == []
    cache(cached, "01_0032x0032_0123456789abcdef_composite.npz", "01_sd3_te.npz")
    assert lines(cached, "_sdxl.npz") == []


def test_an_old_cache_file_is_the_one_that_counts(cached):
    cache(cached, "01.npz")
    assert lines(cached, "_sd.npz") == []
    renew(cached / "01.png")
    for latents, is_read in (("_sd.npz", True), ("_sdxl.npz", True), ("_flux.npz", False)):
        assert any("01.png (01.npz)" in line for line in lines(cached, latents)) == is_read


@pytest.mark.parametrize("latents", sorted({row.latents for row in ARCHITECTURES.values() if row.latents}))
def test_every_models_cache_files_are_known(cached, latents):
    cache(cached, f"01_0032x0032{latents}")
    renew(cached / "01.png")
    assert f"01.png (01_0032x0032{latents})" in lines(cached, latents)[0]


def test_a_picture_that_was_replaced_with_its_time_kept(cached):
    """As a copy does that keeps times: only the earlier run's digest tells."""
    paths = {str(cached / "01.png")}
    assert list(replaced(paths, "_sd.npz")) == [
        f"{cached}: 1 picture(s) are others than in the run before, and stage 1 may train on sd-scripts' latents of those: "
        "01.png (01_0032x0032_sd.npz); delete these .npz files."
    ]
    (cached / "01_0032x0032_sd.npz").unlink()
    assert list(replaced(paths, "_sd.npz")) == []
