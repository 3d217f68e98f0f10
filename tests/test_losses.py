"""Which run folders are a stage's, on logs as upstream writes them. tests/trainer/test_gallery.py has real ones."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lycoris_composite.errors import UserError
from lycoris_composite.losses import read_curves
from lycoris_composite.samples import read_grid
from tests.galleries import BEGIN, write_log, write_sample, write_stage

pytest.importorskip("tensorboard")
HOUR = 3600.0
EPOCHS = ["e000001", "e000002", "e000003"]


def losses(value: float, first: int = 1, last: int = 30) -> dict[int, float]:
    return dict.fromkeys(range(first, last + 1), value)


@pytest.fixture
def out(tmp_path):
    """Both stages with three epochs of ten steps each; the logs lie beside."""
    folder = tmp_path / "out"
    for stage, begin in (("cg3-stage1", BEGIN), ("cg3", BEGIN + HOUR)):
        write_stage(folder, stage, EPOCHS, begin=begin, logging_dir=str(tmp_path / "logs"))
    return folder


def curves_of(folder, logs=None):
    return read_curves(read_grid(folder)[0].stages, folder, logs, show_progress=False)


def raw(folder, logs=None):
    """By stage: the raw losses by step, rounded."""
    curves, _ = curves_of(folder, logs)
    return {
        stage: {int(step): round(float(loss), 3) for step, loss in zip(curve.steps, curve.raw, strict=True)}
        for stage, curve in curves.items()
    }


def test_each_stage_has_its_own_run(out, tmp_path):
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    write_log(tmp_path / "logs", BEGIN + HOUR, losses(0.2))
    curves, why_not = curves_of(out)
    assert why_not == ""
    assert raw(out) == {0: losses(0.1), 1: losses(0.2)}
    assert curves[0].average == pytest.approx(np.full(30, 0.05))


def test_runs_of_other_outputs_in_the_same_folder_are_left_out(out, tmp_path):
    for begin in (BEGIN - HOUR, BEGIN + 0.5 * HOUR, BEGIN + 2 * HOUR):
        write_log(tmp_path / "logs", begin, losses(0.9))
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    write_log(tmp_path / "logs", BEGIN + HOUR, losses(0.2))
    assert raw(out) == {0: losses(0.1), 1: losses(0.2)}


def test_a_run_beside_it_that_is_slower_is_left_out(out, tmp_path):
    """On a second GPU, say: begun later, and still at work when our samples were drawn."""
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    write_log(tmp_path / "logs", BEGIN + 5, losses(0.9), epoch_seconds=100.0)
    write_log(tmp_path / "logs", BEGIN + HOUR, losses(0.2))
    assert raw(out) == {0: losses(0.1), 1: losses(0.2)}


def test_a_run_that_ended_long_ago_is_left_out(out, tmp_path):
    """It stands at its last epoch for ever, which is also ours."""
    write_log(tmp_path / "logs", BEGIN - HOUR, losses(0.9))
    assert raw(out) == {}


def test_another_prefix_is_another_run(out, tmp_path):
    """Even one that stood at the same step at the same time."""
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    write_log(tmp_path / "logs", BEGIN, losses(0.9), prefix="other_")
    assert raw(out) == {0: losses(0.1)}


def test_a_run_that_was_interrupted_and_goes_on_is_one_curve(out, tmp_path):
    """Killed at step 14, gone on from the state after step 10; killed again before any sample; gone on from 13."""
    write_log(tmp_path / "logs", BEGIN, losses(0.1, 1, 14))
    for sample in sorted((out / "sample").glob("cg3-stage1_e00000[23]*")):
        sample.unlink()
    write_log(tmp_path / "logs", BEGIN + 300, losses(0.2, 11, 15))
    write_log(tmp_path / "logs", BEGIN + 600, losses(0.3, 14, 30))
    for epoch, after in ((2, 42), (3, 102)):
        write_sample(out, "cg3-stage1", f"e00000{epoch}", 0, BEGIN + 600 + after)
    assert raw(out) == {0: {**losses(0.1, 1, 10), **losses(0.2, 11, 13), **losses(0.3, 14, 30)}}


def test_what_is_gone_on_with_counts_before_it_has_drawn_a_sample(out, tmp_path):
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    write_log(tmp_path / "logs", BEGIN + 600, losses(0.2, 31, 34))
    assert raw(out) == {0: {**losses(0.1), **losses(0.2, 31, 34)}}


def test_a_stage_that_was_begun_again_shows_the_new_run(out, tmp_path):
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    write_stage(out, "cg3-stage1", EPOCHS[:1], begin=BEGIN + 2 * HOUR, logging_dir=str(tmp_path / "logs"))
    write_log(tmp_path / "logs", BEGIN + 2 * HOUR, losses(0.3, 1, 12))
    assert raw(out)[0] == losses(0.3, 1, 12)


def test_stages_of_one_epoch_are_told_apart(tmp_path):
    """Stage 1's run still stands at its epoch 1 when stage 2's is sampled, ten minutes later."""
    for stage, begin, loss in (("cg3-stage1", BEGIN, 0.1), ("cg3", BEGIN + 600, 0.2)):
        write_stage(tmp_path, stage, ["e000001"], ["one"], begin=begin, logging_dir=str(tmp_path / "logs"))
        write_log(tmp_path / "logs", begin, losses(loss, last=10))
    assert raw(tmp_path) == {0: losses(0.1, last=10), 1: losses(0.2, last=10)}


def test_samples_by_steps_are_matched_too(tmp_path):
    """They are drawn in the middle of a step, before its loss is logged."""
    write_stage(tmp_path, "cg3-stage1", ["000010", "000020"], ["one"], logging_dir=str(tmp_path / "logs"))
    for sample in (tmp_path / "sample").iterdir():
        sample.unlink()
    for turn in (1, 2):
        write_sample(tmp_path, "cg3-stage1", f"0000{turn}0", 0, BEGIN + 60 * turn - 2)
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    write_log(tmp_path / "logs", BEGIN - HOUR, losses(0.9))
    assert raw(tmp_path) == {0: losses(0.1)}


def test_gradient_accumulation_logs_a_step_several_times(out, tmp_path):
    first = write_log(tmp_path / "logs", BEGIN, losses(0.1))
    again = write_log(tmp_path / "more", BEGIN, losses(0.3))
    next(again.iterdir()).rename(first / "events.out.tfevents.9.host.1.1")
    assert raw(out) == {0: losses(0.2)}


def test_logs_from_a_machine_in_another_time_zone(out, tmp_path, monkeypatch):
    """Names are by the training machine's clock, events by the world's."""
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    write_log(tmp_path / "logs", BEGIN + HOUR, losses(0.2))
    for zone in ("Asia/Kolkata", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        found = raw(out)
        monkeypatch.undo()
        time.tzset()
        assert found == {0: losses(0.1), 1: losses(0.2)}


def test_torn_and_foreign_event_files_are_passed_over(out, tmp_path):
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    torn = write_log(tmp_path / "logs", BEGIN + HOUR, losses(0.2))
    [file] = torn.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    for name, content in (("a", b"not a log"), ("b", b"")):
        (tmp_path / "logs" / name).mkdir()
        (tmp_path / "logs" / name / "events.out.tfevents.1.host").write_bytes(content)
    found = raw(out)
    assert found[0] == losses(0.1)
    assert [*found[1].items()][:29] == [*losses(0.2).items()][:29]


def test_logs_given_by_hand_and_logs_moved_with_the_output(out, tmp_path):
    run = write_log(tmp_path / "logs", BEGIN, losses(0.1))
    for logs in (tmp_path / "logs", run.parent, run):
        assert raw(out, logs) == {0: losses(0.1)}
    (tmp_path / "moved").mkdir()
    for name in ("out", "logs"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert raw(tmp_path / "moved" / "out") == {0: losses(0.1)}


def test_no_logs_are_a_sentence_and_no_error(out, tmp_path):
    assert curves_of(out) == ({}, "No loss curve: the config's logging_dir is not set or not here (give --logs DIR).")
    write_log(tmp_path / "logs", BEGIN + 9 * HOUR, losses(0.1))
    assert curves_of(out)[0] == {}
    assert curves_of(out)[1].endswith("logs holds no losses of these samples' runs.")
    with pytest.raises(UserError, match="gone: no such folder; give --logs"):
        curves_of(out, tmp_path / "gone")


def test_without_tensorboard_a_sentence_says_so(out, tmp_path, monkeypatch):
    write_log(tmp_path / "logs", BEGIN, losses(0.1))
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.backend.event_processing", None)
    assert curves_of(out) == ({}, "No loss curve: reading the logs needs TensorBoard (pip install tensorboard).")
