"""(seed, epoch, index) to a group: which characters meet in a composite, and in which of their images.

The one door to randomness: every draw that shapes a composite comes from `generator` or from `epoch_groups`.
No global random state is read or changed, so workers, ranks and resumed runs agree.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PANELS = 2


def _digest(*key: object) -> int:
    """128 bits from the key. Hashed, not added: upstream's `seed + epoch` gives seed 42's second epoch to seed 43."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


def generator(seed: int, epoch: int, index: int, purpose: str) -> random.Random:
    """A generator of its own for one purpose of one composite, so that one use never shifts another's draws."""
    return random.Random(_digest(seed, epoch, index, purpose))


@dataclass(frozen=True)
class Groups:
    """An epoch's groups. `characters` and `images` are (composites, panels) arrays of indices, left panel first;
    an image's index counts within its character."""

    characters: np.ndarray
    images: np.ndarray


def epoch_groups(counts: Sequence[int], weights: Sequence[int], composites: int, seed: int, epoch: int) -> Groups:
    """The groups of one epoch.

    `counts[c]` is how many images character c has, `weights[c]` its upstream `num_repeats`; an ordered pair (l, r)
    is worth `weights[l] * weights[r]`. Every ordered pair comes as often as its worth says, to within one; every
    image of a character equally often, to within one. Where all weights are equal, every character stands left equally
    often, and right, each to within one. Raises ValueError for fewer than two characters.

    The whole epoch at once, as a few bytes per composite: one vectorised pass is faster than any keyed permutation
    per index, and its size follows the images, never the pairs of images.
    """
    if len(counts) < PANELS:
        raise ValueError(f"{len(counts)} character(s): a composite needs {PANELS}")
    rng = np.random.Generator(np.random.PCG64(_digest(seed, epoch, "groups")))
    characters = _characters(np.asarray(weights, dtype=np.int64), composites, rng)
    characters = characters[rng.permutation(composites)]
    return Groups(characters, _images(characters, counts, rng))


def _characters(weights: np.ndarray, composites: int, rng: np.random.Generator) -> np.ndarray:
    """An epoch's ordered pairs, sorted: (composites, 2)."""
    weights = weights // np.gcd.reduce(weights)
    count = len(weights)
    found = _by_turns(count, composites, rng) if weights.max() == 1 else _by_worth(weights, composites, rng)
    return found[np.argsort(found[:, 0] * count + found[:, 1], kind="stable")].astype(np.int32)


def _by_turns(count: int, composites: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs of equal worth. They are taken in turns in which everybody meets the one who stands `shift` places further
    on a circle, so each turn has everybody left once and right once; only the last one may be cut short."""
    start, numbers = rng.integers(count * (count - 1)), np.arange(composites, dtype=np.int64)
    left = (start + numbers) % count
    shift = 1 + (start // count + numbers // count) % (count - 1)
    return np.stack([left, (left + shift) % count], axis=1)


def _by_worth(weights: np.ndarray, composites: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic sampling: evenly spaced points, shifted by a random offset, on the line on which each pair has a stretch
    as long as its worth. A stretch gets the same number of points everywhere, to within one."""
    total = int(weights.sum())
    per_left = weights * (total - weights)
    worth = int(per_left.sum())
    assert worth * max(composites, 1) < 2**63, "num_repeats too large to count with"
    points = (np.arange(composites, dtype=np.int64) * worth + rng.integers(worth)) // composites
    left_ends = np.cumsum(per_left)
    left = np.searchsorted(left_ends, points, side="right")
    # Within its left character's stretch a point falls on one of the others, in their order from that character on: so
    # that it is not the same few in all stretches where the points are further apart than pairs.
    inside = (points - (left_ends - per_left)[left]) // weights[left]
    right = np.searchsorted(np.cumsum(weights), (inside + np.cumsum(weights)[left]) % total, side="right")
    return np.stack([left, right], axis=1)


def _images(characters: np.ndarray, counts: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """An image for every panel: each character deals its shuffled images round by round, a new shuffle a round."""
    flat = characters.reshape(-1)
    images = np.empty(flat.shape, dtype=np.int32)
    # Panels in random order, so that left and right, and early and late composites, get every round's share.
    order = rng.permutation(len(flat))
    order = order[np.argsort(flat[order], kind="stable")]
    ends = np.cumsum(np.bincount(flat, minlength=len(counts)))
    for places, count in zip(np.split(order, ends[:-1]), counts, strict=True):
        rounds = np.tile(np.arange(count, dtype=np.int32), (-(-len(places) // count), 1))
        images[places] = rng.permuted(rounds, axis=1).reshape(-1)[: len(places)]
    return images.reshape(characters.shape)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch takes its `count` batches."""
    return generator(seed, epoch, 0, "order").sample(range(count), count)


def noise_seed(seed: int, epoch: int, index: int, rank: int) -> int:
    """What the trainer's generator starts from for batch `index` of an epoch, 63 bits: noise and timesteps do not
    depend on what was drawn before, so a resumed run draws what an undisturbed one does."""
    return generator(seed, epoch, index, f"noise {rank}").getrandbits(63)
