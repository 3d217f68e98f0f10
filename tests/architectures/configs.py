"""A small config for each architecture, and the world that it trains in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests import tiny
from tests.architectures import models
from tests.world import COMPOSITE, SETTINGS, World


class Architecture(NamedTuple):
    """A trainer of kohya's, and what its config has besides the names of its files."""

    trainer: str
    settings: Mapping[str, Any] = {}
    samples: bool = True  # whether upstream can make sample pictures on a CPU

    @property
    def caches_text(self) -> bool:
        """Whether there is no text encoder to train, so that its outputs may be cached."""
        return bool(self.settings.get("network_train_unet_only"))


_TRANSFORMER = {"network_train_unet_only": True, "max_token_length": None}
_FLOW = {**_TRANSFORMER, "timestep_sampling": "shift", "model_prediction_type": "raw"}
# In every test of the architectures.
ARCHITECTURES = {
    "sdxl": Architecture("sdxl_train_network", {"bucket_reso_steps": 32}),
    "flux": Architecture("flux_train_network", {**_FLOW, "guidance_scale": 1.0}),
    "sd3": Architecture("sd3_train_network", _TRANSFORMER),
    "anima": Architecture("anima_train_network", _TRANSFORMER),
    "lumina": Architecture("lumina_train_network", _FLOW),
    # Its samples are made in bfloat16 by a VAE that is float32 here.
    "hunyuan_image": Architecture("hunyuan_image_train_network", _FLOW, samples=False),
}
_CHROMA = {"model_type": "chroma", "apply_t5_attn_mask": True}
# And those that are in a few: a trainer's second model, which differs from its first in little.
EVERY = ARCHITECTURES | {"chroma": Architecture("flux_train_network", {**_FLOW, "guidance_scale": 0.0, **_CHROMA})}
STEPS = 2  # in each stage
PROMPT = {"prompt": "rin, 1girl", "width": 64, "height": 64, "sample_steps": 2, "seed": 1}


def make_world(folder: Path, name: str, sd_scripts: Path) -> World:
    """An architecture's world in `folder`, where models.py has made its files. `sd_scripts` is a narrow copy."""
    own, architecture = folder / name, EVERY[name]
    tiny.draw_characters(own / "data", images=2, size=[(96, 96), (72, 108)])
    prompts = own / "prompts.json"
    prompts.write_text(json.dumps([PROMPT]), encoding="utf-8")
    samples = {"sample_prompts": str(prompts), "sample_every_n_steps": STEPS} if architecture.samples else {}
    config = {
        **SETTINGS,
        **json.loads((own / "files.json").read_text()),
        "train_data_dir": str(own / "data"),
        "shuffle_caption": True,
        "max_train_steps": STEPS,
        **samples,
        **architecture.settings,
    }
    composite = {**COMPOSITE, "trainer": architecture.trainer}
    return World(own, sd_scripts, config, composite, {"HF_HOME": str(models.hf_home(folder))})
