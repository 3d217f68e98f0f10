"""torch.utils.data.RandomSampler.__iter__, whose order can be handed in.

Why: upstream shuffles its batches with torch's global generator, so a resumed run takes those of an interrupted
epoch in another order, and trains some twice and others never.
Until: upstream's resume restores the epoch's order.
Fits: torch 2.x. Checked: the attribute; that the sampler knows its `data_source`, and that a loader makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, RandomSampler

from sd_scripts_patches.tools import Undo, replace, require, require_lookup, require_parameters


def check() -> None:
    require(RandomSampler, "__iter__")
    require_parameters(RandomSampler.__init__, "data_source")
    require_lookup(DataLoader.__init__, "RandomSampler", RandomSampler)


def apply(order: Callable[[int], Sequence[int] | None]) -> Undo:
    """`order(count)` is the order of this pass over `count` items, or None for torch's own."""
    original = RandomSampler.__iter__

    def __iter__(self: Any) -> Iterator[int]:
        chosen = order(len(self.data_source))
        return original(self) if chosen is None else iter(chosen)

    return replace(RandomSampler, "__iter__", __iter__)
