"""What is there, what a run of a config would refuse, what it would need, and what is better set otherwise.

It checks by the functions that the launcher checks by, and only looks: nothing is written, fetched or loaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import psutil

from lycoris_composite import checkout, environment, needs
from lycoris_composite.advice import advice, merge_advice
from lycoris_composite.agenda import going_on
from lycoris_composite.checks import BUILTIN, Checked, FirstRefusal, Made, Request, check_run, trainer_of
from lycoris_composite.config import DEFAULT_TRAINER
from lycoris_composite.costs import Work, composite_work, single_work
from lycoris_composite.errors import UserError, one_line, sentence
from lycoris_composite.findings import ERROR, OK, WARNING, Finding
from lycoris_composite.journal import Journal, check_not_held
from lycoris_composite.stages import Stage, without_cuda
from lycoris_composite.surroundings import amount, clone, patches, sd_scripts, surroundings
from lycoris_composite.trainers.machine import (
    gpus,
    has_gpu,
    installed,
    kept_quiet,
    loha_merge_factor,
    loha_scales,
    network_of,
    pickled_shapes,
)
from lycoris_composite.whole import existing_folder

_MOST_FILES = 20
_NEARLY_ALL = 0.9  # of what is free; an estimate may be that far off
_LYCORIS = "lycoris.kohya"


class AllRefusals:
    """The doctor's judge: every refusal is kept, once, and what else goes wrong is none of its own where a refusal before
    explains it."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def attempt(self, action: Callable[[], Made], is_long: bool = False) -> Made | None:
        try:
            with nullcontext() if is_long else kept_quiet():
                return action()
        except UserError as error:
            self._take(sentence(error))
        except (Exception, SystemExit) as error:  # what imports upstream or a broken package may raise anything
            if not self.sentences:
                self._take(f"a run stops with {type(error).__name__}: {one_line(error)}")
        return None

    def each(self, errors: Iterable[UserError]) -> bool:
        left, before = iter(errors), len(self.sentences)
        while error := self.attempt(lambda: next(left, None)):
            self._take(sentence(error))
        return len(self.sentences) == before

    def _take(self, text: str) -> None:
        if text not in self.sentences:
            self.sentences.append(text)


@environment.set_back()
def examine(
    config: Path | None = None, overrides: Sequence[str] = (), sd_scripts_folder: str | None = None, cpu: bool = False
) -> list[list[Finding]]:
    """All findings, in sections. Without a config those on the machine alone."""
    environment.go_offline()
    machine = surroundings(wants_gpu=not cpu)
    if config is None:
        return [machine, sd_scripts(sd_scripts_folder, DEFAULT_TRAINER, _LYCORIS, trainer_of), [_free_disk(Path.cwd())]]
    judge = AllRefusals()
    checked = check_run(Request(config, overrides, (), sd_scripts_folder, cpu=cpu), judge, lambda line: None)
    going = _going_on(checked, judge)
    return [
        machine,
        _trainer_rows(checked, sd_scripts_folder),
        [*_config_rows(checked, judge.sentences, cpu), *going],
        _needs_rows(checked, cpu, is_refused=bool(judge.sentences)),
        judge.attempt(lambda: _advice_rows(checked)) or [],
    ]


def _free_disk(folder: Path) -> Finding:
    return Finding("disk", f"{amount(shutil.disk_usage(folder).free)} free", str(folder))


def _trainer_rows(checked: Checked, folder: str | None) -> list[Finding]:
    """Where the trainer comes from, and whether the patches fit. Why it cannot be had is among the refusals."""
    if checked.settings is None or checked.trainer is None:
        return []
    if checked.settings.trainer == BUILTIN:
        return patches(
            checked.trainer, _LYCORIS, f"LyCORIS {installed('lycoris-lora')}; the embedded trainer needs no sd-scripts"
        )
    row = clone(checkout.find(folder))
    module = checked.settings.kohya.get("network_module")
    return [row, *patches(checked.trainer, module, f"sd-scripts {row.found}")]


