"""Trains the miniature's base model from scratch: first the VAE, then the UNet and the text encoder on its latents.

    python train_base.py vae  --work DIR --minutes 30
    python train_base.py unet --work DIR --minutes 60
    python train_base.py save --work DIR            # base/, in diffusers' format

Each sitting goes on from the last one's checkpoint in DIR, with the moving average of the weights as its result.
Two cores are best used by two processes of one thread: `OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 train_base.py …`.
A GPU is used where there is one.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import base
import numpy as np
import torch
import world
from accelerate import Accelerator
from torch import nn
from torch.nn import functional
from tqdm import tqdm

HERE = Path(__file__).parent
SEED = 1
VAE_BATCH = 16
# Figures in a picture -> pictures in the pool, in a batch, and this kind's share of the batches.
POOL = {1: 20_000, 2: 24_000, 3: 6_000}
BATCH = {1: 64, 2: 40, 3: 24}
SHARE = {1: 0.45, 2: 0.47, 3: 0.08}
_AT_ONCE = 50
MADE = ("images", "seconds", "loss")  # what is told of a part's training, in base/made.json
UNCONDITIONAL = 0.1  # of captions are empty, for guidance
KNOWN = 0.6  # of those who stand alone have a name
_NAMES = {identity: name for name, identity in world.cast().items()}


def main() -> None:
    args = _arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    {"vae": _train_vae, "unet": _train_unet, "save": _save}[args.what](args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("vae", "unet", "save"))
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="checkpoints and encoded pictures")
    parser.add_argument("--minutes", type=float, default=30, help="how long this sitting lasts (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=8e-4, help="(default: %(default)s)")
    parser.add_argument("--batch", type=float, default=1.0, help="times the batch sizes, for a GPU (default: %(default)s)")
    parser.add_argument("--base", type=Path, default=HERE / "base", metavar="DIR", help="(default: base/ beside this file)")
    return parser.parse_args()


# --- one sitting -------------------------------------------------------------------------------------------------


class Sitting:
    """A model, its optimizer and moving average, from the last checkpoint to the next."""

    def __init__(self, model: nn.Module, checkpoint: Path, args: argparse.Namespace) -> None:
        self.accelerator = Accelerator()
        self._checkpoint, self._minutes = checkpoint, args.minutes
        self.images, self.seconds, self.loss = 0, 0.0, math.nan
        average = copy.deepcopy(model).requires_grad_(False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        if checkpoint.is_file():
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            model.load_state_dict(state["model"])
            average.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
            self.count(state)
        for group in optimizer.param_groups:
            group["lr"] = args.lr
        self.average = average.to(self.accelerator.device)
        self.model, self._optimizer = self.accelerator.prepare(model, optimizer)

    def count(self, made: Mapping[str, Any]) -> None:
        """Goes on counting from what earlier sittings made."""
        self.images, self.seconds = made["images"], made["seconds"]

    def run(self, batches: Iterator[tuple]) -> None:
        """Trains until the time is over: `model(*batch)` is (loss, what to report), a batch's length its images."""
        start = saved = told = time.monotonic()
        losses: list[float] = []
        for batch in batches:
            loss, report = self.model(*(part.to(self.accelerator.device) for part in batch))
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.images += len(batch[0]) * self.accelerator.num_processes
            self._follow()
            losses.append(float(report))
            now = time.monotonic()
            over = self._together(now - start > self._minutes * 60)
            if now - told > 30 or over:
                self.accelerator.print(
                    f"{self.images:>9,} images, {now - start:6.0f} s, loss {np.mean(losses):.4f}", flush=True
                )
                self.loss, told, losses = float(np.mean(losses)), now, []
            if now - saved > 240 or over:
                self.seconds, saved = self.seconds + now - saved, now
                self._save()
            if over:
                return

    def _follow(self) -> None:
        steps = self.images / 50
        decay = min(0.995, (1 + steps) / (10 + steps))
        with torch.no_grad():
            mine = self.accelerator.unwrap_model(self.model).parameters()
            torch._foreach_lerp_(list(self.average.parameters()), [p.detach() for p in mine], 1 - decay)

    def _together(self, mine: bool) -> bool:
        """The first process's opinion: clocks differ, and a process that stops alone leaves the other waiting."""
        if self.accelerator.num_processes == 1:
            return mine
        flag = torch.tensor([float(mine)], device=self.accelerator.device)
        torch.distributed.broadcast(flag, 0)
        return bool(flag)

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            **{name: getattr(self, name) for name in MADE},
        }
        torch.save(state, self._checkpoint.with_suffix(".new"))
        os.replace(self._checkpoint.with_suffix(".new"), self._checkpoint)


