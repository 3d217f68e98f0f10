"""What a run finds around it: Python, torch, its companions, sd-scripts, and whether the patches fit."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lycoris_composite import __version__
from lycoris_composite.doctor.findings import ERROR, OK, WARNING, Finding
from lycoris_composite.errors import UserError, one_line, sentence
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.machine import check_clip, cuda_build, gpus, has_gpu, installed, kept_quiet, why_not_importable

_TESTED_LYCORIS = ("3.4.", "4.0.", "4.1.")
_NEWEST_LYCORIS = "4.1"
_LIBRARIES = ("accelerate", "diffusers", "transformers")


def surroundings(wants_gpu: bool = True) -> list[Finding]:
    """Rows on this machine, whatever it is to be used for. No GPU is a warning where one is wanted."""
    torch_reason = why_not_importable("torch")
    return [
        Finding("Python", f"{platform.python_version()}, {platform.system()}", f"lycoris-composite {__version__}"),
        _torch(torch_reason),
        *([] if torch_reason else [_gpu(wants_gpu)]),
        _lycoris(),
        _libraries(),
        _companion("xformers", "xformers.ops", "xformers = true; sdpa = true does without it"),
        _companion("bitsandbytes", "bitsandbytes", "an optimizer such as AdamW8bit"),
    ]


def _torch(reason: str | None) -> Finding:
    if reason:
        found = installed("torch")
        here = f"{found}, but cannot be imported" if found else "not installed"
        return Finding("torch", here, f"{reason}; run `pip install torch torchvision`.", ERROR)
    return Finding("torch", installed("torch") or "of unknown version", cuda_build())


def _gpu(is_wanted: bool) -> Finding:
    try:
        with kept_quiet():
            found, is_there = gpus(), has_gpu()
    except Exception as error:  # a driver that does not fit raises anything
        return Finding("GPU", "cannot be asked", f"{one_line(error)}; mend the driver.", WARNING)
    if found:
        names = "; ".join(f"{gpu.name}, {amount(gpu.free)} of {amount(gpu.total)} free" for gpu in found)
        return Finding("GPU", names, "" if is_there else "ACCELERATE_USE_CPU keeps training off it")
    if is_there:
        return Finding("GPU", "one without CUDA", "nothing here has been run on it", WARNING)
    if not is_wanted:
        return Finding("GPU", "none that torch can use", "not needed with --cpu")
    return Finding("GPU", "none that torch can use", "training takes the CPU, which is many times slower; give --cpu.", WARNING)


def _lycoris() -> Finding:
    found, reason = installed("lycoris-lora"), why_not_importable("lycoris.kohya")
    if reason:
        here = f"{found}, but cannot be imported" if found else "not installed"
        return Finding("LyCORIS", here, f"{reason}; run `pip install lycoris-lora`.", ERROR)
    if not (found or "").startswith(_TESTED_LYCORIS):
        return Finding("LyCORIS", found or "of unknown version", "not tested here; 3.4, 4.0 and 4.1 are", WARNING)
    newer = (
        "" if str(found).startswith(_NEWEST_LYCORIS) else f"; {_NEWEST_LYCORIS} is newer; `pip install -U lycoris-lora` gets it"
    )
    return Finding("LyCORIS", str(found), f"tested here{newer}")


def _libraries() -> Finding:
    found = {name: installed(name) for name in _LIBRARIES}
    text = ", ".join(f"{name} {version or 'not installed'}" for name, version in found.items())
    if not all(found.values()):
        return Finding("libraries", text, "every trainer needs them; run `lycoris-composite setup`.", ERROR)
    try:
        with kept_quiet():
            check_clip()
    except Exception as error:  # UserError, and where packages do not fit each other, anything
        return Finding("libraries", text, sentence(error) if isinstance(error, UserError) else one_line(error), ERROR)
    return Finding("libraries", text)


def _companion(package: str, module: str, use: str) -> Finding:
    """A package that only some settings need: it may be missing."""
    found, reason = installed(package), why_not_importable(module)
    if found is None:
        return Finding(package, "not installed", f"only for {use}")
    if reason:
        return Finding(package, f"{found}, but cannot be imported", f"{reason}; only for {use}", WARNING)
    return Finding(package, found, f"for {use}")


def amount(count: float) -> str:
    """Bytes as a person reads them: in MB, from 1 GB (10**9) on in GB."""
    if count < 1e9:
        return f"{count / 1e6:,.{1 if count < 1e7 else 0}f} MB"
    return f"{count / 1e9:,.{2 if count < 1e10 else 1}f} GB"


def sd_scripts(
    given: str | None, script: str, network_module: str, trainer_of: Callable[[str, str | None], Any]
) -> list[Finding]:
    """Rows on sd-scripts' checkout, and on whether the patches fit it."""
    try:
        folder = checkout.find(given)
    except UserError as error:
        return [Finding("sd-scripts", "not found", sentence(error), ERROR)]
    row = clone(folder)
    try:
        with kept_quiet():
            trainer = trainer_of(script, given)
    except UserError as error:
        return [row, Finding(f"{script}.py", "cannot be used", sentence(error), ERROR)]
    return [row, *patches(trainer, network_module, f"sd-scripts {row.found}")]


def clone(folder: Path) -> Finding:
    """A row on a checkout's version, and on what is newer."""
    version = checkout.version(folder)
    newer = checkout.what_is_newer(version, folder)
    return Finding("sd-scripts", version, "; ".join(filter(None, (str(folder), newer))))


def patches(trainer: Any, network_module: str | None, upstream: str) -> list[Finding]:
    """One row where all patches fit, else one for each that does not."""
    with kept_quiet():
        found = list(trainer.fits(network_module))
    misfits = [
        Finding(f"patch {name}", "does not fit", f"{reason}; check out {checkout.DEFAULT_REF}, or report this version.", ERROR)
        for name, reason in found
        if reason is not None
    ]
    fitting = len(found) - len(misfits)
    return [Finding("patches", f"{fitting} of {len(found)} fit", upstream, OK if not misfits else ERROR), *misfits]
