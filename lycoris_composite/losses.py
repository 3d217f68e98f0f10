"""The losses that a run has logged for TensorBoard. Both stages log to one folder, whose name the journal tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from lycoris_composite.errors import UserError
from lycoris_composite.journal import Journal
from lycoris_composite.samples import Grid, Stage

_RAW, _AVERAGE = "loss/current", "loss/average"  # upstream's tags
_FILES = "events.out.tfevents.*"


@dataclass(frozen=True)
class Curve:
    """A stage's loss at each step: (steps,) arrays, steps counted from 1 and rising. `average` is upstream's over the
    last epoch."""

    steps: np.ndarray
    raw: np.ndarray
    average: np.ndarray


def read_curves(grid: Grid, output_dir: Path, logs: Path | None) -> tuple[dict[int, Curve], str]:
    """By index of the stage: its losses; and, where there are none at all, a sentence that says why. Raises UserError
    for a folder that was asked for and is not there."""
    if logs is not None and not logs.is_dir():
        raise UserError(f"{logs}: no such folder; give --logs the config's logging_dir.")
    folders = [logs] if logs else list(dict.fromkeys(filter(None, (_logging_dir(stage, output_dir) for stage in grid.stages))))
    if not folders:
        return {}, "No loss curve: the config's logging_dir is not set or not here (give --logs DIR)."
    try:
        from tensorboard.backend.event_processing import event_accumulator  # noqa: F401
    except ImportError:
        return {}, "No loss curve: reading the logs needs TensorBoard (pip install tensorboard)."
    journal = _journal(output_dir / f"{grid.name}.run.json")
    curves = {index: _curve(journal, stage.number, folders) for index, stage in enumerate(grid.stages)}
    if logs and not journal.stages and len(grid.stages) == 1:  # a run of sd-scripts' own, whose logs somebody names
        curves = {0: _drawn(_read([logs]))}
    found = {index: curve for index, curve in curves.items() if curve is not None}
    return found, "" if found else f"No loss curve: {folders[0]} holds no losses of this run."


def _logging_dir(stage: Stage, output_dir: Path) -> Path | None:
    """The config's, also where the output was moved together with the logs."""
    path = Path(str(stage.settings.get("logging_dir") or "/"))
    places = path, output_dir / path.name, output_dir.parent / path.name
    return next((place for place in places if path.name and place.is_dir()), None)


def _journal(path: Path) -> Journal:
    journal = Journal(path)
    with suppress(UserError):  # one that is none tells nothing
        journal.read()
    return journal


def _curve(journal: Journal, number: int, folders: Sequence[Path]) -> Curve | None:
    """A stage's steps of what the run has logged, counted from 1."""
    record = journal.stages.get(number)
    if record is None:
        return None
    log = journal.run_log(number, record.run)
    values = _read([path for folder in folders for path in sorted(folder.rglob(f"*{escape(log.name)}"))])
    last = log.steps + record.steps if record.steps else max(values, default=0)
    return _drawn({step - log.steps: value for step, value in values.items() if log.steps < step <= last})


def _drawn(values: Mapping[int, tuple[float, float]]) -> Curve | None:
    if not values:
        return None
    raw, average = (np.array([value[place] for value in values.values()]) for place in (0, 1))
    return Curve(np.array(list(values)), raw, average)


def _read(runs: Sequence[Path]) -> dict[int, tuple[float, float]]:
    """By rising step: the loss and its average, of the folders of one run. What cannot be read is passed over."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    raw: dict[int, float] = {}
    average: dict[int, float] = {}
    for folder in sorted({file.parent for run in runs for file in run.rglob(_FILES)}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
        try:
            events.Reload()
            tags = events.Tags()["scalars"]
            raw |= _by_step(events.Scalars(_RAW)) if _RAW in tags else {}
            average |= _by_step(events.Scalars(_AVERAGE)) if _AVERAGE in tags else {}
        except Exception:  # a torn or foreign file raises whatever its parser stumbles over
            continue
    return {step: (raw[step], average.get(step, np.nan)) for step in sorted(raw)}


def _by_step(events: Iterable[Any]) -> dict[int, float]:
    """Each step's mean: with gradient accumulation upstream logs every batch of a step. A run that goes on from a state
    takes the steps after it again, and what was logged of them before no longer counts."""
    values: dict[int, list[float]] = {}
    last = 0
    for event in events:
        if event.step < last:
            values = {step: own for step, own in values.items() if step < event.step}
        values.setdefault(event.step, []).append(event.value)
        last = event.step
    return {step: float(np.mean(own)) for step, own in values.items()}
