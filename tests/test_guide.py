"""examples/cg3.toml is the published guide ("1to2", 2023), setting by setting."""

from __future__ import annotations

import toml

from lycoris_composite.composites.captions import marker, render
from lycoris_composite.config import settings as config
from lycoris_composite.config.stages import stages_of
from tests.helpers import ROOT

EXAMPLE = ROOT / "examples/cg3.toml"
# The guide's own tables, all of them.
GUIDE = {
    "model_arguments": {
        "v2": False,
        "v_parameterization": False,
        "pretrained_model_name_or_path": "Animefull-final-pruned.ckpt",
    },
    "additional_network_arguments": {
        "no_metadata": False,
        "unet_lr": 0.0005,
        "text_encoder_lr": 0.0005,
        "network_module": "lycoris.kohya",
        "network_dim": 8,
        "network_alpha": 1,
        "network_args": ["conv_dim=0", "conv_alpha=16", "algo=loha"],
        "network_train_unet_only": False,
        "network_train_text_encoder_only": False,
    },
    "optimizer_arguments": {
        "optimizer_type": "AdamW8bit",
        "learning_rate": 0.0005,
        "max_grad_norm": 1.0,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 0,
    },
    "dataset_arguments": {"debug_dataset": False, "keep_tokens": 1, "resolution": "640,640"},
    "training_arguments": {
        "output_name": "cg3comp",
        "save_precision": "fp16",
        "save_every_n_epochs": 1,
        "train_batch_size": 4,
        "max_token_length": 225,
        "mem_eff_attn": False,
        "xformers": True,
        "max_train_epochs": 40,
        "max_data_loader_n_workers": 8,
        "persistent_data_loader_workers": True,
        "gradient_checkpointing": False,
        "gradient_accumulation_steps": 1,
        "mixed_precision": "fp16",
        "clip_skip": 2,
        "lowram": True,
    },
    "sample_prompt_arguments": {"sample_every_n_epochs": 1, "sample_sampler": "k_euler_a"},
    "saving_arguments": {"save_model_as": "safetensors"},
}
# What the guide leaves to its notebook, and what is ours; the first two are a reader's to fill in.
OTHERS = {"train_data_dir", "output_dir", "enable_bucket", "shuffle_caption", "caption_extension", "cache_latents", "seed"}


def test_every_setting_of_the_guide_has_the_guides_value():
    tables = toml.loads(EXAMPLE.read_text(encoding="utf-8"))
    on_top = {"model_arguments": {"pretrained_model_name_or_path": tables["pretrained_model_name_or_path"]}}
    for name, settings in GUIDE.items():
        assert {**on_top.get(name, {}), **tables[name]} == settings, name


def test_nothing_else_is_set_but_what_is_marked_as_not_the_guides():
    guide = {key for table in GUIDE.values() for key in table}
    assert set(config.load_settings(EXAMPLE).kohya) - guide == OTHERS
    text = EXAMPLE.read_text(encoding="utf-8")
    own = text.partition("# --- not in the guide")[2]
    assert all(f"\n{key} = " in own for key in OTHERS - {"train_data_dir", "output_dir"})


def test_what_a_reader_fills_in_stands_on_top():
    lines = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert [line.partition(" ")[0] for line in lines[:3]] == ["pretrained_model_name_or_path", "train_data_dir", "output_dir"]


def test_the_second_stage_is_the_first_but_for_batch_and_size():
    first, second = stages_of(config.load_settings(EXAMPLE))
    different = {key for key in {*first.settings, *second.settings} if first.settings.get(key) != second.settings.get(key)}
    assert different == {"train_batch_size", "resolution", "output_name", "network_weights"}
    assert (second.settings["train_batch_size"], second.settings["resolution"]) == (2, "768,768")


def test_the_caption_is_the_guides():
    template = config.load_settings(EXAMPLE).composite.caption
    assert render(template, ["uzuki", "rin"], [["a", "b"], ["c"]]) == "uzuki/rin/COMPOSITE, a, b, c"
    assert marker(template) == "COMPOSITE"
