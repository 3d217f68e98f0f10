"""What lies in a subset's folder and nobody trains on, or trains on otherwise than it looks: a line for each kind."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lycoris_composite.data.characters import Subset
from lycoris_composite.data.images import extensions, is_picture, pictures_below

_MOST_SHOWN = 3  # names
# How upstream's cache files of latents are called, by the end of their names; `.npz` alone is the old one of SD and SDXL.
_SIZED = re.compile(r"(?P<stem>.+)_(?P<width>\d{4,})x(?P<height>\d{4,})(?P<end>_[a-z0-9]+\.npz)")
_WITH_OLD_NAMES = ("_sd.npz", "_sdxl.npz")


def some(names: Sequence[str]) -> str:
    """A few of the names, and how many more there are."""
    more = f" and {len(names) - _MOST_SHOWN:,} more" if len(names) > _MOST_SHOWN else ""
    return f"{', '.join(names[:_MOST_SHOWN])}{more}"


def left_out(subset: Subset, latents: str | None) -> Iterator[str]:
    """The lines of one subset. `latents` ends the names of the cache files of latents that stage 1 reads beside its
    images; None where it reads none. A folder that cannot be listed has no lines."""
    try:
        changed = _files(Path(subset.folder))
        below = [name for name in pictures_below(Path(subset.folder), depth=9) if os.path.dirname(name)]
    except OSError:
        return
    pictures = [name for name in changed if is_picture(name)]
    read = [name for name in pictures if os.path.splitext(name)[1] in extensions() and name[0] != "."]
    lines = [
        *_pictures(subset, pictures, below),
        *_captions(subset, changed, pictures, read),
        *_one_name(read, latents),
        *(_stale(subset, changed, read, latents) if latents else ()),
    ]
    yield from (f"{subset.folder}: {line}" for line in lines)


def _files(folder: Path) -> dict[str, int]:
    """A folder's files by name, sorted, and when each was last changed (ns)."""
    with os.scandir(folder) as entries:
        return dict(sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.is_file()))


def _pictures(subset: Subset, pictures: Iterable[str], below: Sequence[str]) -> Iterator[str]:
    hidden = [name for name in pictures if name[0] == "." and not name.startswith("._")]  # those are macOS's own
    others = [name for name in pictures if name[0] != "." and os.path.splitext(name)[1] not in extensions()]
    if others:
        kinds = ", ".join(sorted({os.path.splitext(name)[1] for name in others}))
        yield (
            f"{len(others):,} picture(s) left out, as sd-scripts does not read {kinds}: {some(others)}; "
            "save them as .png or .jpg."
        )
    if hidden:
        yield f"{len(hidden):,} hidden picture(s) left out: {some(hidden)}; rename them."
    if below:
        yield f"{len(below):,} picture(s) in subfolders left out: {some(below)}; move them into the folder itself."
    if subset.small and subset.largest_skipped:
        width, height = subset.largest_skipped
        yield (
            f"{len(subset.small):,} picture(s) left out, as they have no more than {width}x{height} pixels "
            f"(skip_image_resolution): {some(subset.small)}."
        )


def _captions(subset: Subset, files: Iterable[str], pictures: Iterable[str], read: Collection[str]) -> Iterator[str]:
    several = [os.path.basename(image.path) for image in subset.images if image.has_more_lines]
    if several:
        yield (
            f"of {len(several):,} caption(s) with several lines only the first is read: {some(several)}; "
            "write one line, or set enable_wildcard = true to draw one."
        )
    stems = {os.path.splitext(name)[0] for name in pictures}
    stems |= {"_".join(stem.split("_")[:-4]) for stem in stems if stem.count("_") >= 4}  # upstream's for a face's position
    captions = [os.path.splitext(name) for name in files if name.endswith(subset.caption_extension)]
    alone = [stem + suffix for stem, suffix in captions if suffix == subset.caption_extension and stem not in stems]
    if alone and read:
        yield f"{len(alone):,} caption(s) without a picture: {some(alone)}; add the pictures, or remove them."


def _one_name(read: Iterable[str], latents: str | None) -> Iterator[str]:
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in read:
        by_stem[os.path.splitext(name)[0]].append(name)
    pairs = [" and ".join(names) for names in by_stem.values() if len(names) > 1]
    if pairs:
        shared = "one caption file" if latents is None else "one caption file and one cache file, so stage 1 sees one for all"
        yield f"pictures of one name have {shared}: {some(pairs)}; rename them."


def _stale(subset: Subset, changed: Mapping[str, int], read: Iterable[str], latents: str) -> Iterator[str]:
    """Upstream takes a cache file for its picture's by its name alone."""
    sizes = {os.path.basename(image.path): image.size for image in subset.images}
    old = []
    for name, cache, size in _with_caches(read, changed, latents):
        has_other_size = size and name in sizes and sorted(size) != sorted(sizes[name])  # turned by EXIF, or not
        if has_other_size or changed[name] > changed[cache]:
            old.append(f"{name} ({cache})")
    if old:
        yield (
            f"{len(old):,} picture(s) are newer than sd-scripts' latents beside them or of another size, and stage 1 trains "
            f"on those latents: {some(old)}; delete these .npz files."
        )


def replaced(paths: Collection[str], latents: str) -> Iterator[str]:
    """A line for each folder with pictures that are others than in an earlier run, though no newer than the cache files
    beside them: whoever copies a file may keep its time."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        by_folder[os.path.dirname(path)].append(os.path.basename(path))
    for folder, names in by_folder.items():
        changed = _files(Path(folder))
        cached = _with_caches(names, changed, latents)
        old = [f"{name} ({cache})" for name, cache, _ in cached if changed[name] <= changed[cache]]
        if old:
            yield (
                f"{folder}: {len(old):,} picture(s) are others than in the run before, and stage 1 may train on "
                f"sd-scripts' latents of those: {some(old)}; delete these .npz files."
            )


def _with_caches(
    pictures: Iterable[str], files: Iterable[str], latents: str
) -> Iterator[tuple[str, str, tuple[int, int] | None]]:
    """Each picture that has a cache file: its name, that one's, and the picture's size in that one's name."""
    caches: dict[str, tuple[str, tuple[int, int] | None]] = {}
    names = [name for name in files if name.endswith(".npz")]
    for name in names:
        match = _SIZED.fullmatch(name)
        if match and match["end"] == latents:
            caches[match["stem"]] = name, (int(match["width"]), int(match["height"]))
    if latents in _WITH_OLD_NAMES:  # which wins, where it is there
        caches |= {name[:-4]: (name, None) for name in names}
    stems = {name: os.path.splitext(name)[0] for name in pictures}
    return ((name, *caches[stem]) for name, stem in stems.items() if stem in caches)
