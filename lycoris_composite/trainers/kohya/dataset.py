"""CompositeDataset: the plan's composites behind upstream's `DreamBoothDataset`.

Upstream builds the batch: for each one it is shown a view of this dataset that holds just the batch's composites as
images of one bucket, with latents joined or an image to load. So its keys, tokenizing, masks and weights are its own.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import random
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import chain, groupby, islice, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from library import train_util
from library.strategy_base import (
    LatentsCachingStrategy,
    TextEncoderOutputsCachingStrategy,
    TextEncodingStrategy,
    TokenizeStrategy,
)
from library.strategy_sd import SdSdxlLatentsCachingStrategy
from library.train_util import BucketBatchIndex, BucketManager, DreamBoothDataset, ImageInfo
from tqdm import tqdm

from lycoris_composite.composites.captions import Budget, Progress, holds_captions
from lycoris_composite.composites.groups import PANELS
from lycoris_composite.composites.join import join_panels
from lycoris_composite.composites.plan import Composite, CompositeOptions, Panel, Plan
from lycoris_composite.data import images
from lycoris_composite.data.buckets import Canvas, Size
from lycoris_composite.data.characters import Subset, TrainingImage, characters_of
from lycoris_composite.data.tags import CaptionRules
from lycoris_composite.randomness import generator
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.tokenizers import strategy_budget
from sd_scripts_patches.tools import replace

logger = logging.getLogger(__name__)
# Ends the names of our cache files. Not upstream's suffix: it reads image sizes from the names that end in that.
CACHE_SUFFIX = "_composite.npz"
_DEFAULT_MULTIPLE = 64  # upstream forgets bucket_reso_steps where enable_bucket is off; this is its default


class SwitchedDataset(DreamBoothDataset):
    """What stands in for `config_util.DreamBoothDataset`: upstream's own, or composites where the table asks for them."""

    def __new__(cls, *args: Any, composite: dict | None = None, **kwargs: Any) -> SwitchedDataset:
        return object.__new__(CompositeDataset if composite else cls)

    def __init__(self, *args: Any, composite: dict | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.draw_seed = seed or 0
        self._training_epoch: Any = None
        self._steps_an_epoch = 0
        self._unshuffled: tuple[list, list] | None = None

    def share_epoch(self, epoch: Any, steps_an_epoch: int) -> None:
        """Takes upstream's shared epoch counter, and makes each batch a function of (seed, epoch, index).

        Upstream's collator tells the epoch only after a batch was fetched, so the first one would still be of the epoch
        before; and it draws captions and crops from the global generator, which a resumed run finds in another state.
        """
        self._training_epoch, self._steps_an_epoch = epoch, steps_an_epoch
        self.set_seed(self.draw_seed)  # upstream draws one from the global generator

    @property
    def epoch(self) -> int:
        """The epoch that is being trained, from 1."""
        shared = self._training_epoch
        return max(1, self.current_epoch if shared is None else shared.value)

    def step_of(self, index: int) -> int:
        """The step that takes batch `index`, as if an epoch took its batches in order: what `token_warmup_step`
        counts. The step that upstream tells lags behind by what the loader has fetched ahead."""
        if self._training_epoch is None:
            return self.current_step
        return (self.epoch - 1) * self._steps_an_epoch + index * self._steps_an_epoch // len(self)

    def set_current_epoch(self, epoch: int) -> None:
        if self._training_epoch is None:
            super().set_current_epoch(epoch)
        elif epoch != self.current_epoch:
            self.current_epoch = epoch
            self.shuffle_buckets()

    def shuffle_buckets(self) -> None:
        """Upstream shuffles the last epoch's order, and the first epoch's is that of a folder's listing. In pure runs every
        epoch shuffles the sorted images."""
        if self._training_epoch is None:
            return super().shuffle_buckets()
        if self._unshuffled is None:
            self._unshuffled = self.buckets_indices, [sorted(bucket) for bucket in self.bucket_manager.buckets]
        batches, buckets = self._unshuffled
        self.buckets_indices, self.bucket_manager.buckets = list(batches), [list(bucket) for bucket in buckets]
        with _drawing_from(generator(self.draw_seed, self.current_epoch, 0, "buckets")):  # which it seeds anew
            super().shuffle_buckets()

    def new_cache_latents(self, model: Any, accelerator: Any) -> None:
        with self._caching(accelerator):
            super().new_cache_latents(model, accelerator)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._training_epoch is None:
            return super().__getitem__(index)
        with _drawing_from(generator(self.draw_seed, self.epoch, index, "single")):
            self.set_current_epoch(self.epoch)
            self.current_step = self.step_of(index)
            return super().__getitem__(index)

    def random_mask(self, size: Size) -> Any:
        """A mask for inpainting, which upstream draws from the machine's entropy; in pure runs from the batch's draws."""
        if self._training_epoch is None:
            return super().random_mask(size)
        from library.mask_generator import random_mask  # since v0.10.4

        return random_mask(*size, seed=random.getrandbits(32))

    def new_cache_text_encoder_outputs(self, models: Any, accelerator: Any) -> None:
        """Upstream's of HunyuanImage hold a bare `numpy.bool`, of which it cannot make a tensor again (seen in v0.11.1)."""
        with _mending(TextEncoderOutputsCachingStrategy.get_strategy(), "is_disk_cached_outputs_expected"):
            super().new_cache_text_encoder_outputs(models, accelerator)
        for info in self.image_data.values():
            info.text_encoder_outputs = info.text_encoder_outputs and _as_arrays(info.text_encoder_outputs)

    @contextmanager
    def _caching(self, accelerator: Any) -> Iterator[Any]:
        """Upstream's caching strategy, changed. A cache file counts as missing where it is torn, holds another size, or lacks
        what is asked for. In pure runs the VAE's noise depends only on the images that are encoded together, and what
        training draws does not depend on that noise."""
        strategy = LatentsCachingStrategy.get_strategy()
        cache, is_cached = strategy.cache_batch_latents, strategy.is_disk_cached_latents_expected

        def cache_purely(model: Any, infos: Sequence[ImageInfo], *args: Any) -> None:
            names = [f"{os.path.basename(info.image_key)} {info.bucket_reso}" for info in infos]
            torch.manual_seed(generator(self.draw_seed, 0, 0, f"encode {names}").getrandbits(63))
            cache(model, infos, *args)

        def is_whole(size: Size, path: str, flip_aug: bool, alpha_mask: bool) -> bool:
            asked = size, path, flip_aug, alpha_mask
            return is_cached(*asked) and (strategy.skip_disk_cache_validity_check or _holds(strategy, *asked))

        with ExitStack() as undo:
            undo.enter_context(_mending(strategy, "is_disk_cached_latents_expected", is_whole))
            if self._training_epoch is not None:
                devices = [accelerator.device] if accelerator.device.type == "cuda" else []
                undo.enter_context(torch.random.fork_rng(devices))
                undo.callback(replace(strategy, "cache_batch_latents", cache_purely))
            yield strategy


@contextmanager
def _mending(strategy: Any, name: str, is_there: Callable[..., bool] | None = None) -> Iterator[None]:
    """A cache file counts as missing where the strategy's method `name`, or what takes its place, cannot read it."""
    is_there = is_there or getattr(strategy, name)

    def is_whole(*args: Any) -> bool:
        try:
            return is_there(*args)
        except Exception:  # a torn file, which upstream left when it was killed
            os.remove(next(arg for arg in args if isinstance(arg, str)))
            return False

    with ExitStack() as undo:
        undo.callback(replace(strategy, name, is_whole))
        yield


def _holds(strategy: Any, size: Size, path: str, flip_aug: bool, alpha_mask: bool) -> bool:
    """Whether a cache file holds all that would be loaded, in this size. Until v0.10.2 a file of SD or SDXL had one size
    and no key said which; every version takes it for any size. Upstream also accepts parts of different sizes."""
    latents, _, _, flipped, mask = strategy.load_latents_from_disk(path, size)
    if isinstance(strategy, SdSdxlLatentsCachingStrategy) and latents.shape[-2:] != (size[1] // 8, size[0] // 8):
        return False
    has_flipped = flipped is not None and flipped.shape == latents.shape
    has_mask = mask is not None and mask.shape == size[::-1]
    return (has_flipped or not flip_aug) and (has_mask or not alpha_mask)


class PlannedInfo(ImageInfo):
    """A panel or a composite of the plan, as upstream sees an image."""

    def __init__(self, key: str, source: Panel | Composite, alpha_mask: bool, flip_aug: bool = False) -> None:
        super().__init__(key, 1, "", False, key)
        self.source = source
        self.image_size = self.bucket_reso = self.resized_size = source.size
        self.alpha_masked, self.flip_aug = alpha_mask, flip_aug


class CompositeDataset(SwitchedDataset):
    """Composites of the subsets' images. `composite` holds CompositeOptions' fields, `seed` is the run's."""

    def __init__(self, *args: Any, composite: dict, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, seed=seed, **kwargs)
        self.options = CompositeOptions(**composite)
        self.plan: Plan | None = None
        # What is encoded ahead: panels by (path, size) where they are joined as latents, else composites by (epoch, index).
        self._encoded: dict[tuple, PlannedInfo] = {}
        self._encoded_captions: dict[tuple[int, int], PlannedInfo] = {}  # by (epoch, index)
        # Every image's subset: a view's `image_to_subset` holds the batch's composites instead.
        self._panel_subsets = self.image_to_subset
        self._batch: dict[str, Composite] = {}

    # -- before training ------------------------------------------------------------------------------------------

    def get_image_size(self, image_path: str) -> Size:
        return images.image_size(image_path)

    def make_buckets(self) -> None:
        """Lays out the plan instead of buckets: one bucket size per batch, as upstream's trainers need."""
        for info in self.image_data.values():
            info.image_size = self.get_image_size(info.absolute_path)
        subsets = list(self._characters_subsets())
        if not self.is_training_dataset and len(subsets) < PANELS:
            logger.warning("validation: of fewer than two characters it keeps pictures, so no composite is validated")
            self._length, self.bucket_info = 0, {"buckets": {}}
            return
        characters = characters_of(subsets, holds_captions(self.options.caption))
        by_separator = checkout.joins_by_separator(Path(train_util.__file__).parents[1])
        self.plan = Plan(characters, self._canvas(), self.options, self.batch_size, self.draw_seed, by_separator)
        self._length = self.plan.batches
        self.num_train_images = self.plan.composites
        self.enable_bucket = True
        self.bucket_info = {"buckets": {n: {"resolution": size} for n, size in enumerate(self.plan.sizes)}}

    def _characters_subsets(self) -> Iterator[Subset]:
        """Upstream's subsets but for regularization, with what upstream read of them."""
        keys = sorted(self.image_data)
        for subset in self.subsets:
            if not subset.is_reg:
                yield self._subset_of(subset, [self.image_data[key] for key in keys if self._panel_subsets[key] is subset])

    def _subset_of(self, subset: Any, infos: Sequence[ImageInfo]) -> Subset:
        rules = CaptionRules(**{name: getattr(subset, name) for name in CaptionRules.__dataclass_fields__})
        return Subset(
            folder=subset.image_dir,
            repeats=subset.num_repeats if self.is_training_dataset else 1,
            class_tokens=subset.class_tokens,
            caption_extension=subset.caption_extension,
            rules=rules,
            images=tuple(TrainingImage(info.absolute_path, info.image_size, info.caption) for info in infos),
            flip_aug=subset.flip_aug,
            trigger=getattr(subset, "trigger", None),  # which upstream's own does not have
        )

    def _canvas(self) -> Canvas:
        bucketed = self.enable_bucket
        return Canvas(
            size=(self.width, self.height),
            multiple=self.bucket_reso_steps or _DEFAULT_MULTIPLE,
            bucket_range=(self.min_bucket_reso, self.max_bucket_reso) if bucketed else None,
            no_upscale=bool(self.bucket_no_upscale),
            aspect=self.options.aspect,
        )

    def shuffle_buckets(self) -> None:
        """Nothing to shuffle: the plan mixes every epoch anew, and upstream's would reseed the global generator."""

    # -- captions -------------------------------------------------------------------------------------------------

    def is_text_encoder_output_cacheable(self, *args: Any, **kwargs: Any) -> bool:
        """Whatever the captions draw: what is encoded are the draws of the epochs that come round again."""
        return True

    def new_cache_text_encoder_outputs(self, models: Sequence[Any], accelerator: Any) -> None:
        """Encodes the captions of the epochs that come round again. Those of a batch are encoded together, as training does
        it, because a value may depend on what it is computed with."""
        if self.plan is None:
            return
        strategy = TextEncoderOutputsCachingStrategy.get_strategy()
        tokenize, encode = TokenizeStrategy.get_strategy(), TextEncodingStrategy.get_strategy()
        self.tokenize_strategy = tokenize  # upstream tells the dataset only later
        self.plan = self.plan.cycling(with_captions=True)
        batches = list(self._captions_to_encode(strategy.batch_size))
        if strategy.cache_to_disk:
            encoder = _encoder_digest(models, (strategy, tokenize, encode))
            for batch in batches:
                _name_outputs(batch, encoder, tokenize)
        with _mending(strategy, "is_disk_cached_outputs_expected"):
            share = batches[accelerator.process_index :: accelerator.num_processes]
            is_there = strategy.is_disk_cached_outputs_expected
            missing = [batch for batch in share if not all(is_there(info.text_encoder_outputs_npz) for info in batch)]
            for batch in tqdm(missing, desc="caching captions"):
                strategy.cache_batch_outputs(tokenize, models, encode, batch)
        if not strategy.cache_to_disk:
            made = [(info.image_key, _as_arrays(info.text_encoder_outputs)) for batch in share for info in batch]
            outputs = dict(gather_object(made))
            for info in chain.from_iterable(batches):
                info.text_encoder_outputs = outputs[info.image_key]

    def _captions_to_encode(self, batch_size: int | None) -> Iterator[list[PlannedInfo]]:
        for epoch, number in product(range(1, self.options.cycle_epochs + 1), range(self.plan.batches)):
            infos = []
            for index in self.plan.batch(epoch, number):
                composite = self.plan.composite(epoch, index)
                info = PlannedInfo(f"{epoch}/{index}", composite, False)
                info.caption = self.plan.caption(composite, epoch, budget=self._budget())
                self._encoded_captions[epoch, index] = info
                infos.append(info)
            step = batch_size or len(infos)
            yield from (infos[start : start + step] for start in range(0, len(infos), step))

    # -- latents --------------------------------------------------------------------------------------------------

    def new_cache_latents(self, model: Any, accelerator: Any) -> None:
        """Encodes each image once per panel size (`join = "latent"`), or each composite of a few epochs ("pixel")."""
        infos = self._infos_to_cache()
        with self._caching(accelerator) as strategy, ThreadPoolExecutor(max(1, strategy.batch_size)) as loaders:
            if strategy.cache_to_disk:
                infos = self._missing_on_disk(infos, strategy, model, accelerator)
            for batch in tqdm(list(_encodable(infos, strategy.batch_size)), desc="caching panels"):
                for info, picture in zip(batch, loaders.map(self._picture, batch), strict=True):
                    info.image = picture
                strategy.cache_batch_latents(model, batch, batch[0].flip_aug, batch[0].alpha_masked, False)
                for info in batch:
                    info.image = None

    def _missing_on_disk(self, infos: Sequence[PlannedInfo], strategy: Any, model: Any, accelerator: Any) -> list[PlannedInfo]:
        """Names every info's cache file; this process's share of those that are not there."""
        digest, file_digest = _model_digest(model), cache(_file_digest)
        for info in infos:
            info.latents_npz = self._cache_path(info, digest, file_digest)
        share = infos[accelerator.process_index :: accelerator.num_processes]
        expected = strategy.is_disk_cached_latents_expected
        return [i for i in share if not expected(i.bucket_reso, i.latents_npz, i.flip_aug, i.alpha_masked)]

    def _infos_to_cache(self) -> list[PlannedInfo]:
        """What the VAE will see, by the join: panels apart, or whole pictures."""
        if self.plan is not None and self.options.join == "latent":
            for panel in self.plan.panels_apart():
                path, subset = panel.image.path, self._panel_subsets[panel.image.path]
                self._encoded[path, panel.size] = PlannedInfo(path, panel, subset.alpha_mask, subset.flip_aug)
        elif self.plan is not None:
            self.plan = self.plan.cycling()
            for epoch, index in product(range(1, self.options.cycle_epochs + 1), range(self.plan.composites)):
                composite = self.plan.composite(epoch, index)
                self._encoded[epoch, index] = PlannedInfo(f"{epoch}/{index}", composite, self._is_masked(composite))
        return list(self._encoded.values())

    def _picture(self, info: PlannedInfo) -> np.ndarray:
        draw = self._joined_picture if isinstance(info.source, Composite) else self._panel_picture
        return draw(info.source, info.alpha_masked)

    def _cache_path(self, info: PlannedInfo, model_digest: str, file_digest: Callable[[str], bytes]) -> str:
        """Beside the (left) image. The name holds all that the latents depend on, so none is ever stale."""
        panels = info.source.panels if isinstance(info.source, Composite) else (info.source,)
        digest = hashlib.sha256(model_digest.encode())
        for panel in panels:
            how = self._panel_subsets[panel.image.path].resize_interpolation or self.resize_interpolation
            digest.update(f"{panel.size} {panel.flipped} {how}".encode() + file_digest(panel.image.path))
        base, (width, height) = os.path.splitext(panels[0].image.path)[0], info.bucket_reso
        return f"{base}_{width:04d}x{height:04d}_{digest.hexdigest()[:16]}{CACHE_SUFFIX}"

    # -- batches --------------------------------------------------------------------------------------------------

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch = self.epoch
        composites = [self.plan.composite(epoch, number) for number in self.plan.batch(epoch, index)]
        view = self._view(composites, epoch, Progress(self.step_of(index), self.max_train_steps))
        with _drawing_from(generator(self.draw_seed, epoch, index, "mask")):
            example = DreamBoothDataset.__getitem__(view, 0)
        self._add_conditioning(example, composites)
        if example["images"] is not None and self.options.join == "latent":
            example["panel_boxes"] = [composite.boxes for composite in composites]
        return example

    def _view(self, composites: Sequence[Composite], epoch: int, progress: Progress) -> CompositeDataset:
        """This dataset as upstream's `__getitem__` should see it for one batch: one bucket with these images."""
        view = copy.copy(self)
        view._batch = {f"{composite.epoch}/{composite.index}": composite for composite in composites}
        view.bucket_manager = SimpleNamespace(buckets=[list(view._batch)])
        view.buckets_indices = [BucketBatchIndex(0, len(composites), 0)]
        view.image_data, view.image_to_subset = {}, {}
        for key, composite in view._batch.items():
            info = PlannedInfo(key, composite, self._is_masked(composite))
            info.caption = self.plan.caption(composite, epoch, progress, self._budget())
            if encoded := self._encoded_captions.get((composite.epoch, composite.index)):
                info.text_encoder_outputs = encoded.text_encoder_outputs
                info.text_encoder_outputs_npz = encoded.text_encoder_outputs_npz
            self._fill_latents(info, composite)
            view.image_data[key] = info
            view.image_to_subset[key] = self._joined_subset(composite, info.alpha_masked)
        return view

    def process_caption(self, subset: Any, caption: str) -> str:
        """The plan's captions are final."""
        return caption

    def _fill_latents(self, info: ImageInfo, composite: Composite) -> None:
        if self._encoded and self.options.join == "pixel":
            info.latents, info.alpha_mask = self._latents(self._encoded[composite.epoch, composite.index], False)
        elif self._encoded:
            panels = [self._latents(self._encoded[p.image.path, p.size], p.flipped) for p in composite.panels]
            info.latents = join_panels([latents for latents, _ in panels], composite.boxes)
            info.alpha_mask = self._joined_mask([mask for _, mask in panels], composite)
        # Upstream wants both beside latents; what the batch carries is filled in by _add_conditioning.
        info.latents_original_size, info.latents_crop_ltrb = composite.size, (0, 0, *composite.size)

    def _latents(self, info: ImageInfo, flipped: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        if info.latents_npz is None:
            latents, mask = (info.latents_flipped if flipped else info.latents), info.alpha_mask
        else:
            strategy = self.latents_caching_strategy
            plain, _, _, mirrored, mask = strategy.load_latents_from_disk(info.latents_npz, info.bucket_reso)
            latents = torch.from_numpy(mirrored if flipped else plain)
            mask = None if mask is None else torch.from_numpy(mask)
        return latents, torch.flip(mask, [1]) if flipped and mask is not None else mask

    @staticmethod
    def _joined_mask(masks: Sequence[torch.Tensor | None], composite: Composite) -> torch.Tensor | None:
        """Masks are (height, width) in pixels; a panel without one counts in full, as upstream has it in a batch."""
        if all(mask is None for mask in masks):
            return None
        panels = zip(masks, composite.panels, strict=True)
        filled = [torch.ones(panel.size[::-1]) if mask is None else mask for mask, panel in panels]
        return join_panels(filled, composite.boxes)

    def _is_masked(self, composite: Composite) -> bool:
        return any(self._panel_subsets[panel.image.path].alpha_mask for panel in composite.panels)

    def _joined_subset(self, composite: Composite, masked: bool) -> SimpleNamespace:
        """The subset options that upstream asks for a sample. Flips and crops happened panel by panel."""
        first_wins = ChainMap(*(self._panel_subsets[panel.image.path].custom_attributes for panel in composite.panels))
        done = dict.fromkeys(("flip_aug", "random_crop", "color_aug"), False)
        return SimpleNamespace(custom_attributes=dict(first_wins), alpha_mask=masked, **done)

    def _budget(self) -> Budget | None:
        """The tokens that a caption may have, by what upstream's tokenize strategy will cut."""
        return strategy_budget(self.tokenize_strategy)

    def _add_conditioning(self, example: dict[str, Any], composites: Sequence[Composite]) -> None:
        """SDXL's sizes and crops, with upstream's values for one panel. The original size is that of the panels'
        originals side by side, scaled to the smallest one's height; the crop is the left edge's and the deepest top."""
        originals, crops = [], []
        for composite in composites:
            height = min(panel.image.size[1] for panel in composite.panels)
            width = sum(panel.image.size[0] * height / panel.image.size[1] for panel in composite.panels)
            originals.append((height, round(width)))
            tops_lefts = [_crop_top_left(panel) for panel in composite.panels]
            crops.append((max(top for top, _ in tops_lefts), tops_lefts[0][1]))
        example["original_sizes_hw"] = torch.LongTensor(originals)
        example["crop_top_lefts"] = torch.LongTensor(crops)
        example["target_sizes_hw"] = torch.LongTensor([composite.size[::-1] for composite in composites])
        example["flippeds"] = [any(panel.flipped for panel in composite.panels) for composite in composites]

    # -- pictures -------------------------------------------------------------------------------------------------

    def load_image_with_face_info(self, subset: Any, image_path: str, alpha_mask: bool = False) -> tuple:
        """Upstream's door to an image's pixels; `image_path` is a composite's key in this view."""
        return self._joined_picture(self._batch[image_path], alpha_mask), 0, 0, 0, 0

    def _joined_picture(self, composite: Composite, alpha: bool) -> np.ndarray:
        """uint8 (height, width, 3 or 4)."""
        rng = generator(self.draw_seed, composite.epoch, composite.index, "augment")
        panels = [self._panel_picture(panel, alpha, rng) for panel in composite.panels]
        return join_panels(panels, composite.boxes, axes=(0, 1))

    def _panel_picture(self, panel: Panel, alpha: bool, rng: random.Random | None = None) -> Any:
        """One panel resized and cropped as upstream does, then augmented."""
        subset = self._panel_subsets[panel.image.path]
        picture = images.read_image(panel.image.path, alpha)
        how = subset.resize_interpolation or self.resize_interpolation
        random_crop = subset.random_crop and rng is not None
        with _drawing_from(rng):
            picture, *_ = train_util.trim_and_resize_if_required(
                random_crop, picture, panel.size, images.covering_size(panel.image.size, panel.size), resize_interpolation=how
            )
            augment = self.aug_helper.get_augmentor(subset.color_aug)
            if augment is not None and rng is not None:
                picture[:, :, :3] = augment(image=picture[:, :, :3])["image"]
        if alpha and not subset.alpha_mask:
            picture[:, :, 3] = 255
        return picture[:, ::-1] if panel.flipped else picture


@contextmanager
def _drawing_from(rng: random.Random | None) -> Iterator[None]:
    """Upstream's crops and colour changes draw from the global generator: seeds it from `rng`, and gives it back as it was."""
    state = random.getstate()
    if rng is not None:
        random.seed(rng.getrandbits(64))
    try:
        yield
    finally:
        random.setstate(state)


def _crop_top_left(panel: Panel) -> tuple[int, int]:
    left, top, right, _ = BucketManager.get_crop_ltrb(panel.size, panel.image.size)
    return int(top), int(panel.size[0] - right if panel.flipped else left)


def _encodable(infos: Sequence[PlannedInfo], batch_size: int) -> Iterator[list[PlannedInfo]]:
    """The infos in batches that the VAE can take at once, of one size and the same options."""

    def options(info: PlannedInfo) -> tuple:
        return (*info.bucket_reso, info.flip_aug, info.alpha_masked)

    for _, group in groupby(sorted(infos, key=options), options):
        while batch := list(islice(group, max(1, batch_size))):
            yield batch


def _file_digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


def _model_digest(model: Any) -> str:
    """Of the weights as they encode, in their dtype."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _as_arrays(outputs: Sequence[Any]) -> tuple[np.ndarray, ...]:
    return tuple(map(np.asarray, outputs))


def _encoder_digest(models: Sequence[Any], strategies: Sequence[Any]) -> str:
    """Of all that a caption's outputs depend on, but for the caption: weights, and what strategies were set to."""
    digest = hashlib.sha256()
    for model in {id(model): model for model in models if model is not None}.values():
        digest.update(_model_digest(model).encode())
    for strategy in strategies:
        plain = {key: value for key, value in vars(strategy).items() if isinstance(value, (str, int, float, type(None)))}
        plain = {key: value for key, value in sorted(plain.items()) if "check" not in key and "warn" not in key}
        digest.update(f"{type(strategy).__name__} {plain}".encode())
    return digest.hexdigest()


def _name_outputs(batch: Sequence[PlannedInfo], encoder: str, tokenize: Any) -> None:
    """Names each caption's cache file, beside the (left) image, by the encoder and all captions that are encoded with it."""
    captions = [info.caption for info in batch]
    digest = hashlib.sha256(f"{encoder} {captions}".encode())
    for ids in tokenize.tokenize(captions):
        digest.update(ids.numpy().tobytes())
    for number, info in enumerate(batch):
        name = hashlib.sha256(f"{digest.hexdigest()} {number}".encode()).hexdigest()[:16]
        info.text_encoder_outputs_npz = f"{os.path.splitext(info.source.panels[0].image.path)[0]}_te_{name}{CACHE_SUFFIX}"
