from __future__ import annotations

import json

import pytest

from lycoris_composite.errors import UserError
from lycoris_composite.look.sample_files import read_grid
from tests.galleries import BEGIN, write_sample, write_stage


def labels(grid):
    return [(stage.title, [column[0].label for column in stage.columns]) for stage in grid.stages]


def names(grid):
    """The newest file of every cell."""
    columns = sum(len(stage.columns) for stage in grid.stages)
    cells = [[grid.cells.get((row, column)) for column in range(columns)] for row in range(len(grid.rows))]
    return [[cell[0].path.name if cell else None for cell in row] for row in cells]


def test_prompts_down_and_epochs_across_stage_2_after_stage_1(tmp_path):
    write_stage(tmp_path, "cg3-stage1", ["e000000", "e000002", "e000010"])
    write_stage(tmp_path, "cg3", ["e000001"], begin=BEGIN + 3600)
    grid, said = read_grid(tmp_path)
    assert (grid.output_name, said) == ("cg3", [])
    assert [prompt.text for prompt in grid.rows] == ["one", "two"]
    assert labels(grid) == [
        ("Stage 1: single characters", ["start", "epoch 2", "epoch 10"]),
        ("Stage 2: composites", ["epoch 1"]),
    ]
    assert [[name.split("_2026")[0] for name in row] for row in names(grid)] == [
        [f"cg3-stage1_e0000{epoch}_{row}" for epoch in ("00", "02", "10")] + [f"cg3_e000001_{row}"] for row in ("00", "01")
    ]


def test_steps_are_ordered_by_number(tmp_path):
    write_stage(tmp_path, "cg3-stage1", ["e000000", "000900", "001000"])
    assert labels(read_grid(tmp_path)[0]) == [("Stage 1: single characters", ["start", "step 900", "step 1000"])]


def test_epochs_and_steps_in_one_stage_are_ordered_by_time(tmp_path):
    """The config changed in between, and no file says how many steps an epoch has."""
    write_stage(tmp_path, "cg3-stage1", ["000100", "000200", "e000003", "e000004"])
    assert labels(read_grid(tmp_path)[0])[0][1] == ["step 100", "step 200", "epoch 3", "epoch 4"]


def test_a_picture_drawn_twice_shows_the_newest_first(tmp_path):
    write_stage(tmp_path, "cg3-stage1", ["e000001"])
    again = write_sample(tmp_path, "cg3-stage1", "e000001", 0, BEGIN + 7200)
    grid, _ = read_grid(tmp_path)
    assert grid.cells[0, 0][0].path == again
    assert [len(cell) for cell in grid.cells.values()] == [2, 1]


def test_foreign_and_unfinished_files_are_passed_over(tmp_path):
    write_stage(tmp_path, "cg3-stage1", ["e000001"])
    folder = tmp_path / "sample"
    for name in ("notes.txt", "cg3-stage1_e000002_00.png", "cg3_e1_00_20260301120000.png", ".cg3.host~1~part", "x.png"):
        (folder / name).write_bytes(b"")
    assert labels(read_grid(tmp_path)[0]) == [("Stage 1: single characters", ["epoch 1"])]


@pytest.mark.parametrize("seed", ["", "_1", "_-1", "_4294967296"])
def test_the_seed_in_the_name_may_be_missing(tmp_path, seed):
    write_sample(tmp_path, "a_b_e000001_c", "e000001", 0, BEGIN, seed=seed)
    assert read_grid(tmp_path)[0].output_name == "a_b_e000001_c"


def test_upstreams_own_run_is_no_stage_2(tmp_path):
    write_sample(tmp_path, "mine", "e000001", 0, BEGIN)
    assert labels(read_grid(tmp_path)[0]) == [("Samples", ["epoch 1"])]


# --- which run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(tmp_path):
    write_stage(tmp_path, "older-stage1", ["e000001"])
    write_stage(tmp_path, "newer", ["e000001"], begin=BEGIN + 3600)
    return tmp_path


def test_of_several_runs_the_newest_is_shown_and_said_so(two_runs):
    grid, said = read_grid(two_runs)
    assert (grid.output_name, said) == ("newer", ["showing newer, whose samples are the newest (--name for older)"])


@pytest.mark.parametrize("name", ["older", "older-stage1"])
def test_a_run_is_chosen_by_name(two_runs, name):
    grid, said = read_grid(two_runs, name)
    assert (grid.output_name, said) == ("older", [])


@pytest.mark.parametrize(("name", "end"), [("oldr", '; did you mean "older"?'), ("x", "; there are samples of newer, older.")])
def test_an_unknown_name_is_one_sentence(two_runs, name, end):
    with pytest.raises(UserError, match=f"--name {name}: no samples of that name") as caught:
        read_grid(two_runs, name)
    assert str(caught.value).endswith(end)


@pytest.mark.parametrize("folder", ["", "gone", "sample"])
def test_no_samples_is_one_sentence(tmp_path, folder):
    (tmp_path / "sample").mkdir()
    with pytest.raises(UserError, match="holds no samples .* set sample_every_n_epochs before training.$"):
        read_grid(tmp_path / folder)


# --- prompts -----------------------------------------------------------------------------------------------------


def test_without_prompts_the_number_stands_for_it(tmp_path):
    for number in (0, 2):
        write_sample(tmp_path, "cg3", "e000001", number, BEGIN)
    assert [prompt.text for prompt in read_grid(tmp_path)[0].rows] == ["prompt 1", "prompt 3"]


@pytest.mark.parametrize("damage", ["torn config", "torn prompts", "no config"])
def test_torn_configs_and_prompts_are_no_error(tmp_path, damage):
    write_stage(tmp_path, "cg3", ["e000001"])
    if damage == "no config":
        (tmp_path / "cg3.toml").unlink()
    else:
        (tmp_path / ("cg3.toml" if damage == "torn config" else "cg3-prompts.json")).write_text("[{")
    assert [prompt.text for prompt in read_grid(tmp_path)[0].rows] == ["prompt 1", "prompt 2"]


def test_a_moved_folder_keeps_its_prompts(tmp_path):
    write_stage(tmp_path / "there", "cg3", ["e000001"])
    (tmp_path / "there").rename(tmp_path / "here")
    assert [prompt.text for prompt in read_grid(tmp_path / "here")[0].rows] == ["one", "two"]


def test_stages_with_prompts_of_their_own_share_the_rows_that_are_equal(tmp_path):
    write_stage(tmp_path, "cg3-stage1", ["e000001"], ["rin", "mio", "mio"])
    (tmp_path / "cg3-prompts.json").rename(tmp_path / "first.json")
    write_stage(tmp_path, "cg3", ["e000001"], ["mio", "rin/mio/COMPOSITE"], begin=BEGIN + 3600)
    config = (tmp_path / "cg3-stage1.toml").read_text()
    (tmp_path / "cg3-stage1.toml").write_text(config.replace("cg3-prompts.json", "first.json"))
    grid, _ = read_grid(tmp_path)
    assert [prompt.text for prompt in grid.rows] == ["rin", "mio", "mio", "rin/mio/COMPOSITE"]
    assert [[bool(cell) for cell in row] for row in names(grid)] == [[True, False], [True, True], [True, False], [False, True]]


def test_prompts_that_were_added_later_have_numbers(tmp_path):
    write_stage(tmp_path, "cg3", ["e000001"], ["one", "two", "three"])
    (tmp_path / "cg3-prompts.json").write_text(json.dumps([{"prompt": "one"}]))
    assert [prompt.text for prompt in read_grid(tmp_path)[0].rows] == ["one", "prompt 2", "prompt 3"]
