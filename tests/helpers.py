"""Builders that several test files share. Nothing here touches a disk unless it is handed a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import toml
from hypothesis import settings
from PIL import Image

from lycoris_composite.composites.plan import CompositeOptions, Plan
from lycoris_composite.config import settings as config
from lycoris_composite.data.buckets import Canvas
from lycoris_composite.data.characters import Character, Subset, TrainingImage
from lycoris_composite.data.tags import CaptionRules

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"

# No deadline: the machine may be busy, and no property here is about time.
fast = settings(max_examples=40, deadline=None)
thorough = settings(max_examples=120, deadline=None)


# --- in memory ---------------------------------------------------------------------------------------------------


def character(
    trigger: str,
    sizes: Sequence[tuple[int, int]] = ((96, 96),) * 3,
    *,
    repeats: int = 1,
    flip_aug: bool = False,
    tags: str = "smile, hat, red hair, sky",
    **rules: Any,
) -> Character:
    """A character that is on no disk: one image per size, each with a tag of its own after the common ones."""
    captions = tuple(f"{trigger}, {tags}, {trigger} picture {number}" for number in range(len(sizes)))
    images = tuple(
        TrainingImage(f"{trigger}/{number:06}.png", size, caption)
        for number, (size, caption) in enumerate(zip(sizes, captions, strict=True))
    )
    subset = Subset(trigger, repeats, None, ".txt", CaptionRules(keep_tokens=1, **rules), images, flip_aug)
    return Character(trigger, subset, captions)


def plan(
    characters: Sequence[Character] | None = None,
    *,
    canvas: Canvas | None = None,
    options: CompositeOptions | None = None,
    batch_size: int = 2,
    seed: int = 42,
) -> Plan:
    """A plan of three characters with three images each, unless told otherwise."""
    characters = characters or [character("rin"), character("uzuki"), character("mio")]
    canvas = canvas or Canvas((512, 512), 64, (256, 1024))
    return Plan(characters, canvas, options or CompositeOptions(), batch_size, seed)


# --- on disk -----------------------------------------------------------------------------------------------------


def write_subset(folder: Path, captions: Mapping[str, str | bytes | None], size: tuple[int, int] = (32, 32)) -> Path:
    """A folder with a small image per name and its caption in `.txt`; None writes no caption. Returns `folder`."""
    folder.mkdir(parents=True)
    for name, caption in captions.items():
        Image.new("RGB", size, (90, 60, 30)).save(folder / f"{name}.png")
        if caption is not None:
            content = caption if isinstance(caption, bytes) else caption.encode()
            (folder / f"{name}.txt").write_bytes(content)
    return folder


def write_characters(folder: Path, *names: str, images: int = 2, repeats: int = 1) -> Path:
    """kohya's `<repeats>_<name>` folders, captions beginning with the name. Returns `folder`."""
    for name in names:
        captions = {f"{number:02}": f"{name}, smile, tag {number}" for number in range(1, images + 1)}
        write_subset(folder / f"{repeats}_{name}", captions)
    return folder


def write_config(path: Path, tables: Mapping[str, Any] | str) -> Path:
    """A config file from tables or from TOML text. Returns `path`."""
    path.write_text(tables if isinstance(tables, str) else toml.dumps(tables), encoding="utf-8")
    return path


def load_config(folder: Path, text: str, *overrides: str) -> config.Settings:
    """The settings of a config file with this text, `--set` applied."""
    return config.load_settings(write_config(folder / "cg3.toml", text), overrides)


def kohya_settings(folder: Path, composite: Mapping[str, Any] | None = None, **kohya: Any) -> config.Settings:
    """The settings of a config file: `kohya` in one table, `composite` in the other. None leaves a key out."""
    arguments = {"output_dir": str(folder / "out"), "output_name": "cg3", "seed": 42, **kohya}
    arguments = {key: value for key, value in arguments.items() if value is not None}
    return config.load_settings(write_config(folder / "cg3.toml", {"arguments": arguments, "composite": composite or {}}))


# --- the command line --------------------------------------------------------------------------------------------


def python(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python on the checkout's code, as a user's shell would: 80 columns, and no sd-scripts named."""
    own = {key: value for key, value in os.environ.items() if key not in ("SD_SCRIPTS_DIR", "RANK", "PYTHONPATH")}
    own |= {"PYTHONPATH": str(ROOT), "COLUMNS": "80", **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, timeout=120, check=False)
