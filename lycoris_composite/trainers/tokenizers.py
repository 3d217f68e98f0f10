"""CLIP's tokenizer from where a trainer finds it, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from lycoris_composite.captions import Budget
from lycoris_composite.checkout import TOKENIZERS
from lycoris_composite.errors import UserError
from lycoris_composite.tokens import WordTokenizer

CHUNK = 75  # tokens that CLIP reads at a time, its begin and end left out


def clip_tokenizer(model: Path, cache: str | None) -> CLIPTokenizer:
    """SD 1.x's, from the model's folder, from where sd-scripts keeps it, or from the hub's cache. Raises UserError."""
    name = TOKENIZERS[0]
    places = [Path(cache or ".") / name.replace("/", "_"), model / "tokenizer"]
    found = next((place for place in places if place.joinpath("vocab.json").is_file()), name)
    try:
        return CLIPTokenizer.from_pretrained(found, local_files_only=True)
    except (OSError, TypeError) as error:
        raise UserError(
            f"the tokenizer {name} is not on this machine; run `lycoris-composite setup --tokenizers`, or set "
            "tokenizer_cache_dir to where it is."
        ) from error


def caption_budget(settings: Mapping[str, Any]) -> Budget:
    """The tokens that a stage's captions may have. Raises UserError where there is no tokenizer to count with."""
    model = Path(settings.get("pretrained_model_name_or_path") or ".")
    words = WordTokenizer(clip_tokenizer(model, settings.get("tokenizer_cache_dir")))
    return Budget(settings.get("max_token_length") or CHUNK, lambda text: len(words.tokenize(text)))
