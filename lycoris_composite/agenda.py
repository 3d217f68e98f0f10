"""What is left to do of a run: stages, the journal and the states on disk to tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lycoris_composite.errors import UserError
from lycoris_composite.journal import Journal, StageRecord, changes, digest
from lycoris_composite.stages import Stage
from lycoris_composite.states import State, newest_state

_MOST_CHANGES = 20


@dataclass(frozen=True)
class Task:
    """A stage that has to be trained, and the state that it goes on from."""

    stage: Stage
    record: StageRecord
    state: State | None = None


def check_unchanged(journal: Journal, stages: Sequence[Stage], records: Mapping[int, StageRecord]) -> None:
    """Raises UserError that names each setting and each file that is not what an interrupted run began with."""
    found = []
    for stage in stages:
        before = journal.stages.get(stage.number)
        if before is None:
            continue
        found += [f"stage {stage.number}, {change}" for change in changes(before, records[stage.number])]
        if _is_finished(journal, stage) and digest(stage.output) != before.output:
            found.append(f"stage {stage.number}, {stage.output}: changed")
    if found:
        more = f"; and {len(found) - _MOST_CHANGES} more" if len(found) > _MOST_CHANGES else ""
        raise UserError(
            f"{journal.path}: the run that began here was another ({'; '.join(found[:_MOST_CHANGES])}{more}); "
            "give --fresh to start over, or --continue_anyway."
        )


def tasks_of(journal: Journal, stages: Sequence[Stage], records: Mapping[int, StageRecord]) -> tuple[list[Task], list[str]]:
    """The stages that are not finished, in order, and a line for each stage that does not simply begin."""
    tasks: list[Task] = []
    lines = []
    last = stages[-1]
    for stage in stages:
        before = journal.stages.get(stage.number)
        if before is None or tasks:  # it was not begun, or the stage before it is trained anew
            tasks.append(Task(stage, records[stage.number]))
        elif _is_finished(journal, stage) or _is_finished(journal, last):
            lines.append(f"stage {stage.number}: finished already, {stage.output} (--fresh trains it again)")
        else:
            state = newest_state(stage.output_dir, before.run, stage.number)
            tasks.append(Task(stage, replace(records[stage.number], run=before.run), state))
            lines.append(f"stage {stage.number}: {_what_next(before, stage.output, state)}")
    return tasks, lines


def _is_finished(journal: Journal, stage: Stage) -> bool:
    record = journal.stages.get(stage.number)
    return record is not None and record.output is not None and stage.output.exists()


def _what_next(before: StageRecord, output: Path, state: State | None) -> str:
    why = f"{output} is gone" if before.output is not None else "was interrupted"
    if state is None:
        return f"{why}, and no state of it was saved; it starts over"
    return f"{why}; it goes on after step {state.step} of {state.steps}, from {state.folder}"
