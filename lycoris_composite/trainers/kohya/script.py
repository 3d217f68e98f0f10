"""Runs an upstream *_train_network script, patched, for one stage or as it is.

The only module that starts upstream. It imports sd-scripts inside functions, because nothing can be imported before a
checkout is on the path.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lycoris_composite.architectures import CLIP_L, DEFAULT_TRAINER, architecture_of
from lycoris_composite.config.datasets import check_tables, every_table
from lycoris_composite.config.options import KohyaSettings, check_value
from lycoris_composite.config.settings import check_option_keys, composite_options, flatten, read_toml
from lycoris_composite.config.stages import Stage
from lycoris_composite.data import images
from lycoris_composite.errors import UserError, nearest, one_line, refusals
from lycoris_composite.run.files import whole
from lycoris_composite.run.states import Attempt
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.kohya.asserts import assert_errors
from lycoris_composite.trainers.machine import check_clip
from lycoris_composite.trainers.networks import module_errors, network_arg_errors, network_errors
from lycoris_composite.trainers.optimizers import argument_errors, optimizer_errors
from lycoris_composite.trainers.tokenizers import CHUNK, find_tokenizer
from lycoris_composite.trainers.trainer import Trainer
from sd_scripts_patches.tools import Undo, replace, why_misfit

if TYPE_CHECKING:
    from lycoris_composite.trainers.kohya.trainer import RunHooks

_STAGE_PATCHES = [
    *("load_image", "accelerate_process_group", "accelerate_frozen_model"),
    *("accelerate_save_state", "numpy_savez", "glob_images"),
]
_SINCE = {"skip_image_resolution": "v0.10.2", "train_inpainting": "v0.10.4"}  # options for every model
_ONLY_SHOWN = ("debug_dataset", "show_timesteps")
_INPAINTING = ("train_network", "sdxl_train_network")
FITTING_VERSIONS = "v0.10.1, v0.10.6, v0.11.1 and main at c162e90"


class Upstream(Trainer):
    """One checkout's trainer script, imported. Raises UserError for a script or an upstream that does not fit."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        self.script = script.removesuffix(".py")
        self.module = _import_script(folder, self.script)
        self._has_frozen = False

    def parser(self) -> argparse.ArgumentParser:
        return self.module.setup_parser()

    def known_options(self) -> set[str]:
        return {action.dest for action in self.parser()._actions}  # argparse has no public list of its options

    def given_flags(self, flags: Sequence[str]) -> dict[str, Any]:
        """The flags that stand on a command line, parsed and typed as upstream does."""
        parser = self.parser()
        parser.prog = f"{self.script}.py"
        missing = object()
        untouched = argparse.Namespace(**{action.dest: missing for action in parser._actions})
        return {key: value for key, value in vars(parser.parse_args(flags, untouched)).items() if value is not missing}

    def option_errors(self, options: Mapping[str, Any], where: str) -> Iterator[UserError]:
        """One for each option that upstream does not have."""
        known = self.known_options()
        for key in options:
            if key in known:
                continue
            if key in _SINCE:
                is_at = f"sd-scripts has it since {_SINCE[key]}, and this is {checkout.version(self.folder)}"
                yield UserError(f"{where} {key}: {is_at}; update it, or remove this.")
            else:
                yield UserError(f"{where} {key}: unknown to {self.script}.py{nearest(key, known) or '; remove it.'}")

    def stage_errors(self, stage: Stage, where: str) -> Iterator[UserError]:
        """For values of the wrong type, arguments that nothing reads, patches that do not fit, and a missing tokenizer."""
        settings = stage.settings
        given = [option for option in self.parser()._actions if settings.get(option.dest) is not None]
        yield from refusals(partial(_check_value, option, settings, f"{where} {option.dest}") for option in given)
        yield from module_errors(stage, where)
        yield from network_arg_errors(settings, where)
        yield from argument_errors(settings, where)
        yield from refusals([partial(_check_dataset_config, Path(settings.dataset_config))] if settings.dataset_config else [])
        yield from self._mode_errors(settings, where)
        clip = [check_clip] if CLIP_L in stage.architecture.tokenizers else []
        yield from refusals([partial(self.check, settings.network_module), *clip, partial(self._check_tokenizer, settings)])

    def rehearsal_errors(self, stages: Sequence[Stage], where: str) -> Iterator[UserError]:
        """For a script, a network, an optimizer or a schedule that a stage's settings would stop, and for what stage 2 would
        lose of stage 1. Call it only where `stage_errors` found nothing."""
        yield from network_errors(stages, where)
        parser = self.parser()
        for stage in stages:
            # As upstream has them after reading its config: unchecked, over the parser's defaults.
            args = parser.parse_args([], argparse.Namespace(**stage.settings))
            switches = [option.dest for option in parser._actions if option.nargs == 0 and option.dest in args]
            yield from assert_errors(_trainer_class(self.module), args, switches, stage, where)
            yield from optimizer_errors(args, stage, where)

    def _check_tokenizer(self, settings: KohyaSettings) -> None:
        """Raises UserError where upstream would fetch a tokenizer but is offline: it would stop with a TypeError, or with
        transformers 5 train with a tokenizer that knows no words."""
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE and not settings.v2:
            for tokenizer in architecture_of(self.script).tokenizers:
                find_tokenizer(tokenizer, settings, self.folder)

    def _mode_errors(self, settings: KohyaSettings, where: str) -> Iterator[UserError]:
        """For a setting at which upstream shows something and ends, and for a train_inpainting that stops later or does
        nothing."""
        given = {key for key in self.known_options() if settings.get(key)}
        for key in [key for key in _ONLY_SHOWN if key in given][:1]:
            yield UserError(
                f"{where} {key}: sd-scripts only shows something and trains nothing then; take it out, or give it to "
                "sd-scripts' own script. What will be trained on is shown by `lycoris-composite preview`."
            )
        if "train_inpainting" not in given:
            return
        if self.script not in _INPAINTING:
            yield UserError(f"{where} train_inpainting: only {' and '.join(_INPAINTING)} train that; take it out.")
        elif cached := [key for key in ("cache_latents", "cache_latents_to_disk") if key in given]:
            yield UserError(
                f"{where} train_inpainting: a mask is drawn for every step, so both stages read their pictures anew; set "
                f"{cached[0]} = false."
            )

    def check(self, network_module: str | None) -> None:
        """Raises UserError where a patch does not fit this upstream; changes nothing."""
        for _, reason in self.fits(network_module):
            if reason is not None:
                raise UserError(
                    f"sd-scripts at {checkout.version(self.folder)}: {reason}; check out {checkout.DEFAULT_REF} "
                    f"(known to fit: {FITTING_VERSIONS}) or report this version."
                )

    def fits(self, network_module: str | None) -> Iterator[tuple[str, str | None]]:
        """Each patch's name, and why it does not fit this upstream, or None where it does; changes nothing."""
        return ((name, why_misfit(name)) for name in _patch_names(network_module))

    def run(
        self,
        arguments: Sequence[str],
        network_module: str | None,
        *,
        allow_pickle: bool = False,
        attempt: Attempt | None = None,
    ) -> RunHooks:
        """Runs the script's `__main__` lines with these arguments. With a stage's attempt more patches apply: single images
        are read upright, files are written whole, and the process group stays for the next stage."""
        from lycoris_composite.trainers.kohya.trainer import RunHooks

        self.check(network_module)
        hooks = RunHooks(attempt)
        with ExitStack() as undo:
            for name in _patch_names(network_module):
                unwanted = (attempt is None and name in _STAGE_PATCHES) or (allow_pickle and name == "checkpoint_loading")
                if not unwanted:
                    undo.callback(_apply(name, hooks, self.script))
            undo.callback(_install_trainer(self.module, hooks))
            # Upstream's parser reads sys.argv itself, a second time.
            undo.callback(replace(sys, "argv", [str(self.folder / f"{self.script}.py"), *arguments]))
            undo.callback(_forget_run)
            exec(_main_block(self.module), self.module.__dict__)
        return hooks

    def run_stage(self, stage: Stage, attempt: Attempt, allow_pickle: bool = False) -> tuple[int, int]:
        """Runs a stage from its written config, and returns how many steps and epochs it has; secrets go by argument,
        which stays in this process. Raises Stopped where somebody stopped it."""
        if not self._has_frozen:
            # Upstream collects garbage after every batch of latents it caches: a third of a second each, with all
            # that was imported so far, against a thousandth without. No model exists yet that this could keep alive.
            gc.collect()
            gc.freeze()
            self._has_frozen = True
        arguments = ["--config_file", str(stage.config_file)]
        arguments += [word for key, value in stage.secrets.items() for word in (f"--{key}", str(value))]
        if attempt.state is not None:
            arguments += ["--resume", str(attempt.state.folder)]
            if attempt.state.is_last:  # upstream refuses to go on from a last step, though its file may be missing
                arguments += ["--initial_step", "0"]
        hooks = self.run(arguments, stage.settings.network_module, allow_pickle=allow_pickle, attempt=attempt)
        return hooks.max_steps, hooks.epochs

    def run_script(self, flags: Sequence[str], allow_pickle: bool = False) -> None:
        """Runs the script with a user's own flags: `[datasets.composite]` tables work, all else is upstream's."""
        self.run(flags, self._network_module(flags), allow_pickle=allow_pickle)

    def _network_module(self, flags: Sequence[str]) -> str | None:
        settings = KohyaSettings(self.given_flags(flags))
        if settings.network_module or not settings.config_file:
            return settings.network_module
        path = Path(f"{settings.config_file.removesuffix('.toml')}.toml")
        return KohyaSettings(flatten(read_toml(path))).network_module


