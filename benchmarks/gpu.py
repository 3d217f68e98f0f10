"""Seconds a step, images a second and memory on a GPU: plain upstream beside both stages, on random models of real size.

    python benchmarks/gpu.py --sd_scripts sd-scripts --out output/gpu
    python benchmarks/gpu.py --out output/gpu --print

It needs no network, and nothing of this project installed: SD 1.5 (2 GB on disk), SDXL (7 GB), Anima (6 GB) and Flux
(34 GB by its shapes, and a GPU of 80 GB; not tried) are made on the machine, with random weights. Every row is a process
of its own with a limit of time, and is a line in OUT/rows.jsonl as soon as it is measured: the same command goes on where
it was cut.

    rows          plain: upstream's own script. stage1, stage2: train_composite.py, with the guide's settings and sizes;
                  stage2-area1: stage 2 with stage 1's batch and area. doctor: what it says of the config. kill: a stage 2
                  is killed after a saved state and goes on; its weights against an undisturbed run's, bit by bit.
    a step        median of all but the first ones, between the ends of two steps, so the loader is in it
    to prepare    from the start of the process to the training loop: imports, loading, encoding 30 pictures
    memory        the most that torch allocated / reserved; "-" where there is no GPU

A machine needs Python, torch with CUDA and torchvision, an sd-scripts clone (a folder, 8 MB), this repository, and what
benchmarks/gpu_requirements.txt lists, with the versions. Imported are, here or by sd-scripts:

    accelerate diffusers transformers tokenizers huggingface-hub safetensors lycoris-lora einops toml voluptuous imagesize
    sentencepiece rich, open-clip-torch for CLIP's merges; bitsandbytes and xformers where they are there; and what stands
    last in the file, which machines with torch often have: numpy pillow opencv-python-headless regex requests jinja2 ...

Packed where there is a network, for the other machine's Python (here 3.12, x86-64):

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
        --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \\
        --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d wheels -r benchmarks/gpu_requirements.txt

Unpacked there: `pip install --no-deps --no-index --find-links wheels -r benchmarks/gpu_requirements.txt`, or with
`--target DIR` and PYTHONPATH=DIR. All wheels are 151 MB, the first part of the file 22 MB, and bitsandbytes 43 MB, of
which one CUDA's takes 4: `zip -d wheels/bitsandbytes-*.whl '*cuda11*' '*cuda12*' '*rocm*'` leaves CUDA 13.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bench
import gpu_parts
import gpu_table
from gpu_rows import MODELS, PARTS, TINY, Row, Setup, default_setups, rows_of

ROWS = "rows.jsonl"
LEAST_SECONDS = 20  # with less left, no row is begun


def main() -> None:
    args = _arguments()
    bench.use_project()
    file = args.out / ROWS
    if not args.print:
        _measure_all(args, file)
    gpu_table.print_tables(read_rows(file))


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    bench.add_checkout(parser)
    add = parser.add_argument
    add("--out", type=Path, default=bench.ROOT / "output/gpu", help="where rows.jsonl is (default: output/gpu)")
    add("--work", type=Path, help="where models and runs go, up to 50 GB (default: OUT/work)")
    add("--only", type=_names(MODELS), metavar="MODELS", help=f"of {','.join(MODELS)} (default: all)")
    add("--rows", type=_names(PARTS), metavar="ROWS", help=f"of {','.join(PARTS)} (default: what suits the model)")
    add("--setup", action="append", type=Setup.read, metavar="SETUP", help="in place of the default ones: sd15/sdpa/AdamW/fp16")
    add("--steps", type=int, choices=range(2, 1001), metavar="N", help="of each run (default: the model's, 10 to 30)")
    add("--row_limit", type=float, default=300, metavar="SECONDS", help="of one process (default: %(default)s)")
    add("--minutes", type=float, metavar="M", help="end in time, before the machine is cut off; what is left stays to do")
    add("--retry", action="store_true", help="measure rows again that have failed")
    add("--shrink", type=int, default=1, metavar="N", help="divide resolutions by N, to try real models on a small machine")
    add("--tiny", action="store_true", help="the tests' tiny SD 1.x, on a CPU: shows that all works")
    add("--print", action="store_true", help="measure nothing; print what OUT has")
    return parser.parse_args()


def _names(known: object) -> object:
    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(known)}")
        return found

    return names


def _wanted(args: argparse.Namespace) -> Iterator[Row]:
    lines: list[str] = []
    if args.setup:
        setups = args.setup
    elif args.tiny:
        setups = TINY
    else:
        setups, lines = default_setups()
    for line in lines:
        print(line, flush=True)
    return rows_of([setup for setup in setups if setup.model in (args.only or MODELS)], args.rows)


def read_rows(file: Path) -> list[dict]:
    """The measured rows, the newest of each name. What a cut has left of a line is passed over."""
    rows: dict[str, dict] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows.pop(row["row"], None)
        rows[row["row"]] = row
    return list(rows.values())


def append(file: Path, row: dict) -> None:
    """A line of its own, also after one that a cut has left without its end."""
    is_torn = file.is_file() and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as rows:
        rows.write(f"{chr(10) if is_torn else ''}{json.dumps(row)}\n")


def _measure_all(args: argparse.Namespace, file: Path) -> None:
    end = time.monotonic() + args.minutes * 60 if args.minutes else None
    file.parent.mkdir(parents=True, exist_ok=True)
    work = (args.work or args.out / "work").resolve()
    work.mkdir(parents=True, exist_ok=True)
    wanted = list(_wanted(args))
    done = {row["row"] for row in read_rows(file) if not (args.retry and row["failed"])}
    left = [row for row in wanted if row.name not in done]
    print(f"{len(wanted)} rows, {len(left)} to do", flush=True)
    place = gpu_parts.Place(
        work, bench.find_checkout(args.sd_scripts, narrow_in=work if args.tiny else None), run,
        args.tiny, args.shrink, args.steps, args.row_limit, end,
    )  # fmt: skip
    for number, row in enumerate(left, 1):
        if place.seconds_left() < LEAST_SECONDS:
            print("the time is over; the same command goes on here", flush=True)
            return
        print(f"{number} of {len(left)}: {row.name}", end="", flush=True)
        result = gpu_parts.measure(place, row)
        if result is None:
            print(": cut off; the same command measures it again", flush=True)
            return
        append(file, {"row": row.name, "setup": str(row.setup), "part": row.part, **result})
        print(f": {gpu_table.what_happened(result)}", flush=True)


def run(arguments: list[str], log: Path, limit: float) -> int | None:
    """A process of this Python, its output in `log`. Its exit code, or None where the limit ended it."""
    path = os.pathsep.join(filter(None, [str(bench.ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "COLUMNS": "200"}
    with log.open("w", encoding="utf-8") as output:
        try:
            command = [sys.executable, *arguments]
            return subprocess.run(command, env=environment, stdout=output, stderr=output, timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            return None


if __name__ == "__main__":
    main()
