"""What a run sets in the environment, for libraries that read it there, and how it is set back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def set_back() -> Iterator[None]:
    """Whatever is set inside is set back at the end. A function's decorator, too."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def with_defaults(values: Mapping[str, str]) -> Iterator[None]:
    """These are set for a while; what somebody else has set stays."""
    with set_back():
        set_defaults(values)
        yield


def set_defaults(values: Mapping[str, str]) -> None:
    """Sets what nobody has set."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def go_offline() -> None:
    """Keeps the hub's libraries from fetching anything. They read it when they are imported, so call this before that."""
    set_defaults({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})


def stay_on_cpu() -> None:
    """Keeps accelerate off every GPU."""
    os.environ["ACCELERATE_USE_CPU"] = "true"


def name_wandb_run(name: str) -> None:
    """wandb takes its run's id from the environment, and goes on with the run of that id."""
    set_defaults({"WANDB_RUN_ID": name, "WANDB_RESUME": "allow"})
