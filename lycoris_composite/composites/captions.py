"""Panel captions, a template and a token budget, to a composite's one caption.

Each panel's caption is varied on its own, so the left character's tags never wander to the right. What an option
means, and the order of its draws, is upstream's (`BaseDataset.process_caption`); a test compares them. A template with
`{left_caption}` holds captions as whole texts: then the options for tags do nothing, and words take the place of tags.
"""

from __future__ import annotations

import math
import random
import re
import string
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from lycoris_composite.composites.groups import PANELS
from lycoris_composite.data.tags import CaptionRules, Tags, parse, pieces, whole_text, with_separators, without_tags
from lycoris_composite.errors import UserError

_COMMA = ", "
_NAME, _TAGS, _CAPTION = "", "_tags", "_caption"  # how a template's fields end, by what they hold


@dataclass(frozen=True)
class PanelCaption:
    """One panel's caption as it is in its file, its character's trigger word, and how captions spell that where they do
    so in more ways than this one."""

    text: str
    trigger: str
    rules: CaptionRules
    spellings: tuple[str, ...] = ()

    @cached_property
    def settled(self) -> tuple[str, Tags] | None:
        """The trigger word and the parsed tags, before shuffling and dropout. None with `enable_wildcard`, where they differ
        at every draw."""
        return None if self.rules.enable_wildcard else _own_tags(self, None)


panel_caption = lru_cache(maxsize=1 << 16)(PanelCaption)  # whose text is parsed once for as long as it is in use


@dataclass(frozen=True)
class Budget:
    """At most `limit` tokens as `count` counts a caption's, begin and end tokens left out. `key` is kohya's option that raises
    the limit, if one does."""

    limit: int
    count: Callable[[str], int]
    key: str = "max_token_length"


def strictest(budgets: Sequence[Budget]) -> Budget:
    """One budget for several encoders. It counts for each caption as the encoder does that has the least room left for it,
    up to the lowest of the limits."""
    if len(budgets) == 1:
        return budgets[0]
    lowest = min(budgets, key=lambda budget: budget.limit)
    return replace(lowest, count=lambda text: lowest.limit - min(budget.limit - budget.count(text) for budget in budgets))


@dataclass(frozen=True)
class Progress:
    """The step being trained and how many there will be, for `token_warmup_step`: steps, or below 1 a share of all."""

    step: int = 0
    total_steps: int = 0

    def grown(self, free: int, rules: CaptionRules) -> int:
        """How many of `free` tags the warm-up has let in."""
        warmup = rules.token_warmup_step
        if warmup < 1:
            warmup = math.floor(warmup * self.total_steps)
        if not warmup or self.step >= warmup:
            return free
        return math.floor(self.step * (free - rules.token_warmup_min) / warmup) + rules.token_warmup_min


NO_PROGRESS = Progress()
WARMED_UP = Progress(sys.maxsize)


_FIRST_TO_GO = ("free", "last", "kept")


@lru_cache(maxsize=16)
def fields_of(panels: int) -> dict[str, tuple[int, str]]:
    """A template's fields: each one's panel, counted from 0, and how its name ends, which says whether it holds the panel's
    trigger word, its tags or its whole caption.

    >>> fields_of(1)
    {'1': (0, ''), '1_tags': (0, '_tags'), '1_caption': (0, '_caption')}

    Two panels are also called `left` and `right`.
    """
    names = {"left": 0, "right": 1} if panels == 2 else {}
    names |= {str(number + 1): number for number in range(panels)}
    return {f"{name}{end}": (panel, end) for end in (_NAME, _TAGS, _CAPTION) for name, panel in names.items()}


@lru_cache(maxsize=16)
def holds_captions(template: str) -> bool:
    """Whether the template's fields hold whole captions and no tags."""
    return any(field and field.endswith(_CAPTION) for _, field, *_ in string.Formatter().parse(template))


def check_template(template: str, panels: int = PANELS) -> None:
    """Raises ValueError naming a field that is none of a composite's with so many panels, or the broken brace."""
    known = fields_of(panels)
    for _, field, spec, conversion in string.Formatter().parse(template):
        if field is not None and (field not in known or spec or conversion):
            shown = ", ".join(f"{{{name}}}" for name in known if panels != 2 or not name[0].isdigit())
            raise ValueError(f"unknown field {{{field}}}; the fields are {shown}")
    if holds_captions(template) and any(field and field.endswith(_TAGS) for _, field, *_ in string.Formatter().parse(template)):
        raise ValueError("has fields for tags and for whole captions, which say the same twice; keep one kind")


