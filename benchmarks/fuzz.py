"""Gives the launcher configs, captions and images as nobody should write them, and counts what is not refused in one
sentence with exit code 2: a traceback, a hang, a file left behind. The cases are hypothesis's (tests/fuzzing.py).

    python benchmarks/fuzz.py --inputs 2000
    python benchmarks/fuzz.py --inputs 500 --trainer train_network
"""

from __future__ import annotations

import os
import random
import re
import time
import traceback
from collections import Counter
from typing import Any

import bench


def main() -> None:
    parser = bench.parser(__doc__)
    bench.add_checkout(parser)
    parser.add_argument("--inputs", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--trainer", choices=("builtin", "train_network"), default="builtin", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the cases (default: another every time)")
    args = parser.parse_args()
    bench.use_project()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    flags = ("--sd_scripts", str(bench.find_checkout(args.sd_scripts))) if args.trainer == "train_network" else ()
    failures, tried, slowest = Counter[str](), 0, 0.0

    from hypothesis import HealthCheck, Phase, given, seed, settings

    from tests import fuzzing

    @seed(args.seed)
    @settings(
        max_examples=args.inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(fuzzing.cases())
    def try_one(case: fuzzing.Case) -> None:
        nonlocal tried, slowest
        start = time.perf_counter()
        try:
            fuzzing.run(case, args.trainer, flags)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failures[_kind(error)] += 1
            print(f"failure: {_kind(error)}\n  {case}", flush=True)
        slowest = max(slowest, time.perf_counter() - start)
        tried += 1
        if tried % 200 == 0:
            print(f"{tried} inputs tried, {failures.total()} failures", flush=True)

    try_one()
    print(f"\n{bench.machine_line()}, seed {args.seed}")
    row = args.trainer, str(tried), str(failures.total()), f"{slowest:.1f} s"
    bench.print_table(
        "Configs, captions and images as nobody should write them", ("trainer", "inputs", "failures", "slowest"), [row]
    )
    raise SystemExit(bool(failures))


def _kind(error: Any) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = re.sub(r"/tmp/\S+", "…", str(error).splitlines()[0] if str(error) else "")
    return f"{type(error).__name__} in {os.path.basename(place.filename)}:{place.lineno}: {text[:150]}"


if __name__ == "__main__":
    main()
