"""The collator_class that NetworkTrainer.train looks up, wrapped so that the shared counters it is given, epoch and
step, become known.

Why: the collator tells a dataset its epoch only after a batch was fetched, so a worker's first batch of an epoch
would be made for the epoch before (a persistent worker) or for none at all (a new one).
Until: upstream sets the epoch before the first fetch.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: its parameters; that the trainer looks
it up, wherever it is defined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from train_network import NetworkTrainer

from sd_scripts_patches.tools import Undo, looked_up, replace_everywhere, require, require_parameters


def check() -> None:
    require(NetworkTrainer, "train")
    require_parameters(_original(), "epoch", "step", "dataset")


def _original() -> Any:
    return looked_up(NetworkTrainer.train, "collator_class")


def apply(on_counters: Callable[[Any, Any], None]) -> Undo:
    """Calls `on_counters` with the two `multiprocessing.Value`s whenever a collator is made."""
    original = _original()

    def collator_class(epoch: Any, step: Any, dataset: Any) -> Any:
        on_counters(epoch, step)
        return original(epoch, step, dataset)

    return replace_everywhere("collator_class", original, collator_class)
