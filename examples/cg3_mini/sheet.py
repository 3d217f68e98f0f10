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


def save(folder: Path, shown: Mapping[str, tuple[torch.Tensor, Sequence[Any]]]) -> Path:
    """Writes folder/cg3_mini.png and returns its path. `shown` is each row's pictures and the requests they answer."""
    singles = [path for character in sorted((folder / "data").iterdir()) for path in sorted(character.glob("*.png"))[:2]]
    rows = [("what you have", [_enlarged(Image.open(path)) for path in singles], [])]
    rows.append(("what stage 2 trains on", _composites(folder / "data"), []))
    for name, (pictures, requests) in shown.items():
        asked = [f"asked for {' and '.join(request.asked)}" for request in requests[:SHOWN]]
        rows.append((name, [_enlarged(_image(picture)) for picture in pictures[:SHOWN]], asked))
    path = folder / "cg3_mini.png"
    _sheet(rows).save(path)
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


def _sheet(rows: Sequence[tuple[str, Sequence[Image.Image], Sequence[str]]]) -> Image.Image:
    """Rows of a title, pictures, and a line under each picture where there is one."""
    font, small = ImageFont.load_default(20), ImageFont.load_default(15)
    heights = [30 + 64 * SCALE + (24 if under else 0) + GAP for _, _, under in rows]
    sheet = Image.new("RGB", (2 * MARGIN + SHOWN * (128 * SCALE + GAP) - GAP, 2 * MARGIN + sum(heights)), PAPER)
    pen, top = ImageDraw.Draw(sheet), MARGIN
    for (title, pictures, under), height in zip(rows, heights, strict=True):
        pen.text((MARGIN, top), title, INK, font)
        left = MARGIN
        for place, picture in enumerate(pictures):
            sheet.paste(picture, (left, top + 30))
            if under:
                pen.text((left, top + 30 + 64 * SCALE + 4), under[place], INK, small)
            left += picture.width + GAP
        top += height
    return sheet
