"""config_util.DreamBoothSubset, DreamBoothSubsetParams and ConfigSanitizer.DB_SUBSET_DISTINCT_SCHEMA, replaced so that
a `[[datasets.subsets]]` table may say `trigger`, and the subset carries it.

Why: upstream's schema and params name every option of a subset, so a table with one more is an error.
Until: upstream hands unknown subset options through, or lets a dataset class register options of its own.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: as for the dataset; the schema names image_dir.
"""

from __future__ import annotations

from typing import Any

from library import config_util
from library.config_util import DreamBoothSubset

from sd_scripts_patches.dreambooth_dataset import check_class, replace_class
from sd_scripts_patches.tools import Misfit, Undo

_SCHEMA = "DB_SUBSET_DISTINCT_SCHEMA"


class SubsetWithTrigger(DreamBoothSubset):
    """Of module level, so that spawned loader workers can unpickle it."""

    def __init__(self, *args: Any, trigger: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trigger = trigger


def check() -> None:
    check_class("DreamBoothSubset", _SCHEMA, {"self"})
    if "image_dir" not in getattr(config_util.ConfigSanitizer, _SCHEMA):
        raise Misfit(f"ConfigSanitizer.{_SCHEMA} no longer names image_dir")


def apply() -> Undo:
    return replace_class("DreamBoothSubset", SubsetWithTrigger, {"trigger": "str | None"}, _SCHEMA, {"trigger": str})
