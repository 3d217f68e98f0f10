"""The table of kohya's keys, against upstream's own parser."""

from __future__ import annotations

from pathlib import Path

from lycoris_composite.config.options import KEYS
from lycoris_composite.trainers.kohya.script import Upstream

OF_TABLES = {"class_tokens", "trigger", "batch_size", "num_repeats", "is_reg"}  # of a dataset_config, and no flags
OF_OTHER_SCRIPTS = {"cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk", "show_timesteps"}
KINDS = {Path: str, "int_or_float": float}  # what TOML can hold of upstream's own types


def test_kinds_and_defaults_are_upstreams(sd_scripts: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(sd_scripts))
    flags = {action.dest: action for action in Upstream(sd_scripts, "train_network").parser()._actions}
    assert set(KEYS) - set(flags) == OF_TABLES | OF_OTHER_SCRIPTS
    for name in set(KEYS) & set(flags):
        key, flag = KEYS[name], flags[name]
        kind = bool if flag.nargs == 0 else flag.type or str
        kind = KINDS.get(kind) or KINDS.get(getattr(kind, "__name__", "")) or kind
        assert key.kind in (kind, object), name
        assert key.is_list == (flag.nargs == "*"), name
        assert (key.default or None) == (flag.default or None), name  # upstream has None, False and 0 for "off"
