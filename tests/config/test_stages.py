"""One config to two stages: what differs between them, and what is written down about each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toml
from hypothesis import given
from hypothesis import strategies as st

from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.config import settings as config
from lycoris_composite.config.effective import config_text, dataset_tables
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.stages import Stage, stages_of, without_cuda
from lycoris_composite.errors import UserError
from tests.helpers import fast, kohya_settings, plan

RESUME = {
    "resume": "state",
    "resume_from_huggingface": True,
    "initial_epoch": 2,
    "initial_step": 10,
    "skip_until_initial_step": True,
}


def both(folder: Path, composite: dict[str, Any] | None = None, **kohya: Any) -> tuple[Stage, Stage]:
    first, second = stages_of(kohya_settings(folder, composite, **kohya))
    return first, second


# --- what differs ------------------------------------------------------------------------------------------------


def test_names_and_outputs(tmp_path):
    first, second = both(tmp_path)
    out = tmp_path / "out"
    assert (first.number, second.number) == (1, 2)
    assert first.output == out / "cg3-stage1.safetensors"
    assert second.output == out / "cg3.safetensors"
    assert (first.config_file, second.config_file) == (out / "cg3-stage1.toml", out / "cg3.toml")
    assert first.dataset_config_file != second.dataset_config_file
    assert first.settings["output_name"] == "cg3-stage1"


def test_without_a_name_upstreams_default_holds(tmp_path):
    first, second = both(tmp_path, output_name=None)
    assert (first.output.name, second.output.name) == ("last-stage1.safetensors", "last.safetensors")


def test_outputs_are_called_as_they_are_saved(tmp_path):
    assert both(tmp_path, save_model_as="ckpt")[0].output.name == "cg3-stage1.ckpt"


def test_a_name_of_digits_is_a_name(tmp_path):
    """`--set output_name=2024` is a number in TOML."""
    assert [stage.name for stage in both(tmp_path, output_name=2024)] == ["2024-stage1", "2024"]


def test_stage_2_starts_from_what_stage_1_saved(tmp_path):
    first, second = both(tmp_path, {"stage2": {"save_model_as": "pt", "output_dir": "elsewhere"}})
    assert first.weights_from is None
    assert "network_weights" not in first.settings
    assert second.weights_from == first.output == tmp_path / "out" / "cg3-stage1.safetensors"
    assert second.settings["network_weights"] == str(first.output)


def test_stage_1_may_start_from_a_file_of_the_users(tmp_path):
    first, second = both(tmp_path, network_weights="mine.safetensors")
    assert first.settings["network_weights"] == "mine.safetensors"
    assert second.settings["network_weights"] == str(first.output)


def test_only_stage_2_makes_composites(tmp_path):
    first, second = both(tmp_path, {"join": "pixel"})
    assert first.composite is None
    assert second.composite == CompositeOptions(join="pixel")


def test_stage_2_is_stage_1_but_for_its_overrides(tmp_path):
    overrides = {"train_batch_size": 2, "resolution": "768,768"}
    kohya = {"train_batch_size": 4, "resolution": "640,640", "learning_rate": 1e-4, "network_args": ["algo=loha"]}
    first, second = both(tmp_path, {"stage2": overrides}, **kohya)
    changed = {key for key in second.settings if second.settings[key] != first.settings.get(key)}
    assert changed == {"train_batch_size", "resolution", "network_weights", "output_name"}
    assert {key: second.settings[key] for key in overrides} == overrides
    assert {key: first.settings[key] for key in kohya} == kohya


def test_the_trainer_is_one_for_both(tmp_path):
    assert {stage.trainer for stage in both(tmp_path, {"trainer": "sdxl_train_network"})} == {"sdxl_train_network"}


def test_an_interrupted_run_goes_on_in_the_stage_that_runs_first(tmp_path):
    first, second = both(tmp_path, **RESUME)
    assert {key: first.settings[key] for key in RESUME} == RESUME
    assert not set(RESUME) & set(second.settings)


@pytest.mark.parametrize("number", [1, 2])
def test_one_stage_alone(tmp_path, number):
    settings = kohya_settings(tmp_path, **RESUME)
    stage = stages_of(settings, number)[number - 1]
    whole = stages_of(settings)[number - 1]
    assert (stage.number, stage.output, stage.weights_from) == (number, whole.output, whole.weights_from)
    assert {key: stage.settings[key] for key in RESUME} == RESUME


def test_stage_2_alone_starts_from_a_lora_of_the_users_own_where_stage_1_has_saved_none(tmp_path):
    settings = kohya_settings(tmp_path, network_weights="mine.safetensors")
    second = stages_of(settings, 2)[1]
    assert second.settings["network_weights"] == "mine.safetensors"
    assert second.weights_from is None
    assert ("network_weights", "mine.safetensors") in second.weight_files

    second_of_both = stages_of(settings)[1]
    second_of_both.weights_from.parent.mkdir()
    second_of_both.weights_from.touch()
    assert stages_of(settings, 2)[1].weights_from == second_of_both.weights_from


def test_no_folder_for_the_outputs(tmp_path):
    with pytest.raises(UserError, match="cg3.toml, output_dir: not set; name the folder for the trained files"):
        both(tmp_path, output_dir=None)


# --- the seed ----------------------------------------------------------------------------------------------------


def test_a_given_seed_stays_also_where_it_is_zero(tmp_path):
    assert [stage.settings["seed"] for stage in both(tmp_path, seed=0)] == [0, 0]


def test_a_missing_seed_is_chosen_and_the_same_for_all_processes(tmp_path):
    first, second = both(tmp_path, seed=None, learning_rate=1e-4)
    assert first.settings["seed"] == second.settings["seed"]
    assert first.settings["seed"] == both(tmp_path, seed=None, learning_rate=1e-4)[0].settings["seed"]
    assert first.settings["seed"] != both(tmp_path, seed=None, learning_rate=1e-3)[0].settings["seed"]
    assert 0 <= first.settings["seed"] < 2**32  # numpy's limit
    _, alone = stages_of(kohya_settings(tmp_path, seed=None, learning_rate=1e-4), 2)
    assert alone.settings["seed"] == second.settings["seed"]


def test_a_resumed_run_has_the_seed_that_it_began_with(tmp_path):
    """The same composites after every resume, also where the config gives no seed."""
    begun, resumed = (both(tmp_path, seed=None, **more)[0].settings["seed"] for more in ({}, RESUME))
    assert begun == resumed


# --- what is written ---------------------------------------------------------------------------------------------


def read_back(stage: Stage) -> dict[str, Any]:
    """The stage's config file as upstream reads it."""
    return config.flatten(toml.loads(config_text(stage)))


values = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["C"], exclude_characters='"'), max_size=20),  # toml cannot read "\\""
    st.lists(st.text("abc=_.0 ", max_size=10), max_size=3),
)
keys = st.text("abcdefgh_", min_size=1, max_size=10).map("key_{}".format)


@fast
@given(st.dictionaries(keys, values, max_size=8))
def test_plain_upstream_reads_back_what_each_stage_ran_with(kohya):
    kohya = {**kohya, "output_dir": "out", "seed": 1}
    settings = config.Settings(Path("cg3.toml"), kohya, CompositeOptions(caption='{left} "&" {right}'))
    for stage in stages_of(settings):
        read = read_back(stage)
        assert read.pop("composite", None) == (None if stage.number == 1 else vars(settings.composite))
        assert read == stage.settings


@pytest.mark.parametrize(
    "path", ["C:\\models\\anime", "C:\\xl\\unet", "D:\\x41", "back\\\\slashes", "tab\\t", "no-break\u00a0space"]
)
def test_paths_survive_the_writing(path):
    kohya = {"output_dir": "out", "seed": 1, "pretrained_model_name_or_path": path}
    first, _ = stages_of(config.Settings(Path("cg3.toml"), kohya, CompositeOptions()))
    assert read_back(first)["pretrained_model_name_or_path"] == path


def test_secrets_are_written_nowhere_and_still_reach_upstream(tmp_path):
    secrets = {"wandb_api_key": "s3cret-wandb", "huggingface_token": "s3cret-hf"}
    for stage in both(tmp_path, **secrets):
        assert "s3cret" not in config_text(stage)
        assert not set(secrets) & set(toml.loads(config_text(stage)))
        assert stage.secrets == secrets
    assert both(tmp_path)[0].secrets == {}


