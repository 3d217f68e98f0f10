"""Packages that are missing, broken or talkative."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("lycoris", reason="needs LyCORIS")
import torch

from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.errors import UserError
from lycoris_composite.trainers import machine

LYCORIS = {"network_module": "lycoris.kohya"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Puts a package of this name and code on the import path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, code: str) -> None:
        for module in [one for one in sys.modules if one.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "ops.py").write_text(code)

    return make


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('hello')", None),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("raise RuntimeError('one\\nand two')", "one"),
        ("import sys; sys.exit('gone')", "gone"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_whatever_an_import_does_is_one_line(package, capfd, code, reason):
    own_log = "log = logging.getLogger('noisy'); log.addHandler(logging.StreamHandler(sys.__stderr__)); log.error('e')"
    package("noisy_package", f"import logging, sys, warnings; warnings.warn('w'); {own_log}; {code}")
    assert machine.why_not_importable("noisy_package.ops") == reason
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"xformers": True}, "c.toml xformers: cannot be imported (broken); install it, or set sdpa = true in its place."),
        ({"optimizer_type": "AdamW8bit"}, "c.toml optimizer_type: AdamW8bit needs bitsandbytes, which cannot be imported ("),
        ({"use_8bit_adam": True}, "c.toml optimizer_type: use_8bit_adam needs bitsandbytes, which cannot be imported ("),
        ({"mixed_precision": "fp16"}, 'c.toml mixed_precision: "fp16" needs a GPU, and torch finds none here; give --cpu'),
        ({"network_module": "lycoris.koyha"}, "c.toml network_module: lycoris.koyha cannot be used (No module named"),
        ({"network_module": "networks.loar"}, "c.toml network_module: networks.loar cannot be used (import of networks.loar "
                                              'halted; None in sys.modules); did you mean "networks.lora"?'),
        ({"network_module": "networks.loha"}, "c.toml network_module: networks.loha cannot be used (import of networks.loha "
                                              "halted; None in sys.modules); update sd-scripts, or set lycoris.kohya."),
        ({"network_module": ""}, "c.toml network_module: none cannot be used (not set); for LyCORIS set lycoris.kohya."),
        ({"optimizer_type": "AdamWW"}, 'c.toml optimizer_type: unknown optimizer AdamWW; did you mean "AdamW"?'),
        ({"optimizer_type": "sgd"}, "c.toml optimizer_type: unknown optimizer sgd; choose another."),
        ({"lr_scheduler": "consine"}, 'c.toml lr_scheduler: unknown schedule consine; did you mean "cosine"?'),
        ({"log_with": "tensorboard"}, 'c.toml log_with: "tensorboard" needs a folder; set logging_dir, or leave log_with out.'),
        ({"log_with": "wandb"}, 'c.toml log_with: "wandb" needs wandb, which cannot be imported ('),
    ],
)  # fmt: skip
def test_what_this_machine_cannot_train_with(package, monkeypatch, settings, sentence):
    package("xformers", "raise OSError('broken')")
    for name in ("bitsandbytes", "wandb", "networks.loha", "networks.loar"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    [error] = machine.machine_errors(KohyaSettings({**LYCORIS, **settings}), "c.toml")
    assert str(error).startswith(sentence)


def test_xformers_without_a_gpu(package, monkeypatch):
    package("xformers", "")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    [error] = machine.machine_errors(KohyaSettings({**LYCORIS, "xformers": True}), "c.toml")
    assert "needs CUDA" in str(error)


@pytest.mark.parametrize("settings", [{"attn_mode": "flash"}, {"use_flash_attn": True}])
def test_another_packages_attention(package, monkeypatch, settings):
    package("flash_attn", "")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    [key] = settings
    [error] = machine.machine_errors(KohyaSettings({**LYCORIS, **settings}), "c.toml")
    assert str(error).startswith(f"c.toml {key}: needs CUDA, and torch finds none here; give --cpu, or set {key} = ")
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    [error] = machine.machine_errors(KohyaSettings({**LYCORIS, **settings}), "c.toml")
    assert str(error).startswith(f"c.toml {key}: cannot be imported (import of flash_attn halted")


def test_what_it_can_train_with(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    settings = {**LYCORIS, "sdpa": True, "mixed_precision": "bf16", "optimizer_type": "AdamW", "log_with": "tensorboard"}
    assert list(machine.machine_errors(KohyaSettings({**settings, "logging_dir": "logs"}), "c.toml")) == []


@pytest.mark.parametrize(
    "name", ["adamw", "Lion", "SGD", "NAdam", "DAdaptAdam", "prodigy", "RAdamScheduleFree", "package.Of.Mine"]
)
def test_optimizers_that_upstream_knows(name):
    assert list(machine.machine_errors(KohyaSettings({**LYCORIS, "optimizer_type": name}), "c.toml")) == []


@pytest.mark.parametrize("name", ["cosine_with_restarts", "warmup_stable_decay", "piecewise_constant", "adafactor:0.001"])
def test_schedules_that_upstream_knows(name):
    assert list(machine.machine_errors(KohyaSettings({**LYCORIS, "lr_scheduler": name}), "c.toml")) == []
    assert (
        list(machine.machine_errors(KohyaSettings({**LYCORIS, "lr_scheduler": "x", "lr_scheduler_type": "mine.Own"}), "c.toml"))
        == []
    )


def test_a_clip_whose_layers_have_other_names_is_refused(monkeypatch):
    """As transformers has it from 5.6 on; a module without `text_model` stands in for it."""
    machine.check_clip()
    import transformers  # which puts another module in its own place while it loads

    monkeypatch.setattr(transformers, "CLIPTextModel", lambda config: torch.nn.Module())
    monkeypatch.setattr(transformers, "__version__", "5.6.0")
    with pytest.raises(
        UserError, match=r'transformers 5.6.0: its CLIP has no text_model.* run `pip install "transformers<5.6"`'
    ):
        machine.check_clip()
