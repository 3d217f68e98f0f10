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
from collections.abc import Collection, Mapping
from typing import Any

from library import config_util

from sd_scripts_patches.tools import Misfit, Undo, all_of, replace, require, require_lookup

_SCHEMA = "DATASET_ASCENDABLE_SCHEMA"


def check() -> None:
    check_class("DreamBoothDataset", _SCHEMA, {"self", "subsets", "is_training_dataset"})


def check_class(name: str, schema: str, given_apart: Collection[str]) -> None:
    """Raises Misfit unless config_util has a class of this name, whose arguments are its params' fields and `given_apart`."""
    require(config_util, name, f"{name}Params", "ConfigSanitizer", "BlueprintGenerator")
    require(config_util.ConfigSanitizer, schema)
    made, params = getattr(config_util, name), getattr(config_util, f"{name}Params")
    fields = {field.name for field in dataclasses.fields(params)}
    arguments = set(inspect.signature(made.__init__).parameters)
    if fields != arguments - set(given_apart) or not arguments.issuperset(given_apart):
        raise Misfit(f"{name} takes {sorted(arguments)}, its params hold {sorted(fields)}")
    require_lookup(config_util.generate_dataset_group_by_blueprint, name, made)
    require_lookup(config_util.BlueprintGenerator.generate, f"{name}Params", params)


def apply(dataset_class: type, composite_schema: Any) -> Undo:
    """`dataset_class` takes upstream's arguments and `composite` and `seed`; `composite_schema` is voluptuous's."""
    fields = {"composite": "dict | None", "seed": "int | None"}
    return replace_class("DreamBoothDataset", dataset_class, fields, _SCHEMA, {"composite": composite_schema})


def replace_class(name: str, new: type, fields: Mapping[str, Any], schema: str, options: Mapping[str, Any]) -> Undo:
    """Puts `new` in the place of config_util's class. Its params get these fields (None by default), the schema these
    options."""
    params, sanitizer = getattr(config_util, f"{name}Params"), config_util.ConfigSanitizer
    more = [(field, kind, None) for field, kind in fields.items()]
    return all_of(
        [
            replace(config_util, name, new),
            replace(config_util, f"{name}Params", dataclasses.make_dataclass(f"{name}Params", more, bases=(params,))),
            replace(sanitizer, schema, {**getattr(sanitizer, schema), **options}),
        ]
    )
