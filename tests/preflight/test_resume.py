from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
from PIL import Image

from lycoris_composite.config.datasets import datasets_of
from lycoris_composite.config.stages import stages_of
from lycoris_composite.data.characters import read_subset
from lycoris_composite.errors import UserError
from lycoris_composite.preflight.resume import check_unchanged, tasks_of, what_is_left
from lycoris_composite.run.journal import Journal, StageRecord, digest, sole_run
from lycoris_composite.run.signals import StopRequest
from lycoris_composite.run.states import Attempt, finish_state
from tests.helpers import kohya_settings, write_characters


@pytest.fixture
def run(tmp_path):
    """Both stages, their records, and a journal in which neither was begun."""
    stages = stages_of(kohya_settings(tmp_path))
    records = {stage.number: StageRecord({**stage.shaping}, {"a.png": "1"}) for stage in stages}
    return stages, records, Journal(tmp_path / "out" / "cg3.run.json")


def finish(journal, stage, record):
    stage.output.parent.mkdir(parents=True, exist_ok=True)
    stage.output.write_text(f"weights {stage.number}")
    journal.begin(stage.number, record)
    journal.finish(stage.number, digest(stage.output), 8, 2)


def save_state(stage, record, step):
    folder = stage.output_dir / f"state{step}"
    folder.mkdir(parents=True)
    finish_state(folder, Attempt(record.run, stage.number, stage.output, StopRequest()), 1, step, 9, on_stop=False)


def test_a_new_run_trains_both_stages_without_a_word(run):
    stages, records, journal = run
    tasks, lines = tasks_of(journal, stages, records)
    assert [(task.stage.number, task.state) for task in tasks] == [(1, None), (2, None)]
    assert lines == []


def test_a_finished_stage_is_not_repeated(run):
    stages, records, journal = run
    finish(journal, stages[0], records[1])
    tasks, [line] = tasks_of(journal, stages, records)
    assert [task.stage.number for task in tasks] == [2]
    assert line.startswith("stage 1: finished already")
    finish(journal, stages[1], records[2])
    assert tasks_of(journal, stages, records)[0] == []


def test_an_interrupted_stage_goes_on_from_its_newest_state_under_its_own_name(run):
    stages, records, journal = run
    journal.begin(1, records[1])
    save_state(stages[0], records[1], 3)
    save_state(stages[0], records[1], 6)
    now = {1: replace(records[1], run="new"), 2: records[2]}
    tasks, [line] = tasks_of(journal, stages, now)
    assert (tasks[0].state.step, tasks[0].record.run) == (6, records[1].run)
    assert "stage 1: was interrupted; it goes on after step 6 of 9, from " in line


def test_one_without_a_state_starts_over_and_says_so(run):
    stages, records, journal = run
    journal.begin(1, records[1])
    tasks, [line] = tasks_of(journal, stages, records)
    assert tasks[0].state is None
    assert line == "stage 1: was interrupted, and no state of it was saved; it starts over"


def test_a_first_stage_whose_file_is_gone_is_trained_anew_and_the_second_too(run):
    stages, records, journal = run
    finish(journal, stages[0], records[1])
    journal.begin(2, records[2])
    save_state(stages[1], records[2], 3)
    stages[0].output.unlink()
    tasks, [line] = tasks_of(journal, stages, records)
    assert [(task.stage.number, task.state) for task in tasks] == [(1, None), (2, None)]
    assert "cg3-stage1.safetensors is gone" in line


def test_a_first_stage_whose_file_is_gone_is_not_missed_when_all_is_done(run):
    stages, records, journal = run
    finish(journal, stages[0], records[1])
    finish(journal, stages[1], records[2])
    stages[0].output.unlink()
    assert tasks_of(journal, stages, records)[0] == []


