"""Whether the base model is good enough for the numbers to mean something: `python gate.py`.

It is asked for two people who were never drawn together, from left to right by their tags. The gate: in at least 80 %
of the slots hair and outfit are those asked for, and in at least 95 % of the pictures two people stand in front of one
unbroken background. Exit code 1 where it fails. The scorer judges; intervals are Wilson's at 95 %.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import pictures
import scorer
import world

HERE = Path(__file__).parent
SEED = 11
LEAST_SLOTS, LEAST_PICTURES = 0.80, 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=HERE / "base", metavar="DIR", help="(default: base/ beside this file)")
    parser.add_argument("--count", type=int, default=200, help="pictures (default: %(default)s)")
    args = parser.parse_args()
    scenes = _scenes(args.count)
    shown = pictures.generate(pictures.load(args.base), [world.caption(*scene) for scene in scenes], seed=SEED)
    judgements = scorer.Scorer()(shown)
    slots = [
        pair
        for (figures, _), judged in zip(scenes, judgements, strict=True)
        for pair in zip(figures, judged.slots, strict=True)
    ]
    standing = sum(all(slot.identity for slot in judged.slots) and not any(judged.seams) for judged in judgements)
    dressed = sum(_has(figure, slot, 0, 4) for figure, slot in slots)
    print(f"hair in its slot:                 {_share(sum(_has(figure, slot, 0, 2) for figure, slot in slots), len(slots))}")
    print(f"outfit in its slot:               {_share(sum(_has(figure, slot, 2, 4) for figure, slot in slots), len(slots))}")
    print(f"hair and outfit in their slot:    {_share(dressed, len(slots))}, at least {LEAST_SLOTS:.0%} wanted")
    print(f"two people, unbroken background:  {_share(standing, len(scenes))}, at least {LEAST_PICTURES:.0%} wanted")
    sys.exit(0 if dressed >= LEAST_SLOTS * len(slots) and standing >= LEAST_PICTURES * len(scenes) else 1)


def _scenes(count: int) -> list[tuple[list[world.Figure], str]]:
    rng = random.Random(SEED)
    return [([world.random_figure(rng) for _ in range(2)], rng.choice(world.BACKGROUNDS)) for _ in range(count)]


def _has(figure: world.Figure, slot: scorer.Slot, start: int, stop: int) -> bool:
    return slot.identity is not None and slot.identity[start:stop] == figure.identity[start:stop]


def _share(right: int, count: int) -> str:
    low, high = wilson(right, count)
    return f"{right / count:6.1%} ({low:.1%} to {high:.1%})"


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval for a share at 95 %."""
    z, share = 1.96, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, middle - reach), min(1.0, middle + reach)


if __name__ == "__main__":
    main()
