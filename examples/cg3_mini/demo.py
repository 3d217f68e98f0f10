"""The main job on a machine that has nothing: `python examples/cg3_mini/demo.py`.

Trains three drawn characters, first alone and then as composites, asks for two of them at once before and after, and
leaves a picture and a table in output/cg3_mini. sd-scripts trains where it is found or can be cloned, else the
embedded trainer.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import experiment
import pictures
import sheet

from lycoris_composite.errors import UserError
from lycoris_composite.trainers.kohya import checkout

SEED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/cg3_mini"), help="(default: %(default)s)")
    parser.add_argument("--trainer", choices=("train_network", "builtin"), help="(default: sd-scripts if it can be had)")
    parser.add_argument("--count", type=int, default=48, help="pictures asked for and scored, each way (default: %(default)s)")
    args = parser.parse_args()
    start = time.monotonic()
    trainer = args.trainer or _trainer()
    say = lambda text: print(f"\n== {text} ({time.monotonic() - start:.0f} s)", flush=True)  # noqa: E731
    say("training both stages")
    # samples and losses for `lycoris-composite gallery`; the embedded trainer logs none
    flags = ["--sample_every_n_epochs", "16", "--sample_prompts", str(_prompts(args.output))]
    flags += ["--logging_dir", str(args.output / "logs")] if trainer == "train_network" else []
    first, second = experiment.train(args.output, trainer, flags=flags)
    wanted = experiment.requests(args.count, SEED)
    plain = experiment.requests(args.count, SEED, marked=False)
    shown, rows = {}, {}
    for name, lora, requests in (
        ("before: stage 1 alone", first, wanted),
        ("after: stage 2", second, wanted),
        ("after, COMPOSITE unwanted", second, plain),
    ):
        say(f"drawing {len(requests)} pictures, {name}")
        drawn = experiment.draw(lora, requests, SEED)
        shown[name], rows[name] = (drawn, requests), experiment.tally(drawn, requests)
    picture = sheet.save(args.output, shown)
    print(f"\n{experiment.table(rows)}\n")
    say(f"done with {'the embedded trainer' if trainer == 'builtin' else 'sd-scripts'}; open {picture}")


def _prompts(folder: Path) -> Path:
    """A few prompts in few steps, so that samples cost less than a minute of the demo."""
    settings = {"width": 128, "height": 64, "sample_steps": 12, "scale": pictures.GUIDANCE, "seed": SEED}
    asked = [*experiment.requests(6, SEED)[::2], experiment.requests(1, SEED, marked=False)[0]]
    prompts = [{"prompt": one.prompt, "negative_prompt": one.negative, **settings} for one in asked]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prompts.json"
    path.write_text(json.dumps(prompts, indent=1), encoding="utf-8")
    return path


def _trainer() -> str:
    """sd-scripts where a checkout is found or can be made, else the embedded trainer; and says which."""
    try:
        print(f"trainer: sd-scripts in {checkout.find(None)}")
        return "train_network"
    except UserError as error:
        print(f"no sd-scripts yet: {error}")
    try:
        for line in checkout.setup(checkout.PUBLIC_URL, checkout.DEFAULT_REF, checkout.default_folder()):
            print(line)
        return "train_network"
    except UserError as error:
        print(f"trainer: the embedded one, because sd-scripts cannot be had ({error})")
        return "builtin"


if __name__ == "__main__":
    main()
