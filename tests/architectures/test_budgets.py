"""The tokens that a caption may have, for each model: as counted before a run, while it trains, and by upstream itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from lycoris_composite.architectures import ARCHITECTURES, BUILTIN
from lycoris_composite.composites.captions import Budget
from lycoris_composite.config.stages import Stage
from lycoris_composite.trainers.kohya.script import Upstream
from lycoris_composite.trainers.tokenizers import stage_budget, strategy_budget
from tests.architectures import vocabularies

PROMPT = "You are an assistant who draws."  # of Lumina's kind: a token for each letter
DEV = "guidance_in.in_layer.bias"
# An image model's file has these at least, by which upstream tells what it is.
BLOCKS = ("double_blocks.0.img_attn.proj.bias", "single_blocks.0.modulation.lin.bias")


class Case(NamedTuple):
    """What a config says, the limit and its option, and which of upstream's outputs are of encoders that count."""

    trainer: str
    settings: dict[str, Any]
    limit: int
    key: str
    counted: tuple[int, ...] = (0,)


CASES = {
    "sd": Case("train_network", {}, 75, "max_token_length"),
    "sd 225": Case("train_network", {"max_token_length": 225}, 225, "max_token_length"),
    "sdxl": Case("sdxl_train_network", {"max_token_length": 150}, 150, "max_token_length", (0, 1)),
    "flux": Case("flux_train_network", {"model": DEV}, 511, "t5xxl_max_token_length", (1,)),
    "flux schnell": Case("flux_train_network", {"model": "schnell"}, 255, "t5xxl_max_token_length", (1,)),
    "flux, prefixed": Case(
        "flux_train_network", {"model": DEV, "prefix": "model.diffusion_model."}, 511, "t5xxl_max_token_length", (1,)
    ),
    "flux folder": Case("flux_train_network", {"folder": "schnell"}, 255, "t5xxl_max_token_length", (1,)),
    "chroma": Case("flux_train_network", {"model": "schnell", "model_type": "chroma"}, 511, "t5xxl_max_token_length", (1,)),
    "flux 100": Case("flux_train_network", {"model": DEV, "t5xxl_max_token_length": 100}, 99, "t5xxl_max_token_length", (1,)),
    "sd3": Case("sd3_train_network", {}, 255, "t5xxl_max_token_length", (2,)),
    "anima": Case("anima_train_network", {}, 511, "t5_max_token_length", (0, 2)),
    "anima 64": Case("anima_train_network", {"qwen3_max_token_length": 64}, 64, "qwen3_max_token_length", (0, 2)),
    "lumina": Case("lumina_train_network", {}, 255, "gemma2_max_token_length"),
    "lumina, told": Case("lumina_train_network", {"system_prompt": PROMPT}, 255, "gemma2_max_token_length"),
    "hunyuan_image": Case("hunyuan_image_train_network", {}, 1023, ""),
}


@pytest.fixture(scope="module")
def tokenizers(clip_tokenizers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model's, as --tokenizer_cache_dir and the options for folders take them."""
    folder = tmp_path_factory.mktemp("all")
    for path in clip_tokenizers.iterdir():
        (folder / path.name).symlink_to(path)
    vocabularies.write_t5(folder / "google_t5-v1_1-xxl")
    vocabularies.write_qwen(folder / "Qwen_Qwen2.5-VL-7B-Instruct", ["<|im_start|>", "<|im_end|>"])
    vocabularies.write_byt5(folder / "google_byt5-small")
    vocabularies.write_gemma(vocabularies.hub_folder(folder, "google/gemma-2-2b"))
    return folder


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tokenizers: Path, tmp_path: Path) -> Case:
    """With paths in its settings."""
    found = CASES[request.param]
    settings = {"tokenizer_cache_dir": str(tokenizers), **found.settings}
    if model := settings.pop("model", None):
        prefix = settings.pop("prefix", "")
        names = [f"{prefix}{name}" for name in (*BLOCKS, model)]
        save_file(dict.fromkeys(names, np.zeros(1, np.float32)), tmp_path / "model.safetensors")
        settings |= {"pretrained_model_name_or_path": str(tmp_path / "model.safetensors"), "ae": "ae"}
    if model := settings.pop("folder", None):  # of diffusers
        (tmp_path / "transformer").mkdir()
        for part in range(1, 4):
            path = tmp_path / f"transformer/diffusion_pytorch_model-0000{part}-of-00003.safetensors"
            save_file(dict.fromkeys([*BLOCKS, model], np.zeros(1, np.float32)), path)
        settings |= {"pretrained_model_name_or_path": str(tmp_path), "ae": "ae"}
    if found.trainer == "anima_train_network":
        qwen3, t5 = vocabularies.write_qwen(tmp_path / "qwen3"), tokenizers / "google_t5-v1_1-xxl"
        settings |= {"qwen3": str(qwen3), "t5_tokenizer_path": str(t5)}
    return found._replace(settings=settings)


