"""Preparing composites, against what people do by hand.

Both sides start from the same folders of single images and end when training could begin, latents in memory.

By hand: every pair of images of two characters is joined with Pillow and saved with a caption file, then upstream's
own DreamBoothDataset caches the latents of these files. That is measured on a few pairs, spread over all of them, and
the time, passes and bytes are multiplied up. The files are made at the composite's own size, which is the least work
that gives these composites: neither is an image scaled twice nor a pixel encoded that training does not see.

Ours: CompositeDataset with `join = "latent"` on the folders, measured whole.

The VAE has the architecture of SD 1.5's with random weights, in float32 on the CPU; one pass per size before the clock
starts. The pictures are drawn and compress far better than artwork, so the bytes on disk are a lower bound.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path

import bench

NAMES = ("uzuki", "rin", "mio")


@dataclass
class Cost:
    """What one way of preparing took: seconds by step, VAE passes, pixels encoded, files and bytes written, latents held."""

    seconds: dict[str, float] = field(default_factory=dict)
    passes: int = 0
    pixels: int = 0
    files: int = 0
    bytes: int = 0
    latent_bytes: int = 0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def times(self, factor: float) -> Cost:
        counts = (round(value * factor) for value in (self.passes, self.pixels, self.files, self.bytes, self.latent_bytes))
        return Cost({step: value * factor for step, value in self.seconds.items()}, *counts)


def main() -> None:
    args = _arguments()
    bench.use_checkout(args.sd_scripts)
    import kohya_data
    import tiny

    with bench.scratch(args.work) as work, kohya_data.sd_strategies(tiny.make_tokenizer_cache(work / "tokenizer")):
        tiny.draw_characters(work / "characters", images=args.images, size=(args.size, args.size), names=NAMES)
        vae = _vae()
        ours, dataset = _ours(work / "characters", args, vae)
        pairs = _pairs(dataset)
        subset = min(args.subset, len(pairs))
        chosen = [pairs[len(pairs) * number // subset] for number in range(subset)]
        by_hand = _by_hand(work / "composites", chosen, dataset.plan.sizes[0], args.format, vae)
        _print(args, subset, len(pairs), dataset.plan.sizes[0], by_hand, ours)


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    bench.add_checkout(parser)
    parser.add_argument("--images", type=int, default=30, help="of each of three characters (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="side of an image in pixels (default: %(default)s)")
    parser.add_argument("--resolution", type=int, default=768, help="side of a composite's area (default: %(default)s)")
    parser.add_argument("--subset", type=int, default=6, help="pairs joined by hand and timed (default: %(default)s)")
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="of the files (default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the files here (default: a temporary folder)")
    return parser.parse_args()


def _vae():
    """SD 1.5's autoencoder by its config, with random weights."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32,
    )
    return vae.requires_grad_(False).eval()


def _ours(folder: Path, args: argparse.Namespace, vae) -> tuple[Cost, object]:
    import kohya_data

    cost = Cost()
    folders = sorted(folder.iterdir())
    before = _files(folder)
    start = time.perf_counter()
    dataset = kohya_data.composites_of(folders, (args.resolution,) * 2, 2)
    cost.seconds["reading headers and captions"] = time.perf_counter() - start
    _warm(vae, dataset.plan.panel_sizes(0, 0)[0])
    _encode(dataset, vae, cost)
    cost.files, cost.bytes = (after - old for after, old in zip(_files(folder), before, strict=True))
    cost.latent_bytes = sum(info.latents.nbytes for info in dataset._panel_infos.values())
    return cost, dataset


