"""A plan to what a user should know of it before training: its samples with their captions, and what looks wrong."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lycoris_composite.composites.captions import Budget, CaptionParts, Progress, holds_captions
from lycoris_composite.composites.plan import Composite, Plan
from lycoris_composite.config.schedule import Schedule
from lycoris_composite.data.buckets import Size
from lycoris_composite.data.characters import Character
from lycoris_composite.data.images import covering_size

_MOST_LISTED = 8
_FEW = 1 / 3  # of the images that another character has
_CROPPED = 1 / 3  # of an image
_SEEN_OFTEN = 4  # times that a tag must be seen before it is called one-sided
_CHANCE = 0.05  # that any tag is seen on one side alone by chance, where only a part of training is looked at


@dataclass(frozen=True)
class Sample:
    """A composite as it is trained on. `parts` is None where its caption is dropped, `tokens` where nothing counts them."""

    composite: Composite
    epoch: int
    parts: CaptionParts | None
    spans: Sequence[tuple[str, str]]
    tokens: int | None

    @property
    def caption(self) -> str:
        return "".join(text for _, text in self.spans)


def samples(
    plan: Plan, epoch: int, schedule: Schedule | None, budget: Budget | None, batches: Iterable[int] | None = None
) -> Iterator[Sample]:
    """The samples of an epoch, or of these batches of it. Without a `schedule` there is no `token_warmup_step`."""
    for batch in range(plan.batches) if batches is None else batches:
        progress = Progress() if schedule is None else schedule.progress(epoch, batch, plan.batches)
        for index in plan.batch(epoch, batch):
            composite = plan.composite(epoch, index)
            parts = plan.caption_parts(composite, epoch, progress, budget)
            spans = parts.spans(plan.options.caption) if parts else []
            tokens = budget.count("".join(text for _, text in spans)) if budget and parts else None
            yield Sample(composite, epoch, parts, spans, tokens)


def kept_share(image_size: Size, panel_size: Size) -> float:
    """How much of an image is left in its panel, as a share of its area."""
    return math.prod(panel_size) / math.prod(covering_size(image_size, panel_size))


def untaught(plan: Plan) -> list[Character]:
    """Characters whose trigger word stands in none of their captions, so that stage 1 never shows it."""
    return [character for character in plan.characters if character.found and not character.found.stands_in]


def unbalanced(plan: Plan) -> list[tuple[Character, Character]]:
    """Pairs of a character with far fewer images, and the one that has most. All characters appear in as many composites,
    so each of the few images is seen more often."""
    most = max(plan.characters, key=lambda character: len(character.images))
    return [(few, most) for few in plan.characters if len(few.images) < _FEW * len(most.images)]


def warnings(plan: Plan, seen: Sequence[Sample], is_all: bool, budget: Budget | None) -> list[str]:
    """What is worth a look before training, most important first. `seen` are its samples, or the first of them. The words of
    a whole caption are no tags: most stand in few captions, so no side is looked at."""
    lines = [
        f'"{character.trigger}" stands in no caption of {character.subset.folder}: stage 1 does not teach it, composites '
        "alone do; write it into the captions."
        for character in untaught(plan)
    ]
    lines += [
        f"{few.trigger} has {len(few.images)} image(s), {most.trigger} {len(most.images)}: each of the few is "
        "seen far more often; add images, or expect its poses and backgrounds to be learned with it."
        for few, most in unbalanced(plan)
    ]
    lines += [*_cropped(plan), *_over_limit(plan, seen, budget)]
    return lines if holds_captions(plan.options.caption) else [*lines, *_one_sided(plan, seen, is_all)]


def _cropped(plan: Plan) -> Iterator[str]:
    cropped = []
    for number, character in enumerate(plan.characters):
        for index, image in enumerate(character.images):
            share = min(kept_share(image.size, size) for size in plan.panel_sizes(number, index))
            if share < 1 - _CROPPED:
                cropped.append(f"{image.path} ({1 - share:.0%})")
    if cropped:
        yield (
            f"{len(cropped)} image(s) lose a third or more to a crop: {_listed(cropped)}; "
            'crop them yourself, or keep their shape (aspect = "natural", enable_bucket, max_bucket_reso).'
        )


def _over_limit(plan: Plan, seen: Sequence[Sample], budget: Budget | None) -> Iterator[str]:
    over = sum(sample.parts is not None and any(sample.parts.cut) for sample in seen)
    if budget is not None and over:
        lost = "words" if holds_captions(plan.options.caption) else "tags"
        yield (
            f"{over:,} of {len(seen):,} captions are over the limit of {budget.limit} tokens and lose {lost} on both sides; "
            f"{f'raise {budget.key}, or ' if budget.key else ''}write fewer {lost}."
        )


def _one_sided(plan: Plan, seen: Sequence[Sample], is_all: bool) -> Iterator[str]:
    """Tags that are seen on one side only. By chance that happens to a tag seen n times with a probability of 2 / 2**n, so
    a part of training has to show it more often than all of it."""
    sides: dict[str, list[int]] = defaultdict(lambda: [0] * plan.panels)
    for sample in seen:
        for side, tags in enumerate(sample.parts.tags if sample.parts else ()):
            for tag in tags:
                sides[tag][side] += 1
    least = _SEEN_OFTEN if is_all else math.ceil(1 + math.log2(max(1, len(sides)) / _CHANCE))
    for side, name in enumerate(plan.sides):
        one_sided = sorted(tag for tag, counts in sides.items() if counts[side] >= least and counts[side] == sum(counts))
        if one_sided:
            yield (
                f"tags that only ever stand on the {name}: {_listed(one_sided)}; the model may take them for the side. "
                "More epochs or composites_per_image mix them."
            )


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
