"""CLIP's tokens, remembered word by word.

CLIPTokenizer of transformers 4 takes milliseconds for a long caption, and a shuffled caption is new every time. Its
words are not, and CLIP's pattern never reaches across a space: a text's tokens are those of its words in turn.
"""

from __future__ import annotations

from typing import Any


class WordTokenizer:
    """Stands in for a `transformers.CLIPTokenizer`: the same answers for a text, and its attributes for all else."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._words: dict[str, tuple[list[str], list[int]]] = {}

    def __call__(self, text: str, **options: Any) -> Any:
        """As the tokenizer's own call with one text."""
        if not _is_plain(text) or not hasattr(self._tokenizer, "prepare_for_model"):  # transformers 5 is fast by itself
            return self._tokenizer(text, **options)
        ids = [one for word in text.split() for one in self._tokens_and_ids(word)[1]]
        return self._tokenizer.prepare_for_model(ids, prepend_batch_axis=True, **options)

    def tokenize(self, text: str) -> list[str]:
        if not _is_plain(text):
            return self._tokenizer.tokenize(text)
        return [token for word in text.split() for token in self._tokens_and_ids(word)[0]]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # unpickling in a worker asks for such before there is a tokenizer
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def _tokens_and_ids(self, word: str) -> tuple[list[str], list[int]]:
        known = self._words.get(word)
        if known is None:
            tokens = self._tokenizer.tokenize(word)
            known = self._words[word] = tokens, self._tokenizer.convert_tokens_to_ids(tokens)
        return known


def _is_plain(text: str) -> bool:
    """Whether words can be taken one by one: ftfy, which the tokenizer asks first, mends accents, quotes and HTML
    entities by the whole text, but leaves printable ASCII without `&` as it is."""
    return text.isascii() and text.isprintable() and "&" not in text