def test_changes_are_named_and_ask_what_to_do(run):
    stages, records, journal = run
    finish(journal, stages[0], records[1])
    check_unchanged(journal, stages, records)
    stages[0].output.write_text("other weights")
    changed = {**records, 1: StageRecord({**records[1].settings, "seed": "7"}, {"b.png": "2"})}
    with pytest.raises(UserError) as error:
        check_unchanged(journal, stages, changed)
    for part in ("stage 1, seed: 42 -> 7", "a.png: gone", "b.png: new", "cg3-stage1.safetensors: changed", "--continue_anyway"):
        assert part in str(error.value)


def test_a_thousand_changes_are_not_all_listed(run):
    stages, records, journal = run
    finish(journal, stages[0], records[1])
    many = {f"{number:04}.png": "1" for number in range(1000)}
    with pytest.raises(UserError, match=r"; and 981 more\)"):
        check_unchanged(journal, stages, {1: StageRecord(records[1].settings, many), 2: records[2]})


def test_a_stage_that_has_saved_nothing_may_change(run):
    """Nothing was trained, or nothing that can be gone on from: there is nothing to throw away."""
    stages, records, journal = run
    journal.begin(1, records[1])
    changed = {**records, 1: StageRecord({**records[1].settings, "seed": "7"}, {"b.png": "2"})}

    check_unchanged(journal, stages, changed)
    assert [(task.stage.number, task.state) for task in tasks_of(journal, stages, changed)[0]] == [(1, None), (2, None)]

    save_state(stages[0], records[1], 3)
    with pytest.raises(UserError, match="seed: 42 -> 7"):
        check_unchanged(journal, stages, changed)


def longer(records, key="max_train_epochs", value="12"):
    return {n: replace(one, settings={**one.settings, key: value}, run="new") for n, one in records.items()}


@pytest.fixture
def finished(run):
    """Both stages are finished after ten epochs; stage 2 has saved the state of its end."""
    stages, records, journal = run
    records = longer(records, value="10")
    for stage in stages:
        finish(journal, stage, records[stage.number])
    save_state(stages[1], records[2], 9)
    return stages, records, journal


def test_more_epochs_go_on_with_the_last_stage(finished):
    stages, records, journal = finished
    now = longer(records)
    check_unchanged(journal, stages, now)
    [task], lines = tasks_of(journal, stages, now)
    assert (task.stage.number, task.state.step, task.record.run) == (2, 9, records[2].run)
    assert [line.partition(":")[0] for line in lines] == ["stage 1", "stage 2"]
    assert "finished already" in lines[0]
    assert "goes on for longer after step 9" in lines[1]


def test_more_epochs_of_the_first_stage_alone_go_on_too(finished):
    stages, records, journal = finished
    save_state(stages[0], records[1], 8)
    [task], _ = tasks_of(journal, stages[:1], longer(records))
    assert (task.stage.number, task.state.step) == (1, 8)


@pytest.mark.parametrize(("key", "value"), [("max_train_epochs", "9"), ("max_train_steps", "5000"), ("seed", "7")])
def test_what_is_not_longer_is_another_run(finished, key, value):
    """max_train_epochs wins over max_train_steps, so those say nothing of how long it is."""
    stages, records, journal = finished
    with pytest.raises(UserError, match=f"{key}: .* -> {value}"):
        check_unchanged(journal, stages, longer(records, key, value))


def test_steps_instead_of_epochs_are_another_run(finished):
    stages, records, journal = finished
    settings = {key: value for key, value in records[2].settings.items() if key != "max_train_epochs"}
    now = {n: replace(one, settings={**settings, "max_train_steps": "5000"}) for n, one in records.items()}
    with pytest.raises(UserError, match="max_train_epochs: 10 -> not set; .*max_train_steps: not set -> 5000"):
        check_unchanged(journal, stages, now)


def test_more_epochs_with_another_setting_are_another_run(finished):
    stages, records, journal = finished
    with pytest.raises(UserError, match="seed: 42 -> 7") as error:
        check_unchanged(journal, stages, longer(longer(records), "seed", "7"))
    assert "max_train_epochs" not in str(error.value)


