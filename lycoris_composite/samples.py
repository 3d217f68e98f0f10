"""A folder that training writes to, as plain data: which runs it holds, and which sample belongs in which row and
column. Training may be writing at this moment, so whatever is not complete or not ours is passed over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lycoris_composite.config import flatten, read_toml
from lycoris_composite.errors import UserError, nearest
from lycoris_composite.prompts import Prompt, read_prompts
from lycoris_composite.stages import DEFAULT_NAME

_FIRST = "-stage1"  # ends the name of what stage 1 writes
# Upstream's `sample_image_inference`, in every trainer: name, epoch or step, prompt, time of day, seed where there is one.
_SAMPLE = re.compile(r"(?:(?P<name>.+)_)?(?P<epoch>e?)(?P<place>\d{6,})_(?P<number>\d{2,})_(?P<time>\d{14})(?:_-?\d+)?\.png")


@dataclass(frozen=True)
class Sample:
    """One picture. `place` counts epochs where `is_epoch`, else steps; `number` is the prompt's, from 0; `time` is the
    training machine's clock, as digits down to seconds."""

    path: Path
    name: str
    is_epoch: bool
    place: int
    number: int
    time: str

    @property
    def label(self) -> str:
        if self.is_epoch and self.place == 0:
            return "start"
        return f"{'epoch' if self.is_epoch else 'step'} {self.place}"


