"""Trains the scorer on drawings that went through the VAE, and checks it on others whose truth is known.

    python train_scorer.py --vae base/vae          # scorer.safetensors, then the check
    python train_scorer.py --vae base/vae --check  # the check alone

It never sees the backgrounds and the pose in HELD_OUT; the check shows nothing else. So that it takes no wall for a seam,
a third of its lessons have a backdrop that the world does not know: blocks, bars and bands of any colours.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import base
import numpy as np
import scorer
import torch
import world
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch.nn import functional

SEED = 7
HELD_OUT = {"backgrounds": ("city", "aqua background", "meadow"), "poses": ("waving",)}
_KNOWN = {
    "backgrounds": tuple(name for name in world.BACKGROUNDS if name not in HELD_OUT["backgrounds"]),
    "poses": tuple(name for name in world.POSES if name not in HELD_OUT["poses"]),
}
POOL, EPOCHS, BATCH = 6_000, 6, 64
STRANGE = 1 / 3  # of the panels it learns from have a backdrop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True, metavar="DIR", help="the base model's vae/ folder")
    parser.add_argument("--check", action="store_true", help="only check the weights that are there")
    parser.add_argument("--count", type=int, default=1000, help="checked pictures of each kind (default: %(default)s)")
    args = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(args.vae).float().requires_grad_(False).eval()
    if not args.check:
        _train(vae)
    for kind, right in check(vae, args.count).items():
        print(f"{kind:>10}: {right:.1%} of {args.count} right")


# --- drawings whose truth is known -------------------------------------------------------------------------------


class Drawer:
    """Pairs of this world as the VAE shows them, from the backgrounds and poses it is given."""

    def __init__(
        self, vae: Any, rng: random.Random, backgrounds: Sequence[str], poses: Sequence[str], strange: float = 0
    ) -> None:
        """`strange` is how often a backdrop stands in for the backgrounds."""
        self.rng = rng
        self._vae, self._backgrounds, self._poses, self._strange = vae, backgrounds, poses, strange

    def named(self, name: str) -> world.Figure:
        return replace(world.character(name, self.rng), pose=self.rng.choice(self._poses))

    def stranger(self) -> world.Figure:
        return replace(world.random_figure(self.rng), pose=self.rng.choice(self._poses))

    def blend(self, names: Sequence[str]) -> world.Figure:
        """Somebody with traits of both: neither all of one nor only what both lack."""
        while True:
            traits = tuple(self.rng.choice(pair) for pair in zip(*(world.CHARACTERS[name] for name in names), strict=True))
            if len(scorer.resembled(traits, names)) == len(names):
                return replace(self.stranger(), **dict(zip(world.IDENTITY, traits, strict=True)))

    def natural(self, figures: Sequence[world.Figure | None]) -> torch.Tensor:
        """In front of one background."""
        return self._through_vae([self._draw(figures, self.rng.choice(self._backgrounds))])

    def composite(self, figures: Sequence[world.Figure | None]) -> torch.Tensor:
        """Panels with a background each, no two the same, their latents joined."""
        backgrounds = self.rng.sample(self._backgrounds, len(figures))
        panels = zip(figures, backgrounds, strict=True)
        return self._through_vae([self._draw([figure], background) for figure, background in panels])

    def _draw(self, figures: Sequence[world.Figure | None], background: str) -> Image.Image:
        if self.rng.random() >= self._strange:
            return world.draw(figures, background, self.rng)
        canvas = world.new_canvas(len(figures))
        _draw_backdrop(canvas, self.rng)
        return world.stand(figures, canvas, self.rng)

    def _through_vae(self, panels: Sequence[Any]) -> torch.Tensor:
        """(3, height, width) in -1..1."""
        arrays = [torch.from_numpy(np.array(panel)).permute(2, 0, 1).float() / 127.5 - 1 for panel in panels]
        latents = torch.cat([self._vae.encode(array[None]).latent_dist.mean for array in arrays], dim=-1)
        return self._vae.decode(latents).sample[0].clamp(-1, 1)


def _draw_backdrop(canvas: Image.Image, rng: random.Random) -> None:
    """Above, what stands there, below. The first and the last go on from edge to edge: a seam cuts them too."""
    pen, side = ImageDraw.Draw(canvas), canvas.height
    top, ground = rng.choice((0, rng.uniform(0.05, 0.5))), rng.uniform(0.7, 0.95)
    pen.rectangle((0, 0, canvas.width, side), fill=_any_colour(rng))
    like, spread = _any_colour(rng), rng.choice((0, 15, 60))
    left, gaps = -rng.uniform(0, 0.3) * side, rng.random() < 0.5
    while left < canvas.width:
        width = rng.uniform(0.06, 0.5) * side
        height = top + rng.uniform(0, 0.4) * (rng.random() < 0.7)
        fill = tuple(max(0, min(255, channel + rng.randint(-spread, spread))) for channel in like)
        pen.rectangle((left, height * side, left + width, side), fill=fill)
        left += width + gaps * rng.uniform(0, 0.3) * side
    pen.rectangle((0, ground * side, canvas.width, side), fill=_any_colour(rng))


def _any_colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(20, 255), rng.randint(20, 255), rng.randint(20, 255)


def kinds(drawer: Drawer, asked: tuple[str, str]) -> dict[str, Callable[[], torch.Tensor]]:
    """A way to draw each kind of picture that a prompt for two characters can give."""
    left, right = asked
    rng = drawer.rng

    def shuffled(*figures: world.Figure | None) -> list[world.Figure | None]:
        return rng.sample(figures, len(figures))

    def lost() -> world.Figure | None:
        return None if rng.random() < 0.5 else _unlike(drawer.stranger, asked)

    return {
        "both": lambda: drawer.natural(shuffled(drawer.named(left), drawer.named(right))),
        "clone": lambda: drawer.natural([drawer.named(name) for name in [rng.choice(asked)] * 2]),
        "blend": lambda: drawer.natural(shuffled(drawer.named(rng.choice(asked)), drawer.blend(asked))),
        "missing": lambda: drawer.natural(shuffled(drawer.named(rng.choice(asked)), lost())),
        "seam": lambda: drawer.composite(shuffled(drawer.named(left), drawer.named(right))),
    }


def _unlike(stranger: Callable[[], world.Figure], asked: Sequence[str]) -> world.Figure:
    """Somebody who is no blend of the asked."""
    while True:
        figure = stranger()
        if len(scorer.resembled(figure.identity, asked)) < 2:
            return figure


def check(vae: Any, count: int) -> dict[str, float]:
    """The share of pictures of each kind that the scorer names right: their kind, and for seams and unbroken
    backgrounds the boundary."""
    judge = scorer.Scorer()
    drawer = Drawer(vae, random.Random(SEED + 1), **HELD_OUT)
    pairs = [(a, b) for a in world.CHARACTERS for b in world.CHARACTERS if a != b]
    right = dict.fromkeys((*scorer.KINDS, "seam", "no seam"), 0)
    for number in range(count):
        asked = pairs[number % len(pairs)]
        for kind, make in kinds(drawer, asked).items():
            [found] = judge(make()[None])
            right["seam" if kind == "seam" else kind] += found.seams[0] if kind == "seam" else found.kind(asked) == kind
            right["no seam"] += kind == "both" and not found.seams[0]
    return {kind: number / count for kind, number in right.items()}


# --- training ----------------------------------------------------------------------------------------------------


def _train(vae: Any) -> None:
    torch.manual_seed(SEED)
    drawer = Drawer(vae, random.Random(SEED), **_KNOWN, strange=STRANGE)
    slots, truths, boundaries, broken = _pool(drawer)
    networks = torch.nn.ModuleDict(dict(zip(("slots", "seams"), scorer.new_networks(), strict=True)))
    _fit(networks["slots"], slots, truths, _slot_loss)
    _fit(networks["seams"], boundaries, broken, _seam_loss)
    weights = {name: value.half() if value.is_floating_point() else value for name, value in networks.state_dict().items()}
    save_file(weights, scorer.WEIGHTS)
    base.write_sums()


def _pool(drawer: Drawer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Squares at slots with (somebody there, traits' numbers), squares at boundaries with whether they break."""
    slots, truths, boundaries, broken = [], [], [], []
    for number in range(POOL):
        figures = [_anybody(drawer) for _ in range(2)]
        joined = drawer.rng.random() < 0.35
        picture = (drawer.composite if joined else drawer.natural)(figures)[None]
        slots.append(scorer.squares(picture))
        truths += [_truth(figure) for figure in figures]
        boundaries.append(scorer.squares(picture, world.SIDE // 2))
        broken.append(float(joined))
        if drawer.rng.random() < 0.1:  # two halves are nobody
            slots.append(boundaries[-1])
            truths.append(_truth(None))
        if number % 1000 == 0:
            print(f"{number:,} of {POOL:,} pairs drawn", flush=True)
    return torch.cat(slots), torch.tensor(truths), torch.cat(boundaries), torch.tensor(broken)


def _anybody(drawer: Drawer) -> world.Figure | None:
    """Mostly strangers; named characters too, and those who differ from one in a trait."""
    draw = drawer.rng.random()
    if draw < 0.08:
        return None
    if draw < 0.6:
        return drawer.stranger()
    figure = drawer.named(drawer.rng.choice(list(world.CHARACTERS)))
    if draw > 0.8:
        trait = drawer.rng.choice(world.IDENTITY)
        figure = replace(figure, **{trait: drawer.rng.choice(world.CHOICES[trait])})
    return figure


def _truth(figure: world.Figure | None) -> list[int]:
    if figure is None:
        return [0] * (1 + len(world.IDENTITY))
    return [1, *(world.CHOICES[name].index(getattr(figure, name)) for name in world.IDENTITY)]


def _fit(network: torch.nn.Module, squares: torch.Tensor, truths: torch.Tensor, loss_of: Callable) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.01)
    steps = EPOCHS * len(squares) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    network.train()
    for step in range(steps):
        chosen = torch.randint(len(squares), (BATCH,))
        loss = loss_of(network(_varied(squares[chosen])), truths[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step:,} of {steps:,}, loss {loss.item():.4f}", flush=True)


def _slot_loss(outputs: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    there, *traits = scorer.split(outputs)
    loss = functional.cross_entropy(there, truths[:, 0])
    somebody = truths[:, 0] == 1
    for part, truth in zip(traits, truths.T[1:], strict=True):
        loss = loss + functional.cross_entropy(part[somebody], truth[somebody])
    return loss


def _seam_loss(outputs: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], truths)


def _varied(squares: torch.Tensor) -> torch.Tensor:
    """Generated pictures are noisier, duller and less well placed than drawn ones."""
    count = len(squares)
    shift = torch.randint(-2, 3, (2,)).tolist()
    gain, offset = 1 + 0.1 * torch.randn(count, 1, 1, 1), 0.05 * torch.randn(count, 3, 1, 1)
    noise = torch.rand(count, 1, 1, 1) * 0.1 * torch.randn_like(squares)
    return torch.roll(squares, shift, (2, 3)) * gain + offset + noise


if __name__ == "__main__":
    main()
