"""The miniature's experiment: train the two stages, ask for two characters at once, say who came."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import draw_data
import pictures
import scorer
import torch
import world
from gate import wilson
from narrow import narrow_copy

from lycoris_composite.architectures import TAGS
from lycoris_composite.composites.captions import render
from lycoris_composite.trainers.kohya import checkout

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIG = HERE / "cg3_mini.toml"
COLUMNS = (*scorer.KINDS, "seam")
PAIRS = tuple(permutations(world.CHARACTERS, 2))


@dataclass(frozen=True)
class Request:
    """Two characters asked for together, left to right, in one prompt."""

    asked: tuple[str, str]
    prompt: str
    negative: str = ""


def train(
    folder: Path, trainer: str, seed: int = 42, flags: Sequence[str] = (), first: Path | None = None
) -> tuple[Path, Path]:
    """Both stages on freshly drawn data, in a process of their own; the files of stage 1 and of stage 2.

    `trainer` is what `[composite] trainer` names. With `first`, that file is stage 1, and only stage 2 is trained.
    Raises CalledProcessError where training fails.
    """
    data = draw_data.draw_data(folder / "data")
    stages = folder / "cg3_mini-stage1.safetensors", folder / "cg3_mini.safetensors"
    if first is not None:
        shutil.copyfile(first, stages[0])
        flags = [*flags, "--stage", "2"]
    command = [sys.executable, str(ROOT / "train_composite.py"), "--config", str(CONFIG), "--output_dir", str(folder)]
    command += ["--train_data_dir", str(data), "--seed", str(seed), "--set", f"composite.trainer={trainer}"]
    paths = {"pretrained_model_name_or_path": HERE / "base", "tokenizer_cache_dir": HERE / "base"}
    command += [word for key, path in paths.items() for word in (f"--{key}", str(path))]
    if trainer != "builtin":
        command += ["--sd_scripts", str(narrow_copy(checkout.find(), folder / "sd-scripts"))]
    if not torch.cuda.is_available():
        command.append("--cpu")
    subprocess.run([*command, *flags], check=True)
    return stages


def requests(count: int, seed: int, marked: bool = True, pairs: Sequence[tuple[str, str]] = PAIRS) -> list[Request]:
    """Prompts for every ordered pair in turn. With `marked` as composites are captioned, else with the mark unwanted."""
    rng = random.Random(f"requests {seed}")
    found = []
    for number in range(count):
        asked = pairs[number % len(pairs)]
        doings = [world.character(name, rng).doings for name in asked]
        background = rng.choice(world.BACKGROUNDS)
        tags = [["2girls", *doings[0]], [*doings[1], background]]
        template = TAGS if marked else "{left}, {right}, {left_tags}, {right_tags}"
        found.append(Request(asked, render(template, asked, tags), "" if marked else "COMPOSITE"))
    return found


def draw(lora: Path | None, wanted: Sequence[Request], seed: int) -> torch.Tensor:
    """A picture of each request by the base model, with a LoRA or without; (n, 3, 64, 128) in -1..1."""
    pipeline = pictures.load(HERE / "base", lora)
    return pictures.generate(pipeline, [one.prompt for one in wanted], [one.negative for one in wanted], seed=seed)


def tally(shown: torch.Tensor, wanted: Sequence[Request]) -> Counter[str]:
    """How many pictures are of each kind, how many have a seam, how many there are ("all")."""
    found: Counter[str] = Counter({"all": len(wanted)})
    for judged, request in zip(scorer.Scorer()(shown), wanted, strict=True):
        found[judged.kind(request.asked)] += 1
        found["seam"] += judged.seams[0]
        found["in order"] += judged.in_order(request.asked)
    return found


def by_pair(shown: torch.Tensor, wanted: Sequence[Request]) -> dict[str, Counter[str]]:
    """For each ordered pair that was asked for: how many pictures there are ("all"), and how many hold both."""
    found: dict[str, Counter[str]] = {}
    for judged, request in zip(scorer.Scorer()(shown), wanted, strict=True):
        counts = found.setdefault("/".join(request.asked), Counter())
        counts.update({"all": 1, "both": int(judged.kind(request.asked) == "both")})
    return found


def table(rows: dict[str, Counter[str]]) -> str:
    """Shares of each kind with Wilson's intervals at 95 %, as a Markdown table."""
    lines = [["", "pictures", *COLUMNS]]
    for name, counts in rows.items():
        lines.append([name, str(counts["all"]), *(_share(counts[column], counts["all"]) for column in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    padded = (
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def _share(part: int, whole: int) -> str:
    low, high = wilson(part, whole)
    return f"{part / whole:.0%} ({low:.0%} to {high:.0%})"
