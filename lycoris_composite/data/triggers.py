"""What folders are called and captions say, to each character's trigger word, as a person would find it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lycoris_composite.data.tags import CaptionRules, first_choices, first_tag, line_tags, line_texts
from lycoris_composite.errors import UserError

FOLDER, FIRST, HAND = "the folder's name, in every caption", "first tag of every caption", "by hand"
CLASS, WORD = "class tokens", "a word of the folder's name, in every caption"
_MOST_SHOWN = 5  # candidates
_LONGEST_NAME = 3  # words; a sentence up to its first comma has more
# Says how many there are, how good a picture is or where it is from, and never who is in it.
_COMMON = re.compile(
    r"\d+\+?(girl|boy|other)s?|(multiple|no) (girl|boy|other|human)s?|solo( focus)?|(male|female) focus"
    r"|masterpiece|(best|amazing|great|good|high|normal|medium|low|bad|worst) quality|(high|absurd|incredibly absurd|low)res"
    r"|score \d+( up)?|(very )?(aesthetic|displeasing)|rating[ :].*|source[ :].*|general|sensitive|questionable|explicit|n?sfw"
    r"|year \d{4}|newest|recent|oldest"
)


@dataclass(frozen=True)
class Told:
    """A subset's folder, its class tokens and `trigger` where it has them, its caption rules, its images' paths and their
    captions. `has_files` is false where the captions are the class tokens. `in_sentences` says that captions are read as whole
    texts: then the trigger word is a word of them, and need be no tag."""

    folder: str
    class_tokens: str | None
    by_hand: str | None
    rules: CaptionRules
    paths: Sequence[str]
    captions: Sequence[str]
    has_files: bool = True
    in_sentences: bool = False

    def lines(self) -> Iterator[list[tuple[str, ...]]]:
        """The tags of every line of every caption; read anew each time, as a set may have millions."""
        return (line for caption in self.captions for line in line_tags(caption, self.rules))

    def firsts(self, with_prefix: bool = False) -> Iterator[tuple[str, ...]]:
        """What each caption begins with, as its file has it or behind its prefix."""
        if with_prefix:
            return (line[0] if line else () for line in self.lines())
        return (first_choices(caption, self.rules) for caption in self.captions)

    @property
    def names(self) -> list[str]:
        """What it is called, folded: its class tokens, its folder, and that without its repeats."""
        folder = os.path.basename(os.path.normpath(self.folder))
        called = [first_tag(self.class_tokens or "", self.rules), folder, re.sub(r"^\d+_", "", folder)]
        return list(dict.fromkeys(filter(None, map(folded, called))))


@dataclass(frozen=True)
class Trigger:
    """A character's trigger word as its captions spell it first, all the ways they do, how it was found, and in how many
    captions it stands. `is_plain` where every caption begins with it."""

    word: str
    spellings: tuple[str, ...]
    how: str
    stands_in: int
    is_plain: bool


@lru_cache(maxsize=1 << 16)
def folded(tag: str) -> str:
    """A tag as a person compares it: without case, brackets' backslashes, underscores and the like."""
    plain = unicodedata.normalize("NFKC", re.sub(r"\\([()\[\]])", r"\1", tag)).replace("_", " ")
    return " ".join(plain.casefold().split())


def trigger_of(told: Told, others: Sequence[Told]) -> Trigger:
    """The trigger word of one subset beside the others of its dataset. Raises UserError with the candidates."""
    if told.by_hand:
        word = told.by_hand.strip()
        if told.rules.caption_separator in word:
            raise UserError(f'{told.folder}, trigger: "{word}" is several tags; give the one that says who it is.')
        return _found(told, word, HAND)
    ways = {FOLDER: _by_name, CLASS: _by_class_tokens, FIRST: _by_first_tag, WORD: _by_a_word_of_the_name}
    for how in (FOLDER, WORD, CLASS, FIRST) if told.in_sentences else ways:
        word = ways[how](told, others)
        if word is not None:
            return _found(told, word, how if told.has_files else CLASS)
    raise _none_found(told, others)


