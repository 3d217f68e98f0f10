"""Which tokenizer is found, and which is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("transformers", reason="needs transformers: lycoris-composite setup")
from lycoris_composite.errors import UserError
from lycoris_composite.trainers import tokenizers
from lycoris_composite.trainers.tokenizers import TOKENIZERS

FOLDER = "openai_clip-vit-large-patch14"


def test_both_of_upstreams_are_read_from_their_folders(clip_tokenizers):
    for name in TOKENIZERS:
        assert tokenizers.kept_tokenizer(name, str(clip_tokenizers)).tokenize("uzuki") == ["uz", "uki</w>"]


def test_a_folder_that_another_transformers_saved_is_named(tmp_path, monkeypatch):
    """Version 5 saves tokenizer.json alone, which version 4 cannot read: it raises TypeError."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "tokenizer.json").write_text("{}")
    for load in (
        lambda: tokenizers.kept_tokenizer(TOKENIZERS[0], str(tmp_path)),
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
    with pytest.raises(UserError, match=f"the tokenizer {TOKENIZERS[0]} is not on this machine, and training fetches nothing"):
        tokenizers.kept_tokenizer(TOKENIZERS[0], str(tmp_path))
    with pytest.raises(UserError, match="is not on this machine"):
        tokenizers.clip_tokenizer(tmp_path, None)