def _apply(name: str, hooks: RunHooks, script: str = DEFAULT_TRAINER) -> Undo:
    """Applies a patch with what it is handed to install."""
    from lycoris_composite.trainers.kohya.dataset import SwitchedDataset
    from lycoris_composite.trainers.saving import whole_weights

    given = {
        "dreambooth_dataset": (SwitchedDataset, partial(_composite_schema, trainer=script)),
        "collator_class": (hooks.take_counters,),
        "random_sampler": (hooks.order,),
        "load_image": (images.read_image, images.image_size),
        "accelerate_save_state": (whole_weights, hooks.finish_state),
        "numpy_savez": (whole,),
        "glob_images": (hooks.attempt.skipped if hooks.attempt else (),),
        "checkpoint_loading": (_refuse_pickle,),
    }.get(name, ())
    return importlib.import_module(f"sd_scripts_patches.{name}").apply(*given)


def _check_value(action: argparse.Action, settings: KohyaSettings, where: str) -> None:
    """Raises UserError for a value that upstream cannot use. Its parser checks flags alone: what stands in a config file
    is taken as it is."""
    value = settings[action.dest]
    if action.nargs == 0:
        check_value(value, bool, where)
    elif action.type in (str, int, float):
        check_value(value, action.type, where, is_list=action.nargs == "*")
    elif isinstance(value, (bool, list, dict)):
        raise UserError(f"{where}: {value!r} is neither text nor a number; write one.")
    if action.choices and value not in action.choices and not _is_taken_from_a_file(action.dest, value, settings):
        known = ", ".join(str(choice) for choice in action.choices if choice is not None)
        raise UserError(
            f"{where}: {value!r} is none of {known}{nearest(str(value), map(str, action.choices)) or '; choose one.'}"
        )


