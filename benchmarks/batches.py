"""A batch of composites from CompositeDataset, against one of the same composites from upstream's DreamBoothDataset.

Upstream's side reads files: an epoch's composites joined with Pillow, each with its whole caption, the tags in file
order. Both sides have the same sizes, batch size, tokenizer (225 tokens) and shuffled captions, latents cached in
memory, no workers, and upstream's DataLoader and collator around them, as the trainer has. Two tables:

- the loader alone: seconds to fetch a batch;
- a whole training step: the fetch, the trainer's own `process_batch`, backward and an AdamW update of a LoHa on every
  layer, with a small model (or `--model`), at `--step_resolution`.

Both sides run in turn in one process, block by block, the order turning round. The ratio is that of the medians over
all batches; behind it the quartiles of the blocks' own ratios, which say how far to trust it.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import bench

NAMES = ("uzuki", "rin", "mio")
OURS, UPSTREAM = "CompositeDataset", "DreamBoothDataset"


def main() -> None:
    args = _arguments()
    with bench.scratch(args.work) as work:
        bench.use_checkout(args.sd_scripts, narrow_in=None if args.model else work)
        _measure(args, work)


def _measure(args: argparse.Namespace, work: Path) -> None:
    import kohya_data
    import tiny

    with kohya_data.sd_strategies(tiny.make_tokenizer_cache(work / "tokenizer")):
        folders = _characters(work / "characters", args)
        model = args.model or tiny.make_model(work / "model")
        vae = _vae(model)
        loaders = _loaders(folders, work / "composites", args, args.resolution, vae)
        _print_tokens(loaders)
        fetches = {name: lambda loader=loader: next(loader) for name, loader in loaders.items()}
        fetching = bench.in_turn(fetches, args.rounds, args.block)
        _print(f"the loader: batches of {args.batch_size} at {args.resolution}", fetching)
        loaders = _loaders(folders, work / "step", args, args.step_resolution, vae)
        training = bench.in_turn(_steps(loaders, model), args.step_rounds + 1, args.step_block)
        training = {name: rounds[1:] for name, rounds in training.items()}  # the first one warms up
        _print(f"a training step: batches of {args.batch_size} at {args.step_resolution}", training)
        more = bench.median_of(fetching[OURS]) - bench.median_of(fetching[UPSTREAM])
        share = more / bench.median_of(training[UPSTREAM])
        print(f"\nthe loaders' medians differ by {more * 1e3:+.2f} ms, which is {share:+.2%} of a step")
        print(f"\n{bench.machine_line()}")


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    bench.add_checkout(parser)
    parser.add_argument("--model", metavar="DIR", help="an SD 1.x model in diffusers' format (default: a tiny random one)")
    parser.add_argument("--images", type=int, default=30, help="of each of three characters (default: %(default)s)")
    parser.add_argument("--tags", type=int, default=25, help="of each image (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--resolution", type=int, default=768, help="side of a composite's area (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="blocks of each loader (default: %(default)s)")
    parser.add_argument("--block", type=int, default=45, help="batches in a row (default: %(default)s)")
    parser.add_argument("--step_resolution", type=int, default=256, help="the same for the steps (default: %(default)s)")
    parser.add_argument("--step_rounds", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--step_block", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the files here (default: a temporary folder)")
    return parser.parse_args()


def _characters(folder: Path, args: argparse.Namespace) -> list[Path]:
    """A folder for each character, with captions as long as those that taggers write."""
    import tiny

    tiny.draw_characters(folder, images=args.images, size=(256, 256), names=NAMES)
    words = [f"{colour} {thing}" for colour in tiny.COLOURS for thing in ("hair", "eyes", "dress", "sky", "shoes", "ribbon")]
    rng = random.Random(0)
    for path in sorted(folder.rglob("*.txt")):
        name = path.read_text(encoding="utf-8").split(",")[0]
        path.write_text(", ".join([name, *rng.sample(words, args.tags)]), encoding="utf-8")
    return sorted(folder.iterdir())


def _vae(model: str | Path):
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(model, subfolder="vae").requires_grad_(False).eval()


def _loaders(folders: list[Path], files: Path, args: argparse.Namespace, resolution: int, vae) -> dict[str, Iterator[dict]]:
    """Endless batches of both kinds."""
    import kohya_data

    ours = kohya_data.composites_of(folders, (resolution, resolution), args.batch_size)
    _write_composites(ours.plan, files)
    upstream = kohya_data.files_of(files, ours.plan.sizes[0], args.batch_size)
    with kohya_data.untracked():
        for dataset in (ours, upstream):
            kohya_data.cache_latents(dataset, vae)
    assert len(ours) == len(upstream), (len(ours), len(upstream))
    return {UPSTREAM: kohya_data.endless(upstream), OURS: kohya_data.endless(ours)}


def _write_composites(plan, folder: Path) -> None:
    """The first epoch's composites as files, with captions in file order."""
    import kohya_data

    from lycoris_composite.composites.captions import render

    folder.mkdir()
    for index in range(plan.composites):
        panels = plan.composite(1, index).panels
        path = folder / f"{index:05}.png"
        kohya_data.join_to_file([panel.image.path for panel in panels], [panel.size for panel in panels], path)
        triggers = [panel.character.trigger for panel in panels]
        tags = [panel.caption.split(", ")[1:] for panel in panels]
        path.with_suffix(".txt").write_text(render(plan.options.caption, triggers, tags), encoding="utf-8")


def _steps(loaders: dict[str, Iterator[dict]], model: str | Path) -> dict[str, Callable[[], None]]:
    """For each loader a call that trains one step on its next batch; all train the same network."""
    from kohya_step import Step

    step = Step(model)
    return {name: lambda loader=loader: step(next(loader)) for name, loader in loaders.items()}


def _print_tokens(loaders: dict[str, Iterator[dict]]) -> None:
    """What both tokenize, because captions of unlike length would make the comparison unfair."""
    counts = []
    for name, loader in loaders.items():
        batches = [next(loader) for _ in range(20)]
        ids = [row for batch in batches for row in batch["input_ids_list"][0]]
        counts.append(f"{name} {sum(int((row < 49406).sum()) for row in ids) / len(ids):.0f}")
    print(f"\ntokens a caption, mean of 20 batches: {', '.join(counts)}")


def _print(title: str, times: dict[str, list[list[float]]]) -> None:
    rows = []
    for name, rounds in times.items():
        flat = [value for block in rounds for value in block]
        cuts = [f"{cut * 1e3:,.2f} ms" for cut in statistics.quantiles(flat, n=4)]
        ratio = bench.median_of(rounds) / bench.median_of(times[UPSTREAM])
        spread = "{:.3f} to {:.3f}".format(*bench.ratio_quartiles(rounds, times[UPSTREAM]))
        rows.append([name, f"{len(flat):,}", *cuts, f"{ratio:.3f}", "" if name == UPSTREAM else spread])
    header = ["", "measured", "25 %", "median", "75 %", "ratio of medians", "blocks' ratios, 25 to 75 %"]
    bench.print_table(title, header, rows)


if __name__ == "__main__":
    main()