def _config_rows(checked: Checked, refusals: Sequence[str], cpu: bool) -> list[Finding]:
    rows = []
    for plan in checked.plans:
        names = ", ".join(one.summary for one in plan.characters)
        rows.append(Finding("characters", names, f"{plan.composites} composites an epoch in {len(plan.sizes)} size(s)"))
    rows += [Finding("ignored", "", line, WARNING) for line in checked.ignored]
    files = [Finding("bad file", Path(path).name, reason, ERROR) for path, reason in checked.bad.items()]
    rows += files[:_MOST_FILES]
    if len(files) > _MOST_FILES:
        rows.append(Finding("bad file", f"and {len(files) - _MOST_FILES} more", "", ERROR))
    rows += [Finding("a run refuses", "", refusal, ERROR) for refusal in refusals]
    if not refusals:
        rows.append(Finding("a run refuses", "nothing", "it would start"))
    if checked.settings is not None and not cpu and not _finds_gpu():
        _, lines = without_cuda(checked.settings.kohya)
        rows.append(Finding("--cpu", "would train with", "; ".join(lines) or "the same settings"))
    return rows


def _finds_gpu() -> bool:
    try:
        return has_gpu()
    except Exception:  # no torch, or one that does not run; said above
        return False


def _going_on(checked: Checked, judge: AllRefusals) -> list[Finding]:
    """What an earlier run has left here. Reads all inputs where there was one."""
    if not checked.stages:
        return []
    judge.attempt(lambda: check_not_held(checked.lock_file))
    if not checked.plans:
        return []
    lines = judge.attempt(lambda: going_on(Journal(checked.journal_file), checked.stages, checked.subsets), is_long=True)
    return [Finding("an earlier run", "", line) for line in lines or []]


def _needs_rows(checked: Checked, cpu: bool, is_refused: bool) -> list[Finding]:
    if not checked.plans:
        return []
    output = existing_folder(checked.lock_file)
    try:
        loads = _loads(checked)
        if not loads:
            why = Finding("disk, memory", "not estimated", "only for LyCORIS, from a model whose shapes can be read")
            return [_free_disk(output), why]
        return [*_disk_rows(checked, loads), _memory_row(checked, loads, cpu)]
    except Exception as error:  # values of a wrong type, a preset that is a missing file: a run says more of it
        why = "once what a run refuses is mended" if is_refused else one_line(error)
        return [_free_disk(output), Finding("disk, memory", "not estimated", why, OK if is_refused else WARNING)]


Load = tuple[Stage, Work, needs.Model, needs.Network]


def _loads(checked: Checked) -> list[Load]:
    """For each stage what the estimate takes; empty where the model's shapes or the network's are not known."""
    loads: list[Load] = []
    for stage in checked.stages:
        if stage.settings.get("network_module") != _LYCORIS:
            return []
        with kept_quiet():
            model = needs.model_of(Path(stage.settings.get("pretrained_model_name_or_path") or "none"), pickled_shapes)
            if model is None:
                return []
            shapes = needs.adaptable(model.unet, is_text=False), needs.adaptable(model.text, is_text=True)
            network = network_of(*shapes, stage.settings)
        loads.append((stage, _work(checked, stage), model, network))
    return loads


def _work(checked: Checked, stage: Stage) -> Work:
    return composite_work(checked.plans) if stage.composite else single_work(checked.single_images)


def _level(needed: float, free: float) -> str:
    return OK if needed < _NEARLY_ALL * free else WARNING


def _disk_rows(checked: Checked, loads: Sequence[Load]) -> list[Finding]:
    """For the output, and for latents that are cached beside the images: often both on one disk."""
    output = existing_folder(checked.lock_file)
    images = Path(checked.plans[0].characters[0].images[0].path).parent
    needed = sum(needs.output_bytes(stage, network, work) for stage, work, _, network in loads)
    latents = sum(needs.cached_bytes(stage, work, on_disk=True) for stage, work, _, _ in loads)
    is_shared = output.stat().st_dev == images.stat().st_dev
    together = (needed + latents, needed + latents) if is_shared else (needed, latents)
    rows = [_disk_row("disk", needed, together[0], output, _files(loads), "; make room, or save less often")]
    if latents:
        what = "cache_latents_to_disk, beside the images"
        rows.append(_disk_row("latents on disk", latents, together[1], images, what, "; make room"))
    return rows


