"""The versions of sd-scripts and LyCORIS that the plugin is verified against."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.kohya.script import FITTING_VERSIONS
from tests.helpers import ROOT
from tests.trainers.kohya.conftest import VERSIONS
from tests.world import World

pytestmark = pytest.mark.versions

CHECK = "import sys, pathlib; from lycoris_composite import launcher; from lycoris_composite.trainers.kohya.script import Upstream; "
CHECK += "sys.exit(launcher.report(lambda: Upstream(pathlib.Path(sys.argv[1]), 'train_network').check('lycoris.kohya')))"


EVERY_TRAINER = """
import inspect, pathlib, sys
from lycoris_composite.trainers.kohya import script as kohya, trainer as kohya_trainer
from train_network import NetworkTrainer
folder = pathlib.Path(sys.argv[1])
for script in sorted(path.stem for path in folder.glob("*train_network.py")):
    upstream = kohya.Upstream(folder, script)
    upstream.check("lycoris.kohya")
    [trainer] = [name for name, value in vars(upstream.module).items() if isinstance(value, type)
                 and value.__module__ == script and issubclass(value, NetworkTrainer)]
    undo = kohya._install_trainer(upstream.module, kohya_trainer.RunHooks())
    composite = getattr(upstream.module, trainer)
    needed = {"vae", "vae_dtype", "accelerator", "args"}
    assert needed <= set(inspect.signature(composite.__mro__[1].process_batch).parameters), script
    kohya._main_block(upstream.module)
    undo()
    assert getattr(upstream.module, trainer) is composite.__mro__[1]
    print("fits:", script)
"""


def test_every_upstream_trainer_takes_composites(world: World, tmp_path: Path) -> None:
    scripts = sorted(path.stem for path in world.sd_scripts.glob("*train_network.py"))
    path = f"{ROOT}{os.pathsep}{world.sd_scripts}"

    run = world.command(tmp_path, "-c", EVERY_TRAINER, str(world.sd_scripts), env={"PYTHONPATH": path})

    assert run.code == 0
    assert [line.removeprefix("fits: ") for line in run.output.splitlines() if line.startswith("fits: ")] == scripts


def test_a_version_before_the_strategies_is_refused_in_one_sentence(world: World, tmp_path: Path, version_of) -> None:
    folder = version_of("v0.9.1")
    check = world.command(tmp_path, "-c", CHECK, str(folder), is_real=True)
    assert check.code == 2
    [sentence] = [line for line in check.output.splitlines() if line.startswith("error: ")]
    assert f"sd-scripts at {checkout.version(folder)}" in sentence
    assert f"known to fit: {FITTING_VERSIONS}" in sentence
    assert "Traceback" not in check.output


# Six steps of single images and of composites, a state after every second one; a step is looked at before it is taken.
SETTINGS = {
    "max_train_steps": 4,
    "save_every_n_steps": 2,
    "save_state": True,
    "lr_scheduler": "cosine",
    "shuffle_caption": True,
}


@pytest.mark.parametrize("ref", [ref for ref in VERSIONS if ref != checkout.DEFAULT_REF])  # that one has all other tests
def test_both_stages_train_and_go_on_after_a_kill_bit_for_bit(world: World, tmp_path: Path, version_of, ref: str) -> None:
    flags = ("--sd_scripts", str(version_of(ref)))
    plain, struck = tmp_path / "plain", tmp_path / "struck"
    for folder in (plain, struck):
        folder.mkdir()

    undisturbed = world.train(plain, *flags, is_real=True, **SETTINGS)
    killed = world.strike(struck, "step", 8, "9", *flags, is_real=True, **SETTINGS)
    again = world.train(struck, *flags, is_real=True, **SETTINGS)

    assert (undisturbed.code, killed.code, again.code) == (0, -signal.SIGKILL, 0)
    assert "stage 2: was interrupted; it goes on after step 2 of 4" in again.output
    for name in ("cg3-stage1", "cg3"):
        first, second = load_file(plain / f"out/{name}.safetensors"), load_file(struck / f"out/{name}.safetensors")
        assert first.keys() == second.keys()
        assert all(first[key].equal(second[key]) for key in first), name


@pytest.mark.parametrize("lycoris", ["3.4.0", "4.0.0", "4.1.3"])
def test_the_guides_config_reaches_its_first_step(world: World, tmp_path: Path, lycoris: str) -> None:
    """examples/cg3.toml with only paths and --cpu given, stopped at the first step that the progress bar counts."""
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
    subprocess.run([*install, f"lycoris-lora=={lycoris}"], check=True)
    command = [
        sys.executable, str(ROOT / "train_composite.py"), "--config", str(ROOT / "examples/cg3.toml"), "--cpu",
        "--sd_scripts", str(world.sd_scripts), "--pretrained_model_name_or_path", str(world.folder / "model"),
        "--tokenizer_cache_dir", str(world.folder / "tokenizer"), "--train_data_dir", str(world.folder / "data"),
        "--output_dir", str(tmp_path / "out"), "--logging_dir", str(tmp_path / "logs"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{packages}:{ROOT}", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seen = []
    try:
        for line in process.stdout:  # the progress bar's carriage returns end lines too
            seen.append(line)
            if "steps:" in line and "avr_loss=" in line:
                break
    finally:
        process.kill()
        process.wait()
    assert "avr_loss=" in "".join(seen[-3:]), "".join(seen[-40:])
