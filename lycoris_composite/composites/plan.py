"""(epoch, index) to a composite: its characters, images, places and caption. Training and every preview ask this one plan."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

import numpy as np

from lycoris_composite.architectures import TAGS
from lycoris_composite.composites.captions import (
    NO_PROGRESS,
    WARMED_UP,
    Budget,
    CaptionParts,
    Progress,
    caption_parts,
    panel_caption,
)
from lycoris_composite.composites.groups import PANELS, Groups, epoch_groups
from lycoris_composite.composites.layouts import Box, composite_size, panel_boxes
from lycoris_composite.data.buckets import Canvas, Size, bucket_of
from lycoris_composite.data.characters import Character, TrainingImage
from lycoris_composite.errors import UserError
from lycoris_composite.randomness import generator


@dataclass(frozen=True)
class CompositeOptions:
    """What `[composite]` says about the composites themselves.

    `cycle_epochs` is for what is encoded ahead, whole pictures (`join = "pixel"` with cached latents) or captions: so many
    epochs are encoded, and come round again. More variety costs a pass of the encoder for each composite; two is the least
    at which consecutive epochs differ.
    """

    caption: str = TAGS
    composites_per_image: float = 1.0
    join: str = "latent"
    aspect: str = "natural"
    cycle_epochs: int = 2


@dataclass(frozen=True)
class Panel:
    """One image in a composite: its character, its place there in pixels, and whether it is mirrored."""

    character: Character
    image: TrainingImage
    caption: str
    box: Box
    flipped: bool

    @property
    def size(self) -> Size:
        """(width, height) in pixels."""
        return self.box.size


@dataclass(frozen=True)
class Composite:
    """One training sample: panels in the order of their captions, and what (epoch, index) it is."""

    epoch: int
    index: int
    panels: tuple[Panel, ...]

    @property
    def size(self) -> Size:
        return composite_size(self.boxes)

    @property
    def boxes(self) -> list[Box]:
        return [panel.box for panel in self.panels]


@dataclass(frozen=True)
class _Epoch:
    """An epoch's groups, and its batches: batch b holds the composites `order[starts[b]:starts[b + 1]]`."""

    groups: Groups
    order: np.ndarray
    starts: np.ndarray


