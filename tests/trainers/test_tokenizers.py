"""Which tokenizer is found, and which is none; how its tokens are counted, against transformers' own for SD 1.x and SDXL."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="needs transformers: lycoris-composite setup")
from lycoris_composite.architectures import ARCHITECTURES, CLIP_G, CLIP_L, Tokenizer
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.errors import UserError
from lycoris_composite.trainers import tokenizers
from tests import tiny

FOLDER = "openai_clip-vit-large-patch14"
tags = st.one_of(
    st.sampled_from([
        "1girl", "looking at viewer", "don't", "it's", ":)", "^_^", ">_<", "o_o", ":d", "<|endoftext|>", "k-on!", "re:zero",
        "hatsune_miku_(vocaloid)", "!", "x & y", "&amp;", "caf\u00e9", "\u5730\u96f7", "\ufb01ne", "\u2018quoted\u2019", "a\tb", "\x1b[1m", "(red:1.2)", "{a|b}",
    ]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
    st.text(st.characters(codec="utf-8"), max_size=6),
)  # fmt: skip


@pytest.fixture(scope="module", params=tiny.PAD_TOKENS)
def tokenizer(request: pytest.FixtureRequest, clip_tokenizers: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(clip_tokenizers / request.param)


def test_both_of_upstreams_are_read_from_their_folders(clip_tokenizers):
    for row in (CLIP_L, CLIP_G):
        assert find(row, clip_tokenizers).tokenize("uzuki") == ["uz", "uki</w>"]


def find(row: Tokenizer, cache: Path) -> Any:
    return tokenizers.find_tokenizer(row, KohyaSettings(tokenizer_cache_dir=str(cache)), None)


def test_a_folder_that_another_transformers_saved_is_named(tmp_path, monkeypatch):
    """Version 5 saves tokenizer.json alone, which version 4 cannot read: it raises TypeError."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "tokenizer.json").write_text("{}")
    for load in (
        lambda: find(CLIP_L, tmp_path),
        lambda: tokenizers.clip_tokenizer(tmp_path, str(tmp_path)),
    ):
        with pytest.raises(
            UserError, match=f"{tmp_path / FOLDER}: no tokenizer that transformers .* can read; remove this folder"
        ):
            load()


def test_a_tokenizer_that_knows_no_words_is_none(tmp_path, monkeypatch):
    """Version 5 makes one of nothing, and all captions would be the same."""
    empty = SimpleNamespace(tokenize=lambda text: ["<|endoftext|>"] * len(text), all_special_tokens=["<|endoftext|>"])
    monkeypatch.setattr("transformers.CLIPTokenizer", SimpleNamespace(from_pretrained=lambda *_, **__: empty))
    with pytest.raises(UserError, match=f"the tokenizer {CLIP_L.name} is not on this machine, and training fetches nothing"):
        find(CLIP_L, tmp_path)
    with pytest.raises(UserError, match="is not on this machine"):
        tokenizers.clip_tokenizer(tmp_path, None)


@pytest.mark.parametrize(
    ("trainer", "model"), [("flux_train_network", "Flux"), ("lumina_train_network", "Lumina"), ("train_network", "SD")]
)
def test_what_to_fetch_is_said_by_the_models_name(trainer, model, tmp_path, monkeypatch):
    """Without a name `setup --tokenizers` fetches those of SD and SDXL."""
    row = ARCHITECTURES[trainer].encoders[0].tokenizer
    monkeypatch.setattr(f"transformers.{row.kind}", None)  # as on a machine whose cache has nothing
    with pytest.raises(UserError, match=f"run `lycoris-composite setup --tokenizers {model}`, or set"):
        find(row, tmp_path)


@settings(deadline=None, max_examples=150)
@given(text=st.lists(tags, max_size=40).map(", ".join))
def test_a_caption_counts_as_many_tokens_as_its_tokenizer_makes(tokenizer, text):
    assert tokenizers.count_tokens(tokenizer, text) == len(tokenizer.tokenize(text))


def test_a_shuffled_caption_is_not_tokenized_again(tokenizer, monkeypatch):
    tokenizers.count_tokens(tokenizer, "mio/rin/COMPOSITE, red hair, blue eyes, smile,")
    monkeypatch.setattr(tokenizer, "tokenize", lambda text: pytest.fail(f"{text!r} was tokenized again"))
    assert tokenizers.count_tokens(tokenizer, "mio/rin/COMPOSITE, blue eyes, red hair, smile,") == 14
