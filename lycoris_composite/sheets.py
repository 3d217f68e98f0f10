"""Pictures and captions to one PNG that can be shown where no page can."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, MUTED = (255, 255, 255), (28, 30, 34), (92, 98, 109)
LEFT, RIGHT, WARNING = (168, 50, 26), (23, 85, 159), (138, 90, 0)
COLOURS = {"name": INK, "left": LEFT, "right": RIGHT, "muted": MUTED, "warning": WARNING}

Spans = Sequence[tuple[str, str]]  # (one of COLOURS, text)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: it has far more scripts than Pillow's own."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def wrapped(spans: Spans, width: int, own: ImageFont.FreeTypeFont) -> list[list[tuple[str, str]]]:
    """The spans in lines at most `width` pixels long, broken at spaces; a word that is longer is cut."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0.0
    for role, text in spans:
        for word in _words(text):
            length = own.getlength(word)
            if used and used + own.getlength(word.rstrip()) > width:
                lines.append([])
                used = 0.0
                word = word.lstrip()
                length = own.getlength(word)
            while own.getlength(word.rstrip()) > width and len(word) > 1:
                fitting = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or own.getlength(word[:n]) <= width)
                lines[-1].append((role, word[:fitting]))
                lines.append([])
                word = word[fitting:]
                length = own.getlength(word)
            lines[-1].append((role, word))
            used += length
    return lines


def _words(text: str) -> list[str]:
    """The text in pieces that end with their space."""
    pieces = text.replace("\n", " ").split(" ")
    return [piece + " " for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def write_lines(pen: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[Spans], own: ImageFont.FreeTypeFont) -> None:
    """Writes lines from `wrapped` below one another, each word in its role's colour."""
    left, top = place
    for line in lines:
        at = float(left)
        for role, text in line:
            pen.text((at, top), text, COLOURS[role], own)
            at += own.getlength(text)
        top += line_height(own)


def line_height(own: ImageFont.FreeTypeFont) -> int:
    return round(own.size * 1.4)


def captioned(picture: Image.Image, texts: Sequence[Spans], own: ImageFont.FreeTypeFont, least_width: int = 0) -> Image.Image:
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
