"""What a run sets in the environment is set back, and what somebody else has set there stays."""

from __future__ import annotations

import os

import pytest

from lycoris_composite import launcher
from lycoris_composite.run import environment


def test_everything_is_set_back_also_after_an_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "no")
    before = dict(os.environ)

    @environment.set_back()
    def run() -> None:
        environment.go_offline()
        environment.stay_on_cpu()
        environment.name_wandb_run("cg3")
        assert (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]) == ("0", "1")
        assert (os.environ["ACCELERATE_USE_CPU"], os.environ["WANDB_RUN_ID"]) == ("true", "cg3")
        del os.environ["HF_HUB_OFFLINE"]
        raise KeyError

    with pytest.raises(KeyError):
        run()

    assert dict(os.environ) == before


def test_the_launcher_leaves_the_environment_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = dict(os.environ)
    assert launcher.main(["--config", str(tmp_path / "gone.toml"), "--cpu"]) == 2
    assert dict(os.environ) == before


def test_defaults_leave_what_somebody_has_set(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.delenv("WANDB_RESUME", raising=False)
    with environment.with_defaults({"WANDB_RUN_ID": "ours", "WANDB_RESUME": "allow"}):
        assert (os.environ["WANDB_RUN_ID"], os.environ["WANDB_RESUME"]) == ("mine", "allow")
    assert "WANDB_RESUME" not in os.environ
