"""Runs a script and keeps the batches that upstream trains on: `python recording.py RESULT SD_SCRIPTS SCRIPT ARGUMENTS`.

RESULT is a file for torch.load: a list of batches. In `tokenized` each has what upstream's tokenize strategy makes of its
captions, one by one.
"""

from __future__ import annotations

import inspect
import runpy
import sys
from functools import wraps
from typing import Any

import torch


def main() -> None:
    result, sd_scripts, *command = sys.argv[1:]
    sys.path.append(sd_scripts)
    from train_network import NetworkTrainer

    process_batch = NetworkTrainer.process_batch
    batches: list[dict[str, Any]] = []

    @wraps(process_batch)
    def recorded(self: Any, batch: dict[str, Any], *rest: Any, **named: Any) -> Any:
        arguments = inspect.signature(process_batch).bind(self, batch, *rest, **named).arguments
        tokenized = [arguments["tokenize_strategy"].tokenize(caption) for caption in batch["captions"]]
        batches.append({**batch, "tokenized": tokenized})
        return process_batch(self, batch, *rest, **named)

    NetworkTrainer.process_batch = recorded
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        torch.save(batches, result)


if __name__ == "__main__":
    main()