def test_with_a_dataset_config_each_stage_names_its_own(tmp_path):
    for stage in both(tmp_path, dataset_config="data.toml"):
        read = read_back(stage)
        assert read["dataset_config"] == str(stage.dataset_config_file)
        assert "composite" not in read  # it stands in the datasets' tables


def tables_of(stage: Stage, tables: dict[str, Any]) -> dict[str, Any] | None:
    """The tables of a stage whose dataset_config holds these."""
    path = stage.output_dir.parent / "data.toml"
    path.write_text(toml.dumps(tables))
    return dataset_tables(replace(stage, settings=KohyaSettings({**stage.settings, "dataset_config": str(path)})))


def source() -> dict[str, Any]:
    subsets = [{"image_dir": "rin", "keep_tokens": 1}, {"image_dir": "mio", "resolution": 64}]
    return {
        "general": {"resolution": 512, "shuffle_caption": True, "batch_size": 4, "num_repeats": 3},
        "datasets": [{"resolution": [640, 640], "batch_size": 8, "subsets": subsets}, {"subsets": [{"image_dir": "uzuki"}]}],
    }


def test_stage_1_trains_on_the_dataset_config_as_it_is(tmp_path):
    first, _ = both(tmp_path, {"stage2": {"resolution": 768}})
    assert tables_of(first, source()) == source()


def test_a_trigger_by_hand_is_left_to_the_stage_that_names_characters(tmp_path):
    first, second = both(tmp_path, dataset_config="data.toml")
    tables = {"datasets": [{"subsets": [{"image_dir": "a", "trigger": "ana"}]}]}
    assert tables_of(first, tables)["datasets"] == [{"subsets": [{"image_dir": "a"}]}]
    assert tables_of(second, tables)["datasets"][0]["subsets"] == tables["datasets"][0]["subsets"]


def test_stage_2s_overrides_win_over_every_level_of_the_dataset_config(tmp_path):
    stage2 = {"resolution": "768,768", "train_batch_size": 2}
    _, second = both(tmp_path, {"join": "pixel", "stage2": stage2})
    composite = vars(CompositeOptions(join="pixel"))
    assert tables_of(second, source()) == {
        "general": {"shuffle_caption": True, "num_repeats": 3},
        "datasets": [
            {"composite": composite, "subsets": [{"image_dir": "rin", "keep_tokens": 1}, {"image_dir": "mio"}]},
            {"composite": composite, "subsets": [{"image_dir": "uzuki"}]},
        ],
    }


def test_what_stage_2_does_not_override_stays_in_the_dataset_config(tmp_path):
    _, second = both(tmp_path)
    rewritten = tables_of(second, source())
    for dataset in rewritten["datasets"]:
        assert dataset.pop("composite")
    assert rewritten == source()


# --- what cannot be, and what a CPU cannot -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kohya", "sentence"),
    [
        ({"max_train_epochs": 0}, "max_train_epochs: 0 is out of range; give 1 or more"),
        ({"network_dim": -1}, "network_dim: -1 is out of range"),
        ({"save_every_n_epochs": 0}, "save_every_n_epochs: 0 is out of range"),
        ({"random_crop": True, "cache_latents_to_disk": True}, "random_crop: draws anew each time, so no latents"),
    ],
)
def test_what_upstream_stops_at_later(tmp_path, kohya, sentence):
    with pytest.raises(UserError, match=sentence):
        stages_of(kohya_settings(tmp_path, **kohya))
    with pytest.raises(UserError, match=sentence):
        stages_of(kohya_settings(tmp_path, {"stage2": kohya}))


def test_without_cuda_xformers_become_sdpa():
    settings = {"xformers": True, "learning_rate": 1e-4}
    changed, lines = without_cuda(settings)
    assert changed == {"xformers": False, "sdpa": True, "learning_rate": 1e-4}
    assert lines == ["sdpa attention instead of xformers"]
    assert settings == {"xformers": True, "learning_rate": 1e-4}


