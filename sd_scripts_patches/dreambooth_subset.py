"""config_util.DreamBoothSubset, DreamBoothSubsetParams and ConfigSanitizer.DB_SUBSET_DISTINCT_SCHEMA, replaced so that
a `[[datasets.subsets]]` table may say `trigger`, and the subset carries it.

Why: upstream's schema and params name every option of a subset, so a table with one more is an error.
Until: upstream hands unknown subset options through, or lets a dataset class register options of its own.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: the schema is a dict on the class that names image_dir, the params are
a dataclass whose fields are the subset's arguments, both classes are looked up as globals of config_util.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from library import config_util
from library.config_util import DreamBoothSubset, DreamBoothSubsetParams

from sd_scripts_patches.tools import Misfit, Undo, all_of, replace, require, require_lookup


class SubsetWithTrigger(DreamBoothSubset):
    """Of module level, so that spawned loader workers can unpickle it."""

    def __init__(self, *args: Any, trigger: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trigger = trigger


def check() -> None:
    require(config_util, "DreamBoothSubset", "DreamBoothSubsetParams", "ConfigSanitizer", "BlueprintGenerator")
    require(config_util.ConfigSanitizer, "DB_SUBSET_DISTINCT_SCHEMA")
    if "image_dir" not in config_util.ConfigSanitizer.DB_SUBSET_DISTINCT_SCHEMA:
        raise Misfit("ConfigSanitizer.DB_SUBSET_DISTINCT_SCHEMA no longer names image_dir")
    fields = {field.name for field in dataclasses.fields(config_util.DreamBoothSubsetParams)}
    arguments = set(inspect.signature(config_util.DreamBoothSubset.__init__).parameters) - {"self"}
    if fields != arguments:
        raise Misfit(f"DreamBoothSubset takes {sorted(arguments)}, its params hold {sorted(fields)}")
    build, plan = config_util.generate_dataset_group_by_blueprint, config_util.BlueprintGenerator.generate
    require_lookup(build, "DreamBoothSubset", config_util.DreamBoothSubset)
    require_lookup(plan, "DreamBoothSubsetParams", config_util.DreamBoothSubsetParams)


def apply() -> Undo:
    params = dataclasses.make_dataclass(
        "DreamBoothSubsetParams", [("trigger", "str | None", None)], bases=(DreamBoothSubsetParams,)
    )
    sanitizer = config_util.ConfigSanitizer
    schema = {**sanitizer.DB_SUBSET_DISTINCT_SCHEMA, "trigger": str}
    return all_of(
        [
            replace(config_util, "DreamBoothSubset", SubsetWithTrigger),
            replace(config_util, "DreamBoothSubsetParams", params),
            replace(sanitizer, "DB_SUBSET_DISTINCT_SCHEMA", schema),
        ]
    )
