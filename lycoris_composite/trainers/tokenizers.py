"""CLIP's tokenizer from where a trainer finds it, without a model."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from lycoris_composite.composites.captions import Budget
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.errors import UserError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

TOKENIZERS = ("openai/clip-vit-large-patch14", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k")  # of SD 1.x and SDXL
_FILES = ("vocab.json", "tokenizer.json")  # either will do; transformers 5 saves the second alone
CHUNK = 75  # tokens that CLIP reads at a time, its begin and end left out


def clip_tokenizer(model: Path, cache: str | None) -> CLIPTokenizer:
    """SD 1.x's, from the model's folder, from where sd-scripts keeps it, or from the hub's cache. Raises UserError."""
    name = TOKENIZERS[0]
    folders = [Path(cache or ".") / name.replace("/", "_"), model / "tokenizer"]
    return _loaded(name, next((folder for folder in folders if any((folder / file).is_file() for file in _FILES)), None))


def kept_tokenizer(name: str, cache: str | None) -> CLIPTokenizer:
    """One of TOKENIZERS, as upstream loads it: from its folder in `cache`, where there is one, or from the hub's cache.
    Raises UserError where upstream would stop, or train with a tokenizer that knows no words."""
    folder = Path(cache or ".") / name.replace("/", "_")
    return _loaded(name, folder if cache and folder.is_dir() else None)


def _loaded(name: str, folder: Path | None) -> CLIPTokenizer:
    import transformers

    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder or name, local_files_only=True)
        if not set(tokenizer.tokenize("a")) <= set(tokenizer.all_special_tokens):  # transformers 5 makes one of no files
            return tokenizer
    except Exception:  # a file that is missing, torn or of another version raises any kind
        pass
    if folder is not None:
        raise UserError(
            f"{folder}: no tokenizer that transformers {transformers.__version__} can read; remove this folder, or save it "
            "with the version that is installed."
        )
    raise UserError(
        f"the tokenizer {name} is not on this machine, and training fetches nothing; run `lycoris-composite setup "
        "--tokenizers`, or set tokenizer_cache_dir to where it is."
    )


def caption_budget(settings: KohyaSettings) -> Budget:
    """The tokens that a stage's captions may have. Raises UserError where there is no tokenizer to count with."""
    model = Path(settings.pretrained_model_name_or_path or ".")
    tokenizer = clip_tokenizer(model, settings.tokenizer_cache_dir)
    return Budget(settings.max_token_length or CHUNK, partial(count_tokens, tokenizer))


def count_tokens(tokenizer: CLIPTokenizer, text: str) -> int:
    """The number of tokens that the tokenizer makes of a text. CLIP's pattern never reaches across a space, so each word
    is tokenized once and its number remembered. A text that ftfy may mend (accents, quotes, HTML entities) is tokenized
    as a whole, because ftfy looks at the whole of it."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return sum(_count_of_word(tokenizer, word) for word in text.split())
    return len(tokenizer.tokenize(text))


@lru_cache(maxsize=100_000)
def _count_of_word(tokenizer: CLIPTokenizer, word: str) -> int:
    return len(tokenizer.tokenize(word))
