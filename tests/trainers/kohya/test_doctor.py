"""The doctor on the real trainer: sd-scripts' version, its patches, and what its runs refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import toml

from lycoris_composite.doctor import examine as doctor
from lycoris_composite.doctor.findings import ERROR, Finding
from tests.helpers import ROOT, python
from tests.world import World


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launcher and the doctor set is taken back."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setattr(sys, "path", [*sys.path])


def examined(world: World, folder: Path, **changes: Any) -> dict[str, list[Finding]]:
    config = world.write_config(folder, **changes)
    found: dict[str, list[Finding]] = {}
    for section in doctor.examine(config, sd_scripts_folder=str(world.sd_scripts)):
        for row in section:
            found.setdefault(row.subject, []).append(row)
    return found


def test_a_config_that_would_run(world: World, tmp_path: Path) -> None:
    found = examined(world, tmp_path)
    assert not [row for rows in found.values() for row in rows if row.level == ERROR]
    assert found["patches"][0].found == "14 of 14 fit"
    assert found["sd-scripts"][0].meaning.split("; ")[0] == str(world.sd_scripts.resolve())


def test_a_key_that_upstream_does_not_have(world: World, tmp_path: Path) -> None:
    """Upstream passes over it without a word; so does a run, but not without one."""
    [row] = examined(world, tmp_path, train_bach_size=3)["ignored"]
    assert "cg3.toml train_bach_size: unknown to train_network.py; did you mean" in row.meaning


def test_a_dataset_config_that_upstream_does_not_let_in(world: World, tmp_path: Path) -> None:
    folders = sorted((world.folder / "data").iterdir())
    subsets = [{"image_dir": str(folder), "num_repeatz": 2} for folder in folders]
    (tmp_path / "data.toml").write_text(toml.dumps({"datasets": [{"subsets": subsets}]}))
    changes = {"train_data_dir": None, "dataset_config": str(tmp_path / "data.toml")}
    refused = [row.meaning for row in examined(world, tmp_path, **changes)["a run refuses"]]
    assert any("data.toml: extra keys not allowed" in sentence and "num_repeatz" in sentence for sentence in refused)


def meanings(table: str) -> str:
    """The text of a printed table's last column, its lines joined."""
    return " ".join(row.split("│")[4].strip() for row in table.splitlines() if row.count("│") == 5)


def test_a_tokenizer_that_training_would_fetch(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: whether anything may be fetched is settled when the hub's library is imported."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    config = world.write_config(tmp_path, tokenizer_cache_dir="gone")
    arguments = ["doctor", str(config), "--cpu", "--sd_scripts", str(world.sd_scripts)]
    done = python("-m", "lycoris_composite.cli", *arguments, cwd=tmp_path, HF_HOME=str(tmp_path / "hub"))
    assert done.returncode == 2
    assert "is not on this machine, and training fetches nothing; run `lycoris-composite setup" in meanings(done.stdout)


def test_a_checkout_that_raises_is_a_row(tmp_path: Path) -> None:
    """Whatever importing it does."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library/train_util.py").write_text("")
    (tmp_path / "train_network.py").write_text("print('hello'); raise RuntimeError('one\\ntwo')")
    done = python("-m", "lycoris_composite.cli", "doctor", "--sd_scripts", str(tmp_path), cwd=ROOT)
    assert (done.returncode, done.stderr) == (2, "")
    assert "hello" not in done.stdout
    assert "train_network.py cannot be imported (one);" in meanings(done.stdout)
