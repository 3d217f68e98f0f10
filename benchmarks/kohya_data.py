"""Datasets as upstream's trainers make them, from folders in kohya's layout. Import it when sd-scripts is on the path."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import Value
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from library import config_util, strategy_base, strategy_sd, train_util
from PIL import Image

from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.trainers.kohya.dataset import CompositeDataset

Size = tuple[int, int]
SEED = 42
_STRATEGIES = ("TokenizeStrategy", "LatentsCachingStrategy")


@contextmanager
def sd_strategies(tokenizer_cache: Path, vae_batch_size: int = 1) -> Iterator[None]:
    """SD 1.x's strategies, as the trainer sets them: 225 tokens, latents cached in memory."""
    tokenizer = strategy_sd.SdTokenizeStrategy(False, 225, str(tokenizer_cache))
    strategy_base.TokenizeStrategy.set_strategy(tokenizer)
    latents = strategy_sd.SdSdxlLatentsCachingStrategy(True, False, vae_batch_size, False)
    strategy_base.LatentsCachingStrategy.set_strategy(latents)
    try:
        yield
    finally:
        for name in _STRATEGIES:
            getattr(strategy_base, name)._strategy = None  # upstream has no public way to unset one


def composites_of(folders: Sequence[Path], resolution: Size, batch_size: int) -> CompositeDataset:
    """Ours on folders of single images, one character each, with buckets."""
    buckets = {"enable_bucket": True, "min_bucket_reso": min(256, *resolution)}
    options = {**buckets, "composite": asdict(CompositeOptions()), "seed": SEED}
    return _dataset(CompositeDataset, folders, resolution, batch_size, options)


def files_of(folder: Path, size: Size, batch_size: int) -> train_util.DreamBoothDataset:
    """Upstream's own on a folder of images that have this size already."""
    return _dataset(train_util.DreamBoothDataset, [folder], size, batch_size, {})


def _dataset(kind: type, folders: Sequence[Path], resolution: Size, batch_size: int, options: dict) -> Any:
    """The last lines of upstream's `generate_dataset_group_by_blueprint`, for one dataset."""
    subset = config_util.DreamBoothSubsetParams(
        shuffle_caption=True, keep_tokens=1, caption_extension=".txt", caption_separator=",", keep_tokens_separator=None
    )
    subsets = [train_util.DreamBoothSubset(**{**asdict(subset), "image_dir": str(folder)}) for folder in folders]
    params = config_util.DreamBoothDatasetParams(resolution=resolution, batch_size=batch_size)
    dataset = kind(subsets=subsets, is_training_dataset=True, **{**asdict(params), **options})
    dataset.make_buckets()
    dataset.set_seed(SEED)
    dataset.set_current_strategies()
    return dataset


def cache_latents(dataset: Any, vae: Any) -> None:
    """As the trainer does with `cache_latents`, on the CPU."""
    with torch.no_grad():
        dataset.new_cache_latents(vae, Accelerator(cpu=True))


@contextmanager
def untracked() -> Iterator[None]:
    """Hides what there is from the garbage collector, which upstream runs after every VAE pass: about a second each."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def endless(dataset: Any) -> Iterator[dict]:
    """Batches, epoch after epoch, through the trainer's DataLoader, collator and epoch counter, without workers."""
    epoch, step = Value("i", 0), Value("i", 0)
    if isinstance(dataset, CompositeDataset):
        dataset.share_epoch(epoch, len(dataset))
    collator = train_util.collator_class(epoch, step, dataset)
    loader = torch.utils.data.DataLoader(dataset, batch_size=1, shuffle=True, collate_fn=collator, num_workers=0)
    while True:
        epoch.value += 1
        for batch in loader:
            step.value += 1
            yield batch


def join_to_file(pictures: Sequence[str], sizes: Sequence[Size], path: Path) -> None:
    """What is done by hand: each picture scaled to its panel, the panels side by side in one file."""
    joined = Image.new("RGB", (sum(width for width, _ in sizes), sizes[0][1]))
    left = 0
    for picture, size in zip(pictures, sizes, strict=True):
        with Image.open(picture) as image:
            joined.paste(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), (left, 0))
        left += size[0]
    joined.save(path)