class Plan:
    """All composites of a run. An epoch's groups are made on demand.

    An epoch has `composites` composites in `batches` batches, as many in every epoch: upstream's loader asks once. A batch
    has one composite size and at most `batch_size` composites. A composite has `panels` panels. `by_separator` is
    `caption_parts`'s.
    """

    def __init__(
        self,
        characters: Sequence[Character],
        canvas: Canvas,
        options: CompositeOptions,
        batch_size: int,
        seed: int,
        by_separator: bool = False,
        panels: int = PANELS,
    ) -> None:
        self.characters = tuple(characters)
        self.canvas = canvas
        self.options = options
        self.batch_size = batch_size
        self.seed = seed
        self.by_separator = by_separator
        self.panels = panels
        self._cycle_epochs: int | None = None
        self._has_fixed_captions = False
        shown = sum(c.subset.repeats * len(c.images) for c in characters)
        self.composites = max(1, round(options.composites_per_image * shown))
        # One flat list of images, each character's at its offset: groups stay plain integer arrays.
        self._offsets = np.cumsum([0, *(len(c.images) for c in characters)])
        buckets = [[bucket_of(image.size, canvas) for image in c.images] for c in characters]
        known = sorted(set().union(*buckets))
        numbers = {bucket: number for number, bucket in enumerate(known)}
        self._image_bucket = np.array([numbers[bucket] for theirs in buckets for bucket in theirs], np.int32)
        self._lay_out(known, [set(theirs) for theirs in buckets])
        most = (self.composites + len(self.sizes) * (batch_size - 1)) // batch_size
        self.batches = min(self.composites, most)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_epoch"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def batch(self, epoch: int, number: int) -> list[int]:
        """The indices of the composites in one batch of an epoch."""
        plan = self._epoch(self._picture_epoch(epoch))
        return plan.order[plan.starts[number] : plan.starts[number + 1]].tolist()

    def composite(self, epoch: int, index: int) -> Composite:
        """The composite at (epoch, index), epochs counted from 1."""
        epoch = self._picture_epoch(epoch)
        groups = self._epoch(epoch).groups
        who, which = groups.characters[index].tolist(), groups.images[index].tolist()
        buckets = tuple(int(self._image_bucket[self._offsets[c] + i]) for c, i in zip(who, which, strict=True))
        flips = self._flips(epoch, index, who)
        panels = []
        for c, i, box, flipped in zip(who, which, self._layouts[buckets], flips, strict=True):
            character = self.characters[c]
            panels.append(Panel(character, character.images[i], character.captions[i], box, flipped))
        return Composite(epoch, index, tuple(panels))

    def caption(self, composite: Composite, epoch: int, progress: Progress = NO_PROGRESS, budget: Budget | None = None) -> str:
        """The composite's caption in an epoch, which changes also where its picture comes round again."""
        parts = self.caption_parts(composite, epoch, progress, budget)
        return "" if parts is None else parts.text(self.options.caption)

    def caption_parts(
        self, composite: Composite, epoch: int, progress: Progress = NO_PROGRESS, budget: Budget | None = None
    ) -> CaptionParts | None:
        """What the caption is made of; None where it is dropped. Captions that come round again are those after a warm-up."""
        if self._has_fixed_captions:
            epoch, progress = composite.epoch, WARMED_UP
        panels = [
            panel_caption(panel.caption, panel.character.trigger, panel.character.subset.rules, panel.character.spellings)
            for panel in composite.panels
        ]
        rng = generator(self.seed, epoch, composite.index, "caption")
        return caption_parts(self.options.caption, panels, rng, epoch, progress, budget, self.by_separator)

    @property
    def sides(self) -> tuple[str, ...]:
        """What the panels' places are called."""
        return ("left", "right") if self.panels == 2 else tuple(f"place {number + 1}" for number in range(self.panels))

    def place_counts(self, epoch: int) -> np.ndarray:
        """(characters, panels): how often each character stands at each place in an epoch."""
        characters = self._epoch(self._picture_epoch(epoch)).groups.characters
        return np.stack([np.bincount(at, minlength=len(self.characters)) for at in characters.T], axis=1)

    def pair_counts(self, epoch: int) -> np.ndarray:
        """(characters, characters): in how many composites of an epoch each stands before (row) each (column)."""
        characters = self._epoch(self._picture_epoch(epoch)).groups.characters
        counts = np.zeros((len(self.characters),) * 2, np.int64)
        for before, after in combinations(range(self.panels), 2):
            np.add.at(counts, (characters[:, before], characters[:, after]), 1)
        return counts

    def panel_sizes(self, character: int, image: int) -> list[Size]:
        """Every size that an image can take in a composite, sorted."""
        return self._panel_sizes[self._image_bucket[self._offsets[character] + image]]

    def panels_apart(self) -> Iterator[Panel]:
        """Each image once for every size that it can take, not mirrored and at no place: what is encoded where latents
        are joined."""
        for number, character in enumerate(self.characters):
            for index, (image, caption) in enumerate(zip(character.images, character.captions, strict=True)):
                for size in self.panel_sizes(number, index):
                    yield Panel(character, image, caption, Box(0, 0, *size), False)

    def cycling(self, with_captions: bool = False) -> Plan:
        """The same plan, its pictures coming round again after `cycle_epochs`; captions only if they are to."""
        plan = copy.copy(self)
        plan._cycle_epochs = self.options.cycle_epochs
        plan._has_fixed_captions = with_captions or self._has_fixed_captions
        return plan

    def _picture_epoch(self, epoch: int) -> int:
        epoch = max(epoch, 1)
        return epoch if self._cycle_epochs is None else (epoch - 1) % self._cycle_epochs + 1

    def _flips(self, epoch: int, index: int, who: Sequence[int]) -> list[bool]:
        flippable = [self.characters[c].subset.flip_aug for c in who]
        if not any(flippable):
            return [False] * len(who)
        rng = generator(self.seed, epoch, index, "flip")
        return [rng.random() < 0.5 and can for can in flippable]

    def _lay_out(self, buckets: Sequence[Size], owned: Sequence[Collection[Size]]) -> None:
        """The panels' places for every tuple of buckets that different characters can bring; `owned` holds each character's.
        A table gives the number of a composite's size by its panels' buckets, and -1 for those that never meet."""
        owners = [{number for number, theirs in enumerate(owned) if bucket in theirs} for bucket in buckets]
        panel_sizes: list[set[Size]] = [set() for _ in buckets]
        self._layouts: dict[tuple[int, ...], tuple[Box, ...]] = {}
        for numbers in product(range(len(buckets)), repeat=self.panels):
            if not _can_differ([owners[number] for number in numbers]):
                continue
            try:
                boxes = panel_boxes([buckets[number] for number in numbers], self.canvas)
            except ValueError as error:
                raise UserError(f"resolution {error}; raise it in [composite.stage2], or lower bucket_reso_steps.") from error
            self._layouts[numbers] = boxes
            for number, box in zip(numbers, boxes, strict=True):
                panel_sizes[number].add(box.size)
        self._panel_sizes = [sorted(sizes) for sizes in panel_sizes]
        self.sizes = tuple(sorted(set(map(composite_size, self._layouts.values()))))
        self._size_table = np.full((len(buckets),) * self.panels, -1, np.int32)
        for numbers, boxes in self._layouts.items():
            self._size_table[numbers] = self.sizes.index(composite_size(boxes))

    def _make_epoch(self, epoch: int) -> _Epoch:
        counts = [len(c.images) for c in self.characters]
        weights = [c.subset.repeats for c in self.characters]
        groups = epoch_groups(counts, weights, self.composites, self.seed, epoch, self.panels)
        buckets = self._image_bucket[self._offsets[groups.characters] + groups.images]
        sizes = self._size_table[tuple(buckets.T)]
        order = np.argsort(sizes, kind="stable").astype(np.int32)
        per_size = np.bincount(sizes, minlength=len(self.sizes))
        return _Epoch(groups, order, _batch_starts(per_size, self.batch_size, self.batches))


def _can_differ(owners: Sequence[set[int]]) -> bool:
    """Whether each set can give an element of its own: Hall's condition."""
    counts = range(1, len(owners) + 1)
    return all(len(set().union(*some)) >= count for count in counts for some in combinations(owners, count))


def _batch_starts(per_size: np.ndarray, batch_size: int, batches: int) -> np.ndarray:
    """Where each batch starts, and the end: sizes never mix. Epochs differ in how many composites each size has, so
    full batches are halved until there are `batches`, which is at least what any epoch needs."""
    lengths = [min(batch_size, count - start) for count in per_size.tolist() for start in range(0, count, batch_size)]
    while len(lengths) < batches:
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        half = lengths[longest] // 2
        lengths[longest : longest + 1] = [half, lengths[longest] - half]
    return np.cumsum([0, *lengths])