def _is_taken_from_a_file(key: str, value: Any, settings: KohyaSettings) -> bool:
    """Whether upstream runs with a value that is none of its parser's choices: GUIs and old notebooks write some."""
    from accelerate.utils import DynamoBackend

    match key:
        case "max_token_length":
            return value == CHUNK  # what CLIP reads anyway
        case "dynamo_backend":
            return not settings.torch_compile or str(value).upper() in [backend.value for backend in DynamoBackend]
        case "huber_schedule":
            return settings.loss_type not in ("huber", "smooth_l1")
        case "zero_stage" | "offload_optimizer_device" | "offload_param_device":
            return not settings.deepspeed
        case "save_precision" | "sample_sampler":
            return True  # those of training, and ddim
    return False


def _check_dataset_config(path: Path) -> None:
    """Raises UserError for a dataset_config that upstream's own schema does not let in."""
    from library.config_util import ConfigSanitizer
    from voluptuous import MultipleInvalid

    tables = read_toml(path)
    check_tables(tables, path)
    for table in every_table(tables):
        for key in ("composite", "trigger"):  # the first is refused elsewhere, in its own words; a patch lets the second in
            table.pop(key, None)
    try:
        ConfigSanitizer(True, True, False, True).sanitize_user_config(tables)
    except MultipleInvalid as error:
        raise UserError(f"{path}: {one_line(error)}; correct it.") from error


