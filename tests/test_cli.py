"""The commands as a user types them: help, exit codes, one sentence for a mistake, and no wait for torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lycoris_composite import __version__, cli, launcher
from lycoris_composite.errors import UserError
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.kohya import script as kohya
from tests.galleries import BEGIN, write_stage
from tests.helpers import ROOT, python, write_config

COMMANDS = {
    "lycoris-composite": ("-m", "lycoris_composite.cli"),
    "lycoris-composite setup": ("-m", "lycoris_composite.cli", "setup"),
    "lycoris-composite run": ("-m", "lycoris_composite.cli", "run"),
    "lycoris-composite doctor": ("-m", "lycoris_composite.cli", "doctor"),
    "lycoris-composite gallery": ("-m", "lycoris_composite.cli", "gallery"),
    "lycoris-composite preview": ("-m", "lycoris_composite.cli", "preview"),
    "lycoris-composite export": ("-m", "lycoris_composite.cli", "export"),
    "train_composite.py": (str(ROOT / "train_composite.py"),),
}
SLOW = ("torch", "library", "lycoris", "accelerate", "diffusers", "transformers")
# Runs a main function and then says which slow packages it has imported.
WATCHED = f"""
import sys
from lycoris_composite import cli, launcher
try:
    code = {{main}}.main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
print("slow:", *(name for name in {SLOW} if name in sys.modules))
sys.exit(code)
"""


# --- help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_small_terminal(tmp_path, command):
    done = python(*COMMANDS[command], "--help", cwd=tmp_path, HOME="/home/user")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {command}")
    lines = done.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(
        line.split(": ")[-1].strip().startswith((f"{command} ", "accelerate launch ")) for line in lines[1:]
    )  # an example


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        ("cli", ["--help"]),
        ("cli", ["run", "--help"]),
        ("cli", ["doctor", "--help"]),
        ("cli", ["gallery", "--help"]),
        ("cli", ["preview", "--help"]),
        ("cli", ["export", "--help"]),
        ("launcher", ["--help"]),
        ("cli", ["--version"]),
    ],
)
def test_help_does_not_wait_for_torch(tmp_path, main, arguments):
    done = python("-c", WATCHED.format(main=main), *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "slow:")


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"lycoris-composite {__version__}\n"


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[composite]\njion = "pixel"\n', 'cg3.toml, [composite] jion: unknown key; did you mean "join"?'),
        ("[composite\n", "cg3.toml: not TOML ("),
        ("[composite]\n", "sd-scripts not found (looked in "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_before_torch_is_imported(tmp_path, text, sentence):
    write_config(tmp_path / "cg3.toml", text)
    home = str(tmp_path / "home")
    arguments = ["--config", "cg3.toml", "--learning_rate", "1e-4"]
    done = python("-c", WATCHED.format(main="launcher"), *arguments, cwd=tmp_path, HOME=home, XDG_DATA_HOME=home)
    assert (done.returncode, done.stdout) == (2, "slow:\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {sentence}")


def raising(error: Exception) -> Any:
    def action() -> None:
        raise error

    return action


def test_exit_codes(capsys):
    assert launcher.report(lambda: None) == 0
    assert launcher.report(raising(UserError("cg3.toml: wrong; mend it."))) == 2
    assert capsys.readouterr() == ("", "error: cg3.toml: wrong; mend it.\n")


def test_the_sentence_is_said_by_one_process_of_several(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert launcher.report(raising(UserError("wrong"))) == 2
    assert capsys.readouterr() == ("", "")


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match="ours"):
        launcher.report(raising(ZeroDivisionError("ours")))


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "required: COMMAND"), (["setup", "--typo"], "unrecognized arguments: --typo")]
)
def test_a_wrong_command_line(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert message in capsys.readouterr().err


# --- run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What `run` would have started: checkout, script, flags, whether pickles are allowed."""
    calls: list[tuple] = []

    class Upstream:
        def __init__(self, folder: Path, script: str) -> None:
            self.known = (folder, script)

        def run_script(self, flags: list[str], allow_pickle: bool = False) -> None:
            calls.append((*self.known, flags, allow_pickle))

    monkeypatch.setattr(kohya, "Upstream", Upstream)
    monkeypatch.setattr(checkout, "find", lambda given: Path(given or "found"))
    return calls


