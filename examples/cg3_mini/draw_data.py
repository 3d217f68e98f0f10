"""Draws the three named characters alone, in kohya's layout: `python draw_data.py cg3_mini_data`.

Captions hold the trigger word and what a picture shows besides the character: what somebody always wears is left to
the trigger word, as people prune captions for a character.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import world

SEED = 3
IMAGES = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the characters' folders go")
    parser.add_argument("--images", type=int, default=IMAGES, help="of each character (default: %(default)s)")
    args = parser.parse_args()
    draw_data(args.folder, args.images)


def draw_data(folder: Path, images: int = IMAGES) -> Path:
    """`1_<name>/0000.png` with its caption, for every named character. The same pictures every time."""
    for name in world.CHARACTERS:
        own = folder / f"1_{name}"
        own.mkdir(parents=True, exist_ok=True)
        rng = random.Random(f"{SEED} {name}")
        backgrounds = rng.sample(world.BACKGROUNDS, len(world.BACKGROUNDS))
        for number in range(images):
            figure, background = world.character(name, rng), backgrounds[number % len(backgrounds)]
            world.draw([figure], background, rng).save(own / f"{number:04}.png")
            tags = ", ".join([name, "1girl", *figure.doings, background])
            (own / f"{number:04}.txt").write_text(tags, encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
