"""Prompt files as upstream's `load_prompts` reads them, as far as a picture of them shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toml

_FLAGS = {"n": "negative_prompt", "w": "width", "h": "height", "d": "seed"}  # upstream's; others change nothing shown


@dataclass(frozen=True)
class Prompt:
    """What a sample was drawn from. `size` is (width, height) in pixels, None where the file leaves it to upstream."""

    text: str
    negative: str = ""
    size: tuple[int, int] | None = None
    seed: int | None = None


def read_prompts(path: Path) -> list[Prompt] | None:
    """The prompts of a .txt, .toml or .json file in its order, which is how samples are numbered. None for a file that
    is not there or holds something else: training goes on without it too, and pictures can be shown without it."""
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
        return [{**common, **own} for own in common["subset"]]
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise TypeError("a list of prompts is wanted")
    return entries


def _prompt(entry: Any) -> Prompt:
    values: Mapping[str, Any] = _of_line(entry) if isinstance(entry, str) else entry
    width, height, seed = (_number(values.get(key)) for key in ("width", "height", "seed"))
    size = (width or 512, height or 512) if width or height else None
    return Prompt(str(values.get("prompt", "")), str(values.get("negative_prompt") or ""), size, seed)


def _of_line(line: str) -> dict[str, str]:
    """Upstream's `line_to_prompt_dict`: ` --` parts the flags, which may be written large, and the last one counts."""
    parts = line.split(" --")
    values = {"prompt": parts[0]}
    for part in parts:
        flag = re.match(r"(n) (.+)|([whd]) (\d+)", part, re.IGNORECASE)
        if flag:
            values[_FLAGS[(flag[1] or flag[3]).lower()]] = flag[2] or flag[4]
    return values


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
