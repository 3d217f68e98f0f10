"""What is there, what a run of a config would refuse, and what is better set otherwise. The checks are the launcher's.
Nothing is written, fetched or loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from lycoris_composite.architectures import BUILTIN, DEFAULT_TRAINER
from lycoris_composite.config.stages import without_cuda
from lycoris_composite.doctor.advice import advice
from lycoris_composite.doctor.findings import ERROR, WARNING, Finding
from lycoris_composite.doctor.needs import needs
from lycoris_composite.doctor.versions import clone, patches, sd_scripts, surroundings
from lycoris_composite.preflight.checks import Checked, Refusals, Request, check_run
from lycoris_composite.preflight.resume import going_on
from lycoris_composite.run import environment
from lycoris_composite.run.files import existing_folder
from lycoris_composite.run.journal import Journal, sole_run
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.machine import has_gpu, installed

_MOST_FILES = 20
_LYCORIS = "lycoris.kohya"


@environment.set_back()
def examine(
    config: Path | None = None, overrides: Sequence[str] = (), sd_scripts_folder: str | None = None, cpu: bool = False
) -> list[list[Finding]]:
    """All findings, in sections. Without a config those on the machine alone."""
    environment.go_offline()
    machine = surroundings(wants_gpu=not cpu)
    if config is None:
        return [machine, sd_scripts(sd_scripts_folder, DEFAULT_TRAINER, _LYCORIS), [_free_disk(Path.cwd())]]
    refusals = Refusals(collects=True)
    checked = check_run(Request(config, overrides, (), sd_scripts_folder, cpu=cpu), refusals, lambda line: None)
    earlier_run = _going_on(checked, refusals)
    sections = [
        machine,
        _trainer_rows(checked, sd_scripts_folder),
        [*_config_rows(checked, refusals.sentences, cpu), *earlier_run],
    ]
    if checked.stages:
        folder = existing_folder(checked.lock_file)
        sections.append([_free_disk(folder)] if folder.exists() else [])
        with refusals.collecting():
            sections[-1] += needs(checked.both[1], checked.data.plans) if checked.data.plans else []
        with refusals.collecting():
            sections.append(advice(checked.settings, checked.stages, checked.data.plans))
    return sections


def _free_disk(folder: Path) -> Finding:
    return Finding("disk", f"{decimal(shutil.disk_usage(folder).free)} free", str(folder))


def _trainer_rows(checked: Checked, folder: str | None) -> list[Finding]:
    """Where the trainer comes from, and whether the patches fit. Why it cannot be had is among the refusals."""
    if checked.settings is None or checked.trainer is None:
        return []
    if checked.settings.trainer == BUILTIN:
        version = f"LyCORIS {installed('lycoris-lora')}; the embedded trainer needs no sd-scripts"
        return patches(checked.trainer, _LYCORIS, version)
    row = clone(checkout.find(folder))
    return [row, *patches(checked.trainer, checked.settings.kohya.network_module, f"sd-scripts {row.found}")]


def _config_rows(checked: Checked, refusals: Sequence[str], cpu: bool) -> list[Finding]:
    rows = []
    for plan in checked.data.plans:
        names = ", ".join(character.summary for character in plan.characters)
        rows.append(Finding("characters", names, f"{plan.composites} composites an epoch in {len(plan.sizes)} size(s)"))
    rows += [Finding("ignored", "", line, WARNING) for line in (*checked.ignored, *checked.data.ignored)]
    files = [Finding("bad file", Path(path).name, reason, ERROR) for path, reason in checked.data.bad.items()]
    rows += files[:_MOST_FILES]
    if len(files) > _MOST_FILES:
        rows.append(Finding("bad file", f"and {len(files) - _MOST_FILES} more", "", ERROR))
    rows += [Finding("a run refuses", "", refusal, ERROR) for refusal in refusals] or [
        Finding("a run refuses", "nothing", "it would start")
    ]
    if checked.settings is not None and not cpu and not _finds_gpu():
        _, lines = without_cuda(checked.settings.kohya)
        rows.append(Finding("--cpu", "would train with", "; ".join(lines) or "the same settings"))
    if line := checked.lacks_gpu:
        rows.append(Finding("GPU", "wanted", line, WARNING))
    return rows


def _finds_gpu() -> bool:
    try:
        return has_gpu()
    except Exception:  # no torch, or one that does not run; said above
        return False


def _going_on(checked: Checked, refusals: Refusals) -> list[Finding]:
    """What an earlier run has left here. Reads all inputs where there was one."""
    if not checked.stages:
        return []
    if checked.lock_file.is_file():
        with refusals.collecting(), sole_run(checked.lock_file):
            pass  # the lock is free
    lines: list[str] = []
    if checked.data.plans:
        with refusals.collecting(is_long=True):
            lines = going_on(Journal(checked.journal_file), checked.stages, checked.data.subsets)
    return [Finding("an earlier run", "", line) for line in lines]
