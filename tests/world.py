"""A small world to train in from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import toml

from tests import tiny
from tests.forks import ForkServer
from tests.helpers import ROOT

# What every small training here shares: both stages in seconds on a CPU.
SETTINGS: dict[str, Any] = {
    "network_module": "lycoris.kohya",
    "network_args": ["conv_dim=0", "conv_alpha=16", "algo=loha"],
    "network_dim": 4,
    "network_alpha": 1,
    "learning_rate": 5e-4,
    "optimizer_type": "AdamW",
    "resolution": "128,128",
    "enable_bucket": True,
    "min_bucket_reso": 64,
    "keep_tokens": 1,
    "caption_extension": ".txt",
    "cache_latents": True,
    "train_batch_size": 2,
    "max_data_loader_n_workers": 0,
    "sdpa": True,
    "mixed_precision": "no",
    "output_name": "cg3",
    "seed": 42,
}
COMPOSITE: dict[str, Any] = {"stage2": {"train_batch_size": 2, "resolution": "192,192"}}


@dataclass
class Run:
    """A finished command."""

    code: int
    output: str
    folder: Path


@dataclass
class World:
    """A folder with a tiny model, its tokenizers, drawn characters and a config for them. `environment` is what commands
    find set besides the usual."""

    folder: Path
    sd_scripts: Path | None
    config: dict[str, Any] = field(default_factory=dict)
    composite: dict[str, Any] = field(default_factory=COMPOSITE.copy)
    environment: dict[str, str] = field(default_factory=dict)
    forks: ForkServer | None = None

    def write_config(self, folder: Path, **changes: Any) -> Path:
        """The base config with settings changed; a key set to None is left out, a table is merged."""
        composite = {**self.composite, **changes.pop("composite", {})}
        settings = {key: value for key, value in {**self.config, **changes}.items() if value is not None}
        path = folder / "cg3.toml"
        path.write_text(toml.dumps({"settings": {**settings, "output_dir": str(folder / "out")}, "composite": composite}))
        return path

    def train(
        self,
        folder: Path,
        *flags: str,
        processes: int = 1,
        env: dict[str, str] | None = None,
        is_real: bool = False,
        **changes: Any,
    ) -> Run:
        """Both stages by train_composite.py."""
        arguments = self._arguments(folder, [str(ROOT / "train_composite.py")], flags, processes, changes)
        return self.command(folder, *arguments, env=env, is_real=is_real or processes > 1)

    def launch(self, folder: Path, **changes: Any) -> Run:
        """Both stages by `accelerate launch`, as the README has it."""
        start = ["-m", "accelerate.commands.accelerate_cli", "launch", str(ROOT / "train_composite.py")]
        return self.command(folder, *self._arguments(folder, start, (), 1, changes), is_real=True)

    def strike(
        self,
        folder: Path,
        what: str,
        number: int,
        blow: str,
        *flags: str,
        processes: int = 1,
        is_real: bool = False,
        **changes: Any,
    ) -> Run:
        """Both stages, struck at a chosen moment (tests/killing.py)."""
        start = [str(ROOT / "tests/killing.py"), what, str(number), blow]
        arguments = self._arguments(folder, start, flags, processes, changes)
        return self.command(folder, *arguments, is_real=is_real or processes > 1)

    def start(self, folder: Path, **changes: Any) -> int:
        """Begins both stages and does not wait for them; the process's number."""
        arguments = self._arguments(folder, [str(ROOT / "train_composite.py")], (), 1, changes)
        return self.forks.start(arguments, folder, self._environment(), folder / "started.log")

    def command(self, folder: Path, *arguments: str, env: dict[str, str] | None = None, is_real: bool = False) -> Run:
        """`python ARGUMENTS` in a folder: in a fork where the world has a server of them, unless the command has to be a
        real one or gets an environment. Its output is shown when a test fails."""
        if self.forks is None or is_real or env is not None:
            environment = {**self._environment(), **(env or {})}
            done = subprocess.run(
                [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                encoding="utf-8", errors="replace", timeout=900, check=False,
            )  # fmt: skip
            code, output = done.returncode, done.stdout
        else:
            log = folder / "command.log"
            code = self.forks.wait(self.forks.start(arguments, folder, self._environment(), log))
            output = log.read_text(encoding="utf-8", errors="replace")
            log.unlink()
        print(output[-12000:])
        return Run(code, output, folder)

    def _arguments(
        self, folder: Path, start: list[str], flags: tuple[str, ...], processes: int, changes: dict[str, Any]
    ) -> list[str]:
        """Python's own. Several processes by torchrun: accelerate 1.6 starts one with --cpu."""
        config = self.write_config(folder, **changes)
        if processes > 1:
            start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), *start]
            flags = (*flags, "--cpu")
        if self.sd_scripts is not None:
            flags = ("--sd_scripts", str(self.sd_scripts), *flags)
        return [*start, "--config", str(config), *flags]

    def _environment(self) -> dict[str, str]:
        return environment_of_commands() | self.environment


def environment_of_commands() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def make_world(folder: Path, sd_scripts: Path | None = None) -> World:
    """A world in `folder`, a second or three of work. Without `sd_scripts` its config asks for the embedded trainer."""
    tiny.make_model(folder / "model")
    tiny.make_tokenizer_cache(folder / "tokenizer")
    tiny.draw_characters(folder / "data", images=3, size=[(96, 96), (72, 108), (108, 72)])
    prompts = folder / "prompts.json"
    prompts.write_text('[{"prompt": "rin", "width": 64, "height": 64, "sample_steps": 2, "seed": 1}]')
    config = {
        **SETTINGS,
        "pretrained_model_name_or_path": str(folder / "model"),
        "tokenizer_cache_dir": str(folder / "tokenizer"),
        "train_data_dir": str(folder / "data"),
        "shuffle_caption": True,
        "max_train_steps": 3,
        "max_token_length": 225,
        "sample_prompts": str(prompts),
    }
    composite = COMPOSITE if sd_scripts else {**COMPOSITE, "trainer": "builtin"}
    return World(folder, sd_scripts, config, composite)


@contextmanager
def forking_world(folder: Path, sd_scripts: Path | None = None) -> Iterator[World]:
    """The same, whose commands are forked where the system can fork."""
    world = make_world(folder, sd_scripts)
    if hasattr(os, "fork"):
        world.forks = ForkServer(sd_scripts, environment_of_commands())
    yield world
    if world.forks is not None:
        world.forks.close()
