"""A two-stage run that was killed goes on by the same command, and ends with the weights of an undisturbed one."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.world import World

# 9 images in batches of 2, of three sizes: 6 batches an epoch, so that 8 steps end in the middle of the second
SETTINGS = {
    "max_train_steps": 8,
    "save_every_n_steps": 3,
    "save_state": True,
    "shuffle_caption": True,
    "lr_scheduler": "cosine",
}


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert world.train(folder, **SETTINGS).code == 0
    return folder / "out"


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)


@pytest.mark.parametrize(
    ("what", "number", "says"),
    [
        ("step", 5, "stage 1: was interrupted; it goes on after step 3 of 8"),
        ("step", 17, "stage 2: was interrupted; it goes on after step 6 of 8"),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(
    world: World, tmp_path: Path, undisturbed: Path, what: str, number: int, says: str
) -> None:
    assert world.strike(tmp_path, what, number, "9", **SETTINGS).code == -signal.SIGKILL

    again = world.train(tmp_path, **SETTINGS)

    assert again.code == 0
    assert says in again.output
    for name in ("cg3-stage1", "cg3"):
        assert same_weights(undisturbed / f"{name}.safetensors", tmp_path / f"out/{name}.safetensors"), name
    assert sorted(path.name for path in undisturbed.iterdir()) == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_a_run_that_was_asked_to_stop_saves_its_state_and_goes_on(world: World, tmp_path: Path, undisturbed: Path) -> None:
    stopped = world.strike(tmp_path, "step", 14, "15", **SETTINGS)

    assert stopped.code == 128 + signal.SIGTERM
    assert "stopped after step 4 of 8; its state is in" in stopped.output
    assert "go on with: python " in stopped.output
    assert (tmp_path / "out/cg3-step00000004-state").is_dir()
    again = world.train(tmp_path, **SETTINGS)
    assert again.code == 0
    assert "stage 2: was interrupted; it goes on after step 4 of 8" in again.output
    assert same_weights(undisturbed / "cg3.safetensors", tmp_path / "out/cg3.safetensors")
    assert not (tmp_path / "out/cg3-step00000004-state").exists()


def test_more_steps_go_on_where_a_finished_run_ended(world: World, tmp_path: Path) -> None:
    """Also bit for bit, where the schedule does not depend on the end. Stage 1 stays what stage 2 has started from."""
    settings = {"lr_scheduler": "constant", "save_state_on_train_end": True, "shuffle_caption": True, "max_train_steps": 2}
    longer = {"stage2": {"resolution": "192,192", "train_batch_size": 2, "max_train_steps": 4}}
    at_once, by_turns = tmp_path / "at_once", tmp_path / "by_turns"
    for folder in (at_once, by_turns):
        folder.mkdir()
    assert world.train(at_once, composite=longer, **settings).code == 0
    assert world.train(by_turns, **settings).code == 0

    further = world.train(by_turns, **{**settings, "max_train_steps": 4})

    assert further.code == 0
    assert "stage 1: finished already" in further.output
    assert "stage 2: goes on for longer after step 2, from " in further.output
    for name in ("cg3-stage1", "cg3"):
        assert same_weights(at_once / f"out/{name}.safetensors", by_turns / f"out/{name}.safetensors"), name
    again = world.train(by_turns, **{**settings, "max_train_steps": 4})
    assert again.code == 0
    assert again.output.count("finished already") == 2


def test_a_run_that_never_began_asks_for_nothing(world: World, tmp_path: Path) -> None:
    """It stops when upstream finds its VAE to be none; the config is mended, and so is another setting."""
    bad = tmp_path / "bad.safetensors"
    save_file({"nothing": torch.zeros(1)}, bad)
    stopped = world.train(tmp_path, vae=str(bad), **SETTINGS)
    assert stopped.code != 0
    assert (tmp_path / "out/cg3.run.json").exists()

    mended = world.train(tmp_path, "--stage", "1", **{**SETTINGS, "learning_rate": 1e-3, "max_train_steps": 1})

    assert mended.code == 0
    assert "stage 1: was interrupted, and no state of it was saved; it starts over" in mended.output


def test_images_that_are_gone_in_mid_run_can_be_put_back(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.folder / "data", tmp_path / "data")
    settings = {**SETTINGS, "cache_latents": None, "train_data_dir": str(tmp_path / "data"), "max_train_steps": 6}

    taken = world.strike(tmp_path, "step", 5, "take", **settings)

    assert taken.code == 2
    assert re.search(r"\nerror: \S+/data/1_\w+/\d+\.png: is gone; put it back", taken.output)
    assert "Traceback" not in taken.output
    for path in (tmp_path / "data").rglob("*.taken"):
        path.rename(path.with_suffix(".png"))
    again = world.train(tmp_path, **settings)
    assert again.code == 0
    assert "stage 1: was interrupted; it goes on after step 3 of 6" in again.output


def test_a_finished_run_is_not_repeated_and_a_changed_one_asks(world: World, undisturbed: Path) -> None:
    folder = undisturbed.parent
    before = {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}

    again = world.train(folder, **SETTINGS)
    changed = world.train(folder, **{**SETTINGS, "learning_rate": 1e-3})

    assert again.code == 0
    assert again.output.count("finished already") == 2
    assert changed.code == 2
    assert "stage 1 and 2, learning_rate: 0.0005 -> 0.001" in changed.output
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.iterdir() if path.suffix != ".lock"} | {
        path: when for path, when in before.items() if path.suffix == ".lock"
    }
