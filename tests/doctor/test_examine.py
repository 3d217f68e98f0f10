"""What the doctor says of a config, against what a run of it does. With the embedded trainer; on the real one it is
tests/trainers/kohya/test_doctor.py."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason='needs `pip install ".[builtin]"`')
pytest.importorskip("lycoris", reason='needs `pip install ".[builtin]"`')
from lycoris_composite import cli, launcher
from lycoris_composite.doctor import examine as doctor
from lycoris_composite.doctor import versions as surroundings
from lycoris_composite.doctor.findings import ERROR, OK, WARNING, Finding
from lycoris_composite.run.journal import Journal, StageRecord, sole_run
from lycoris_composite.trainers.kohya import checkout
from tests.world import World


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launcher and the doctor set is taken back."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, "true")


@pytest.fixture
def write(embedded: World, tmp_path: Path) -> Callable[..., Path]:
    """A config on a copy of the drawn characters."""
    data = shutil.copytree(embedded.folder / "data", tmp_path / "data")
    return lambda **changes: embedded.write_config(tmp_path, **{"train_data_dir": str(data), **changes})


def rows(config: Path, **named: Any) -> list[Finding]:
    return [finding for section in doctor.examine(config, **named) for finding in section]


def refused(config: Path) -> list[str]:
    return [row.meaning for row in rows(config) if row.level == ERROR and row.subject == "a run refuses"]


def by_subject(config: Path, **named: Any) -> dict[str, Finding]:
    return {row.subject: row for row in rows(config, **named)}


def runs_sentence(config: Path, capsys: pytest.CaptureFixture) -> str:
    """The sentence with which a run refuses the config."""
    capsys.readouterr()
    assert launcher.main(["--config", str(config)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("error: ")


def test_a_config_that_would_run(write, tmp_path):
    found = by_subject(write(), cpu=True)
    assert not [row for row in found.values() if row.level == ERROR]
    assert found["a run refuses"].found == "nothing"
    assert found["characters"].found == "mio (3), rin (3), uzuki (3)"
    assert found["patches"].found == "1 of 1 fit"
    assert found["GPU"].level == OK
    assert found["disk"].found.endswith(" free")
    assert found["disk"].meaning == str(tmp_path)
    assert found["save_state"].level == WARNING


def spoiled(place: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / place).write_bytes(content)


@pytest.mark.parametrize(
    ("changes", "spoil"),
    [
        pytest.param({"composite": {"jion": "pixel"}}, None, id="settings"),
        pytest.param({"composite": {"stage2": {"resolutoin": 3}}}, None, id="options"),
        pytest.param({"composite": {"join": "pixel"}}, None, id="stage"),
        pytest.param({"mixed_precision": "fp16"}, None, id="machine"),
        pytest.param({"network_args": ["algo=lohaa"]}, None, id="network"),
        pytest.param({}, spoiled("data/1_rin/01.png", b""), id="files"),
        pytest.param({"train_data_dir": "gone"}, None, id="data"),
        pytest.param({"pretrained_model_name_or_path": "gone"}, None, id="weights"),
        pytest.param({}, spoiled("out", b"a file"), id="output"),
    ],
)
def test_what_it_refuses_a_run_refuses_with_the_same_sentence(write, tmp_path, capsys, changes, spoil):
    """A case for each place that a refusal comes from; the lock's and the journal's are further down."""
    config = write(**changes)
    if spoil is not None:
        spoil(tmp_path)
    sentence = runs_sentence(config, capsys)
    assert sentence in refused(config)


def test_all_is_said_at_once(write, tmp_path):
    config = write(xformers=True, learning_rate="fast", network_args=["agol=loha"], mixed_precision="fp16")
    (tmp_path / "data/1_rin/01.txt").write_text("")
    for number in range(25):
        (tmp_path / "data/1_mio" / f"broken{number:02}.png").write_text("")
    found = refused(config)
    for word in (
        "xformers: not in",
        "learning_rate: 'fast'",
        "agol: unknown",
        '"fp16" needs a GPU',
        "26 file(s) cannot be used",
    ):
        assert sum(word in one for one in found) == 1, word
    files = [row.found for row in rows(config) if row.subject == "bad file"]
    assert (len(files), files[-1]) == (21, "and 6 more")


def test_what_nobody_reads_is_said(write, tmp_path):
    shutil.copytree(tmp_path / "data/1_rin", tmp_path / "data/forgotten")
    found = [row for row in rows(write(caption_extension=".caption")) if row.subject == "ignored"]
    assert {row.level for row in found} == {WARNING}
    assert "forgotten: its 3 picture(s) are not trained on; name it" in found[0].meaning
    assert sum("captions end in .txt and are not read" in row.meaning for row in found) == 3


def test_what_cpu_would_change_is_said(write):
    assert by_subject(write(mixed_precision="fp16"))["--cpu"].meaning == "float32 instead of mixed_precision fp16"
    assert not [row for row in rows(write(mixed_precision="fp16"), cpu=True) if row.level == ERROR]


def test_a_run_that_goes_on_elsewhere(write, tmp_path, capsys):
    config = write()
    with sole_run(tmp_path / "out/cg3.run.lock"):
        assert runs_sentence(config, capsys) in refused(config)
    assert refused(config) == []


def test_an_interrupted_run_that_was_another(write, tmp_path, capsys):
    config = write()
    (tmp_path / "out").mkdir()
    journal = Journal(tmp_path / "out/cg3.run.json")
    journal.begin(1, StageRecord({"seed": "7"}, {}))
    journal.finish(1, "a digest", 8, 2)
    assert "the run that began here was another" in runs_sentence(config, capsys)
    assert refused(config) == [runs_sentence(config, capsys)]
    (tmp_path / "out/cg3.run.json").write_text("{")
    assert refused(config) == [runs_sentence(config, capsys)]


def test_it_writes_nothing(write, tmp_path):
    config = write(cache_latents_to_disk=False)

    def tree() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}

    before = tree()
    doctor.examine(config)
    assert tree() == before
    assert not (tmp_path / "out").exists()


def test_secrets_are_not_shown(write):
    config = write(wandb_api_key="s3cret", huggingface_token="s3cret")
    assert "s3cret" not in repr(rows(config))


def test_the_command(write, capsys, monkeypatch, tmp_path):
    config = write(save_state=True, save_every_n_steps=1)
    assert cli.main(["doctor", str(config), "--cpu", "--set", "output_name=new"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("all is well (exit code 0)\n")
    assert captured.err == ""
    assert cli.main(["doctor", str(config), "--cpu", "--set", "seed="]) == 1
    assert cli.main(["doctor", str(tmp_path / "gone.toml")]) == 2
    assert "gone.toml: no such file" in " ".join(capsys.readouterr().out.split())


def test_a_bare_machine_is_a_table_and_no_traceback(tmp_path, monkeypatch, capsys):
    """No torch, no LyCORIS, no sd-scripts."""
    for name in ("torch", "lycoris", "lycoris.kohya", "bitsandbytes", "xformers", "xformers.ops"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    assert cli.main(["doctor"]) == 2
    found = {row.subject: row for section in doctor.examine() for row in section}
    assert [found[name].level for name in ("torch", "LyCORIS", "sd-scripts")] == [ERROR] * 3


def test_broken_values_never_end_in_a_traceback(write):
    numbers = ("max_token_length", "save_every_n_steps", "train_batch_size", "network_dim", "max_train_steps")
    for key, value in {**dict.fromkeys(numbers, "many"), "resolution": [], "min_bucket_reso": "64"}.items():
        assert refused(write(**{key: value})), key


def test_a_checkout_that_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "find", lambda given: tmp_path)

    class Trainer:
        def fits(self, network_module: str) -> list:
            return [("load_image", None), ("strategies", "library.strategy_base has no X")]

    monkeypatch.setattr(surroundings, "trainer_of", lambda name, folder: Trainer())
    _, patches, misfit = surroundings.sd_scripts(None, "train_network", "lycoris.kohya")
    assert (patches.found, patches.level) == ("1 of 2 fit", ERROR)
    assert (misfit.subject, misfit.level) == ("patch strategies", ERROR)
    assert misfit.meaning.startswith("library.strategy_base has no X; check out v0.11.1")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("4.1.3", "tested here"),
        ("4.0.0", "tested here; 4.1 is newer; `pip install -U lycoris-lora` gets it"),
        ("3.4.0", "tested here; 4.1 is newer; `pip install -U lycoris-lora` gets it"),
        ("3.3.0", "not tested here; 3.4, 4.0 and 4.1 are"),
    ],
)
def test_lycoris_versions_and_what_is_newer(monkeypatch, found, said):
    monkeypatch.setattr(surroundings, "installed", lambda package: found)
    row = surroundings._lycoris()
    assert (row.found, row.meaning) == (found, said)
    assert row.level == (OK if "not tested" not in said else WARNING)


def test_sd_scripts_version_and_what_is_newer(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "version", lambda folder: "v0.10.6")
    row = surroundings.clone(tmp_path)
    newer = f"{checkout.DEFAULT_REF} is newer; `lycoris-composite setup --dir {tmp_path}` says how to get it"
    assert (row.found, row.meaning, row.level) == ("v0.10.6", f"{tmp_path}; {newer}", OK)
