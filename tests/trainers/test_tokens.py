"""Words are remembered, and no id changes: against transformers' own CLIP tokenizers of SD 1.x and SDXL."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="needs transformers, which sd-scripts brings: lycoris-composite setup")
from transformers import CLIPTokenizer

from lycoris_composite.trainers.tokens import WordTokenizer
from tests import tiny

# As upstream's `TokenizeStrategy._get_input_ids` asks, for 75 and 225 tokens.
OPTIONS = [{"padding": "max_length", "truncation": True, "max_length": n, "return_tensors": "pt"} for n in (77, 227)]

tags = st.one_of(
    st.sampled_from([
        "1girl", "looking at viewer", "don't", "it's", ":)", "^_^", ">_<", "o_o", ":d", "<|endoftext|>", "k-on!", "re:zero",
        "hatsune_miku_(vocaloid)", "!", "x & y", "&amp;", "caf\u00e9", "\u5730\u96f7", "\ufb01ne", "\u2018quoted\u2019", "a\tb", "\x1b[1m", "(red:1.2)", "{a|b}",
    ]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
    st.text(st.characters(codec="utf-8"), max_size=6),
)  # fmt: skip
captions = st.lists(tags, max_size=40).map(", ".join)


@pytest.fixture(scope="module", params=tiny.PAD_TOKENS)
def tokenizer(request: pytest.FixtureRequest, clip_tokenizers: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(clip_tokenizers / request.param)


@pytest.fixture(scope="module")
def words(tokenizer: CLIPTokenizer) -> WordTokenizer:
    """One for all of a test's captions, so that later ones meet what earlier ones left."""
    return WordTokenizer(tokenizer)


@settings(deadline=None, max_examples=150)
@given(captions, st.sampled_from(OPTIONS))
def test_every_caption_has_the_tokenizers_own_ids(tokenizer: Any, words: Any, text: str, options: dict) -> None:
    mine, its = words(text, **options), tokenizer(text, **options)
    assert mine.input_ids.tolist() == its.input_ids.tolist()
    assert mine.attention_mask.tolist() == its.attention_mask.tolist()
    assert words.tokenize(text) == tokenizer.tokenize(text)
    assert words(text).input_ids == tokenizer(text).input_ids


def test_known_words_are_not_tokenized_again(tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    words = WordTokenizer(tokenizer)
    words.tokenize("mio/rin/COMPOSITE, red hair, blue eyes, smile,")
    monkeypatch.setattr(tokenizer, "tokenize", lambda text: pytest.fail(f"{text!r} was tokenized again"))
    assert len(words.tokenize("mio/rin/COMPOSITE, blue eyes, red hair, smile,")) == 14


def test_it_travels_to_a_spawned_worker(words: WordTokenizer) -> None:
    copy = pickle.loads(pickle.dumps(words))
    text = "mio/rin/COMPOSITE, caf\u00e9, red hair"
    assert copy(text, **OPTIONS[0]).input_ids.tolist() == words(text, **OPTIONS[0]).input_ids.tolist()


def test_upstream_finds_its_attributes(tokenizer: CLIPTokenizer, words: WordTokenizer) -> None:
    for name in ("model_max_length", "eos_token_id", "pad_token_id", "bos_token_id"):
        assert getattr(words, name) == getattr(tokenizer, name)
    with pytest.raises(AttributeError):
        _ = words.no_such_thing
