"""LyCORIS's choice of kernels, pinned only where a run may go on. Asked of the installed LyCORIS itself."""

from __future__ import annotations

import os
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

pytest.importorskip("lycoris", reason='needs `pip install ".[builtin]"`')
from lycoris_composite import launcher
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.trainers import kernels

LOHA = {"network_module": "lycoris.kohya"}


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(kernels, "has_gpu", lambda: True)
    monkeypatch.delenv("LYCORIS_KERNEL_BACKEND", raising=False)


def inside(settings: dict) -> tuple[str | None, list[str]]:
    """The variable while a stage runs, and what is said."""
    said: list[str] = []
    with kernels.exact_kernels(KohyaSettings(settings), said.append):
        found = os.environ.get("LYCORIS_KERNEL_BACKEND")
    assert os.environ.get("LYCORIS_KERNEL_BACKEND") in (None, "triton"), "not set back"
    return found, said


@pytest.mark.parametrize("key", ["save_state", "save_state_on_train_end", "resume"])
def test_a_stage_that_saves_states_computes_with_torch_and_says_so(key):
    pytest.importorskip("lycoris.kernels", reason="LyCORIS 3 has none")
    found, [line] = inside({**LOHA, key: True})
    assert found == "torch"
    assert line.startswith(f"{key}: LYCORIS_KERNEL_BACKEND=torch, so that")


def test_elsewhere_speed_is_left_alone():
    assert inside(LOHA) == (None, [])
    assert inside({"network_module": "networks.lora", "save_state": True}) == (None, [])


def test_on_a_cpu_nothing_is_set(monkeypatch):
    monkeypatch.setattr(kernels, "has_gpu", lambda: False)
    assert inside({**LOHA, "save_state": True}) == (None, [])


def test_the_users_own_value_wins(monkeypatch):
    monkeypatch.setenv("LYCORIS_KERNEL_BACKEND", "triton")
    assert inside({**LOHA, "save_state": True}) == ("triton", [])


def test_lycoris_reads_it_in_every_call():
    """It was imported long before the variable is set."""
    dispatch = pytest.importorskip("lycoris.kernels.dispatch", reason="LyCORIS 3 has none")
    left_alone = dispatch.resolve_backend()
    with kernels.exact_kernels(KohyaSettings({**LOHA, "save_state": True}), lambda line: None):
        assert dispatch.resolve_backend() == "torch"
    assert dispatch.resolve_backend() == left_alone != "torch"


def test_the_launcher_sets_it_before_the_stage_runs(monkeypatch, capsys):
    pytest.importorskip("lycoris.kernels", reason="LyCORIS 3 has none")
    seen = []

    def run_stage(*_: object) -> tuple[int, int]:
        seen.append(os.environ.get("LYCORIS_KERNEL_BACKEND"))
        raise launcher.Stopped(2, "stopped")  # what comes after it needs files

    monkeypatch.setattr(launcher, "replace", lambda record, **_: record)
    monkeypatch.setattr(launcher, "starting_weights", lambda stage: None)
    stage = SimpleNamespace(
        settings={**LOHA, "save_state": True, "sample_prompts": "x"}, number=1, composite=None, output="out"
    )
    for settings in (stage.settings, LOHA | {"sample_prompts": "x"}):
        stage.settings = KohyaSettings(settings)
        with pytest.raises(launcher.Stopped):
            launcher._train(MagicMock(stage=stage), MagicMock(), SimpleNamespace(run_stage=run_stage), MagicMock(), False)
    assert seen == ["torch", None]
    assert capsys.readouterr().out.count("LYCORIS_KERNEL_BACKEND=torch") == 1
