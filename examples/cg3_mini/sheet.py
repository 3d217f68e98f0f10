"""The demo's picture: what goes in, what stage 2 trains on, and the same prompts before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

SCALE, GAP, MARGIN = 3, 12, 24
SHOWN = 4  # pairs in a row; singles are half as wide
PAPER, INK = (255, 255, 255), (28, 30, 34)


def save(folder: Path, shown: Mapping[str, torch.Tensor], wanted: Sequence[Any]) -> Path:
    """Writes folder/cg3_mini.png and returns its path."""
    singles = [path for character in sorted((folder / "data").iterdir()) for path in sorted(character.glob("*.png"))[:2]]
    rows = [("what you have", [_enlarged(Image.open(path)) for path in singles])]
    rows.append(("what stage 2 trains on", _composites(folder / "data")))
    for name, pictures in shown.items():
        rows.append((name, [_enlarged(_image(picture)) for picture in pictures[:SHOWN]]))
    captions = [request.prompt.split(", ")[0] for request in wanted[:SHOWN]]
    path = folder / "cg3_mini.png"
    _sheet(rows, captions).save(path)
    return path


def _composites(data: Path) -> list[Image.Image]:
    characters = [sorted(folder.glob("*.png")) for folder in sorted(data.iterdir())]
    found = []
    for number in range(SHOWN):
        left, right = (Image.open(characters[(number + turn) % 3][number + 4 * turn]) for turn in (0, 1))
        joined = Image.new("RGB", (left.width + right.width, left.height))
        joined.paste(left, (0, 0))
        joined.paste(right, (left.width, 0))
        found.append(_enlarged(joined))
    return found


def _image(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(picture.add(1).mul(127.5).clamp(0, 255).byte().permute(1, 2, 0).numpy())


def _enlarged(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB").resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.LANCZOS)


def _sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], captions: Sequence[str]) -> Image.Image:
    font = ImageFont.load_default(20)
    small = ImageFont.load_default(16)
    width = 2 * MARGIN + SHOWN * (128 * SCALE + GAP) - GAP
    height = MARGIN + len(rows) * (64 * SCALE + 34 + GAP) + 30
    sheet = Image.new("RGB", (width, height), PAPER)
    pen, top = ImageDraw.Draw(sheet), MARGIN
    for number, (title, pictures) in enumerate(rows):
        pen.text((MARGIN, top), title, INK, font)
        top, left = top + 30, MARGIN
        for picture in pictures:
            sheet.paste(picture, (left, top))
            left += picture.width + GAP
        if number == len(rows) - 1:
            for place, caption in enumerate(captions):
                pen.text((MARGIN + place * (128 * SCALE + GAP), top + 64 * SCALE + 6), caption, INK, small)
        top += 64 * SCALE + GAP
    return sheet