def marker(template: str) -> str | None:
    """The word that marks a composite, `COMPOSITE` in the default template: the fixed text behind the names, or the
    next piece that is fixed, or what stands before the names."""
    pieces = [list(string.Formatter().parse(piece)) for piece in template.split(",")]
    has_name = [any(_is_name(field) for _, field, *_ in piece) for piece in pieces]
    named = has_name.index(True) if True in has_name else 0
    names = [number for number, (_, field, *_) in enumerate(pieces[named]) if _is_name(field)]
    behind = pieces[named][names[-1] + 1 :] if names else [piece for piece in pieces[named][-1:] if piece[1] is None]
    fixed = [piece[0][0] for piece in pieces[named + 1 :] if len(piece) == 1 and piece[0][1] is None]
    for text in (behind[0][0] if behind else "", *fixed, pieces[named][0][0]):
        words = re.findall(r"[^\s/|+&_-]+", re.split(r"[.:;]", text)[0])
        if words:
            return words[-1]
    return None


def _is_name(field: str | None) -> bool:
    return bool(field) and not field.endswith((_TAGS, _CAPTION))


def render(template: str, triggers: Sequence[str], tags: Sequence[Sequence[str]], joints: Sequence[str] = ()) -> str:
    """The template filled in, by panel. A tag list that is empty leaves no stray comma. `joints` stand between each panel's
    tags, commas where there are none.

    >>> render("{left}/{right}/COMPOSITE, {left_tags}, {right_tags}", ["rin", "mio"], [["hat", "smile"], []])
    'rin/mio/COMPOSITE, hat, smile'
    """
    return "".join(text for _, text in spans(template, triggers, tags, joints))


