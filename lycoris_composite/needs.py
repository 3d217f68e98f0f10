"""What a config will need of disk and memory, estimated from shapes and counts; nothing is loaded.

benchmarks/needs.py holds the estimates against measured runs. They are for U-Nets (SD 1.x, SD 2.x, SDXL); of another
architecture only the files are estimated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lycoris_composite.costs import Work, schedule_of
from lycoris_composite.stages import Stage

Shapes = Mapping[str, tuple[int, ...]]

_HALF = ("fp16", "bf16")
_LATENT_FACTOR = 8  # pixels of one latent cell, along each side
_WIDE_LATENTS = re.compile("flux|sd3|lumina|anima|hunyuan")  # trainers whose latents have 16 channels and not 4
_PER_TENSOR, _PER_FILE = 160, 12_000  # bytes of a .safetensors file that are no values: its header and metadata
_PER_TENSOR_OF_STATE = 700  # of a state: beside its header, the optimizer's names and counters
_PER_STATE = 60_000  # bytes of a state that are neither weights nor the optimizer's
# Values that the optimizer keeps of each it trains, times their bytes.
_OPTIMIZER_BYTES = {
    "adamw8bit": 2,
    "pagedadamw8bit": 2,
    "lion": 4,
    "lion8bit": 1,
    "sgdnesterov": 4,
    "prodigy": 16,
    "adafactor": 1,
}
_ADAMW_BYTES = 8
# Values held at a step's peak, of each latent cell and each channel of the U-Net's first block. What is kept for the
# backward pass was counted with torch's saved_tensors_hooks on diffusers' U-Nets of 32 and 64 channels, LoHa and LoRA
# alike: 380 for SD 1.x and 750 for SDXL. The peak of a measured step of SD 1.x is 1.4 times that; SDXL's is taken to be.
_HELD_SD, _HELD_SDXL = 540, 1050
_HELD_CHECKPOINTED = 0.36  # with gradient_checkpointing
# How often the weights of the adapted layers are held beside the model's own: LyCORIS makes each anew in every step.
_HELD_ADAPTED = 3
_VAE_HELD = 5  # pictures of the VAE's first width that it holds at once while it encodes
# Python with all that a run imports, in bytes: measured on Linux, without CUDA.
LIBRARIES = {"builtin": 950_000_000, "sd-scripts": 1_030_000_000}


@dataclass(frozen=True)
class Model:
    """The shapes of a base model's weights, by name and by part."""

    unet: Shapes
    text: Shapes
    vae: Shapes

    @property
    def values(self) -> int:
        return sum(math.prod(shape) for part in (self.unet, self.text, self.vae) for shape in part.values())

    @property
    def channels(self) -> int | None:
        """The width of the U-Net's first block, None for what is no U-Net."""
        return next((self.unet[name][0] for name in ("conv_in.weight", "input_blocks.0.0.weight") if name in self.unet), None)

    @property
    def is_xl(self) -> bool:
        return any(name.startswith(("add_embedding.", "label_emb.")) for name in self.unet)


@dataclass(frozen=True)
class Network:
    """The LoRA: its values, its tensors, and how many of the base model's values it adapts."""

    parameters: int
    tensors: int
    adapted: int


def model_of(path: Path, pickled: Callable[[Path], Shapes]) -> Model | None:
    """The shapes of a model's file or folder; None where they are not to be read. `pickled` reads those of a file that
    is not .safetensors."""
    try:
        if path.is_dir():
            parts = (_folder_shapes(path, pattern) for pattern in ("unet", "text_encoder*", "vae"))
            unet, text, vae = parts
        else:
            whole = _file_shapes(path) if path.suffix == ".safetensors" else pickled(path)
            prefixes = ("model.diffusion_model.", ("cond_stage_model.", "conditioner."), "first_stage_model.")
            unet, text, vae = (_below(whole, prefix) for prefix in prefixes)
            unet = unet or whole
    except Exception:  # whatever a strange file does to its reader; that it is broken is said elsewhere
        return None
    return Model(unet, text, vae) if unet else None


def _below(shapes: Shapes, prefix: str | tuple[str, ...]) -> Shapes:
    found = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix) if isinstance(prefix, str) else name: shape for name, shape in found.items()}


def _folder_shapes(folder: Path, pattern: str) -> Shapes:
    found: dict[str, tuple[int, ...]] = {}
    for part in sorted(folder.glob(pattern)):
        files = [path for path in sorted(part.glob("*.safetensors")) if ".fp16." not in path.name]
        for path in files:
            found |= {f"{part.name}.{name}" if "*" in pattern else name: shape for name, shape in _file_shapes(path).items()}
    return found


