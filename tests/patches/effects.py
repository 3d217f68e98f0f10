"""What each patch changes in what upstream does: `python effects.py SD_SCRIPTS_DIR WORLD_DIR`, with a world of tests/world.py.

Every probe lets upstream's own callers do something small, in a process forked from one that has imported everything:
once with the patch, once without it. Prints a line of JSON for each: the patch's name, and what the probe saw both times.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from PIL import Image

COMPOSITE = {"join": "latent"}
PROBES: dict[str, Callable[[Probing], Any]] = {}


class Reached(Exception):
    """Upstream came as far as a probe wants it to."""


class Probing:
    """What a probe works with: the world, a folder of its own, and what the patch is handed."""

    def __init__(self, world: Path, upstream: Any) -> None:
        self.world, self.upstream = world, upstream
        self.folder = Path(mkdtemp(dir=world))

    def args(self, **settings: Any) -> argparse.Namespace:
        """Upstream's arguments for the world's data."""
        from library import train_util

        from tests.world import SETTINGS

        model, tokenizer, data = (str(self.world / name) for name in ("model", "tokenizer", "data"))
        own = {"pretrained_model_name_or_path": model, "tokenizer_cache_dir": tokenizer, "train_data_dir": data}
        values = {**SETTINGS, **own, "max_train_steps": 1, "output_dir": str(self.folder), **settings}
        args = self.upstream.parser().parse_args([], argparse.Namespace(**values))
        train_util.verify_training_args(args)
        return args

    def datasets(self, folder: Path | None = None, dataset: dict | None = None, subset: dict | None = None) -> Any:
        """Upstream's dataset group, read from a user's config."""
        from library import config_util, train_util

        folder = folder or self.world / "data" / "1_rin"
        subsets = [{"image_dir": str(path), "num_repeats": 1, **(subset or {})} for path in (folder, self.world / "data/1_mio")]
        config = {"datasets": [{"resolution": 128, "batch_size": 1, "keep_tokens": 1, **(dataset or {}), "subsets": subsets}]}
        general = {
            "general": {"caption_extension": ".txt", "enable_bucket": True, "min_bucket_reso": 64, "max_bucket_reso": 128}
        }
        sanitizer = config_util.ConfigSanitizer(True, True, False, True)
        args = self.args()
        train_util.prepare_dataset_args(args, True)
        blueprint = config_util.BlueprintGenerator(sanitizer).generate({**general, **config}, args)
        made = config_util.generate_dataset_group_by_blueprint(blueprint.dataset_group)
        return made[0] if isinstance(made, tuple) else made


def probe(function: Callable[[Probing], Any]) -> Callable[[Probing], Any]:
    PROBES[function.__name__] = function
    return function


@probe
def strategies(use: Probing) -> Any:
    """Whether a second stage can set its strategy."""
    from library.strategy_base import TextEncodingStrategy

    TextEncodingStrategy.set_strategy(TextEncodingStrategy())
    return True


@probe
def dreambooth_dataset(use: Probing) -> Any:
    return type(use.datasets(dataset={"composite": COMPOSITE}).datasets[0]).__name__ == "CompositeDataset"


@probe
def dreambooth_subset(use: Probing) -> Any:
    return use.datasets(subset={"trigger": "rin"}).datasets[0].subsets[0].trigger == "rin"


@probe
def collator_class(use: Probing) -> Any:
    """Whether the counters are known when the trainer comes to its model."""

    class Trainer(use.upstream.module.NetworkTrainer):
        def load_target_model(self, *args: Any) -> Any:
            raise Reached

    try:
        Trainer().train(use.args())
    except Reached:
        return use.hooks._epoch_counter is not None
    return None


def lying_picture(use: Probing) -> Path:
    """A folder with one picture that stands upright by its EXIF alone: 64 wide and 128 high, red above and blue below."""
    folder = use.folder / "exif"
    folder.mkdir()
    image = Image.new("RGB", (128, 64), (255, 0, 0))
    image.paste((0, 0, 255), (64, 0, 128, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "01.png", exif=exif)
    (folder / "01.txt").write_text("rin, hat")
    return folder


@probe
def load_image(use: Probing) -> Any:
    """Whether a batch's picture, a cache's picture and its size are upright."""
    from library.strategy_base import LatentsCachingStrategy

    dataset = use.datasets(lying_picture(use)).datasets[0]
    [info] = [one for one in dataset.image_data.values() if "exif" in one.absolute_path]
    size = dataset.get_image_size(info.absolute_path)
    batch, *_ = dataset.load_image_with_face_info(dataset.subsets[0], info.absolute_path)
    cached: list[Any] = []
    info.image_size, info.bucket_reso, info.resized_size = size, (64, 128), (64, 128)
    strategy = object.__new__(LatentsCachingStrategy)
    strategy._cache_to_disk = strategy._skip_disk_cache_validity_check = False

    def encode(pictures: torch.Tensor) -> Any:
        cached.append(pictures)
        raise Reached

    with suppress(Reached):
        strategy._default_cache_batch_latents(encode, "cpu", torch.float32, [info], False, False, False)
    # upright, its upper half is red: the red channel is full there and empty below
    red = cached[0][0, 0]
    return size == (64, 128) and batch.shape == (128, 64, 3) and bool(red[10].mean() > 0.9 > -0.9 > red[-10].mean())


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@probe
def checkpoint_loading(use: Probing) -> Any:
    from library import model_util

    torch.save({"state_dict": {}, "evil": Hostile(use.folder / "evil")}, use.folder / "model.ckpt")
    try:
        model_util.load_checkpoint_with_text_encoder_conversion(str(use.folder / "model.ckpt"))
    except Exception as error:
        print(repr(error), file=sys.stderr)
    return not (use.folder / "evil").exists()


def one_process_group() -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


@probe
def accelerate_process_group(use: Probing) -> Any:
    """Whether the group is still there after the trainer's end."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    one_process_group()
    accelerator.end_training()
    return torch.distributed.is_initialized()


