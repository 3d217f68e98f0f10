"""States: what an interrupted stage goes on from. They are kohya's folders (`accelerator.save_state`) with a note that
says which run they belong to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lycoris_composite.run.journal import RunLog
from lycoris_composite.run.signals import StopRequest

_NOTE = "composite_state.json"
_TRAIN_STATE = "train_state.json"  # upstream's name, and its key `current_step`


@dataclass(frozen=True)
class State:
    """A complete state folder, after `step` of `steps` optimizer steps. `on_stop`: saved because somebody stopped the run,
    and not because the config says so."""

    folder: Path
    step: int
    steps: int
    on_stop: bool = False

    @property
    def is_last(self) -> bool:
        """Whether nothing is left but to save the file."""
        return self.step >= self.steps


@dataclass(frozen=True)
class Attempt:
    """One go at a stage: whose it is, what it goes on from, which images it leaves out (normalized paths), where it
    logs, and whether somebody wants it to stop. `is_continued`: its network is that of the stage before it."""

    run: str
    stage: int
    output: Path
    stop: StopRequest
    state: State | None = None
    skipped: frozenset[str] = frozenset()
    log: RunLog | None = None
    is_continued: bool = False

    def on_stop_folder(self, step: int) -> Path:
        """Where a state goes that somebody asked for: upstream's name for a state of that step."""
        return self.output.with_name(f"{self.output.stem}-step{step:08d}-state")


def place_of(step: int, batches: int, accumulation: int, max_steps: int) -> tuple[int, int]:
    """How many whole epochs, and batches of the next, make so many steps, with `batches` an epoch in each process.
    A step takes `accumulation` batches, and an epoch's last one what is left."""
    steps_an_epoch = -(-batches // accumulation)
    if step >= max_steps:
        return -(-max_steps // steps_an_epoch), 0
    epochs, steps = divmod(step, steps_an_epoch)
    return epochs, steps * accumulation


def finish_state(part: Path, attempt: Attempt, epoch: int, step: int, steps: int, on_stop: bool) -> None:
    """Completes a state folder that the trainer has written: its place in training, and the note."""
    (part / _TRAIN_STATE).write_text(json.dumps({"current_epoch": epoch, "current_step": step}), encoding="utf-8")
    sizes = {path.name: path.stat().st_size for path in sorted(part.iterdir()) if path.is_file()}
    note = {"run": attempt.run, "stage": attempt.stage, "steps": steps, "asked": on_stop, "files": sizes}
    (part / _NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")


def newest_state(folder: Path, run: str, stage: int) -> State | None:
    """The state of a run's stage that is furthest on, or None."""
    return max(_states(folder, run, stage), key=lambda state: state.step, default=None)


def remove_on_stop_states(folder: Path, run: str, stage: int) -> None:
    """Removes the states that only an interruption left, once the stage is finished."""
    for state in list(_states(folder, run, stage)):
        if state.on_stop:
            shutil.rmtree(state.folder, ignore_errors=True)


def _states(folder: Path, run: str, stage: int) -> Iterator[State]:
    for note_file in sorted(folder.glob(f"*/{_NOTE}")):
        if note_file.parent.name.startswith("."):
            continue
        try:
            note = json.loads(note_file.read_text(encoding="utf-8"))
            step = json.loads((note_file.parent / _TRAIN_STATE).read_text(encoding="utf-8"))["current_step"]
            sizes = {name: (note_file.parent / name).stat().st_size for name in note["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # somebody took parts of it away: no state to go on from
        if (note["run"], note["stage"], note["files"]) == (run, stage, sizes):
            yield State(note_file.parent, int(step), int(note["steps"]), bool(note["asked"]))
