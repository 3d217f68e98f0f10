"""A run's losses, on logs as upstream writes them. tests/trainers/kohya/test_gallery.py has real ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from lycoris_composite.errors import UserError
from lycoris_composite.look.loss_logs import read_curves
from lycoris_composite.look.sample_files import read_grid
from tests.galleries import BEGIN, write_journal, write_log, write_sample, write_stage

pytest.importorskip("tensorboard")
EPOCHS = ["e000001", "e000002", "e000003"]


def losses(value: float, first: int = 1, last: int = 30) -> dict[int, float]:
    return dict.fromkeys(range(first, last + 1), value)


@pytest.fixture
def out(tmp_path):
    """Both stages with three epochs of ten steps each; the logs lie beside."""
    folder = tmp_path / "out"
    for stage, begin in (("cg3-stage1", BEGIN), ("cg3", BEGIN + 3600)):
        write_stage(folder, stage, EPOCHS, begin=begin, logging_dir=str(tmp_path / "logs"))
    write_journal(folder, [30, 30])
    return folder


def curves_of(folder, logs=None):
    return read_curves(read_grid(folder)[0], folder, logs)


def raw(folder, logs=None):
    """By stage: the raw losses by step, rounded."""
    curves, _ = curves_of(folder, logs)
    return {
        stage: {int(step): round(float(loss), 3) for step, loss in zip(curve.steps, curve.raw, strict=True)}
        for stage, curve in curves.items()
    }


def test_each_stage_has_its_own_steps(out, tmp_path):
    write_log(tmp_path / "logs", {**losses(0.1), **losses(0.2, 31, 60)})
    curves, why_not = curves_of(out)
    assert why_not == ""
    assert raw(out) == {0: losses(0.1), 1: losses(0.2)}
    assert curves[0].average == pytest.approx(np.full(30, 0.05))


def test_a_prefix_is_no_other_run_but_another_run_is(out, tmp_path):
    write_log(tmp_path / "logs", losses(0.1), "mine_cg3-11111111")
    write_log(tmp_path / "logs", losses(0.9), "cg3-33333333")
    write_log(tmp_path / "logs", losses(0.9), "20260301120000")
    assert raw(out) == {0: losses(0.1)}


def test_training_that_is_under_way_is_shown_as_far_as_it_is(out, tmp_path):
    write_journal(out, [0])
    write_log(tmp_path / "logs", losses(0.1, last=17))
    assert raw(out) == {0: losses(0.1, last=17)}
    write_journal(out, [30, 0])
    write_log(tmp_path / "logs", losses(0.2, 18, 34), begin=BEGIN + 600)
    assert {stage: len(curve) for stage, curve in raw(out).items()} == {0: 30, 1: 4}


def test_what_was_interrupted_and_goes_on_is_one_curve(out, tmp_path):
    """Killed at step 14, gone on from the state after step 10; killed again at 15, gone on from 13."""
    for turn, (loss, first, last) in enumerate(((0.1, 1, 14), (0.2, 11, 15), (0.3, 14, 30))):
        write_log(tmp_path / "logs", losses(loss, first, last), begin=BEGIN + 600 * turn)
    assert raw(out) == {0: {**losses(0.1, 1, 10), **losses(0.2, 11, 13), **losses(0.3, 14, 30)}}


def test_gradient_accumulation_logs_a_step_several_times(out, tmp_path):
    first = write_log(tmp_path / "logs", losses(0.1, last=1))
    again = write_log(tmp_path / "more", losses(0.3, last=1))
    next(again.iterdir()).rename(first / "events.out.tfevents.9999999999.host.1.1")
    assert raw(out) == {0: {1: 0.2}}


def test_stage_2_alone_logs_under_its_own_name(tmp_path):
    write_stage(tmp_path, "cg3", EPOCHS, logging_dir=str(tmp_path / "logs"))
    write_journal(tmp_path, [30, 30])
    text = (tmp_path / "cg3.run.json").read_text()
    write_log(tmp_path / "logs", losses(0.1), "cg3-22222222")
    assert raw(tmp_path) == {}
    start, end = text.index('"1": {'), text.index('"2": {')
    (tmp_path / "cg3.run.json").write_text(text[:start] + text[end:])
    assert raw(tmp_path) == {0: losses(0.1)}


def test_torn_and_foreign_files_are_passed_over(out, tmp_path):
    folder = write_log(tmp_path / "logs", losses(0.1))
    [file] = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    (folder / "deeper").mkdir()
    for name, content in (("a", b"not a log"), ("b", b"")):
        (folder / f"deeper/events.out.tfevents.1.{name}").write_bytes(content)
    assert [*raw(out)[0].items()][:29] == [*losses(0.1).items()][:29]
    (out / "cg3.run.json").write_text("{")
    assert raw(out) == {}


def test_logs_given_by_hand_and_logs_moved_with_the_output(out, tmp_path):
    write_log(tmp_path / "logs", losses(0.1))
    shutil.copytree(tmp_path / "logs", tmp_path / "copied")
    assert raw(out, tmp_path / "copied") == {0: losses(0.1)}
    (tmp_path / "moved").mkdir()
    for name in ("out", "logs"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert raw(tmp_path / "moved" / "out") == {0: losses(0.1)}


def test_a_run_of_sd_scripts_own_has_the_logs_that_somebody_names(tmp_path):
    """It leaves neither a config nor a journal."""
    for turn in range(3):
        write_sample(tmp_path / "out", "mine", f"e{turn + 1:06}", 0, BEGIN + 60 * turn)
    write_log(tmp_path / "logs", losses(0.1), "20260301120000")
    assert curves_of(tmp_path / "out")[0] == {}
    assert raw(tmp_path / "out", tmp_path / "logs/20260301120000") == {0: losses(0.1)}


def test_names_with_brackets_and_prefixes_with_folders(tmp_path):
    for stage, begin in (("cg3[v2]-stage1", BEGIN), ("cg3[v2]", BEGIN + 3600)):
        write_stage(tmp_path, stage, EPOCHS, begin=begin, logging_dir=str(tmp_path / "logs"))
    write_journal(tmp_path, [30, 30], "cg3[v2]")
    write_log(tmp_path / "logs", {**losses(0.1), **losses(0.2, 31, 60)}, "deep/er/cg3[v2]-11111111")
    assert raw(tmp_path) == {0: losses(0.1), 1: losses(0.2)}


def test_no_logs_are_a_sentence_and_no_error(out, tmp_path):
    assert curves_of(out) == ({}, "No loss curve: the config's logging_dir is not set or not here (give --logs DIR).")
    write_log(tmp_path / "logs", losses(0.1), "other-33333333")
    assert curves_of(out)[0] == {}
    assert curves_of(out)[1].endswith("logs holds no losses of this run.")
    with pytest.raises(UserError, match="gone: no such folder; give --logs"):
        curves_of(out, tmp_path / "gone")


def test_without_tensorboard_a_sentence_says_so(out, tmp_path, monkeypatch):
    write_log(tmp_path / "logs", losses(0.1))
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.backend.event_processing", None)
    assert curves_of(out) == ({}, "No loss curve: reading the logs needs TensorBoard (pip install tensorboard).")
