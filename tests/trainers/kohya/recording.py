"""Runs the launcher and records what its trainer trains on: `python recording.py FILE SD_SCRIPTS_DIR LAUNCHER_ARGUMENTS`.

FILE gets, for every step, the latents, token ids, captions and loss. What two trainers are free to draw differently
(the network's first weights, the order of single images, the VAE's noise) is drawn alike.
"""

from __future__ import annotations

import os
import random
import sys
import zlib
from functools import wraps
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

RECORD: list[dict[str, Any]] = []


def main() -> None:
    file, sd_scripts, *arguments = sys.argv[1:]
    sys.path.insert(0, sd_scripts)
    list_folder = os.listdir
    os.listdir = lambda path=".": sorted(list_folder(path))  # upstream takes subsets as the file system has them
    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()
    _same_networks()
    _record_upstream()
    _record_builtin()
    from lycoris_composite import launcher

    code = launcher.main(arguments)
    torch.save(RECORD, file)
    sys.exit(code)


def _same_networks() -> None:
    from lycoris.kohya import LycorisNetworkKohya

    apply_to = LycorisNetworkKohya.apply_to

    def filled(self: Any, *args: Any) -> None:
        apply_to(self, *args)
        for name, value in self.named_parameters():
            noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            value.data.copy_(0.1 * noise)

    LycorisNetworkKohya.apply_to = filled


def _record_upstream() -> None:
    from library.train_util import BaseDataset
    from train_network import NetworkTrainer

    BaseDataset.shuffle_buckets = lambda self: None
    process = NetworkTrainer.process_batch

    @wraps(process)
    def process_batch(self: Any, batch: dict, *rest: Any, **named: Any) -> Any:
        loss = process(self, batch, *rest, **named)
        _note(batch["latents"], batch["input_ids_list"][0], batch["captions"], loss)
        return loss

    NetworkTrainer.process_batch = process_batch


def _record_builtin() -> None:
    from lycoris_composite.trainers.builtin import batches as builtin_data
    from lycoris_composite.trainers.builtin import train as builtin

    class Unshuffled(random.Random):
        def shuffle(self, values: list) -> None:
            pass

    builtin_data.generator = lambda *key: Unshuffled(str(key))
    loss_of = builtin._Run.loss

    def loss(self: Any, batch: dict) -> Any:
        found = loss_of(self, batch)
        _note(batch["latents"], batch["input_ids"], batch["captions"], found)
        return found

    builtin._Run.loss = loss


def _note(latents: torch.Tensor, ids: torch.Tensor, captions: list[str], loss: torch.Tensor) -> None:
    RECORD.append({"latents": latents.clone(), "ids": ids.clone(), "captions": list(captions), "loss": float(loss.detach())})


if __name__ == "__main__":
    main()
