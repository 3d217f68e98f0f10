"""Folders to characters, and every way in which a folder cannot be used."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lycoris_composite.data import characters
from lycoris_composite.data.characters import Character, Subset, characters_of, read_subset, unread_captions
from lycoris_composite.data.tags import CaptionRules
from lycoris_composite.errors import UserError
from tests.helpers import character, write_subset
from tests.tiny import broken_images, odd_images


def subset(folder: Path, class_tokens: str | None = None, **rules: Any) -> Subset:
    return Subset(str(folder), 1, class_tokens, ".txt", CaptionRules(**{"keep_tokens": 1, **rules}))


def read(*subsets: Subset) -> list[Character]:
    return characters_of(read_subset(one) for one in subsets)


@pytest.fixture
def mio(tmp_path: Path) -> Subset:
    """Somebody for the others to meet."""
    return subset(write_subset(tmp_path / "5_mio", {"01": "mio, hat"}))


# --- what is read ------------------------------------------------------------------------------------------------


def test_the_trigger_word_is_the_captions_first_tag(tmp_path, mio):
    folder = write_subset(tmp_path / "10_a folder", {"02": "rin, hat", "01": "rin, smile"}, size=(40, 30))
    first, second = read(subset(folder, "a folder"), mio)
    assert (first.trigger, second.trigger) == ("mio", "rin")
    assert second.captions == ("rin, smile", "rin, hat")
    assert [(Path(image.path).name, image.size) for image in second.images] == [("01.png", (40, 30)), ("02.png", (40, 30))]


def test_without_keep_tokens_it_is_the_class_tokens(tmp_path, mio):
    folder = write_subset(tmp_path / "10_rin", {"01": "smile, hat", "02": "1girl"})
    characters = read(subset(folder, "rin girl, blue", keep_tokens=0), mio)
    assert characters[1].trigger == "rin girl"
    assert characters[1].captions == ("smile, hat", "1girl")


def test_keep_tokens_separator_keeps_the_trigger_word_too(tmp_path, mio):
    folder = write_subset(tmp_path / "10_x", {"01": "rin ||| hat", "02": "rin ||| smile"})
    assert read(subset(folder, "x", keep_tokens=0, keep_tokens_separator="|||"), mio)[1].trigger == "rin"


def test_images_without_any_caption_are_captioned_by_the_class_tokens(tmp_path, mio):
    folder = write_subset(tmp_path / "10_rin", {"01": None, "02": None})
    rin = read(subset(folder, "rin, blue hair"), mio)[1]
    assert (rin.trigger, rin.captions) == ("rin", ("rin, blue hair",) * 2)


def test_characters_are_sorted_whatever_the_order_of_the_folders():
    cast = [character(name) for name in ("rin", "mio", "uzuki")]
    for order in permutations(cast):
        assert [one.trigger for one in characters_of(one.subset for one in order)] == ["mio", "rin", "uzuki"]


def test_turned_photos_have_their_upright_size(tmp_path, mio):
    photo = odd_images(tmp_path / "odd")["exif_rotated"]
    folder = write_subset(tmp_path / "10_rin", {})
    photo.rename(folder / "01.jpg")
    assert read(subset(folder, "rin"), mio)[1].images[0].size == (64, 48)


def test_one_line_of_a_caption_file_counts_unless_wildcards_are_on(tmp_path):
    folder = write_subset(tmp_path / "10_rin", {"01": "  rin, day \n\n rin, night\n"})
    assert read_subset(subset(folder)).images[0].caption == "rin, day"
    assert read_subset(subset(folder, enable_wildcard=True)).images[0].caption == "rin, day\nrin, night"


def test_captions_of_face_positions_are_found(tmp_path):
    """Upstream's tools write `01_1_2_3_4.png` for a face found in `01.png`, whose caption serves."""
    folder = write_subset(tmp_path / "rin", {"01_1_2_3_4": None})
    (folder / "01.txt").write_text("rin, face")
    assert read_subset(subset(folder)).images[0].caption == "rin, face"


# --- what cannot be used -----------------------------------------------------------------------------------------


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/10_rin: no such folder; correct the path"):
        read_subset(subset(tmp_path / "10_rin"))


def test_an_empty_folder(tmp_path, mio):
    folder = write_subset(tmp_path / "10_rin", {})
    (folder / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=f"{folder}: no images in it; add some or remove the subset"):
        read(subset(folder, "rin"), mio)


def test_a_folder_of_images_that_nobody_reads(tmp_path, mio):
    folder = write_subset(tmp_path / "10_rin", {})
    for name in ("a.heic", "b.jfif"):
        (folder / name).write_bytes(b"picture")
    with pytest.raises(UserError, match="no images in it that sd-scripts reads, though 2 picture.s. such as a.heic; add some"):
        read(subset(folder, "rin"), mio)


def test_one_character_alone(mio):
    with pytest.raises(UserError, match=f"two characters or more, but the data has 1 .{mio.folder}.; add another"):
        read(mio)
    with pytest.raises(UserError, match="the data has 0"):
        read()


@pytest.mark.parametrize(
    ("fault", "message"), [("empty", r"the file is empty \(0 bytes\); remove"), ("text", "cannot be read as an image; remove")]
)
def test_a_broken_image_is_named(tmp_path, fault, message):
    folder = write_subset(tmp_path / "10_rin", {"01": "rin"})
    broken_images(tmp_path / "broken")[fault].rename(folder / "02.png")
    with pytest.raises(UserError, match=f"{folder}/02.png: {message}"):
        read_subset(subset(folder))