def _by_hand(folder: Path, pairs: list, size: tuple[int, int], extension: str, vae) -> Cost:
    import kohya_data

    cost = Cost()
    folder.mkdir()
    panels = [(size[0] // 2, size[1])] * 2
    start = time.perf_counter()
    for number, pair in enumerate(pairs):
        path = folder / f"{number:05}.{extension}"
        kohya_data.join_to_file([image.path for _, image in pair], panels, path)
        path.with_suffix(".txt").write_text(_caption(pair), encoding="utf-8")
    cost.seconds["joining to files"] = time.perf_counter() - start
    cost.files, cost.bytes = _files(folder)
    start = time.perf_counter()
    files = kohya_data.files_of(folder, size, 2)
    cost.seconds["reading headers and captions"] = time.perf_counter() - start
    _warm(vae, size)
    _encode(files, vae, cost)
    cost.latent_bytes = sum(info.latents.nbytes for info in files.image_data.values())
    return cost


def _pairs(dataset) -> list[tuple]:
    """All unordered pairs of images of two characters, as ((trigger, image), (trigger, image))."""
    pairs = []
    for left, right in combinations(dataset.plan.characters, 2):
        images = product(left.images, right.images)
        pairs += [((left.trigger, one), (right.trigger, other)) for one, other in images]
    return pairs


def _caption(pair: tuple) -> str:
    """As the guide joins them: both names and COMPOSITE, then the left one's tags, then the right one's."""
    names = "/".join(trigger for trigger, _ in pair)
    return f"{names}/COMPOSITE, {', '.join(image.caption for _, image in pair)}"


def _encode(dataset, vae, cost: Cost) -> None:
    """Caches the dataset's latents, counting what goes through the VAE."""
    import kohya_data

    def count(module, inputs, output) -> None:
        cost.passes += len(inputs[0])
        cost.pixels += inputs[0].shape[0] * inputs[0].shape[-1] * inputs[0].shape[-2]

    hook = vae.encoder.register_forward_hook(count)
    start = time.perf_counter()
    kohya_data.cache_latents(dataset, vae)
    cost.seconds["loading and encoding"] = time.perf_counter() - start
    hook.remove()


def _warm(vae, size: tuple[int, int]) -> None:
    """The first pass of a size is slower, and would be multiplied up on one side only."""
    import torch

    vae.encode(torch.zeros(1, 3, size[1], size[0]))


def _files(folder: Path) -> tuple[int, int]:
    """How many files lie in a folder and below, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _print(args: argparse.Namespace, subset: int, pairs: int, size: tuple[int, int], by_hand: Cost, ours: Cost) -> None:
    costs = (by_hand, by_hand.times(pairs / subset), ours)
    steps = dict.fromkeys([*by_hand.seconds, *ours.seconds])
    rows = [
        *(_row(step, costs, lambda cost, step=step: cost.seconds.get(step, 0.0), _duration) for step in steps),
        _row("**time in all**", costs, lambda cost: cost.total, _duration),
        _row("VAE passes", costs, lambda cost: cost.passes, "{:,}".format),
        _row("pixels encoded", costs, lambda cost: cost.pixels / 1e6, "{:,.1f} million".format),
        _row("files written", costs, lambda cost: cost.files, "{:,}".format),
        _row("bytes on disk", costs, lambda cost: cost.bytes / 1e6, "{:,.1f} MB".format),
        _row("latents in memory", costs, lambda cost: cost.latent_bytes / 1e6, "{:,.1f} MB".format),
    ]
    title = (
        f"3 characters x {args.images} images of {args.size}x{args.size}, {pairs:,} pairs, "
        f"composites of {size[0]}x{size[1]}, {args.format} files"
    )
    header = ["", f"by hand, {subset} pairs", f"by hand, {pairs:,} pairs (extrapolated)", "ours, whole", "ratio"]
    bench.print_table(title, header, rows)
    print(f"\n{bench.machine_line()}")


def _row(name: str, costs: tuple[Cost, ...], value: Callable[[Cost], float], show: Callable[[float], str]) -> list[str]:
    """One quantity of the subset, of all pairs and of ours, and the ratio of the last two."""
    values = [value(cost) for cost in costs]
    ratio = f"{values[1] / values[2]:,.1f}" if values[2] else ""
    return [name, *(show(one) for one in values), ratio]


def _duration(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds < 600 else f"{seconds / 3600:,.2f} h"


if __name__ == "__main__":
    main()
