"""A plan to what somebody should know of it before training: who appears how often, what is cut, what looks wrong."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lycoris_composite.captions import Budget, CaptionParts, Progress, all_tags
from lycoris_composite.characters import Character
from lycoris_composite.costs import Schedule
from lycoris_composite.images import covering_size
from lycoris_composite.layout import Size
from lycoris_composite.pairing import generator
from lycoris_composite.plan import Composite, Plan

_MOST_LISTED = 8
_FEW = 1 / 3  # of the images that another character has
_CROPPED = 1 / 3  # of an image
_SEEN_OFTEN = 4  # below that a tag is too rare to be taken for a side
_CHANCE = 0.05  # that any tag is seen on one side alone, where only a part of training is looked at


@dataclass(frozen=True)
class Sample:
    """A composite as it is trained on. `parts` is None where its caption is dropped; `tokens` where nothing counts them."""

    composite: Composite
    epoch: int
    parts: CaptionParts | None
    spans: tuple[tuple[str, str], ...]
    tokens: int | None

    @property
    def caption(self) -> str:
        return "".join(text for _, text in self.spans)


@dataclass(frozen=True)
class Cast:
    """A character in an epoch: how often it stands left and right, and its tags with how many captions have each."""

    character: Character
    left: int
    right: int
    tags: tuple[tuple[str, int], ...]


def samples(
    plan: Plan, epoch: int, schedule: Schedule | None, budget: Budget | None, batches: Iterable[int] | None = None
) -> Iterator[Sample]:
    """The samples of an epoch, or of some of its batches in their order. No schedule is for a trainer that does not know
    `token_warmup_step`."""
    for batch in range(plan.batches) if batches is None else batches:
        progress = Progress() if schedule is None else schedule.progress(epoch, batch, plan.batches)
        for index in plan.batch(epoch, batch):
            yield _sample(plan, plan.composite(epoch, index), epoch, progress, budget)


def _sample(plan: Plan, composite: Composite, epoch: int, progress: Progress, budget: Budget | None) -> Sample:
    parts = plan.caption_parts(composite, epoch, progress, budget)
    found = () if parts is None else tuple(parts.spans(plan.options.caption))
    tokens = None if budget is None or parts is None else budget.count("".join(text for _, text in found))
    return Sample(composite, epoch, parts, found, tokens)


def cast(plan: Plan, epoch: int) -> list[Cast]:
    counts = plan.pair_counts(epoch)
    return [
        Cast(character, int(left), int(right), _tags(character))
        for character, left, right in zip(plan.characters, counts.sum(1), counts.sum(0), strict=True)
    ]


def _tags(character: Character) -> tuple[tuple[str, int], ...]:
    """The commonest first, the trigger word left out."""
    rng = generator(0, 0, 0, "tags")  # one line of a multi-line caption, the same every time
    rules, without = character.subset.rules, character.spellings
    counts = Counter(tag for caption in character.captions for tag in {*all_tags(caption, rules, rng, without)})
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def kept_share(image_size: Size, panel_size: Size) -> float:
    """How much of an image is left in its panel, as a share of its area."""
    width, height = covering_size(image_size, panel_size)
    return panel_size[0] * panel_size[1] / (width * height)


def warnings(plan: Plan, seen: Sequence[Sample], is_all: bool, limit: int | None) -> list[str]:
    """What is worth a look before training, most important first. `seen` are the samples of all of training, or of its
    beginning."""
    return [
        *map(_not_taught, untaught(plan)),
        *_few_images(plan),
        *_cropped(plan),
        *_over_limit(seen, limit),
        *_one_sided(seen, is_all),
    ]


def untaught(plan: Plan) -> list[Character]:
    """Characters whose trigger word stands in none of their captions, so that stage 1 never shows it."""
    return [one for one in plan.characters if one.found and not one.found.stands_in]


def _not_taught(character: Character) -> str:
    return (
        f'"{character.trigger}" stands in no caption of {character.subset.folder}: stage 1 does not teach it, composites '
        "alone do; write it into the captions."
    )


def _few_images(plan: Plan) -> Iterator[str]:
    for character, most in unbalanced(plan):
        yield (
            f"{character.trigger} has {len(character.images)} image(s), {most.trigger} {len(most.images)}: each of the few is "
            "seen far more often; add images, or expect its poses and backgrounds to be learned with it."
        )


def unbalanced(plan: Plan) -> list[tuple[Character, Character]]:
    """Characters with far fewer images than another, each before the one that has most. Composites do not come more often
    for images, so each of the few is seen more often."""
    most = max(plan.characters, key=lambda character: len(character.images))
    return [(one, most) for one in plan.characters if len(one.images) < _FEW * len(most.images)]


def _cropped(plan: Plan) -> Iterator[str]:
    found = []
    for number, character in enumerate(plan.characters):
        for place, image in enumerate(character.images):
            share = min(kept_share(image.size, size) for size in plan.panel_sizes(number, place))
            if share < 1 - _CROPPED:
                found.append(f"{image.path} ({1 - share:.0%})")
    if found:
        yield (
            f"{len(found)} image(s) lose a third or more to a crop: {_listed(found)}; "
            'crop them yourself, or keep their shape (aspect = "natural", enable_bucket, max_bucket_reso).'
        )


def _over_limit(seen: Sequence[Sample], limit: int | None) -> Iterator[str]:
    over = sum(sample.parts is not None and any(sample.parts.cut) for sample in seen)
    if over:
        yield (
            f"{over:,} of {len(seen):,} captions are over the limit of {limit} tokens and lose tags on both sides; "
            "raise max_token_length, or write fewer tags."
        )


def _one_sided(seen: Sequence[Sample], is_all: bool) -> Iterator[str]:
    """In a part of training many a tag stands on one side by chance: one of n appearances with 2 in 2**n."""
    sides: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for sample in seen:
        for side, tags in enumerate(sample.parts.tags if sample.parts else ()):
            for tag in tags:
                sides[tag][side] += 1
    least = _SEEN_OFTEN if is_all else math.ceil(1 + math.log2(max(1, len(sides)) / _CHANCE))
    for side, name in enumerate(("left", "right")):
        found = sorted(tag for tag, counts in sides.items() if counts[side] >= least and not counts[1 - side])
        if found:
            yield (
                f"tags that only ever stand on the {name}: {_listed(found)}; the model may take them for the side. "
                "More epochs or composites_per_image mix them."
            )


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
