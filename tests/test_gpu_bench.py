"""benchmarks/gpu.py on a CPU, with a tiny model: its rows have numbers, a broken one ends no other, and a cut loses none."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import toml

from tests.helpers import ROOT
from tests.world import World, environment_of_commands

FOLDER = ROOT / "benchmarks"
GOOD, BROKEN = "sd15/sdpa/AdamW/no", "sd15/sdpa/AdamW/fp16"  # a CPU trains no fp16
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a benchmark's module. Afterwards the import path is as it was."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    yield importlib.import_module
    for name in {path.stem for path in FOLDER.glob("*.py")} | {"tiny"}:
        sys.modules.pop(name, None)


def forked(world: World) -> Callable[[list[str], Path, float], int]:
    """gpu.run without a limit of time, in a fork that has upstream imported already."""

    def run(arguments: list[str], log: Path, limit: float) -> int:
        return world.forks.wait(world.forks.start(arguments, log.parent, environment_of_commands(), log))

    return run


@pytest.fixture
def measured(world: World, load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Runs `gpu.py --tiny` with more flags in this process. `cut_at` ends it where it would start that process."""
    if world.forks is None:
        pytest.skip("needs a system that can fork")
    gpu, bench = load("gpu"), load("bench")
    monkeypatch.setattr(bench, "find_checkout", lambda *_, **__: world.sd_scripts)

    def run(*flags: str, cut_at: str | None = None) -> None:
        def start(arguments: list[str], log: Path, limit: float) -> int:
            if log.name == cut_at:
                raise KeyboardInterrupt
            return forked(world)(arguments, log, limit)

        monkeypatch.setattr(gpu, "run", start)
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", "--steps", "4", "--out", str(tmp_path), *flags])
        gpu.main()

    return run


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.mark.trainer
def test_rows_have_numbers_a_broken_one_is_said_and_a_cut_loses_none(measured, tmp_path, capsys):
    measured("--setup", BROKEN, "--setup", GOOD, "--rows", "stage1")
    broken, _ = lines_of(tmp_path)
    assert re.search('"fp16" needs a GPU', broken["failed"])

    command = ["--setup", GOOD, "--rows", "stage1,plain,stage2,doctor"]
    with pytest.raises(KeyboardInterrupt):
        measured(*command, cut_at="stage2.log")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"row": "sd15/sdpa/Ad')  # the cut came while it wrote
    before = (tmp_path / "rows.jsonl").read_text()
    measured(*command)
    text = (tmp_path / "rows.jsonl").read_text()
    assert text.startswith(before)
    rows = [json.loads(line) for line in (before.rpartition("\n")[0] + text.removeprefix(before)).splitlines()][1:]
    assert [row["row"] for row in rows] == [f"{GOOD} {part}" for part in ("stage1", "plain", "stage2", "doctor")]
    for row in rows[:-1]:
        assert row["failed"] is None
        assert row["steps"] == 4
        assert min(row["step_seconds"], row["images_a_second"], row["prepare_seconds"]) > 0
        assert row["images_a_second"] == pytest.approx(2 / row["step_seconds"])
        assert row["memory"] == {"preparing": None, "training": None}  # not made up where there is no GPU
    assert [row["size"] for row in rows[:-1]] == [[2, 16, 16], [2, 16, 16], [2, 32, 16]]  # cells of 8 pixels

    output = capsys.readouterr().out
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if line.startswith(f"| {GOOD}")
    ]
    assert {cells[1] for cells in table} == {"stage 1", "plain upstream", "stage 2"}
    assert all(float(cells[4].removesuffix(" s")) > 0 and float(cells[5]) > 0 and cells[8:] == ["-", "-"] for cells in table)
    assert f"{BROKEN}\n- the doctor: not asked\n- what happened: stage 1 failed: error: " in output
    assert re.search(rf"{GOOD}\n- the doctor: warning: .*save_state.*\n- what happened: trained: ", output)


@pytest.mark.trainer
def test_a_killed_stage_2_goes_on_to_the_same_weights(world, load, tmp_path):
    if world.forks is None:
        pytest.skip("needs a system that can fork")
    load("bench").use_project()
    rows, parts, table = load("gpu_rows"), load("gpu_parts"), load("gpu_table")
    sheet = tmp_path / "models/sd15-tiny/model.json"
    sheet.parent.mkdir(parents=True)
    keys = ("pretrained_model_name_or_path", "tokenizer_cache_dir")
    sheet.write_text(json.dumps({key: world.config[key] for key in keys}))
    place = parts.Place(tmp_path, world.sd_scripts, forked(world), tiny=True)
    result = parts.measure(place, rows.Row(rows.TINY[0], "kill"))
    assert result["failed"] is None, result["said"]
    assert result["tensors"] > 0
    assert table.what_happened(result).startswith("went on after step 4 of 6; all ")


