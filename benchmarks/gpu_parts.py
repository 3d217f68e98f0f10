"""The parts of gpu.py's rows: each runs its processes and returns what it found, as plain data.

A result has `failed`, a sentence or None, and where it was measured what gpu_table.py reads.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench
import gpu_models
from gpu_rows import KILL_STEPS, KILLED_BEFORE, MODELS, Recipe, Row

Run = Callable[[list[str], Path, float], "int | None"]

DROPPED_STEPS = 5
_IMAGES = 10  # of each of three characters
_LONGEST_REASON = 240
_TAIL = 3000  # characters of a failed run's output that are kept
_ERROR = re.compile(r"^(error: |[\w.]*(Error|Exception)\b)")


class Failed(Exception):
    """A run that gave no numbers: why, and the end of what it said."""


class CutOff(Exception):
    """The time that the whole command has is over."""


@dataclass(frozen=True)
class Place:
    """Where things are, and how processes are run."""

    work: Path
    sd_scripts: Path
    run: Run
    tiny: bool = False
    shrink: int = 1
    steps: int | None = None
    row_limit: float = 300
    end: float | None = None  # by time.monotonic()

    def seconds_left(self) -> float:
        return float("inf") if self.end is None else self.end - time.monotonic()

    def folder(self, row: Row) -> Path:
        return self.work / "runs" / str(row.setup).replace("/", "-")

    def python(self, log: Path, *arguments: object) -> int:
        """Runs this Python to its end. Its exit code; raises Failed where it took too long, CutOff where all did."""
        log.parent.mkdir(parents=True, exist_ok=True)
        limit = min(self.row_limit, self.seconds_left())
        code = self.run([str(argument) for argument in arguments], log, limit)
        if code is None and limit < self.row_limit:
            raise CutOff
        if code is None:
            raise Failed(f"not done after {limit:.0f} s", _end_of(log))
        return code


def measure(place: Place, row: Row) -> dict[str, Any] | None:
    """The row's result. None where the whole command's time was over before it had one."""
    try:
        return {"failed": None, **_PARTS[row.part](place, row)}
    except CutOff:
        return None
    except Failed as failed:
        reason, said = failed.args
        return {"failed": _without_place(place, reason), "said": said}


def _without_place(place: Place, text: str) -> str:
    """A sentence without where this machine has its files."""
    return text.replace(f"{place.work}/", "").replace(f"{bench.ROOT}/", "")


def _recipe(place: Place, row: Row) -> Recipe:
    """Makes the model and the pictures where they are not made yet."""
    data = _pictures(place)
    folder = place.work / "models" / f"{row.setup.model}{'-tiny' if place.tiny else ''}"
    sheet, log = folder / gpu_models.SHEET, place.work / f"{row.setup.model}.log"
    if not sheet.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        flags = ["--sd_scripts", place.sd_scripts, *(["--tiny"] if place.tiny else [])]
        if code := place.python(log, bench.ROOT / "benchmarks/gpu_models.py", row.setup.model, folder, *flags):
            raise Failed(f"the model could not be made: {why(log, code)}", _end_of(log))
    return Recipe(json.loads(sheet.read_text(encoding="utf-8")), data, place.tiny, place.shrink, place.steps)


def _pictures(place: Place) -> Path:
    """Three drawn characters, square and large enough for every model."""
    import tiny

    side = 96 if place.tiny else 1024
    folder = place.work / f"pictures{side}"
    if not folder.is_dir():
        part = place.work / "pictures.part"
        shutil.rmtree(part, ignore_errors=True)
        tiny.draw_characters(part, images=3 if place.tiny else _IMAGES, size=(side, side), repeats=10)
        part.rename(folder)
    return folder


def _train_plainly(place: Place, row: Row) -> dict[str, Any]:
    recipe = _recipe(place, row)
    script = MODELS[row.setup.model].trainer
    return _watched(place, row, recipe, "plain", script, "--config_file", recipe.write(row, place.folder(row)))


def _train_stage1(place: Place, row: Row) -> dict[str, Any]:
    recipe = _recipe(place, row)
    return _watched(place, row, recipe, "stages", *_flags(place, recipe.write(row, place.folder(row)), 1), "--fresh")


def _train_stage2(place: Place, row: Row) -> dict[str, Any]:
    recipe = _recipe(place, row)
    folder = place.folder(row)
    config = recipe.write(row, folder)
    if not list((folder / "stages").glob("*-stage1.safetensors")):  # of a machine that is gone; one step makes a new one
        short = recipe.write(row._replace(part="stage1"), folder, max_train_steps=1)
        log = folder / "start.log"
        if code := place.python(log, bench.ROOT / "train_composite.py", *_flags(place, short, 1), "--fresh"):
            raise Failed(f"stage 1, which it starts from: {why(log, code)}", _end_of(log))
    return _watched(place, row, recipe, "stages", *_flags(place, config, 2), "--fresh")


def _flags(place: Place, config: Path, stage: int) -> list[object]:
    return ["--config", config, "--stage", stage, "--sd_scripts", place.sd_scripts]


def _watched(place: Place, row: Row, recipe: Recipe, what: str, *arguments: object) -> dict[str, Any]:
    """The numbers of one run. They count also where it failed later, while it saved, but not without that being said."""
    notes, started, log = _notes(place, row, what, *arguments)
    wanted = recipe.steps or MODELS[row.setup.model].steps
    steps = [note for note in notes if note["what"] == "step"]
    if len(steps) < wanted:
        raise Failed(f"{len(steps)} of {wanted} steps: {why(log)}", _end_of(log))
    begin = next(note for note in notes if note["what"] == "loop")
    batch = recipe.batch(row)
    second = _step_seconds([step["time"] for step in steps])
    return {
        "machine": begin["machine"],
        "batch": batch.count,
        "resolution": batch.resolution,
        "size": steps[0]["size"],
        "steps": len(steps),
        "prepare_seconds": begin["time"] - started,
        "step_seconds": second,
        "images_a_second": batch.count / second,
        "memory": {"preparing": begin["memory"], "training": steps[-1]["memory"]},
    }


def _step_seconds(ends: Sequence[float]) -> float:
    """Median time between the ends of two steps. Of a short run half of the steps are dropped."""
    times = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return statistics.median(times[min(DROPPED_STEPS, len(times) // 2) :])


def _notes(place: Place, row: Row, what: str, *arguments: object) -> tuple[list[dict], float, Path]:
    """What a watched process wrote down, when it was started, and where its output is. Raises Failed for its failure."""
    folder = place.folder(row)
    record, log = folder / f"{row.part}.record", folder / f"{row.part}.log"
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    watched = bench.ROOT / "benchmarks/gpu_watched.py"
    started = time.perf_counter()  # one clock for all processes of a machine
    code = place.python(log, watched, record, place.sd_scripts, what, *arguments)
    notes = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()] if record.is_file() else []
    if code:
        steps = sum(note["what"] == "step" for note in notes)
        raise Failed(f"{f'after {steps} steps: ' if steps else ''}{why(log, code)}", _end_of(log))
    return notes, started, log


def _ask_the_doctor(place: Place, row: Row) -> dict[str, Any]:
    config = _recipe(place, row).write(row, place.folder(row))
    notes, _, _ = _notes(place, row, "doctor", config)
    keys = ("level", "subject", "found", "meaning")
    findings = [{key: _without_place(place, note[key]) for key in keys} for note in notes]
    return {"findings": findings}


def _kill(place: Place, row: Row) -> dict[str, Any]:
    """Stage 2 undisturbed, then killed between two steps with a state behind it, then on to its end."""
    config = _recipe(place, row).write(row, place.folder(row))
    output = place.folder(row) / "kill"
    stage1, stage2 = _flags(place, config, 1), _flags(place, config, 2)
    _train(place, row, *stage1, "--fresh")
    _train(place, row, *stage2, "--fresh")
    [weights] = [path for path in output.glob("*.safetensors") if not re.search("-stage1|-step", path.stem)]
    undisturbed = _tensors(weights)
    killing = ("step", KILLED_BEFORE, 9)
    log, code = _launch(place, row, "tests/killing.py", *killing, *stage2, "--fresh")
    if code not in (-9, 137):
        raise Failed(f"the run that was to be killed ended with {code}: {why(log, code)}", _end_of(log))
    log = _train(place, row, *stage2)
    went_on = re.search(r"goes on after step (\d+)", log.read_text(encoding="utf-8", errors="replace"))
    result = {
        "steps": KILL_STEPS,
        "went_on_after": int(went_on[1]) if went_on else 0,
        **_differences(_tensors(weights), undisturbed),
    }
    if result["different"]:  # is it the kill, or does the machine never give the same twice?
        _train(place, row, *stage2, "--fresh")
        result["again"] = _differences(_tensors(weights), undisturbed)
    return result


def _train(place: Place, row: Row, *flags: object) -> Path:
    log, code = _launch(place, row, "train_composite.py", *flags)
    if code:
        raise Failed(why(log, code), _end_of(log))
    return log


def _launch(place: Place, row: Row, script: str, *arguments: object) -> tuple[Path, int]:
    log = place.folder(row) / "kill.log"
    return log, place.python(log, bench.ROOT / script, *arguments)


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(path)


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """How many tensors there are, how many differ in any bit, and the largest difference."""
    import numpy as np

    if found.keys() != expected.keys():
        return {"tensors": len(expected), "different": len(found.keys() ^ expected.keys()), "largest": None}
    unequal = [key for key in expected if found[key].tobytes() != expected[key].tobytes()]
    largest = max((float(np.abs(found[key] - expected[key]).max()) for key in unequal), default=0.0)
    return {"tensors": len(expected), "different": len(unequal), "largest": largest}


def why(log: Path, code: int = 1) -> str:
    """Why a run failed: its last line that names an error, else its last line, else the signal that ended it."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    if code < 0 and not named:
        return f"ended by signal {-code}{', as where memory runs out' if code == -9 else ''}"
    reason = (named or lines or [f"exit code {code}, without a word"])[-1]
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]


_PARTS: dict[str, Callable[[Place, Row], dict[str, Any]]] = {
    "plain": _train_plainly,
    "stage1": _train_stage1,
    "stage2": _train_stage2,
    "stage2-area1": _train_stage2,
    "doctor": _ask_the_doctor,
    "kill": _kill,
}