def spans(
    template: str, triggers: Sequence[str], tags: Sequence[Sequence[str]], joints: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """The filled template in pieces, each after its role: `tags0` for the first panel's tags or caption, `tags1` for the
    second's …, `name` for all else. A piece holds the comma behind it."""
    fields = fields_of(len(triggers))
    sides = [joint.join(side) for joint, side in zip(joints or [_COMMA] * len(tags), tags, strict=True)]
    found: list[tuple[str, str]] = []
    for part in _parts(template):
        filled = []
        for fixed, field in part:
            panel, end = (0, _NAME) if field is None else fields[field]
            text = fixed if field is None else (sides if end else triggers)[panel]
            filled += [(f"tags{panel}" if end else "name", text)] if text else []
        if filled and found:
            role, text = found[-1]
            found[-1] = role, f"{text}{_COMMA}"
        found += filled
    return found


@lru_cache(maxsize=16)
def _parts(template: str) -> list[list[tuple[str, str | None]]]:
    """The template's parts between commas, each a list of fixed texts and of fields."""
    parts = []
    for part in template.split(","):
        parsed = list(string.Formatter().parse(part.strip()))
        pieces = [((fixed, None), ("", field)) for fixed, field, *_ in parsed]
        parts.append([piece for pair in pieces for piece in pair if piece != ("", None)])
    return parts


@dataclass(frozen=True)
class CaptionParts:
    """A composite's caption before it is one text: by panel, the trigger word, the tags (or a whole caption's words), those
    that the budget had no room for, and what stands between them."""

    triggers: tuple[str, ...]
    tags: tuple[list[str], ...]
    cut: tuple[list[str], ...]
    joints: tuple[str, ...] = ()

    def text(self, template: str) -> str:
        return render(template, self.triggers, self.tags, self.joints)

    def spans(self, template: str) -> list[tuple[str, str]]:
        return spans(template, self.triggers, self.tags, self.joints)


def caption_parts(
    template: str,
    panels: Sequence[PanelCaption],
    rng: random.Random,
    epoch: int,
    progress: Progress = NO_PROGRESS,
    budget: Budget | None = None,
    by_separator: bool = False,
) -> CaptionParts | None:
    """One draw of all that the panels' rules leave to chance. `by_separator` joins tags by `caption_separator`, as upstream
    does it since v0.11.1 where it has shuffled them; before, it always takes a comma.

    None where upstream would drop the caption of every panel. Over the budget, the panel with more free tags loses its last
    tags until all have equally many; then each loses one in turn. Protected tags go last.
    """
    if _dropped(panels, rng, epoch):
        return None
    if holds_captions(template):
        triggers = tuple(panel.trigger for panel in panels)
        sides = [Tags([], whole_text(panel.text, panel.rules, rng).split(" "), []) for panel in panels]
        joints = (" ",) * len(panels)
    else:
        owned = [(panel.settled or _own_tags(panel, rng), panel) for panel in panels]
        triggers = tuple(name for (name, _), _ in owned)
        sides = [_vary(tags, panel.rules, rng, progress) for (_, tags), panel in owned]
        joints = tuple(f"{panel.rules.caption_separator} " if by_separator else _COMMA for panel in panels)
    kept = sides if budget is None else _fit(template, triggers, sides, joints, budget)
    cut = tuple(_cut(side, left) for side, left in zip(sides, kept, strict=True))
    return CaptionParts(triggers, tuple(side.in_order for side in kept), cut, joints)


def _cut(side: Tags, kept: Tags) -> list[str]:
    """What `_shortened` took from the end of each part."""
    return [tag for part in _FIRST_TO_GO for tag in getattr(side, part)[len(getattr(kept, part)) :]]


def single_caption(panel: PanelCaption, rng: random.Random, epoch: int, progress: Progress = NO_PROGRESS) -> str:
    """A single image's caption, one draw of all that its rules leave to chance. The trigger word stays where it is."""
    if _dropped([panel], rng, epoch):
        return ""
    tags = _vary(with_separators(parse(panel.text, panel.rules, rng), panel.rules), panel.rules, rng, progress)
    return ", ".join(tags.in_order)


def _dropped(panels: Sequence[PanelCaption], rng: random.Random, epoch: int) -> bool:
    rate = min(panel.rules.caption_dropout_rate for panel in panels)
    if rate > 0 and rng.random() < rate:
        return True
    every = [panel.rules.caption_dropout_every_n_epochs for panel in panels]
    return all(count > 0 and epoch % count == 0 for count in every)


def _own_tags(panel: PanelCaption, rng: random.Random | None) -> tuple[str, Tags]:
    """The trigger word as this caption spells it, and the tags without it: that stands in the joined name, and once more
    would only cost tokens."""
    rules, spellings = panel.rules, panel.spellings or (panel.trigger,)
    tags = parse(panel.text, rules, rng)
    names = [piece.strip() for tag in tags.in_order for piece in pieces(tag, rules) if piece.strip() in spellings]
    return names[0] if names else panel.trigger, with_separators(without_tags(tags, spellings, rules), rules)


def _vary(tags: Tags, rules: CaptionRules, rng: random.Random, progress: Progress) -> Tags:
    """The tags after warm-up, shuffling and tag dropout."""
    free = tags.free[: progress.grown(len(tags.free), rules)]
    if rules.shuffle_caption:
        rng.shuffle(free)
    if rules.caption_tag_dropout_rate > 0:
        free = [tag for tag in free if rng.random() >= rules.caption_tag_dropout_rate]
    return Tags(tags.kept, free, tags.last)


def _fit(template: str, triggers: Sequence[str], sides: Sequence[Tags], joints: Sequence[str], budget: Budget) -> list[Tags]:
    """The sides with as many tags as the budget has room for."""

    def fits(rounds: int) -> bool:
        tags = [side.in_order for side in _shortened(sides, rounds)]
        return budget.count(render(template, triggers, tags, joints)) <= budget.limit

    if fits(0):
        return list(sides)
    rounds = range(1, sum(len(side.in_order) for side in sides) + 1)
    fewest = bisect_left(rounds, True, key=fits)
    if fewest == len(rounds):
        raise UserError(
            f"{'/'.join(triggers)}: the joined name alone is over {budget.limit} tokens; "
            f"shorten the trigger words{f' or raise {budget.key}' if budget.key else ''}."
        )
    return _shortened(sides, rounds[fewest])


def _shortened(sides: Sequence[Tags], rounds: int) -> list[Tags]:
    """Drops tags for `rounds` rounds. Each round drops the last tag of the longest side, or of every side that is equally
    long."""
    most = {}
    for part in _FIRST_TO_GO:
        longest = max(len(getattr(side, part)) for side in sides)
        most[part] = max(0, longest - rounds)
        rounds -= longest - most[part]
    return [Tags(**{part: getattr(side, part)[:count] for part, count in most.items()}) for side in sides]
