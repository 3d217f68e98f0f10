"""The values of `sample_prompts`: a prompt file, read as upstream's `load_prompts` does, or the prompts themselves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toml

from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.errors import UserError

# Those of upstream's flags that the gallery shows or the embedded trainer knows.
_FLAGS = {"n": "negative_prompt", "w": "width", "h": "height", "d": "seed", "s": "sample_steps", "l": "scale"}
_FILES = (".txt", ".toml", ".json")
SAMPLING = ("sample_every_n_steps", "sample_every_n_epochs", "sample_at_first")


@dataclass(frozen=True)
class Prompt:
    """What a sample was drawn from. `size` is (width, height) in pixels, None for upstream's default."""

    text: str
    negative: str = ""
    size: tuple[int, int] | None = None
    seed: int | None = None


def given_prompts(value: Any) -> list[str]:
    """The prompts in a value that holds prompts, one on each line, and not a file's name; else none."""
    lines = value if isinstance(value, list) else value.splitlines() if isinstance(value, str) else []
    # A file's name ends in an extension and has no space or comma, or such a file exists.
    if isinstance(value, str) and (value.endswith(_FILES) or os.path.isfile(value) or re.fullmatch(r"[^\s,]+\.\w{1,6}", value)):
        return []
    if not all(isinstance(line, str) for line in lines):
        return []
    return [line.strip() for line in lines if line.strip()]


def prompt_file_error(settings: KohyaSettings, where: str) -> UserError | None:
    """Why a prompt file cannot be sampled from. Upstream would train without samples, or stop at the first one."""
    value = settings.get("sample_prompts")
    if not isinstance(value, str) or not any(settings.get(key) for key in SAMPLING):
        return None
    path = Path(value)
    if not path.is_file():
        return UserError(f"{where} sample_prompts: {value} is not there; correct the path, or write the prompt itself.")
    if path.suffix not in _FILES:
        return UserError(f"{where} sample_prompts: {value} does not end in {', '.join(_FILES)}; rename it for what it holds.")
    prompts = read_prompts(path)
    if not prompts:
        what = "holds no prompts" if prompts is not None else f"cannot be read as prompts in {path.suffix[1:]}"
        return UserError(f"{where} sample_prompts: {value} {what}; write some, or leave sample_prompts out.")
    return None


def read_prompts(path: Path) -> list[Prompt] | None:
    """The prompts of a .txt, .toml or .json file in its order, by which samples are numbered. None for a file that is
    missing or holds something else, because training goes on without it, and samples can be shown without it."""
    try:
        return [_prompt(entry) for entry in _entries(path)]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):  # toml leaks its parser's own errors
        return None


def _entries(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return [line.strip() for line in text.split("\n") if line.strip() and not line.startswith("#")]
    if path.suffix == ".toml":
        common = toml.loads(text)["prompt"]
        return [{**common, **subset} for subset in common["subset"]]
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise TypeError("a list of prompts is wanted")
    return entries


def prompt_values(entry: Any) -> Mapping[str, Any]:
    """An entry of a prompt file, under upstream's names. A line is read as upstream's `line_to_prompt_dict` does: ` --` begins
    a flag, in either case; the last of two equal flags counts."""
    if not isinstance(entry, str):
        return entry
    parts = entry.split(" --")
    values: dict[str, Any] = {"prompt": parts[0]}
    for part in parts:
        flag = re.match(r"(n) (.+)|([whds]) (\d+)|(l) (\d+(?:\.\d+)?)", part, re.IGNORECASE)
        if flag:
            letter, value = (group for group in flag.groups() if group is not None)
            values[_FLAGS[letter.lower()]] = {"n": str, "l": float}.get(letter.lower(), int)(value)
    return values


def _prompt(entry: Any) -> Prompt:
    values = prompt_values(entry)
    width, height, seed = (_number(values.get(key)) for key in ("width", "height", "seed"))
    size = (width or 512, height or 512) if width or height else None
    return Prompt(str(values.get("prompt", "")), str(values.get("negative_prompt") or ""), size, seed)


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
