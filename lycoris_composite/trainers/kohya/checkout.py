"""Where sd-scripts is, and how to get it: it is on no package registry."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lycoris_composite.architectures import Architecture, Tokenizer
from lycoris_composite.errors import UserError

PUBLIC_URL = "https://github.com/kohya-ss/sd-scripts"
DEFAULT_REF = "v0.11.1"
UNKNOWN = "an unknown version"
# Large files that a mirror may lack, by the start of their paths, and what their absence means. Code must be whole.
_SPARE = {
    "bitsandbytes_windows/": "an old bitsandbytes for Windows, which nothing here uses",
    "configs/qwen3_06b/": "Anima's text encoder cannot be used from single-file weights",
    "configs/t5_old/": "Anima cannot be trained without t5_tokenizer_path",
}


def default_folder() -> Path:
    """Where `setup` puts sd-scripts unless told otherwise."""
    data = os.environ.get("XDG_DATA_HOME") or (Path.home() / ".local" / "share")
    return Path(data) / "lycoris-composite" / "sd-scripts"


def find(given: str | None = None) -> Path:
    """The sd-scripts folder: the given one, $SD_SCRIPTS_DIR, this folder, sd-scripts in or beside it, or setup's.
    Raises UserError that says where it was looked for."""
    source, named = ("--sd_scripts", given) if given else ("$SD_SCRIPTS_DIR", os.environ.get("SD_SCRIPTS_DIR"))
    here = Path.cwd()
    folders = [Path(named)] if named else [here, here / "sd-scripts", here.parent / "sd-scripts", default_folder()]
    for folder in filter(is_checkout, folders):
        return folder.resolve()
    if named:
        raise UserError(f"{source} {named}: no train_network.py there; give the folder of an sd-scripts clone.")
    looked = ", ".join(map(str, folders))
    raise UserError(f"sd-scripts not found (looked in {looked}); run `lycoris-composite setup`, or name it with --sd_scripts.")


def is_checkout(folder: Path) -> bool:
    return (folder / "train_network.py").is_file() and (folder / "library" / "train_util.py").is_file()


def version(folder: Path) -> str:
    """The checkout's tag or short commit, with "-dirty" where files were changed; UNKNOWN where git cannot tell."""
    with suppress(UserError):
        if Path(_git("rev-parse", "--show-toplevel", folder=folder).strip()).samefile(folder):
            return _git("describe", "--tags", "--always", "--dirty", folder=folder).strip()
    return UNKNOWN


def leaves_out_small_pictures(folder: Path) -> bool:
    """Whether this upstream has skip_image_resolution; read in its text, for whoever imports no trainer."""
    return "skip_image_resolution" in _library_text(folder, "config_util")


def joins_by_separator(folder: Path) -> bool:
    """Whether this upstream joins the tags that it has shuffled by `caption_separator`, and not always by a comma."""
    pattern = r"caption_separator\} [\"']\.join\("
    return any(re.search(pattern, _library_text(folder, name)) for name in ("dataset", "train_util"))


def _library_text(folder: Path, name: str) -> str:
    path = folder / "library" / f"{name}.py"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def setup(url: str, ref: str, folder: Path, models: Sequence[Architecture] = ()) -> list[str]:
    """Clones sd-scripts, installs its requirements and fetches the models' tokenizers; a line for what was done. Run twice,
    it changes nothing. Nothing else in this project fetches anything."""
    done = [_clone(url, ref, folder), _install(folder)]
    tokenizers = dict.fromkeys(tokenizer for model in models for tokenizer in model.tokenizers if not tokenizer.bundled)
    return [*done, *map(_fetch, tokenizers)]


def _fetch(tokenizer: Tokenizer) -> str:
    code = "import sys, transformers; getattr(transformers, sys.argv[1]).from_pretrained(sys.argv[2])"
    command = [sys.executable, "-c", code, tokenizer.kind, tokenizer.name]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise UserError(f"{tokenizer.name}: cannot be fetched ({reason}); give tokenizer_cache_dir instead.")
    return f"the tokenizer {tokenizer.name} is in the hub's cache"


def _clone(url: str, ref: str, folder: Path) -> str:
    if is_checkout(folder):
        return f"sd-scripts {version(folder)} is in {folder}{_other_version(folder, ref)}"
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: not empty and no sd-scripts clone; empty it or name another with --dir.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="sd-scripts-") as made:
        part = Path(made) / "clone"  # it gets its name when it is complete
        _git("clone", "--quiet", "--no-checkout", url, str(part))
        lacking = _check_out(ref, part, url)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    return f"sd-scripts {version(folder)} cloned to {folder}{lacking}"