def _import_script(folder: Path, script: str) -> ModuleType:
    if not (folder / f"{script}.py").is_file():
        scripts = sorted(path.stem for path in folder.glob("*train_network.py"))
        raise UserError(f"{folder}: no {script}.py there; choose one of {', '.join(scripts)}.")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(script)
    except Exception as error:  # a broken torch, or a package of another version, raises anything
        raise UserError(
            f"sd-scripts at {checkout.version(folder)}: {script}.py cannot be imported ({one_line(error)}); "
            f"run `lycoris-composite setup`, or check out {checkout.DEFAULT_REF} (known to fit: {FITTING_VERSIONS})."
        ) from error
    if Path(module.__file__ or "").parent != folder:
        raise UserError(f"{script}: already imported from {module.__file__}; uninstall that copy or name it with --sd_scripts.")
    return module


def _main_block(module: ModuleType) -> Any:
    """The lines under `if __name__ == "__main__":`, so that a script's own set-up is never copied here."""
    source = Path(module.__file__ or "").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            return compile(ast.Module(node.body, []), module.__file__ or "", "exec")
    raise UserError(f'{module.__file__}: no `if __name__ == "__main__":` block; choose a *_train_network.py script.')


def _patch_names(network_module: str | None) -> list[str]:
    names = ["strategies", "dreambooth_dataset", "dreambooth_subset", "collator_class", "checkpoint_loading"]
    names += ["random_sampler", "training_loop_start", *_STAGE_PATCHES]
    if (network_module or "").startswith("lycoris"):
        names.append("lycoris_timestep_embedding")
    return names


def _composite_schema(table: Any, trainer: str = DEFAULT_TRAINER) -> dict:
    """voluptuous's validator for a `composite` table: a whole set of options, or a UserError."""
    if not isinstance(table, dict):
        raise UserError(f"dataset_config, composite: {table!r} is no table; write [datasets.composite] and its keys below it.")
    check_option_keys(table, "dataset_config, [datasets.composite]")
    return asdict(composite_options(table, "dataset_config, [datasets.composite]", trainer))


def _refuse_pickle(path: str) -> UserError:
    return UserError(
        f"{path}: holds more than weights, and loading it could run its code; convert it to .safetensors, "
        "or give --allow_pickle if you trust where it comes from."
    )


def _install_trainer(module: ModuleType, hooks: RunHooks) -> Undo:
    """Puts a subclass of the script's trainer in its place; a run without composites passes through it unchanged."""
    from lycoris_composite.trainers.kohya.trainer import composite_trainer

    trainer = _trainer_class(module)
    return replace(module, trainer.__name__, composite_trainer(trainer, hooks))


def _trainer_class(module: ModuleType) -> type:
    from train_network import NetworkTrainer

    classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    trainers = [value for value in classes if issubclass(value, NetworkTrainer)]
    if len(trainers) != 1:
        raise UserError(f"{module.__file__}: has {len(trainers)} trainer classes; choose a *_train_network.py script.")
    return trainers[0]


def _forget_run() -> None:
    """Clears what a finished run leaves in the process, so that the next one starts as in a process of its own. Waits
    for the main process, which saves last."""
    import torch
    from accelerate.state import AcceleratorState, GradientState
    from library.device_utils import clean_memory

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    AcceleratorState._reset_state()  # accelerate's own way between runs; it has no public name
    GradientState._reset_state()
    gc.collect()
    clean_memory()
