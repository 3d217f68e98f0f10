"""Text on the PNGs: in a font that has it, in lines that fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager, get_data_path
from PIL import Image

from lycoris_composite.look import contact_sheet

STIX = Path(get_data_path()) / "fonts/ttf/STIXGeneral.ttf"
MISSING = "\u1d81"  # a letter that STIX has and DejaVu Sans has not


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What is known of the machine's fonts is learnt anew."""
    caches = (contact_sheet._font_with, contact_sheet._machine_fonts, contact_sheet._code_points)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def drawn(text: str) -> np.ndarray:
    return np.asarray(contact_sheet.captioned(Image.new("RGB", (200, 8)), [[("name", text)]], contact_sheet.dejavu(20)))


def test_what_the_font_lacks_is_written_in_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in the font that has a box for everything, though that comes first here."""
    names = ("Last Resort High-Efficiency", "STIXGeneral")
    entries = sorted((one for one in font_manager.fontManager.ttflist if one.name in names), key=lambda one: one.name)
    assert entries[0].name == names[0]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    own, other = contact_sheet.dejavu(20), contact_sheet._sized(str(STIX), 20)
    assert own.getlength(MISSING) != other.getlength(MISSING)
    assert contact_sheet._length(f"a{MISSING}", own) == own.getlength("a") + other.getlength(MISSING)


def test_without_any_such_font_it_is_a_box_of_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where a font on the machine is broken or gone."""
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    entries = [font_manager.FontEntry(fname=str(path), name="x") for path in (broken, tmp_path / "gone.ttf")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    assert (drawn(MISSING) < 128).any()


@pytest.mark.parametrize(
    "text", ["one two three four five six seven eight", "x" * 400, f"a {MISSING * 90} b", "", " ", "   many   "]
)
def test_lines_fit_and_hold_the_whole_text(text: str) -> None:
    own, width = contact_sheet.dejavu(14), 120
    lines = contact_sheet.wrapped([("name", "uzuki, "), ("tags0", text)], width, own)
    for line in lines:
        assert contact_sheet._length("".join(piece for _, piece in line).rstrip(), own) <= width
    written = "".join(piece for line in lines for role, piece in line if role == "tags0")
    assert written.split() == text.split() or written.replace(" ", "") == text.replace(" ", "")