def _check_out(ref: str, part: Path, url: str) -> str:
    """Checks out all files that the repository has; what was left out, and what that means. It has to ask before: git may
    well succeed without a file that it cannot read, and only leave it out."""
    commit = _commit(ref, part)
    lacking = _lacking(commit, part) if commit else []
    code = next((path for path in lacking if not path.startswith(tuple(_SPARE))), None)
    if code:
        raise UserError(f"{url}: lacks {code} of {ref}; clone another with --url, or another version with --ref.")
    if lacking:
        escaped = (re.sub(r"([\\*?\[!# ])", r"\\\1", path) for path in lacking)
        _git("sparse-checkout", "set", "--no-cone", "/*", *(f"!/{path}" for path in escaped), folder=part)
    _git("checkout", "--quiet", ref, folder=part)
    left_out = {meaning: [path for path in lacking if path.startswith(start)] for start, meaning in _SPARE.items()}
    means = [f"{', '.join(paths)} ({meaning})" for meaning, paths in left_out.items() if paths]
    return f", but for what {url} lacks: {'; '.join(means)}" if means else ""


def _lacking(commit: str, folder: Path) -> list[str]:
    """The commit's files whose content is not in the clone."""
    entries = [line.split("\t", 1) for line in _git("ls-tree", "-r", "-z", commit, folder=folder).split("\0") if line]
    files = [(entry.split()[2], path) for entry, path in entries if entry.split()[1] == "blob"]
    answers = _git("cat-file", "--batch-check", folder=folder, given="\n".join(content for content, _ in files))
    lost = {line.split()[0] for line in answers.splitlines() if line.endswith(" missing")}
    return sorted(path for content, path in files if content in lost)


def _commit(ref: str, folder: Path) -> str | None:
    """What a tag, a branch (also one of origin's) or a commit names, as far as the clone knows."""
    for name in (ref, f"origin/{ref}"):
        with suppress(UserError):
            return _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", folder=folder).strip()
    return None


def _other_version(folder: Path, ref: str) -> str:
    """How a clone of another version gets the one that is asked for. Empty where it is at that one."""
    if version(folder) == UNKNOWN:
        return f", which is no clone of its own; for {ref} run `lycoris-composite setup` with another --dir"
    if _commit(ref, folder) == _commit("HEAD", folder):
        return ""
    return f"; for {ref} run `{_update_command(folder, ref)}` and this again"


def _update_command(folder: Path, ref: str) -> str:
    """The commands that bring a clone to another version. A sparse clone that has all files' content becomes a full one."""
    here = f"git -C {shlex.quote(str(folder))}"
    steps = [f"{here} fetch --tags", f"{here} checkout {shlex.quote(ref)}"]
    with suppress(UserError):  # where it is not set, which git calls a failure
        is_sparse = _git("config", "--bool", "core.sparseCheckout", folder=folder).strip() == "true"
        if is_sparse and not _lacking("HEAD", folder):
            steps.insert(1, f"{here} sparse-checkout disable")
    return " && ".join(steps)


def what_is_newer(found: str, folder: Path) -> str | None:
    """A line where a version (of `version()`) is older than the version that `setup` gets. Compares tags; None where it is
    not older, or where nobody can tell."""
    here, newest = _numbers(found), _numbers(DEFAULT_REF)
    if here is None or newest is None or here >= newest:
        return None
    where = "" if folder == default_folder() else f" --dir {shlex.quote(str(folder))}"
    return f"{DEFAULT_REF} is newer; `lycoris-composite setup{where}` says how to get it"


def _numbers(tag: str) -> tuple[int, ...] | None:
    """v0.10.1-3-gabcdef -> (0, 10, 1); None for a bare commit."""
    match = re.match(r"v?(\d+(?:\.\d+)+)(?![\w.])", tag)
    return tuple(map(int, match[1].split("."))) if match else None


def requirements(text: str) -> list[str]:
    """What upstream's requirements.txt names, its own editable package left out and opencv in its headless build."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [
        # The pinned opencv wants libGL and an older numpy; the headless build of any version serves.
        "opencv-python-headless" if line.startswith("opencv-python") else line
        for line in lines
        if line and not line.startswith("-")
    ]


def _install(folder: Path) -> str:
    wanted = requirements((folder / "requirements.txt").read_text(encoding="utf-8"))
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=False)
    if done.returncode:
        raise UserError(f"{folder / 'requirements.txt'}: pip could not install it (see above); mend that and run setup again.")
    return f"{len(wanted)} requirements of sd-scripts are installed"


def _git(*arguments: str, folder: Path | None = None, given: str | None = None) -> str:
    command = ["git", *(["-C", str(folder)] if folder else []), *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, input=given)
    except FileNotFoundError as error:
        raise UserError("git: not found; install it, or clone sd-scripts by hand and name it with --sd_scripts.") from error
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
