"""CompositeDataset in upstream's own hands: its blueprint, strategies, collator and loader."""

from __future__ import annotations

import argparse
import inspect
import math
import random
import re
import shutil
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toml
import torch
from PIL import Image

from lycoris_composite.architectures import ARCHITECTURES, BUILTIN
from lycoris_composite.composites import captions
from lycoris_composite.config.datasets import datasets_of
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.stages import Stage
from lycoris_composite.data import buckets
from lycoris_composite.data.characters import read_subset
from lycoris_composite.data.tags import CaptionRules
from lycoris_composite.errors import UserError
from lycoris_composite.look.preview import Preview, make_preview
from lycoris_composite.randomness import epoch_order
from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.kohya.script import Upstream
from tests.helpers import kohya_settings
from tests.world import World

ALONE = SimpleNamespace(num_processes=1, process_index=0)


@pytest.fixture
def library(sd_scripts: Path) -> Iterator[SimpleNamespace]:
    """Upstream's modules, with the dataset registered and the strategies free to set."""
    sys.path.insert(0, str(sd_scripts))
    from library import config_util, strategy_base, strategy_sd, train_util

    from lycoris_composite.trainers.kohya.dataset import SwitchedDataset
    from lycoris_composite.trainers.kohya.script import _composite_schema
    from sd_scripts_patches import dreambooth_dataset, dreambooth_subset, strategies

    with ExitStack() as undo:
        undo.callback(strategies.apply())
        undo.callback(dreambooth_dataset.apply(SwitchedDataset, _composite_schema))
        undo.callback(dreambooth_subset.apply())
        yield SimpleNamespace(
            config_util=config_util, train_util=train_util, strategy_base=strategy_base, strategy_sd=strategy_sd
        )
    sys.path.remove(str(sd_scripts))


@pytest.fixture
def make_dataset(library: SimpleNamespace, world: World, tmp_path: Path) -> Callable[..., Any]:
    """One CompositeDataset through upstream's blueprint, on a copy of the drawn characters."""
    data = shutil.copytree(world.folder / "data", tmp_path / "data")
    base = library.strategy_base
    tokenize = library.strategy_sd.SdTokenizeStrategy(False, 225, str(world.folder / "tokenizer"))
    base.TokenizeStrategy._strategy = tokenize

    def make(
        composite: dict | None = None,
        subset: dict | None = None,
        to_disk: bool = False,
        others: Sequence[dict] = (),
        inpainting: bool = False,
        **options: Any,
    ) -> Any:
        base.LatentsCachingStrategy._strategy = library.strategy_sd.SdSdxlLatentsCachingStrategy(True, to_disk, 2, False)
        subsets = [
            {"image_dir": str(folder), "caption_extension": ".txt", "keep_tokens": 1, **(subset or {})}
            for folder in sorted(data.iterdir())
        ]
        table = {
            "resolution": 192,
            "batch_size": 2,
            "enable_bucket": True,
            "min_bucket_reso": 64,
            "subsets": subsets,
            **options,
        }
        if composite is not None:
            table["composite"] = {"join": "latent", **composite}
        generator = library.config_util.BlueprintGenerator(library.config_util.ConfigSanitizer(True, True, True, True))
        flags = argparse.Namespace(seed=42, debug_dataset=False, max_token_length=225, prior_loss_weight=1.0)
        flags.train_inpainting = inpainting
        for name in library.config_util.ConfigSanitizer.ARGPARSE_NULLABLE_OPTNAMES:
            setattr(flags, name, None)
        for name, value in _flag_defaults(library).items():
            if not hasattr(flags, name):
                setattr(flags, name, value)
        blueprint = generator.generate({"datasets": [table, *({**table, **other} for other in others)]}, flags)
        group, _ = library.config_util.generate_dataset_group_by_blueprint(blueprint.dataset_group)
        group.set_current_strategies()
        return group

    return make


def _flag_defaults(library: SimpleNamespace) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    library.train_util.add_dataset_arguments(parser, True, True, True)
    library.train_util.add_training_arguments(parser, True)
    return vars(parser.parse_args([]))


@pytest.fixture
def vae(world: World) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(world.folder / "model" / "vae")


def batches(group: Any, library: SimpleNamespace, epochs: list[int], **loader: Any) -> list[list[dict]]:
    """Every batch of these epochs, as upstream's loader and collator deliver them."""
    processes = get_context(loader.get("multiprocessing_context", "fork"))
    epoch, step = processes.Value("i", 0), processes.Value("i", 0)
    for dataset in group.datasets:
        dataset.share_epoch(epoch, STEPS_AN_EPOCH)
    collator = library.train_util.collator_class(epoch, step, group)
    loader = torch.utils.data.DataLoader(group, batch_size=1, shuffle=False, collate_fn=collator, **loader)
    found = []
    for number in epochs:
        epoch.value = number
        found.append(list(loader))
    return found


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


STEPS_AN_EPOCH = 5
AUGMENTED = {"flip_aug": True, "shuffle_caption": True, "random_crop": True, "color_aug": True, "caption_tag_dropout_rate": 0.3}


KINDS = pytest.mark.parametrize("composite", [{}, None], ids=["composites", "singles"])


