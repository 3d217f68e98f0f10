"""What a run finds around it: Python, torch, its companions, sd-scripts, and whether the patches fit."""

from __future__ import annotations

import platform
from pathlib import Path

from rich.filesize import decimal

from lycoris_composite import __version__
from lycoris_composite.doctor.findings import ERROR, OK, WARNING, Finding
from lycoris_composite.errors import UserError, one_line, sentence
from lycoris_composite.preflight.checks import trainer_of
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.machine import check_clip, cuda_build, gpus, has_gpu, installed, kept_quiet, why_not_importable
from lycoris_composite.trainers.trainer import Trainer

_TESTED_LYCORIS = ("3.4.", "4.0.", "4.1.")
_NEWEST_LYCORIS = "4.1"
_LIBRARIES = ("accelerate", "diffusers", "transformers")
# Packages that only some settings need: the module to import, and what for.
_COMPANIONS = {
    "xformers": ("xformers.ops", "xformers = true; sdpa = true does without it"),
    "bitsandbytes": ("bitsandbytes", "an optimizer such as AdamW8bit"),
}


def surroundings(wants_gpu: bool = True) -> list[Finding]:
    """Rows on this machine, whatever it is to be used for. No GPU is a warning where one is wanted."""
    torch_is_missing = _missing("torch", "torch", "torch", "torch torchvision")
    return [
        Finding("Python", f"{platform.python_version()}, {platform.system()}", f"lycoris-composite {__version__}"),
        torch_is_missing or Finding("torch", installed("torch") or "of unknown version", cuda_build()),
        *([] if torch_is_missing else [_gpu(wants_gpu)]),
        _missing("LyCORIS", "lycoris-lora", "lycoris.kohya", "lycoris-lora") or _lycoris(),
        _libraries(),
        *(_companion(package, module, use) for package, (module, use) in _COMPANIONS.items()),
    ]


def _missing(subject: str, package: str, module: str, to_install: str) -> Finding | None:
    """An error where what every run needs cannot be imported."""
    reason, version = why_not_importable(module), installed(package)
    if reason is None:
        return None
    found = f"{version}, but cannot be imported" if version else "not installed"
    return Finding(subject, found, f"{reason}; run `pip install {to_install}`.", ERROR)


def _gpu(is_wanted: bool) -> Finding:
    try:
        with kept_quiet():
            cards, is_usable = gpus(), has_gpu()
    except Exception as error:  # a driver that does not fit raises anything
        return Finding("GPU", "cannot be asked", f"{one_line(error)}; mend the driver.", WARNING)
    if cards:
        names = "; ".join(f"{card.name}, {decimal(card.free)} of {decimal(card.total)} free" for card in cards)
        return Finding("GPU", names, "" if is_usable else "ACCELERATE_USE_CPU keeps training off it")
    if is_usable:
        return Finding("GPU", "one without CUDA", "nothing here has been run on it", WARNING)
    if not is_wanted:
        return Finding("GPU", "none that torch can use", "not needed with --cpu")
    return Finding("GPU", "none that torch can use", "training takes the CPU, which is many times slower; give --cpu.", WARNING)


def _lycoris() -> Finding:
    version = installed("lycoris-lora") or "of unknown version"
    if not version.startswith(_TESTED_LYCORIS):
        return Finding("LyCORIS", version, "not tested here; 3.4, 4.0 and 4.1 are", WARNING)
    newer = f"; {_NEWEST_LYCORIS} is newer; `pip install -U lycoris-lora` gets it"
    return Finding("LyCORIS", version, f"tested here{'' if version.startswith(_NEWEST_LYCORIS) else newer}")


def _libraries() -> Finding:
    versions = {name: installed(name) for name in _LIBRARIES}
    text = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    if not all(versions.values()):
        return Finding("libraries", text, "every trainer needs them; run `lycoris-composite setup`.", ERROR)
    try:
        with kept_quiet():
            check_clip()
    except Exception as error:  # UserError, and where packages do not fit each other, anything
        return Finding("libraries", text, sentence(error) if isinstance(error, UserError) else one_line(error), ERROR)
    return Finding("libraries", text)


def _companion(package: str, module: str, use: str) -> Finding:
    version, reason = installed(package), why_not_importable(module)
    if version is None:
        return Finding(package, "not installed", f"only for {use}")
    if reason:
        return Finding(package, f"{version}, but cannot be imported", f"{reason}; only for {use}", WARNING)
    return Finding(package, version, f"for {use}")


def sd_scripts(given: str | None, script: str, network_module: str) -> list[Finding]:
    """Rows on sd-scripts' checkout, and on whether the patches fit it."""
    rows: list[Finding] = []
    subject, found = "sd-scripts", "not found"
    try:
        rows.append(clone(checkout.find(given)))
        subject, found = f"{script}.py", "cannot be used"
        with kept_quiet():
            trainer = trainer_of(script, given)
    except UserError as error:
        return [*rows, Finding(subject, found, sentence(error), ERROR)]
    return [*rows, *patches(trainer, network_module, f"sd-scripts {rows[0].found}")]


def clone(folder: Path) -> Finding:
    """A row on a checkout's version, and on what is newer."""
    version = checkout.version(folder)
    newer = checkout.what_is_newer(version, folder)
    return Finding("sd-scripts", version, "; ".join(filter(None, (str(folder), newer))))


def patches(trainer: Trainer, network_module: str | None, upstream: str) -> list[Finding]:
    """One row where all patches fit, else one for each that does not."""
    with kept_quiet():
        reasons = dict(trainer.fits(network_module))
    misfits = [
        Finding(f"patch {name}", "does not fit", f"{reason}; check out {checkout.DEFAULT_REF}, or report this version.", ERROR)
        for name, reason in reasons.items()
        if reason is not None
    ]
    fitting = f"{len(reasons) - len(misfits)} of {len(reasons)} fit"
    return [Finding("patches", fitting, upstream, ERROR if misfits else OK), *misfits]
