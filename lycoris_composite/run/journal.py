"""What a run has finished, in `<output_name>.run.json`: digests of what went into each stage and of what came out. A kill
at any moment loses nothing."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from lycoris_composite.config.options import KEYS, LENGTH
from lycoris_composite.errors import UserError
from lycoris_composite.run.files import cannot_write, write_whole

_VERSION = 1


@dataclass(frozen=True)
class StageRecord:
    """One stage: the settings that shape its weights, as text, and digests of its input files, by path, and of the weights
    it started from. Once it is finished: the digest of its output, its steps and its epochs. `run` marks its states."""

    settings: dict[str, str]
    inputs: dict[str, str]
    weights: str | None = None
    output: str | None = None
    steps: int = 0
    epochs: int = 0
    run: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True)
class RunLog:
    """Where both stages log as one run: its name, and the steps and epochs that are before a stage's own."""

    name: str
    steps: int = 0
    epochs: int = 0


@dataclass
class Journal:
    """The records of a run's stages, by number."""

    path: Path
    stages: dict[int, StageRecord] = field(default_factory=dict)

    def read(self, or_nothing: bool = False) -> None:
        """Takes what the file holds, if it is there. Raises UserError for one that is no journal, unless nothing will do."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                raise ValueError(f"its version is {content['version']}, not {_VERSION}")
            self.stages = {int(number): StageRecord(**record) for number, record in content["stages"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if or_nothing:
                return
            raise UserError(f"{self.path}: is no journal of a run ({error}); give --fresh to start over.") from error

    def begin(self, number: int, record: StageRecord) -> None:
        """A stage trains from now on. What came after it is no longer what follows from it."""
        self.stages = {**{before: earlier for before, earlier in self.stages.items() if before < number}, number: record}
        self._write()

    def finish(self, number: int, output: str, steps: int, epochs: int) -> None:
        self.stages[number] = replace(self.stages[number], output=output, steps=steps, epochs=epochs)
        self._write()

    def run_log(self, number: int, run: str) -> RunLog:
        """Where a stage logs whose record says `run`: stage 2 goes on where stage 1's log ends."""
        first, name = self.stages.get(1), self.path.name.removesuffix(".run.json")
        if number == 1 or first is None:
            return RunLog(f"{name}-{run[:8]}")
        return RunLog(f"{name}-{first.run[:8]}", first.steps, first.epochs)

    def _write(self) -> None:
        stages = {str(number): asdict(record) for number, record in sorted(self.stages.items())}
        write_whole(self.path, json.dumps({"version": _VERSION, "stages": stages}, ensure_ascii=False, indent=1))


def changes(before: StageRecord, now: StageRecord) -> list[str]:
    """What is different, a line for each key and each file."""
    lines = [
        f"{key}: {'not set' if old is None else old} -> {'not set' if new is None else new}"
        for key, old, new in _different(before.settings, now.settings)
    ]
    for path, old, new in _different(before.inputs, now.inputs):
        lines.append(f"{path}: {'new' if old is None else 'gone' if new is None else 'changed'}")
    if None not in (before.weights, now.weights) and before.weights != now.weights:
        lines.append("the weights that it starts from: changed")
    return lines


def _different(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    """Each key whose value is not the same, with the value before and now; None where it has none."""
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            yield key, before.get(key), now.get(key)


def is_longer(before: StageRecord, now: StageRecord) -> bool:
    """Whether a stage is to train more epochs, or more steps, than it was."""
    (old_key, old), (new_key, new) = (_length(record.settings) for record in (before, now))
    return old_key == new_key and new > old


def _length(settings: Mapping[str, str]) -> tuple[str, int]:
    key = next((key for key in LENGTH if key in settings), LENGTH[-1])
    return key, int(settings.get(key, KEYS[key].default))


def digest(path: Path) -> str:
    """128 bits of a file's content, as hexadecimal text."""
    content = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                content.update(chunk)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); put it back or correct the path.") from error
    return content.hexdigest()


@contextmanager
def sole_run(path: Path) -> Iterator[None]:
    """Holds the run's lock, which ends with the process that holds it. Raises UserError where another run has it."""
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{path}: another run is writing to this output; wait for it, or choose another output_name."
        ) from error
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error
    with held:
        yield


def is_held(path: Path) -> bool:
    """Whether a run has the lock. Makes no file, and leaves the lock as it is."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False  # it cannot be opened, which is said of its folder
