"""What the trainer's subclass encodes panel by panel, in a stand-in for upstream's trainer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lycoris_composite.composites.layouts import Box

CPU = SimpleNamespace(device=torch.device("cpu"), trackers=[], process_index=0)
ARGS = SimpleNamespace(vae_batch_size=None, gradient_accumulation_steps=1)


@pytest.fixture
def trainer(sd_scripts: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trainer whose VAE takes a picture's mean for all of its cells, so that whoever encodes two panels at once mixes them."""
    monkeypatch.syspath_prepend(str(sd_scripts))
    from lycoris_composite.trainers.kohya.trainer import RunHooks, composite_trainer

    class Upstream:
        def encode_images_to_latents(self, args: Any, vae: Any, images: torch.Tensor) -> torch.Tensor:
            cells = torch.ones(len(images), 4, images.shape[2] // 8, images.shape[3] // 8)
            return cells * images.mean((1, 2, 3))[:, None, None, None]

        def process_batch(self, batch: dict, vae: Any, vae_dtype: Any, accelerator: Any, args: Any) -> None:
            if batch.get("latents") is None:
                batch["latents"] = self.encode_images_to_latents(args, vae, batch["images"])
            batch["masked_latents"] = self.encode_images_to_latents(args, vae, batch["masked_images"])

    return composite_trainer(Upstream, RunHooks())()


@pytest.mark.parametrize("joins_latents", [True, False])
def test_panels_never_see_each_other(trainer: Any, joins_latents: bool) -> None:
    left, right = torch.full((1, 3, 16, 16), 2.0), torch.full((1, 3, 16, 8), 5.0)
    pictures = torch.cat([left, right], -1)
    batch: dict[str, Any] = {"images": pictures, "masked_images": pictures / 2}
    if joins_latents:
        batch["panel_boxes"] = [[Box(0, 0, 16, 16), Box(16, 0, 8, 16)]]

    trainer.process_batch(batch, None, torch.float32, CPU, ARGS)

    for key, scale in (("latents", 1), ("masked_latents", 0.5)):
        sides = [float(side.unique()) / scale for side in batch[key].split([2, 1], -1)]
        assert sides == ([2.0, 5.0] if joins_latents else [3.0, 3.0])
    assert trainer._panel_boxes is None
