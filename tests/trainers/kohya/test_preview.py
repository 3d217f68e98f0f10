"""The costs that a preview shows, against those that sd-scripts prints. Its samples: test_dataset.py."""

from __future__ import annotations

import re
from pathlib import Path

from lycoris_composite.config import settings as config
from lycoris_composite.look.reading import read
from tests.world import World


def test_the_cost_is_what_training_says(world: World, tmp_path: Path) -> None:
    changes = {"max_train_epochs": 2, "gradient_accumulation_steps": 2, "dataset_repeats": 1}
    costs = read(config.load_settings(world.write_config(tmp_path, **changes))).costs

    run = world.train(tmp_path, **changes)

    assert run.code == 0
    said = [
        [int(number) for number in re.findall(rf"{words}[^:\n]*: (\d+)", run.output)]
        for words in ("num train images \\* repeats", "num batches per epoch", "num epochs", "total optimization steps")
    ]
    schedules = [cost.schedule for cost in costs]
    assert said == [
        [cost.samples for cost in costs],
        [schedule.batches for schedule in schedules],
        [schedule.epochs for schedule in schedules],
        [schedule.steps for schedule in schedules],
    ]
    assert f"caching panels: 100%|██████████| {costs[1].encoded}/" in run.output