def _seeded(sitting: Sitting) -> random.Random:
    """The pictures' generator; torch's is seeded too. Another seed for each process and sitting, or a resumed run would
    see the same pictures and noise again."""
    rng = random.Random(f"{SEED} {sitting.accelerator.process_index} {sitting.images}")
    torch.manual_seed(rng.getrandbits(32))
    return rng


# --- the VAE -----------------------------------------------------------------------------------------------------


class VaeLoss(nn.Module):
    """(loss, mean absolute error) of pictures in -1..1.

    The low-pass and colour terms get colours right at once, where absolute error alone stays grey for a long time.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = self.vae.encode(pictures).latent_dist
        error = self.vae.decode(posterior.sample()).sample - pictures
        opponents = torch.stack([error[:, 0] - error[:, 1], error[:, 1] - error[:, 2]], 1)
        absolute = error.abs().mean()
        loss = absolute + error.square().mean() + functional.avg_pool2d(error, 8).abs().mean() + opponents.abs().mean()
        return loss + 1e-6 * posterior.kl().mean(), absolute.detach()


def _train_vae(args: argparse.Namespace) -> None:
    torch.manual_seed(SEED)
    sitting = Sitting(VaeLoss(base.new_vae()), args.work / "vae.pt", args)
    sitting.run(_crops(_seeded(sitting), round(VAE_BATCH * args.batch)))


def _crops(rng: random.Random, size: int) -> Iterator[tuple[torch.Tensor]]:
    """Square crops; one picture in ten is two joined, because the VAE will meet seams too."""
    while True:
        crops = []
        while len(crops) < size:
            parts = [_random_picture(rng, rng.choice((1, 2)))[0] for _ in range(2 if rng.random() < 0.1 else 1)]
            picture = np.concatenate([np.asarray(part) for part in parts], axis=1)
            left = rng.randint(0, picture.shape[1] - world.SIDE)
            crops.append(picture[:, left : left + world.SIDE])
        yield (_as_input(np.stack(crops)),)


def _as_input(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, height, width, 3) to -1..1 (n, 3, height, width)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _random_picture(rng: random.Random, count: int) -> tuple[Any, list[world.Figure], str]:
    figures = [world.random_figure(rng) for _ in range(count)]
    if count == 1 and rng.random() < KNOWN:
        figures = [replace(figures[0], **dict(zip(world.IDENTITY, rng.choice(list(_NAMES)), strict=True)))]
    background = rng.choice(world.BACKGROUNDS)
    return world.draw(figures, background, rng), figures, background


def _vae_of(work: Path, folder: Path) -> nn.Module:
    """The one that was trained here, or the repository's."""
    if (work / "vae.pt").is_file():
        return _finished_vae(work)
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder / "vae").float().requires_grad_(False).eval()


def _finished_vae(work: Path) -> nn.Module:
    """The average, its latents moved to mean 0 and standard deviation 1 / scaling: what SD 1.x's trainers expect.

    The maps on both sides of the latents are linear, so the pictures stay the same.
    """
    vae = base.new_vae()
    loss = VaeLoss(vae)
    loss.load_state_dict(torch.load(work / "vae.pt", map_location="cpu", weights_only=True)["average"])
    vae.requires_grad_(False).eval()
    rng = random.Random(SEED)
    pictures = np.stack([np.asarray(_random_picture(rng, 1)[0]) for _ in range(512)])
    latents = vae.encode(_as_input(pictures)).latent_dist.mean
    mean, scale = latents.mean((0, 2, 3)), 1 / (latents.std((0, 2, 3)) * base.SCALING)
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight /= scale[None, :, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) * scale
    quant.weight[:4] *= scale[:, None, None, None]
    quant.bias[4:] += 2 * scale.log()
    return vae


# --- the UNet and the text encoder -------------------------------------------------------------------------------


