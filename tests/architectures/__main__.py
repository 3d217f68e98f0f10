"""Makes what it takes to train an architecture by hand: `python -m tests.architectures FOLDER NAME [SD_SCRIPTS]`.

Prints the command that trains it. What is in FOLDER already is used again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lycoris_composite.trainers.kohya import checkout
from tests.architectures import configs, models
from tests.architectures.narrow import narrow_everything
from tests.helpers import ROOT


def main() -> None:
    folder, name = Path(sys.argv[1]).resolve(), sys.argv[2]
    sd_scripts = folder / "sd-scripts"
    if not sd_scripts.is_dir():
        narrow_everything(checkout.find(*sys.argv[3:]), sd_scripts)
    if not (folder / name / "files.json").is_file():
        environment = {**os.environ, "HF_HOME": str(models.hf_home(folder)), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", models.__name__, str(sd_scripts), str(folder), name]
        subprocess.run(command, env=environment, check=True)
    world = configs.make_world(folder, name, sd_scripts)
    variables = " ".join(f"{key}={value}" for key, value in world.environment.items())
    launch = f"accelerate launch {ROOT / 'train_composite.py'}"
    sys.stdout.write(f"{variables} {launch} --config {world.write_config(world.folder)} --sd_scripts {sd_scripts}\n")


if __name__ == "__main__":
    main()
