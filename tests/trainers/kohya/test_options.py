"""The table of kohya's keys, against upstream's own parser."""

from __future__ import annotations

from pathlib import Path

from lycoris_composite.architectures import ARCHITECTURES, BUILTIN
from lycoris_composite.config.options import KEYS
from lycoris_composite.trainers.kohya.script import Upstream

OF_TABLES = {"class_tokens", "trigger", "batch_size", "num_repeats", "is_reg"}  # of a dataset_config, and no flags
KINDS = {Path: str, "int_or_float": float}  # what TOML can hold of upstream's own types


def test_kinds_and_defaults_are_upstreams(sd_scripts: Path, monkeypatch) -> None:
    """A key that scripts give different defaults has none here."""
    monkeypatch.syspath_prepend(str(sd_scripts))
    scripts = [name for name in ARCHITECTURES if name != BUILTIN]
    parsers = [Upstream(sd_scripts, script).parser() for script in scripts]
    assert set(KEYS) - {action.dest for parser in parsers for action in parser._actions} == OF_TABLES
    for name, key in KEYS.items():
        flags = [action for parser in parsers for action in parser._actions if action.dest == name]
        for flag in flags:
            kind = bool if flag.nargs == 0 else flag.type or str
            kind = KINDS.get(kind) or KINDS.get(getattr(kind, "__name__", "")) or kind
            assert key.kind in (kind, object), name
            assert key.is_list == (flag.nargs == "*"), name
        if flags:
            defaults = {flag.default or None for flag in flags}  # upstream has None, False and 0 for "off"
            assert (key.default or None) == (defaults.pop() if len(defaults) == 1 else None), name
