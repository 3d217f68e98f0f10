"""Where sd-scripts is, and how to get it: it is on no package registry."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lycoris_composite.errors import UserError

PUBLIC_URL = "https://github.com/kohya-ss/sd-scripts"
DEFAULT_REF = "v0.10.1"
TOKENIZERS = ("openai/clip-vit-large-patch14", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k")  # of SD 1.x and SDXL
# Windows binaries and a text encoder's config files; neither is used here, and some mirrors lack them.
_LEFT_OUT = ("bitsandbytes_windows/", "configs/qwen3_06b/")


def default_folder() -> Path:
    """Where `setup` puts sd-scripts unless told otherwise."""
    data = os.environ.get("XDG_DATA_HOME") or (Path.home() / ".local" / "share")
    return Path(data) / "lycoris-composite" / "sd-scripts"


def find(given: str | None = None) -> Path:
    """The sd-scripts folder: the given one, $SD_SCRIPTS_DIR, this folder, sd-scripts in or beside it, or setup's.
    Raises UserError that says where it was looked for."""
    looked = []
    for source, folder in _candidates(given):
        if is_checkout(folder):
            return folder.resolve()
        if source:
            raise UserError(f"{source} {folder}: no train_network.py there; give the folder of an sd-scripts clone.")
        looked.append(str(folder))
    raise UserError(
        f"sd-scripts not found (looked in {', '.join(looked)}); run `lycoris-composite setup`, or name it with --sd_scripts."
    )


def _candidates(given: str | None) -> Iterator[tuple[str, Path]]:
    if given:
        yield "--sd_scripts", Path(given)
    if os.environ.get("SD_SCRIPTS_DIR"):
        yield "$SD_SCRIPTS_DIR", Path(os.environ["SD_SCRIPTS_DIR"])
    here = Path.cwd()
    for folder in (here, here / "sd-scripts", here.parent / "sd-scripts", default_folder()):
        yield "", folder


def is_checkout(folder: Path) -> bool:
    return (folder / "train_network.py").is_file() and (folder / "library" / "train_util.py").is_file()


def version(folder: Path) -> str:
    """The checkout's tag or short commit, with "-dirty" where files were changed; "an unknown version" where git cannot
    tell."""
    try:
        if Path(_git("rev-parse", "--show-toplevel", folder=folder).strip()).samefile(folder):
            return _git("describe", "--tags", "--always", "--dirty", folder=folder).strip()
    except UserError:
        pass
    return "an unknown version"


def setup(url: str, ref: str, folder: Path, tokenizers: bool = False) -> list[str]:
    """Clones sd-scripts, installs its requirements and, if asked, fetches CLIP's tokenizers; a line for what was done.
    Run twice, it changes nothing. Nothing else in this project fetches anything."""
    return [_clone(url, ref, folder), _install(folder), *([_fetch_tokenizers()] if tokenizers else [])]


def _fetch_tokenizers() -> str:
    code = "import sys, transformers; [transformers.CLIPTokenizer.from_pretrained(name) for name in sys.argv[1:]]"
    done = subprocess.run([sys.executable, "-c", code, *TOKENIZERS], check=False, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise UserError(f"{' and '.join(TOKENIZERS)}: cannot be fetched ({reason}); give tokenizer_cache_dir instead.")
    return f"CLIP's tokenizers ({', '.join(TOKENIZERS)}) are in the hub's cache"


def _clone(url: str, ref: str, folder: Path) -> str:
    if is_checkout(folder):
        return f"sd-scripts {version(folder)} is in {folder}"
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: not empty and no sd-scripts clone; empty it or name another with --dir.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    patterns = ["/*", *(f"!/{path}" for path in _LEFT_OUT)]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="sd-scripts-") as made:
        part = Path(made) / "clone"  # it gets its name when it is complete
        _git("clone", "--quiet", "--no-checkout", url, str(part))
        _git("sparse-checkout", "set", "--no-cone", *patterns, folder=part)
        _git("checkout", "--quiet", ref, folder=part)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    return f"sd-scripts {version(folder)} cloned to {folder}"


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


def _git(*arguments: str, folder: Path | None = None) -> str:
    command = ["git", *(["-C", str(folder)] if folder else []), *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError("git: not found; install it, or clone sd-scripts by hand and name it with --sd_scripts.") from error
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
