"""Finding sd-scripts, and getting it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lycoris_composite.errors import UserError
from lycoris_composite.trainers.kohya import checkout

REQUIREMENTS = """\
accelerate==1.6.0
diffusers[torch]==0.32.1
# albumentations==1.3.0
opencv-python==4.10.0.84
toml==0.10.2  # for configs

--index-url https://example.org
# for kohya_ss library
-e .
"""


def make_checkout(folder: Path) -> Path:
    """The least that is taken for a clone of sd-scripts."""
    (folder / "library").mkdir(parents=True)
    for name in ("train_network.py", "library/train_util.py"):
        (folder / name).touch()
    (folder / "requirements.txt").write_text(REQUIREMENTS)
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    return subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def make_repository(folder: Path, tag: str) -> Path:
    """All that lies in a folder, as a tagged commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")
    git(folder, "tag", tag)
    return folder


# --- finding it --------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The folders that are looked at, first one first, for a user who stands in `work`."""
    home, work = tmp_path / "home", tmp_path / "user" / "work"
    for folder in (home, work):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("SD_SCRIPTS_DIR", raising=False)
    return {
        "given": tmp_path / "given",
        "variable": tmp_path / "variable",
        "here": work,
        "below": work / "sd-scripts",
        "beside": work.parent / "sd-scripts",
        "setup": home / ".local" / "share" / "lycoris-composite" / "sd-scripts",
    }


@pytest.mark.parametrize("first", range(6))
def test_the_first_place_with_a_checkout_counts(places, monkeypatch, first):
    names = list(places)[first:]
    for name in names:
        make_checkout(places[name])
    if "variable" in names:
        monkeypatch.setenv("SD_SCRIPTS_DIR", str(places["variable"]))
    given = str(places["given"]) if names[0] == "given" else None
    assert checkout.find(given) == places[names[0]].resolve()


def test_setup_puts_it_where_it_is_found(places, monkeypatch):
    assert checkout.default_folder() == places["setup"]
    monkeypatch.setenv("XDG_DATA_HOME", str(places["given"]))
    assert checkout.default_folder() == places["given"] / "lycoris-composite" / "sd-scripts"


def test_nowhere_says_where_it_was_looked_for(places):
    with pytest.raises(
        UserError, match="sd-scripts not found .*; run `lycoris-composite setup`, or name it with --sd_s"
    ) as caught:
        checkout.find()
    for name in ("here", "below", "beside", "setup"):
        assert str(places[name]) in str(caught.value)


def test_a_named_folder_must_be_one(places, monkeypatch):
    make_checkout(places["below"])  # which is not what was asked for
    with pytest.raises(UserError, match=f"--sd_scripts {places['given']}: no train_network.py there; give the folder"):
        checkout.find(str(places["given"]))
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(places["variable"]))
    with pytest.raises(UserError, match=rf"\$SD_SCRIPTS_DIR {places['variable']}: no train_network.py there"):
        checkout.find()


def test_a_lone_script_is_no_checkout(tmp_path):
    (tmp_path / "train_network.py").touch()
    assert not checkout.is_checkout(tmp_path)


def test_a_relative_folder_is_found(places, tmp_path):
    make_checkout(places["below"])
    assert checkout.find("sd-scripts") == places["below"].resolve()


# --- its version -------------------------------------------------------------------------------------------------


def test_the_version_is_the_tag(tmp_path):
    assert checkout.version(make_repository(make_checkout(tmp_path), "v0.10.1")) == "v0.10.1"


def test_an_unpacked_archive_has_no_version(tmp_path):
    assert checkout.version(make_checkout(tmp_path / "sd-scripts")) == "an unknown version"


def test_an_unpacked_archive_in_somebodys_repository_has_no_version(tmp_path):
    make_repository(tmp_path, "my-project-1")
    assert checkout.version(make_checkout(tmp_path / "sd-scripts")) == "an unknown version"


# --- getting it --------------------------------------------------------------------------------------------------


