"""A mistake in the config of any of kohya's trainers is one sentence and exit code 2, before a model loads: these have none.
Their checkpoints hold one tensor, their tokenizers are small."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lycoris_composite import launcher
from lycoris_composite.architectures import ARCHITECTURES, BUILTIN
from lycoris_composite.doctor.examine import examine
from tests import tiny
from tests.architectures import vocabularies
from tests.helpers import write_config
from tests.world import COMPOSITE, SETTINGS

TRAINERS = [trainer for trainer in ARCHITECTURES if trainer != BUILTIN]
CACHING = {"cache_text_encoder_outputs": True, "network_train_unet_only": True}
Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def tokenizer_folders(clip_tokenizers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tokenizers, as --tokenizer_cache_dir takes them; Anima's two."""
    folder = shutil.copytree(clip_tokenizers, tmp_path_factory.mktemp("all") / "tokenizers")
    vocabularies.write_t5(folder / "google_t5-v1_1-xxl")
    vocabularies.write_gemma(vocabularies.hub_folder(folder, "google/gemma-2-2b"))
    vocabularies.write_qwen(folder / "Qwen_Qwen2.5-VL-7B-Instruct")
    vocabularies.write_byt5(folder / "google_byt5-small")
    vocabularies.write_qwen(folder / "qwen3")
    return folder


