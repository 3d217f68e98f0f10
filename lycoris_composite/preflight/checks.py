"""Everything that is checked before a run, in one order: the launcher stops at the first refusal, the doctor collects all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lycoris_composite.composites.plan import Plan
from lycoris_composite.config import settings as config
from lycoris_composite.config.datasets import SKIP, Dataset, without_skip
from lycoris_composite.config.prompts import prompt_file_error
from lycoris_composite.config.stages import DEFAULT_NAME, Stage, stages_of, without_cuda
from lycoris_composite.data.characters import Subset
from lycoris_composite.errors import UserError, one_line, sentence
from lycoris_composite.preflight.inputs import bad_files, datasets_to_join, passed_over, plans_of, single_datasets, with_images
from lycoris_composite.preflight.weights import weight_errors
from lycoris_composite.run import environment
from lycoris_composite.run.files import check_writable
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.machine import kept_quiet, machine_errors

BUILTIN = "builtin"


class Refusals:
    """What a run refuses. The launcher raises the first refusal; the doctor collects all, each once."""

    def __init__(self, collects: bool = False) -> None:
        self.sentences: list[str] = []
        self._collects = collects

    @contextmanager
    def collecting(self, is_long: bool = False) -> Iterator[None]:
        """Collects the refusal that the block raises; the checks go on after the block. Any other exception is collected
        only if nothing was refused before it. A long block shows its progress. The launcher's raises them all."""
        if not self._collects:
            yield
            return
        try:
            with nullcontext() if is_long else kept_quiet():
                yield
        except UserError as error:
            self._take(sentence(error))
        except (Exception, SystemExit) as error:  # what imports upstream or a broken package may raise anything
            if not self.sentences:
                self._take(f"a run stops with {type(error).__name__}: {one_line(error)}")

    def each(self, errors: Iterable[UserError]) -> bool:
        """Refuses for errors that do not depend on each other; whether there were none."""
        before = len(self.sentences)
        with self.collecting():
            for error in errors:
                if not self._collects:
                    raise error
                self._take(sentence(error))
        return len(self.sentences) == before

    def _take(self, text: str) -> None:
        if text not in self.sentences:
            self.sentences.append(text)


@dataclass(frozen=True)
class Request:
    """What somebody asked for on the command line, as far as the checks need it."""

    config: Path
    overrides: Sequence[str] = ()
    flags: Sequence[str] = ()
    sd_scripts: str | None = None
    stage: int | None = None
    cpu: bool = False
    skip_bad: bool = False