DLL, TOKENIZER = "bitsandbytes_windows/main.dll", "configs/qwen3_06b/tokenizer.json"


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository like upstream's, with two versions and the large files that a mirror may lack."""
    folder = make_checkout(tmp_path / "upstream")
    for name in (DLL, TOKENIZER, "configs/qwen3_06b/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    make_repository(folder, "v0.10.1")
    (folder / "newer.py").touch()
    return make_repository(folder, "v0.10.2")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of every `pip` that would have run; git runs."""
    calls: list[list[str]] = []
    real: Callable = subprocess.run

    def run(command, *args, **kwargs):
        if command[:3] == [sys.executable, "-m", "pip"]:
            calls.append(command[3:])
            return subprocess.CompletedProcess(command, 0)
        return real(command, *args, **kwargs)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def snapshot(folder: Path) -> dict[Path, tuple[float, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_setup_clones_the_version_and_installs_what_it_needs(tmp_path, upstream, pip):
    folder = tmp_path / "share" / "sd-scripts"
    lines = checkout.setup(str(upstream), "v0.10.1", folder)
    assert checkout.find(str(folder)) == folder.resolve()
    assert lines == [f"sd-scripts v0.10.1 cloned to {folder}", "4 requirements of sd-scripts are installed"]
    assert not (folder / "newer.py").exists()
    wanted = ["accelerate==1.6.0", "diffusers[torch]==0.32.1", "opencv-python-headless", "toml==0.10.2"]
    assert pip == [["install", "--quiet", *wanted]]


def lose(repository: Path, *names: str) -> None:
    """Makes a mirror that has everything but these files' content."""
    for name in names:
        blob = git(repository, "rev-parse", f"v0.10.1:{name}")
        path = repository / ".git" / "objects" / blob[:2] / blob[2:]
        path.chmod(0o600)
        path.unlink()


def test_everything_is_cloned(tmp_path, upstream, pip):
    clone = tmp_path / "clone"
    [line, _] = checkout.setup(str(upstream), "v0.10.1", clone)
    assert line == f"sd-scripts v0.10.1 cloned to {clone}"
    assert (clone / DLL).is_file()
    assert (clone / TOKENIZER).is_file()


@pytest.mark.parametrize(("lost", "meaning"), [
    ([DLL], "an old bitsandbytes for Windows, which nothing here uses"),
    ([TOKENIZER], "Anima's text encoder cannot be used from single-file weights"),
    ([DLL, TOKENIZER], f"nothing here uses); {TOKENIZER} (Anima's"),
])  # fmt: skip
@pytest.mark.parametrize("ref", ["v0.10.1", "v0.10.2", "main", "commit"])
def test_what_a_mirror_lacks_is_left_out_and_said(tmp_path, upstream, pip, ref, lost, meaning):
    git(upstream, "branch", "-M", "main")
    ref = git(upstream, "rev-parse", "--short", "HEAD") if ref == "commit" else ref
    lose(upstream, *lost)
    clone = tmp_path / "clone"

    [line, _] = checkout.setup(str(upstream), ref, clone)

    assert line.startswith(
        f"sd-scripts {'v0.10.1' if ref == 'v0.10.1' else 'v0.10.2'} cloned to {clone}, but for what {upstream} lacks: "
    )
    assert all(name in line for name in lost)
    assert meaning in line
    for name in (DLL, TOKENIZER):
        assert (clone / name).is_file() == (name not in lost)
    assert (clone / "configs/qwen3_06b/config.json").is_file()
    assert not git(clone, "status", "--short")


def test_a_mirror_that_lacks_code_is_refused(tmp_path, upstream, pip):
    lose(upstream, "requirements.txt")
    with pytest.raises(UserError, match=f"{upstream}: lacks requirements.txt of v0.10.1; clone another with --url"):
        checkout.setup(str(upstream), "v0.10.1", tmp_path / "clone")
    assert not (tmp_path / "clone").exists()


def test_setup_run_twice_changes_nothing(tmp_path, upstream, pip):
    folder = tmp_path / "clone"
    checkout.setup(str(upstream), "v0.10.1", folder)
    (folder / "train_network.py").write_text("# the user's own change")
    before = snapshot(folder), git(folder, "rev-parse", "HEAD")
    lines = checkout.setup(str(upstream), "v0.10.2", folder)
    after = snapshot(folder), git(folder, "rev-parse", "HEAD")
    index = folder / ".git" / "index"  # `git describe` may refresh it
    assert {**after[0], index: None} == {**before[0], index: None}
    assert after[1] == before[1]
    update = f"git -C {folder} fetch --tags && git -C {folder} checkout v0.10.2"
    assert lines[0] == f"sd-scripts v0.10.1-dirty is in {folder}; for v0.10.2 run `{update}` and this again"
    assert pip[0] == pip[1]


@pytest.mark.parametrize("clone_with", [[], ["--depth=1", "--branch=v0.10.1"], ["--no-tags"], "sparse", "mirror"])
def test_an_existing_clone_is_told_how_to_get_another_version(tmp_path, upstream, pip, clone_with):
    """The command that is printed, run as it stands."""
    folder = tmp_path / "my clone"
    if clone_with == "mirror":
        lose(upstream, TOKENIZER)
        checkout.setup(str(upstream), "v0.10.1", folder)
    else:
        options = [] if clone_with == "sparse" else clone_with
        git(tmp_path, "clone", "--quiet", *options, f"file://{upstream}" if options else str(upstream), str(folder))
        git(folder, "checkout", "--quiet", git(upstream, "rev-parse", "v0.10.1"))
    if clone_with == "sparse":  # as earlier versions of `setup` cloned
        git(folder, "sparse-checkout", "set", "--no-cone", "/*", "!/bitsandbytes_windows/", "!/configs/qwen3_06b/")

    line = checkout.setup(str(upstream), "v0.10.2", folder)[0]
    subprocess.run(line.split("`")[1], shell=True, check=True, capture_output=True)

    assert checkout.setup(str(upstream), "v0.10.2", folder)[0] == f"sd-scripts v0.10.2 is in {folder}"
    assert (folder / "newer.py").is_file()
    assert (folder / TOKENIZER).is_file() == (clone_with != "mirror")


def test_a_clone_at_the_version_asked_for_is_only_named(tmp_path, upstream, pip):
    git(upstream, "branch", "-M", "main")
    checkout.setup(str(upstream), "main", tmp_path / "clone")
    for ref in ("main", "v0.10.2", git(upstream, "rev-parse", "HEAD")[:7]):
        assert checkout.setup(str(upstream), ref, tmp_path / "clone")[0] == f"sd-scripts v0.10.2 is in {tmp_path / 'clone'}"


def test_an_unpacked_archive_is_left_as_it_is(tmp_path, pip):
    folder = make_checkout(tmp_path / "sd-scripts")
    line = checkout.setup("url", "v0.11.1", folder)[0]
    assert line.startswith(f"sd-scripts an unknown version is in {folder}, which is no clone of its own; for v0.11.1 run")


# --- what is newer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["v0.10.1", "v0.10.1-3-g1a2b3c4", "v0.10.6-dirty", "v0.9.1", "0.8"])
def test_an_older_version_is_told_what_is_newer(tmp_path, found):
    newer = checkout.what_is_newer(found, tmp_path)
    assert newer == f"{checkout.DEFAULT_REF} is newer; `lycoris-composite setup --dir {tmp_path}` says how to get it"


@pytest.mark.parametrize(
    "found", [checkout.DEFAULT_REF, f"{checkout.DEFAULT_REF}-5-gc162e903", "v1.0.0", "1a2b3c4", "an unknown version"]
)
def test_nothing_is_newer_than_the_newest_or_than_what_cannot_be_told(tmp_path, found):
    assert checkout.what_is_newer(found, tmp_path) is None


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, upstream, pip):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=f"{folder}: not empty and no sd-scripts clone; empty it or name another with --dir"):
        checkout.setup(str(upstream), "v0.10.1", folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert pip == []


def test_a_repository_that_is_not_there(tmp_path, pip):
    with pytest.raises(UserError, match="git clone .*nowhere.*: .+") as caught:
        checkout.setup(str(tmp_path / "nowhere"), "v0.10.1", tmp_path / "clone")
    assert "\n" not in str(caught.value)
    assert pip == []


def test_a_version_that_is_not_there(tmp_path, upstream, pip):
    with pytest.raises(UserError, match="git checkout --quiet v9: .*v9"):
        checkout.setup(str(upstream), "v9", tmp_path / "clone")


def test_a_machine_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match="git: not found; install it, or clone sd-scripts by hand and name it with --sd_scripts"
    ):
        checkout.setup("url", "v0.10.1", tmp_path / "clone")


def test_requirements_that_pip_cannot_install(tmp_path, monkeypatch):
    folder = make_checkout(tmp_path / "clone")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", ""))
    with pytest.raises(
        UserError, match="requirements.txt: pip could not install it .see above.; mend that and run setup again"
    ):
        checkout.setup("url", "v0.10.1", folder)


def test_requirements_keep_pins_and_leave_out_comments_and_options():
    names = ["accelerate==1.6.0", "diffusers[torch]==0.32.1", "opencv-python-headless", "toml==0.10.2"]
    assert checkout.requirements(REQUIREMENTS) == names
