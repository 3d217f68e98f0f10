"""Pictures and captions to one PNG that can be shown where no page can."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.font_manager import FontEntry
    from matplotlib.ft2font import FT2Font

PAPER, INK, MUTED = (255, 255, 255), (28, 30, 34), (92, 98, 109)
LEFT, RIGHT, WARNING = (168, 50, 26), (23, 85, 159), (138, 90, 0)
COLOURS = {"name": INK, "left": LEFT, "right": RIGHT, "muted": MUTED, "warning": WARNING}

Spans = Sequence[tuple[str, str]]  # (one of COLOURS, text)


Font = ImageFont.FreeTypeFont


@cache
def font(size: int, bold: bool = False) -> Font:
    """DejaVu Sans, which matplotlib brings along: it has far more scripts than Pillow's own. What it lacks, Chinese and
    Japanese above all, is written in a font of the machine's that has it."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _pieces(text: str, own: Font) -> Iterator[tuple[str, Font]]:
    """The text in pieces that one font has, each with its font."""
    for name, piece in groupby(text, lambda character: _font_with(character, str(own.path))):
        yield "".join(piece), own if name == own.path else _sized(name, own.size)


@cache
def _font_with(character: str, path: str) -> str:
    """Path of a font that has the character: the given one's where it has."""
    if character.isascii() or _has(path, character):
        return path
    return next((name for name in _fallbacks() if _has(name, character)), path)


@cache
def _fallbacks() -> list[str]:
    """The machine's fonts, upright and regular ones first. The Last Resort font, which matplotlib brings along, has a
    box for every character, so it comes last."""
    from matplotlib.font_manager import fontManager

    def rank(entry: FontEntry) -> tuple[bool, bool, bool]:
        return entry.name.startswith("Last Resort"), entry.style != "normal", entry.weight not in (400, "normal", "regular")

    return [entry.fname for entry in sorted(fontManager.ttflist, key=rank)]


def _has(path: str, character: str) -> bool:
    opened = _opened(path)
    return opened is not None and opened.get_char_index(ord(character)) != 0


@cache
def _opened(path: str) -> FT2Font | None:
    """None for a font that cannot be drawn with at any size, as those of coloured bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        _sized(path, 12)
        return FT2Font(path)
    except (OSError, RuntimeError):
        return None


@cache
def _sized(path: str, size: float) -> Font:
    return ImageFont.truetype(path, size)


def _length(text: str, own: Font) -> float:
    """Of the text as it is written, in pixels."""
    return sum(font.getlength(piece) for piece, font in _pieces(text, own))


def wrapped(spans: Spans, width: int, own: Font) -> list[list[tuple[str, str]]]:
    """The spans in lines at most `width` pixels long, broken at spaces; a word that is longer is cut."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0.0
    for role, text in spans:
        for word in _words(text):
            if used and used + _length(word.rstrip(), own) > width:
                lines.append([])
                used, word = 0.0, word.lstrip()
            while _length(word.rstrip(), own) > width and len(word) > 1:
                fitting = _fitting(word, width, own)
                lines[-1].append((role, word[:fitting]))
                lines.append([])
                word = word[fitting:]
            lines[-1].append((role, word))
            used += _length(word, own)
    return lines


def _fitting(word: str, width: int, own: Font) -> int:
    """How many of the word's characters fit, at least one."""
    return max(1, bisect_right(range(1, len(word)), width, key=lambda count: _length(word[:count], own)))


def _words(text: str) -> list[str]:
    """The text in pieces that end with their space."""
    pieces = text.replace("\n", " ").split(" ")
    return [piece + " " for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def write_lines(pen: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[Spans], own: Font) -> None:
    """Writes lines from `wrapped` below one another, each word in its role's colour."""
    left, top = place
    for line in lines:
        at = float(left)
        for role, text in line:
            for piece, font in _pieces(text, own):
                pen.text((at, top + own.getmetrics()[0]), piece, COLOURS[role], font, anchor="ls")
                at += font.getlength(piece)
        top += line_height(own)


def line_height(own: Font) -> int:
    return round(own.size * 1.4)


def captioned(picture: Image.Image, texts: Sequence[Spans], own: Font, least_width: int = 0) -> Image.Image:
    """The picture above texts that are as wide as it, or `least_width` pixels; each begins a line."""
    width = max(picture.width, least_width)
    lines = [line for text in texts for line in wrapped(text, width, own)]
    sheet = Image.new("RGB", (width, picture.height + 6 + len(lines) * line_height(own)), PAPER)
    sheet.paste(picture, (0, 0))
    write_lines(ImageDraw.Draw(sheet), (0, picture.height + 6), lines, own)
    return sheet


def scaled(picture: Image.Image, height: int) -> Image.Image:
    """The picture at a height in pixels."""
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)
