"""What a stage costs: pictures through the VAE, batches, steps. Counted as upstream counts, before it is there to ask."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lycoris_composite.composites.captions import Progress
from lycoris_composite.composites.plan import Plan
from lycoris_composite.config.datasets import Dataset
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.stages import Stage
from lycoris_composite.data.buckets import Size, bucket_of


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


def schedule_of(settings: KohyaSettings, batches: int) -> Schedule:
    """`max_train_epochs` wins over `max_train_steps`; a step takes `gradient_accumulation_steps` batches."""
    steps_an_epoch = max(1, math.ceil(batches / settings.gradient_accumulation_steps))
    epochs, steps = settings.max_train_epochs, settings.max_train_steps
    if epochs is not None:
        return Schedule(batches, steps_an_epoch, epochs, epochs * steps_an_epoch)
    return Schedule(batches, steps_an_epoch, math.ceil(steps / steps_an_epoch), steps)


def single_cost(stage: Stage, datasets: Sequence[Dataset]) -> Cost:
    """The cost of single images, each in its bucket: `datasets` as the stage sees them, their subsets read."""
    samples = batches = encoded = 0
    for dataset in datasets:
        counts: Counter[Size] = Counter()
        for subset in dataset.subsets:
            for image in subset.images:
                counts[bucket_of(image.size, dataset.canvas)] += subset.repeats
                encoded += 1 + subset.flip_aug
        samples += counts.total()
        batches += sum(math.ceil(count / dataset.batch_size) for count in counts.values())
    return _cost(stage, samples, batches, encoded)


def composite_cost(stage: Stage, plans: Sequence[Plan]) -> Cost:
    """The cost of composites. Each image is encoded once for each size that its panel can have, or each composite of the
    epochs that a cache of pictures holds."""
    encoded = 0
    for plan in plans:
        if plan.options.join == "pixel":
            encoded += plan.options.cycle_epochs * plan.composites
        else:
            encoded += sum(1 + panel.character.subset.flip_aug for panel in plan.panels_apart())
    apart = max(plan.panels if plan.options.join == "latent" else 1 for plan in plans)
    return _cost(stage, sum(plan.composites for plan in plans), sum(plan.batches for plan in plans), encoded, apart)


def _cost(stage: Stage, samples: int, batches: int, encoded: int, pictures: int = 1) -> Cost:
    """`pictures` are encoded for each sample where no latents are cached."""
    schedule = schedule_of(stage.settings, batches)
    if stage.caches_latents:
        return Cost(schedule, samples, encoded, 0)
    return Cost(schedule, samples, 0, samples * pictures / schedule.steps_an_epoch)