@pytest.mark.parametrize("text", ["", "\n\n", "   \n"])
@pytest.mark.parametrize("wildcard", [False, True])
def test_an_empty_caption(tmp_path, text, wildcard):
    folder = write_subset(tmp_path / "10_rin", {"01": text})
    with pytest.raises(UserError, match=f"{folder}/01.txt: empty caption; write the trigger word and tags"):
        read_subset(subset(folder, enable_wildcard=wildcard))


def test_a_caption_that_is_not_utf8(tmp_path):
    folder = write_subset(tmp_path / "10_rin", {"01": "rin, caf\xe9".encode("latin-1")})
    with pytest.raises(UserError, match=rf"{folder}/01.txt: not UTF-8 \(byte 8\); save the caption as UTF-8"):
        read_subset(subset(folder))


def test_one_missing_caption_among_others(tmp_path, mio):
    folder = write_subset(tmp_path / "10_rin", {"01": "rin", "02": None})
    with pytest.raises(UserError, match=f"{folder}/02.txt: missing caption, while other images of the folder have one"):
        read(subset(folder, "rin"), mio)


@pytest.mark.parametrize("class_tokens", [None, ""])
def test_no_captions_and_no_class_tokens(tmp_path, mio, class_tokens):
    folder = write_subset(tmp_path / "10_", {"01": None})
    with pytest.raises(UserError, match=f"{folder}/01.txt: missing caption; .* or give the subset class_tokens"):
        read(subset(folder, class_tokens), mio)


def test_captions_of_another_extension_are_not_overlooked(tmp_path, mio):
    folder = write_subset(tmp_path / "rin", {"1": "rin, a", "2": "rin, b"})
    own = read_subset(replace(subset(folder, "rin"), caption_extension=".caption"))
    assert 'captions end in .txt and are not read, as caption_extension is ".caption"; set' in unread_captions(own)
    assert unread_captions(read_subset(replace(own, caption_extension=".txt"))) is None
    for path in folder.glob("*.txt"):
        path.unlink()
    assert unread_captions(read_subset(own)) is None


def test_how_many_captions_are_wrong_is_said(tmp_path, mio):
    folder = write_subset(tmp_path / "rin", {"1": "rin, a", "2": "run, b", "3": "ron, c", "4": "rin"})
    with pytest.raises(UserError, match=r'2.png: its caption begins with "run" \(and 1 more like it\), that of .*1.png'):
        read(mio, subset(folder))


def test_validation_holds_out_a_share():
    """As many as upstream's `split_train_val`; tests/trainers/kohya/test_dataset.py compares which."""
    paths = [Path(f"{number:02}.png") for number in range(10)]
    own = replace(subset(Path("rin")), held_out=0.25, held_out_seed=3)
    trained = characters._trained(paths, own)
    assert len(trained) == 8
    assert trained == sorted(trained) == characters._trained(paths, own)
    assert trained != characters._trained(paths, replace(own, held_out_seed=4))


def test_captions_of_one_folder_with_two_trigger_words(tmp_path, mio):
    folder = write_subset(tmp_path / "10_rin", {"01": "rin, hat", "02": "Run, smile"})
    with pytest.raises(UserError, match=f'{folder}/02.png: its caption begins with "Run", that of {folder}/01.png with "rin"'):
        read(subset(folder), mio)


@pytest.mark.parametrize(("text", "class_tokens"), [(", smile", None), (None, ", girl")])
def test_a_caption_without_a_first_tag(tmp_path, mio, text, class_tokens):
    folder = write_subset(tmp_path / "10_rin", {"01": text})
    with pytest.raises(UserError, match=f"{folder}/01.png: its caption has no first tag; begin it with the trigger word"):
        read(subset(folder, class_tokens), mio)


def test_class_tokens_without_a_first_tag(tmp_path, mio):
    folder = write_subset(tmp_path / "10_rin", {"01": "smile"})
    with pytest.raises(UserError, match=f"{folder}.*trigger word"):
        read(subset(folder, ", girl", keep_tokens=0), mio)


def test_two_folders_with_one_trigger_word(tmp_path, mio):
    one, other = (write_subset(tmp_path / name, {"01": "rin, hat"}) for name in ("10_rin", "5_rin school"))
    with pytest.raises(UserError, match=f'{other}: the trigger word "rin" is also that of {one}; put one character'):
        read(subset(one), subset(other), mio)


def test_a_folder_that_is_called_like_an_image(tmp_path):
    folder = write_subset(tmp_path / "10_rin", {"01": "rin"})
    (folder / "more.png").mkdir()
    with pytest.raises(UserError, match=f"{folder}/more.png: cannot be read as an image"):
        read_subset(subset(folder))


def test_pixels_are_not_needed_to_read_a_subset(tmp_path, mio):
    """A big set is laid out from headers; decoding every image is the launcher's check, once."""
    folder = write_subset(tmp_path / "10_rin", {"01": "rin"})
    broken_images(tmp_path / "broken")["truncated_jpg"].rename(folder / "02.jpg")
    (folder / "02.txt").write_text("rin, hat")
    assert Image.open(folder / "02.jpg").size == read(subset(folder), mio)[1].images[1].size


def test_tags_are_counted_by_caption_without_the_trigger_word():
    counts = character("rin", tags="smile, hat, smile").tag_counts()
    assert counts == [("hat", 3), ("smile", 3), *((f"rin picture {number}", 1) for number in range(3))]
