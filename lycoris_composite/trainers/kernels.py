"""LyCORIS 4's kernels, pinned where a run is to go on exactly as it would have gone on."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.run import environment
from lycoris_composite.trainers.machine import has_gpu, kept_quiet

# LyCORIS reads it in every call that could take a kernel. "torch" is what LyCORIS 3 always computed with.
_VARIABLE, _PLAIN = "LYCORIS_KERNEL_BACKEND", "torch"
_SAVES_STATES = ("save_state", "save_state_on_train_end", "resume")


@contextmanager
def exact_kernels(settings: KohyaSettings, say: Callable[[str], None]) -> Iterator[None]:
    """For a stage whose states are saved: keeps LyCORIS to one way of computing, and says so. Left alone, LyCORIS measures
    its kernels and takes the fastest for each call; a run that goes on would measure again."""
    saving = [key for key in _SAVES_STATES if settings.get(key)]
    if not saving or _VARIABLE in os.environ or not _chooses(settings.network_module or ""):
        yield
        return
    say(
        f"{saving[0]}: {_VARIABLE}={_PLAIN}, so that a run that goes on computes as the one before; set the variable yourself "
        "to let LyCORIS choose its kernels (auto)"
    )
    with environment.with_defaults({_VARIABLE: _PLAIN}):
        yield


def _chooses(network_module: str) -> bool:
    """Whether LyCORIS would choose a kernel: on a CPU it always computes with torch, as before version 4."""
    with kept_quiet():
        return network_module.startswith("lycoris") and importlib.util.find_spec("lycoris.kernels") is not None and has_gpu()
