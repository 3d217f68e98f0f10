"""What the launcher decides by itself; the stages it runs are tested on the real trainer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lycoris_composite import launcher
from lycoris_composite.config import settings as config
from lycoris_composite.config import stages
from lycoris_composite.config.effective import effective, toml_text
from lycoris_composite.preflight import checks, inputs
from lycoris_composite.preflight.refusals import Refusals
from tests.tiny import draw_characters


def settings_for(folder: Path, **kohya) -> config.Settings:
    draw_characters(folder / "data", images=2)
    base = {"train_data_dir": str(folder / "data"), "resolution": "128,128", "enable_bucket": True, "min_bucket_reso": 64}
    base |= {"caption_extension": ".txt", "keep_tokens": 1, "output_dir": str(folder / "out"), "seed": 1}
    return config.Settings(folder / "cg3.toml", {**base, **kohya}, config.CompositeOptions(), stage2={"resolution": "192,192"})


def checked_plans(settings: config.Settings) -> list:
    second = stages.stages_of(settings)[1]
    data = inputs.read_data((second,), second, Refusals(), lambda bad: None, show_progress=False)
    assert not data.bad
    return data.plans


@pytest.mark.parametrize("override", ["seed=3", "training_arguments.seed=3"])
def test_set_wins_over_a_flag(override):
    assert checks.without_set({"seed": 4, "epochs": 2}, [override]) == {"epochs": 2}


def test_what_stage_two_sets_leaves_the_flag_for_stage_one():
    assert checks.without_set({"seed": 4}, ["composite.stage2.seed=3"]) == {"seed": 4}


def test_data_is_checked_as_stage_two_will_see_it(tmp_path):
    [plan] = checked_plans(settings_for(tmp_path))
    assert plan.canvas.size == (192, 192)


def test_stage_two_overrides_a_dataset_config_before_the_check(tmp_path):
    settings = settings_for(tmp_path)
    subsets = [{"image_dir": str(path)} for path in sorted((tmp_path / "data").iterdir())]
    (tmp_path / "data.toml").write_text(toml_text({"datasets": [{"resolution": 64, "subsets": subsets}]}))
    kohya = {**settings.kohya, "dataset_config": str(tmp_path / "data.toml")}

    [plan] = checked_plans(config.Settings(settings.path, kohya, settings.composite, stage2=settings.stage2))

    assert plan.canvas.size == (192, 192)


def test_both_stages_share_prompts_made_from_the_characters(tmp_path):
    settings = settings_for(tmp_path)
    plans = checked_plans(settings)
    for stage in stages.stages_of(settings):
        launcher._write(effective(stage, plans[0], settings.single_size)[1])
        assert config.read_toml(stage.config_file)["sample_prompts"] == str(tmp_path / "out" / "last-prompts.json")
    prompts = json.loads((tmp_path / "out" / "last-prompts.json").read_text())
    assert (prompts[0]["width"], prompts[0]["height"]) == (128, 128)


def test_chromas_samples_are_guided_and_fluxs_are_not(tmp_path):
    for kind in ("flux", "chroma"):
        settings = replace(settings_for(tmp_path, model_type=kind, bucket_reso_steps=64), trainer="flux_train_network")
        stage, _ = stages.stages_of(settings)
        [plan] = checked_plans(settings)
        files = effective(stage, plan, settings.single_size)[1]
        for prompt in json.loads(files[tmp_path / "out/last-prompts.json"]):
            assert (prompt.get("guidance_scale"), prompt.get("scale")) == ((0.0, 4.0) if kind == "chroma" else (None, None))
            assert "negative_prompt" not in prompt


def test_a_users_own_prompts_win(tmp_path):
    settings = settings_for(tmp_path, sample_prompts="mine.txt")
    stage, _ = stages.stages_of(settings)
    launcher._write(effective(stage, checked_plans(settings)[0], settings.single_size)[1])
    assert config.read_toml(stage.config_file)["sample_prompts"] == "mine.txt"
    assert not list((tmp_path / "out").glob("*prompts*"))


def test_the_line_that_goes_on_does_not_show_secrets():
    line = ["x.py", "--wandb_api_key", "s3cret", "--huggingface_token=s3cret", "--set", "wandb_api_key=s3cret", "--seed", "4"]
    shown = launcher._without_secrets(line)
    assert shown == ["x.py", "--wandb_api_key", "...", "--huggingface_token=...", "--set", "wandb_api_key=...", "--seed", "4"]