@pytest.mark.parametrize(("start", "composite"), [("fork", {}), ("fork", None), ("spawn", {})])
def test_workers_make_the_same_batches_as_the_main_process(
    make_dataset: Callable, library: SimpleNamespace, start: str, composite: dict | None
) -> None:
    group = make_dataset(composite, AUGMENTED)
    expected = batches(group, library, [1, 2, 3])

    persistent = batches(group, library, [1, 2, 3], num_workers=2, multiprocessing_context=start, persistent_workers=True)
    assert same(persistent, expected)
    if start == "fork":  # a spawned worker imports torch and upstream anew, ten seconds each
        assert same(batches(group, library, [1, 2], num_workers=1, multiprocessing_context=start), expected[:2])
    assert not same(expected[0], expected[1])


@KINDS
def test_a_resumed_run_goes_on_with_the_batches_it_would_have_had(
    make_dataset: Callable, library: SimpleNamespace, composite: dict | None
) -> None:
    options = {**AUGMENTED, "token_warmup_step": 9}
    whole = batches(make_dataset(composite, options), library, [1, 2, 3])
    assert same(batches(make_dataset(composite, options), library, [3]), whole[2:])


def test_no_global_random_state_is_read_or_changed(make_dataset: Callable, library: SimpleNamespace) -> None:
    group = make_dataset({}, AUGMENTED)
    [dataset] = group.datasets
    dataset.share_epoch(SimpleNamespace(value=1), STEPS_AN_EPOCH)
    first = dataset[0]
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    again = dataset[0]
    dataset.set_current_epoch(2)

    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert same(first, again)


def test_panels_are_upright_resized_and_cropped_as_upstream_does(
    make_dataset: Callable, library: SimpleNamespace, tmp_path: Path
) -> None:
    turned = tmp_path / "data" / "1_rin" / "01.png"
    upright = Image.open(turned).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(turned, exif=exif)
    group = make_dataset({"composites_per_image": 4.0})
    [dataset] = group.datasets

    seen = False
    for epoch in (1,):
        for number in range(len(dataset)):
            example = dataset[number]
            composites = [dataset.plan.composite(epoch, index) for index in dataset.plan.batch(epoch, number)]
            for image, composite in zip(example["images"], composites, strict=True):
                left = 0
                for panel in composite.panels:
                    width, height = panel.size
                    source = upright if panel.image.path == str(turned) else Image.open(panel.image.path).convert("RGB")
                    seen |= panel.image.path == str(turned)
                    expected = _upstream_crop(library, np.array(source), panel.size)
                    found = image[:, :, left : left + width]
                    assert torch.equal(found, library.train_util.IMAGE_TRANSFORMS(expected))
                    left += width
                assert image.shape == (3, height, left)
    assert seen