def _by_name(told: Told, others: Sequence[Told]) -> str | None:
    """What the folder is called, where every caption has it as a tag: by itself, or with a series in brackets. A name
    that another folder has too says nothing, nor does a common tag that does not stand first."""
    taken = {name for other in others for name in other.names}
    for name in told.names:
        if name not in taken and _stands_in_all(told, name) and (not _COMMON.fullmatch(name) or _begins_all(told, name)):
            return name
    for name in () if told.in_sentences else told.names:
        series = {choice for tag in next(told.lines(), []) for choice in map(folded, tag) if choice.startswith(f"{name} (")}
        in_all = [tag for tag in sorted(series) if _stands_in_all(told, tag)]
        if name not in taken and len(in_all) == 1:
            return in_all[0]
    return None


def _by_class_tokens(told: Told, others: Sequence[Told]) -> str | None:
    """The first of the class tokens, where nothing keeps the captions' first tag in its place."""
    if not told.class_tokens or told.rules.keep_tokens > 0 or told.rules.keep_tokens_separator:
        return None
    word = first_tag(told.class_tokens, told.rules)
    if not word:
        raise UserError(
            f'{told.folder}: its class_tokens "{told.class_tokens}" have no first tag; begin them with the trigger word.'
        )
    return word


def _by_first_tag(told: Told, others: Sequence[Told]) -> str | None:
    """The tag that every caption begins with, in its file or with its prefix, where it tells this folder from others. The
    beginning of a sentence is no name."""
    for with_prefix in (False, True) if told.rules.caption_prefix else (False,):
        for word in next(told.firsts(with_prefix), ()):
            key = folded(word)
            if not key or (told.in_sentences and len(key.split()) > _LONGEST_NAME):
                continue
            if _is_telling(key, others) and all(key in map(folded, choices) for choices in told.firsts(with_prefix)):
                return word
    return None


def _by_a_word_of_the_name(told: Told, others: Sequence[Told]) -> str | None:
    """`10_ana girl`, as kohya's folders are often called."""
    words = (name.split()[0] for name in told.names if " " in name)
    return next((word for word in words if _is_telling(word, others) and _stands_in_all(told, word)), None)


def _is_telling(word: str, others: Sequence[Told]) -> bool:
    return not _COMMON.fullmatch(word) and not any(_stands_in_all(other, word) for other in others)


def _stands_in_all(told: Told, word: str) -> bool:
    return all(_stands_in(told, caption, word) for caption in told.captions)


def _stands_in(told: Told, caption: str, word: str) -> bool:
    """Whether every line that the caption can be has the word: as a tag, or as a word of its sentences."""
    if told.in_sentences:
        pattern = _as_word(word)
        return all(pattern.search(folded(line)) for line in line_texts(caption, told.rules))
    return all(any(word in map(folded, tag) for tag in line) for line in line_tags(caption, told.rules))


def _as_word(name: str) -> re.Pattern[str]:
    """Finds a name in a text, and not within another word. Chinese and Japanese have no spaces around it."""
    words = r"[\s_]+".join(map(re.escape, name.split()))
    return re.compile(rf"(?<![a-zA-Z0-9_]){words}(?![a-zA-Z0-9_])", re.IGNORECASE)


def _begins_all(told: Told, word: str) -> bool:
    if told.in_sentences:
        pattern = _as_word(word)
        return all(pattern.match(folded(line)) for caption in told.captions for line in line_texts(caption, told.rules))
    return all(word in map(folded, choices) for choices in told.firsts())


def _found(told: Told, word: str, how: str) -> Trigger:
    """The word as the captions spell it; what a wildcard draws in its place is a spelling too."""
    key, spellings, stands_in = folded(word), {}, 0
    for caption in told.captions:
        if told.in_sentences:
            meant = [(match[0],) for line in line_texts(caption, told.rules) for match in _as_word(key).finditer(line)]
        else:
            meant = [tag for line in line_tags(caption, told.rules) for tag in line if key in map(folded, tag)]
        stands_in += bool(meant)
        spellings |= {spelling: None for tag in meant for spelling in tag if spelling}
    first = next((spelling for spelling in spellings if folded(spelling) == key), word)
    return Trigger(first, tuple(spellings) or (first,), how, stands_in, _begins_all(told, key))


