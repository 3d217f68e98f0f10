"""Runs train_composite.py's launcher and writes down when each optimizer step ended, and the process's peak memory.

    python recorded.py RECORD.json --config cg3.toml --cpu

RECORD.json: `runs`, a list for each optimizer (so for each stage) of [seconds, seconds of CPU], and `peak_rss` in bytes.
Changes nothing in what is run: torch's own hook tells of the steps.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from lycoris_composite import launcher


def main(record: Path, arguments: list[str]) -> int:
    runs: list[list[tuple[float, float]]] = []

    def on_step(optimizer: Optimizer, *_: object) -> None:
        # Numbered on the optimizer: a later one may get the address of an earlier one.
        number = vars(optimizer).setdefault("recorded_run", len(runs))
        if number == len(runs):
            runs.append([])
        runs[number].append((time.perf_counter(), time.process_time()))

    register_optimizer_step_post_hook(on_step)
    code = launcher.main(arguments)
    record.write_text(json.dumps({"runs": runs, "peak_rss": _peak_rss()}), encoding="utf-8")
    return code


def _peak_rss() -> int:
    """Bytes. Where Linux tells it, the peak since this program began: getrusage's own counts what the process was before,
    which is the parent's memory. macOS counts in bytes."""
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="utf-8").splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
