"""Subsets to characters: a trigger word and captioned images."""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from lycoris_composite.data.images import image_size, list_images, pictures_below, read_image
from lycoris_composite.data.tags import CaptionRules, all_tags
from lycoris_composite.data.triggers import Told, Trigger, folded, shared, trigger_of
from lycoris_composite.errors import UserError, one_line
from lycoris_composite.randomness import generator

LONGEST_CAPTION = 65_536  # bytes; the longest that upstream's tokenizers keep is some thousand


@dataclass(frozen=True)
class TrainingImage:
    """An image file, its upright (width, height), and its caption or None where it has no caption file. `has_more_lines`
    where that file has lines that are not read. `digest` is that of the image's content where it was read."""

    path: str
    size: tuple[int, int]
    caption: str | None
    has_more_lines: bool = False
    digest: str | None = None


@dataclass(frozen=True)
class ImageFile:
    """What one reading of an image file has told: its upright (width, height), a digest of its content, and why it cannot be
    used, or None where it can."""

    size: tuple[int, int] = (0, 0)
    digest: str | None = None
    why_not: str | None = None


@dataclass(frozen=True)
class Subset:
    """One of kohya's folders with its options, and what lies in it."""

    folder: str
    repeats: int
    class_tokens: str | None
    caption_extension: str
    rules: CaptionRules
    images: tuple[TrainingImage, ...] = ()
    flip_aug: bool = False
    trigger: str | None = None  # as its table settles it by hand
    held_out: float = 0.0  # the share of its images that validation keeps, chosen by `held_out_seed`
    held_out_seed: int = 0
    largest_skipped: tuple[int, int] | None = None  # upstream's skip_image_resolution: pictures of no more pixels are left out
    small: tuple[str, ...] = ()  # the names of those


@dataclass(frozen=True)
class Character:
    """Who a subset shows. Images and captions are in path order. `found` says where the trigger word is from."""

    trigger: str
    subset: Subset
    captions: tuple[str, ...]
    found: Trigger | None = None

    @property
    def images(self) -> tuple[TrainingImage, ...]:
        return self.subset.images

    @property
    def spellings(self) -> tuple[str, ...]:
        """All ways in which its captions write the trigger word."""
        return self.found.spellings if self.found else (self.trigger,)

    @property
    def how(self) -> str:
        """How the trigger word was found, and in how many captions it stands where that is not all."""
        found, total = self.found, len(self.captions)
        if found is None or found.stands_in == total:
            return found.how if found else ""
        return f"{found.how}, in {f'{found.stands_in} of {total} captions' if found.stands_in else 'no caption'}"

    def tag_counts(self) -> list[tuple[str, int]]:
        """Its tags but for the trigger word, each with the number of captions that have it, the commonest first."""
        rng = generator(0, 0, 0, "sample tags")  # draws the same line of a multi-line caption every time
        rules = self.subset.rules
        counts = Counter(tag for caption in self.captions for tag in {*all_tags(caption, rules, rng, self.spellings)})
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    @property
    def summary(self) -> str:
        """Its trigger word, its number of images, and how it was found where no caption begins otherwise."""
        is_plain = self.found is None or self.found.is_plain
        return f"{self.trigger} ({len(self.images)}{'' if is_plain else f', {self.how}'})"


def read_subset(subset: Subset, skipped: Collection[str] = (), known: Mapping[str, ImageFile] | None = None) -> Subset:
    """The subset with its images' sizes and captions, but for the images to be skipped. A file that is `known`, by its
    normal path, is not opened again. Raises UserError naming the file that cannot be used."""
    names = {path: os.path.normpath(path) for path in image_paths(subset)}
    known = known or {}
    files = {
        path: known.get(name) or ImageFile(_readable_size(path, path)) for path, name in names.items() if name not in skipped
    }
    small = {path for path, file in files.items() if is_too_small(file.size, subset)}
    paths = _trained([path for path in files if path not in small], subset)
    images = [TrainingImage(str(path), files[path].size, *_read_caption(path, subset), files[path].digest) for path in paths]
    return replace(subset, images=tuple(images), small=tuple(sorted(path.name for path in small)))


def is_too_small(size: tuple[int, int], subset: Subset) -> bool:
    """Whether skip_image_resolution leaves out a picture of this size."""
    return subset.largest_skipped is not None and math.prod(size) <= math.prod(subset.largest_skipped)


def _trained(paths: list[Path], subset: Subset) -> list[Path]:
    """Those that validation does not hold out: upstream's `split_train_val`."""
    if not 0 < subset.held_out <= 1:
        return paths
    shuffled = list(paths)
    random.Random(subset.held_out_seed).shuffle(shuffled)
    return sorted(shuffled[: math.ceil(len(paths) * (1 - subset.held_out))])


def image_paths(subset: Subset) -> list[Path]:
    """The subset's image files, sorted. Raises UserError where its folder cannot be listed."""
    folder = Path(subset.folder)
    try:
        return list_images(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder}: no such folder; correct the path in the config.") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); mend its permissions or correct the path.") from error


