"""What the doctor estimates that a run needs, against what it took: bytes of its files, and the peak of its memory.

Both stages are trained for a few steps, in a process of their own each: a tiny model of the tests, the miniature, and the
tiny model with pictures so large that a batch outweighs Python and torch; with the embedded trainer and with sd-scripts.
The last cases, wider U-Nets, took no part in choosing the estimate's factors. `--full` has one of SD 1.5's width (16 GB).
What estimate and measurement share, Python with its libraries, is also taken off: `without libraries` is the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench

BATCHES = {"train_batch_size": 4, "resolution": "384,384", "max_train_steps": 2}


@dataclass(frozen=True)
class Case:
    """A config to train."""

    name: str
    trainer: str
    config: dict[str, Any] = field(default_factory=dict)
    stage2: dict[str, Any] = field(default_factory=dict)


def main() -> None:
    args = _arguments()
    bench.use_project()
    with bench.scratch(args.work) as work:
        cases = _cases(work, args)
        rows = []
        for number, case in enumerate(cases, 1):
            print(f"{number} of {len(cases)}: {case.name}, {case.trainer}", flush=True)
            rows.append(_row(case, _config(case, work / str(number)), args))
        header = ["", "trainer", "files, estimated", "measured", "ratio", "memory, estimated", "measured", "ratio"]
        header += ["without libraries, estimated", "measured", "ratio"]
        bench.print_table("estimated / measured", header, rows)
        print(f"\n{bench.machine_line()}")


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    bench.add_checkout(parser)
    parser.add_argument("--full", action="store_true", help="only a model of SD 1.5's width")
    parser.add_argument("--only", choices=("builtin", "train_network"), help="one trainer (default: both)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the files here (default: a temporary folder)")
    return parser.parse_args()


def _cases(work: Path, args: argparse.Namespace) -> list[Case]:
    import tiny

    sys.path.insert(0, str(bench.ROOT / "examples/cg3_mini"))
    from draw_data import draw_data

    base = bench.ROOT / "examples/cg3_mini/base"
    tiny.draw_characters(work / "data", images=3)
    tiny_config = _settings(tiny.make_model(work / "model"), tiny.make_tokenizer_cache(work / "tokens"), work / "data")
    largest = {**tiny_config, **BATCHES, "train_batch_size": 8, "resolution": "512,512"}
    mini = {**_settings(base, base, draw_data(work / "mini")), "network_args": ["conv_dim=4", "conv_alpha=1", "algo=loha"]}
    mini |= {"network_dim": 8, "train_batch_size": 4, "resolution": "64,64"}
    wide = {
        **tiny_config,
        **BATCHES,
        "pretrained_model_name_or_path": str(_wide_model(work / "wide", 320 if args.full else 64)),
    }
    found = []
    for trainer in [args.only] if args.only else ["builtin", "train_network"]:
        if args.full:
            full = {"train_batch_size": 1, "resolution": "256,256", "save_every_n_steps": 4}
            found.append(Case("SD 1.5's width, 1 of 256x256", trainer, {**wide, **full}))
            continue
        found += [
            Case("tiny", trainer, tiny_config),
            Case("miniature", trainer, mini, {"train_batch_size": 16, "resolution": "96,96"}),
            Case("tiny, 4 of 384x384", trainer, {**tiny_config, **BATCHES}),
            Case("tiny, 8 of 512x512", trainer, largest),
        ]
        if trainer != "builtin":
            found.append(Case("… gradient_checkpointing", trainer, {**largest, "gradient_checkpointing": True}))
        convolutions = {**wide, "network_args": ["conv_dim=4", "algo=lora"], "network_dim": 16, "resolution": "320,320"}
        found.append(Case("twice as wide, 6 of 320x320", trainer, {**convolutions, "train_batch_size": 6}))
    return found


def _wide_model(folder: Path, channels: int) -> Path:
    """The tiny model with a wider U-Net."""
    import tiny

    narrow, tiny.UNET_CHANNELS = tiny.UNET_CHANNELS, (channels, 2 * channels, 4 * channels, 4 * channels)
    try:
        return tiny.make_model(folder)
    finally:
        tiny.UNET_CHANNELS = narrow


def _settings(model: Path, tokens: Path, data: Path) -> dict[str, Any]:
    from tests.world import SETTINGS

    return {
        **SETTINGS,
        "pretrained_model_name_or_path": str(model),
        "tokenizer_cache_dir": str(tokens),
        "train_data_dir": str(data),
        "max_train_steps": 4,
        "save_every_n_steps": 2,
        "save_state": True,
    }


def _config(case: Case, folder: Path) -> Path:
    from lycoris_composite.stages import toml_text

    folder.mkdir()
    tables = {
        "settings": {**case.config, "output_dir": str(folder / "out")},
        "composite": {"trainer": case.trainer, "stage2": case.stage2},
    }
    path = folder / "cg3.toml"
    path.write_text(toml_text(tables), encoding="utf-8")
    return path


def _row(case: Case, config: Path, args: argparse.Namespace) -> list[str]:
    from lycoris_composite.doctor import estimates

    files, memory = estimates(config, args.sd_scripts)
    record, log = config.with_name("record.json"), config.with_name("run.log")
    command = [sys.executable, str(Path(__file__).with_name("recorded.py")), str(record), "--config", str(config), "--cpu"]
    command += ["--sd_scripts", str(args.sd_scripts)] if args.sd_scripts else []
    path = os.pathsep.join(filter(None, [str(bench.ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, check=False, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-4000:]}")
    peak = json.loads(record.read_text(encoding="utf-8"))["peak_rss"]
    written = sum(path.stat().st_size for path in (config.parent / "out").rglob("*") if path.is_file())
    libraries = memory["libraries"]
    whole = sum(memory.values())
    pairs = [(files, written), (whole, peak), (whole - libraries, peak - libraries)]
    return [case.name, case.trainer, *(cell for pair in pairs for cell in _cells(*pair))]


def _cells(estimated: float, measured: float) -> list[str]:
    return [f"{estimated / 1e6:,.1f} MB", f"{measured / 1e6:,.1f} MB", f"{estimated / measured:.2f}"]


if __name__ == "__main__":
    main()
