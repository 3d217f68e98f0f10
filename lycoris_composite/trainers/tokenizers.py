"""Models' tokenizers from where a trainer finds them, without a model, and the tokens that captions may have."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lycoris_composite.architectures import ARCHITECTURES, CHROMA, CLIP_L, Encoder, Tokenizer
from lycoris_composite.composites.captions import Budget, strictest
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.stages import Stage
from lycoris_composite.errors import UserError

_FILES = ("vocab.json", "tokenizer.json")  # either will do; transformers 5 saves the second alone
CHUNK = 75  # tokens that CLIP reads at a time, its begin and end left out
_SCHNELL = 256  # T5's tokens for Flux schnell, which upstream tells from dev by its weights
_GUIDANCE = ("guidance_in.in_layer.bias", "time_text_embed.guidance_embedder.linear_1.bias")  # that schnell lacks
_OF_FOLDER = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors"  # the part of a diffusers folder that has them


def clip_tokenizer(model: Path, cache: str | None) -> Any:
    """SD 1.x's, from the model's folder, from where sd-scripts keeps it, or from the hub's cache. Raises UserError."""
    folders = [_kept(CLIP_L, cache), model / "tokenizer"]
    return _loaded(CLIP_L, next((folder for folder in folders if any((folder / file).is_file() for file in _FILES)), None))


def find_tokenizer(tokenizer: Tokenizer, settings: KohyaSettings, sd_scripts: Path | None) -> Any:
    """A tokenizer as upstream loads it, from this machine alone. Raises UserError where upstream would stop, or train with
    one that knows no words. `sd_scripts` is for those that come with it."""
    cache = settings.tokenizer_cache_dir
    if not tokenizer.bundled:
        folder = _kept(tokenizer, cache)
        is_kept = bool(cache) and folder.is_dir() and not tokenizer.is_hub_layout
        return _loaded(tokenizer, folder if is_kept else None, cache if tokenizer.is_hub_layout else None)
    given = settings.get(tokenizer.key)
    if given and not Path(given).exists():
        raise UserError(f"{tokenizer.key} {given}: no such file or folder; correct the path.")
    for folder in filter(None, [given and Path(given), sd_scripts and sd_scripts / tokenizer.bundled]):
        if folder.is_dir():
            return _loaded(tokenizer, folder)
    raise UserError(
        f"{tokenizer.key}: needs the tokenizer {tokenizer.name}, and sd-scripts lacks its own copy ({tokenizer.bundled}); set "
        f"{tokenizer.key} to a folder of transformers' format that holds one."
    )


def _kept(tokenizer: Tokenizer, cache: str | None) -> Path:
    """Upstream's folder of it in `tokenizer_cache_dir`."""
    return Path(cache or ".") / tokenizer.name.replace("/", "_")


def _loaded(tokenizer: Tokenizer, folder: Path | None, cache: str | None = None) -> Any:
    import transformers

    try:
        kind = getattr(transformers, tokenizer.kind)
        found = kind.from_pretrained(folder or tokenizer.name, local_files_only=True, cache_dir=cache)
        if not set(found.tokenize("a")) <= set(found.all_special_tokens):  # transformers 5 makes one of no files
            return found
    except Exception:  # a file that is missing, torn or of another version raises any kind
        pass
    if folder is not None:
        raise UserError(
            f"{folder}: no tokenizer that transformers {transformers.__version__} can read; remove this folder, or save it "
            "with the version that is installed."
        )
    model = next(row.name for row in ARCHITECTURES.values() if tokenizer in row.tokenizers)
    raise UserError(
        f"the tokenizer {tokenizer.name} is not on this machine, and training fetches nothing; run `lycoris-composite setup "
        f"--tokenizers {model}`, or set tokenizer_cache_dir to where it is."
    )


def stage_budget(stage: Stage, sd_scripts: Path | None) -> Budget | None:
    """The tokens that a stage's captions may have; None where this project knows of no limit. Raises UserError where there
    is no tokenizer to count with."""
    settings, budgets = stage.settings, []
    for encoder in stage.architecture.encoders:
        if encoder.tokenizer == CLIP_L:
            tokenizer = clip_tokenizer(Path(settings.pretrained_model_name_or_path or "."), settings.tokenizer_cache_dir)
        else:
            tokenizer = find_tokenizer(encoder.tokenizer, settings, sd_scripts)
        prefix = f"{settings.system_prompt} <Prompt Start> " if settings.system_prompt else ""
        budgets.append(_budget(encoder, tokenizer, _limit(encoder, settings), prefix))
    return strictest(budgets) if budgets else None


def _limit(encoder: Encoder, settings: KohyaSettings) -> int:
    """An encoder's tokens, as upstream will set them."""
    given = settings.get(encoder.key)
    if given:
        return given + encoder.around if encoder.tokenizer == CLIP_L else given
    if encoder.key == "t5xxl_max_token_length" and settings.ae and settings.model_type != CHROMA:
        return _SCHNELL if _is_schnell(settings.pretrained_model_name_or_path) else encoder.limit
    return encoder.limit


def _is_schnell(model: str | None) -> bool:
    path = Path(model or ".")
    try:
        with safe_open(path / _OF_FOLDER if path.is_dir() else path, "numpy") as file:
            names = list(file.keys())
        return not any(name.endswith(_GUIDANCE) for name in names)
    except (SafetensorError, OSError):
        return False


def strategy_budget(strategy: Any) -> Budget | None:
    """The same by one of upstream's tokenize strategies, whose tokenizers are loaded."""
    row = next((row for row in ARCHITECTURES.values() if row.strategy == type(strategy).__name__), None)
    budgets = []
    for encoder in row.encoders if row else ():
        limit = getattr(strategy, encoder.limit_attribute, encoder.limit)
        prefix = getattr(strategy, "system_prompt", "")  # Lumina's
        budgets.append(_budget(encoder, getattr(strategy, encoder.attribute), limit, prefix))
    return strictest(budgets) if budgets else None


def _budget(encoder: Encoder, tokenizer: Any, limit: int, prefix: str) -> Budget:
    before = count_tokens(tokenizer, prefix)
    return Budget(limit - encoder.around - before, lambda text: count_tokens(tokenizer, prefix + text) - before, encoder.key)


def count_tokens(tokenizer: Any, text: str) -> int:
    """The number of tokens that a tokenizer makes of a text. CLIP's pattern never reaches across a space, so each word
    is tokenized once and its number remembered. A text that ftfy may mend (accents, quotes, HTML entities) is tokenized
    as a whole, because ftfy looks at the whole of it; so is any text by other tokenizers."""
    is_clip = type(tokenizer).__name__.startswith("CLIP")
    if is_clip and text.isascii() and text.isprintable() and "&" not in text:
        return sum(_count_of_word(tokenizer, word) for word in text.split())
    return len(tokenizer.tokenize(text))


@lru_cache(maxsize=100_000)
def _count_of_word(tokenizer: Any, word: str) -> int:
    return len(tokenizer.tokenize(word))
