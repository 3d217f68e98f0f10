"""Config to stages to trainer, one after the other, in this process."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from lycoris_composite.composites.sample_prompts import MOST_CHARACTERS
from lycoris_composite.config.effective import effective
from lycoris_composite.config.options import SECRETS
from lycoris_composite.errors import Stopped, UserError, printable, sentence
from lycoris_composite.preflight.checks import Refusals, Request, check_run
from lycoris_composite.preflight.resume import Task, starting_weights, what_is_left
from lycoris_composite.run import environment
from lycoris_composite.run.files import cannot_write, write_whole
from lycoris_composite.run.journal import Journal, digest, sole_run
from lycoris_composite.run.signals import StopRequest
from lycoris_composite.run.states import Attempt, remove_on_stop_states
from lycoris_composite.trainers.kernels import exact_kernels
from lycoris_composite.trainers.trainer import Trainer

# What upstream's own writing (logs, folders) meets on a disk that is full, read-only, broken or gone.
_DISK_REFUSES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT),
    errno.ENAMETOOLONG,
}
_HELP = """\
Trains the two stages of a kohya config with a [composite] table: single
characters, then composites of them.

  accelerate launch train_composite.py --config cg3.toml
  accelerate launch train_composite.py --config cg3.toml --cpu --stage 2

Any other flag is kohya's own (--output_dir, --learning_rate, ...) and wins over
the file in both stages.
"""


def parser() -> argparse.ArgumentParser:
    """The launcher's own flags; all others are upstream's."""
    parser = argparse.ArgumentParser(
        prog="train_composite.py", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--config", required=True, type=Path, metavar="FILE", help="a kohya config with a [composite] table")
    add("--sd_scripts", metavar="DIR", help="the sd-scripts clone to use")
    add("--stage", type=int, choices=(1, 2), help="one stage alone; 2 needs what 1 has saved")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key, dots for tables")
    add("--cpu", action="store_true", help="run without CUDA, and say what has to change")
    add("--fresh", action="store_true", help="start over, whatever an earlier run has left")
    add("--continue_anyway", action="store_true", help="go on although settings or files have changed")
    add("--skip_bad", action="store_true", help="train without the images and captions that cannot be used")
    add("--allow_pickle", action="store_true", help="load .ckpt files that hold more than weights")
    return parser


@environment.set_back()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stages. Returns 0 when they are done, 2 for the user's mistake, 130 or 143 when somebody stopped it."""
    args, flags = parser().parse_known_args(arguments)
    with StopRequest().listening() as stop:
        return report(lambda: _run(args, flags, stop))


def report(action: Callable[[], None]) -> int:
    """Runs an action and returns its exit code. A UserError, or a disk that refuses, is printed as one line."""
    try:
        action()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError) as error:
        if isinstance(error, OSError):
            if error.errno not in _DISK_REFUSES:
                raise
            error = UserError(cannot_write(error.filename or "a file", error))
        if _is_main_process():
            print(f"error: {sentence(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        starter = ["accelerate", "launch"] if "ACCELERATE_DYNAMO_BACKEND" in os.environ else ["python"]
        _say(f"{stopped}; go on with: {shlex.join([*starter, *_without_secrets(sys.argv)])}")
        return stopped.exit_code
    return 0


def _without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line as it may stand in a log."""
    shown = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, _ = argument.partition("=")
        if equals and flag.endswith(SECRETS):  # --key=value, and --set's key=value
            argument = f"{flag}=..."
        shown.append("..." if before.startswith("--") and before.endswith(SECRETS) else argument)
    return shown


def _run(args: argparse.Namespace, flags: Sequence[str], stop: StopRequest) -> None:
    request = Request(args.config, args.set, flags, args.sd_scripts, args.stage, args.cpu, args.skip_bad)
    checked = check_run(request, Refusals(), _say, _is_main_process())
    for line in (*checked.ignored, *checked.data.ignored):
        _say(f"ignored: {line}")
    stages, plans = checked.stages, checked.data.plans
    for plan in plans:
        names = ", ".join(character.summary for character in plan.characters)
        _say(f"characters: {names}; {plan.composites} composites an epoch in {len(plan.sizes)} size(s)")
    count = len(plans[0].characters)
    if count > MOST_CHARACTERS and not all(stage.settings.sample_prompts or stage.prompts for stage in stages):
        _say(f"sample prompts: the first {MOST_CHARACTERS} of {count} characters")
    with sole_run(checked.lock_file) if _is_main_process() else nullcontext():
        journal = Journal(checked.journal_file)
        subsets, fresh, anyway = checked.data.subsets, args.fresh, args.continue_anyway
        tasks, lines = _from_main_process(lambda: what_is_left(journal, stages, plans, subsets, fresh, anyway))
        for line in lines:
            _say(line)
        if args.stage == 2 and checked.both[0].settings.network_weights:
            _say(f"stage 2: starts from {stages[0].settings.network_weights}")
        runs = [(task, *effective(task.stage, plans[0], checked.settings.single_size)) for task in tasks]
        for _, _, files in runs:
            _write(files)
        for task, stage, files in runs:
            _write(files)  # again: hours later somebody may have tidied the folder
            log = journal.run_log(stage.number, task.record.run)
            skipped = frozenset(checked.data.bad)
            attempt = Attempt(
                task.record.run, stage.number, stage.output, stop, task.state, skipped, log, stage.weights_from is not None
            )
            _train(replace(task, stage=stage), attempt, checked.trainer, journal, args.allow_pickle)
    checked.trainer.end()


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        write_whole(path, text)


def _train(task: Task, attempt: Attempt, trainer: Trainer, journal: Journal, allow_pickle: bool) -> None:
    stage = task.stage
    _say(f"stage {stage.number}: {'composites' if stage.composite else 'single images'} -> {stage.output}")
    if _is_main_process():
        journal.begin(stage.number, replace(task.record, weights=starting_weights(stage)))
    try:
        with exact_kernels(stage.settings, _say):
            steps, epochs = trainer.run_stage(stage, attempt, allow_pickle)
    except (UserError, OSError, Stopped):
        print(file=sys.stderr)  # what follows would stand on the progress bar's line
        raise
    finally:
        attempt.stop.waiting = False  # until the next stage takes its steps, nobody looks
    if _is_main_process():
        journal.finish(stage.number, digest(stage.output), steps, epochs)
        remove_on_stop_states(stage.output_dir, task.record.run, stage.number)
    if attempt.stop.signal:
        raise Stopped(attempt.stop.signal, f"stopped after stage {stage.number}")


def _from_main_process(make: Callable[[], Any]) -> Any:
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return make()
    from lycoris_composite.trainers.ranks import from_main_process

    return from_main_process(make)


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(line: str) -> None:
    if _is_main_process():
        print(f"lycoris-composite: {printable(line)}", flush=True)
