"""What the plan costs at a size nobody has yet: 100,000 images of 50 characters, of varied sizes.

Measured: building the Plan; an epoch's plan, which is the first access in a new epoch; and one composite with its
caption at a random index, for a hundredth, a tenth and all of the images, where the cost should not grow. Memory is
what tracemalloc counts (numpy's arrays among it), in runs apart from the timed ones, because it slows them. No image
file is needed: a plan reads none.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tracemalloc
from collections.abc import Callable

import bench

SEED = 42
RESOLUTION = (768, 768)
BATCH_SIZE = 2
BLOCK = 250  # accesses in a row, before another size has its turn
TAGS = 25  # of each image, and twice as many of a composite


def main() -> None:
    args = _arguments()
    bench.use_project()
    largest = _characters(args.images, args.characters)
    plan = _plan(largest)
    _print_plan(args, plan, _building(args, largest), _epoch(args, largest))
    _print_access(args)
    print(f"\n{bench.machine_line()}")


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    parser.add_argument("--images", type=int, default=100_000, help="of all characters together (default: %(default)s)")
    parser.add_argument("--characters", type=int, default=50, help="(default: %(default)s)")
    parser.add_argument("--accesses", type=int, default=5_000, help="random indices to look up (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of building and of epochs (default: %(default)s)")
    return parser.parse_args()


def _characters(images: int, characters: int) -> list:
    """Characters with images / characters images each, whose widths and heights go from 512 to 1536 pixels."""
    from lycoris_composite.data.characters import Character, Subset, TrainingImage
    from lycoris_composite.data.tags import CaptionRules

    rules = CaptionRules(shuffle_caption=True, keep_tokens=1)
    rng = random.Random(SEED)
    words = [f"tag {number}" for number in range(1000)]
    made = []
    for number in range(characters):
        trigger = f"character{number:02}"
        own = images * (number + 1) // characters - images * number // characters
        pictures = []
        for place in range(own):
            caption = ", ".join([trigger, *rng.sample(words, TAGS)])
            size = (rng.randrange(512, 1537), rng.randrange(512, 1537))
            pictures.append(TrainingImage(f"/data/{trigger}/{place:05}.png", size, caption))
        subset = Subset(f"/data/{trigger}", 1, None, ".txt", rules, tuple(pictures))
        made.append(Character(trigger, subset, tuple(picture.caption for picture in pictures)))
    return made


def _plan(characters: list):
    from lycoris_composite.composites.plan import CompositeOptions, Plan
    from lycoris_composite.data.buckets import Canvas

    canvas = Canvas(RESOLUTION, bucket_range=(256, 1024))
    return Plan(characters, canvas, CompositeOptions(), BATCH_SIZE, SEED)


def _building(args: argparse.Namespace, characters: list) -> tuple[float, int, int]:
    """Median seconds, and the bytes of `_memory`."""
    times = [bench.seconds(lambda: _plan(characters)) for _ in range(args.repeats)]
    return statistics.median(times), *_memory(lambda: _plan(characters))


def _epoch(args: argparse.Namespace, characters: list) -> tuple[float, int, int]:
    """Median seconds of a new epoch's first batch and first composite, and the bytes of `_memory`."""
    plan = _plan(characters)

    def first_access(epoch: int) -> object:
        return plan.batch(epoch, 0), plan.composite(epoch, 0)

    times = [bench.seconds(lambda epoch=epoch: first_access(epoch)) for epoch in range(1, args.repeats + 1)]
    fresh = _plan(characters)
    return statistics.median(times), *_memory(lambda: (fresh.batch(1, 0), fresh))


def _access(plan) -> Callable[[], object]:
    """A call that looks up one composite and its caption at a random index, the epoch's plan being there."""
    rng = random.Random(SEED)
    plan.composite(1, 0)

    def access() -> object:
        composite = plan.composite(1, rng.randrange(plan.composites))
        return composite.size, plan.caption(composite, 1)

    return access


def _memory(action: Callable[[], object]) -> tuple[int, int]:
    """Bytes at the peak, and those still held by the result."""
    tracemalloc.start()
    result = action()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del result
    return peak, held


def _print_plan(args: argparse.Namespace, plan, building: tuple, epoch: tuple) -> None:
    rows = [
        [name, f"{seconds:.3f} s", f"{peak / 1e6:.1f} MB", f"{held / 1e6:.1f} MB"]
        for name, (seconds, peak, held) in (("building the Plan", building), ("an epoch's plan", epoch))
    ]
    title = (
        f"{args.images:,} images, {args.characters} characters: {plan.composites:,} composites of {len(plan.sizes)} sizes "
        f"in {plan.batches:,} batches"
    )
    bench.print_table(title, ["", f"time, median of {args.repeats}", "memory, peak", "memory, held"], rows)


def _print_access(args: argparse.Namespace) -> None:
    plans = {images: _plan(_characters(images, args.characters)) for images in _sizes(args)}
    actions = {f"{images:,}": _access(plan) for images, plan in plans.items()}
    times = bench.in_turn(actions, max(2, args.accesses // BLOCK), BLOCK)
    rows = []
    for name, rounds in times.items():
        cuts = statistics.quantiles((value for block in rounds for value in block), n=100)
        rows.append([name, *(f"{cuts[percent - 1] * 1e6:.0f} us" for percent in (10, 50, 90))])
    title = f"one composite and its caption, {args.accesses:,} random indices of each, taken in turn"
    bench.print_table(title, ["images", "10 %", "median", "90 %"], rows)


def _sizes(args: argparse.Namespace) -> list[int]:
    return [max(2 * args.characters, args.images // share) for share in (100, 10, 1)]


if __name__ == "__main__":
    main()
