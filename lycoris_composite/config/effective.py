"""A stage to the config files that it runs from, as text."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import toml

from lycoris_composite.config.datasets import FLAG_NAMES
from lycoris_composite.config.settings import SECRETS
from lycoris_composite.config.stages import Stage


def config_text(stage: Stage) -> str:
    """The stage's effective config, which plain upstream reads with `--config_file`: it skips the `composite` value
    in the last table, which the plugin finds (`lycoris-composite run`). Secrets are left out."""
    settings = {key: value for key, value in stage.settings.items() if key not in SECRETS}
    if settings.get("dataset_config"):
        settings["dataset_config"] = str(stage.dataset_config_file)
    elif stage.composite is not None:
        settings["lycoris_composite"] = {"composite": asdict(stage.composite)}
    tables = {key: value for key, value in settings.items() if isinstance(value, dict)}
    plain = {key: value for key, value in settings.items() if key not in tables and value is not None}
    return toml_text({**plain, **tables})


def toml_text(tables: Mapping[str, Any]) -> str:
    """TOML that reads back as it was. toml's own strings do not: it takes the `\\x` of a Windows path for an escape."""
    encoder = toml.TomlEncoder()
    encoder.dump_funcs[str] = lambda text: json.dumps(text, ensure_ascii=False)
    return toml.dumps(dict(tables), encoder)


def dataset_config(stage: Stage, source: Mapping[str, Any], stage2: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's dataset_config: the source's, in stage 2 overridden and with a composite table for each dataset. Stage
    1's has no `trigger`, so that plain upstream reads it."""
    if stage.composite is None:
        config = copy.deepcopy(dict(source))
        for subset in (subset for dataset in config.get("datasets", []) for subset in dataset.get("subsets", [])):
            subset.pop("trigger", None)
        return config
    config = overridden_datasets(source, stage2)
    for dataset in config.get("datasets", []):
        dataset["composite"] = asdict(stage.composite)
    return config


def overridden_datasets(source: Mapping[str, Any], stage2: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset_config in which nothing wins over `[composite.stage2]`: what that names is taken out at every level,
    as upstream lets each of them win over the flags."""
    config = copy.deepcopy(dict(source))
    names = {name: name for name in stage2} | {own: flag for own, flag in FLAG_NAMES.items() if flag in stage2}
    datasets = config.get("datasets", [])
    for table in [config.get("general", {}), *datasets, *(s for dataset in datasets for s in dataset.get("subsets", []))]:
        for name in names:
            table.pop(name, None)
    return config