def _file_shapes(path: Path) -> Shapes:
    try:
        with safe_open(path, "numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def adaptable(shapes: Shapes, is_text: bool) -> Shapes:
    """The weights of layers that LyCORIS may adapt: in a text encoder those of its layers, without embeddings."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if is_text and not re.search(r"\.(layers|resblocks)\.", name):
            continue
        if name.endswith("in_proj_weight"):  # three layers in one: upstream takes them apart
            found |= {f"{name}.{number}": (shape[0] // 3, *shape[1:]) for number in range(3)}
        elif len(shape) in (2, 4) and name.endswith(".weight"):
            found[name] = shape
    return found


def latent_bytes(stage: Stage, work: Work) -> int:
    """All latents that the stage caches, float32."""
    channels = 16 if _WIDE_LATENTS.match(stage.trainer) else 4
    return sum(math.prod(size) // _LATENT_FACTOR**2 * channels * 4 * count for size, count in work.panels.items())


def cached_bytes(stage: Stage, work: Work, on_disk: bool) -> int:
    """What of the latents a stage keeps on disk, or in memory."""
    to_disk = bool(stage.settings.get("cache_latents_to_disk"))
    kept = to_disk if on_disk else (bool(stage.settings.get("cache_latents")) and not to_disk)
    return latent_bytes(stage, work) if kept else 0


def file_bytes(stage: Stage, network: Network) -> int:
    """One saved LoRA."""
    each = 2 if stage.settings.get("save_precision") in _HALF else 4
    return network.parameters * each + network.tensors * _PER_TENSOR + _PER_FILE


def state_bytes(stage: Stage, network: Network) -> int:
    """One state: the network and the optimizer's values."""
    return network.parameters * (4 + _optimizer_bytes(stage.settings)) + network.tensors * _PER_TENSOR_OF_STATE + _PER_STATE


def _optimizer_bytes(settings: Mapping[str, Any]) -> int:
    name = "adamw8bit" if settings.get("use_8bit_adam") else str(settings.get("optimizer_type") or "adamw").lower()
    return _OPTIMIZER_BYTES.get(name.rpartition(".")[2], _ADAMW_BYTES)


def output_bytes(stage: Stage, network: Network, work: Work) -> int:
    """All files and states that a stage leaves, its samples left out."""
    files, states = saves(stage.settings, work.batches)
    return files * file_bytes(stage, network) + states * state_bytes(stage, network)


def saves(settings: Mapping[str, Any], batches: int) -> tuple[int, int]:
    """How many files and how many states there are at the end of a stage with so many batches an epoch."""
    schedule = schedule_of(settings, batches)
    epochs, steps = schedule.epochs, schedule.steps
    every_epochs, every_steps = settings.get("save_every_n_epochs"), settings.get("save_every_n_steps")
    if settings.get("save_n_epoch_ratio"):
        every_epochs = max(1, epochs // settings["save_n_epoch_ratio"])
    by_epoch = (epochs - 1) // every_epochs if every_epochs else 0
    by_step = steps // every_steps if every_steps else 0

    def kept(suffix: str) -> int:
        last_epochs = settings.get(f"save_last_n_epochs{suffix}") or settings.get("save_last_n_epochs") or by_epoch
        last_steps = settings.get(f"save_last_n_steps{suffix}") or settings.get("save_last_n_steps")
        return min(by_epoch, last_epochs) + (min(by_step, last_steps // every_steps + 1) if by_step and last_steps else by_step)

    has_last = bool(settings.get("save_state") or settings.get("save_state_on_train_end"))
    return kept("") + 1, (kept("_state") if settings.get("save_state") else 0) + has_last


def memory_bytes(stage: Stage, model: Model, network: Network, work: Work) -> dict[str, int] | None:
    """What a stage holds at its peak where the model is, by what it is; None for what is no U-Net.

    The base model in the precision of training, the network with its gradients and the optimizer's values, its layers'
    whole weights, which LyCORIS makes anew in every step, and what is held of a batch for the backward pass. The VAE
    is done before all that, and so is loading, which holds the model twice: the largest counts.
    """
    if model.channels is None:
        return None
    settings = stage.settings
    each = 2 if settings.get("mixed_precision") in _HALF else 4
    cells = math.prod(work.largest) // _LATENT_FACTOR**2 * work.batch_size
    held = (_HELD_SDXL if model.is_xl else _HELD_SD) * model.channels * cells * each
    held = int(held * _HELD_CHECKPOINTED) if settings.get("gradient_checkpointing") else held
    trained = network.parameters * (8 + _optimizer_bytes(settings)) + _HELD_ADAPTED * network.adapted * each
    vae = model.vae.get("encoder.conv_in.weight", (128,))[0] * math.prod(work.largest) * each * _VAE_HELD
    before = max(vae, model.values * each)
    return {"model": model.values * each, "network": trained, "a batch": max(held, before - trained)}
