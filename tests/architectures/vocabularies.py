"""Small tokenizers of the kinds that upstream's encoders have. Nothing is trained, so they are the same everywhere.

Words of the drawn characters' captions are one token each, all other text a token for each letter or byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests import tiny

_TAGS = "girl hair dress background smile arms up hat COMPOSITE uzuki rin mio"
WORDS = sorted({*tiny.COLOURS, *_TAGS.split()})
SPACE = "▁"  # begins a word in T5's and Gemma's vocabularies


def write_qwen(folder: Path, special_tokens: Iterable[str] = ()) -> Path:
    """Qwen2's, whose letters are bytes and whose words begin with a `Ġ`. `special_tokens` follow the one that pads."""
    from tokenizers import AddedToken
    from transformers import Qwen2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = [*_merges("Ġ"), *_merges("")]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _numbered([*bytes_to_unicode().values(), *map("".join, merges)])
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = Qwen2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(token) for token in special_tokens]})
    tokenizer.save_pretrained(folder)
    return folder


def write_t5(folder: Path) -> Path:
    """T5's: ends with `</s>`."""
    from tokenizers.processors import TemplateProcessing
    from transformers import T5TokenizerFast

    words = _word_tokenizer("<pad>", "</s>", "<unk>")
    words.post_processor = TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    T5TokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


def write_gemma(folder: Path) -> Path:
    """Gemma's: begins with `<bos>`."""
    from transformers import GemmaTokenizerFast

    words = _word_tokenizer("<pad>", "<eos>", "<bos>", "<unk>")
    GemmaTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


def write_byt5(folder: Path) -> Path:
    """byT5's, whose vocabulary is the 256 bytes."""
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(folder)
    return folder


def hub_folder(hub: Path, name: str) -> Path:
    """Where the hub's cache in `hub` keeps the files of `name`; the folder is made."""
    repository, commit = hub / f"models--{name.replace('/', '--')}", "0" * 40
    snapshot = repository / "snapshots" / commit
    for folder in (snapshot, repository / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def _word_tokenizer(*special: str):
    """Byte-pair encoding of the printable ASCII letters; every word begins with SPACE, and the rest is `<unk>`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    merges = list(_merges(SPACE))
    letters = [chr(number) for number in range(ord("!"), ord("~") + 1)]
    vocabulary = _numbered([*special, *letters, SPACE, *map("".join, merges)])
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(SPACE), decoders.Metaspace(SPACE)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


def _merges(start: str) -> Iterator[tuple[str, str]]:
    """The steps from a word's first letters to the whole word, for every word; a step is made once."""
    seen = set()
    for word in WORDS:
        letters = [*start, *word]
        for count in range(1, len(letters)):
            step = "".join(letters[:count]), letters[count]
            if step not in seen:
                seen.add(step)
                yield step


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}
