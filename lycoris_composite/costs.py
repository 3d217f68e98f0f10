"""What a stage costs: pictures through the VAE, batches, steps. Counted as upstream counts, before it is there to ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lycoris_composite.captions import Progress
from lycoris_composite.layout import bucket_of
from lycoris_composite.plan import CACHED_PIXEL_EPOCHS, Plan
from lycoris_composite.stages import Stage
from lycoris_composite.subsets import Dataset

_DEFAULT_STEPS = 1600  # upstream's max_train_steps


@dataclass(frozen=True)
class Schedule:
    """One process's way through a stage: an epoch's batches and steps, and how many epochs and steps there are."""

    batches: int
    steps_an_epoch: int
    epochs: int
    steps: int

    def progress(self, epoch: int, batch: int, batches: int) -> Progress:
        """The step that takes a batch of a dataset that has so many, as if an epoch took its batches in order."""
        return Progress((epoch - 1) * self.steps_an_epoch + batch * self.steps_an_epoch // batches, self.steps)


@dataclass(frozen=True)
class Cost:
    """A stage's cost. `encoded` counts pictures through the VAE before training, `encoded_a_step` those of each step
    where no latents are cached (on average)."""

    schedule: Schedule
    samples: int
    encoded: int
    encoded_a_step: float


def schedule_of(settings: Mapping[str, Any], batches: int) -> Schedule:
    """`max_train_epochs` wins over `max_train_steps`; a step takes `gradient_accumulation_steps` batches."""
    steps_an_epoch = max(1, -(-batches // (settings.get("gradient_accumulation_steps") or 1)))
    epochs, steps = settings.get("max_train_epochs"), settings.get("max_train_steps") or _DEFAULT_STEPS
    if epochs:
        return Schedule(batches, steps_an_epoch, epochs, epochs * steps_an_epoch)
    return Schedule(batches, steps_an_epoch, -(-steps // steps_an_epoch), steps)


def single_cost(stage: Stage, datasets: Sequence[Dataset]) -> Cost:
    """Of single images: `datasets` as the stage sees them, their subsets read."""
    batches = samples = encoded = 0
    for dataset in datasets:
        buckets: Counter[tuple[int, int]] = Counter()
        for subset in dataset.subsets:
            encoded += len(subset.images) * (2 if subset.flip_aug else 1)
            for image in subset.images:
                buckets[bucket_of(image.size, dataset.canvas)] += subset.repeats
        samples += buckets.total()
        batches += sum(-(-count // dataset.batch_size) for count in buckets.values())
    return _cost(stage, batches, samples, encoded)


def composite_cost(stage: Stage, plans: Sequence[Plan]) -> Cost:
    """Of composites. Each image is encoded once for each size that its panel can have, or each composite of the epochs
    that a cache of pictures holds."""
    samples = sum(plan.composites for plan in plans)
    if stage.composite is not None and stage.composite.join == "pixel":
        encoded = CACHED_PIXEL_EPOCHS * samples
    else:
        encoded = sum(
            len(plan.panel_sizes(number, place)) * (2 if character.subset.flip_aug else 1)
            for plan in plans
            for number, character in enumerate(plan.characters)
            for place in range(len(character.images))
        )
    return _cost(stage, sum(plan.batches for plan in plans), samples, encoded)


def _cost(stage: Stage, batches: int, samples: int, encoded: int) -> Cost:
    schedule = schedule_of(stage.settings, batches)
    if stage.settings.get("cache_latents") or stage.settings.get("cache_latents_to_disk"):
        return Cost(schedule, samples, encoded, 0)
    panels = 2 if stage.composite is not None and stage.composite.join == "latent" else 1
    return Cost(schedule, samples, 0, samples * panels / schedule.steps_an_epoch)