class NoiseLoss(nn.Module):
    """(loss, plain error) of predicting the noise, weighted as min-SNR with gamma 5 weighs a velocity (Hang et al., 2023).

    Plain noise loss hardly feels the noisiest steps, where it is decided which colour goes where: an error there counts
    200 times in the picture. Pictures came out all red or all yellow.
    """

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        signal = base.new_scheduler().alphas_cumprod
        self.register_buffer("signal", signal, persistent=False)

    def forward(self, latents: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        times = torch.randint(0, len(self.signal), (len(latents),), device=latents.device)
        signal = self.signal[times]
        noise = torch.randn_like(latents)
        root = signal[:, None, None, None]
        noisy = root.sqrt() * latents + (1 - root).sqrt() * noise
        predicted = self.unet(noisy, times, self.text_encoder(ids)[0]).sample
        errors = (predicted - noise).square().mean((1, 2, 3))
        ratio = signal / (1 - signal)
        return (errors * (ratio + 1).clamp(max=5) / ratio).mean(), errors.detach().mean()


def _train_unet(args: argparse.Namespace) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(SEED)
    base.write_tokenizer(args.work / "tokenizer")
    tokenizer = base.load_tokenizer(args.work / "tokenizer")
    unet = base.new_unet()
    unet.set_attn_processor(AttnProcessor())  # on CPUs a fifth faster than torch's own attention, whose heads are wider
    model = NoiseLoss(unet, base.new_text_encoder(tokenizer))
    from_base = args.base.joinpath("unet").is_dir() and not (args.work / "unet.pt").is_file()
    if from_base:
        _start_from(args.base, model)
    sitting = Sitting(model, args.work / "unet.pt", args)
    if from_base:
        sitting.count(json.loads((args.base / "made.json").read_text(encoding="utf-8"))["unet"])
    if sitting.accelerator.is_main_process and not (args.work / "pool.pt").is_file():
        _write_pool(args.work, args.base)
    sitting.accelerator.wait_for_everyone()
    pool = torch.load(args.work / "pool.pt", weights_only=False)
    sitting.run(_batches(pool, tokenizer, _seeded(sitting), args.batch))


def _start_from(folder: Path, model: NoiseLoss) -> None:
    """The weights in the repository, where a sitting's own checkpoint is gone."""
    from safetensors.torch import load_file

    print(f"going on from the weights in {folder}")
    model.unet.load_state_dict(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    model.text_encoder.load_state_dict(load_file(folder / "text_encoder" / "model.safetensors"), strict=False)


def _write_pool(work: Path, folder: Path) -> None:
    """Encoded pictures with what is in them; `POOL` of each kind."""
    pool = {}
    with ProcessPoolExecutor(initializer=_hold_vae, initargs=(work, folder), mp_context=get_context("spawn")) as artists:
        for count, size in POOL.items():
            numbers = range(size // _AT_ONCE)
            chunks = list(tqdm(artists.map(_draw_some, [count] * len(numbers), numbers), f"{count} in a picture", len(numbers)))
            pool[count] = torch.cat([latents for latents, _ in chunks]), [scene for _, scenes in chunks for scene in scenes]
    torch.save(pool, work / "pool.pt")


def _hold_vae(work: Path, folder: Path) -> None:
    global _vae
    torch.set_num_threads(1)
    _vae = _vae_of(work, folder)


def _draw_some(count: int, number: int) -> tuple[torch.Tensor, list[tuple]]:
    rng = random.Random(f"{SEED} {count} {number}")
    drawn = [_random_picture(rng, count) for _ in range(_AT_ONCE)]
    latents = _vae.encode(_as_input(np.stack([np.asarray(picture) for picture, _, _ in drawn]))).latent_dist.mean
    return (latents * base.SCALING).half(), [(figures, background) for _, figures, background in drawn]


def _batches(pool: dict, tokenizer: Any, rng: random.Random, factor: float) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        [count] = rng.choices(list(SHARE), list(SHARE.values()))
        latents, scenes = pool[count]
        chosen = rng.sample(range(len(scenes)), round(BATCH[count] * factor))
        captions = (_training_caption(*scenes[number], rng) for number in chosen)
        ids = [tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids for text in captions]
        yield latents[chosen].float(), torch.tensor(ids)


def _training_caption(figures: list[world.Figure], background: str, rng: random.Random) -> str:
    """The tags, not always all: what somebody does and where may be missing, alone also who it is. Somebody alone who
    has a name is mostly called by it instead."""
    if rng.random() < UNCONDITIONAL:
        return ""
    alone = len(figures) == 1
    name = _NAMES.get(figures[0].identity) if alone and rng.random() < 0.8 else None
    tags = ["1girl" if alone else f"{len(figures)}girls"]
    kept = 0.15 if name else 0.9 if alone else 1.0
    for figure in figures:
        tags += [tag for tag in figure.looks if rng.random() < kept]
        tags += [tag for tag in figure.doings if rng.random() > 0.15]
    tags += [background] if rng.random() > 0.15 else []
    return ", ".join([name, *tags] if name else tags)


# --- the result --------------------------------------------------------------------------------------------------


def _save(args: argparse.Namespace) -> None:
    tokenizer = base.load_tokenizer(args.work / "tokenizer")
    model = NoiseLoss(base.new_unet(), base.new_text_encoder(tokenizer))
    states = {part: args.work / f"{part}.pt" for part in ("vae", "unet")}
    states = {part: torch.load(path, map_location="cpu", weights_only=True) for part, path in states.items() if path.is_file()}
    model.load_state_dict(states["unet"]["average"])
    base.save(args.base, _vae_of(args.work, args.base), model.unet, model.text_encoder, tokenizer)
    path = args.base / "made.json"
    made = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made |= {part: {name: state.get(name) for name in MADE} for part, state in states.items()}
    path.write_text(json.dumps({"seed": SEED, **made}, indent=1), encoding="utf-8")
    if args.base == HERE / "base":
        base.write_sums()


if __name__ == "__main__":
    main()