@dataclass(frozen=True)
class Stage:
    """What one run of upstream's trainer has left. `number` is 1 for single characters, else 2; `columns` holds the
    samples of an epoch or step by their prompt's number, newest first, in the order of training; `settings` its effective
    config, empty where there is none."""

    title: str
    number: int
    samples: tuple[Sample, ...]
    columns: tuple[Mapping[int, tuple[Sample, ...]], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """Prompts down, epochs across: `cells[row][column]` are the candidates for a picture, newest first, where `column`
    runs over the columns of all stages."""

    name: str
    stages: tuple[Stage, ...]
    rows: tuple[Prompt, ...]
    cells: tuple[tuple[tuple[Sample, ...], ...], ...]


def read_grid(output_dir: Path, wanted: str | None = None) -> tuple[Grid, list[str]]:
    """The samples of one output name, and a sentence where a choice was made. Raises UserError where there are none."""
    samples = _samples(output_dir / "sample")
    name, said = _chosen(samples, output_dir, wanted)
    stages = _stages(output_dir, name, samples)
    rows, cells = _table(stages, output_dir)
    return Grid(name, stages, rows, cells), said


def _samples(folder: Path) -> list[Sample]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
    found = []
    for match in filter(None, map(_SAMPLE.fullmatch, names)):
        place, number = int(match["place"]), int(match["number"])
        is_epoch = bool(match["epoch"])
        found.append(Sample(folder / match[0], match["name"] or DEFAULT_NAME, is_epoch, place, number, match["time"]))
    return found


def _chosen(samples: Sequence[Sample], output_dir: Path, wanted: str | None) -> tuple[str, list[str]]:
    """The output name to show, `-stage1` taken off, and what to say about the choice."""
    newest: dict[str, str] = {}
    for sample in samples:
        name = sample.name.removesuffix(_FIRST)
        newest[name] = max(newest.get(name, ""), sample.time)
    if not newest:
        raise UserError(
            f"{output_dir}: holds no samples (looked for sample/<output_name>_e000001_00_….png); "
            "name the config's output_dir, and set sample_every_n_epochs before training."
        )
    if wanted is not None:
        name = wanted.removesuffix(_FIRST)
        if name not in newest:
            hint = nearest(name, newest) or f"; there are samples of {', '.join(sorted(newest))}."
            raise UserError(f"{output_dir}, --name {wanted}: no samples of that name{hint}")
        return name, []
    name = max(newest, key=lambda one: (newest[one], one))
    others = sorted({*newest} - {name})
    return name, [f"showing {name}, whose samples are the newest (--name for {', '.join(others)})"] if others else []


def _stages(output_dir: Path, name: str, samples: Sequence[Sample]) -> tuple[Stage, ...]:
    """Both stages, or the one that there is."""
    titles = {f"{name}{_FIRST}": "Stage 1: single characters", name: "Stage 2: composites"}
    if not _is_of_two_stages(output_dir, name, samples):
        titles = {name: "Samples"}
    return tuple(
        Stage(title, 1 if stage.endswith(_FIRST) else 2, own, _columns(own), _settings(output_dir / f"{stage}.toml"))
        for stage, title in titles.items()
        if (own := tuple(sample for sample in samples if sample.name == stage)) or (output_dir / f"{stage}.toml").is_file()
    )


def _is_of_two_stages(output_dir: Path, name: str, samples: Sequence[Sample]) -> bool:
    """Whether our launcher made it: upstream's own scripts leave neither a stage 1 nor a config with composites."""
    files = (f"{name}{_FIRST}.toml", f"{name}{_FIRST}.safetensors", f"{name}.run.json")
    return any(sample.name == f"{name}{_FIRST}" for sample in samples) or any((output_dir / file).is_file() for file in files)


def _settings(path: Path) -> dict[str, Any]:
    try:
        return flatten(read_toml(path))
    except UserError:
        return {}


def _columns(samples: Sequence[Sample]) -> tuple[Mapping[int, tuple[Sample, ...]], ...]:
    """Epochs and steps in the order of training. Where a stage has both, because the config changed, time tells: but
    for the samples before the first step, no number says how many steps an epoch has."""
    places: dict[tuple[bool, int], dict[int, list[Sample]]] = {}
    for sample in sorted(samples, key=lambda one: one.time, reverse=True):
        places.setdefault((sample.is_epoch, sample.place), {}).setdefault(sample.number, []).append(sample)
    is_mixed = len({is_epoch for is_epoch, place in places if place}) > 1

    def order(key: tuple[bool, int]) -> tuple:
        newest = max(own[0].time for own in places[key].values())
        return (key[1] > 0, newest if is_mixed and key[1] else "", key[1])

    return tuple({number: tuple(own) for number, own in places[key].items()} for key in sorted(places, key=order))


def _table(stages: Sequence[Stage], output_dir: Path) -> tuple[tuple[Prompt, ...], tuple[tuple[tuple[Sample, ...], ...], ...]]:
    """The rows' prompts and the candidates of every cell. Stages may have prompts of their own, so a row is what was
    asked for and not its number; equal prompts are told apart by their turn."""
    files = [_prompts(stage, output_dir) for stage in stages]
    known = next(filter(None, files), [])
    rows: dict[tuple[Prompt, int], list[dict[int, tuple[Sample, ...]]]] = {}
    columns = sum(len(stage.columns) for stage in stages)
    begun = 0
    for stage, own in zip(stages, files, strict=True):
        keys = _keys(own or known, max((sample.number for sample in stage.samples), default=-1) + 1)
        for number, key in enumerate(keys):
            row = rows.setdefault(key, [()] * columns)
            for place, column in enumerate(stage.columns, start=begun):
                row[place] = column.get(number, ())
        begun += len(stage.columns)
    shown = {key: row for key, row in rows.items() if any(row)}
    return tuple(prompt for prompt, _ in shown), tuple(tuple(row) for row in shown.values())


def _keys(prompts: Sequence[Prompt], count: int) -> list[tuple[Prompt, int]]:
    turns: Counter[Prompt] = Counter()
    keys = []
    for number in range(count):
        prompt = prompts[number] if number < len(prompts) else Prompt(f"prompt {number + 1}")
        keys.append((prompt, turns[prompt]))
        turns[prompt] += 1
    return keys


def _prompts(stage: Stage, output_dir: Path) -> list[Prompt]:
    """Those that the stage's config names; of a folder that was copied those that lie in it."""
    path = Path(str(stage.settings.get("sample_prompts") or ""))
    return read_prompts(output_dir / path.name) or read_prompts(path) or []
