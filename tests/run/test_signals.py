from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from lycoris_composite.errors import Stopped
from lycoris_composite.run.signals import StopRequest
from tests.helpers import ROOT


def test_before_the_first_step_it_stops_where_it_is():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="stopped before the first step") as stopped, StopRequest().listening():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_between_steps_it_waits_to_be_asked(capfd):
    with StopRequest().listening() as stop:
        stop.waiting = True
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
    assert "stopping after this step, with a state saved; once more stops at once" in capfd.readouterr().err


TWICE = """
import os, signal, time
from lycoris_composite.run.signals import StopRequest
with StopRequest().listening() as stop:
    stop.waiting = True
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
        print("alive", flush=True)
"""


def test_a_second_signal_stops_at_once():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", TWICE], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "alive\n")


WORKER = """
import os, signal
from lycoris_composite.run.signals import StopRequest
with StopRequest().listening() as stop:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stop.signal)
"""


def test_a_loaders_worker_leaves_it_to_its_parent():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", WORKER], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("7 None\n", "")


def test_a_launcher_that_is_gone_asks_too(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    stop = StopRequest()
    assert stop.signal is None
    own = os.getppid()
    monkeypatch.setattr(os, "getppid", lambda: own + 1)
    assert stop.signal == signal.SIGTERM


def test_another_thread_changes_no_handler():
    seen = []

    def listen():
        with StopRequest().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]
