"""A server of commands on a trainer: it imports the trainer once, and forks a child for each command.

A command on sd-scripts takes 18 CPU seconds, 11 of them for imports; forked it trains the same weights in seven. What the
forks cannot show is left to real commands: `accelerate launch`, torchrun, other versions, and what libraries read from the
environment when they are imported. All forks of a server also share one hash seed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LONGEST = 900  # seconds that a command may take
_SD_SCRIPTS = ("lycoris_composite.trainers.kohya.trainer", "lycoris_composite.trainers.kohya.dataset")
_BUILTIN = ("lycoris_composite.trainers.builtin.train",)
_BOTH = ("lycoris.kohya", "lycoris_composite.cli", "lycoris_composite.trainers.kohya.script", "torch.utils.tensorboard")


class ForkServer:
    """The server's end that tests hold. `sd_scripts` is the checkout to import, `trainers` which of its scripts; without a
    checkout it is the embedded trainer."""

    def __init__(
        self, sd_scripts: Path | None, environment: Mapping[str, str], trainers: Sequence[str] = ("train_network",)
    ) -> None:
        command = [sys.executable, __file__, *([str(sd_scripts), *trainers] if sd_scripts else [])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), text=True
        )

    def start(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
        """Begins `python ARGUMENTS` in a folder, its output going to `log`; the process's number."""
        return self._ask(arguments=list(arguments), folder=str(folder), environment=dict(environment), log=str(log))

    def wait(self, process: int) -> int:
        """The exit code as subprocess has it: a signal's number is negative."""
        return self._ask(wait=process)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, **request: Any) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server of forks has ended"
        return json.loads(answer)


def _import_all(sd_scripts: str = "", *trainers: str) -> None:
    import importlib

    from lycoris_composite.run import environment

    environment.go_offline()  # as a command does before it imports these
    if sd_scripts:
        sys.path.insert(0, sd_scripts)
    for name in (*_BOTH, *((*trainers, *_SD_SCRIPTS) if sd_scripts else _BUILTIN)):
        importlib.import_module(name)


def _serve() -> dict[str, Any]:
    """Answers requests. Returns in a forked child, with what it has to run."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                return request
        print(answer, flush=True)
    sys.exit()


def _become(request: dict[str, Any]) -> list[str]:
    """Makes this process what a new Python would be; its arguments."""
    signal.alarm(_LONGEST)
    for stream, path, flags in ((0, os.devnull, os.O_RDONLY), (1, request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        os.dup2(os.open(path, flags, 0o644), stream)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    return request["arguments"]


def _run(arguments: list[str]) -> None:
    import runpy

    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _import_all(*sys.argv[1:])
    _run(_become(_serve()))  # a child ends as any Python does, with its own exit code
