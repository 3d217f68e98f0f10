"""Two stages in one process, against each in a process of its own.

In turn, `--repeats` times: stage 1 alone (`train_composite.py --stage 1`), stage 2 alone (`--stage 2`, on what stage 1
saved), and both in one process. A step's time is that between the ends of two optimizer steps, so the loader is in it;
the first three steps of a stage are dropped. The memory is the process's peak of resident memory.

The model is tiny unless `--model` names another, so nearly all of the memory is Python's and torch's own. On a machine
that has other work to do set OMP_NUM_THREADS=1: torch's threads wait for each other then, and a step takes up to twenty
times as long, at random.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import bench

DROPPED_STEPS = 3
RUNS = {"stage 1 alone": ["--stage", "1"], "stage 2 alone": ["--stage", "2"], "both in one process": []}
CONFIG = """\
[model_arguments]
pretrained_model_name_or_path = {model}
tokenizer_cache_dir = {tokenizer}

[additional_network_arguments]
network_module = "lycoris.kohya"
network_dim = 8
network_alpha = 1
network_args = ["conv_dim=0", "conv_alpha=16", "algo=loha"]

[optimizer_arguments]
optimizer_type = "AdamW"
learning_rate = 0.0005

[dataset_arguments]
train_data_dir = {characters}
resolution = "{resolution},{resolution}"
enable_bucket = true
min_bucket_reso = 64
keep_tokens = 1
shuffle_caption = true
caption_extension = ".txt"
cache_latents = true

[training_arguments]
output_dir = {output}
output_name = "benchmark"
train_batch_size = 4
max_train_steps = {steps}
max_token_length = 225
sdpa = true
max_data_loader_n_workers = 0
seed = 42
clip_skip = 2

[composite.stage2]
train_batch_size = 2
resolution = "{resolution2},{resolution2}"
"""


def main() -> None:
    args = _arguments()
    bench.use_project()
    with bench.scratch(args.work) as work:
        folder = bench.find_checkout(args.sd_scripts, narrow_in=None if args.model else work)
        configs = _prepare(work, args)
        records: dict[str, list[dict]] = {name: [] for name in RUNS}
        for repeat in range(args.repeats):
            for name, flags in RUNS.items():
                print(f"{repeat + 1} of {args.repeats}: {name}", flush=True)
                records[name].append(_run(work, configs[name], ["--fresh", *flags, "--sd_scripts", str(folder), *_cpu(args)]))
        _print(args, records)


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    bench.add_checkout(parser)
    parser.add_argument("--model", metavar="DIR", help="an SD 1.x model, file or folder (default: a tiny random one)")
    parser.add_argument("--repeats", type=int, default=3, help="of all three runs (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="of each stage (default: %(default)s)")
    parser.add_argument("--resolution", type=int, default=128, help="of stage 1 (default: %(default)s)")
    parser.add_argument("--resolution2", type=int, default=192, help="of stage 2 (default: %(default)s)")
    parser.add_argument("--cuda", action="store_true", help="train on the GPU (default: on the CPU)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the files here (default: a temporary folder)")
    return parser.parse_args()


def _cpu(args: argparse.Namespace) -> list[str]:
    return [] if args.cuda else ["--cpu"]


def _prepare(work: Path, args: argparse.Namespace) -> dict[str, Path]:
    """The data, and a config for each run. Stages alone share an output folder, as stage 2 starts from stage 1's."""
    import tiny

    tiny.draw_characters(work / "characters", images=8, size=(args.resolution,) * 2, repeats=2)
    values = {
        "model": str(args.model or tiny.make_model(work / "model")),
        "tokenizer": str(tiny.make_tokenizer_cache(work / "tokenizer")),
        "characters": str(work / "characters"),
    }
    configs = {}
    for name in RUNS:
        output = "alone" if name.endswith("alone") else "both"
        configs[name] = work / f"{output}.toml"
        quoted = {key: json.dumps(value) for key, value in {**values, "output": str(work / output)}.items()}
        text = CONFIG.format(**quoted, steps=args.steps, resolution=args.resolution, resolution2=args.resolution2)
        configs[name].write_text(text, encoding="utf-8")
    return configs


def _run(work: Path, config: Path, flags: list[str]) -> dict:
    """The record of one process."""
    record, log = work / "record.json", work / "run.log"
    command = [sys.executable, str(Path(__file__).with_name("recorded.py")), str(record), "--config", str(config), *flags]
    path = os.pathsep.join(filter(None, [str(bench.ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, check=False, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-4000:]}")
    return json.loads(record.read_text(encoding="utf-8"))


def _step_times(records: list[dict], run: int, clock: int) -> list[list[float]]:
    """Seconds of each step of a run (-1 is the last) in each repeat, by the wall's (0) or the CPU's (1) clock."""
    repeats = []
    for record in records:
        times = [reading[clock] for reading in record["runs"][run]]
        steps = [after - before for before, after in zip(times, times[1:], strict=False)]
        repeats.append(steps[DROPPED_STEPS - 1 :])  # the first step has no difference of its own
    return repeats


def _print(args: argparse.Namespace, records: dict[str, list[dict]]) -> None:
    first, second, both = (records[name] for name in RUNS)
    rows = [
        ["stage 1 alone", *_cells(first, 0), _peak(first)],
        ["stage 2 alone", *_cells(second, 0), _peak(second)],
        ["both in one process: stage 1", *_cells(both, 0), _peak(both)],
        ["both in one process: stage 2", *_cells(both, 1), "(the same)"],
    ]
    model = args.model or "a tiny model"
    title = f"{model}, {args.steps} steps a stage, {args.repeats} repeats: median of all (least to most of the repeats' own)"
    bench.print_table(title, ["", "a step", "a step, CPU time", "peak memory"], rows)
    wall, cpu = (
        bench.median_of(_step_times(both, 1, clock)) / bench.median_of(_step_times(second, 0, clock)) for clock in (0, 1)
    )
    print(f"\nstage 2 after stage 1, against stage 2 alone: {wall:.3f} of the time a step, {cpu:.3f} of the CPU time")
    print(f"\n{bench.machine_line()}")


def _cells(records: list[dict], run: int) -> list[str]:
    cells = []
    for clock in (0, 1):
        repeats = _step_times(records, run, clock)
        cells.append(_with_range(bench.median_of(repeats) * 1e3, [statistics.median(steps) * 1e3 for steps in repeats], "ms"))
    return cells


def _peak(records: list[dict]) -> str:
    peaks = [record["peak_rss"] / 1e6 for record in records]
    return _with_range(statistics.median(peaks), peaks, "MB")


def _with_range(middle: float, values: list[float], unit: str) -> str:
    return f"{middle:,.0f} {unit} ({min(values):,.0f} to {max(values):,.0f})"


if __name__ == "__main__":
    main()
