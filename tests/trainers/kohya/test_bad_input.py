"""A user's mistake is one sentence and exit code 2, before a model loads: the model these configs name is not there."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lycoris_composite import launcher
from tests import tiny
from tests.world import World


@pytest.fixture
def refuse(world: World, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a config on a copy of the drawn characters that `spoil` has damaged; returns the sentence."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    data = shutil.copytree(world.folder / "data", tmp_path / "data")

    def run(spoil: Callable[[Path], object] = lambda data: None, *flags: str, **changes: Any) -> str:
        spoil(data)
        changes = {"train_data_dir": str(data), "pretrained_model_name_or_path": str(tmp_path / "no_model"), **changes}
        config = world.write_config(tmp_path, **changes)
        code = launcher.main(["--config", str(config), "--sd_scripts", str(world.sd_scripts), *flags])
        captured = capsys.readouterr()
        assert code == 2
        [line] = captured.err.strip().splitlines()[-1:]
        assert line.startswith("error: ")
        line = "\n".join([*(said for said in captured.out.splitlines() if "bad file: " in said), line])
        assert "Traceback" not in captured.err
        assert not list(tmp_path.rglob("*.safetensors"))
        return line

    return run


def only_one(data: Path) -> None:
    shutil.rmtree(data / "1_rin")
    shutil.rmtree(data / "1_mio")


def second_rin(data: Path) -> None:
    for caption in (data / "1_mio").glob("*.txt"):
        caption.write_text(caption.read_text().replace("mio", "rin"))


def with_taggers_captions(data: Path) -> None:
    for caption in data.rglob("*.txt"):
        name, *tags = caption.read_text().split(", ")
        caption.write_text(", ".join([*tags, name if name != "rin" else "red scarf"]))


def broken(kind: str) -> Callable[[Path], object]:
    def spoil(data: Path) -> None:
        made = tiny.broken_images(data.parent / "broken")[kind]
        shutil.copy(made, data / "1_rin" / f"broken{made.suffix}")
        shutil.copy(data / "1_rin" / "01.txt", data / "1_rin" / "broken.txt")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (only_one, r"a composite needs two characters or more, but the data has 1 \(.*1_uzuki\)"),
        (lambda data: (data / "3_empty").mkdir(), "3_empty: no images in it"),
        (lambda data: (data / "1_rin/01.txt").write_text(""), "01.txt: empty caption"),
        (lambda data: (data / "1_rin/01.txt").unlink(), "01.txt: missing caption, while other images of the folder have one"),
        (lambda data: (data / "1_rin/01.txt").write_bytes(b"rin, \xff\xfe"), r"01.txt: not UTF-8 \(byte 5\)"),
        (with_taggers_captions, r'1_rin: nothing says which tag is its trigger word: its captions begin with "1girl", and none has .*"red scarf"'),
        (second_rin, '1_mio: the trigger word "rin" is also that of .*1_rin; put one'),
        *[(broken(kind), r"broken\.\w+: .*(cannot be|is empty)") for kind in ("empty", "truncated_png", "truncated_jpg", "text")],
    ],
)  # fmt: skip
def test_bad_data(refuse: Callable[..., str], spoil: Callable, sentence: str) -> None:
    assert re.search(sentence, refuse(spoil))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"composite": {"jion": "latent"}}, 'cg3.toml, [composite] jion: unknown key; did you mean "join"?'),
        ({"composite": {"caption": "{left} {middle}"}}, "cg3.toml, [composite] caption: unknown field {middle}"),
        ({"composite": {"stage2": {"learnig_rate": 1.0}}}, '[composite.stage2] learnig_rate: unknown to train_network.py; did you'),
        ({"composite": {"stage2": {"resolution": "64,64"}}}, "resolution 64x64 is too small for 2 panels in multiples of 64"),
        ({"composite": {"trainer": "train_netwrk"}}, "no train_netwrk.py there; choose one of "),
        ({"train_data_dir": "nowhere"}, "nowhere: no such folder"),
        ({"train_data_dir": None}, "train_data_dir: not set"),
        ({"reg_data_dir": "nowhere"}, "nowhere: no such folder; correct reg_data_dir"),
        ({"min_bucket_reso": 32}, "min_bucket_reso: 32 is below bucket_reso_steps, 64; give 64 or more."),
        ({"bucket_reso_steps": 32}, "bucket_reso_steps: 32 is no multiple of 64, which train_network needs; give 64"),
        (
            {"resolution": "512,512", "bucket_reso_steps": 256, "min_bucket_reso": 256, "bucket_no_upscale": True, "composite": {"stage2": {}}},
            "9 file(s) cannot be used",
        ),
        ({"debug_dataset": True}, "debug_dataset: sd-scripts only shows something and trains nothing then; take it out"),
        ({"train_inpainting": True}, "a mask is drawn for every step, so both stages read their pictures anew; set cache_latents = false"),
        ({"network_args": ["agol=loha"]}, 'network_args agol: unknown to LyCORIS; did you mean "algo"?'),
        ({"network_args": ["algo=lohaa"]}, 'network_args algo: "lohaa" is no LyCORIS algorithm; did you mean "loha"?'),
    ],
)  # fmt: skip
def test_bad_settings(refuse: Callable[..., str], changes: dict, sentence: str) -> None:
    assert sentence in refuse(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optimizer_args": ["weight_decay:0.1"]}, 'optimizer_args: "weight_decay:0.1" is not of the form key=value; write "weight_'),
        ({"lr_scheduler_args": ["T_max 10"]}, 'lr_scheduler_args: "T_max 10" is not of the form key=value; write "T_max=10"'),
        ({"optimizer_type": "Prodigy", "unet_lr": 1.0, "text_encoder_lr": 0.5}, "Prodigy stops at its first step (Setting different lr"),
        ({"optimizer_type": "Adafactor", "optimizer_args": ["betas=0.9,0.99"]}, "Adafactor cannot be made (Adafactor.__init__() got an"),
        ({"optimizer_args": ["decouple=True"]}, "AdamW cannot be made (AdamW.__init__() got an unexpected keyword argument 'decouple')"),
        ({"optimizer_type": "DAdaptAdam"}, "DAdaptAdam cannot be made (No dadaptation); install the package that it needs"),
        ({"optimizer_type": "no_such_package.Adam"}, "(No module named 'no_such_package'); install the package"),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 100}, "lr_scheduler: the schedule cannot be made (SchedulerType.CONSTANT does"),
        ({"lr_scheduler": "piecewise_constant"}, "the schedule cannot be made (get_piecewise_constant_schedule() missing 1 required"),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": ["foo=1"]}, "got an unexpected keyword argument 'foo'"),
        ({"lr_scheduler_type": "CosineAnnealingLRR"}, "has no attribute 'CosineAnnealingLRR'"),
        ({"adaptive_noise_scale": 0.1}, "sd-scripts refuses these settings (adaptive_noise_scale requires noise_offset)"),
        ({"network_args": ["algo=dylora", "block_size=2"]}, "dylora does not load again what it has saved"),
        ({"composite": {"stage2": {"network_dim": 8}}}, "[composite.stage2] network_dim: 8, but 4 in stage 1"),
        ({"network_module": "networks.lora", "network_args": ["conv_dim=x"]}, "networks.lora cannot make a network of these settings"),
        ({"network_module": "networks.dylora", "network_args": ["unit=3"]}, "(rank must be a multiple of unit); correct them"),
        ({"max_token_length": 100}, "max_token_length: 100 is none of 150, 225"),
        ({"dynamo_backend": "foo", "torch_compile": True}, "dynamo_backend: 'foo' is none of eager"),
        ({"sample_prompts": "nowhere.txt", "sample_every_n_epochs": 1}, "sample_prompts: nowhere.txt is not there; correct the path"),
        ({"sample_prompts": [1]}, "sample_prompts: [1] is no text; write one"),
    ],
)  # fmt: skip
def test_what_stops_a_run_after_its_model_is_loaded_is_said_before(
    refuse: Callable[..., str], changes: dict, sentence: str
) -> None:
    assert sentence in refuse(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer_type": "Prodigy", "unet_lr": 1.0, "text_encoder_lr": 0.0, "learning_rate": 1.0},
        {"optimizer_type": "Adafactor"},
        {"optimizer_type": "AdamW8bit", "optimizer_args": ["weight_decay=0.1", "betas=0.9,0.99"]},
        {"optimizer_type": "RAdamScheduleFree"},
        {"optimizer_type": "pytorch_optimizer.CAME"},
        {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 0.1},
        {"lr_scheduler_type": "CosineAnnealingLR", "lr_scheduler_args": ["T_max=10"]},
        {"network_module": "networks.lora", "network_args": ["conv_dim=4", "conv_alpha=1"]},
        {"network_args": ["algo=lokr", "factor=4"], "network_dim": 100_000},
        {"text_encoder_lr": [1e-4]},
        {"dynamo_backend": "no", "max_token_length": 75, "save_precision": "fp32", "sample_sampler": "DPM++ 2M", "vae": ""},
        {"sample_prompts": "nowhere.txt"},
    ],
)  # fmt: skip
def test_what_upstream_runs_with_is_not_refused(refuse: Callable[..., str], changes: dict, tmp_path: Path) -> None:
    assert f"{tmp_path / 'no_model'}: no such file or folder" in refuse(**changes)


def test_missing_and_broken_config_files(world: World, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[composite\n")
    for path, sentence in [(tmp_path / "no.toml", "no.toml: no such file"), (broken, "broken.toml: not TOML")]:
        assert launcher.main(["--config", str(path), "--sd_scripts", str(world.sd_scripts)]) == 2
        assert sentence in capsys.readouterr().err


def test_a_missing_model_is_said_before_stage_one(refuse: Callable[..., str], tmp_path: Path) -> None:
    assert f"{tmp_path / 'no_model'}: no such file or folder" in refuse()


def test_odd_but_good_images_are_read_and_not_refused(refuse: Callable[..., str], tmp_path: Path) -> None:
    def add_odd(data: Path) -> None:
        for name, path in tiny.odd_images(tmp_path / "odd").items():
            target = shutil.copy(path, data / "1_rin" / f"odd_{name}{path.suffix}")
            Image.open(target).load()
            shutil.copy(data / "1_rin" / "01.txt", data / "1_rin" / f"odd_{name}.txt")

    assert "no_model" in refuse(add_odd)


def test_a_tokenizer_that_would_have_to_be_fetched_is_said_first(world: World, tmp_path: Path) -> None:
    run = world.train(tmp_path, tokenizer_cache_dir=None, env={"HF_HOME": str(tmp_path / "empty")})
    assert run.code == 2
    assert (
        "error: the tokenizer openai/clip-vit-large-patch14 is not on this machine, and training fetches nothing" in run.output
    )
    assert not (tmp_path / "out").exists()


def test_bad_files_can_be_left_out(world: World, tmp_path: Path) -> None:
    data = shutil.copytree(world.folder / "data", tmp_path / "data")
    (data / "1_rin/01.png").write_bytes(b"no picture")
    (data / "1_mio/02.txt").write_bytes(b"\xff")

    run = world.train(tmp_path, "--skip_bad", train_data_dir=str(data), max_train_steps=1)

    assert run.code == 0
    assert "characters: mio (2), rin (2), uzuki (3)" in run.output
    assert "left out: " in run.output
