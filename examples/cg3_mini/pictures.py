"""Prompts to pictures, with the base model alone or a LoRA on it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import base
import torch

STEPS, GUIDANCE = 20, 3.0


def load(folder: Path, lora: Path | None = None) -> Any:
    """The base model's pipeline, with a LoRA's modules hooked in where one is given."""
    pipeline = base.load(folder)
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        part.requires_grad_(False).eval()
    if lora is not None:
        _hook(pipeline, lora)
    return pipeline


def _hook(pipeline: Any, lora: Path) -> None:
    """Not merged: LyCORIS 4.1.3 merges a LoHa with its scale, alpha / dim, counted twice."""
    from lycoris.kohya import create_network_from_weights

    from sd_scripts_patches import lycoris_timestep_embedding

    with ExitStack() as undo:
        undo.callback(lycoris_timestep_embedding.apply())
        network, _ = create_network_from_weights(1.0, str(lora), pipeline.vae, pipeline.text_encoder, pipeline.unet)
    network.apply_to(pipeline.text_encoder, pipeline.unet, True, True)
    pipeline.lora = network.requires_grad_(False).eval()


def generate(
    pipeline: Any,
    prompts: Sequence[str],
    negatives: Sequence[str] | str = "",
    width: int = 128,
    seed: int = 0,
    at_once: int = 32,
) -> torch.Tensor:
    """(n, 3, 64, width) in -1..1. The n-th picture's noise depends on the seed and n alone."""
    from diffusers import EulerAncestralDiscreteScheduler

    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(base.new_scheduler().config)
    negatives = [negatives] * len(prompts) if isinstance(negatives, str) else negatives
    found = []
    for start in range(0, len(prompts), at_once):
        chosen = range(start, min(start + at_once, len(prompts)))
        found.append(
            pipeline(
                [prompts[n] for n in chosen],
                negative_prompt=[negatives[n] for n in chosen],
                width=width,
                height=64,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=[torch.Generator().manual_seed(seed * 1_000_003 + n) for n in chosen],
                output_type="pt",
            ).images
        )
    return torch.cat(found) * 2 - 1
