"""original_unet's BLOCK_OUT_CHANNELS, TIMESTEP_INPUT_DIM and TIME_EMBED_DIM, set to a diffusers model's own widths
while upstream's _load_target_model builds its U-Net.

Why: upstream hard-codes SD 1.x's widths, so small models for tests and miniatures do not load. They are read only
while a U-Net is built. The loader is private; the public load_target_model, which the trainer calls, looks it up per process.
Until: upstream takes the widths from the model's config.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: the constants, and that
the U-Net reads them; the loader and its first parameter, and that the trainer comes to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from library import original_unet
from train_network import NetworkTrainer

from sd_scripts_patches.tools import Undo, all_of, looked_up, replace, replace_everywhere, require, require_parameters


def check() -> None:
    require(original_unet, "BLOCK_OUT_CHANNELS", "TIMESTEP_INPUT_DIM", "TIME_EMBED_DIM")
    for name in ("BLOCK_OUT_CHANNELS", "TIMESTEP_INPUT_DIM", "TIME_EMBED_DIM"):
        looked_up(original_unet.UNet2DConditionModel.__init__, name)
    require(NetworkTrainer, "load_target_model")
    require_parameters(_original(), "args")


def _original() -> Any:
    return looked_up(looked_up(NetworkTrainer.load_target_model, "load_target_model"), "_load_target_model")


def apply() -> Undo:
    original = _original()

    def load_target_model(args: Any, *rest: Any, **kwargs: Any) -> Any:
        undo = _set_widths(_block_widths(args.pretrained_model_name_or_path))
        try:
            return original(args, *rest, **kwargs)
        finally:
            undo()

    return replace_everywhere("_load_target_model", original, load_target_model)


def _block_widths(model: str) -> tuple[int, ...]:
    config = Path(model) / "unet" / "config.json"
    if not config.is_file():
        return original_unet.BLOCK_OUT_CHANNELS
    return tuple(json.loads(config.read_text(encoding="utf-8"))["block_out_channels"])


def _set_widths(widths: tuple[int, ...]) -> Undo:
    return all_of(
        [
            replace(original_unet, "BLOCK_OUT_CHANNELS", widths),
            replace(original_unet, "TIMESTEP_INPUT_DIM", widths[0]),
            replace(original_unet, "TIME_EMBED_DIM", widths[0] * 4),
        ]
    )
