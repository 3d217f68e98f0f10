"""(seed, epoch) to an epoch's groups: who stands at which place in each composite, and in which image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lycoris_composite.randomness import key_digest

PANELS = 2


@dataclass(frozen=True)
class Groups:
    """An epoch's groups. `characters` and `images` are (composites, panels) arrays of indices; with two panels
    the first column stands left, the second right. An image's index counts within its character."""

    characters: np.ndarray
    images: np.ndarray


def epoch_groups(
    counts: Sequence[int], weights: Sequence[int], composites: int, seed: int, epoch: int, panels: int = PANELS
) -> Groups:
    """The groups of one epoch: ordered tuples of `panels` different characters, and an image for each.

    `counts[c]` is how many images character c has, `weights[c]` its upstream `num_repeats`. A tuple's weight is the product
    of its characters' weights. To within one, a tuple comes as often as its weight says, a character's images come equally
    often, and with equal weights each character stands at each place equally often. Raises ValueError for fewer characters
    than panels.

    >>> epoch_groups([2, 2, 2], [1, 1, 1], 6, seed=42, epoch=1).characters.tolist()  # each ordered pair once
    [[2, 1], [0, 2], [1, 0], [0, 1], [1, 2], [2, 0]]

    The whole epoch is made at once: that takes a few bytes per composite and less time than a keyed permutation per index.
    """
    if len(counts) < panels:
        raise ValueError(f"{len(counts)} character(s): a composite needs {panels}")
    rng = np.random.Generator(np.random.PCG64(key_digest(seed, epoch, "groups")))
    characters = _characters(np.asarray(weights, dtype=np.int64), composites, panels, rng)
    characters = characters[rng.permutation(composites)]
    return Groups(characters, _images(characters, counts, rng))


def _characters(weights: np.ndarray, composites: int, panels: int, rng: np.random.Generator) -> np.ndarray:
    """An epoch's tuples, sorted: (composites, panels)."""
    weights = weights // np.gcd.reduce(weights)
    if weights.max() == 1:
        tuples = _round_robin(len(weights), composites, panels, rng)
    else:
        tuples = _systematic_sample(weights, composites, panels, rng)
    return tuples[np.lexsort(tuples.T[::-1])].astype(np.int32)


def _round_robin(count: int, composites: int, panels: int, rng: np.random.Generator) -> np.ndarray:
    """Tuples of equal weight. In a round, each character c stands first once, and the panels after it show c + shift, modulo
    `count`, by the round's own shifts. So a round has every character once at each place; the last round may be cut short."""
    rounds = math.perm(count - 1, panels - 1)
    start, numbers = rng.integers(count * rounds), np.arange(composites, dtype=np.int64)
    rest = (start // count + numbers // count) % rounds
    shifts = np.zeros((composites, 1), np.int64)
    for panel in range(1, panels):
        rest, shift = np.divmod(rest, count - panel)
        for taken in np.sort(shifts, axis=1).T:  # the shift-th of those that no panel before has
            shift += shift >= taken
        shifts = np.column_stack([shifts, shift])
    return ((start + numbers)[:, None] + shifts) % count


def _systematic_sample(weights: np.ndarray, composites: int, panels: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic sampling: evenly spaced points with one random offset, on a line on which each tuple has a segment as long
    as its weight. So each segment gets the number of points that its length says, to within one."""
    total = int((weights * _weight_without(weights, panels - 1)).sum())
    assert total * max(composites, 1) < 2**63, "num_repeats too large to count with"
    points = (np.arange(composites, dtype=np.int64) * total + rng.integers(total)) // composites
    return _tuples_at(points, weights, panels)


def _tuples_at(points: np.ndarray, weights: np.ndarray, panels: int) -> np.ndarray:
    """The tuples in whose segments the ascending points fall: (points, panels). Tuples with one first character lie
    together."""
    lengths = weights * _weight_without(weights, panels - 1)
    ends = np.cumsum(lengths)
    first = np.searchsorted(ends, points, side="right")
    tuples = np.empty((len(points), panels), np.int64)
    tuples[:, 0] = first
    if panels > 1:
        inside = (points - (ends - lengths)[first]) // weights[first]
        starts = np.searchsorted(first, np.arange(len(weights) + 1)).tolist()  # points ascend, so `first` does
        for character, (start, stop) in enumerate(pairwise(starts)):
            # The others in their order from that character on: where points are further apart than tuples, it is not the
            # same few that all first characters meet.
            others = np.roll(np.arange(len(weights)), -character - 1)[:-1]
            tuples[start:stop, 1:] = others[_tuples_at(inside[start:stop], weights[others], panels - 1)]
    return tuples


def _weight_without(weights: np.ndarray, panels: int) -> np.ndarray:
    """For each character the summed weight of all tuples of so many others."""
    summed = np.ones_like(weights)
    for count in range(1, panels + 1):
        summed = (weights * summed).sum() - count * weights * summed  # of all tuples, less those that have the character
    return summed


def _images(characters: np.ndarray, counts: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """An image for every panel: each character deals its shuffled images round by round, a new shuffle a round."""
    flat = characters.reshape(-1)
    images = np.empty(flat.shape, dtype=np.int32)
    # Panels in random order, so that left and right, and early and late composites, get every round's share.
    order = rng.permutation(len(flat))
    order = order[np.argsort(flat[order], kind="stable")]
    ends = np.cumsum(np.bincount(flat, minlength=len(counts)))
    for places, count in zip(np.split(order, ends[:-1]), counts, strict=True):
        rounds = np.tile(np.arange(count, dtype=np.int32), (math.ceil(len(places) / count), 1))
        images[places] = rng.permuted(rounds, axis=1).reshape(-1)[: len(places)]
    return images.reshape(characters.shape)
