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
    """For a stage whose states are saved: keeps LyCORIS to one way of computing, and says so. Left to itself it takes from
    call to call what was fastest in timings of its own, which a run that goes on would make anew."""
    if not _has_choice(settings) or _VARIABLE in os.environ:
        yield
        return
    key = next(key for key in _SAVES_STATES if settings.get(key))
    say(
        f"{key}: {_VARIABLE}={_PLAIN}, so that a run that goes on computes as the one before; set the variable yourself "
        "to let LyCORIS choose its kernels (auto)"
    )
    with environment.with_defaults({_VARIABLE: _PLAIN}):
        yield


def _has_choice(settings: KohyaSettings) -> bool:
    """Whether states are saved, and LyCORIS would choose: on a CPU it always computes with torch, as before version 4."""
    if not any(map(settings.get, _SAVES_STATES)) or not str(settings.network_module or "").startswith("lycoris"):
        return False
    with kept_quiet():
        return importlib.util.find_spec("lycoris.kernels") is not None and has_gpu()