def test_more_epochs_without_a_state_say_why_not(run):
    stages, records, journal = run
    records = longer(records, value="10")
    for stage in stages:
        finish(journal, stage, records[stage.number])
    with pytest.raises(UserError, match="no state of stage 2 was saved, so it cannot go on for longer; give --fresh"):
        check_unchanged(journal, stages, longer(records))


def test_what_does_not_shape_the_weights_may_change(tmp_path):
    def shaping(**kohya):
        return stages_of(kohya_settings(tmp_path, **kohya))[1].shaping

    plain = shaping()
    harmless = {"logging_dir": "x", "sample_every_n_epochs": 1, "save_state": True, "save_every_n_steps": 5, "save_last_n_epochs": 1,
                "max_data_loader_n_workers": 4, "wandb_api_key": "secret", "resume": "there"}  # fmt: skip
    for key, value in harmless.items():
        assert shaping(**{key: value}) == plain, key
    for key, value in {"seed": 7, "learning_rate": 1.0, "save_precision": "fp16", "max_train_epochs": 3}.items():
        assert shaping(**{key: value}) != plain, key


@pytest.mark.parametrize("fresh", [False, True])
def test_pictures_replaced_since_the_run_before_are_named_with_upstreams_latents(tmp_path, fresh):
    """Also where nobody can see it by the files' times."""
    picture = write_characters(tmp_path / "data", "rin", "mio") / "1_rin/01.png"
    kohya = {
        "train_data_dir": str(tmp_path / "data"),
        "resolution": 64,
        "caption_extension": ".txt",
        "cache_latents_to_disk": True,
    }
    settings = kohya_settings(tmp_path, **kohya)
    stages = stages_of(settings)
    subsets = [read_subset(subset) for subset in datasets_of(stages[1])[0].subsets]
    journal = Journal(tmp_path / "out" / "cg3.run.json")
    [task, _], before = what_is_left(journal, stages, [], subsets, fresh=False, continue_anyway=False)
    journal.path.parent.mkdir()
    journal.begin(1, task.record)
    Image.new("RGB", (32, 32), (1, 2, 3)).save(picture)
    (picture.parent / "01_0032x0032_sd.npz").write_bytes(b"npz")

    _, lines = what_is_left(Journal(journal.path), stages, [], subsets, fresh=fresh, continue_anyway=not fresh)

    assert before == []
    assert "1 picture(s) are others than in the run before" in lines[0]
    assert "01.png (01_0032x0032_sd.npz); delete these .npz files." in lines[0]


@pytest.mark.parametrize("other_runs", [False, True])
def test_what_a_killed_run_left_is_removed_unless_another_run_writes_there(run, other_runs):
    stages, _, journal = run
    left = [stages[0].output_dir / place / ".cg3.safetensors.x8k2~part" for place in ("", "sample")]
    for folder in left:
        folder.mkdir(parents=True)
    other = left[0].with_name("other.run.lock")
    other.touch()  # an earlier run's stays
    with sole_run(journal.path.with_suffix(".lock")), sole_run(other) if other_runs else nullcontext():
        what_is_left(journal, stages, [], [], fresh=False, continue_anyway=False)
    assert [folder.exists() for folder in left] == [other_runs] * 2


def test_stage_2_does_not_start_from_network_weights_where_stage_1_was_begun(tmp_path, run):
    """Its file may only have been moved, or its folder mistaken."""
    _, records, journal = run
    (tmp_path / "mine.safetensors").touch()
    second = stages_of(kohya_settings(tmp_path, network_weights=str(tmp_path / "mine.safetensors")), 2)[1]
    what_is_left(journal, [second], [], [], fresh=False, continue_anyway=False)
    journal.path.parent.mkdir()
    journal.begin(1, records[1])

    with pytest.raises(
        UserError, match="stage 1 was begun here, but the file that it saves is not there; finish stage 1 or put"
    ):
        what_is_left(journal, [second], [], [], fresh=False, continue_anyway=False)
    [task], _ = what_is_left(journal, [second], [], [], fresh=False, continue_anyway=True)
    assert task.stage is second
