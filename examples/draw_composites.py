"""Draws single images above the composites that a config makes of them: the README's picture.

python examples/draw_composites.py FOLDER picture.jpg      # FOLDER holds <repeats>_<character> folders
"""

from __future__ import annotations

import sys

from PIL import Image, ImageDraw, ImageFont, ImageOps

from lycoris_composite.images import read_image
from lycoris_composite.plan import Composite, CompositeOptions, Plan
from lycoris_composite.subsets import datasets_of, plan_of

HEIGHT = 230  # of every picture in the sheet, in pixels
GAP = 14
PAPER, INK, GREY = (255, 255, 255), (28, 30, 34), (110, 115, 125)
COLOURS = ((190, 60, 30), (25, 95, 190))  # of the left and the right character's words


def main(folder: str, output: str) -> None:
    settings = {
        "train_data_dir": folder,
        "resolution": "768,768",
        "enable_bucket": True,
        "caption_extension": ".txt",
        "keep_tokens": 1,
    }
    [dataset] = datasets_of(settings, "natural")
    plan = plan_of(dataset, CompositeOptions(), seed=3)
    singles = [_single(c.images[place].path, c.captions[place]) for c in plan.characters for place in (0, 2)]
    composites = [_composite(plan, composite) for composite in _different(plan)]
    _sheet([("you have", singles), ("it trains on", composites)]).save(output, quality=85)


def _different(plan: Plan) -> list[Composite]:
    """The first composites whose pairs of characters are not the same, left and right apart."""
    found: dict[tuple, Composite] = {}
    for index in range(plan.composites):
        composite = plan.composite(1, index)
        found.setdefault(tuple(sorted(panel.character.trigger for panel in composite.panels)), composite)
    return list(found.values())


def _single(path: str, caption: str) -> Image.Image:
    name, _, tags = caption.partition(", ")
    picture = ImageOps.contain(Image.fromarray(read_image(path)), (10_000, HEIGHT))
    return _captioned(picture, [(name, INK), (tags, GREY)])


def _composite(plan: Plan, composite: Composite) -> Image.Image:
    panels = [ImageOps.fit(Image.fromarray(read_image(panel.image.path)), panel.size) for panel in composite.panels]
    joined = Image.new("RGB", composite.size)
    left = 0
    for panel in panels:
        joined.paste(panel, (left, 0))
        left += panel.width
    caption = plan.caption(composite, 1)
    name, _, tags = caption.partition(", ")
    own = len(composite.panels[0].caption.split(", ")) - 1
    words = tags.split(", ")
    lines = [(name, INK), (", ".join(words[:own]), COLOURS[0]), (", ".join(words[own:]), COLOURS[1])]
    return _captioned(ImageOps.contain(joined, (10_000, HEIGHT)), lines)


def _captioned(picture: Image.Image, lines: list[tuple[str, tuple]]) -> Image.Image:
    size = 15
    sheet = Image.new("RGB", (picture.width, picture.height + 3 * (size + 6) + 6), PAPER)
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for number, (text, colour) in enumerate(lines):
        font = ImageFont.load_default(size)
        while draw.textlength(text, font) > picture.width and len(text) > 4:
            text = text[:-2].rstrip(" ,.…") + "…"
        draw.text((0, picture.height + 5 + number * (size + 6)), text, fill=colour, font=font)
    return sheet


def _sheet(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    widest = max(sum(picture.width + GAP for picture in pictures) for _, pictures in rows) + GAP
    sheet = Image.new("RGB", (widest, sum(pictures[0].height + 44 for _, pictures in rows) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for title, pictures in rows:
        draw.text((GAP, top), title, fill=GREY, font=ImageFont.load_default(18))
        left = GAP
        for picture in pictures:
            sheet.paste(picture, (left, top + 28))
            left += picture.width + GAP
        top += pictures[0].height + 44
    return sheet


if __name__ == "__main__":
    main(*sys.argv[1:])
