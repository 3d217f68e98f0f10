"""Logs that the kohya config turns on, as somebody finds them in TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import World

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_both_stages_are_one_run_also_after_an_interruption(world: World, tmp_path: Path) -> None:
    settings = {"max_train_steps": 4, "save_every_n_steps": 2, "save_state": True, "log_with": "tensorboard"}
    settings |= {"logging_dir": str(tmp_path / "logs"), "log_prefix": "mine/of-"}
    assert world.strike(tmp_path, "step", 9, "9", **settings).code == -9
    assert world.train(tmp_path, **settings).code == 0

    [run] = (tmp_path / "logs/mine").iterdir()
    assert run.name.startswith("of-cg3-")
    events = event_accumulator.EventAccumulator(str(run / "network_train"))
    events.Reload()
    steps = [event.step for event in events.Scalars("loss/current")]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6, 7, 8]
    pictures = events.Tags()["images"]
    assert sorted(pictures) == [
        f"composites/{a}/{b}" for a in ("mio", "rin", "uzuki") for b in ("mio", "rin", "uzuki") if a != b
    ]
    assert {event.step for tag in pictures for event in events.Images(tag)} == {4}
    assert all(len(events.Images(tag)) == 1 for tag in pictures)


def test_wandb_has_both_stages_in_one_run(world: World, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    settings = {"max_train_steps": 2, "log_with": "wandb", "logging_dir": str(tmp_path / "logs")}
    run = world.train(tmp_path, env={"WANDB_MODE": "offline", "WANDB_SILENT": "true"}, **settings)
    assert run.code == 0
    logged = sorted((tmp_path / "logs").rglob("offline-run-*"))
    assert len(logged) == 2
    [name] = {folder.name.split("-", 3)[3] for folder in logged}
    assert name.startswith("cg3-")
    assert [len(list(folder.rglob("media/images/composites/*/*.png"))) for folder in logged] == [0, 6]
