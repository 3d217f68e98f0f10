"""train_util.collator_class, wrapped so that the shared counters it is given, epoch and step, become known.

Why: the collator tells a dataset its epoch only after a batch was fetched, so a worker's first batch of an epoch
would be made for the epoch before (a persistent worker) or for none at all (a new one).
Until: upstream sets the epoch before the first fetch.
Fits: v0.10.0, v0.10.1, 48d368fa. Checked: its parameters; the trainers look it up in train_util.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from library import train_util

from sd_scripts_patches.tools import Undo, replace, require, require_parameters


def check() -> None:
    require(train_util, "collator_class")
    require_parameters(train_util.collator_class, "epoch", "step", "dataset")


def apply(on_counters: Callable[[Any, Any], None]) -> Undo:
    """Calls `on_counters` with the two `multiprocessing.Value`s whenever a collator is made."""
    original = train_util.collator_class

    def collator_class(epoch: Any, step: Any, dataset: Any) -> Any:
        on_counters(epoch, step)
        return original(epoch, step, dataset)

    return replace(train_util, "collator_class", collator_class)
