"""A small world to train in from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import toml

from tests import tiny
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


@dataclass
class Run:
    """A finished command."""

    code: int
    output: str
    folder: Path


@dataclass
class World:
    """A folder with a tiny model, CLIP's tokenizer, drawn characters and a config for them."""

    folder: Path
    sd_scripts: Path | None
    config: dict[str, Any] = field(default_factory=dict)

    def write_config(self, folder: Path, **changes: Any) -> Path:
        """The base config with settings changed; a key set to None is left out, a table is merged."""
        composite = {"stage2": {"train_batch_size": 2, "resolution": "192,192"}, **changes.pop("composite", {})}
        if self.sd_scripts is None:
            composite["trainer"] = "builtin"
        settings = {key: value for key, value in {**self.config, **changes}.items() if value is not None}
        path = folder / "cg3.toml"
        path.write_text(toml.dumps({"settings": {**settings, "output_dir": str(folder / "out")}, "composite": composite}))
        return path

    def train(self, folder: Path, *flags: str, processes: int = 1, env: dict[str, str] | None = None, **changes: Any) -> Run:
        """Both stages by train_composite.py."""
        start = [str(ROOT / "train_composite.py")]
        return self.command(folder, *self._arguments(folder, start, flags, processes, changes), env=env)

    def strike(self, folder: Path, what: str, number: int, blow: str, *flags: str, processes: int = 1, **changes: Any) -> Run:
        """Both stages, struck at a chosen moment (tests/killing.py)."""
        start = [str(ROOT / "tests/killing.py"), what, str(number), blow]
        return self.command(folder, *self._arguments(folder, start, flags, processes, changes))

    def start(self, folder: Path, **changes: Any) -> subprocess.Popen[bytes]:
        """Begins both stages and does not wait for them."""
        arguments = self._arguments(folder, [str(ROOT / "train_composite.py")], (), 1, changes)
        with open(folder / "started.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, *arguments], cwd=folder, env=_environment(), stdout=log, stderr=subprocess.STDOUT
            )

    def command(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Run:
        """`python ARGUMENTS` in a folder; a traceback in the output is shown when a test fails."""
        environment = {**_environment(), **(env or {})}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        print(done.stdout[-6000:], done.stderr[-6000:])
        return Run(done.returncode, done.stdout + done.stderr, folder)

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


def _environment() -> dict[str, str]:
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
    return World(folder, sd_scripts, config)
