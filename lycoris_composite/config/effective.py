"""A stage to the files that it runs from: its config, its dataset_config and its sample prompts, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import toml

from lycoris_composite.architectures import CHROMA, CHROMA_GUIDANCE
from lycoris_composite.composites.plan import Plan
from lycoris_composite.composites.sample_prompts import sample_prompts
from lycoris_composite.config.datasets import source_tables
from lycoris_composite.config.options import SECRETS, KohyaSettings
from lycoris_composite.config.stages import STAGE_1, Stage
from lycoris_composite.data.buckets import Size


def effective(stage: Stage, plan: Plan, single_size: Size | None) -> tuple[Stage, dict[Path, str]]:
    """The stage as it runs, its sample_prompts naming a file, and the texts of the files that it runs from. Without prompts
    of its own they are made from the plan's characters, those of one character at `single_size`."""
    files = {}
    if not stage.settings.sample_prompts:
        prompts = stage.prompts or _own_prompts(stage, plan, single_size)
        name = stage.name if stage.prompts else stage.name.removesuffix(STAGE_1)
        file = stage.output_dir / f"{name}-prompts.json"
        files[file] = json.dumps(prompts, ensure_ascii=False, indent=1)
        stage = replace(stage, settings=KohyaSettings({**stage.settings, "sample_prompts": str(file)}))
    tables = dataset_tables(stage)
    if tables is not None:
        files[stage.dataset_config_file] = toml_text(tables)
    files[stage.config_file] = config_text(stage)
    return stage, files


def _own_prompts(stage: Stage, plan: Plan, single_size: Size | None) -> list[dict[str, Any]]:
    guidance = CHROMA_GUIDANCE if stage.settings.model_type == CHROMA else {}
    prompts = sample_prompts(plan, single_size or plan.canvas.size, stage.architecture.is_guided)
    return [{**prompt, **guidance} for prompt in prompts]


def dataset_tables(stage: Stage) -> dict[str, Any] | None:
    """The tables of the stage's dataset_config, if it has one. Stage 2's are overridden and have a composite table for each
    dataset. Stage 1's have no `trigger`, so that plain upstream reads them."""
    if not stage.settings.dataset_config:
        return None
    tables = source_tables(stage)
    for dataset in tables.get("datasets", []):
        if stage.composite is not None:
            dataset["composite"] = asdict(stage.composite)
            continue
        for subset in dataset.get("subsets", []):
            subset.pop("trigger", None)
    return tables


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