def _disk_row(subject: str, needed: int, on_its_disk: int, folder: Path, what: str, advice: str) -> Finding:
    free = shutil.disk_usage(folder).free
    level = _level(on_its_disk, free)
    found = f"about {amount(needed)} of {amount(free)} free"
    return Finding(subject, found, f"{what}{'' if level == OK else advice}", level)


def _files(loads: Sequence[Load]) -> str:
    files, states = (sum(kind) for kind in zip(*(needs.saves(one[0].settings, one[1].batches) for one in loads), strict=True))
    stage, _, _, network = loads[0]
    text = f"{files} files of about {amount(needs.file_bytes(stage, network))}"
    return f"{text}, {states} states of about {amount(needs.state_bytes(stage, network))}" if states else text


def _memory_row(checked: Checked, loads: Sequence[Load], cpu: bool) -> Finding:
    """The stage that needs most, against what is free where it trains."""
    cards = [] if cpu else gpus()
    most = _most_memory(checked, loads, on_cpu=not cards)
    if most is None:
        return Finding("memory", "not estimated", "only for SD 1.x, SD 2.x and SDXL")
    stage, parts = most
    needed, free = sum(parts.values()), cards[0].free if cards else psutil.virtual_memory().available
    level = _level(needed, free)
    text = ", ".join(f"{name} {amount(count)}" for name, count in parts.items())
    advice = "" if level == OK else "; lower train_batch_size or resolution, or set gradient_checkpointing = true"
    what = "GPU memory for it" if cards else "memory for it"
    return Finding(what, f"about {amount(needed)} of {amount(free)} free", f"stage {stage.number}: {text}{advice}", level)


def _most_memory(checked: Checked, loads: Sequence[Load], on_cpu: bool) -> tuple[Stage, dict[str, int]] | None:
    """The stage that needs most memory where it trains, and for what, in bytes."""
    found = []
    for stage, work, model, network in loads:
        parts = needs.memory_bytes(stage, model, network, work)
        if parts is None:
            return None
        if on_cpu:
            libraries = needs.LIBRARIES["builtin" if checked.settings.trainer == BUILTIN else "sd-scripts"]
            parts |= {"libraries": libraries, "latents": needs.cached_bytes(stage, work, on_disk=False)}
        found.append((stage, parts))
    return max(found, key=lambda one: sum(one[1].values()))


def estimates(config: Path, sd_scripts_folder: str | None = None) -> tuple[int, dict[str, int]]:
    """What a config's run on a CPU needs, in bytes: of its output folder, and of memory, by what for. Raises UserError
    for a config that would be refused."""
    checked = check_run(Request(config, sd_scripts=sd_scripts_folder, cpu=True), FirstRefusal(), lambda line: None)
    loads = _loads(checked)
    _, memory = _most_memory(checked, loads, on_cpu=True) or (None, {})
    return sum(needs.output_bytes(stage, network, work) for stage, work, _, network in loads), memory


def _advice_rows(checked: Checked) -> list[Finding]:
    if not checked.stages:
        return []
    given = [Path(name) for stage in checked.stages for key, name in stage.weight_files if key == "base_weights"]
    scales = {}
    for path in dict.fromkeys(given):
        if path.suffix == ".safetensors" and path.is_file():
            try:
                scales[path] = loha_scales(path)
            except Exception:  # no whole file, which is a refusal
                continue
    with kept_quiet():
        factor = loha_merge_factor() if scales else None
    return [*advice(checked.settings, checked.stages, checked.plans), *merge_advice(checked.stages, factor, scales)]
