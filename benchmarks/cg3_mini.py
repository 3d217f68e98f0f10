"""What the recipe achieves on the miniature: trains, asks for two characters at once, scores, prints a table.

Each row is the same prompts and noise with other weights, `--count` pictures for each of `--seeds` training seeds:

- the base model, which knows no names;
- stage 1 alone, single characters only;
- the same with names and tags alone in the prompt, as one would ask without this project;
- the guide's recipe, prompted as its composites are captioned;
- the same with `COMPOSITE` in the negative prompt, names and tags alone in the prompt;
- a pair that never met in stage 2: from the same stage 1, two of the three pairs are trained and the third is asked for.

A Wilson interval at 95 % stands beside each share. The base has to have passed its gate (examples/cg3_mini/gate.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path

import bench

bench.use_project()
sys.path.insert(0, str(bench.ROOT / "examples" / "cg3_mini"))

import draw_data  # noqa: E402
import experiment  # noqa: E402
import sheet  # noqa: E402
import toml  # noqa: E402
import world  # noqa: E402

RECIPE = "the guide's recipe"


def main() -> None:
    args = _arguments()
    start = time.monotonic()
    rows: dict[str, Counter[str]] = {}
    pairs: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = args.output or Path(made)
        for seed in range(1, args.seeds + 1):
            shown = _one_seed(folder / f"seed{seed}", seed, args)
            for name, row in shown.items():
                rows[name] = rows.get(name, Counter()) + experiment.tally(*row)
            for pair, found in experiment.by_pair(*shown[RECIPE]).items():
                pairs[pair] = pairs.get(pair, Counter()) + found
            print(f"\n{experiment.table(rows)}\n\n{RECIPE}, both by pair: {_shares(pairs)}")
            print(f"after {seed} of {args.seeds} seeds, {time.monotonic() - start:.0f} s", flush=True)
    print(f"\n{bench.machine_line()}")


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    parser.add_argument("--trainer", choices=("train_network", "builtin"), default="builtin", help="(default: %(default)s)")
    parser.add_argument("--count", type=int, default=66, help="pictures of each kind and seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep what was trained here, and a picture of each seed")
    return parser.parse_args()


def _shares(pairs: dict[str, Counter[str]]) -> str:
    return ", ".join(f"{pair} {counts['both']} of {counts['all']}" for pair, counts in sorted(pairs.items()))


def _one_seed(folder: Path, seed: int, args: argparse.Namespace) -> dict[str, tuple]:
    """For each row its pictures and what was asked for."""
    first, second = experiment.train(folder / "all", args.trainer, seed)
    apart = tuple(world.CHARACTERS)[seed % 3], tuple(world.CHARACTERS)[(seed + 1) % 3]
    _, unseen = experiment.train(folder / "two", args.trainer, seed, _without_pair(folder / "two", apart), first)
    wanted, plain = (experiment.requests(args.count, seed, marked) for marked in (True, False))
    bare = [replace(request, negative="") for request in plain]
    strangers = experiment.requests(args.count, seed, pairs=tuple(permutations(apart)))
    asked = {
        "base": (None, wanted),
        "stage 1 alone": (first, wanted),
        "… names alone in the prompt": (first, bare),
        RECIPE: (second, wanted),
        "… COMPOSITE in the negative prompt": (second, plain),
        "… a pair never joined in stage 2": (unseen, strangers),
    }
    shown = {name: (experiment.draw(lora, requests, seed), requests) for name, (lora, requests) in asked.items()}
    sheet.save(folder / "all", shown)
    return shown


def _without_pair(folder: Path, apart: tuple[str, str]) -> list[str]:
    """A dataset_config in which two characters never meet, as flags: a dataset for each of the other pairs.

    The third character stands in both, so an epoch is longer by it: fewer of them make as many steps as the recipe's.
    """
    data = draw_data.draw_data(folder / "data")
    pairs = [pair for pair in combinations(world.CHARACTERS, 2) if set(pair) != set(apart)]
    subsets = [[{"image_dir": str(data / f"1_{name}")} for name in pair] for pair in pairs]
    config = {"datasets": [{"subsets": own} for own in subsets]}
    path = folder / "datasets.toml"
    path.write_text(toml.dumps(config), encoding="utf-8")
    epochs = toml.load(experiment.CONFIG)["composite"]["stage2"]["max_train_epochs"]
    epochs = epochs * len(world.CHARACTERS) // sum(map(len, pairs))
    return ["--dataset_config", str(path), "--set", f"composite.stage2.max_train_epochs={epochs}"]


if __name__ == "__main__":
    main()
