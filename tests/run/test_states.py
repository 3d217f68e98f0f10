from __future__ import annotations

import json

import pytest

from lycoris_composite.run.signals import StopRequest
from lycoris_composite.run.states import Attempt, finish_state, newest_state, place_of, remove_on_stop_states


def save(folder, step, *, run="run", stage=2, on_stop=False, name=None):
    attempt = Attempt(run, stage, folder / "cg3.safetensors", StopRequest())
    part = folder / (name or attempt.on_stop_folder(step).name)
    part.mkdir(parents=True)
    (part / "optimizer.bin").write_bytes(b"12345")
    finish_state(part, attempt, epoch=1, step=step, steps=9, on_stop=on_stop)
    return part


def test_the_newest_state_of_this_stage_is_found(tmp_path):
    save(tmp_path, 3)
    folder = save(tmp_path, 6)
    save(tmp_path, 8, run="another run")
    save(tmp_path, 9, stage=1)
    found = newest_state(tmp_path, "run", 2)
    assert (found.folder, found.step, found.steps, found.on_stop, found.is_last) == (folder, 6, 9, False, False)
    assert folder.name == "cg3-step00000006-state"
    assert newest_state(tmp_path, "no run", 2) is None


@pytest.mark.parametrize("spoil", ["shorten", "remove", "place", "note", "hide"])
def test_a_state_that_lacks_something_is_none(tmp_path, spoil):
    folder = save(tmp_path, 3)
    newer = save(tmp_path, 6)
    if spoil == "shorten":
        (newer / "optimizer.bin").write_bytes(b"123")
    elif spoil == "remove":
        (newer / "optimizer.bin").unlink()
    elif spoil == "place":
        (newer / "train_state.json").write_text("{")
    elif spoil == "note":
        (newer / "composite_state.json").write_text("[]")
    else:
        newer.rename(tmp_path / ".hidden")
    assert newest_state(tmp_path, "run", 2).folder == folder


def test_plain_upstream_finds_its_place_too(tmp_path):
    folder = save(tmp_path, 6)
    assert json.loads((folder / "train_state.json").read_text()) == {"current_epoch": 1, "current_step": 6}


def test_only_what_an_interruption_left_is_removed(tmp_path):
    kept, asked = save(tmp_path, 3), save(tmp_path, 4, on_stop=True)
    others = save(tmp_path, 5, on_stop=True, run="another run")
    remove_on_stop_states(tmp_path, "run", 2)
    assert (kept.exists(), asked.exists(), others.exists()) == (True, False, True)


@pytest.mark.parametrize(
    ("step", "batches", "accumulation", "most", "place"),
    [
        (0, 6, 1, 9, (0, 0)),
        (5, 6, 1, 9, (0, 5)),
        (6, 6, 1, 9, (1, 0)),
        (8, 6, 1, 9, (1, 2)),
        (9, 6, 1, 9, (2, 0)),  # nothing is left, although the epoch was not over
        (12, 6, 1, 12, (2, 0)),
        (3, 7, 2, 20, (0, 6)),
        (4, 7, 2, 20, (1, 0)),  # the fourth step took the one batch that was left
        (7, 7, 2, 20, (1, 6)),
    ],
)
def test_steps_become_epochs_and_batches(step, batches, accumulation, most, place):
    assert place_of(step, batches, accumulation, most) == place


def test_places_follow_a_loop_that_counts():
    for batches in range(1, 8):
        for accumulation in (1, 2, 3):
            step = 0
            for epoch in range(3):
                for start in range(0, batches, accumulation):
                    assert place_of(step, batches, accumulation, 1000) == (epoch, start)
                    step += 1
