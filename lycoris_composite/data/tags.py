"""A caption's text to tags, by kohya's caption options.

What an option means, and the order of its draws, is upstream's (`BaseDataset.process_caption`); a test compares them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

_BYTE_ORDER_MARK = "\ufeff"  # some editors begin a file with it
_WILDCARD = re.compile(r"\{([^}]+)\}")
_MOST_CHOICES = 256  # that are looked at where several wildcards stand in one tag


@dataclass(frozen=True)
class CaptionRules:
    """A subset's caption options, under upstream's names and with upstream's defaults. `keep_tokens` counts tags."""

    shuffle_caption: bool = False
    caption_separator: str = ","
    keep_tokens: int = 0
    keep_tokens_separator: str | None = None
    secondary_separator: str | None = None
    enable_wildcard: bool = False
    caption_prefix: str | None = None
    caption_suffix: str | None = None
    caption_dropout_rate: float = 0.0
    caption_dropout_every_n_epochs: int = 0
    caption_tag_dropout_rate: float = 0.0
    token_warmup_min: int = 1
    token_warmup_step: float = 0


@dataclass(frozen=True)
class Tags:
    """A panel's tags. `kept` are those that `keep_tokens` or its separator protects, `last` those it pins to the end."""

    kept: list[str]
    free: list[str]
    last: list[str]

    @property
    def in_order(self) -> list[str]:
        return self.kept + self.free + self.last


def first_tag(text: str, rules: CaptionRules) -> str:
    """The first tag of a caption's first line, before prefix and suffix; empty where there is none. Of a wildcard its
    first choice."""
    return first_choices(text, rules)[0]


def first_choices(text: str, rules: CaptionRules) -> tuple[str, ...]:
    """The same with all that wildcards can make of it."""
    return next(_choices(text.split("\n")[0].lstrip(_BYTE_ORDER_MARK), rules))


def line_tags(text: str, rules: CaptionRules) -> Iterator[list[tuple[str, ...]]]:
    """The tags of each line that a caption can be, prefix and suffix among them; each tag is all that wildcards can make
    of it. What `secondary_separator` holds together counts as several."""
    for line in line_texts(text, rules):
        yield [tag for tag in _choices(line, rules) if any(tag)]


def line_texts(text: str, rules: CaptionRules) -> Iterator[str]:
    """Each line that a caption can be, with prefix and suffix, its wildcards not yet chosen."""
    lines = text.lstrip(_BYTE_ORDER_MARK).split("\n")
    return (_affixed(line, rules) for line in (lines if rules.enable_wildcard else lines[:1]))


def _choices(line: str, rules: CaptionRules) -> Iterator[tuple[str, ...]]:
    """The pieces between separators, each as all that it can become, its own first tag each time."""
    separators = [rules.keep_tokens_separator, rules.secondary_separator, rules.caption_separator]
    pattern = "|".join(re.escape(separator) for separator in sorted(filter(None, separators), key=len, reverse=True))
    if not rules.enable_wildcard or "{" not in line:
        yield from ((piece.strip(),) for piece in re.split(pattern, line))
        return
    groups: list[str] = []

    def hide(match: re.Match[str]) -> str:  # so that no separator in a wildcard parts it
        groups.append(match.group(1))
        return f"\ue002{len(groups) - 1}\ue003"

    for piece in re.split(pattern, _WILDCARD.sub(hide, _hide_braces(line))):
        fixed = re.split("\ue002(\\d+)\ue003", piece)
        options = [[part] if number % 2 == 0 else groups[int(part)].split("|") for number, part in enumerate(fixed)]
        made = ("".join(parts) for parts in islice(product(*options), _MOST_CHOICES))
        yield tuple(dict.fromkeys(re.split(pattern, _show_braces(text))[0].strip() for text in made))


def all_tags(text: str, rules: CaptionRules, rng: random.Random | None, without: Sequence[str] = ()) -> list[str]:
    """Every tag that training can show of a caption, in file order, but for those `without`; `rng` is for wildcards
    alone."""
    return with_separators(without_tags(parse(text, rules, rng), without, rules), rules).in_order


def without_tags(tags: Tags, without: Sequence[str], rules: CaptionRules) -> Tags:
    """The tags without some words, also where `secondary_separator` holds those to others."""
    held = rules.secondary_separator or ""

    def left(tag: str) -> str:
        return held.join(piece for piece in pieces(tag, rules) if piece.strip() not in without)

    return Tags(*(list(filter(None, map(left, part))) for part in (tags.kept, tags.free, tags.last)))


def pieces(tag: str, rules: CaptionRules) -> list[str]:
    """What `secondary_separator` holds together."""
    return tag.split(rules.secondary_separator) if rules.secondary_separator else [tag]


def parse(text: str, rules: CaptionRules, rng: random.Random | None) -> Tags:
    """The caption's tags after prefix, suffix and wildcards; only those need `rng`."""
    return _split(_choose(_affixed(text.lstrip(_BYTE_ORDER_MARK), rules), rules, rng), rules)


def whole_text(text: str, rules: CaptionRules, rng: random.Random | None) -> str:
    """The caption as one text, after prefix, suffix and wildcards, never parted at its commas."""
    text = _choose(_affixed(text.lstrip(_BYTE_ORDER_MARK), rules), rules, rng)
    for separator in filter(None, (rules.keep_tokens_separator, rules.secondary_separator)):
        text = text.replace(separator, rules.caption_separator)
    return text.strip()


def _affixed(text: str, rules: CaptionRules) -> str:
    if rules.caption_prefix:
        text = f"{rules.caption_prefix} {text}"
    return f"{text} {rules.caption_suffix}" if rules.caption_suffix else text


def _choose(text: str, rules: CaptionRules, rng: random.Random | None) -> str:
    """One line of several, and one of each `{a|b}`; `{{` and `}}` stand for braces. Without wildcards the first line."""
    if not rules.enable_wildcard:
        return text.split("\n")[0]
    if "\n" in text:
        text = rng.choice(text.split("\n"))
    return _show_braces(_WILDCARD.sub(lambda match: rng.choice(match.group(1).split("|")), _hide_braces(text)))


def _hide_braces(text: str) -> str:
    """Private-use characters cannot be in a caption by accident, so they can hold the escaped braces' places."""
    return text.replace("{{", "\ue000").replace("}}", "\ue001")


def _show_braces(text: str) -> str:
    return text.replace("\ue000", "{").replace("\ue001", "}")


def _split(text: str, rules: CaptionRules) -> Tags:
    if rules.keep_tokens_separator and rules.keep_tokens_separator in text:
        kept, free, *last = text.split(rules.keep_tokens_separator, 2)
        return Tags(*(_tags(part, rules) for part in (kept, free, last[0] if last else "")))
    tags = _tags(text, rules)
    return Tags(tags[: rules.keep_tokens], tags[rules.keep_tokens :], [])


def _tags(text: str, rules: CaptionRules) -> list[str]:
    return [tag for part in text.split(rules.caption_separator) if (tag := part.strip())]


def with_separators(tags: Tags, rules: CaptionRules) -> Tags:
    """What `secondary_separator` holds together stays one tag, and reads as several."""
    old, new = rules.secondary_separator, rules.caption_separator
    if not old:
        return tags
    return Tags(*([tag.replace(old, new) for tag in part] for part in (tags.kept, tags.free, tags.last)))
