"""The losses that upstream logs for TensorBoard, and which of the many run folders are a stage's.

Upstream makes a folder for every start of the trainer, `<logging_dir>/<log_prefix><local time>/<tracker>`, and writes
no name of the output into it. Samples do carry a name and a time, so a run is known by where it stood when a
sample was drawn. What was interrupted before its first sample is known by the steps that the next run goes on from.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lycoris_composite.errors import UserError
from lycoris_composite.progress import in_parallel
from lycoris_composite.samples import Sample, Stage

_RAW, _AVERAGE, _EPOCHS = "loss/current", "loss/average", "loss/epoch_average"
_FILES = "events.out.tfevents.*"
_RUN = re.compile(r"(?P<prefix>.*?)(?P<time>\d{14})")
_ZONE = 1800  # seconds: clocks of time zones differ by half hours
_DAY = 86_400
_LONGEST_DRAWING = 3600.0  # seconds from a run's last step to its last sample; after that it is another run's


@dataclass(frozen=True)
class Curve:
    """A stage's loss at each step: (steps,) arrays, steps counted from 1 and rising. `average` is upstream's over the
    last epoch."""

    steps: np.ndarray
    raw: np.ndarray
    average: np.ndarray


@dataclass(frozen=True)
class Run:
    """One start of the trainer. `start` and the times are seconds as `time.time` has them; `zone` is what its machine's
    clock is ahead of this one's, where its folder's name tells."""

    start: float
    curve: Curve
    step_times: np.ndarray
    epochs: np.ndarray
    epoch_times: np.ndarray
    zone: int = 0


def read_curves(
    stages: Sequence[Stage], output_dir: Path, logs: Path | None, show_progress: bool
) -> tuple[dict[int, Curve], str]:
    """By index of the stage: its losses; and, where there are none at all, a sentence that says why. Raises UserError
    for a folder that was asked for and is not there."""
    if logs is not None and not logs.is_dir():
        raise UserError(f"{logs}: no such folder; give --logs the config's logging_dir.")
    folders = [logs] if logs else list(dict.fromkeys(filter(None, (_logging_dir(stage, output_dir) for stage in stages))))
    if not folders:
        return {}, "No loss curve: the config's logging_dir is not set or not here (give --logs DIR)."
    try:
        from tensorboard.backend.event_processing import event_accumulator  # noqa: F401
    except ImportError:
        return {}, "No loss curve: reading the logs needs TensorBoard (pip install tensorboard)."
    prefixes = {str(stage.settings.get("log_prefix") or "") for stage in stages if stage.settings}
    visits = [(index, sample) for index, stage in enumerate(stages) for sample in stage.samples]
    own = _run_folders(folders, prefixes, _seconds(min(sample.time for _, sample in visits)))
    runs = in_parallel(_read, own, "reading logs" if show_progress and own else None)
    found = assigned([run for run in runs if run is not None], visits)
    curves = {index: joined(own) for index, own in found.items()}
    return curves, "" if curves else f"No loss curve: {folders[0]} holds no losses of these samples' runs."


def _logging_dir(stage: Stage, output_dir: Path) -> Path | None:
    """The config's, also where the output was moved together with the logs."""
    path = Path(str(stage.settings.get("logging_dir") or "/"))
    places = path, output_dir / path.name, output_dir.parent / path.name
    return next((place for place in places if path.name and place.is_dir()), None)


def _run_folders(folders: Sequence[Path], prefixes: set[str], first_sample: float) -> list[Path]:
    """Folders with event files whose run may be ours: the prefix fits, and it had not ended days before our samples."""
    found: dict[Path, float] = {}
    for file in sorted(file for folder in folders for file in folder.rglob(_FILES)):
        found[file.parent] = max(found.get(file.parent, 0.0), file.stat().st_mtime)
    return [path for path, ended in found.items() if ended > first_sample - 2 * _DAY and _fits(path, prefixes)]


def _fits(path: Path, prefixes: set[str]) -> bool:
    own = _run_name(path)
    return own is None or not prefixes or own["prefix"] in prefixes


def _run_name(path: Path) -> re.Match[str] | None:
    """The run's own folder among a path's, the deepest one."""
    return next(filter(None, map(_RUN.fullmatch, reversed(path.parts))), None)


def _read(folder: Path) -> Run | None:
    """A run's losses; None where it logged none, or its files are not to be read."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    try:
        events.Reload()
        scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
        first = events.FirstEventTimestamp()
    except Exception:  # a torn or foreign file raises whatever its parser stumbles over
        return None
    if not scalars.get(_RAW) or not scalars.get(_AVERAGE):
        return None
    steps, raw = _by_step([event.step for event in scalars[_RAW]], [event.value for event in scalars[_RAW]])
    average = dict(zip(*_by_step([e.step for e in scalars[_AVERAGE]], [e.value for e in scalars[_AVERAGE]]), strict=True))
    curve = Curve(steps, raw, np.array([average.get(step, np.nan) for step in steps]))
    times = {event.step: event.wall_time for event in reversed(scalars[_RAW])}
    epochs = scalars.get(_EPOCHS, [])
    return Run(
        first,
        curve,
        np.array([times[step] for step in steps]),
        np.array([event.step for event in epochs]),
        np.array([event.wall_time for event in epochs]),
        _zone(folder, first),
    )


def _by_step(steps: Sequence[int], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Rising steps and the mean of each one's values: with gradient accumulation upstream logs every batch of a step."""
    unique, places = np.unique(steps, return_inverse=True)
    return unique, np.bincount(places, values) / np.bincount(places)


