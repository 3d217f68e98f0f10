"""Runs the launcher and notes each batch that it trains on: `python traced.py TRACE LAUNCHER_ARGUMENTS`.

Every line reaches the file before the batch is trained, so it outlives a SIGKILL: `start`, `stage N`, or an epoch and the
batch's number in it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import bench


def main() -> None:
    bench.use_project()
    from lycoris_composite import launcher, randomness

    file, *arguments = sys.argv[1:]
    trace = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(text: str) -> None:
        os.write(trace, f"{text}\n".encode())

    seed_of, train = randomness.noise_seed, launcher._train

    def noise_seed(seed: int, epoch: int, index: int, rank: int) -> int:
        note(f"{epoch} {index}")
        return seed_of(seed, epoch, index, rank)

    def traced_train(task: Any, *rest: Any) -> None:
        note(f"stage {task.stage.number}")
        train(task, *rest)

    randomness.noise_seed = noise_seed  # before a trainer imports it by name
    launcher._train = traced_train
    note("start")
    sys.exit(launcher.main(arguments))


if __name__ == "__main__":
    main()
