"""What a run needs, as far as it can be said by hand. benchmarks/needs.py holds the estimates against measured runs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from lycoris_composite import needs
from lycoris_composite.costs import Work, composite_work
from lycoris_composite.stages import stages_of
from tests.helpers import character, kohya_settings, plan


@pytest.mark.parametrize(
    ("settings", "files", "states"),
    [
        ({"max_train_steps": 20}, 1, 0),
        ({"max_train_steps": 20, "save_every_n_steps": 5}, 5, 0),
        ({"max_train_epochs": 4, "save_every_n_epochs": 1}, 4, 0),
        ({"max_train_epochs": 4, "save_every_n_epochs": 1, "save_state": True}, 4, 4),
        ({"max_train_epochs": 9, "save_every_n_epochs": 1, "save_last_n_epochs": 2, "save_state": True}, 3, 3),
        ({"max_train_steps": 20, "save_every_n_steps": 2, "save_last_n_steps": 4}, 4, 0),
        ({"max_train_epochs": 4, "save_state_on_train_end": True}, 1, 1),
        ({"max_train_epochs": 8, "save_n_epoch_ratio": 4}, 4, 0),
        ({"max_train_steps": 20, "gradient_accumulation_steps": 2, "save_every_n_epochs": 1}, 4, 0),
    ],
)
def test_how_often_is_saved(settings, files, states):
    assert needs.saves(settings, batches=10) == (files, states)


def test_composites_are_encoded_panel_by_panel():
    made = plan([character("rin"), character("mio", flip_aug=True)])
    work = composite_work([made])
    assert sum(work.panels.values()) == 3 + 2 * 3
    assert (work.batches, work.batch_size, work.largest) == (made.batches, 2, max(made.sizes, key=math.prod))
    pixels = composite_work([plan(options=replace(made.options, join="pixel"))])
    assert sum(pixels.panels.values()) == 2 * 9


def test_latents_lie_on_disk_or_in_memory(tmp_path):
    work = Work(1, 1, 1, (64, 64), {(64, 64): 10})
    for kohya, on_disk, in_memory in (
        ({}, 0, 0),
        ({"cache_latents": True}, 0, 10_240),
        ({"cache_latents_to_disk": True}, 10_240, 0),
    ):
        stage = stages_of(kohya_settings(tmp_path, **kohya))[0]
        assert (needs.cached_bytes(stage, work, True), needs.cached_bytes(stage, work, False)) == (on_disk, in_memory)


def test_a_single_file_is_taken_apart_by_its_names(tmp_path):
    names = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.label_emb.0.0.weight": (8, 8),
    }
    names |= {"conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight": (12, 4), "first_stage_model.x": (2,)}
    save_file({name: np.zeros(shape, np.float16) for name, shape in names.items()}, tmp_path / "xl.safetensors")
    model = needs.model_of(tmp_path / "xl.safetensors", lambda path: {})
    assert (model.channels, model.is_xl, model.values) == (320, True, 320 * 36 + 64 + 48 + 2)
    assert list(needs.adaptable(model.text, is_text=True).values()) == [(4, 4)] * 3


def test_a_model_that_cannot_be_read_is_none(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    assert needs.model_of(tmp_path / "a.safetensors", lambda path: {}) is None
    assert needs.model_of(tmp_path / "gone", lambda path: {}) is None


def test_what_saves_memory_saves_it(tmp_path):
    model = needs.Model({"conv_in.weight": (320, 4, 3, 3)}, {}, {})
    network, work = needs.Network(1000, 10, 5000), Work(4, 1, 4, (512, 512), {})

    def whole(**kohya) -> int:
        return sum(needs.memory_bytes(stages_of(kohya_settings(tmp_path, **kohya))[0], model, network, work).values())

    assert whole(mixed_precision="fp16") < whole()
    assert whole(gradient_checkpointing=True) < whole()
    assert needs.memory_bytes(stages_of(kohya_settings(tmp_path))[0], replace(model, unet={}), network, work) is None
