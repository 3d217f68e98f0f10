"""What one process of several knows, known to all."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import TCPStore

from lycoris_composite.errors import UserError
from lycoris_composite.run.signals import StopRequest

_LONGEST_WAIT = timedelta(hours=1)  # the main process reads all inputs meanwhile


def from_main_process(make: Callable[[], Any]) -> Any:
    """`make()` of the main process, in every process, also before a trainer has brought them together. Where it raises
    UserError there, it is raised everywhere."""
    is_main = os.environ["RANK"] == "0"
    # torchrun's agent has a store at this address; else the main process makes the one that training will share.
    serves = is_main and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(*address, is_master=serves, timeout=_LONGEST_WAIT, wait_for_workers=False, multi_tenant=True)
    key = f"lycoris-composite/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if not is_main:
        made = pickle.loads(store.get(key))
        if made is None:
            raise UserError("the main process has said why it stopped.")
        return made
    try:
        made = make()
    except UserError:
        store.set(key, pickle.dumps(None))
        raise
    store.set(key, pickle.dumps(made))
    return made


def stop_signal(stop: StopRequest, accelerator: Any) -> int:
    """The signal that asks to stop, or 0; the same in every process: one left alone would wait for the others forever."""
    signal = stop.signal or 0
    if accelerator.num_processes > 1:
        signals = accelerator.gather(torch.tensor([signal], device=accelerator.device))
        signal = int(signals.max())
    return signal
