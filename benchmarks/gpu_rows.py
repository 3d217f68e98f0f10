"""Which rows gpu.py measures, and the configs of their runs: the guide's, with what a model needs otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import bench

# What is run of each setup. `doctor` says what it thinks of the config, `kill` kills a stage 2 and lets it go on.
PARTS = ("plain", "stage1", "stage2", "stage2-area1", "doctor", "kill")
KILL_STEPS, KILLED_BEFORE, SAVED_EVERY = 6, 5, 2
_APART = ("plain", "doctor", "kill")  # whose output is; stage 2 starts from what stage 1 has left in theirs


class Batch(NamedTuple):
    """How many pictures, and the side of the square that has their area."""

    count: int
    resolution: int


@dataclass(frozen=True)
class Model:
    """How one base model is trained here. `settings` stand over the guide's; None takes a key away."""

    trainer: str
    stage1: Batch
    stage2: Batch
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    parts: Sequence[str] = PARTS[:-1]


@dataclass(frozen=True)
class Setup:
    """A base model and what it is trained with."""

    model: str
    attention: str  # xformers or sdpa
    optimizer: str
    precision: str  # fp16, bf16 or no

    @classmethod
    def read(cls, text: str) -> Setup:
        """From MODEL/ATTENTION/OPTIMIZER/PRECISION. Raises ValueError for anything else."""
        words = text.split("/")
        if len(words) != 4 or words[0] not in MODELS:
            raise ValueError(f"{text}: not MODEL/ATTENTION/OPTIMIZER/PRECISION with a MODEL of {', '.join(MODELS)}")
        return cls(*words)

    def __str__(self) -> str:
        return "/".join((self.model, self.attention, self.optimizer, self.precision))


class Row(NamedTuple):
    setup: Setup
    part: str

    @property
    def name(self) -> str:
        return f"{self.setup} {self.part}"


_NOT_SD = {"clip_skip": None, "max_bucket_reso": 2048, "gradient_checkpointing": True, "text_encoder_lr": 0.00005}
_NO_CLIP = {
    **_NOT_SD,
    **{"max_token_length": None, "text_encoder_lr": None, "lowram": None, "network_train_unet_only": True},
    **{"v2": None, "v_parameterization": None},
}
_FLUX = {"guidance_scale": 1.0, "timestep_sampling": "shift", "model_prediction_type": "raw"}
MODELS = {
    "sd15": Model("train_network", Batch(4, 640), Batch(2, 768), steps=30),  # the guide's own sizes
    # Stage 2 is 1.2 times as wide as stage 1, as in the guide, rounded down to buckets' multiples of 64.
    "sdxl": Model("sdxl_train_network", Batch(4, 1024), Batch(2, 1216), 15, _NOT_SD),
    "anima": Model("anima_train_network", Batch(4, 1024), Batch(2, 1216), 12, _NO_CLIP, ("stage1", "stage2", "doctor")),
    "flux": Model(
        "flux_train_network", Batch(2, 1024), Batch(1, 1216), 10, {**_NO_CLIP, **_FLUX}, ("stage1", "stage2", "doctor")
    ),
}
DEFAULT = {
    "sd15": [
        ("xformers", "AdamW8bit", "fp16"),
        ("sdpa", "AdamW8bit", "fp16"),
        ("sdpa", "AdamW8bit", "bf16"),
        ("sdpa", "AdamW", "fp16"),
    ],
    "sdxl": [("sdpa", "AdamW8bit", "bf16")],
    "anima": [("sdpa", "AdamW8bit", "bf16")],
    "flux": [("sdpa", "AdamW8bit", "bf16")],
}
TINY = [Setup("sd15", "sdpa", "AdamW", "no")]
_TINY_STAGES = {"stage1": Batch(2, 128), "stage2": Batch(2, 192)}


def default_setups() -> tuple[list[Setup], list[str]]:
    """The setups that this machine has the packages for, and a line for each package that it lacks."""
    lines, setups = [], []
    lacks = [name for name in ("xformers", "bitsandbytes") if importlib.util.find_spec(name) is None]
    if "xformers" in lacks:
        lines.append("xformers is not installed: its rows are left out")
    if "bitsandbytes" in lacks:
        lines.append("bitsandbytes is not installed: AdamW in place of AdamW8bit")
    for model, choices in DEFAULT.items():
        for attention, optimizer, precision in choices:
            if attention not in lacks:
                setups.append(
                    Setup(model, attention, optimizer.removesuffix("8bit") if "bitsandbytes" in lacks else optimizer, precision)
                )
    return list(dict.fromkeys(setups)), lines