@probe
def accelerate_frozen_model(use: Probing) -> Any:
    """Whether several CPU processes can be prepared for a frozen model."""
    from accelerate import Accelerator, DistributedType

    accelerator = Accelerator(cpu=True)
    one_process_group()
    accelerator.state.distributed_type = DistributedType.MULTI_CPU
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    return accelerator.prepare(frozen) is frozen


def killed(*_: Any, **__: Any) -> Any:
    """A process that ends in the middle of a write."""
    os._exit(0)


@probe
def accelerate_save_state(use: Probing) -> Any:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    accelerator.register_save_state_pre_hook(killed)
    accelerator.save_state(str(use.folder / "killed"))


@probe
def numpy_savez(use: Probing) -> Any:
    from library.strategy_base import LatentsCachingStrategy

    np.lib.format.write_array = killed
    np.lib._npyio_impl.format.write_array = killed
    strategy = object.__new__(LatentsCachingStrategy)
    strategy.save_latents_to_disk(str(use.folder / "killed.npz"), torch.zeros(4, 8, 8), (64, 64), (0, 0, 64, 64), None, None)


@probe
def glob_images(use: Probing) -> Any:
    """Whether a picture that is to be skipped is in no dataset."""
    dataset = use.datasets().datasets[0]
    return not any(path.endswith("1_rin/01.png") for path in dataset.image_data)


@probe
def random_sampler(use: Probing) -> Any:
    loader = torch.utils.data.DataLoader(list(range(8)), batch_size=1, shuffle=True)
    torch.manual_seed(0)
    return [int(one) for one in loader] == list(range(8))


@probe
def training_loop_start(use: Probing) -> Any:
    """Whether the trainer asks where its loop begins, before the first batch."""

    class Trainer(use.upstream.module.NetworkTrainer):
        asked = False

        def begin_loop(self, args: Any, progress_bar: Any, batches: int, *place: int) -> tuple[int, ...]:
            self.asked = batches > 0 and progress_bar.n == 0
            return place

        def process_batch(self, *args: Any, **named: Any) -> Any:
            raise Reached

    trainer = Trainer()
    try:
        trainer.train(use.args(cache_latents=False))
    except Reached:
        return trainer.asked
    return None


@probe
def lycoris_timestep_embedding(use: Probing) -> Any:
    from lycoris.kohya import create_network

    from lycoris_composite.architectures import DEFAULT_TRAINER, architecture_of
    from lycoris_composite.trainers.stand_in import text_encoders_and_unet

    text_encoder, unet = text_encoders_and_unet(architecture_of(DEFAULT_TRAINER))
    type(unet.time_embedding).__name__ = "TimestepEmbedding"
    network = create_network(1.0, 4, 1, None, text_encoder, unet, algo="loha")
    return any(lora.lora_name == "lora_unet_time_embedding_linear_1" for lora in network.unet_loras)


# What has to be there before a probe can be made, whether its own patch is or not.
NEEDS = {"training_loop_start": ("lycoris_timestep_embedding",)}
KILLED = {"accelerate_save_state": "killed", "numpy_savez": "killed.npz"}


def run(name: str, is_patched: bool, use: Probing) -> Any:
    """A probe's answer, in a process of its own, or what it raised. Of one that is killed the answer is whether it left
    nothing torn."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = _probed(name, is_patched, use)
        except BaseException as error:
            traceback.print_exc()
            answer = f"{type(error).__name__}: {error}"[:300]  # a pipe holds no more than some kilobytes
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        text = answers.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else not (use.folder / KILLED[name]).exists()


def _probed(name: str, is_patched: bool, use: Probing) -> Any:
    from library.strategy_base import TextEncodingStrategy

    from lycoris_composite.run.signals import StopRequest
    from lycoris_composite.run.states import Attempt
    from lycoris_composite.trainers.kohya import script as kohya
    from lycoris_composite.trainers.kohya.trainer import RunHooks
    from sd_scripts_patches.tools import why_misfit

    skipped = frozenset({os.path.normpath(use.world / "data/1_rin/01.png")})
    use.hooks = RunHooks(Attempt("run", 1, use.folder / "out.safetensors", StopRequest(), skipped=skipped))
    if name == "strategies":
        TextEncodingStrategy.set_strategy(TextEncodingStrategy())  # the first stage's
    if name == "random_sampler":
        use.hooks.order = range
    with ExitStack() as undo:
        for one in (*NEEDS.get(name, ()), *([name] if is_patched else [])):
            assert why_misfit(one) is None
            undo.callback(kohya._apply(one, use.hooks))
        return PROBES[name](use)


def main() -> None:
    folder, world = (Path(argument).resolve() for argument in sys.argv[1:])
    from lycoris_composite.trainers.kohya.script import Upstream, _patch_names

    upstream = Upstream(folder, "train_network")
    sys.path.append(str(folder))
    for name in _patch_names("lycoris.kohya"):
        seen = {patched: run(name, patched, Probing(world, copy.copy(upstream))) for patched in (True, False)}
        print("effect:", json.dumps([name, seen[True], seen[False]]), flush=True)


if __name__ == "__main__":
    main()
