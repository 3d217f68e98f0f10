"""What is left to do of a run: stages, the journal and the states on disk to tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lycoris_composite.composites.plan import Plan
from lycoris_composite.config.options import LENGTH
from lycoris_composite.config.stages import Stage
from lycoris_composite.data.characters import Subset
from lycoris_composite.errors import UserError
from lycoris_composite.preflight.inputs import duplicates, input_digests, replaced_pictures
from lycoris_composite.run.files import remove_leftovers
from lycoris_composite.run.journal import Journal, StageRecord, changes, digest, is_held, is_longer
from lycoris_composite.run.states import State, newest_state

_MOST_CHANGES = 20


@dataclass(frozen=True)
class Task:
    """A stage that has to be trained, and the state that it goes on from."""

    stage: Stage
    record: StageRecord
    state: State | None = None


def what_is_left(
    journal: Journal,
    stages: Sequence[Stage],
    plans: Sequence[Plan],
    subsets: Sequence[Subset],
    fresh: bool,
    continue_anyway: bool,
) -> tuple[list[Task], list[str]]:
    """What is left to do, and lines to say first. Reads the journal and every input. `subsets` are all that the stages read.
    The caller holds the run's lock. Raises UserError if the settings or files of an interrupted run have changed."""
    journal.read(or_nothing=fresh)
    first = stages[0]
    before = journal.stages.get(first.number)
    if fresh:
        for stage in stages:
            journal.stages.pop(stage.number, None)
    _remove_leftovers({stage.output_dir for stage in stages}, journal.path.with_suffix(".lock"))
    records = _records(stages, subsets)
    if not continue_anyway:
        _check_start(journal, first)
        check_unchanged(journal, stages, records)
    tasks, lines = tasks_of(journal, stages, records)
    now = records[first.number].inputs
    return tasks, [*replaced_pictures(first, before.inputs if before else {}, now), *duplicates(now, plans), *lines]


def _check_start(journal: Journal, first: Stage) -> None:
    """Raises UserError where stage 2 would start from the user's own weights, but stage 1 was trained here."""
    if first.number == 2 and first.weights_from is None and 1 in journal.stages:
        raise UserError(
            f"{journal.path}: stage 1 was begun here, but the file that it saves is not there; finish stage 1 or put its file "
            "back, or give --continue_anyway, and stage 2 starts from network_weights."
        )


def _remove_leftovers(folders: set[Path], own_lock: Path) -> None:
    """Removes what killed runs left half-written, unless another run writes in these folders now."""
    locks = (lock for folder in folders for lock in folder.glob("*.run.lock"))
    if any(is_held(lock) for lock in locks if lock != own_lock):
        return
    for folder in folders:
        remove_leftovers(folder)
        remove_leftovers(folder / "sample")


def going_on(journal: Journal, stages: Sequence[Stage], subsets: Sequence[Subset]) -> list[str]:
    """The same lines, but nothing is changed. Without an earlier run no input is read."""
    journal.read()
    if not journal.stages:
        return []
    records = _records(stages, subsets)
    check_unchanged(journal, stages, records)
    return tasks_of(journal, stages, records)[1]


def _records(stages: Sequence[Stage], subsets: Sequence[Subset]) -> dict[int, StageRecord]:
    """What a run that begins now would write down of each stage."""
    processes = os.environ.get("WORLD_SIZE", "1")
    inputs = input_digests(stages, subsets, show_progress=True)
    return {
        stage.number: StageRecord({**stage.shaping, "processes": processes}, inputs[stage.number], starting_weights(stage))
        for stage in stages
    }


def starting_weights(stage: Stage) -> str | None:
    """The digest of the weights that a stage starts from, where they are there yet."""
    path = stage.weights_from
    return digest(path) if path is not None and path.is_file() else None


def check_unchanged(journal: Journal, stages: Sequence[Stage], records: Mapping[int, StageRecord]) -> None:
    """Raises UserError that names each setting and file that has changed. A stage that has saved nothing may change, and
    every stage may be longer than it was."""
    stages_of_change: dict[str, list[str]] = {}
    for stage, before, state, is_last in _earlier(journal, stages):
        if before is None or (before.output is None and state is None):
            continue
        lines = changes(before, records[stage.number])
        if is_longer(before, records[stage.number]):
            lines = [line for line in lines if not line.startswith(LENGTH)]
            if is_last and state is None:
                raise UserError(
                    f"{stage.output}: no state of stage {stage.number} was saved, so it cannot go on for longer; give --fresh "
                    "to start over (save_state_on_train_end = true saves a state at the end)."
                )
        if _is_finished(before, stage) and digest(stage.output) != before.output:
            lines.append(f"{stage.output}: changed")
        for line in lines:
            stages_of_change.setdefault(line, []).append(str(stage.number))
    if stages_of_change:
        lines = [f"stage {' and '.join(numbers)}, {line}" for line, numbers in stages_of_change.items()]
        more = f"; and {len(lines) - _MOST_CHANGES} more" if len(lines) > _MOST_CHANGES else ""
        raise UserError(
            f"{journal.path}: the run that began here was another ({'; '.join(lines[:_MOST_CHANGES])}{more}); "
            "give --fresh to start over, or --continue_anyway."
        )


def _earlier(journal: Journal, stages: Sequence[Stage]) -> Iterator[tuple[Stage, StageRecord | None, State | None, bool]]:
    """Each stage with its record, its newest state, and whether it is the last that was begun, which goes on for longer."""
    begun = [stage for stage in stages if stage.number in journal.stages]
    for stage in stages:
        record = journal.stages.get(stage.number)
        state = newest_state(stage.output_dir, record.run, stage.number) if record else None
        yield stage, record, state, stage in begun[-1:]


def tasks_of(journal: Journal, stages: Sequence[Stage], records: Mapping[int, StageRecord]) -> tuple[list[Task], list[str]]:
    """The stages that are not finished, in order, and a line for each stage that does not simply begin. A finished run
    that is to be longer goes on with its last stage."""
    tasks: list[Task] = []
    lines = []
    is_all_finished = _is_finished(journal.stages.get(stages[-1].number), stages[-1])
    for stage, before, state, is_last in _earlier(journal, stages):
        record = records[stage.number]
        if before is None or tasks:  # it was not begun, or the stage before it is trained anew
            tasks.append(Task(stage, record))
            continue
        goes_on_longer = is_last and state is not None and is_longer(before, record)
        if not goes_on_longer and (is_all_finished or _is_finished(before, stage)):
            lines.append(f"stage {stage.number}: finished already, {stage.output} (--fresh trains it again)")
            continue
        tasks.append(Task(stage, replace(record, run=before.run), state))
        why = f"{stage.output} is gone" if before.output is not None else "was interrupted"
        if goes_on_longer:
            what = f"goes on for longer after step {state.step}, from {state.folder}"
        elif state is None:
            what = f"{why}, and no state of it was saved; it starts over"
        else:
            what = f"{why}; it goes on after step {state.step} of {state.steps}, from {state.folder}"
        lines.append(f"stage {stage.number}: {what}")
    return tasks, lines


def _is_finished(record: StageRecord | None, stage: Stage) -> bool:
    return record is not None and record.output is not None and stage.output.exists()