def _none_found(told: Told, others: Sequence[Told]) -> UserError:
    """One sentence: what is wrong with the captions, what could be the word, and how to settle it."""
    for name in told.names:
        namesake = next((other for other in others if name in other.names), None)
        if namesake and _stands_in_all(told, name):
            return shared(told.folder, _found(told, name, FOLDER).word, namesake.folder)
    if told.in_sentences:
        return UserError(
            f"{told.folder}: nothing says which word of its captions is its trigger word, {_about_the_name(told)}; name the "
            'folder <repeats>_<word> by a word that all its captions have, or set trigger = "…" in the subset\'s table of a '
            "dataset_config."
        )
    firsts = [first_tag(caption, told.rules) for caption in told.captions]
    settle = 'or set trigger = "…" in the subset\'s table of a dataset_config'
    different = [number for number, first in enumerate(firsts) if folded(first) != folded(firsts[0])]
    if not any(firsts):
        return UserError(f"{told.paths[0]}: its caption has no first tag; begin it with the trigger word.")
    if different and not any(_COMMON.fullmatch(folded(first)) for first in firsts):
        more = f" (and {len(different) - 1} more like it)" if len(different) > 1 else ""
        return UserError(
            f'{told.paths[different[0]]}: its caption begins with "{firsts[different[0]]}"{more}, that of {told.paths[0]} with '
            f'"{firsts[0]}"; begin all captions of a folder with one trigger word{_candidates(told, others)}, {settle}.'
        )
    same = None if different else next((other for other in others if _begins_all(other, folded(firsts[0]))), None)
    if same and not _COMMON.fullmatch(folded(firsts[0])):
        return shared(told.folder, firsts[0], same.folder)
    begun = ", ".join(f'"{first}"' for first in list(dict.fromkeys(firsts))[:_MOST_SHOWN])
    return UserError(
        f"{told.folder}: nothing says which tag is its trigger word: its captions begin with {begun}, {_about_the_name(told)}; "
        f"name the folder <repeats>_<word> by a tag that all its captions have{_candidates(told, others)}, {settle}."
    )


def shared(folder: str, word: str, other: str) -> UserError:
    """For two characters of one trigger word."""
    return UserError(
        f'{folder}: the trigger word "{word}" is also that of {other}; put one character\'s images in one folder, '
        'or give each a word of its own (trigger = "…" in the subset\'s table of a dataset_config).'
    )


def _about_the_name(told: Told) -> str:
    """In how many captions the folder's name stands, and the first that lacks it."""
    if not told.names:
        return "and the folder's name has no word"
    word = told.names[0]
    lacking = [path for path, caption in zip(told.paths, told.captions, strict=True) if not _stands_in(told, caption, word)]
    if not lacking:
        return f'and the folder\'s name, "{word}", does not say who it is'
    if len(lacking) == len(told.paths):
        return f'and none has the folder\'s name, "{word}"{"" if told.in_sentences else ", as a tag"}'
    return f'and "{word}" is missing in {len(lacking)} of {len(told.paths)}, such as {os.path.basename(lacking[0])}'


def _candidates(told: Told, others: Sequence[Told]) -> str:
    """Tags that every caption of the folder has, and none of another folder."""
    spelled = {folded(tag[0]): tag[0] for tag in next(told.lines(), [])}
    for line in told.lines():
        here = {folded(tag[0]) for tag in line}
        spelled = {key: tag for key, tag in spelled.items() if key in here}
    for line in (line for other in others for line in other.lines()):
        for tag in (tag for choices in line for tag in choices):
            spelled.pop(folded(tag), None)
    found = sorted(key for key in spelled if not _COMMON.fullmatch(key))
    shown = ", ".join(f'"{spelled[key]}"' for key in found[:_MOST_SHOWN])
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return f" (it alone has {shown}{more})" if found else ""
