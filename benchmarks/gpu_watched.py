"""What gpu.py runs in a process of its own: `python gpu_watched.py RECORD SD_SCRIPTS WHAT ARGUMENTS`.

WHAT is `plain` (upstream's own script, then its flags), `stages` (train_composite.py's flags) or `doctor` (a config).
RECORD gets a line of JSON for each thing that happens, at once, so that a run that ends early has said how far it came.
Nothing in the training is changed: upstream's recorder of losses tells when the loop begins, and when a step has ended
on the GPU too, because it takes the loss as a number.
"""

from __future__ import annotations

import json
import os
import platform
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

Note = Callable[..., None]


def main() -> int:
    record, sd_scripts, what, *arguments = sys.argv[1:]
    file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(**said: Any) -> None:
        os.write(file, f"{json.dumps(said)}\n".encode())

    if what == "doctor":
        return _examine(arguments[0], sd_scripts, note)
    sys.path.insert(0, sd_scripts)
    _watch(note)
    return {"plain": _run_plainly, "stages": _run_stages}[what](Path(sd_scripts), arguments)


def _watch(note: Note) -> None:
    from library.train_util import LossRecorder

    began: list[Any] = []  # the recorder of the loop's own losses is made first, those of a validation after it
    make, add = LossRecorder.__init__, LossRecorder.add

    def made(self: Any) -> None:
        make(self)
        if not began:
            began.append(self)
            note(what="loop", time=time.perf_counter(), memory=_peak(), machine=_machine())
            _forget_peak()

    def added(self: Any, **step: Any) -> None:
        add(self, **step)
        if self is began[0]:
            size = None if self.__dict__.setdefault("measured", 0) else _picture_size(sys._getframe(1).f_locals)
            self.measured += 1
            note(what="step", time=time.perf_counter(), memory=_peak(), size=size)

    LossRecorder.__init__, LossRecorder.add = made, added


def _picture_size(loop: dict[str, Any]) -> list[int] | None:
    """How many pictures the batch in the training loop has, and their latents' width and height in cells."""
    latents = (loop.get("batch") or {}).get("latents")
    return None if latents is None else [latents.shape[0], latents.shape[-1], latents.shape[-2]]


def _peak() -> list[int] | None:
    """Bytes: the most that was allocated and reserved on the GPU. None where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]


def _forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _machine() -> str:
    import torch

    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    if not torch.cuda.is_available():
        return f"no GPU, {os.cpu_count()} cores, {versions}"
    return f"{torch.cuda.get_device_name()}, {torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB, {versions}"


def _run_plainly(sd_scripts: Path, arguments: Sequence[str]) -> int:
    """Upstream, with the one patch without which LyCORIS 4 makes no network for SD 1.x."""
    from sd_scripts_patches import lycoris_timestep_embedding

    lycoris_timestep_embedding.apply()
    script, *flags = arguments
    path = str(sd_scripts / f"{script}.py")
    sys.argv = [path, *flags]
    runpy.run_path(path, run_name="__main__")
    return 0


def _run_stages(_: Path, arguments: Sequence[str]) -> int:
    from lycoris_composite import launcher

    return launcher.main(arguments)


def _examine(config: str, sd_scripts: str, note: Note) -> int:
    from lycoris_composite.doctor.examine import examine

    for finding in chain.from_iterable(examine(Path(config), sd_scripts_folder=sd_scripts)):
        note(what="finding", **asdict(finding))
    return 0


if __name__ == "__main__":
    sys.exit(main())