def test_a_run_that_takes_too_long_is_a_row_and_not_the_end(load, tmp_path):
    rows, parts, gpu = load("gpu_rows"), load("gpu_parts"), load("gpu")
    assert gpu.run(["-c", "raise SystemExit(3)"], tmp_path / "log", 60) == 3

    def run(arguments: list[str], log: Path, limit: float) -> int | None:
        return gpu.run(["-c", "import time; print('loading', flush=True); time.sleep(60)"], log, limit)

    row = rows.Row(rows.TINY[0], "doctor")
    load("bench").use_project()
    place = parts.Place(tmp_path, tmp_path, run, tiny=True, row_limit=2)
    assert parts.measure(place, row) == {"failed": "not done after 2 s", "said": "loading\n"}
    now = parts.time.monotonic()
    shutil.rmtree(tmp_path / "models", ignore_errors=True)
    assert parts.measure(parts.Place(tmp_path, tmp_path, run, tiny=True, row_limit=60, end=now + 1), row) is None


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ("steps\nTraceback\n  x\ntorch.OutOfMemoryError: CUDA out of memory.\n", 1, "torch.OutOfMemoryError: CUDA out of memory."),
        ("ValueError: a\nerror: cg3.toml: b.\nsteps: 0%\n", 2, "error: cg3.toml: b."),
        ("loading\n", -9, "ended by signal 9, as where memory runs out"),
        ("", 1, "exit code 1, without a word"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failure_is_its_last_error(load, tmp_path, said, code, reason):
    (tmp_path / "log").write_text(said)
    assert load("gpu_parts").why(tmp_path / "log", code) == reason


def test_the_first_model_has_the_guides_sizes(load):
    model = load("gpu_rows").MODELS["sd15"]
    guide = toml.load(ROOT / "examples/cg3.toml")
    stage1 = {"train_batch_size": guide["training_arguments"]["train_batch_size"], **guide["dataset_arguments"]}
    for batch, settings in ((model.stage1, stage1), (model.stage2, guide["composite"]["stage2"])):
        assert batch.count == settings["train_batch_size"]
        assert f"{batch.resolution},{batch.resolution}" == settings["resolution"]


@pytest.mark.parametrize("lacking", [(), ("xformers",), ("bitsandbytes", "xformers")], ids=" ".join)
def test_what_is_not_installed_is_left_out_and_said(load, monkeypatch, lacking):
    rows = load("gpu_rows")
    monkeypatch.setattr(rows.importlib.util, "find_spec", lambda name: None if name in lacking else True)
    setups, lines = rows.default_setups()
    assert len(setups) == len(set(setups))
    assert {line.split()[0] for line in lines} == set(lacking)
    assert any(setup.attention == "xformers" for setup in setups) == ("xformers" not in lacking)
    assert any(setup.optimizer == "AdamW8bit" for setup in setups) == ("bitsandbytes" not in lacking)
    assert {setup.model for setup in setups} == set(rows.MODELS)


def test_weights_are_compared_bit_by_bit(load):
    import numpy as np

    parts, table = load("gpu_parts"), load("gpu_table")
    weights = {"a": np.float32([1, 0]), "b": np.float32([2])}
    assert parts._differences(weights, weights) == {"tensors": 2, "different": 0, "largest": 0.0}
    other = {"a": np.float32([1, 0.5]), "b": np.float32([2])}
    counted = parts._differences(other, weights)
    assert counted == {"tensors": 2, "different": 1, "largest": 0.5}
    words = table.what_happened({"failed": None, "steps": 6, "went_on_after": 4, **counted, "again": counted})
    differ = "1 of 2 tensors differ, by up to 5.0e-01"
    assert words == f"went on after step 4 of 6; {differ} (two undisturbed runs: {differ})"


def test_memory_is_told_in_gibibytes(load):
    assert load("gpu_table")._memory([2**31, 3 * 2**30]) == "2.00 / 3.00 GiB"
