"""Config to stages to trainer, one after the other, in this process."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from lycoris_composite import checkout, config, images
from lycoris_composite.errors import UserError
from lycoris_composite.plan import Plan
from lycoris_composite.sampling import MOST_CHARACTERS, sample_prompts
from lycoris_composite.stages import Stage, config_text, dataset_config, overridden_datasets, stages_of, toml_text, without_cuda
from lycoris_composite.subsets import datasets_of, parse_resolution, plan_of

BUILTIN = "builtin"
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
    add("--allow_pickle", action="store_true", help="load .ckpt files that hold more than weights")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stages. 0 when they are done, 2 for a mistake that the user can mend, said in one sentence."""
    own, flags = parser().parse_known_args(arguments)
    return report(lambda: _run(own, flags))


def report(action: Callable[[], None]) -> int:
    """Runs an action for the command line: a UserError becomes one line and exit code 2."""
    try:
        action()
    except UserError as error:
        if _is_main_process():
            print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(own: argparse.Namespace, flags: Sequence[str]) -> None:
    settings = config.load(own.config, own.set)
    trainer = _trainer(settings.trainer, own.sd_scripts)
    settings = replace(settings, kohya={**settings.kohya, **_without_set(trainer.given_flags(flags), own.set)})
    trainer.check_options(settings.stage2, f"{own.config}, [composite.stage2]")
    if own.cpu:
        settings = _on_cpu(settings)
    stages = stages_of(settings, own.stage)
    for stage in stages:
        trainer.check_stage(stage, str(own.config))
    plans = _check_data(settings)
    _check_start(stages[0])
    for stage in stages:
        _write_configs(stage, settings, plans)
    for stage in stages:
        _say(f"stage {stage.number}: {'composites' if stage.composite else 'single images'} -> {stage.output}")
        trainer.run_stage(_with_prompts(stage), own.allow_pickle)
    trainer.end()


def _trainer(name: str, sd_scripts: str | None) -> Any:
    """What trains a stage. Imported only now: torch and upstream take seconds, and a mistake in the config should not
    cost them."""
    if name != BUILTIN:
        folder = checkout.find(sd_scripts)
        from lycoris_composite.trainers.kohya import Upstream

        return Upstream(folder, name)
    try:
        from lycoris_composite.trainers.builtin import Builtin
    except ImportError as error:
        raise UserError(f'trainer = "{BUILTIN}": {error}; run `pip install "lycoris-composite[builtin]"`.') from error
    return Builtin()


def _without_set(given: dict, overrides: Sequence[str]) -> dict:
    """The flags but for those that `--set` sets too: it is there for what flags cannot reach, so it wins."""
    keys = {override.partition("=")[0].strip() for override in overrides}
    keys = {key.rpartition(".")[2] for key in keys if not key.startswith("composite.")}
    return {key: value for key, value in given.items() if key not in keys}


def _on_cpu(settings: config.Settings) -> config.Settings:
    os.environ["ACCELERATE_USE_CPU"] = "true"
    kohya, lines = without_cuda(settings.kohya)
    for line in lines:
        _say(f"--cpu: {line}")
    return replace(settings, kohya=kohya, stage2=without_cuda(settings.stage2)[0])


def _check_data(settings: config.Settings) -> list[Plan]:
    """Reads headers, captions and pixels once, for the stage that makes composites: a mistake must not wait until
    stage 1 has been trained. The plans are the ones that training will make."""
    [stage] = stages_of(settings, only=2)
    source = stage.settings.get("dataset_config")
    tables = overridden_datasets(config.read_toml(Path(source)), settings.stage2) if source else None
    datasets = datasets_of(stage.settings, settings.composite.aspect, tables)
    plans = [plan_of(dataset, settings.composite, stage.settings["seed"]) for dataset in datasets]
    paths = sorted({image.path for plan in plans for character in plan.characters for image in character.images})
    with ThreadPoolExecutor() as readers:
        list(readers.map(_check_pixels, paths))
    for plan in plans:
        names = ", ".join(f"{character.trigger} ({len(character.images)})" for character in plan.characters)
        _say(f"characters: {names}; {plan.composites} composites an epoch in {len(plan.sizes)} size(s)")
    return plans


def _check_pixels(path: str) -> None:
    try:
        images.read_image(path)
    except Exception as error:  # Pillow raises many kinds for broken data
        raise UserError(f"{path}: cannot be decoded ({error}); remove or replace it.") from error


def _check_start(stage: Stage) -> None:
    if stage.weights_from is not None and not stage.weights_from.is_file():
        raise UserError(f"{stage.weights_from}: not there, but stage 2 starts from it; run stage 1 first.")
    model = stage.settings.get("pretrained_model_name_or_path")
    if not model:
        raise UserError("pretrained_model_name_or_path: not set; name the base model's file or folder.")
    path = Path(model)
    if not path.exists() and (path.is_absolute() or path.suffix in (".ckpt", ".safetensors")):
        raise UserError(f"pretrained_model_name_or_path {model}: no such file or folder; correct the path.")


def _write_configs(stage: Stage, settings: config.Settings, plans: Sequence[Plan]) -> None:
    stage = _with_prompts(stage)
    if not settings.kohya.get("sample_prompts"):
        single = parse_resolution(settings.kohya.get("resolution") or plans[0].canvas.size)
        prompts = sample_prompts(plans[0], single)
        write_whole(_prompts_file(stage), json.dumps(prompts, ensure_ascii=False, indent=1))
        if stage.number == 1 and len(plans[0].characters) > MOST_CHARACTERS:
            _say(f"sample prompts: the first {MOST_CHARACTERS} of {len(plans[0].characters)} characters")
    if stage.settings.get("dataset_config"):
        source = config.read_toml(Path(stage.settings["dataset_config"]))
        write_whole(stage.dataset_config_file, toml_text(dataset_config(stage, source, settings.stage2)))
    write_whole(stage.config_file, config_text(stage))


def _with_prompts(stage: Stage) -> Stage:
    if stage.settings.get("sample_prompts"):
        return stage
    return replace(stage, settings={**stage.settings, "sample_prompts": str(_prompts_file(stage))})


def _prompts_file(stage: Stage) -> Path:
    return stage.output_dir / f"{stage.name.removesuffix('-stage1')}-prompts.json"


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is complete under its name or not there. Every process of a run writes the same text."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); make room or choose another output_dir.") from error


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(line: str) -> None:
    if _is_main_process():
        print(f"lycoris-composite: {line}", flush=True)
