"""Ctrl-C and SIGTERM: heard at once, obeyed at the next step; a second one at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lycoris_composite.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody asked this process to stop. While `waiting` is true, the trainer looks at `signal` after each step,
    saves a state and stops. Otherwise there is nothing to save, and the signal raises `Stopped` at once."""

    def __init__(self) -> None:
        self.waiting = False
        self._signal: int | None = None
        self._process = os.getpid()
        # `accelerate launch` dies of a SIGTERM without handing it on, and leaves the trainer behind.
        self._launcher = os.getppid() if "ACCELERATE_DYNAMO_BACKEND" in os.environ else None

    @property
    def signal(self) -> int | None:
        """The signal that asked, or None. A launcher that is gone asks too."""
        if self._signal is None and self._launcher not in (None, os.getppid()):
            self._signal = signal.SIGTERM
        return self._signal

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Hears signals in the block; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker: it ends with its parent
        if self._signal is not None:
            os._exit(128 + number)  # nothing is torn: files get their names when they are complete
        self._signal = number
        if not self.waiting:
            raise Stopped(number, "stopped before the first step")
        os.write(2, b"\nlycoris-composite: stopping after this step, with a state saved; once more stops at once\n")