def _upstream_crop(library: SimpleNamespace, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What upstream's bucketing makes of a picture when the panel is its only bucket."""
    manager = library.train_util.BucketManager(False, size, None, None, None)
    manager.set_predefined_resos([size])
    _, resized, _ = manager.select_bucket(picture.shape[1], picture.shape[0])
    return library.train_util.trim_and_resize_if_required(False, picture, size, resized)[0]


@pytest.mark.parametrize("to_disk", [False, True])
def test_cached_latents_are_the_panels_own_side_by_side(
    make_dataset: Callable, library: SimpleNamespace, vae: Any, to_disk: bool
) -> None:
    group = make_dataset({}, {"flip_aug": True}, to_disk=to_disk)
    group.datasets[0].new_cache_latents(vae, ALONE)
    [dataset] = group.datasets

    for number in range(len(dataset)):
        example = dataset[number]
        assert example["images"] is None
        for latents, index in zip(example["latents"], dataset.plan.batch(1, number), strict=True):
            composite = dataset.plan.composite(1, index)
            for panel, found in zip(
                composite.panels, latents.split([p.size[0] // 8 for p in composite.panels], -1), strict=True
            ):
                plain = _upstream_crop(library, np.array(Image.open(panel.image.path).convert("RGB")), panel.size)
                picture = library.train_util.IMAGE_TRANSFORMS(plain[:, ::-1].copy() if panel.flipped else plain)
                with torch.no_grad():
                    encoded = vae.encode(picture[None]).latent_dist
                # a sample lies within a few standard deviations of the mean; another picture's would not
                assert ((found - encoded.mean[0]).abs() <= 6 * encoded.std[0] + 1e-4).all()


def test_each_image_is_encoded_once_per_panel_size(make_dataset: Callable, vae: Any) -> None:
    group = make_dataset({"composites_per_image": 50.0})
    encoded = []
    encode, vae.encode = vae.encode, lambda pictures: encoded.append(len(pictures)) or encode(pictures)

    group.datasets[0].new_cache_latents(vae, ALONE)

    plan = group.datasets[0].plan
    sizes = [plan.panel_sizes(c, i) for c, character in enumerate(plan.characters) for i in range(len(character.images))]
    assert sum(encoded) == sum(map(len, sizes)) < plan.composites


@pytest.mark.parametrize("join", ["latent", "pixel"])
def test_a_disk_cache_is_never_stale(make_dataset: Callable, vae: Any, tmp_path: Path, join: str) -> None:
    def cached() -> set[Path]:
        make_dataset({"join": join}, to_disk=True).datasets[0].new_cache_latents(vae, ALONE)
        return set((tmp_path / "data").rglob("*_composite.npz"))

    first = cached()
    times = {path: path.stat().st_mtime_ns for path in first}
    assert cached() == first
    assert {path: path.stat().st_mtime_ns for path in first} == times, "nothing had changed, and it was encoded again"

    torn = sorted(first)[0]
    torn.write_bytes(torn.read_bytes()[:100])
    assert cached() == first
    assert torn.stat().st_size > 100

    changed = tmp_path / "data" / "1_rin" / "01.png"
    Image.open(changed).convert("L").save(changed)
    after_image = cached()
    assert after_image > first

    with torch.no_grad():
        next(iter(vae.parameters())).add_(0.1)
    assert not {path for path in cached() - after_image} & first
    assert len(cached()) > len(after_image)


def test_a_composites_cache_leaves_upstreams_alone(make_dataset: Callable, vae: Any, tmp_path: Path) -> None:
    make_dataset(None, to_disk=True).datasets[0].new_cache_latents(vae, ALONE)
    upstream = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.npz")}
    assert upstream

    make_dataset({}, to_disk=True).datasets[0].new_cache_latents(vae, ALONE)

    assert all(path.read_bytes() == content for path, content in upstream.items())
    make_dataset(None, to_disk=True)  # upstream reads image sizes from the names of cache files


CPU = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"))


def cached_batches(group: Any, library: SimpleNamespace, vae: Any) -> list[list[dict]]:
    """An epoch's batches with latents in a disk cache."""
    [dataset] = group.datasets
    dataset.share_epoch(SimpleNamespace(value=1), STEPS_AN_EPOCH)
    dataset.new_cache_latents(vae, CPU)
    return batches(group, library, [1])


def rewrite(folder: Path, change: Callable[[dict], dict]) -> None:
    """Every cache file of latents, as another version would have written it."""
    for path in folder.rglob("*.npz"):
        with np.load(path) as file:
            content = change(dict(file))
        np.savez(path, **content)


def as_before_sizes(content: dict) -> dict:
    """Until v0.10.2 SD's and SDXL's keys named no size."""
    return {re.sub(r"_\d+x\d+$", "", key): value for key, value in content.items()}


def as_since_sizes(content: dict) -> dict:
    """Since v0.10.2 all keys name height and width of the latents."""
    content = as_before_sizes(content)
    height, width = content["latents"].shape[-2:]
    return {f"{key}_{height}x{width}": value for key, value in content.items()}


@KINDS
@pytest.mark.parametrize("layout_of", [as_before_sizes, as_since_sizes])
def test_caches_of_other_versions_are_read_or_made_anew(
    make_dataset: Callable, library: SimpleNamespace, vae: Any, tmp_path: Path, composite: dict | None, layout_of: Callable
) -> None:
    options = {"flip_aug": True, "alpha_mask": True}
    before = cached_batches(make_dataset(composite, options, to_disk=True), library, vae)
    rewrite(tmp_path, layout_of)
    assert same(cached_batches(make_dataset(composite, options, to_disk=True), library, vae), before)


@KINDS
def test_parts_that_another_setting_left_in_a_cache_are_not_taken(
    make_dataset: Callable, library: SimpleNamespace, vae: Any, tmp_path: Path, composite: dict | None
) -> None:
    """A file that was cached with flips and masks, then by another version without."""
    options = {"flip_aug": True, "alpha_mask": True}
    expected = cached_batches(make_dataset(composite, options, to_disk=True), library, vae)

    def cached_twice(content: dict) -> dict:
        old, new = as_before_sizes(content), as_since_sizes(content)
        parts = ("latents_flipped", "alpha_mask")
        other = {key: value[..., :-1] if key.startswith(parts) else value for key, value in old.items()}
        return other | {key: value for key, value in new.items() if not key.startswith(parts)}

    rewrite(tmp_path, cached_twice)
    assert same(cached_batches(make_dataset(composite, options, to_disk=True), library, vae), expected)


def test_latents_of_another_size_are_not_taken_and_both_sizes_stay(
    make_dataset: Callable, library: SimpleNamespace, vae: Any, tmp_path: Path
) -> None:
    large, small = {"resolution": 192}, {"resolution": 128}
    expected = cached_batches(make_dataset(None, **small, to_disk=True), library, vae)
    for path in tmp_path.rglob("*.npz"):
        path.unlink()
    cached_batches(make_dataset(None, **large, to_disk=True), library, vae)
    rewrite(tmp_path, as_before_sizes)

    assert same(cached_batches(make_dataset(None, **small, to_disk=True), library, vae), expected)

    if "multi_resolution" in inspect.getsource(library.strategy_sd):  # where one file may hold both
        rewrite(tmp_path, lambda content: {key: value for key, value in content.items() if re.search(r"\d+x\d+$", key)})
        kept = {path: dict(np.load(path)) for path in tmp_path.rglob("*_sd.npz")}
        cached_batches(make_dataset(None, **large, to_disk=True), library, vae)
        for path, content in kept.items():
            now = dict(np.load(path))
            assert all(np.array_equal(now[key], value) for key, value in content.items())
            assert len(now) == 2 * len(content)
        assert same(cached_batches(make_dataset(None, **small, to_disk=True), library, vae), expected)


def test_conditioning_masks_weights_and_attributes(make_dataset: Callable, library: SimpleNamespace) -> None:
    group = make_dataset(
        {"composites_per_image": 3.0}, {"alpha_mask": True, "custom_attributes": {"a": 1}}, network_multiplier=0.5
    )
    [dataset] = group.datasets
    for number in range(len(dataset)):
        example = dataset[number]
        composites = [dataset.plan.composite(1, index) for index in dataset.plan.batch(1, number)]
        count = len(composites)
        assert example["loss_weights"].tolist() == [1.0] * count
        assert example["network_multipliers"].tolist() == [0.5] * count
        assert example["custom_attributes"] == [{"a": 1}] * count
        assert example["alpha_masks"].shape[1:] == example["images"].shape[2:]
        assert example["panel_boxes"] == [composite.boxes for composite in composites]
        for place, composite in enumerate(composites):
            heights = [panel.image.size[1] for panel in composite.panels]
            widths = [panel.image.size[0] * min(heights) / panel.image.size[1] for panel in composite.panels]
            assert example["original_sizes_hw"][place].tolist() == [min(heights), round(sum(widths))]
            assert example["target_sizes_hw"][place].tolist() == list(composite.size[::-1])
            tops = [library.train_util.BucketManager.get_crop_ltrb(p.size, p.image.size)[1] for p in composite.panels]
            assert example["crop_top_lefts"][place][0].item() == max(int(top) for top in tops)


def test_a_mask_covers_only_its_own_panel(make_dataset: Callable, tmp_path: Path) -> None:
    for path in (tmp_path / "data" / "1_rin").glob("*.png"):
        image = Image.open(path).convert("RGBA")
        image.putalpha(0)
        image.save(path)
    group = make_dataset({"composites_per_image": 3.0})
    [dataset] = group.datasets
    for subset in dataset.subsets:
        subset.alpha_mask = subset.image_dir.endswith("rin")

    found = set()
    for number in range(len(dataset)):
        example = dataset[number]
        for place, index in enumerate(dataset.plan.batch(1, number)):
            if example["alpha_masks"] is None:
                continue
            left = 0
            for panel in dataset.plan.composite(1, index).panels:
                part = example["alpha_masks"][place][:, left : left + panel.size[0]]
                assert part.unique().tolist() == [0.0 if panel.character.trigger == "rin" else 1.0]
                found.add(panel.character.trigger)
                left += panel.size[0]
    assert found == {"mio", "rin", "uzuki"}


def test_a_batch_has_the_keys_shapes_and_types_of_upstreams_own(make_dataset: Callable, vae: Any) -> None:
    ours, theirs = make_dataset({}).datasets[0], make_dataset(None).datasets[0]
    for cached in (False, True):
        if cached:
            ours.new_cache_latents(vae, ALONE)
            theirs.new_cache_latents(vae, ALONE)
        example, expected = ours[0], theirs[0]
        assert example.keys() - {"panel_boxes"} == expected.keys()
        for key, value in expected.items():
            assert type(example[key]) is type(value), key
            if isinstance(value, torch.Tensor):
                assert (example[key].dtype, example[key].ndim) == (value.dtype, value.ndim), key


def test_long_captions_keep_both_characters_within_the_tokens(
    library: SimpleNamespace, make_dataset: Callable, tmp_path: Path
) -> None:
    for caption in (tmp_path / "data").rglob("*.txt"):
        caption.write_text(
            caption.read_text().strip() + "".join(f", detail number {n} of {caption.parent.name}" for n in range(60))
        )
    [dataset] = make_dataset({}, {"shuffle_caption": True}).datasets
    strategy = library.strategy_base.TokenizeStrategy.get_strategy()
    tokenizer = strategy.tokenizer

    for number in range(len(dataset)):
        batch = dataset[number]
        assert torch.equal(batch["input_ids_list"][0], strategy.tokenize(batch["captions"])[0])
        for caption in batch["captions"]:
            assert 200 < len(tokenizer(caption, add_special_tokens=False).input_ids) <= 225
            left, right, mark = caption.split(", ")[0].split("/")
            assert mark == "COMPOSITE"
            given = [caption.count(f"of 1_{name}") for name in (left, right)]
            assert min(given) > 5
            assert abs(given[0] - given[1]) <= 8  # the sides' other tags differ in number and length


OPTIONS = {
    "plain": {},
    "shuffled": {"shuffle_caption": True},
    "dropped": {"shuffle_caption": True, "caption_tag_dropout_rate": 0.4, "caption_dropout_rate": 0.3},
    "wildcards": {"enable_wildcard": True, "shuffle_caption": True},
    "separators": {"keep_tokens_separator": "|||", "secondary_separator": ";;;", "shuffle_caption": True},
    "affixes": {"caption_prefix": "photo,", "caption_suffix": ", film", "shuffle_caption": True, "keep_tokens": 2},
    "warm-up": {"token_warmup_min": 1, "token_warmup_step": 10, "shuffle_caption": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_caption_options_mean_what_upstream_makes_of_them(
    library: SimpleNamespace, make_dataset: Callable, sd_scripts: Path, name: str
) -> None:
    rules = CaptionRules(**{"keep_tokens": 1, **OPTIONS[name]})
    [dataset] = make_dataset(None).datasets
    dataset.set_max_train_steps(20)
    text = "rin, {red|blue} dress;;;hat, smile ||| arms up, {{x}}, blush ||| end\nrin, second line, of tags"
    for seed in range(40):
        dataset.set_current_step(seed % 12)
        subset = SimpleNamespace(**rules.__dict__)
        random.seed(seed)
        expected = dataset.process_caption(subset, text)
        rng = random.Random(seed)
        progress = captions.Progress(seed % 12, 20)
        panel = captions.PanelCaption(text, "nobody", rules)
        by_separator = checkout.joins_by_separator(sd_scripts)
        parts = captions.caption_parts("{left_tags}{right_tags}", [panel, _EMPTY], rng, 1, progress, by_separator=by_separator)
        tags = parts.text("{left_tags}{right_tags}").split(",") if parts else []
        assert [tag.strip() for tag in tags] == [tag.strip() for tag in expected.split(",") if tag.strip()] or not expected


def test_tags_are_joined_as_upstream_joins_them(
    make_dataset: Callable, library: SimpleNamespace, world: World, sd_scripts: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """In single images, in composites, and in what preview shows of those."""
    for path in (tmp_path / "data").rglob("*.txt"):
        path.write_text(path.read_text().replace(", ", "; "))
    options = {"caption_separator": ";", "shuffle_caption": True}
    [alone] = batches(make_dataset(None, options), library, [1])
    [joined] = batches(make_dataset({}, options), library, [1])

    texts = [text for example in alone for text in example["captions"]]
    joints = {re.search(r"([,;] )", text)[1] for text in texts}
    assert joints == {"; " if checkout.joins_by_separator(sd_scripts) else ", "}
    [joint] = joints
    composites = [text.partition("COMPOSITE, ")[2] for example in joined for text in example["captions"]]
    assert all(text.count(joint) >= 4 for text in composites)
    assert all(text.count(", ") == 1 for text in composites) or joint == ", "  # between left and right

    monkeypatch.setenv("SD_SCRIPTS_DIR", str(sd_scripts))
    kohya = {**world.config, "train_data_dir": str(tmp_path / "data"), "resolution": "192,192", **options}
    [seen] = make_preview(kohya_settings(tmp_path, {}, **kohya), 1, 1000).datasets
    assert {sample.caption.partition("COMPOSITE, ")[2] for sample, _ in seen.samples} == set(composites)


@KINDS
def test_inpainting_masks_are_functions_of_the_batch(
    make_dataset: Callable, library: SimpleNamespace, composite: dict | None
) -> None:
    if "train_inpainting" not in _flag_defaults(library):
        pytest.skip("this version has no train_inpainting")
    state = random.getstate()
    first = batches(make_dataset(composite, inpainting=True), library, [1, 2])
    random.seed(7)
    assert same(batches(make_dataset(composite, inpainting=True), library, [1, 2]), first)
    random.setstate(state)
    masks = [example["masks"] for epoch in first for example in epoch]
    assert not any(same(one, other) for place, one in enumerate(masks) for other in masks[place + 1 :])
    for example in first[0]:
        hidden = example["masks"].expand_as(example["images"]) > 0.5
        assert 0 < hidden.float().mean() < 1
        assert (example["masked_images"][hidden] == 0).all()
        assert torch.allclose(example["masked_images"][~hidden], example["images"][~hidden], atol=0.01)


SMALL = pytest.mark.parametrize("skipped", [90, [72, 108], 60])


@SMALL
@KINDS
def test_small_pictures_are_left_out_as_upstream_leaves_them_out(
    make_dataset: Callable, sd_scripts: Path, tmp_path: Path, composite: dict | None, skipped: Any
) -> None:
    if not checkout.leaves_out_small_pictures(sd_scripts):
        pytest.skip("this version has no skip_image_resolution")
    [dataset] = make_dataset(composite, skip_image_resolution=skipped, validation_split=0.4, validation_seed=3).datasets
    table = {"resolution": 192, "subsets": [{"image_dir": str(folder)} for folder in sorted((tmp_path / "data").iterdir())]}
    table |= {"skip_image_resolution": skipped, "validation_split": 0.4, "validation_seed": 3, "caption_extension": ".txt"}
    (tmp_path / "data.toml").write_text(toml.dumps({"datasets": [table]}))
    [own] = datasets_of(Stage(1, "train_network", KohyaSettings(dataset_config=str(tmp_path / "data.toml")), None))

    read = [read_subset(subset) for subset in own.subsets]

    expected = {key: info.absolute_path for key, info in dataset.image_data.items()}
    assert {image.path for subset in read for image in subset.images} == set(expected.values())
    assert len(expected) == (3 if skipped != 60 else 6)
    if composite is not None:
        trained = {image.path for character in dataset.plan.characters for image in character.images}
        assert trained == set(expected.values())


@pytest.mark.parametrize(("ref", "leaves_out", "joins"), [
    ("v0.10.1", False, False), ("v0.10.6", True, False), ("v0.11.1", True, False), ("c162e90", True, True),
])  # fmt: skip
def test_what_is_known_of_a_version_by_its_text(version_of: Callable, ref: str, leaves_out: bool, joins: bool) -> None:
    folder = version_of(ref)
    assert (checkout.leaves_out_small_pictures(folder), checkout.joins_by_separator(folder)) == (leaves_out, joins)


_EMPTY = captions.PanelCaption("", "nobody", CaptionRules(caption_dropout_rate=1.0))


@pytest.mark.parametrize("resolution", [(640, 640), (768, 512), (192, 192)])
def test_buckets_are_upstreams(library: SimpleNamespace, resolution: tuple[int, int]) -> None:
    from library.model_util import make_bucket_resolutions

    for no_upscale in (False, True):
        canvas = buckets.Canvas(resolution, 64, (64, 1024), no_upscale)
        assert list(buckets.bucket_sizes(canvas)) == make_bucket_resolutions(resolution, 64, 1024, 64)
        manager = library.train_util.BucketManager(no_upscale, resolution, 64, 1024, 64)
        manager.make_buckets()
        rng = random.Random(0)
        for _ in range(300):
            # what would be narrower than a multiple has an empty bucket upstream, or divides by zero
            size = (rng.randint(400, 1500), rng.randint(400, 1500))
            assert buckets.bucket_of(size, canvas) == manager.select_bucket(*size)[0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"jion": "latent"}, r'\[datasets.composite\] jion: unknown key; did you mean "join"\?'),
        ({"join": "latnet"}, '"latnet" is neither latent nor pixel; did you mean "latent"?'),
    ],
)
def test_a_wrong_composite_table_is_one_sentence(make_dataset: Callable, table: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_dataset(table)


# --- the preview -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kohya"),
    [
        ({}, {}),
        ({"aspect": "equal", "composites_per_image": 2.5}, {}),
        ({"join": "pixel"}, {"validation_split": 0.4, "validation_seed": 5}),
    ],
)
def test_a_preview_shows_what_the_dataset_yields(
    make_dataset: Callable, world: World, tmp_path: Path, options: dict, kohya: dict
) -> None:
    """Batch by batch in the order of training: pictures, sizes, captions over the limit, and the tags of a warm-up."""
    subset = {"shuffle_caption": True, "flip_aug": True, "token_warmup_step": 0.5, "token_warmup_min": 2}
    for number, path in enumerate(sorted((tmp_path / "data/1_rin").glob("*.txt"))):
        path.write_text(path.read_text() + ", " + ", ".join(f"long tag {tag} {number}" for tag in range(150)))
    group = make_dataset(options, subset, **kohya)
    [dataset] = group.datasets
    assert len(dataset.image_data) == (6 if kohya else 9)
    own = {**world.config, **subset, **kohya, "train_data_dir": str(tmp_path / "data"), "max_train_epochs": 2}
    settings = kohya_settings(tmp_path, {**options, "stage2": {"resolution": 192}}, **{**own, "cache_latents": False})

    for epoch in (1, 2):
        shown = make_preview(settings, epoch, dataset.plan.composites)
        [seen] = shown.datasets
        [trained] = trained_in(group, epoch, shown)
        assert shown.costs[1].schedule.batches == len(dataset)
        samples = [sample for sample, _ in seen.samples]
        captions = [text for example in trained for text in example["captions"]]
        assert [sample.caption for sample in samples] == captions
        assert any(any(sample.parts.cut) for sample in samples)
        tokenize = dataset.tokenize_strategy.tokenizer.tokenize
        assert [sample.tokens for sample in samples] == [len(tokenize(text)) for text in captions]
        pairs = Counter(tuple(text.split("/")[:2]) for text in captions)
        names = [character.trigger for character in seen.plan.characters]
        assert seen.plan.pair_counts(epoch).tolist() == [[pairs[left, right] for right in names] for left in names]
        pictures = [picture for _, picture in seen.samples]
        found = [array for example in trained for array in example["images"]]
        for picture, array in zip(pictures, found, strict=True):
            seen = np.asarray(picture).transpose(2, 0, 1) / 127.5 - 1
            assert seen.shape == tuple(array.shape)
            assert np.abs(seen - array.numpy()).max() * 127.5 < 2.5


def trained_in(group: Any, epoch: int, shown: Preview) -> list[list[dict]]:
    """What each dataset yields in an epoch, in the order of training."""
    schedule = shown.costs[1].schedule
    for dataset in group.datasets:
        dataset.share_epoch(SimpleNamespace(value=epoch), schedule.steps_an_epoch)
        dataset.set_max_train_steps(schedule.steps)
    trained: list[list[dict]] = [[] for _ in group.datasets]
    for number in epoch_order(len(group), 42, epoch):
        trained[bisect_right(group.cumulative_sizes, number)].append(group[number])
    return trained


def test_a_preview_of_two_datasets(make_dataset: Callable, world: World, tmp_path: Path) -> None:
    subset = {"shuffle_caption": True}
    group = make_dataset({}, subset, others=[{"resolution": 256, "batch_size": 3}])
    tables = [{"resolution": 192, "batch_size": 2}, {"resolution": 256, "batch_size": 3}]
    folders = sorted((tmp_path / "data").iterdir())
    subsets = [{"image_dir": str(folder), "caption_extension": ".txt", "keep_tokens": 1, **subset} for folder in folders]
    buckets = {"enable_bucket": True, "min_bucket_reso": 64, "subsets": subsets}
    (tmp_path / "data.toml").write_text(toml.dumps({"datasets": [{**table, **buckets} for table in tables]}))
    own = {**world.config, "train_data_dir": None, "dataset_config": str(tmp_path / "data.toml")}

    shown = make_preview(kohya_settings(tmp_path, {}, **own), 2, 1000)

    for seen, trained in zip(shown.datasets, trained_in(group, 2, shown), strict=True):
        captions = [text for example in trained for text in example["captions"]]
        assert [sample.caption for sample, _ in seen.samples] == captions


def test_a_preview_of_pictures_that_are_cached(make_dataset: Callable, vae: Any, world: World, tmp_path: Path) -> None:
    """A cache holds two epochs of joined pictures, which then alternate; one on disk is a cache too."""
    group = make_dataset({"join": "pixel"}, {"shuffle_caption": True}, to_disk=True)
    group.datasets[0].new_cache_latents(vae, ALONE)
    own = {**world.config, "train_data_dir": str(tmp_path / "data"), "shuffle_caption": True, "max_train_epochs": 3}
    own |= {"cache_latents": None, "cache_latents_to_disk": True}
    settings = kohya_settings(tmp_path, {"join": "pixel", "stage2": {"resolution": 192}}, **own)
    for epoch in (2, 3):
        shown = make_preview(settings, epoch, 1000)
        [trained] = trained_in(group, epoch, shown)
        assert [sample.caption for sample, _ in shown.datasets[0].samples] == [c for one in trained for c in one["captions"]]


def test_tagger_captions_and_a_trigger_by_hand_are_trained_as_they_are_shown(
    make_dataset: Callable, library: SimpleNamespace, world: World, tmp_path: Path
) -> None:
    """Single images keep their captions as they are; in a composite's name stands who it is, wherever that stood, and the
    choice that a wildcard drew."""
    texts = {"1_mio": "1girl, {mio|mia}, hat", "1_rin": "1girl, red hair, Rin, hat", "1_uzuki": "1girl, solo, hat"}
    subsets = []
    for folder in sorted((tmp_path / "data").iterdir()):
        for path in folder.glob("*.txt"):
            path.write_text(texts[folder.name])
        own = {"trigger": "uz"} if folder.name == "1_uzuki" else {"enable_wildcard": folder.name == "1_mio"}
        subsets.append({"image_dir": str(folder), "caption_extension": ".txt", "keep_tokens": 1, **own})

    singles = make_dataset(None, subsets=subsets)
    alone = {text for batch in batches(singles, library, [1, 2])[0] for text in batch["captions"]}
    assert alone <= {"1girl, mio, hat", "1girl, mia, hat", texts["1_rin"], texts["1_uzuki"]}

    group = make_dataset({}, subsets=subsets)
    table = {"resolution": 192, "batch_size": 2, "enable_bucket": True, "min_bucket_reso": 64, "subsets": subsets}
    (tmp_path / "data.toml").write_text(toml.dumps({"datasets": [table]}))
    kohya = {**world.config, "train_data_dir": None, "dataset_config": str(tmp_path / "data.toml"), "shuffle_caption": False}
    settings = kohya_settings(tmp_path, {}, **kohya)
    names = set()
    for epoch in (1, 2, 3):
        shown = make_preview(settings, epoch, 1000)
        [trained] = trained_in(group, epoch, shown)
        captions_seen = [text for example in trained for text in example["captions"]]
        assert [sample.caption for sample, _ in shown.datasets[0].samples] == captions_seen
        for name, *tags in (text.split(", ") for text in captions_seen):
            names |= set(name.split("/")) - {"COMPOSITE"}
            assert set(tags) <= {"1girl", "hat", "red hair", "solo"}
    assert names == {"mio", "mia", "Rin", "uz"}
    assert [one.trigger for one in group.datasets[0].plan.characters] == ["Rin", "mio", "uz"]


def test_which_pictures_have_no_bucket_is_upstreams(library: SimpleNamespace) -> None:
    rng, met = random.Random(0), set()
    for _ in range(3000):
        size = int(2 ** rng.uniform(2, 13)), int(2 ** rng.uniform(2, 13))
        canvas = buckets.Canvas((rng.choice((128, 512, 768)), 512), rng.choice((8, 64)), (64, 1024), no_upscale=True)
        manager = library.train_util.BucketManager(True, canvas.size, 64, 1024, canvas.multiple)
        try:
            has_none = min(manager.select_bucket(*size)[0]) < 1
        except ZeroDivisionError:
            has_none = True
        assert buckets.has_no_bucket(size, canvas) == has_none
        met.add(has_none)
    assert met == {True, False}


@pytest.mark.parametrize("script", [name for name in ARCHITECTURES if name != BUILTIN])
def test_what_is_known_of_upstreams_scripts(sd_scripts: Path, script: str) -> None:
    """The bucket steps that its trainer asks for, its cache files' names, and what its tokenize strategy is called."""
    row, upstream = ARCHITECTURES[script], Upstream(sd_scripts, script)
    asked = []
    group = SimpleNamespace(
        verify_bucket_reso_steps=asked.append,
        is_text_encoder_output_cacheable=lambda **_: True,
        get_resolutions=list,
    )
    kinds = [kind for kind in vars(upstream.module).values() if getattr(kind, "__module__", "") == script]
    trainer = next(kind for kind in kinds if hasattr(kind, "assert_extra_args"))
    trainer().assert_extra_args(upstream.parser().parse_args([]), group, None)
    assert math.lcm(*asked) == row.bucket_steps
    strategies = "\n".join(path.read_text(encoding="utf-8") for path in (sd_scripts / "library").glob("strategy_*.py"))
    assert re.search(rf'LATENTS_NPZ_SUFFIX = "{row.latents}"', strategies)
    assert f"class {row.strategy}(" in strategies


# --- captions that are encoded ahead -----------------------------------------------------------------------------


@pytest.fixture
def encoded(library: SimpleNamespace) -> Iterator[Callable[..., list[list[str]]]]:
    """Caches the captions of a group with an encoder whose outputs are the captions themselves; the batches it encoded."""
    base = library.strategy_base

    class Caching(base.TextEncoderOutputsCachingStrategy):
        made: list[list[str]] = []

        def is_disk_cached_outputs_expected(self, path: str) -> bool:
            return self.cache_to_disk and Path(path).is_file() and bool(np.load(path)["text"].size)

        def load_outputs_npz(self, path: str) -> list[np.ndarray]:
            return [np.load(path)["text"]]

        def cache_batch_outputs(self, tokenize: Any, models: Any, encode: Any, batch: list) -> None:
            self.made.append([info.caption for info in batch])
            for info in batch:
                text = np.frombuffer(info.caption.encode().ljust(300), np.uint8).astype(np.float32)
                if self.cache_to_disk:
                    np.savez(info.text_encoder_outputs_npz, text=text)
                else:
                    info.text_encoder_outputs = (text,)

    def cache(group: Any, to_disk: bool = False, model: torch.nn.Module | None = None, where: Any = ALONE) -> list[list[str]]:
        Caching.made = []
        base.TextEncoderOutputsCachingStrategy._strategy = Caching(to_disk, None, False)
        group.datasets[0].new_cache_text_encoder_outputs([model or default], where)
        group.set_current_strategies()
        return Caching.made

    default = torch.nn.Linear(1, 1)
    base.TextEncodingStrategy._strategy = base.TextEncodingStrategy()
    yield cache
    base.TextEncoderOutputsCachingStrategy._strategy = base.TextEncodingStrategy._strategy = None


def texts(batch: dict) -> list[str]:
    """What the fake encoder's outputs say."""
    [outputs] = batch["text_encoder_outputs_list"]
    return [bytes(row.byte().tolist()).decode().strip() for row in outputs]


SHUFFLED = {"shuffle_caption": True, "caption_tag_dropout_rate": 0.3, "caption_dropout_rate": 0.2, "token_warmup_step": 1e6}


@pytest.mark.parametrize("to_disk", [False, True])
def test_encoded_captions_are_the_batchs_and_come_round_again(make_dataset, library, encoded, to_disk) -> None:
    """The captions of two epochs, each with its own draws; a warm-up is over."""
    plain = {**SHUFFLED, "token_warmup_step": 0}
    uncached = batches(make_dataset({}, plain), library, [1, 2])
    group = make_dataset({}, SHUFFLED)
    made = encoded(group, to_disk)

    first, second, third = batches(group, library, [1, 2, 3])

    assert [texts(batch) for batch in first] == [batch["captions"] for batch in uncached[0]]
    assert [texts(batch) for batch in second] == [batch["captions"] for batch in uncached[1]]
    assert [texts(batch) for batch in third] == [texts(batch) for batch in first]
    assert [texts(batch) for batch in second] != [texts(batch) for batch in first]
    assert made == [batch["captions"] for epoch in uncached for batch in epoch], "encoded with other captions than trained"
    assert [batch["captions"] for batch in third] == [batch["captions"] for batch in first]


def test_a_cycle_may_have_more_epochs(make_dataset, library, encoded) -> None:
    group = make_dataset({"cycle_epochs": 3}, SHUFFLED)
    assert len(encoded(group)) == 3 * len(group.datasets[0])
    first, third, fourth = batches(group, library, [1, 3, 4])
    assert [texts(batch) for batch in third] != [texts(batch) for batch in first] == [texts(batch) for batch in fourth]


def test_captions_on_disk_are_encoded_once_and_never_stale(make_dataset, encoded, tmp_path) -> None:
    def cached(**subset: Any) -> tuple[int, set[Path]]:
        made = encoded(make_dataset({}, subset), True, model)
        return len(made), set((tmp_path / "data").rglob("*_composite.npz"))

    model = torch.nn.Linear(1, 1)
    count, first = cached()
    assert count > 2
    assert cached() == (0, first)

    torn = sorted(first)[0]
    torn.write_bytes(torn.read_bytes()[:100])
    assert cached() == (1, first)
    assert torn.stat().st_size > 100

    caption = tmp_path / "data" / "1_rin" / "01.txt"
    caption.write_text(caption.read_text() + ", umbrella")
    changed, after_caption = cached()
    assert 0 < changed < count
    assert after_caption > first

    with torch.no_grad():
        model.weight.add_(1)
    again, after_model = cached()
    assert again == count
    assert len(after_model) > len(after_caption)


@pytest.mark.parametrize("to_disk", [False, True])
def test_processes_share_the_encoding_of_captions(make_dataset, library, encoded, monkeypatch, to_disk) -> None:
    everything = encoded(make_dataset({}))
    shares, gathered = [], []
    monkeypatch.setattr("lycoris_composite.trainers.kohya.dataset.gather_object", lambda made: [*gathered, *made])
    for rank in (1, 0):
        group = make_dataset({})
        try:
            shares.append(encoded(group, to_disk, where=SimpleNamespace(num_processes=2, process_index=rank)))
        except KeyError:  # in memory the first process has nobody yet to get the others from
            shares.append(everything[1::2])
            infos = group.datasets[0]._encoded_captions.values()
            gathered += [(i.image_key, i.text_encoder_outputs) for i in infos if i.text_encoder_outputs]
    assert shares == [everything[1::2], everything[0::2]]
    [epoch] = batches(group, library, [1])
    assert [texts(batch) for batch in epoch] == [batch["captions"] for batch in epoch]
