"""Other people's files run no code, and a secret of the config is seen by nobody but the service it is for."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.world import World

SECRETS = {"wandb_api_key": "s3cret-of-wandb", "huggingface_token": "s3cret-of-the-hub"}
RESUMABLE = {"max_train_steps": 8, "save_every_n_steps": 3, "save_state": True}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What the hostile files of these tests would make."""
    return tmp_path / "made_by_the_pickle"


def hostile(path: Path, mark: Path, size: int = 0) -> str:
    """A pickle that runs a command when it is loaded, padded to a size; its path."""
    path.write_bytes(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode().ljust(size, b"\0"))
    return str(path)


@pytest.mark.parametrize("option", ["pretrained_model_name_or_path", "vae", "network_weights"])
def test_a_hostile_pickle_is_refused_and_does_nothing(world: World, tmp_path: Path, mark: Path, option: str) -> None:
    path = hostile(tmp_path / ("weights.pt" if option == "network_weights" else "weights.ckpt"), mark)

    run = world.train(tmp_path, max_train_steps=1, **{option: path})

    assert run.code == 2
    assert f"error: {path}: holds more than weights, and loading it could run its code" in run.output
    assert "Traceback" not in run.output
    assert not mark.exists()


def test_so_is_one_in_a_state_that_a_run_goes_on_from(world: World, tmp_path: Path, mark: Path) -> None:
    world.strike(tmp_path, "step", 5, "9", **RESUMABLE)
    [state] = (tmp_path / "out").glob("*-state")
    for name in ("optimizer.bin", "random_states_0.pkl"):  # accelerate passes over the second where it cannot be read
        hostile(state / name, mark, size=(state / name).stat().st_size)

    run = world.train(tmp_path, **RESUMABLE)

    assert run.code == 2
    assert "optimizer.bin: holds more than weights" in run.output
    assert "Traceback" not in run.output
    assert not mark.exists()


def test_secrets_are_in_no_file_and_on_no_screen(world: World, tmp_path: Path) -> None:
    logged = {"log_with": "tensorboard", "logging_dir": str(tmp_path / "out/logs"), "log_config": True}
    stopped = world.strike(
        tmp_path,
        "step",
        13,
        str(int(signal.SIGTERM)),
        "--set",
        "huggingface_token=s3cret-by-set",
        **RESUMABLE,
        **logged,
        **SECRETS,
    )
    finished = world.train(tmp_path, "--wandb_api_key", "s3cret-by-flag", **RESUMABLE, **logged, **SECRETS)

    assert (stopped.code, finished.code) == (128 + signal.SIGTERM, 0)
    assert "--set huggingface_token=..." in stopped.output
    assert "s3cret" not in stopped.output + finished.output
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any("tfevents" in path.name for path in written)
    assert not [path for path in written if b"s3cret" in path.read_bytes()]
