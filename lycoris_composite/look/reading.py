"""A config's composites as training will see them, before there is a trainer: what preview and export read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lycoris_composite.composites.captions import Budget
from lycoris_composite.composites.plan import Plan
from lycoris_composite.config.datasets import without_skip
from lycoris_composite.config.options import KohyaSettings, check_kinds
from lycoris_composite.config.schedule import Cost, Schedule, composite_cost, single_cost
from lycoris_composite.config.settings import Settings
from lycoris_composite.config.stages import Stage, stages_of
from lycoris_composite.errors import UserError
from lycoris_composite.look.statistics import Sample, samples
from lycoris_composite.preflight.inputs import read_data
from lycoris_composite.preflight.refusals import Refusals
from lycoris_composite.randomness import epoch_order
from lycoris_composite.trainers.kohya import checkout

# What draws anew each time, and is left out of pictures.
_NOT_SHOWN = ("random_crop", "color_aug")


@dataclass(frozen=True)
class Reading:
    """A config's stages, the plans of its datasets, what counts captions' tokens, and what was left out of all that."""

    stages: tuple[Stage, Stage]
    plans: Sequence[Plan]
    costs: tuple[Cost, Cost]
    budget: Budget | None
    bad: Mapping[str, str]
    notes: Sequence[str]

    @property
    def schedule(self) -> Schedule:
        """That of stage 2."""
        return self.costs[1].schedule

    def samples(self, plan: Plan, epoch: int, batches: Iterable[int] | None = None) -> Iterator[Sample]:
        """An epoch's samples of a plan, batch by batch. The embedded trainer does not know `token_warmup_step`."""
        schedule = None if self.stages[1].trainer == "builtin" else self.schedule
        return samples(plan, epoch, schedule, self.budget, batches)

    def in_order(self, plan: Plan, epoch: int) -> Iterator[Sample]:
        """The same, in the order of training, which mixes the batches of all plans."""
        counts = [each.batches for each in self.plans]
        start = sum(counts[: self.plans.index(plan)])
        order = epoch_order(sum(counts), plan.seed, epoch)
        return self.samples(plan, epoch, [batch - start for batch in order if 0 <= batch - start < plan.batches])


def read(settings: Settings, is_cycling: bool = True) -> Reading:
    """Reads the data as training will, without the files that cannot be used. Where not `is_cycling`, no composite comes round
    again, as if nothing was encoded ahead. Raises UserError for data that no run takes."""
    try:
        upstream = None if settings.trainer == "builtin" else checkout.find()
    except UserError:
        upstream = None  # no sd-scripts yet
    if upstream is not None and not checkout.leaves_out_small_pictures(upstream):
        settings = without_skip(settings)
    first, second = stages_of(settings)
    for stage in (first, second):
        check_kinds(stage.settings, str(settings.path))
    by_separator = upstream is not None and checkout.joins_by_separator(upstream)
    data = read_data((first, second), second, Refusals(), lambda bad: None, by_separator=by_separator)
    plans = [second.trained(plan) if is_cycling else plan for plan in data.plans]
    costs = single_cost(first, data.singles), composite_cost(second, plans)
    budget, notes = _budget(second, upstream)
    notes += [*data.ignored, *_not_shown(second.settings)]
    return Reading((first, second), plans, costs, budget, data.bad, notes)


def _not_shown(settings: KohyaSettings) -> Iterator[str]:
    for key in filter(settings.get, _NOT_SHOWN):
        yield f"{key}: left out of these pictures, as it draws anew each time."
    if settings.validation_split and settings.validation_seed is None:
        yield "validation_split: without validation_seed sd-scripts draws others to hold out than are left out here."


def _budget(stage: Stage, sd_scripts: Path | None) -> tuple[Budget | None, list[str]]:
    """What counts captions' tokens; where it should but cannot, None and a line that says why."""
    try:
        from lycoris_composite.trainers.tokenizers import stage_budget

        return stage_budget(stage, sd_scripts), []
    except (UserError, ImportError) as error:
        return None, [f"tokens are not counted, and captions not cut: {error}"]