def test_run_hands_upstreams_flags_on_as_they_are(started):
    flags = ["--dataset_config", "my.toml", "--max_grad_norm", "-1", "--network_args", "algo=loha", "conv_dim=0", "--sdpa"]
    assert cli.main(["run", "train_network.py", *flags]) == 0
    assert started == [(Path("found"), "train_network.py", flags, False)]


def test_run_takes_its_own_flags_from_among_them(started):
    arguments = ["sdxl_train_network.py", "--sdpa", "--sd_scripts", "there", "--allow_pickle", "--seed", "1"]
    assert cli.main(["run", *arguments]) == 0
    assert started == [(Path("there"), "sdxl_train_network.py", ["--sdpa", "--seed", "1"], True)]


def test_run_does_not_guess_at_shortened_flags(started):
    """`--sd` could be an upstream's flag one day."""
    cli.main(["run", "train_network.py", "--sd", "1", "--allow"])
    assert started[0][2:] == (["--sd", "1", "--allow"], False)


def test_run_without_a_checkout_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    assert cli.main(["run", "train_network.py"]) == 2
    assert capsys.readouterr().err.startswith(f"error: $SD_SCRIPTS_DIR {tmp_path}: no train_network.py there")


# --- setup -------------------------------------------------------------------------------------------------------


def test_setup_prints_what_was_done(monkeypatch, capsys):
    monkeypatch.setattr(checkout, "setup", lambda url, ref, folder, tokenizers: [f"{url} {ref}", f"in {folder}"])
    assert cli.main(["setup", "--ref", "v0.10.0", "--dir", "there"]) == 0
    assert capsys.readouterr().out == f"{checkout.PUBLIC_URL} v0.10.0\nin there\n"


# --- gallery -----------------------------------------------------------------------------------------------------


def test_gallery_prints_where_it_is_and_what_it_chose(tmp_path):
    for name, begin in (("older", BEGIN), ("cg3-stage1", BEGIN + 60)):
        write_stage(tmp_path / "out", name, ["e000001"], begin=begin)
    done = python("-m", "lycoris_composite.cli", "gallery", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["showing cg3, whose samples are the newest (--name for older)", "out/cg3-gallery.html"],
    )
    assert done.stderr == "", "no terminal: no progress bar"


def test_gallery_of_nothing_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    assert cli.main(["gallery", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: holds no samples")


@pytest.mark.parametrize(
    "arguments",
    [
        ("preview", "c.toml", "--count", "0"),
        ("preview", "c.toml", "--count", "201"),
        ("preview", "c.toml", "--epoch", "-3"),
        ("export", "c.toml", "--out", "x", "--epochs", "none"),
    ],
)
def test_a_number_out_of_range_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert re.search(r"argument --\w+: invalid number, 1 (to 200|or more) value", capsys.readouterr().err)


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(own: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS, "preview", interrupted)
    assert cli.main(["preview", "c.toml"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_seen_enough_and_one_that_knows_few_characters(tmp_path):
    out = tmp_path / "漢字"
    write_stage(out, "cg3", ["e000001"])
    command = f"{sys.executable} -m lycoris_composite.cli gallery {out} | true; echo ${{PIPESTATUS[0]}}"
    shell = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(["bash", "-c", command], **shell)
    assert (done.stdout, "Traceback" in done.stderr) == ("0\n", False)
    done = python("-m", "lycoris_composite.cli", "gallery", str(out), PYTHONIOENCODING="cp1252")
    assert done.returncode == 0
    assert "\\u6f22\\u5b57" in done.stdout