def read_image_file(path: Path, subset: Subset) -> ImageFile:
    """Reads a subset's image once, and decodes it to see whether that can be done; looks at its caption, too."""
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    try:
        size = _readable_size(path, BytesIO(content))
        if not is_too_small(size, subset):
            _read_caption(path, subset)
            read_image(path, file=BytesIO(content))
    except UserError as error:
        return ImageFile(why_not=str(error))
    return ImageFile(size, hashlib.blake2b(content, digest_size=16).hexdigest())  # as run/journal.digest


def _readable_size(path: Path, file: Path | BinaryIO) -> tuple[int, int]:
    try:
        size = image_size(file)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: has more pixels than Pillow opens ({one_line(error)}); make it smaller.") from error
    except Exception as error:  # Pillow raises half a dozen kinds for a broken header
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); remove or replace it.") from error
        raise UserError(f"{path}: cannot be read as an image; remove or replace it.") from error
    if min(size) < 1:
        raise UserError(f"{path}: the image is {size[0]}x{size[1]} pixels; remove or replace it.")
    return size


def caption_file(image: str | os.PathLike, subset: Subset) -> str | None:
    """The path of the image's caption, where there is one."""
    extension = subset.caption_extension
    base = os.path.splitext(image)[0]
    # Upstream's tools end a name in four numbers for a face's position.
    names = [base, base.rsplit("_", 4)[0]] if base.count("_") >= 4 else [base]
    return next((name + extension for name in names if os.path.isfile(name + extension)), None)


def _read_caption(image: Path, subset: Subset) -> tuple[str | None, bool]:
    """The image's caption file as upstream reads it, None where there is none, and whether it has more lines than are read:
    all lines are read only with wildcards."""
    path = caption_file(image, subset)
    if path is None:
        return None, False
    if os.path.getsize(path) > LONGEST_CAPTION:
        raise UserError(f"{path}: a caption of {os.path.getsize(path):,} bytes, no model reads as much; shorten it.")
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save the caption as UTF-8.") from error
    text = "\n".join(line for line in lines if line) if subset.rules.enable_wildcard else (lines or [""])[0]
    if not text:
        if any(lines):
            raise UserError(f"{path}: its first line is empty, and only that is read; remove it.")
        raise UserError(f"{path}: empty caption; write the trigger word and tags, or remove all captions of the folder.")
    return text, not subset.rules.enable_wildcard and any(lines[1:])


def characters_of(subsets: Iterable[Subset], in_sentences: bool = False) -> list[Character]:
    """A character for each subset, sorted by trigger word, so that the order of a folder listing changes nothing.
    `in_sentences` says that captions are read as whole texts. Raises UserError for fewer than two characters, two with one
    trigger word, or unusable captions."""
    subsets = list(subsets)
    told = [_told(subset, in_sentences) for subset in subsets]
    characters = []
    for number, subset in enumerate(subsets):
        trigger = trigger_of(told[number], [*told[:number], *told[number + 1 :]])
        characters.append(Character(trigger.word, subset, tuple(told[number].captions), trigger))
    by_trigger: dict[str, Character] = {}
    for character in characters:
        other = by_trigger.setdefault(folded(character.trigger), character)
        if other is not character:
            raise shared(character.subset.folder, character.trigger, other.subset.folder)
    if len(characters) < 2:
        found_in = characters[0].subset.folder if characters else "no subset"
        raise UserError(
            f"a composite needs two characters or more, but the data has {len(characters)} ({found_in}); add another."
        )
    return sorted(characters, key=lambda character: character.trigger)


def _told(subset: Subset, in_sentences: bool) -> Told:
    if not subset.images:
        others = pictures_below(Path(subset.folder))
        unread = f" that sd-scripts reads, though {len(others):,} picture(s) such as {others[0]}" if others else ""
        raise UserError(f"{subset.folder}: no images in it{unread}; add some or remove the subset.")
    paths = [image.path for image in subset.images]
    has_files = any(image.caption for image in subset.images)
    return Told(
        subset.folder, subset.class_tokens, subset.trigger, subset.rules, paths, _captions(subset), has_files, in_sentences
    )


def _captions(subset: Subset) -> tuple[str, ...]:
    missing = [image.path for image in subset.images if not image.caption]
    if not missing:
        return tuple(str(image.caption) for image in subset.images)
    expected = os.path.splitext(missing[0])[0] + subset.caption_extension
    if len(missing) < len(subset.images):
        more = f" (and {len(missing) - 1} more like it)" if len(missing) > 1 else ""
        raise UserError(f"{expected}: missing caption{more}, while other images of the folder have one; write it.")
    if not subset.class_tokens:
        raise UserError(f"{expected}: missing caption; write the trigger word and tags, or give the subset class_tokens.")
    return (subset.class_tokens,) * len(subset.images)


def unread_captions(subset: Subset) -> str | None:
    """A line where no image has a caption, but files lie beside them that look like captions of another extension."""
    if not subset.images or any(image.caption for image in subset.images):
        return None
    names = [os.path.splitext(image.path)[0] for image in subset.images]
    for extension in (".txt", ".caption", ".TXT", ".Txt", ".CAPTION"):
        if extension != subset.caption_extension and any(os.path.isfile(name + extension) for name in names):
            return (
                f"{subset.folder}: captions end in {extension} and are not read, as caption_extension is "
                f'"{subset.caption_extension}"; set caption_extension = "{extension}".'
            )
    return None