def rows_of(setups: Iterable[Setup], parts: Sequence[str] | None) -> Iterator[Row]:
    """Setup by setup. The kill comes once, with the first setup of SD 1.5, unless the parts are named."""
    killed = False
    for setup in setups:
        for part in parts or MODELS[setup.model].parts:
            yield Row(setup, part)
        if parts is None and setup.model == "sd15" and not killed:
            killed = True
            yield Row(setup, "kill")


@dataclass(frozen=True)
class Recipe:
    """Where a row's config finds things, and how large the run is."""

    model_keys: dict[str, str]
    data: Path
    tiny: bool = False
    shrink: int = 1  # resolutions are divided by it, to try a real model where there is little memory
    steps: int | None = None

    def batch(self, row: Row) -> Batch:
        """The one that the row's run trains with; a doctor's is stage 2's."""
        model = MODELS[row.setup.model]
        stages = _TINY_STAGES if self.tiny else {"stage1": model.stage1, "stage2": model.stage2}
        found = stages["stage1" if row.part in ("plain", "stage1", "stage2-area1") else "stage2"]
        return found._replace(resolution=found.resolution // self.shrink)

    def write(self, row: Row, folder: Path, **changes: Any) -> Path:
        """The row's config as a file in the folder of its setup; `changes` win."""
        import toml

        folder.mkdir(parents=True, exist_ok=True)
        output = folder / (row.part if row.part in _APART else "stages")
        settings = {**self._settings(row), "output_dir": str(output), **self._kill(row), **changes}
        tables: dict[str, Any] = {"settings": {key: value for key, value in settings.items() if value is not None}}
        if row.part != "plain":
            tables["composite"] = self._composite(row)
        path = folder / f"{row.part}.toml"
        path.write_text(toml.dumps(tables), encoding="utf-8")
        return path

    def _settings(self, row: Row) -> dict[str, Any]:
        setup, model = row.setup, MODELS[row.setup.model]
        first = self.batch(row._replace(part="stage1"))
        return {
            **_guide(),
            **model.settings,
            **(_on_a_cpu() if self.tiny else {}),
            **self.model_keys,
            "train_data_dir": str(self.data),
            "train_batch_size": first.count,
            "resolution": f"{first.resolution},{first.resolution}",
            "xformers": setup.attention == "xformers",
            "sdpa": setup.attention == "sdpa",
            "optimizer_type": setup.optimizer,
            "mixed_precision": setup.precision,
            "min_bucket_reso": 64 if self.tiny or self.shrink > 1 else None,
            "max_train_steps": self.steps or model.steps,
        }

    def _composite(self, row: Row) -> dict[str, Any]:
        count, resolution = self.batch(row._replace(part=row.part if row.part == "stage2-area1" else "stage2"))
        stage2 = {"train_batch_size": count, "resolution": f"{resolution},{resolution}"}
        return {"trainer": MODELS[row.setup.model].trainer, "stage2": stage2}

    def _kill(self, row: Row) -> dict[str, Any]:
        if row.part != "kill":
            return {}
        saving = {"save_state": True, "save_every_n_steps": SAVED_EVERY, "save_precision": "float"}
        return {"max_train_steps": KILL_STEPS, **saving}


def _guide() -> dict[str, Any]:
    """examples/cg3.toml without its tables, and without what it saves and draws on the way: only steps are measured."""
    import toml

    tables = toml.load(bench.ROOT / "examples/cg3.toml")
    tables.pop("composite")
    flat = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    for table in tables.values():
        flat.update(table if isinstance(table, dict) else {})
    left_out = ("max_train_epochs", "save_every_n_epochs", "sample_every_n_epochs", "sample_sampler")
    return {key: value for key, value in flat.items() if key not in left_out}


def _on_a_cpu() -> dict[str, Any]:
    return {"lowram": False, "max_data_loader_n_workers": 0, "persistent_data_loader_workers": False}
