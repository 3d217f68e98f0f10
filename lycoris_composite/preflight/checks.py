"""Everything that is checked before a run, in one order: the launcher stops at the first refusal, the doctor collects all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from lycoris_composite.architectures import BUILTIN
from lycoris_composite.config.datasets import SKIP, without_skip
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.prompts import prompt_file_error
from lycoris_composite.config.settings import Settings, load_settings, without_empty
from lycoris_composite.config.stages import Stage, stages_of, without_cuda
from lycoris_composite.errors import UserError, one_line, sentence
from lycoris_composite.preflight.inputs import Data, read_data
from lycoris_composite.preflight.refusals import Refusals
from lycoris_composite.preflight.weights import weight_errors
from lycoris_composite.run import environment
from lycoris_composite.run.files import check_writable
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.machine import has_gpu, machine_errors
from lycoris_composite.trainers.trainer import Trainer

_NOT_ON_CPU = (
    "sd-scripts keeps its encoders and VAE in 16 bits whatever the settings, and stops where a CPU cannot compute in them; "
    "train it on a GPU."
)


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
    """What the checks made of a config, as far as they came. `stages` are those that run, `both` all of the recipe; `ignored`
    says what stands in the config and nobody reads, `lacks_gpu` why this machine will most likely not train it."""

    settings: Settings | None = None
    trainer: Trainer | None = None
    stages: Sequence[Stage] = ()
    both: Sequence[Stage] = ()
    data: Data = field(default_factory=Data)
    ignored: list[str] = field(default_factory=list)
    lacks_gpu: str | None = None

    @property
    def journal_file(self) -> Path:
        """Where the run writes down what it has finished."""
        return self.stages[0].output_dir / f"{self.settings.output_name}.run.json"

    @property
    def lock_file(self) -> Path:
        """What the run holds while it writes."""
        return self.journal_file.with_suffix(".lock")


def check_run(request: Request, refusals: Refusals, say: Callable[[str], None], show_progress: bool = True) -> Checked:
    """Checks a config in the order of what it costs, from its text to its weights. Nothing is written."""
    environment.go_offline()
    done = Checked()
    with refusals.collecting():
        done.settings = load_settings(request.config, request.overrides)
    if done.settings is None:
        return done
    _check_settings(done, request, refusals, say)
    with refusals.collecting():
        done.both = stages_of(done.settings, request.stage or 1)
        done.stages = done.both if request.stage is None else [done.both[request.stage - 1]]
    if done.trainer is not None and done.stages:
        _check_stages(done, request, refusals)
        with refusals.collecting():
            if not done.stages[0].architecture.runs_on_cpu and not has_gpu():
                done.lacks_gpu = f"{done.stages[0].architecture.name}: {_NOT_ON_CPU}"
                say(done.lacks_gpu)
    if done.stages:
        refusals.each(filter(None, (prompt_file_error(stage.settings, str(request.config)) for stage in done.stages)))
        on_bad = partial(_check_bad, is_allowed=request.skip_bad, say=say)
        done.data = read_data(done.stages, done.both[1], refusals, on_bad, show_progress)
        refusals.each(weight_errors(done.stages))
        with refusals.collecting():
            check_writable(done.lock_file)
    return done


def _check_settings(done: Checked, request: Request, refusals: Refusals, say: Callable[[str], None]) -> None:
    settings = done.settings
    with refusals.collecting():
        done.trainer = trainer_of(settings.trainer, request.sd_scripts)
    if trainer := done.trainer:
        flags: dict[str, Any] = {}
        with refusals.collecting():
            flags = trainer.given_flags(request.flags)
        kohya = without_empty({**settings.kohya, **without_set(flags, request.overrides)})
        settings = replace(settings, kohya=kohya)
        refusals.each(trainer.option_errors(settings.stage2, f"{request.config}, [composite.stage2]"))
        if settings.trainer != BUILTIN:  # which refuses what it does not know
            done.ignored += map(sentence, trainer.option_errors(settings.kohya, str(request.config)))
            if SKIP not in trainer.known_options():
                settings = without_skip(settings)
    if request.cpu:
        environment.stay_on_cpu()
        (kohya, lines), (stage2, more) = map(without_cuda, (settings.kohya, settings.stage2))
        settings = replace(settings, kohya=kohya, stage2=stage2)
        for line in dict.fromkeys((*lines, *more)):
            say(f"--cpu: {line}")
    done.settings = settings


def _check_stages(done: Checked, request: Request, refusals: Refusals) -> None:
    """What the trainer, and the machine that it runs on, refuses of the stages. Where nothing is wrong with either alone,
    they are rehearsed: stage 2 has to fit stage 1 also where it runs alone."""
    where = str(request.config)
    errors = [done.trainer.stage_errors(stage, where) for stage in done.stages]
    # What nobody reads needs nothing of the machine.
    known = done.trainer.known_options() - set(done.stages[0].architecture.ignored)
    read = [KohyaSettings({key: value for key, value in stage.settings.items() if key in known}) for stage in done.stages]
    errors += [machine_errors(settings, where) for settings in read]
    if all([refusals.each(each) for each in errors]):  # a list, so that each is asked
        refusals.each(done.trainer.rehearsal_errors(done.both[:1] if request.stage == 1 else done.both, where))


def _check_bad(bad: Mapping[str, str], is_allowed: bool, say: Callable[[str], None]) -> None:
    """Says each bad file. Raises UserError where the user does not want to train without them."""
    for reason in bad.values():
        say(f"{'left out' if is_allowed else 'bad file'}: {reason}")
    if bad and not is_allowed:
        raise UserError(f"{len(bad)} file(s) cannot be used (named above); mend or remove them, or give --skip_bad.")


def trainer_of(name: str, sd_scripts: str | None) -> Trainer:
    """What trains a stage. Imported only now: a mistake in the config should not cost the seconds that torch takes."""
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
