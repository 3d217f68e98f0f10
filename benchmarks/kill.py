"""Kills two-stage runs at random moments, lets the same command finish them, and counts what is lost, torn or different.

A run is killed by SIGKILL one to three times, each time at a moment drawn evenly from what an undisturbed run takes, and
then runs undisturbed to its end. After every kill each file that has its name is read: weights, states, configs, journal.
Sample pictures are passed over: sd-scripts writes them under their names, and the gallery passes over a torn one. At the
end both stages' weights are compared bit by bit with an undisturbed run's, and the batches that were trained with the
plan: each once, but for those since the newest state at a kill ("steps lost"). CPU, one process, no loader workers; the
config saves a state every two steps. With sd-scripts at hand, plain upstream's own resume is shown too.

    python benchmarks/kill.py --kills 70 --trainer builtin
    python benchmarks/kill.py --kills 30 --trainer sd-scripts
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import bench

STEPS = 8
SETTINGS = {
    "max_train_steps": STEPS,
    "save_every_n_steps": 2,
    "save_state": True,
    "sample_every_n_steps": 3,
    "lr_scheduler": "cosine",
    "shuffle_caption": True,
}
MOST_KILLS_A_RUN = 3


@dataclass
class Tally:
    """What was counted over all runs; `faults` has a line for each thing that should not be."""

    kills: int = 0
    runs: int = 0
    resumes: int = 0
    files: int = 0
    lost_steps: int = 0
    torn: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)


def main() -> None:
    parser = bench.parser(__doc__)
    bench.add_checkout(parser)
    parser.add_argument("--kills", type=int, default=30, help="(default: %(default)s)")
    parser.add_argument("--trainer", choices=("sd-scripts", "builtin"), default="builtin", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="a new folder for what is made, to look at afterwards")
    args = parser.parse_args()
    bench.use_project()
    from tests.world import make_world

    rng, tally = random.Random(args.seed), Tally()
    with bench.scratch(args.work) as work:
        checkout = bench.find_checkout(args.sd_scripts, narrow_in=work) if args.trainer == "sd-scripts" else None
        world = make_world(work / "world", checkout)
        start = time.monotonic()
        plain = work / "undisturbed"
        code, output = run(world, plain)
        length = time.monotonic() - start
        if code:
            sys.exit(f"error: the undisturbed run ended with {code}:\n{output[-3000:]}")
        print(f"an undisturbed run takes {length:.0f} s", flush=True)
        while tally.kills < args.kills:
            disturb(world, work / f"run{tally.runs}", plain, length, args.kills, rng, tally)
            print(f"{tally.kills} kills, {tally.runs} runs, {tally.files} files read", flush=True)
        report(args.trainer, tally)
        if checkout is not None:
            plain_upstream(world, work / "plain_upstream")
    if tally.torn or tally.different or tally.repeated or tally.tracebacks:
        sys.exit(1)


def command(world: Any, folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    config = world.write_config(folder, **SETTINGS)
    given = [] if world.sd_scripts is None else ["--sd_scripts", str(world.sd_scripts)]
    script = str(bench.ROOT / "benchmarks/traced.py")
    return [sys.executable, script, str(folder / "trace"), "--config", str(config), *given]


def run(world: Any, folder: Path, kill_after: float | None = None) -> tuple[int, str]:
    """Runs both stages, to the end or to the kill. Its exit code and what it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": str(bench.ROOT)}
    arguments = command(world, folder)
    with open(folder / "log", "a+", encoding="utf-8") as log:
        where = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        log.seek(where)
        return process.returncode, log.read()


def disturb(world: Any, folder: Path, plain: Path, length: float, wanted: int, rng: random.Random, tally: Tally) -> None:
    """One run: killed, read, and at last finished and compared."""
    tally.runs += 1
    for _ in range(rng.randint(1, min(MOST_KILLS_A_RUN, wanted - tally.kills))):
        code, output = run(world, folder, kill_after=rng.uniform(0, length))
        note_traceback(output, folder, tally)
        if code == 0:
            break  # it was done before the kill
        tally.kills += 1
        look_at(folder / "out", tally)
    code, output = run(world, folder)
    note_traceback(output, folder, tally)
    if code:
        tally.different.append(f"{folder.name}: ended with exit code {code}")
        return
    look_at(folder / "out", tally)
    compare(folder, plain, tally)
    count_batches(folder, plain, tally)


def note_traceback(output: str, folder: Path, tally: Tally) -> None:
    tally.resumes += output.count("it goes on after step")
    if "Traceback" in output:
        tally.tracebacks.append(f"{folder.name}: {output[output.index('Traceback') :][-300:]!r}")


def look_at(out: Path, tally: Tally) -> None:
    """Reads every file that has its name, but for samples; what a dead process left aside is hidden, and is none."""
    for path in sorted(out.rglob("*")) if out.is_dir() else []:
        parts = path.relative_to(out).parts
        if not path.is_file() or parts[0] == "sample" or any(part.startswith(".") for part in parts):
            continue
        tally.files += 1
        try:
            read(path)
        except Exception as error:
            tally.torn.append(f"{path.relative_to(out.parent.parent)}: {type(error).__name__} {error}")


