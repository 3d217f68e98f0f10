"""A stage's images and captions to batches of latents and token ids, for the embedded trainer."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from lycoris_composite.composites.captions import Budget, PanelCaption, single_caption
from lycoris_composite.composites.join import join_panels
from lycoris_composite.composites.layouts import Box
from lycoris_composite.composites.plan import Composite, Plan
from lycoris_composite.data import images
from lycoris_composite.data.buckets import Canvas, Size, bucket_of
from lycoris_composite.data.characters import Subset
from lycoris_composite.randomness import epoch_order, generator


@dataclass(frozen=True, order=True)
class StagePanel:
    """An image at the size that training sees; a single image is one panel."""

    size: Size
    path: str
    flipped: bool


@dataclass(frozen=True)
class StageSample:
    """What a batch holds one of: panels, their places, and the caption."""

    panels: Sequence[StagePanel]
    boxes: Sequence[Box]
    caption: str


class Singles:
    """Single images in upstream's buckets, in batches of one size, mixed anew every epoch."""

    def __init__(self, subsets: Sequence[Subset], canvas: Canvas, batch_size: int, seed: int) -> None:
        self._items = [(s, i) for s in subsets for i in s.images for _ in range(s.repeats)]
        self._sizes = [bucket_of(image.size, canvas) for _, image in self._items]
        self._batch_size, self._seed = batch_size, seed
        self.batches = sum(math.ceil(count / batch_size) for count in Counter(self._sizes).values())

    def panels(self) -> set[StagePanel]:
        items = zip(self._items, self._sizes, strict=True)
        return {StagePanel(size, image.path, flip) for (subset, image), size in items for flip in {False, subset.flip_aug}}

    def batch(self, epoch: int, number: int) -> list[StageSample]:
        rng = generator(self._seed, epoch, number, "single")
        return [self._sample(item, rng, epoch) for item in self._epoch(epoch)[number]]

    def _sample(self, item: int, rng: random.Random, epoch: int) -> StageSample:
        subset, image = self._items[item]
        flipped = subset.flip_aug and rng.random() < 0.5
        caption = PanelCaption(image.caption or subset.class_tokens or "", "", subset.rules)
        panel = StagePanel(self._sizes[item], image.path, flipped)
        return StageSample([panel], [Box(0, 0, *panel.size)], single_caption(caption, rng, epoch))

    def _epoch(self, epoch: int) -> list[list[int]]:
        rng = generator(self._seed, epoch, 0, "single order")
        batches = []
        for size in sorted(set(self._sizes)):
            items = [item for item, item_size in enumerate(self._sizes) if item_size == size]
            rng.shuffle(items)
            batches += [items[start : start + self._batch_size] for start in range(0, len(items), self._batch_size)]
        return batches


class Composites:
    """The plan's composites."""

    def __init__(self, plan: Plan, budget: Budget) -> None:
        self._plan, self._budget = plan, budget
        self.batches = plan.batches

    def panels(self) -> set[StagePanel]:
        panels = [(panel, panel.character.subset.flip_aug) for panel in self._plan.panels_apart()]
        return {StagePanel(panel.size, panel.image.path, flip) for panel, flip_aug in panels for flip in {False, flip_aug}}

    def batch(self, epoch: int, number: int) -> list[StageSample]:
        composites = [self._plan.composite(epoch, index) for index in self._plan.batch(epoch, number)]
        return [self._sample(composite, epoch) for composite in composites]

    def _sample(self, composite: Composite, epoch: int) -> StageSample:
        panels = [StagePanel(panel.size, panel.image.path, panel.flipped) for panel in composite.panels]
        return StageSample(panels, composite.boxes, self._plan.caption(composite, epoch, budget=self._budget))


class Batches(Dataset):
    """Batches as the loop takes them: latents (B, 4, h, w), token ids (B, chunks, 77), captions. Those of several
    datasets follow one another, as in upstream's DatasetGroup."""

    def __init__(
        self,
        sources: Sequence[Singles | Composites],
        latents: Mapping[StagePanel, torch.Tensor],
        ids: Callable[[Sequence[str]], torch.Tensor],
    ) -> None:
        self._numbers = [(source, number) for source in sources for number in range(source.batches)]
        self._latents, self._ids = latents, ids
        self.epoch = torch.ones((), dtype=torch.int64).share_memory_()  # which persistent workers see change

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, number = self._numbers[index]
        samples = source.batch(int(self.epoch), number)
        joined = [join_panels([self._latents[panel] for panel in sample.panels], sample.boxes) for sample in samples]
        captions = [sample.caption for sample in samples]
        return {"latents": torch.stack(joined), "input_ids": self._ids(captions), "captions": captions}


class EpochOrder(Sampler):
    """The batches in the order of their epoch."""

    def __init__(self, batches: Batches, seed: int) -> None:
        self._batches, self._seed = batches, seed

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(len(self), self._seed, int(self._batches.epoch)))


def encoded(panels: Sequence[StagePanel], vae: AutoencoderKL, device: torch.device) -> dict[StagePanel, torch.Tensor]:
    """Each panel's latents, unscaled as upstream caches them."""
    latents = {}
    for panel in tqdm(panels, desc="caching latents"):
        picture = torch.from_numpy(images.panel_picture(panel.path, panel.size, panel.flipped))
        picture = picture.permute(2, 0, 1)[None].to(device, vae.dtype) / 127.5 - 1
        latents[panel] = vae.encode(picture).latent_dist.sample()[0].float().cpu()
    return latents
