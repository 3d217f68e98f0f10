"""Draws single images above the composites that the guide's config makes of them: the README's picture.

python examples/draw_composites.py FOLDER picture.jpg      # FOLDER holds <repeats>_<character> folders
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from lycoris_composite.composites.pictures import composite_picture
from lycoris_composite.config import settings as config
from lycoris_composite.data.images import read_image
from lycoris_composite.look import contact_sheet
from lycoris_composite.look.reading import read
from lycoris_composite.look.statistics import Sample

CONFIG = Path(__file__).with_name("cg3.toml")
SEED = 22  # its first composites of the three photo subjects show six different photos
HEIGHT, GAP = 230, 14  # of a picture, and between pictures, in pixels


def main(folder: str, output: str) -> None:
    found = read(config.load_settings(CONFIG, [f"train_data_dir={folder}", f"seed={SEED}"]))
    [plan] = found.plans
    singles = [_single(one.images[place].path, one.captions[place]) for one in plan.characters for place in (0, 2)]
    composites = [_composite(sample) for sample in _different(list(found.samples(plan, 1)))]
    _sheet([("you have", singles), ("it trains on", composites)]).save(output, quality=85)


def _different(samples: Sequence[Sample]) -> list[Sample]:
    """The first samples whose pairs of characters are not the same, left and right apart."""
    found: dict[tuple[str, ...], Sample] = {}
    for sample in samples:
        found.setdefault(tuple(sorted(panel.character.trigger for panel in sample.composite.panels)), sample)
    return list(found.values())


def _single(path: str, caption: str) -> Image.Image:
    name, _, tags = caption.partition(", ")
    picture = _scaled(Image.fromarray(read_image(path)))
    return contact_sheet.captioned(picture, [[("name", name)], [("muted", tags)]], contact_sheet.dejavu(14))


def _composite(sample: Sample) -> Image.Image:
    picture = _scaled(composite_picture(sample.composite))
    texts = [[span for span in sample.spans if span[0] == role] for role in ("name", "left", "right")]
    return contact_sheet.captioned(picture, texts, contact_sheet.dejavu(14))


def _scaled(picture: Image.Image) -> Image.Image:
    return ImageOps.scale(picture, HEIGHT / picture.height, Image.Resampling.LANCZOS)


def _sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    parts = []
    for title, pictures in rows:
        parts += [[contact_sheet.text_block([[("muted", title)]], contact_sheet.dejavu(17), 200)], pictures]
    return ImageOps.expand(contact_sheet.in_rows(parts, GAP), GAP, contact_sheet.PAPER)


if __name__ == "__main__":
    main(*sys.argv[1:])
