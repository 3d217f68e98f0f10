"""TensorBoard's and wandb's logs: both stages as one run, and what its composites look like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lycoris_composite.composites.pictures import composite_picture
from lycoris_composite.composites.plan import Plan
from lycoris_composite.run import environment

_MOST_LOGGED, _MOST_LOOKED_AT = 12, 500  # composites


def log_as_one_run(accelerator: Any, prefix: str | None, name: str) -> None:
    """Lets every stage and every resumed run log to one place. Upstream would begin a new run each time, named by the
    clock; wandb takes its run's id from the environment."""
    folder = accelerator.logging_dir
    if folder is not None:
        own_prefix = re.split(r"[/\\]", prefix or "")[-1]  # what stands before it is in the folder
        accelerator.project_configuration.logging_dir = str(Path(folder).parent / f"{own_prefix}{name}")
    environment.name_wandb_run(re.sub(r"[/\\#?%:]", "-", name)[-64:])


def log_composites(trackers: Sequence[Any], plans: Sequence[Plan], step: int) -> None:
    """Logs what an epoch's first composites look like, one of each ordered pair as far as they go."""
    pictures: dict[str, Any] = {}
    for plan in plans:
        for index in range(min(plan.composites, _MOST_LOOKED_AT)):
            composite = plan.composite(1, index)
            pair = "/".join(panel.character.trigger for panel in composite.panels)
            if len(pictures) < _MOST_LOGGED and f"composites/{pair}" not in pictures:
                pictures[f"composites/{pair}"] = np.asarray(composite_picture(composite))[None]
    for tracker in trackers:
        options = {"step": step, "dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        if hasattr(tracker, "log_images"):
            tracker.log_images(pictures, **options)