@pytest.fixture
def files(tokenizer_folders: Path, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Kohya's options that name a trainer's files; all are there."""

    def make(trainer: str) -> dict[str, str]:
        row = ARCHITECTURES[trainer]
        made = {key: tensors(tmp_path / f"{key}.sft") for key in row.required}
        if "qwen3" in made:
            made |= {
                "qwen3": str(tokenizer_folders / "qwen3"),
                "t5_tokenizer_path": str(tokenizer_folders / "google_t5-v1_1-xxl"),
            }
        base = tensors(tmp_path / f"{trainer}.safetensors", f"model.diffusion_model.{row.marks[0]}weight")
        return {"pretrained_model_name_or_path": base, "tokenizer_cache_dir": str(tokenizer_folders), **made}

    return make


def tensors(path: Path, *names: str) -> str:
    save_file({name: np.zeros(64, np.float32) for name in names or ("weight",)}, path)
    return str(path)


@pytest.fixture
def configure(sd_scripts: Path, files: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a trainer's config, changed. What training would fetch counts as missing, and no GPU is found."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def write(trainer: str, composite: dict | None = None, **changes: Any) -> Path:
        if not (tmp_path / "data").is_dir():
            tiny.draw_characters(tmp_path / "data", images=2)
        own = {"train_data_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "out"), "max_train_steps": 2}
        settings = {**SETTINGS, **files(trainer), **own, **changes}
        settings = {key: value for key, value in settings.items() if value is not None}
        tables = {"settings": settings, "composite": {**COMPOSITE, **(composite or {}), "trainer": trainer}}
        return write_config(tmp_path / "cg3.toml", tables)

    return write


@pytest.fixture
def refuse(configure: Callable, sd_scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> Refuse:
    """What a run of a trainer's config says, and the one sentence that it ends in."""

    def run(trainer: str, *flags: str, **changes: Any) -> str:
        config = configure(trainer, **changes)
        code = launcher.main(["--config", str(config), "--sd_scripts", str(sd_scripts), *flags])
        out, err = capsys.readouterr()
        assert code == 2
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists(), "nothing was written"
        [line] = [line for line in err.splitlines() if line.startswith("error: ")]
        return "\n".join([*(line for line in out.splitlines() if line.startswith("lycoris-composite: ")), line])

    return run


@pytest.fixture(params=TRAINERS)
def trainer(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def collect(configure: Callable, sd_scripts: Path) -> Callable[..., list[str]]:
    """All sentences that the doctor shows of a trainer's config."""

    def run(trainer: str, **changes: Any) -> list[str]:
        config = configure(trainer, **changes)
        rows = [row for section in examine(config, sd_scripts_folder=str(sd_scripts)) for row in section]
        return [row.meaning for row in rows if row.subject == "a run refuses"]

    return run


def test_files_that_are_not_there(refuse: Refuse, collect: Callable, trainer: str) -> None:
    keys = ["pretrained_model_name_or_path", *ARCHITECTURES[trainer].required]
    refused = collect(trainer, **{key: f"gone/{key}" for key in keys})
    for key in keys:
        [sentence] = [each for each in refused if each.startswith(f"{key} gone/{key}: no such file or folder")]
    assert f"error: {sentence}" in refuse(trainer, **{key: f"gone/{key}"})


def test_a_file_that_is_torn(refuse: Refuse, trainer: str, tmp_path: Path) -> None:
    (tmp_path / "torn.sft").write_bytes(Path(tensors(tmp_path / "whole.safetensors")).read_bytes()[:-8])
    key = ARCHITECTURES[trainer].required[-1] if ARCHITECTURES[trainer].required else "vae"
    assert f"{key} {tmp_path}/torn.sft: is no whole .sft file" in refuse(trainer, **{key: f"{tmp_path}/torn.sft"})


def test_files_that_are_not_named(refuse: Refuse, collect: Callable, trainer: str) -> None:
    required = set(ARCHITECTURES[trainer].required)
    assert "pretrained_model_name_or_path: not set" in refuse(trainer, pretrained_model_name_or_path=None)
    refused = "\n".join(collect(trainer, **dict.fromkeys(required)))
    for key in required:
        assert re.search(rf"^{key}: not set, and .* (needs it|holds none); name the file with \w+'s ", refused, re.MULTILINE)


def test_another_models_checkpoint(refuse: Refuse, trainer: str, files: Callable) -> None:
    other = TRAINERS[TRAINERS.index(trainer) - 1]
    base = files(other)["pretrained_model_name_or_path"]
    names = ARCHITECTURES[other].name, trainer, ARCHITECTURES[trainer].name
    said = refuse(trainer, pretrained_model_name_or_path=base)
    assert f'{base}: is {names[0]}, but {names[1]} trains {names[2]}; name another file, or set trainer = "{other}"' in said


def test_a_bucket_step(refuse: Refuse, trainer: str) -> None:
    steps = ARCHITECTURES[trainer].bucket_steps
    said = refuse(trainer, bucket_reso_steps=steps // 2)
    assert f"bucket_reso_steps: {steps // 2} is no multiple of {steps}, which {trainer} needs" in said


def test_a_tokenizer(refuse: Refuse, trainer: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"tokenizer_cache_dir": str(tmp_path)}
    tokenizers = ARCHITECTURES[trainer].tokenizers
    if all(tokenizer.bundled for tokenizer in tokenizers):
        assert "t5_tokenizer_path nowhere: no such file or folder" in refuse(trainer, t5_tokenizer_path="nowhere")
        changes = {"qwen3": str(tmp_path)}
    (tmp_path / tokenizers[0].name.replace("/", "_")).mkdir()
    assert re.search(
        "(is not on this machine, and training fetches|no tokenizer that transformers)", refuse(trainer, **changes)
    )


def test_settings_that_its_script_asserts_against(refuse: Refuse, trainer: str) -> None:
    assert 'full_bf16 needs mixed_precision = "bf16", and it is "no"); set full_bf16 = false.' in refuse(
        trainer, full_bf16=True
    )
    if ARCHITECTURES[trainer].caption_bytes and trainer != "lumina_train_network":
        changes = {**CACHING, "shuffle_caption": True}
        said = refuse(trainer, **changes)
        assert re.search(
            r"shuffle_caption: stage 1 encodes each caption of \S+1_mio once.* in \[composite.stage2\] alone", said
        )


@pytest.mark.parametrize(
    ("trainer", "changes", "sentence"),
    [
        ("sdxl_train_network", {"v2": True}, "v2 cannot be enabled in SDXL training); set v2 = false."),
        ("sdxl_train_network", {"cache_text_encoder_outputs": True}, "set network_train_unet_only = true or cache_text_encoder_outputs = false."),
        ("anima_train_network", {"cache_text_encoder_outputs_to_disk": True}, "set network_train_unet_only = true or cache_text"),
        ("anima_train_network", {"blocks_to_swap": 1, "cpu_offload_checkpointing": True}, "not supported with cpu_offload_checkpointing); set"),
        ("anima_train_network", {"unsloth_offload_checkpointing": True, "cpu_offload_checkpointing": True}, "Cannot use both"),
        ("anima_train_network", {"attn_mode": "sageattn"}, "SageAttention passes no gradients back"),
        ("anima_train_network", {**CACHING, "caption_tag_dropout_rate": 0.1}, "caption_tag_dropout_rate: stage 1 encodes each"),
        ("anima_train_network", {"attn_mode": "flash"}, "attn_mode: cannot be imported (No module named 'flash_attn'); install"),
        ("flux_train_network", {"model_type": "chroma"}, "apply_t5_attn_mask must be True for Chroma); set apply_t5_attn_mask = true."),
        ("flux_train_network", {**CACHING, "caption_dropout_rate": 0.1}, "caption_dropout_rate: stage 1 encodes each caption of"),
        ("flux_train_network", {"cpu_offload_checkpointing": True, "gradient_checkpointing": True}, "cpu_offload_checkpointing: needs CUDA"),
        ("flux_train_network", {"fp8_base": True}, 'fp8_base needs mixed_precision = "fp16" or "bf16", and it is "no"); set fp8_base = false.'),
        ("sd3_train_network", {**CACHING, "network_module": "networks.lora_sd3", "network_args": ["train_t5xxl=True"]}, "T5XXL is trained, so"),
        ("lumina_train_network", {"use_flash_attn": True}, "use_flash_attn: cannot be imported (No module named 'flash_attn')"),
        ("lumina_train_network", {"use_sage_attn": True}, "would learn nothing); set use_sage_attn = false."),
        ("lumina_train_network", {"sample_every_n_epochs": 1}, "sample_every_n_epochs: sd-scripts cannot sample while the text encoder"),
        ("hunyuan_image_train_network", {**CACHING, "token_warmup_step": 5}, "token_warmup_step: stage 1 encodes each caption of"),
    ],
)  # fmt: skip
def test_what_only_some_trainers_refuse(refuse: Refuse, trainer: str, changes: dict, sentence: str) -> None:
    assert sentence in refuse(trainer, **changes)


@pytest.mark.parametrize(
    ("trainer", "changes"),
    [
        ("sd3_train_network", {"sample_every_n_epochs": 1}),
        ("anima_train_network", {**CACHING, "caption_dropout_rate": 0.1}),
        (
            "flux_train_network",
            {"composite": {"stage2": {**CACHING, "shuffle_caption": True}}, "network_train_unet_only": True},
        ),
        ("flux_train_network", {"clip_l": None, "model_type": "chroma", "apply_t5_attn_mask": True}),
        ("lumina_train_network", {"sample_every_n_epochs": 1, "network_train_unet_only": True}),
        ("sdxl_train_network", {"attn_mode": "flash", "use_flash_attn": True}),  # unknown to it, and ignored
        *((trainer, {"xformers": True}) for trainer in ("flux_train_network", "sd3_train_network", "lumina_train_network")),
        ("anima_train_network", {"xformers": True, "attn_mode": "torch"}),
        (
            "flux_train_network",
            {
                "network_module": "networks.lora_flux",
                "network_train_unet_only": True,
                "network_args": ["train_double_block_indices=7-12", "train_single_block_indices=none"],
            },
        ),
    ],
)
def test_what_upstream_runs_with_is_not_refused(refuse: Refuse, trainer: str, changes: dict, tmp_path: Path) -> None:
    assert "gone: no such file" in refuse(trainer, vae=f"{tmp_path}/gone", **changes)


def test_what_is_a_cards_own_is_left_out_on_a_cpu(refuse: Refuse, tmp_path: Path) -> None:
    own = {"attn_mode": "flash", "blocks_to_swap": 4, "gradient_checkpointing": True, "vae": f"{tmp_path}/gone"}
    stage2 = {**COMPOSITE["stage2"], "unsloth_offload_checkpointing": True}
    said = refuse("anima_train_network", "--cpu", composite={"stage2": stage2}, **own)
    assert "gone: no such file" in said
    for line in ("no blocks_to_swap", "attn_mode torch instead of flash", "no unsloth_offload_checkpointing"):
        assert said.count(f"--cpu: {line}") == 1


def test_a_model_that_no_cpu_trains_is_said_at_the_start(refuse: Refuse, tmp_path: Path) -> None:
    said = refuse("hunyuan_image_train_network", vae=f"{tmp_path}/gone")
    assert "HunyuanImage: sd-scripts keeps its encoders and VAE in 16 bits" in said


def test_the_doctor_says_all_of_it(collect: Callable) -> None:
    assert collect("anima_train_network", pretrained_model_name_or_path=None) == [
        "pretrained_model_name_or_path: not set; name the base model's file or folder."
    ]
    refused = collect("anima_train_network", cache_text_encoder_outputs=True, vae=None)
    assert len(refused) == 2
    assert any("set network_train_unet_only = true" in line for line in refused)
    assert any(line.startswith("vae: not set, and anima_train_network needs it") for line in refused)