def test_without_cuda_nothing_is_mixed_or_half():
    settings = {"mixed_precision": "fp16", "full_fp16": True, "full_bf16": False, "fp8_base": True}
    changed, lines = without_cuda(settings)
    assert changed == {"mixed_precision": "no", "full_fp16": False, "full_bf16": False, "fp8_base": False}
    assert sorted(lines) == ["float32 instead of mixed_precision fp16", "no fp8_base", "no full_fp16"]


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"optimizer_type": "AdamW8bit"}, "AdamW"),
        ({"optimizer_type": "PagedAdamW8bit"}, "AdamW"),
        ({"optimizer_type": "Lion8bit"}, "Lion"),
        ({"optimizer_type": "adamw8bit"}, "adamw"),
        ({"optimizer_type": "pagedadamw8bit"}, "adamw"),
        ({"use_8bit_adam": True}, "AdamW"),
        ({"use_8bit_adam": True, "optimizer_type": ""}, "AdamW"),
        ({"use_8bit_adam": True, "optimizer_type": "AdamW"}, "AdamW"),
    ],
)
def test_without_cuda_optimizers_have_all_their_bits(given, plain):
    changed, lines = without_cuda(given)
    assert changed == {"optimizer_type": plain, "use_8bit_adam": False}
    assert len(lines) == 1
    assert lines[0].startswith(f"optimizer {plain} instead of ")


@pytest.mark.parametrize(("given", "plain", "line"), [
    ({"attn_mode": "flash"}, {"attn_mode": "torch"}, "attn_mode torch instead of flash"),
    ({"blocks_to_swap": 18}, {"blocks_to_swap": 0}, "no blocks_to_swap"),
    ({"cpu_offload_checkpointing": True}, {"cpu_offload_checkpointing": False}, "no cpu_offload_checkpointing"),
])  # fmt: skip
def test_without_cuda_nothing_is_swapped_or_a_cards_own(given, plain, line):
    changed, lines = without_cuda(given)
    assert (repr(changed), lines) == (repr(plain), [line])  # 0 is no false here: upstream wants a number


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer_type": "Prodigy", "mixed_precision": "no", "xformers": False, "attn_mode": "sdpa"}]
)
def test_without_cuda_all_else_stays(settings):
    assert without_cuda(settings) == (settings, [])


def test_an_empty_text_takes_a_key_away_from_stage_2_alone(tmp_path):
    first, second = stages_of(kohya_settings(tmp_path, {"stage2": {"vae": "", "output_dir": ""}}, vae="my.vae"))
    assert first.settings["vae"] == "my.vae"
    assert "vae" not in second.settings
    assert second.output_dir == first.output_dir


@pytest.mark.parametrize(
    ("stage2", "sentence"),
    [
        ({"network_weights": "x.safetensors"}, r"\[composite.stage2\] network_weights: stage 2 starts from what stage 1 has"),
        ({"output_dir": {"a": 1}}, "output_dir: {'a': 1} is no text; write one"),
        ({"output_name": "a/b"}, "output_name: 'a/b' is no file name; put folders in output_dir"),
        ({"output_name": "cg3-stage1"}, r"\[composite.stage2\] output_name: is that of stage 1's file; choose another"),
    ],
)
def test_stage_2_neither_starts_elsewhere_nor_overwrites_stage_1(tmp_path, stage2, sentence):
    with pytest.raises(UserError, match=sentence):
        stages_of(kohya_settings(tmp_path, {"stage2": stage2}))


def test_prompts_in_place_of_their_file(tmp_path):
    first, second = stages_of(kohya_settings(tmp_path, {"stage2": {"sample_prompts": "p.txt"}}, sample_prompts=["rin", "mio"]))
    assert (first.prompts, second.prompts) == (("rin", "mio"), ())
    assert "sample_prompts" not in first.settings
    assert second.settings["sample_prompts"] == "p.txt"


@pytest.mark.parametrize(("trainer", "comes_round"), [("train_network", False), ("sdxl_train_network", True)])
def test_captions_come_round_again_only_where_upstream_can_encode_them_ahead(tmp_path, trainer, comes_round):
    _, second = both(tmp_path, {"trainer": trainer}, cache_text_encoder_outputs=True)
    own = plan()
    composites = [second.trained(own).composite(epoch, 0) for epoch in (1, 3)]
    assert (composites[0] == composites[1]) == comes_round
