"""Which model a checkpoint is, and which files it needs beside it. Missing and torn files: test_inputs.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lycoris_composite.architectures import ARCHITECTURES, BUILTIN, CHROMA_MARK
from lycoris_composite.config.stages import Stage
from lycoris_composite.preflight.weights import weight_errors


def checkpoint(folder: Path, *names: str) -> str:
    save_file({name: np.zeros(1, np.float32) for name in names}, folder / "base.safetensors")
    return str(folder / "base.safetensors")


def sentences(trainer: str, base: str | None, **settings: Any) -> list[str]:
    """What is refused of a stage whose other files are there: each is the checkpoint itself."""
    others = dict.fromkeys(ARCHITECTURES[trainer].required if trainer in ARCHITECTURES else (), base)
    stage = Stage(1, trainer, {"pretrained_model_name_or_path": base, **others, **settings})
    return [str(error) for error in weight_errors([stage])]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "net."])
@pytest.mark.parametrize("made", ARCHITECTURES)
def test_each_trainer_takes_its_own_checkpoints_and_no_others(tmp_path, made, prefix):
    for mark in ARCHITECTURES[made].marks:
        base = checkpoint(tmp_path, f"{prefix}{mark}weight", "first_stage_model.x")
        for trainer, row in ARCHITECTURES.items():
            is_own = row.name == ARCHITECTURES[made].name
            assert len(sentences(trainer, base)) == (0 if is_own else 1), trainer
        assert not sentences("somebodys_own", base)


@pytest.mark.parametrize("made", [trainer for trainer, row in ARCHITECTURES.items() if row.pipeline])
def test_a_folder_of_diffusers_says_whose_it_is(tmp_path, made):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": ARCHITECTURES[made].pipeline}))
    for trainer, row in ARCHITECTURES.items():
        said = sentences(trainer, str(tmp_path))
        if row.name == ARCHITECTURES[made].name:
            assert not said
        else:
            [sentence] = said
            assert (f"is {ARCHITECTURES[made].name}, but" if row.pipeline else "is a folder, but") in sentence


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"_class_name": "StableDiffusionInpaintPipeline"}'])
def test_what_is_nobodys_is_left_to_upstream(tmp_path, content):
    (tmp_path / "model_index.json").write_text(content)
    assert not sentences(BUILTIN, str(tmp_path))
    assert not sentences("flux_train_network", checkpoint(tmp_path, "weight"))


def test_a_script_of_somebodys_own_may_need_no_base_model():
    assert "pretrained_model_name_or_path: not set" in sentences("train_network", None)[0]
    assert not sentences("somebodys_own", None)


def test_a_checkpoint_may_hold_what_has_to_be_named_otherwise(tmp_path):
    row = ARCHITECTURES["sd3_train_network"]
    inside = {key: f"{start}weight" for key, start in row.inside.items()}
    unset = dict.fromkeys(inside)
    assert not sentences("sd3_train_network", checkpoint(tmp_path, "joint_blocks.0.x", *inside.values()), **unset)
    for left_out, key in ((inside[key], key) for key in inside):
        base = checkpoint(tmp_path, "joint_blocks.0.x", *(name for name in inside.values() if name != left_out))
        [sentence] = sentences("sd3_train_network", base, **unset)
        assert sentence.startswith(f"{key}: not set, and {base} holds none; name the file with SD3's ")


def test_chroma_is_told_from_flux(tmp_path):
    base = checkpoint(tmp_path, "double_blocks.0.img_attn.qkv.weight", f"{CHROMA_MARK}in_proj.weight")
    assert sentences("flux_train_network", base, clip_l=None) == [
        f'pretrained_model_name_or_path {base}: is Chroma; set model_type = "chroma".'
    ]
    assert not sentences("flux_train_network", base, model_type="chroma", clip_l=None)
    base = checkpoint(tmp_path, "double_blocks.0.img_attn.qkv.weight")
    assert sentences("flux_train_network", base, model_type="chroma") == [
        f'pretrained_model_name_or_path {base}: is Flux, and not Chroma; remove model_type = "chroma".'
    ]
    [sentence] = sentences("flux_train_network", str(tmp_path), model_type="chroma")
    assert sentence.endswith("reads a single file; name the one with Chroma's weights.")
    assert "clip_l: not set" in sentences("flux_train_network", checkpoint(tmp_path, "weight"), clip_l=None)[0]
