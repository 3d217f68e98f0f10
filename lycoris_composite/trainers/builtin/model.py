"""SD 1.x from a file or folder, and captions to what its UNet attends to, for the embedded trainer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from lycoris_composite.composites.captions import Budget
from lycoris_composite.errors import UserError
from lycoris_composite.trainers.tokenizers import CHUNK, clip_tokenizer, count_tokens

# SD 1.x's, as sd-scripts has them fixed.
LATENT_SCALE = 0.18215
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


class Text:
    """Captions to token ids, and those to what the UNet attends to, in chunks of 75 tokens as upstream makes them."""

    def __init__(self, tokenizer: Any, max_token_length: int | None, clip_skip: int | None) -> None:
        self._tokenizer = tokenizer
        self.limit = max_token_length or CHUNK
        self._clip_skip = clip_skip

    def budget(self) -> Budget:
        return Budget(self.limit, partial(count_tokens, self._tokenizer))

    def ids(self, captions: Sequence[str]) -> torch.Tensor:
        """(B, chunks, 77)."""
        return torch.stack([self._ids(caption) for caption in captions])

    def _ids(self, caption: str) -> torch.Tensor:
        options = {"padding": "max_length", "truncation": True, "max_length": self.limit + 2}
        begin, *ids, end = self._tokenizer(caption, **options).input_ids
        chunks = (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
        return torch.tensor([[begin, *chunk, end] for chunk in chunks])

    def encode(self, text_encoder: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
        """(B, chunks, 77) to (B, 75 chunks + 2, width)."""
        if self._clip_skip:
            states = text_encoder(ids.flatten(0, 1), output_hidden_states=True).hidden_states[-self._clip_skip]
            states = text_encoder.text_model.final_layer_norm(states)
        else:
            states = text_encoder(ids.flatten(0, 1))[0]
        states = states.unflatten(0, ids.shape[:2])
        return torch.cat([states[:, 0, :1], states[:, :, 1:-1].flatten(1, 2), states[:, -1, -1:]], dim=1)


def load_model(path: Path, tokenizer_cache: str | None) -> StableDiffusionPipeline:
    """SD 1.x from a folder in diffusers' format or a single .safetensors file, float32."""
    plain = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    tokenizer = clip_tokenizer(path, tokenizer_cache)
    if path.is_dir():
        return StableDiffusionPipeline.from_pretrained(path, tokenizer=tokenizer, local_files_only=True, **plain)
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: the built-in trainer loads .safetensors and diffusers folders; convert it, or use sd-scripts."
        )
    with tempfile.TemporaryDirectory() as config:
        _write_sd15_config(Path(config))
        parts = StableDiffusionPipeline.from_single_file(
            str(path), config=config, tokenizer=tokenizer, local_files_only=True, **plain
        )
    return parts


def _write_sd15_config(folder: Path) -> None:
    """What diffusers would download to know a single file's shapes. Where it is silent, the classes' defaults are
    SD 1.x's."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768}
    with torch.device("meta"):  # for the configs alone; no weights are made
        UNet2DConditionModel(sample_size=64, cross_attention_dim=768).save_config(folder / "unet")
        vae = AutoencoderKL(sample_size=512, block_out_channels=(128, 256, 512, 512), layers_per_block=2, **blocks)
    vae.save_config(folder / "vae")
    CLIPTextConfig(**text, architectures=["CLIPTextModel"]).save_pretrained(folder / "text_encoder")
    DDIMScheduler(**NOISE, clip_sample=False, steps_offset=1).save_config(folder / "scheduler")
    parts = {
        "scheduler": ("diffusers", "DDIMScheduler"),
        "text_encoder": ("transformers", "CLIPTextModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
    }
    index = {"_class_name": "StableDiffusionPipeline", **parts}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
