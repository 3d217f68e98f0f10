"""The samples in an output folder as a table of prompts and epochs. Training may be writing there at this moment, so a
file that is incomplete or not ours is passed over."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.prompts import Prompt, read_prompts
from lycoris_composite.config.settings import flatten, read_toml
from lycoris_composite.config.stages import DEFAULT_NAME
from lycoris_composite.errors import UserError, nearest

_FIRST = "-stage1"  # ends the name of what stage 1 writes
# Upstream's `sample_image_inference`, in every trainer: name, epoch or step, prompt, time of day, seed where there is one.
_FILE = re.compile(r"(?:(?P<name>.+)_)?(?P<epoch>e?)(?P<count>\d{6,})_(?P<number>\d{2,})_(?P<time>\d{14})(?:_-?\d+)?\.png")


@dataclass(frozen=True)
class Picture:
    """A sample after `count` epochs or steps. `number` is the prompt's, from 0. `time` is the training machine's clock, as
    digits down to seconds."""

    path: Path
    output_name: str
    is_epoch: bool
    count: int
    number: int
    time: str

    @property
    def label(self) -> str:
        if self.is_epoch and self.count == 0:
            return "start"
        return f"{'epoch' if self.is_epoch else 'step'} {self.count}"


Column = Sequence[Picture]  # those of an epoch or a step, the newest first
Row = tuple[Prompt, int]  # a prompt, and how many equal ones stand before it


@dataclass(frozen=True)
class StageSamples:
    """What one run of upstream's trainer has left. `number` is 1 for single characters, else 2. `columns` are in the
    order of training. `settings` is its effective config, empty where there is none."""

    title: str
    number: int
    columns: Sequence[Column]
    settings: KohyaSettings


@dataclass(frozen=True)
class Grid:
    """Prompts down, the columns of all stages across. `cells` holds the pictures of each (row, column), the newest first."""

    output_name: str
    stages: Sequence[StageSamples]
    rows: Sequence[Prompt]
    cells: Mapping[tuple[int, int], Sequence[Picture]]


def read_grid(output_dir: Path, wanted: str | None = None) -> tuple[Grid, list[str]]:
    """The samples of one output name, and a sentence where a choice was made. Raises UserError where there are none."""
    pictures = _pictures(output_dir / "sample")
    name, lines = _chosen(pictures, output_dir, wanted)
    stages = _stages(output_dir, name, pictures)
    rows, cells = _table(stages, output_dir)
    return Grid(name, stages, rows, cells), lines


def _pictures(folder: Path) -> list[Picture]:
    """The newest first."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
    pictures = [
        Picture(folder / m[0], m["name"] or DEFAULT_NAME, bool(m["epoch"]), int(m["count"]), int(m["number"]), m["time"])
        for m in map(_FILE.fullmatch, names)
        if m
    ]
    return sorted(pictures, key=lambda picture: picture.time, reverse=True)


def _chosen(pictures: Sequence[Picture], output_dir: Path, wanted: str | None) -> tuple[str, list[str]]:
    """The output name to show, without `-stage1`, and what to say about the choice."""
    names = list(dict.fromkeys(picture.output_name.removesuffix(_FIRST) for picture in pictures))
    if not names:
        raise UserError(
            f"{output_dir}: holds no samples (looked for sample/<output_name>_e000001_00_….png); "
            "name the config's output_dir, and set sample_every_n_epochs before training."
        )
    if wanted is not None:
        name = wanted.removesuffix(_FIRST)
        if name not in names:
            hint = nearest(name, names) or f"; there are samples of {', '.join(sorted(names))}."
            raise UserError(f"{output_dir}, --name {wanted}: no samples of that name{hint}")
        return name, []
    name, *others = names
    return name, [f"showing {name}, whose samples are the newest (--name for {', '.join(sorted(others))})"] if others else []


def _stages(output_dir: Path, name: str, pictures: Sequence[Picture]) -> list[StageSamples]:
    """Both stages, or the one that there is. Upstream's own scripts leave one: no file of a stage 1 and no journal."""
    first = f"{name}{_FIRST}"
    drawn: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        drawn[picture.output_name].append(picture)
    ours = (f"{first}.toml", f"{first}.safetensors", f"{name}.run.json")
    if first in drawn or any((output_dir / file).is_file() for file in ours):
        titles = {first: "Stage 1: single characters", name: "Stage 2: composites"}
    else:
        titles = {name: "Samples"}
    stages = []
    for output_name, title in titles.items():
        config = output_dir / f"{output_name}.toml"
        if output_name in drawn or config.is_file():
            number = 1 if output_name == first else 2
            stages.append(StageSamples(title, number, _columns(drawn[output_name]), _settings(config)))
    return stages


def _settings(path: Path) -> KohyaSettings:
    try:
        return KohyaSettings(flatten(read_toml(path)))
    except UserError:
        return KohyaSettings({})


def _columns(pictures: Sequence[Picture]) -> list[Column]:
    """Columns in training order: by time where epochs and steps are mixed, because no file says how many steps an epoch
    has."""
    columns: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        columns[picture.label].append(picture)
    is_mixed = len({picture.is_epoch for picture in pictures if picture.count}) > 1

    def order(column: Column) -> tuple:
        newest = column[0]
        return newest.count > 0, newest.time if is_mixed and newest.count else "", newest.count

    return sorted(columns.values(), key=order)


def _table(stages: Sequence[StageSamples], output_dir: Path) -> tuple[list[Prompt], dict[tuple[int, int], list[Picture]]]:
    """The rows' prompts, and the pictures of every cell. Rows are told apart by prompt, not number, because each stage
    may have its own prompt file. The second of two equal prompts gets its own row."""
    files = [_prompts(stage, output_dir) for stage in stages]
    fallback = next(filter(None, files), [])
    every: list[Row] = []
    cells: dict[tuple[Row, int], list[Picture]] = defaultdict(list)
    columns = 0
    for stage, prompts in zip(stages, files, strict=True):
        count = max((picture.number + 1 for column in stage.columns for picture in column), default=0)
        stage_rows = _rows(prompts or fallback, count)
        for index, column in enumerate(stage.columns, start=columns):
            for picture in column:
                cells[stage_rows[picture.number], index].append(picture)
        every += stage_rows
        columns += len(stage.columns)
    drawn = {row for row, _ in cells}
    rows = [row for row in dict.fromkeys(every) if row in drawn]
    return [prompt for prompt, _ in rows], {(rows.index(row), column): cell for (row, column), cell in cells.items()}


def _rows(prompts: Sequence[Prompt], count: int) -> list[Row]:
    """Of the prompts from 0 to `count`. Where the file has fewer, a number stands for the prompt."""
    known = [*prompts[:count], *(Prompt(f"prompt {number + 1}") for number in range(len(prompts), count))]
    return [(prompt, known[:number].count(prompt)) for number, prompt in enumerate(known)]


def _prompts(stage: StageSamples, output_dir: Path) -> list[Prompt]:
    """Those that the stage's config names. In a folder that was copied, the file that lies in it comes first."""
    path = Path(str(stage.settings.sample_prompts or ""))
    return read_prompts(output_dir / path.name) or read_prompts(path) or []
