"""Pictures and captions to one PNG that can be shown where no page can."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PAPER, MUTED = (255, 255, 255), (92, 98, 109)
_COLOURS = {"name": (28, 30, 34), "tags0": (168, 50, 26), "tags1": (23, 85, 159), "muted": MUTED, "warning": (138, 90, 0)}

Font = ImageFont.FreeTypeFont
Span = tuple[str, str]  # (one of _COLOURS, text)


def dejavu(size: int, bold: bool = False) -> Font:
    """DejaVu Sans, which matplotlib ships: it has more scripts than Pillow's default font."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return _sized(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


@cache
def _sized(path: str, size: float) -> Font:
    return ImageFont.truetype(path, size)


def _pieces(text: str, font: Font) -> Iterator[tuple[str, Font]]:
    """Splits a text by the font that has its characters: the given font, or another for Chinese and Japanese above all."""
    for piece_font, characters in groupby(text, lambda character: _font_with(character, font)):
        yield "".join(characters), piece_font


@cache
def _font_with(character: str, font: Font) -> Font:
    """The first font that has the character: the given one, else one of the machine's. The given one where none has it."""
    paths = [font.path] if character.isascii() else [font.path, *_machine_fonts()]
    return _sized(next((path for path in paths if ord(character) in _code_points(path)), font.path), font.size)


@cache
def _machine_fonts() -> list[str]:
    """Paths: upright and regular fonts first, and last matplotlib's Last Resort font, which has a box for everything."""
    from matplotlib.font_manager import fontManager

    regular = (400, "normal", "regular")
    entries = sorted(fontManager.ttflist, key=lambda entry: (entry.style != "normal", entry.weight not in regular))
    return [entry.fname for entry in sorted(entries, key=lambda entry: entry.name.startswith("Last Resort"))]


@cache
def _code_points(path: str) -> Collection[int]:
    """The characters that a font has. None for a font that opens at no size, as those of coloured bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        _sized(path, 12)
        return FT2Font(path).get_charmap().keys()
    except (OSError, RuntimeError):
        return ()


def _length(text: str, font: Font) -> float:
    """In pixels."""
    return sum(piece_font.getlength(piece) for piece, piece_font in _pieces(text, font))


def wrapped(spans: Sequence[Span], width: int, font: Font) -> list[list[Span]]:
    """The spans in lines at most `width` pixels long, broken at spaces; a word that is longer is broken anywhere."""
    lines: list[list[Span]] = [[]]
    used = 0.0
    for role, text in spans:
        for word in re.findall("[^ ]* |[^ ]+", text.replace("\n", " ")):
            for piece in [word] if _length(word.rstrip(), font) <= width else word:
                if used and used + _length(piece.rstrip(), font) > width:
                    lines.append([])
                    used, piece = 0.0, piece.lstrip()
                lines[-1].append((role, piece))
                used += _length(piece, font)
    return lines


def text_block(texts: Sequence[Sequence[Span]], font: Font, width: int) -> Image.Image:
    """The texts in their roles' colours, each beginning a line."""
    lines = [line for spans in texts for line in wrapped(spans, width, font)]
    line_height = round(font.size * 1.4)
    block = Image.new("RGB", (width, len(lines) * line_height), PAPER)
    pen = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        left, baseline = 0.0, number * line_height + font.getmetrics()[0]
        for role, text in line:
            for piece, piece_font in _pieces(text, font):
                pen.text((left, baseline), piece, _COLOURS[role], piece_font, anchor="ls")
                left += piece_font.getlength(piece)
    return block


def in_rows(rows: Sequence[Sequence[Image.Image]], gap: int) -> Image.Image:
    """The pictures from left to right and the rows from top to bottom, `gap` pixels apart."""
    width = max(sum(picture.width + gap for picture in row) - gap for row in rows)
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (width, sum(height + gap for height in heights) - gap), PAPER)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + gap
        top += height + gap
    return sheet


def captioned(picture: Image.Image, texts: Sequence[Sequence[Span]], font: Font, least_width: int = 0) -> Image.Image:
    """The picture above texts that are as wide as it, or `least_width` pixels; each begins a line."""
    return in_rows([[picture], [text_block(texts, font, max(picture.width, least_width))]], gap=6)
