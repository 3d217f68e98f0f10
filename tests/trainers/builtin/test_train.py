"""The embedded trainer, alone: it needs no sd-scripts. That it agrees with sd-scripts is tests/trainers/kohya/test_builtin.py."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason='needs `pip install ".[builtin]"`')
pytest.importorskip("lycoris", reason='needs `pip install ".[builtin]"`')
from safetensors import safe_open
from safetensors.torch import load_file

from lycoris_composite import launcher
from lycoris_composite.errors import UserError, raise_first
from lycoris_composite.trainers.builtin.train import Builtin
from tests.world import World


def header(path: Path) -> tuple[set[str], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return set(file.keys()), file.metadata()


def test_both_stages_and_their_samples(embedded: World, tmp_path: Path) -> None:
    run = embedded.train(
        tmp_path, "--cpu", "--learning_rate", "1e-3", max_train_steps=4, save_every_n_epochs=1, sample_every_n_steps=4
    )
    assert run.code == 0
    files = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    assert {"cg3-stage1.safetensors", "cg3.safetensors"} <= files
    keys, metadata = header(tmp_path / "out" / "cg3.safetensors")
    assert any(key.startswith("lora_te_") for key in keys)
    assert any(key.startswith("lora_unet_") and key.endswith(".hada_w1_a") for key in keys)
    assert json.loads(metadata["ss_composite_characters"])[0][0]["trigger"] == "mio"
    assert metadata["ss_learning_rate"] == "0.001"
    names = sorted(path.name[: len("cg3-stage1_000004")] for path in (tmp_path / "out" / "sample").iterdir())
    assert names == ["cg3-stage1_000004", names[1]]
    assert names[1].startswith("cg3_000004")


def test_stage_2_starts_from_stage_1s_weights(embedded: World, tmp_path: Path) -> None:
    assert embedded.train(tmp_path, "--cpu", max_train_steps=2).code == 0
    config = embedded.train(
        tmp_path, "--cpu", "--stage", "2", "--fresh", "--set", "composite.stage2.learning_rate=1e-12", max_train_steps=1
    )
    assert config.code == 0
    with (
        safe_open(tmp_path / "out" / "cg3-stage1.safetensors", "pt") as first,
        safe_open(tmp_path / "out" / "cg3.safetensors", "pt") as second,
    ):
        assert set(first.keys()) == set(second.keys())
        assert all((first.get_tensor(key) - second.get_tensor(key)).abs().max() < 1e-6 for key in first.keys())  # noqa: SIM118


def test_two_processes_save_one_network(embedded: World, tmp_path: Path) -> None:
    run = embedded.train(tmp_path, processes=2)
    assert run.code == 0
    assert (tmp_path / "out" / "cg3.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_offset": 0.1}, "c.toml noise_offset: not in the built-in trainer; remove it, or use sd-scripts."),
        ({"learnin_rate": 1}, "c.toml learnin_rate: not in the built-in trainer; did you mean"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: not in the built-in trainer; turn it off"),
        ({"network_module": "networks.lora"}, "network_module: the built-in trainer only has 'lycoris.kohya'"),
    ],
)
def test_what_it_leaves_out_is_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        raise_first(Builtin().option_errors(options, "c.toml"))
    assert message in str(error.value)


def test_an_option_that_is_switched_off_is_no_obstacle() -> None:
    assert not list(Builtin().option_errors({"gradient_checkpointing": False, "xformers": False, "v2": False}, "c.toml"))


def test_flags_are_typed_as_the_file_is() -> None:
    given = Builtin().given_flags(["--learning_rate", "1e-4", "--flip_aug", "--output_name=it", "--resolution", "64,64"])
    assert given == {"learning_rate": 1e-4, "flip_aug": True, "output_name": "it", "resolution": "64,64"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache_latents": None}, "cache_latents: the built-in trainer only has True; set that, or use sd-scripts."),
        ({"composite": {"join": "pixel"}}, 'join: the built-in trainer only has "latent"; set that, or use sd-scripts.'),
        ({"sample_sampler": "heun"}, "sample_sampler: the built-in trainer has ddim"),
        ({"optimizer_type": "Prodigy"}, "optimizer_type: the built-in trainer has adamw, adamw8bit; choose one"),
        ({"lr_scheduler": "rex"}, "lr_scheduler: the built-in trainer has constant"),
        ({"sample_prompts": "mine.txt"}, "sample_prompts: the built-in trainer reads .json"),
        ({"network_args": ["algo=lohaa"]}, '"lohaa" is no LyCORIS algorithm; did you mean "loha"?'),
    ],
)
def test_a_config_it_cannot_train_is_one_sentence(
    embedded: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, changes: dict, message: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # as --cpu sets it, but undone
    config = embedded.write_config(tmp_path, **changes)
    assert launcher.main(["--config", str(config), "--cpu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert message in said


RESUMABLE = {"max_train_steps": 6, "save_every_n_steps": 2, "save_state": True}


@pytest.fixture(scope="module")
def undisturbed(embedded: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert embedded.train(folder, **RESUMABLE).code == 0
    return folder / "out"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("what", "number", "blow", "code", "says"),
    [
        ("step", 5, "9", -9, "stage 1: was interrupted; it goes on after step 4 of 6"),
        ("file", 12, "9", -9, "stage 1: was interrupted; it goes on after step 6 of 6"),
        ("step", 11, "2", 130, "stage 2: was interrupted; it goes on after step 3 of 6"),
        ("step", 3, "full", 2, "stage 1: was interrupted; it goes on after step 2 of 6"),
    ],
)
def test_what_was_interrupted_goes_on_bit_for_bit(
    embedded: World, tmp_path: Path, undisturbed: Path, what: str, number: int, blow: str, code: int, says: str
) -> None:
    struck = embedded.strike(tmp_path, what, number, blow, **RESUMABLE)
    assert struck.code == code
    assert "Traceback" not in struck.output
    if blow == "full":
        assert re.search(r"error: \S+safetensors: cannot be written \(.+\); make room or mend the folder", struck.output)

    again = embedded.train(tmp_path, **RESUMABLE)

    assert again.code == 0
    assert says in again.output
    for name in ("cg3-stage1.safetensors", "cg3.safetensors"):
        found, expected = load_file(tmp_path / "out" / name), load_file(undisturbed / name)
        assert found.keys() == expected.keys()
        assert all(found[key].equal(expected[key]) for key in found), name
    assert names(tmp_path / "out") == names(undisturbed)


@pytest.mark.parametrize(("blow", "says"), [("9", "after step 2 of 6"), ("15", "after step 3 of 6")])
def test_two_processes_go_on_bit_for_bit(embedded: World, tmp_path: Path, undisturbed_pair: Path, blow: str, says: str) -> None:
    struck = embedded.strike(tmp_path, "step", 11, blow, processes=2, **RESUMABLE)
    assert struck.code != 0
    again = embedded.train(tmp_path, processes=2, **RESUMABLE)
    assert again.code == 0
    assert f"stage 2: was interrupted; it goes on {says}" in again.output
    found, expected = load_file(tmp_path / "out/cg3.safetensors"), load_file(undisturbed_pair / "cg3.safetensors")
    assert all(found[key].equal(expected[key]) for key in expected)


@pytest.fixture(scope="module")
def undisturbed_pair(embedded: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed_pair")
    assert embedded.train(folder, processes=2, **RESUMABLE).code == 0
    return folder / "out"


def test_two_runs_at_once_do_not_write_to_one_output(embedded: World, tmp_path: Path, undisturbed: Path) -> None:
    first = embedded.start(tmp_path, **RESUMABLE)
    journal = tmp_path / "out/cg3.run.json"
    while not journal.exists():
        os.kill(first, 0)
        time.sleep(0.05)
    os.kill(first, signal.SIGSTOP)
    try:
        before = snapshot(tmp_path / "out")
        second = embedded.train(tmp_path, **RESUMABLE)
        assert second.code == 2
        assert f"error: {tmp_path}/out/cg3.run.lock: another run is writing to this output; wait for it" in second.output
        assert snapshot(tmp_path / "out") == before
    finally:
        os.kill(first, signal.SIGKILL)
        embedded.forks.wait(first)
    assert embedded.train(tmp_path, **RESUMABLE).code == 0
    assert names(tmp_path / "out") == names(undisturbed)


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"}


def test_an_output_folder_that_vanishes_is_made_anew(embedded: World, tmp_path: Path, undisturbed: Path) -> None:
    assert embedded.strike(tmp_path, "step", 3, "vanish", **RESUMABLE).code == 0
    lost = {name for name in names(undisturbed) if "stage1-step00000002" in name} | {"cg3-stage1.toml", "cg3.run.lock"}
    assert names(tmp_path / "out") == sorted(set(names(undisturbed)) - lost)
