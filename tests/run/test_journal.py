from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lycoris_composite.errors import UserError
from lycoris_composite.run.journal import Journal, StageRecord, changes, digest, sole_run


def record(**fields):
    return StageRecord(**{"settings": {"seed": "42"}, "inputs": {"a.png": "1"}, **fields})


def read(path, **options):
    journal = Journal(path)
    journal.read(**options)
    return journal


def test_what_was_written_is_read_again(tmp_path):
    journal = Journal(tmp_path / "run.json")
    journal.begin(1, record())
    assert read(journal.path).stages == journal.stages
    journal.finish(1, "abc", 8, 2)
    journal.begin(2, record(weights="w"))
    again = read(journal.path)
    assert again.stages == journal.stages
    assert (again.stages[1].output, again.stages[2].weights) == ("abc", "w")
    assert again.stages[1].run != again.stages[2].run


def test_what_came_after_a_stage_is_dropped_when_it_begins_anew(tmp_path):
    journal = Journal(tmp_path / "run.json")
    journal.begin(1, record())
    journal.begin(2, record())
    journal.begin(1, record())
    assert list(read(journal.path).stages) == [1]


def test_no_file_is_an_empty_journal(tmp_path):
    assert read(tmp_path / "run.json").stages == {}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 99, "stages": {}}', '{"version": 1, "stages": {"1": {}}}', "\xff"]
)
def test_a_file_that_is_no_journal_is_refused_and_fresh_ignores_it(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="run.json: is no journal of a run .*; give --fresh to start over"):
        read(path)
    assert read(path, or_nothing=True).stages == {}


def test_changes_are_named_key_by_key_and_file_by_file():
    before = record(settings={"seed": "42", "old": "1"}, inputs={"a": "1", "b": "2"}, weights="w")
    now = record(settings={"seed": "7", "new": '"x"'}, inputs={"a": "9", "c": "3"}, weights="v")
    assert changes(before, now) == [
        'new: not set -> "x"',
        "old: 1 -> not set",
        "seed: 42 -> 7",
        "a: changed",
        "b: gone",
        "c: new",
        "the weights that it starts from: changed",
    ]
    assert changes(before, before) == []
    assert changes(record(), record(weights="known only later")) == []


def test_digests_are_of_the_content(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, content in zip(paths, (b"x" * 3_000_000, b"x" * 3_000_000, b"y"), strict=True):
        path.write_bytes(content)
    assert digest(paths[0]) == digest(paths[1]) != digest(paths[2])
    with pytest.raises(UserError, match="nothing: cannot be read"):
        digest(tmp_path / "nothing")


HOLD = """
import sys, time
from pathlib import Path
from lycoris_composite.run.journal import sole_run
with sole_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_never_hold_one_lock_and_a_dead_one_holds_none(tmp_path):
    lock = tmp_path / "out" / "run.lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another run is writing to this output"), sole_run(lock):
            pass
    finally:
        other.kill()
        other.wait()
    with sole_run(lock):
        pass


def test_the_journal_holds_no_more_than_it_says(tmp_path):
    journal = Journal(tmp_path / "run.json")
    journal.begin(1, record())
    content = json.loads(journal.path.read_text())
    assert set(content["stages"]["1"]) == {"settings", "inputs", "weights", "output", "steps", "epochs", "run"}
