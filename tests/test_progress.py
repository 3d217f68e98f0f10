from __future__ import annotations

import io
import threading
import time

import pytest
from rich.console import Console

from lycoris_composite import progress


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 80 columns, as far as rich can tell; what it was shown is in its file."""
    shown = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=shown, force_terminal=True, width=80))
    return shown


def test_results_come_in_order_and_work_runs_side_by_side():
    side_by_side = threading.Barrier(2, timeout=20)

    def work(item: int) -> int:
        side_by_side.wait()
        time.sleep(0.02 if item == 0 else 0)
        return item * 10

    assert progress.in_parallel(work, range(4), None) == [0, 10, 20, 30]


def test_a_failure_comes_through_and_the_rest_is_not_begun():
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.001)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        progress.in_parallel(work, range(10_000), None)
    assert len(begun) < 5_000


def test_the_bar_says_how_far_how_fast_and_how_much_longer(screen):
    assert progress.in_parallel(lambda item: time.sleep(0.15), range(20), "checking images") == [None] * 20
    assert "20/20" in screen.getvalue()
    assert "/s" in screen.getvalue()
    assert "0:00:0" in screen.getvalue()


def test_without_a_terminal_it_is_one_line_that_fits(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    list(progress.tracked(iter(range(12_345)), 12_345, "checking images"))
    out, err = capfd.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert len(line) <= 80
    assert "12345/12345" in line


def test_without_a_description_nothing_is_shown(capfd):
    assert progress.in_parallel(abs, [-1], None) == [1]
    assert capfd.readouterr() == ("", "")
