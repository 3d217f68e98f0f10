"""Runs the launcher and strikes at a chosen moment: `python killing.py WHAT NUMBER BLOW LAUNCHER_ARGUMENTS`.

WHAT is `step` (between two steps) or `file` (when one is written, but does not have its name yet); NUMBER says which,
from 1, counted over both stages. BLOW is a signal's number, `full` (files can grow no larger than 50 kB from now on),
`vanish` (the output folder is removed) or `take` (the images in ./data are).
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from itertools import count
from pathlib import Path
from typing import Any

from lycoris_composite import launcher
from lycoris_composite.run import files
from lycoris_composite.run.signals import StopRequest

BLOWS = {
    "full": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY)),
    "vanish": lambda: shutil.rmtree("out"),
    "take": lambda: [path.rename(path.with_suffix(".taken")) for path in Path("data").rglob("*.png")],
}


def main() -> None:
    what, number, blow, *arguments = sys.argv[1:]
    rounds = count(1)

    def strike() -> None:
        if next(rounds) == int(number):
            BLOWS.get(blow, lambda: os.kill(os.getpid(), int(blow)))()

    if what == "step":
        asked = StopRequest.signal.fget

        def signal_of(self: StopRequest) -> int | None:
            strike()
            return asked(self)

        StopRequest.signal = property(signal_of)
    else:
        take_name = files._take_name

        def named(*paths: Any) -> None:
            strike()
            take_name(*paths)

        files._take_name = named
    sys.exit(launcher.main(arguments))


if __name__ == "__main__":
    main()
