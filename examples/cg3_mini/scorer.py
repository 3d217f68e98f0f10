"""Says who stands in a picture of this world, each in their slot, and whether the background breaks between them.

Two small networks look at squares of 64 pixels: one at each slot, one at each boundary of two slots. Both learn from
drawings of the world that went through the VAE (train_scorer.py), so they know what its pictures look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import world
from torch import nn

SEEN = world.IDENTITY  # what is told of a figure
WEIGHTS = Path(__file__).with_name("scorer.safetensors")
KINDS = ("both", "clone", "blend", "missing")


class Network(nn.Sequential):
    """Pictures in -1..1, (n, 3, 64, 64), to `outputs` numbers each."""

    def __init__(self, outputs: int) -> None:
        widths = (3, 24, 48, 96, 128)
        blocks = []
        for before, after in pairwise(widths):
            blocks += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
            blocks += [nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*blocks, nn.Flatten(), nn.Linear(widths[-1] * 16, outputs))


@dataclass(frozen=True)
class Slot:
    """What stands in a slot: an identity (hair, cut, colour, outfit, accessory), or None where nobody does."""

    identity: tuple[str, ...] | None

    @property
    def name(self) -> str | None:
        """The named character that this is, every trait of it."""
        return next((name for name, traits in world.CHARACTERS.items() if traits == self.identity), None)


@dataclass(frozen=True)
class Judgement:
    """Who stands where, left to right, and at each boundary whether the background breaks there."""

    slots: tuple[Slot, ...]
    seams: tuple[bool, ...]

    def kind(self, asked: Sequence[str]) -> str:
        """Of KINDS. both: each asked character once, in any order. clone: one of them twice or more. blend: somebody
        with traits of two of them. missing: anything else."""
        names = [slot.name for slot in self.slots]
        if sorted(filter(None, names)) == sorted(asked) and len(names) == len(asked):
            return "both"
        if any(names.count(name) > 1 for name in asked):
            return "clone"
        if any(len(resembled(slot.identity, asked)) > 1 for slot in self.slots if slot.identity and slot.name is None):
            return "blend"
        return "missing"

    def in_order(self, asked: Sequence[str]) -> bool:
        return [slot.name for slot in self.slots] == list(asked)


def resembled(identity: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The asked characters of whom an identity has a trait at least."""

    def shares(name: str) -> bool:
        return any(mine == its != "" for mine, its in zip(identity, world.CHARACTERS[name], strict=True))

    return [name for name in asked if shares(name)]


class Scorer:
    """`scorer(pictures)` judges pictures in -1..1 of one size, (n, 3, 64, 64 k)."""

    def __init__(self, weights: Path = WEIGHTS) -> None:
        from safetensors.torch import load_file

        self.slots, self.seams = new_networks()
        networks = nn.ModuleDict({"slots": self.slots, "seams": self.seams})
        networks.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
        networks.requires_grad_(False).eval()

    def __call__(self, pictures: torch.Tensor) -> list[Judgement]:
        count = pictures.shape[-1] // world.SIDE
        there, *traits = (part.argmax(-1).tolist() for part in split(self.slots(squares(pictures))))
        found = [
            Slot(tuple(world.CHOICES[name][number] for name, number in zip(SEEN, numbers, strict=True)) if here else None)
            for here, *numbers in zip(there, *traits, strict=True)
        ]
        broken = (self.seams(squares(pictures, world.SIDE // 2))[:, 0] > 0).tolist() if count > 1 else []
        return [
            Judgement(tuple(found[n * count : (n + 1) * count]), tuple(broken[n * (count - 1) : (n + 1) * (count - 1)]))
            for n in range(len(pictures))
        ]


def new_networks() -> tuple[Network, Network]:
    return Network(sum(_sizes())), Network(1)


def _sizes() -> list[int]:
    """Of the slot network's outputs: whether somebody is there, then the traits."""
    return [2, *(len(world.CHOICES[name]) for name in SEEN)]


def split(outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return outputs.split(_sizes(), dim=1)


def squares(pictures: torch.Tensor, start: int = 0) -> torch.Tensor:
    """The squares of a picture from `start` pixels on, left to right: (n, 3, 64, 64 k) to (n k, 3, 64, 64), or k - 1."""
    count = (pictures.shape[-1] - start) // world.SIDE
    cut = pictures[..., start : start + count * world.SIDE]
    return cut.unflatten(-1, (count, world.SIDE)).permute(0, 3, 1, 2, 4).flatten(0, 1)
