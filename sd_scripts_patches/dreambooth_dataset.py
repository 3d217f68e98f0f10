"""config_util.DreamBoothDataset, DreamBoothDatasetParams and ConfigSanitizer.DATASET_ASCENDABLE_SCHEMA, replaced so
that a `[datasets.composite]` table is read, checked and handed to the dataset, in every trainer at once.

Why: upstream's schema and params name every option, so a table it does not know is an error and never arrives.
Until: upstream hands unknown dataset options through, or lets a dataset class register options of its own.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: the schema is a dict on the class, the params are a dataclass whose fields
are the dataset's arguments less `subsets` and `is_training_dataset`, the dataset is looked up as a global.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from library import config_util

from sd_scripts_patches.tools import Misfit, Undo, all_of, replace, require, require_lookup

_GIVEN_APART = {"self", "subsets", "is_training_dataset"}


def check() -> None:
    require(config_util, "DreamBoothDataset", "DreamBoothDatasetParams", "ConfigSanitizer", "BlueprintGenerator")
    require(config_util.ConfigSanitizer, "DATASET_ASCENDABLE_SCHEMA")
    fields = {field.name for field in dataclasses.fields(config_util.DreamBoothDatasetParams)}
    arguments = set(inspect.signature(config_util.DreamBoothDataset.__init__).parameters)
    if fields != arguments - _GIVEN_APART or "is_training_dataset" not in arguments:
        raise Misfit(f"DreamBoothDataset takes {sorted(arguments)}, its params hold {sorted(fields)}")
    build, plan = config_util.generate_dataset_group_by_blueprint, config_util.BlueprintGenerator.generate
    require_lookup(build, "DreamBoothDataset", config_util.DreamBoothDataset)
    require_lookup(plan, "DreamBoothDatasetParams", config_util.DreamBoothDatasetParams)


def apply(dataset_class: type, composite_schema: Any) -> Undo:
    """`dataset_class` takes upstream's arguments and `composite` and `seed`; `composite_schema` is voluptuous's."""
    params = dataclasses.make_dataclass(
        "DreamBoothDatasetParams",
        [("composite", "dict | None", None), ("seed", "int | None", None)],
        bases=(config_util.DreamBoothDatasetParams,),
    )
    sanitizer = config_util.ConfigSanitizer
    schema = {**sanitizer.DATASET_ASCENDABLE_SCHEMA, "composite": composite_schema}
    return all_of(
        [
            replace(config_util, "DreamBoothDataset", dataset_class),
            replace(config_util, "DreamBoothDatasetParams", params),
            replace(sanitizer, "DATASET_ASCENDABLE_SCHEMA", schema),
        ]
    )