def read(path: Path) -> None:
    import toml
    import torch
    from safetensors.torch import load_file

    readers = {
        ".safetensors": load_file,
        ".bin": lambda path: torch.load(path, weights_only=True),
        ".pkl": lambda path: torch.load(path, weights_only=False),  # accelerate's, of this machine
        ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
        ".toml": toml.load,
        ".lock": Path.read_bytes,
    }
    readers[path.suffix](path)


def compare(folder: Path, plain: Path, tally: Tally) -> None:
    from safetensors.torch import load_file

    for name in ("cg3-stage1.safetensors", "cg3.safetensors"):
        found, expected = load_file(folder / "out" / name), load_file(plain / "out" / name)
        if found.keys() != expected.keys() or not all(found[key].equal(expected[key]) for key in found):
            tally.different.append(f"{folder.name}: {name} differs from the undisturbed run's")


def count_batches(folder: Path, plain: Path, tally: Tally) -> None:
    """Compares the batches with the plan's. What a stage trained before a kill counts up to the state it went on from."""
    planned = batches_of(plain)
    for stage, sittings in batches_of(folder).items():
        [(_, expected)] = planned[stage].items()
        done: list[str] = []
        for batches in filter(None, sittings.values()):  # one that was killed before its first batch has trained nothing
            place = expected.index(batches[0])
            if place > len(done):
                tally.different.append(f"{folder.name}: stage {stage} left out {place - len(done)} batches")
            lost = len(done) - place
            tally.lost_steps += max(0, lost)
            if place % SETTINGS["save_every_n_steps"] or lost > SETTINGS["save_every_n_steps"]:
                tally.repeated.append(f"{folder.name}: stage {stage} trained {lost} steps again, from step {place}")
            done = done[:place] + batches
        if done != expected:
            tally.different.append(f"{folder.name}: stage {stage} trained {len(done)} batches, not the plan's {len(expected)}")


def batches_of(folder: Path) -> dict[str, dict[int, list[str]]]:
    """Each stage's batches in order, by the start of the program that trained them."""
    found: dict[str, dict[int, list[str]]] = {}
    start, stage = 0, ""
    for line in (folder / "trace").read_text().splitlines():
        if line == "start":
            start += 1
        elif line.startswith("stage"):
            stage = line.split()[1]
            found.setdefault(stage, {})[start] = []
        else:
            found[stage][start].append(line)
    return found


# Plain upstream, with a line for each batch that it trains on.
PLAIN_UPSTREAM = """
import runpy, sys
sys.path.insert(0, {checkout!r})
from library.train_util import LossRecorder
add = LossRecorder.add
LossRecorder.add = lambda self, **step: (print("trained a batch"), add(self, **step))
runpy.run_path({checkout!r} + "/train_network.py", run_name="__main__")
"""


def plain_upstream(world: Any, folder: Path) -> None:
    """Upstream alone, with its own LoRA: an undisturbed run, and runs that go on from its state of step 4."""
    folder.mkdir()
    script = folder / "plain_upstream.py"
    script.write_text(PLAIN_UPSTREAM.format(checkout=str(world.sd_scripts)))
    _, expected = train_plainly(world, script, folder / "undisturbed")
    state = str(folder / "undisturbed/cg3-step00000004-state")
    rows = []
    for flags in (["--resume", state], ["--resume", state, "--skip_until_initial_step"]):
        batches, weights = train_plainly(world, script, folder / f"resumed{len(flags)}", *flags)
        equal = all(weights[key].equal(expected[key]) for key in expected)
        rows.append((" ".join(flags).replace(state, "STATE"), str(batches), str(STEPS - 4), "yes" if equal else "no"))
    header = "plain train_network.py", "steps trained", "steps left", "weights as undisturbed"
    bench.print_table(f"Plain upstream, going on after step 4 of {STEPS}", header, rows)


def train_plainly(world: Any, script: Path, folder: Path, *flags: str) -> tuple[int, dict]:
    """How many batches it trained on, and its weights."""
    import toml
    from safetensors.torch import load_file

    own = {**world.config, **SETTINGS, "network_module": "networks.lora", "network_args": [], "output_dir": str(folder)}
    folder.mkdir()
    config = folder / "plain.toml"
    config.write_text(toml.dumps({"settings": own}))
    with redirect_stdout(StringIO()):  # a test's world shows what it ran
        done = world.command(folder, str(script), "--config_file", str(config), *flags)
    if done.code:
        sys.exit(f"error: plain upstream ended with {done.code}:\n{done.output[-3000:]}")
    return done.output.count("trained a batch"), load_file(folder / "cg3.safetensors")


def report(trainer: str, tally: Tally) -> None:
    faults = tally.torn, tally.different, tally.repeated, tally.tracebacks
    header = "trainer", "kills", "runs", "resumes", "files read", "steps lost", "torn", "different", "repeated", "tracebacks"
    counts = tally.kills, tally.runs, tally.resumes, tally.files, tally.lost_steps, *map(len, faults)
    print(f"\n{bench.machine_line()}")
    bench.print_table("Killed at random moments", header, [(trainer, *map(str, counts))])
    lost = len(tally.different) + len(tally.repeated)  # more than the steps since a state
    print(f"\n{lost} lost, {len(tally.torn)} torn, {len(tally.tracebacks)} tracebacks")
    for fault in chain(*faults):
        print(f"fault: {fault}")


if __name__ == "__main__":
    main()