@dataclass
class Checked:
    """What the checks made of a config, as far as they came. `singles` are stage 1's datasets, not read from disk, `bad`
    images that cannot be used, and why; `ignored` says what stands in the config or the folders and nobody reads."""

    settings: config.Settings | None = None
    trainer: Any = None
    stages: list[Stage] = field(default_factory=list)
    singles: list[Dataset] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    bad: Mapping[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> frozenset[str]:
        """The images to train without."""
        return frozenset(self.bad)

    @property
    def single_images(self) -> list[Dataset]:
        """What stage 1 reads, its images' sizes and captions among it."""
        return with_images(self.singles, self.plans, self.skipped)

    @property
    def subsets(self) -> list[Subset]:
        """All that the stages read."""
        single = [subset for dataset in self.single_images for subset in dataset.subsets]
        return [*single, *(character.subset for plan in self.plans for character in plan.characters)]

    @property
    def journal_file(self) -> Path:
        """Where the run writes down what it has finished."""
        return self._run_file("json")

    @property
    def lock_file(self) -> Path:
        """What the run holds while it writes."""
        return self._run_file("lock")

    def _run_file(self, suffix: str) -> Path:
        name = self.settings.kohya.get("output_name") or DEFAULT_NAME
        return self.stages[0].output_dir / f"{name}.run.{suffix}"


def check_run(request: Request, refusals: Refusals, say: Callable[[str], None], show_progress: bool = True) -> Checked:
    """Checks a config in the order of what it costs, from its text to its weights. Nothing is written."""
    environment.go_offline()
    done = Checked()
    with refusals.collecting():
        done.settings = config.load(request.config, request.overrides)
    if done.settings is None:
        return done
    _check_settings(done, request, refusals, say)
    with refusals.collecting():
        done.stages = stages_of(done.settings, request.stage)
    if done.trainer is not None and done.stages:
        _check_stages(done, request, refusals)
    if done.stages:
        found = (prompt_file_error(stage.settings, str(request.config)) for stage in done.stages)
        refusals.each(error for error in found if error)
        _check_data(done, request, refusals, say, show_progress)
        refusals.each(weight_errors(done.stages))
        with refusals.collecting():
            check_writable(done.lock_file)
    return done


def _check_settings(done: Checked, request: Request, refusals: Refusals, say: Callable[[str], None]) -> None:
    settings = done.settings
    with refusals.collecting():
        done.trainer = trainer_of(settings.trainer, request.sd_scripts)
    trainer = done.trainer
    if trainer is not None:
        flags: dict[str, Any] = {}
        with refusals.collecting():
            flags = trainer.given_flags(request.flags)
        kohya = config.without_empty({**settings.kohya, **without_set(flags, request.overrides)})
        settings = replace(settings, kohya=kohya)
        refusals.each(trainer.option_errors(settings.stage2, f"{request.config}, [composite.stage2]"))
        if settings.trainer != BUILTIN:  # which refuses what it does not know
            done.ignored += map(sentence, trainer.option_errors(settings.kohya, str(request.config)))
            if SKIP not in trainer.known_options():
                settings = without_skip(settings)
    done.settings = _on_cpu(settings, say) if request.cpu else settings


def _check_stages(done: Checked, request: Request, refusals: Refusals) -> None:
    """What the trainer, and the machine that it runs on, refuses of the stages. Where nothing is wrong with either alone,
    they are rehearsed: stage 2 has to fit stage 1 also where it runs alone."""
    where, clean = str(request.config), True
    for errors in (done.trainer.stage_errors, lambda stage, where: machine_errors(stage.settings, where)):
        for stage in done.stages:
            clean = refusals.each(errors(stage, where)) and clean
    if clean:
        both = stages_of(done.settings)
        refusals.each(done.trainer.rehearsal_errors(both[:1] if request.stage == 1 else both, where))


def _check_data(done: Checked, request: Request, refusals: Refusals, say: Callable[[str], None], show_progress: bool) -> None:
    for stage in done.stages:
        if stage.composite is None:
            with refusals.collecting():
                done.singles = single_datasets(stage)
    with refusals.collecting(is_long=True):
        datasets = datasets_to_join(done.settings)
        done.bad = bad_files([*done.singles, *datasets], show_progress)
        with refusals.collecting():
            _check_bad(done.bad, request.skip_bad, say)
        with refusals.collecting():
            done.plans = plans_of(done.settings, datasets, done.skipped)
        with refusals.collecting():
            done.ignored += passed_over(done.stages, done.single_images, done.plans)


def _check_bad(bad: Mapping[str, str], is_allowed: bool, say: Callable[[str], None]) -> None:
    """Says each bad file. Raises UserError where the user does not want to train without them."""
    for reason in bad.values():
        say(f"{'left out' if is_allowed else 'bad file'}: {reason}")
    if bad and not is_allowed:
        raise UserError(f"{len(bad)} file(s) cannot be used (named above); mend or remove them, or give --skip_bad.")


def trainer_of(name: str, sd_scripts: str | None) -> Any:
    """What trains a stage. Imported only now: torch and upstream take seconds, and a mistake in the config should not
    cost them."""
    if name != BUILTIN:
        folder = checkout.find(sd_scripts)
        from lycoris_composite.trainers.kohya.script import Upstream

        return Upstream(folder, name)
    try:
        from lycoris_composite.trainers.builtin.train import Builtin
    except Exception as error:  # packages that do not fit each other raise anything
        raise UserError(f'trainer = "{BUILTIN}": {one_line(error)}; run `pip install "lycoris-composite[builtin]"`.') from error
    return Builtin()


def without_set(given: dict, overrides: Sequence[str]) -> dict:
    """The flags but for those that `--set` sets too: it is there for what flags cannot reach, so it wins."""
    keys = {override.partition("=")[0].strip() for override in overrides}
    keys = {key.rpartition(".")[2] for key in keys if not key.startswith("composite.")}
    return {key: value for key, value in given.items() if key not in keys}


def _on_cpu(settings: config.Settings, say: Callable[[str], None]) -> config.Settings:
    environment.stay_on_cpu()
    kohya, lines = without_cuda(settings.kohya)
    for line in lines:
        say(f"--cpu: {line}")
    return replace(settings, kohya=kohya, stage2=without_cuda(settings.stage2)[0])
