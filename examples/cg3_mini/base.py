"""The base model's parts: SD 1.x's architecture, as small as this world allows, and a cut of CLIP's vocabulary."""

from __future__ import annotations

import copy
import gzip
import hashlib
import importlib.util
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import world
from narrow import WIDTHS

VAE_CHANNELS = (16, 32, 64, 64)  # four blocks: 8 pixels become one latent cell
TEXT_WIDTH = 64  # of the text encoder, and so of the UNet's cross attention
SCALING = 0.18215  # SD 1.x's, which upstream does not read from the model
HERE = Path(__file__).parent
# Where sd-scripts looks for it in its tokenizer_cache_dir, so that one copy serves all.
TOKENIZER = "openai_clip-vit-large-patch14"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def new_unet() -> Any:
    from diffusers import UNet2DConditionModel

    # The blocks are diffusers' defaults, which are SD 1.x's.
    return UNet2DConditionModel(
        sample_size=world.SIDE // 8,
        block_out_channels=WIDTHS,
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )


def new_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=world.SIDE,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=VAE_CHANNELS,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        scaling_factor=SCALING,
    )


def new_text_encoder(tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=77,
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH * 4,
            num_hidden_layers=3,
            num_attention_heads=4,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    # Twice transformers' own: a word that no caption held, as a new trigger word, is then as loud as those it learned.
    torch.nn.init.normal_(encoder.text_model.embeddings.token_embedding.weight, std=0.04)
    return encoder


def new_scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def save(folder: Path, vae: Any, unet: Any, text_encoder: Any, tokenizer: Any) -> None:
    """In diffusers' format, fp16. The parts stay float32 and where they are."""
    from diffusers import StableDiffusionPipeline

    half = (
        copy.deepcopy(part).to("cpu", torch.float16).to(memory_format=torch.contiguous_format)
        for part in (vae, unet, text_encoder)
    )
    small_vae, small_unet, small_text_encoder = half
    StableDiffusionPipeline(
        vae=small_vae,
        text_encoder=small_text_encoder,
        tokenizer=None,
        unet=small_unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):  # a part that was loaded from a folder writes down where that was
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder / TOKENIZER)


def write_sums() -> None:
    """SHA256SUMS, of all weights beside this file; `sha256sum --check SHA256SUMS` compares them."""
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HERE).as_posix()}\n" for path in weights())
    (HERE / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def weights() -> list[Path]:
    return sorted([*HERE.glob("base/**/*.safetensors"), HERE / "scorer.safetensors"])


def load(folder: Path) -> Any:
    """What `save` wrote as a pipeline, float32."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, tokenizer=load_tokenizer(folder / TOKENIZER), safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# --- the tokenizer -----------------------------------------------------------------------------------------------


def load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer cut to what spells this world's words: they keep CLIP's own tokens, others fall into letters.

    The merges come from open-clip-torch. A cut that keeps every merge a word uses, in CLIP's order, gives that word
    the same tokens: at each turn the best pair of all is still the best one left.
    """
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    ranks = _clip_ranks()
    used = sorted(set().union(*(_merges_of(word, ranks) for word in world_words())))
    merges = [" ".join(pair) for _, pair in used]
    symbols = list(bytes_to_unicode().values())
    symbols += [f"{symbol}</w>" for symbol in symbols] + [merge.replace(" ", "") for merge in merges]
    vocabulary = {symbol: number for number, symbol in enumerate([*symbols, *SPECIAL])}
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "vocab.json", folder / "merges.txt"
    files[0].write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    files[1].write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    CLIPTokenizer(*map(str, files), model_max_length=77).save_pretrained(folder)


def world_words() -> list[str]:
    """Every word that a caption of this world or of its composites can hold, in lower case."""
    tags = [*world.CHARACTERS, *world.NAMES, *world.HAIR, *world.HAIR_CUTS, *world.OUTFIT, *world.OUTFITS, *world.ACCESSORIES]
    tags += [*world.EXPRESSIONS, *world.POSES, *world.BACKGROUNDS, "girl girls composite / , ,,"]
    return sorted({word for tag in tags for word in tag.split()})


def _merges_of(word: str, ranks: dict[tuple[str, str], int]) -> Iterable[tuple[int, tuple[str, str]]]:
    """The merges that spell a word, with their rank among CLIP's."""
    symbols = [*word[:-1], f"{word[-1]}</w>"]
    while pairs := [pair for pair in pairwise(symbols) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        yield ranks[best], best
        joined, place = [], 0
        while place < len(symbols):
            found = tuple(symbols[place : place + 2]) == best
            joined.append("".join(best) if found else symbols[place])
            place += 2 if found else 1
        symbols = joined


def _clip_ranks() -> dict[tuple[str, str], int]:
    spec = importlib.util.find_spec("open_clip")  # finds the file without open_clip's slow import
    if spec is None or spec.origin is None:
        raise FileNotFoundError("CLIP's merges: open_clip is not installed; pip install open-clip-torch.")
    text = gzip.decompress((Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode("utf-8")
    merges = text.split("\n")[1 : 49152 - 256 - 2 + 1]  # CLIP's own slice: a header line first, unused merges last
    return {tuple(merge.split()): rank for rank, merge in enumerate(merges)}
