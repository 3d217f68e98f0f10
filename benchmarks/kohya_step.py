"""One training step as upstream's trainer makes it. Import it when sd-scripts is on the path."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from library import strategy_base
from train_network import NetworkTrainer, setup_parser

from sd_scripts_patches import lycoris_timestep_embedding


class Step:
    """A model with a LoHa on it. A call takes a batch of an SD 1.x dataset and makes one optimizer update."""

    def __init__(self, model: str | Path) -> None:
        self._args = setup_parser().parse_args(["--pretrained_model_name_or_path", str(model), "--sdpa", "--clip_skip", "2"])
        self._accelerator = Accelerator(cpu=True)
        self._trainer = NetworkTrainer()
        self._tokenizing = strategy_base.TokenizeStrategy.get_strategy()
        self._encoding = self._trainer.get_text_encoding_strategy(self._args)
        self._scheduler = self._trainer.get_noise_scheduler(self._args, self._accelerator.device)
        undo = lycoris_timestep_embedding.apply()
        self._load()
        undo()
        params = self._network.prepare_optimizer_params(1e-4, 1e-4, 1e-4)
        # LyCORIS 4 gives descriptions of the groups too.
        self._optimizer = torch.optim.AdamW(params[0] if isinstance(params, tuple) else params)

    def _load(self) -> None:
        from lycoris.kohya import create_network

        _, self._text_encoder, self._vae, self._unet = self._trainer.load_target_model(
            self._args, torch.float32, self._accelerator
        )
        self._text_encoder.requires_grad_(False)
        self._unet.requires_grad_(False)
        models = (self._vae, self._text_encoder, self._unet)
        self._network = create_network(1.0, 8, 1, *models, dropout=None, algo="loha", conv_dim=0, conv_alpha=1)
        self._network.apply_to(self._text_encoder, self._unet, True, True)
        self._network.prepare_grad_etc(self._text_encoder, self._unet)

    def __call__(self, batch: dict) -> None:
        loss = self._trainer.process_batch(
            batch,
            [self._text_encoder],
            self._unet,
            self._network,
            self._vae,
            self._scheduler,
            torch.float32,
            torch.float32,
            self._accelerator,
            self._args,
            self._encoding,
            self._tokenizing,
        )
        self._accelerator.backward(loss)
        self._accelerator.clip_grad_norm_(self._network.get_trainable_params(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
