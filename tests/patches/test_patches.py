"""Each patch fits this upstream, applies, is taken back, and refuses an upstream that changed."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sd_scripts_patches.tools import Misfit, all_of, looked_up, replace, replace_everywhere, require, require_parameters

pytestmark = pytest.mark.trainer

# patch: what it is handed, and the upstream symbols it replaces
PATCHES: dict[str, tuple[tuple, list[str]]] = {
    "strategies": (
        (),
        ["library.strategy_base:TokenizeStrategy._strategy", "library.strategy_base:LatentsCachingStrategy._strategy"],
    ),
    "dreambooth_dataset": (
        (type("Dataset", (), {}), dict),
        [
            "library.config_util:DreamBoothDataset",
            "library.config_util:DreamBoothDatasetParams",
            "library.config_util:ConfigSanitizer.DATASET_ASCENDABLE_SCHEMA",
        ],
    ),
    "dreambooth_subset": (
        (),
        [
            "library.config_util:DreamBoothSubset",
            "library.config_util:DreamBoothSubsetParams",
            "library.config_util:ConfigSanitizer.DB_SUBSET_DISTINCT_SCHEMA",
        ],
    ),
    "collator_class": ((list().append,), ["library.train_util:collator_class"]),
    "load_image": ((open, len), ["library.train_util:load_image", "library.train_util:BaseDataset.get_image_size"]),
    "checkpoint_loading": ((ValueError,), ["torch:load"]),
    "accelerate_process_group": ((), ["accelerate.state:PartialState.destroy_process_group"]),
    "accelerate_frozen_model": ((), ["accelerate:Accelerator.prepare_model"]),
    "accelerate_save_state": ((open, len), ["accelerate:Accelerator.save_state"]),
    "numpy_savez": ((open,), ["numpy:savez"]),
    "glob_images": (((),), ["library.train_util:glob_images"]),
    "random_sampler": ((range,), ["torch.utils.data:RandomSampler.__iter__"]),
    "training_loop_start": ((), ["train_network:NetworkTrainer.train"]),
    "lycoris_timestep_embedding": ((), ["lycoris.kohya:LycorisNetworkKohya.__init__"]),
}
# patch: one symbol without which it must refuse
NEEDED = {
    "strategies": "library.strategy_base:TextEncodingStrategy",
    "dreambooth_dataset": "library.config_util:DreamBoothDatasetParams",
    "dreambooth_subset": "library.config_util:DreamBoothSubsetParams",
    "collator_class": "train_network:NetworkTrainer.train",
    "load_image": "library.strategy_base:LatentsCachingStrategy._default_cache_batch_latents",
    "checkpoint_loading": "torch:load",
    "accelerate_process_group": "accelerate.state:PartialState.destroy_process_group",
    "accelerate_frozen_model": "accelerate:Accelerator.prepare_model",
    "accelerate_save_state": "accelerate:Accelerator.save_state",
    "numpy_savez": "numpy:savez",
    "glob_images": "library.config_util:DreamBoothDataset",
    "training_loop_start": "train_network:NetworkTrainer.train",
    "lycoris_timestep_embedding": "lycoris.kohya:LycorisNetworkKohya.UNET_TARGET_REPLACE_NAME",
}


@pytest.fixture(autouse=True)
def upstream(sd_scripts: Path) -> Iterator[None]:
    sys.path.insert(0, str(sd_scripts))
    yield
    sys.path.remove(str(sd_scripts))


def patch(name: str) -> ModuleType:
    return importlib.import_module(f"sd_scripts_patches.{name}")


def place(symbol: str) -> tuple[Any, str]:
    module, _, path = symbol.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, last


@pytest.mark.parametrize("name", PATCHES)
def test_it_fits_applies_and_is_undone(name: str) -> None:
    given, symbols = PATCHES[name]
    places = [place(symbol) for symbol in symbols]
    before = [owner.__dict__[last] for owner, last in places]

    patch(name).check()
    assert [owner.__dict__[last] for owner, last in places] == before, "check changed something"
    undo = patch(name).apply(*given)
    after = [owner.__dict__[last] for owner, last in places]
    with pytest.raises(RuntimeError, match="is patched already"):
        patch(name).apply(*given)
    undo()

    if name != "strategies":  # those are None before and after, unless a run has set them
        assert all(new is not old for new, old in zip(after, before, strict=True))
    assert all(owner.__dict__[last] is old for (owner, last), old in zip(places, before, strict=True))


@pytest.mark.parametrize("name", NEEDED)
def test_it_refuses_an_upstream_that_lacks_what_it_needs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, last = place(NEEDED[name])
    patch(name)  # imported before the symbol goes
    monkeypatch.delattr(owner, last)
    with pytest.raises(Misfit, match=f"has no {last}"):
        patch(name).check()


def test_it_refuses_a_dataset_that_takes_something_new(monkeypatch: pytest.MonkeyPatch) -> None:
    from library import config_util

    class Dataset(config_util.DreamBoothDataset):
        def __init__(self, subsets: Any, is_training_dataset: bool, brand_new: int) -> None: ...

    monkeypatch.setattr(config_util, "DreamBoothDataset", Dataset)
    with pytest.raises(Misfit, match=r"DreamBoothDataset takes \[.*'brand_new'"):
        patch("dreambooth_dataset").check()


def test_a_trigger_is_let_in_with_the_patch_alone() -> None:
    from library import config_util
    from voluptuous import MultipleInvalid

    tables = {"datasets": [{"resolution": 64, "subsets": [{"image_dir": "a", "trigger": "ana"}, {"image_dir": "b"}]}]}

    def subsets() -> list[Any]:
        config_util.ConfigSanitizer(True, True, False, True).sanitize_user_config(tables)
        kinds = config_util.DreamBoothSubsetParams, config_util.DreamBoothSubset
        levels = [
            [table, {"caption_separator": ",", "keep_tokens_separator": ""}] for table in tables["datasets"][0]["subsets"]
        ]
        made = [config_util.BlueprintGenerator.generate_params_by_fallbacks(kinds[0], own) for own in levels]
        return [kinds[1](**dataclasses.asdict(params)) for params in made]

    with pytest.raises(MultipleInvalid, match="trigger"):
        subsets()
    undo = patch("dreambooth_subset").apply()
    try:
        assert [pickle.loads(pickle.dumps(subset)).trigger for subset in subsets()] == ["ana", None]
    finally:
        undo()
    with pytest.raises(MultipleInvalid, match="trigger"):
        subsets()


def test_it_refuses_a_loop_that_counts_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from train_network import NetworkTrainer

    loop = patch("training_loop_start")

    def train(self: Any, args: Any) -> None: ...

    monkeypatch.setattr(NetworkTrainer, "train", train)
    with pytest.raises(Misfit, match="makes 0 progress bars and lacks .*global_step"):
        loop.check()


def test_the_loop_keeps_its_lines_for_tracebacks() -> None:
    from train_network import NetworkTrainer

    before = NetworkTrainer.train.__code__
    undo = patch("training_loop_start").apply()
    after = NetworkTrainer.train.__code__
    undo()
    assert (after.co_filename, after.co_firstlineno) == (before.co_filename, before.co_firstlineno)
    assert "begin_loop" in after.co_names
    assert "begin_loop" not in before.co_names


# --- a name that has moved ---------------------------------------------------------------------------------------


def module_of(name: str, text: str, **names: Any) -> ModuleType:
    """A loaded module with this source, and other modules under the names that it imports them by."""
    module = ModuleType(name)
    vars(module).update(names)
    exec(compile(text, name, "exec"), module.__dict__)
    return module


HOME = "def load(path): return 'old'"


@pytest.mark.parametrize(
    "caller",
    [
        "def call(): return load(1)",
        "def call(): return home.load(1)",
        "def call(): return [inner() for inner in [lambda: home.load(1)]][0]",
        "def call():\n    from home_of_load import load\n    return load(1)",
        "def call():\n    import home_of_load as it\n    return it.load(1)",
        "def call(submit=lambda f: f(1)): return submit(load)",
    ],
)
def test_a_patch_follows_a_name_to_where_its_caller_finds_it(monkeypatch: pytest.MonkeyPatch, caller: str) -> None:
    home = module_of("home_of_load", HOME)
    monkeypatch.setitem(sys.modules, "home_of_load", home)
    user = module_of("user_of_load", caller, load=home.load, home=home)
    monkeypatch.setitem(sys.modules, "user_of_load", user)
    monkeypatch.setitem(sys.modules, "old_home", module_of("old_home", "", load=home.load))

    original = looked_up(user.call, "load")
    assert original is home.load
    undo = replace_everywhere("load", original, lambda path: "new")
    assert user.call() == "new"
    assert sys.modules["old_home"].load(1) == "new"
    late = module_of("late", "", load=home.load)
    monkeypatch.setitem(sys.modules, "late", late)
    undo()
    assert user.call() == "old"
    assert late.load is original, "what was imported meanwhile keeps nothing"


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        ("def call(): return other(1)", "no longer looks up load"),
        ("def call(load): return load(1)", "no longer looks up load"),
        ("def call(self): return self.load(1)", "no longer looks up load"),
        ("def call(): return load(1) or away.load(1)", "finds different things under load"),
    ],
)
def test_a_name_that_its_caller_does_not_look_up_is_a_misfit(caller: str, reason: str) -> None:
    home = module_of("home_of_load", HOME)
    user = module_of("user_of_load", caller, load=home.load, away=module_of("away", HOME))
    with pytest.raises(Misfit, match=reason):
        looked_up(user.call, "load")


def test_a_loader_that_reads_by_another_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What v0.11 did to the earlier patch: the name was there, and the cache read by another one."""
    from library.strategy_base import LatentsCachingStrategy

    caching = looked_up(LatentsCachingStrategy._default_cache_batch_latents, "load_images_and_masks_for_caching")
    monkeypatch.setitem(caching.__globals__, "load_image", lambda path, alpha=False: None)
    with pytest.raises(Misfit, match="looks up another load_image than|finds different things"):
        patch("load_image").check()


def test_two_replacements_are_undone_in_reverse() -> None:
    owner = type("Owner", (), {"name": 1})
    undo = all_of(
        [replace(owner, "name", 2), replace(owner, "other", 3)] if hasattr(owner, "other") else [replace(owner, "name", 2)]
    )
    assert owner.name == 2
    undo()
    assert owner.name == 1
    replace(owner, "name", 4)()
    assert owner.name == 1


def test_an_inherited_attribute_is_inherited_again() -> None:
    base = type("Base", (), {"name": 1})
    child = type("Child", (base,), {})
    replace(child, "name", 2)()
    assert "name" not in child.__dict__


def test_requirements_say_what_is_missing() -> None:
    with pytest.raises(Misfit, match="has no nothing_of_the_sort"):
        require(sys, "nothing_of_the_sort")
    with pytest.raises(Misfit, match="no longer takes volume"):
        require_parameters(lambda pitch: None, "volume")
