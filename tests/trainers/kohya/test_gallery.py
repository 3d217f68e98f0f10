"""The gallery of a real run: upstream's own names of samples and its own TensorBoard logs, interrupted in between."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lycoris_composite.config.prompts import Prompt, read_prompts
from lycoris_composite.look.loss_logs import read_curves
from lycoris_composite.look.sample_files import read_grid
from tests.world import World

pytest.importorskip("tensorboard")
PROMPTS = """\
rin --n bad --w 64 --h 64 --d 1 --s 1
# a remark
uzuki, rin, a - b --W 128 --H 64 --s 1 --l 3
"""


def test_an_interrupted_run_becomes_a_page(world: World, tmp_path: Path) -> None:
    """Stage 1 is killed in its second epoch, after the first one's samples, and goes on from the state after step 3."""
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    settings = {
        "max_train_epochs": 2,
        "max_train_steps": None,
        "save_every_n_steps": 3,
        "save_state": True,
        "sample_prompts": str(tmp_path / "prompts.txt"),
        "sample_every_n_epochs": 1,
        "sample_at_first": True,
        "logging_dir": str(tmp_path / "logs"),
        "log_prefix": "cg3_",
        "log_with": "tensorboard",
    }
    assert world.strike(tmp_path, "step", 9, "9", **settings).code == -signal.SIGKILL
    assert world.train(tmp_path, **settings).code == 0

    made = world.command(tmp_path, "-m", "lycoris_composite.cli", "gallery", "out")

    assert made.code == 0
    assert "out/cg3-gallery.html\n" in made.output
    grid, _ = read_grid(tmp_path / "out")
    assert [prompt.text for prompt in grid.rows] == ["rin", "uzuki, rin, a - b"]
    assert [[column[0].label for column in stage.columns] for stage in grid.stages] == [["start", "epoch 1", "epoch 2"]] * 2
    page = (tmp_path / "out/cg3-gallery.html").read_text()
    assert page.count("data:image/jpeg") == 12
    assert page.count("data:image/svg+xml") == 4
    assert "earlier run" not in page  # nothing was drawn again, and nothing by weights of a later step
    curves, why_not = read_curves(grid, tmp_path / "out", None)
    assert why_not == ""
    assert len(list((tmp_path / "logs").iterdir())) == 1
    for curve in curves.values():
        assert list(curve.steps) == list(range(1, len(curve.steps) + 1))
        assert len(curve.steps) >= 10
    assert len(curves) == 2


def test_prompt_files_read_as_upstream_reads_them(world: World, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    code = "import json, sys; from library.train_util import load_prompts; print('=', json.dumps(load_prompts(sys.argv[1])))"
    done = world.command(tmp_path, "-c", code, str(tmp_path / "prompts.txt"), env={"PYTHONPATH": str(world.sd_scripts)})
    [line] = [line for line in done.output.splitlines() if line.startswith("= ")]
    (tmp_path / "prompts.json").write_text(line[2:])
    own = read_prompts(tmp_path / "prompts.txt")
    assert own == read_prompts(tmp_path / "prompts.json")
    assert own == [Prompt("rin", "bad", (64, 64), 1), Prompt("uzuki, rin, a - b", "", (128, 64))]