def _zone(folder: Path, first: float) -> int:
    """What the clock in the folder's name is ahead of this machine's, in seconds: the log begins when the model is
    loaded, less than half an hour later."""
    name = _run_name(folder)
    return int(-((first - _seconds(name["time"])) // _ZONE) * _ZONE) if name else 0


def _seconds(digits: str) -> float:
    """A sample's or a folder's time on this machine's clock; 0 for digits that are no time."""
    try:
        return time.mktime(time.strptime(digits, "%Y%m%d%H%M%S"))
    except (ValueError, OverflowError):
        return 0.0


def assigned(runs: Sequence[Run], visits: Sequence[tuple[int, Sample]]) -> dict[int, list[Run]]:
    """By stage: its runs in order. `visits` are the stages' indices with their samples. A model that took half an hour
    to load looks like one of another time zone, so the clocks are taken as equal unless that explains less."""
    ordered = sorted(runs, key=lambda run: run.start)
    same = [replace(run, zone=0) for run in ordered]
    votes, other_votes = _votes(same, visits), _votes(ordered, visits)
    if sum(map(Counter.total, other_votes)) > sum(map(Counter.total, votes)):
        votes = other_votes
    owners = _with_neighbours(ordered, [vote.most_common(1)[0][0] if vote else None for vote in votes])
    found: dict[int, list[Run]] = {}
    for run, owner in zip(ordered, owners, strict=True):
        if owner is not None:
            found.setdefault(owner, []).append(run)
    return dict(sorted(found.items()))


def _votes(runs: Sequence[Run], visits: Sequence[tuple[int, Sample]]) -> list[Counter[int]]:
    """For each run, how many samples of which stage were drawn in it. A run that ended at a sample's epoch stands there
    for ever, so of several the one that was at work last is taken."""
    votes: list[Counter[int]] = [Counter() for _ in runs]
    for stage, sample in visits:
        at_work = [(last, place) for place, run in enumerate(runs) if (last := _last_work(run, sample)) is not None]
        if at_work:
            votes[max(at_work)[1]][stage] += 1
    return votes


def _last_work(run: Run, sample: Sample) -> float | None:
    """When a run last logged before a sample was drawn, if it then stood where the sample says, else None."""
    drawn = _seconds(sample.time) - run.zone
    if not run.start - 1 < drawn < run.step_times[-1] + _LONGEST_DRAWING:
        return None
    numbers, times = (run.epochs, run.epoch_times) if sample.is_epoch else (run.curve.steps, run.step_times)
    # A sample's time is cut to the second. Steps are logged after their samples are drawn, epochs before.
    earliest, latest = (_place(numbers, times, moment) for moment in (drawn, drawn + 1))
    if not earliest <= sample.place <= latest + (not sample.is_epoch):
        return None
    before = run.step_times[run.step_times < drawn + 1]
    return float(before[-1]) if len(before) else run.start


def _place(numbers: np.ndarray, times: np.ndarray, moment: float) -> int:
    """The last number logged by then, 0 before the first."""
    count = int(np.searchsorted(times, moment))
    return int(numbers[count - 1]) if count else 0


def _with_neighbours(runs: Sequence[Run], owners: Sequence[int | None]) -> list[int | None]:
    """The owners, with the runs that drew no sample: what a known run goes on from, or what goes on from it."""
    found = list(owners)
    for place in reversed(range(len(runs) - 1)):
        if found[place] is None and found[place + 1] is not None and _goes_on(runs[place], runs[place + 1]):
            found[place] = found[place + 1]
    for place in range(1, len(runs)):
        if found[place] is None and found[place - 1] is not None and _goes_on(runs[place - 1], runs[place]):
            found[place] = found[place - 1]
    return found


def _goes_on(before: Run, after: Run) -> bool:
    """Whether `after` takes up steps that `before` had reached; it may repeat some."""
    return 1 < after.curve.steps[0] <= before.curve.steps[-1] + 1


def joined(runs: Sequence[Run]) -> Curve:
    """One curve of a stage's runs in order: a later one counts from its first step on."""
    curve = runs[0].curve
    for run in runs[1:]:
        kept = curve.steps < run.curve.steps[0]
        parts = ((curve.steps, run.curve.steps), (curve.raw, run.curve.raw), (curve.average, run.curve.average))
        curve = Curve(*(np.concatenate((old[kept], new)) for old, new in parts))
    return curve