@pytest.fixture
def strategy(case: Case, sd_scripts: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Upstream's own, as its script makes it of the settings."""
    monkeypatch.syspath_prepend(str(sd_scripts))
    for place in ("huggingface_hub.constants.HF_HUB_OFFLINE", "transformers.utils.hub._is_offline_mode"):
        monkeypatch.setattr(place, True, raising=False)  # as go_offline has it for a command
    upstream = Upstream(sd_scripts, case.trainer)
    arguments = upstream.parser().parse_args([])
    vars(arguments).update(case.settings)
    trainer = next(kind for name, kind in vars(upstream.module).items() if name.endswith("NetworkTrainer"))
    return trainer().get_tokenize_strategy(arguments)


def counted_before(case: Case, sd_scripts: Path) -> Budget:
    return stage_budget(Stage(2, case.trainer, {"output_name": "any", **case.settings}), sd_scripts)


def test_it_is_counted_alike_before_a_run_and_while_it_trains(case: Case, strategy: Any, sd_scripts: Path) -> None:
    before = counted_before(case, sd_scripts)
    training = strategy_budget(strategy)
    assert (before.limit, before.key) == (training.limit, training.key)
    for text in ("", "mio/rin/COMPOSITE, red hair, a hat", "Rin stands in a park. " * 30, "caf\u00e9 \u00e9, a & b"):
        assert before.count(text) == training.count(text)
    told = case.settings.get("system_prompt")
    assert training.limit == case.limit - (len(strategy.tokenizer.tokenize(f"{told} <Prompt Start> ")) if told else 0)
    assert training.key == case.key


def test_upstream_loses_nothing_at_the_limit_and_a_word_beyond_it(case: Case, strategy: Any, sd_scripts: Path) -> None:
    """Two captions of as many words, of which the last differs: what counts can tell them apart up to the limit."""
    budget = counted_before(case, sd_scripts)
    most, beyond = budget.limit - budget.count("red") + 1, 1  # words of a token each
    if case.trainer == "hunyuan_image_train_network":
        # Its text around the caption is longer in a small vocabulary; what is lost first is the token that ends it.
        most, beyond = most - around_of(strategy.vlm_tokenizer) + ARCHITECTURES[case.trainer].encoders[0].around, 2

    def is_told_apart(words: int) -> list[bool]:
        one, other = (strategy.tokenize(" ".join(["red"] * (words - 1) + [last])) for last in ("blue", "hat"))
        return [not one[index].equal(other[index]) for index in case.counted]

    assert all(is_told_apart(most))
    assert not all(is_told_apart(most + beyond))


def around_of(tokenizer: Any) -> int:
    """The tokens of the text that HunyuanImage's encoder reads before and behind a caption."""
    from library import hunyuan_image_text_encoder

    empty, _ = hunyuan_image_text_encoder.get_qwen_tokens(tokenizer, [""])
    return int((empty != tokenizer.pad_token_id).sum())


def test_every_model_has_a_case() -> None:
    assert {case.trainer for case in CASES.values()} == {*ARCHITECTURES} - {BUILTIN}
