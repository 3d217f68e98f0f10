"""Kohya's settings to datasets: folders, dataset_config files, and which level an option comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toml
from PIL import Image

from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.config.datasets import Dataset, _check_buckets, datasets_of, ignored_folders, plan_of
from lycoris_composite.config.options import KohyaSettings, parse_resolution
from lycoris_composite.config.stages import Stage
from lycoris_composite.data.buckets import Canvas
from lycoris_composite.data.tags import CaptionRules
from lycoris_composite.errors import UserError
from tests.helpers import write_characters, write_subset

RESOLUTION = {"resolution": "640,640"}


def stage_with(**settings: Any) -> Stage:
    return Stage(1, "somebodys_train_network", KohyaSettings(settings), None)  # whose bucket steps nobody knows


def from_folders(folder: Path, **settings: Any) -> Dataset:
    (dataset,) = datasets_of(stage_with(train_data_dir=str(folder), **{**RESOLUTION, **settings}))
    return dataset


def from_tables(tmp_path: Path, tables: dict, **settings: Any) -> list[Dataset]:
    path = tmp_path / "data.toml"
    path.write_text(toml.dumps(tables), encoding="utf-8")
    return datasets_of(stage_with(dataset_config=str(path), **{**RESOLUTION, **settings}))


# --- folders -----------------------------------------------------------------------------------------------------


def test_kohyas_folders(tmp_path):
    for name in ("10_uzuki", "5_rin girl", "10_mio_school", "notes", "0_off", "x_y"):
        (tmp_path / name).mkdir()
    (tmp_path / "3_file").touch()
    subsets = from_folders(tmp_path).subsets
    assert [(subset.repeats, subset.class_tokens) for subset in subsets] == [(10, "mio_school"), (10, "uzuki"), (5, "rin girl")]
    assert [subset.folder for subset in subsets] == [
        str(tmp_path / name) for name in ("10_mio_school", "10_uzuki", "5_rin girl")
    ]


def test_a_folder_of_images_that_upstream_passes_over_is_named(tmp_path):
    write_characters(tmp_path, "uzuki", "rin", "mio")
    (tmp_path / "1_mio").rename(tmp_path / "mio")
    (tmp_path / "notes").mkdir()
    assert ignored_folders(KohyaSettings({"train_data_dir": str(tmp_path)})) == [
        f"{tmp_path / 'mio'}: its 2 picture(s) are not trained on; name it <repeats>_<character>, such as 10_mio."
    ]


@pytest.mark.parametrize(
    ("name", "advised"),
    [
        ("0_mio", "mio"),
        ("1.5_mio", "mio"),
        ("-1_mio", "mio"),
        ("10-mio", "mio"),
        ("10 mio", "mio"),
        ("_mio", "mio"),
        ("mio_x", "mio_x"),
    ],
)
def test_the_name_that_is_advised_is_one_that_upstream_takes(tmp_path, name, advised):
    """Case 25: the advice was 10_0_mio."""
    write_characters(tmp_path, "rin")
    write_subset(tmp_path / name, {"01": "mio"})
    [line] = ignored_folders(KohyaSettings({"train_data_dir": str(tmp_path)}))
    assert (
        line == f"{tmp_path / name}: its 1 picture(s) are not trained on; name it <repeats>_<character>, such as 10_{advised}."
    )


def test_repeats_are_read_as_upstream_reads_them(tmp_path):
    for name in ("+3_rin", "007_mio", " 2_uzuki", "4"):
        write_subset(tmp_path / name, {"01": "x"})
    assert [(one.repeats, one.class_tokens) for one in from_folders(tmp_path).subsets] == [
        *((2, "uzuki"), (3, "rin"), (7, "mio"), (4, ""))
    ]
    assert ignored_folders(KohyaSettings({"train_data_dir": str(tmp_path)})) == []


def test_pictures_beside_the_folders_and_below_ignored_ones_are_named(tmp_path):
    """Case 21."""
    write_characters(tmp_path / "data", "rin", "mio")
    for number in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"data/{number}.png")
    write_subset(tmp_path / "data/more/deep", {"01": "x"})
    write_subset(tmp_path / "reg/girl", {"01": None})
    beside, below, regularization = ignored_folders(
        KohyaSettings(train_data_dir=str(tmp_path / "data"), reg_data_dir=str(tmp_path / "reg"))
    )
    assert beside.endswith("data: 5 picture(s) in it are not trained on: 0.png, 1.png, 2.png and 2 more; put them into <repeats>_<character> folders.")  # fmt: skip
    assert below.startswith(f"{tmp_path / 'data/more'}: its 1 picture(s) are not trained on")
    assert regularization.endswith("such as 10_girl.")


def test_a_data_folder_that_is_one_level_off(tmp_path):
    write_characters(tmp_path / "img", "rin", "mio")
    with pytest.raises(UserError, match=f"such as 10_rin; {tmp_path}/img has some, so set train_data_dir to that"):
        from_folders(tmp_path)
    with pytest.raises(
        UserError, match=f"it holds pictures itself, so set train_data_dir to the folder above it, {tmp_path}/img"
    ):
        from_folders(tmp_path / "img/1_rin")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resolution": "60,60"}, "resolution: 60x60 is smaller than 64x64, one bucket step; give a larger one."),
        ({"resolution": "640,640", "enable_bucket": True, "bucket_reso_steps": 4096}, "640x640 is smaller than 4096x4096"),
        ({"resolution": "640,640", "enable_bucket": True, "min_bucket_reso": 704}, "max_bucket_reso, 704 to 1024"),
        ({"resolution": "1280,640", "enable_bucket": True}, "max_bucket_reso, 256 to 1024; change one of them."),
        (
            {"enable_bucket": True, "min_bucket_reso": 32},
            "min_bucket_reso: 32 is below bucket_reso_steps, 64; give 64 or more.",
        ),
        (
            {"enable_bucket": True, "min_bucket_reso": 127, "bucket_reso_steps": 128},
            "min_bucket_reso: 127 is below bucket_reso_steps",
        ),
    ],
)
def test_a_resolution_that_no_bucket_can_have(tmp_path, settings, sentence):
    write_characters(tmp_path, "uzuki", "rin")
    with pytest.raises(UserError, match=sentence):
        from_folders(tmp_path, **settings)


def test_the_smallest_bucket_is_no_matter_where_it_is_not_used(tmp_path):
    write_characters(tmp_path, "uzuki", "rin")
    assert from_folders(tmp_path, min_bucket_reso=32).canvas.bucket_range is None
    assert from_folders(tmp_path, enable_bucket=True, bucket_no_upscale=True, min_bucket_reso=32).canvas.no_upscale


@pytest.mark.parametrize(
    ("trainer", "steps", "wanted"),
    [("train_network", 32, 64), ("sdxl_train_network", 16, 32), ("flux_train_network", 32, 64), ("sd3_train_network", 48, 32),
     ("hunyuan_image_train_network", 32, 64), ("lumina_train_network", 32, 64), ("anima_train_network", 8, 16)],
)  # fmt: skip
def test_bucket_steps_that_upstream_asserts_against(tmp_path, trainer, steps, wanted):
    """Case 10."""
    write_characters(tmp_path, "uzuki", "rin")
    wrong, right = (from_folders(tmp_path, enable_bucket=True, bucket_reso_steps=own) for own in (steps, wanted * 2))
    with pytest.raises(
        UserError, match=f"bucket_reso_steps: {steps} is no multiple of {wanted}, which {trainer} needs; give {wanted}"
    ):
        _check_buckets([wrong], trainer)
    _check_buckets([right], trainer)
    _check_buckets([wrong], "somebodys_train_network")
    _check_buckets([from_folders(tmp_path, bucket_reso_steps=steps)], trainer)  # upstream forgets them without buckets


def test_the_smallest_bucket_counts_rounded_down_to_the_steps(tmp_path):
    write_characters(tmp_path, "uzuki", "rin")
    assert from_folders(tmp_path, enable_bucket=True, min_bucket_reso=700).canvas.bucket_range == (640, 1024)


def test_the_order_of_a_listing_changes_nothing(tmp_path, monkeypatch):
    write_characters(tmp_path, "uzuki", "rin", "mio")
    plain = from_folders(tmp_path)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listing(path), reverse=True)))
    assert from_folders(tmp_path) == plain
    options = CompositeOptions()
    turned = plan_of(from_folders(tmp_path, caption_extension=".txt", keep_tokens=1), options, 42)
    monkeypatch.undo()
    plan = plan_of(from_folders(tmp_path, caption_extension=".txt", keep_tokens=1), options, 42)
    assert turned.composite(1, 0) == plan.composite(1, 0)


def test_a_missing_data_folder(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/gone: no such folder; correct train_data_dir"):
        from_folders(tmp_path / "gone")


def test_a_data_folder_without_character_folders(tmp_path):
    (tmp_path / "rin").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path}: no <repeats>_<character> folders in it, such as 10_rin; rename"):
        from_folders(tmp_path)


def test_no_data_at_all():
    with pytest.raises(UserError, match="train_data_dir: not set; name the folder of .* or a dataset_config"):
        datasets_of(stage_with(**RESOLUTION))


def test_metadata_files_are_no_characters():
    with pytest.raises(UserError, match='in_json = "meta.json": characters need caption files; use train_data_dir'):
        datasets_of(stage_with(in_json="meta.json", train_data_dir="x"))


def test_regularization_folders_are_no_characters(tmp_path):
    write_characters(tmp_path / "data", "rin", "mio")
    write_characters(tmp_path / "reg", "girl")
    dataset = from_folders(tmp_path / "data", reg_data_dir=str(tmp_path / "reg"))
    assert [subset.class_tokens for subset in dataset.subsets] == ["mio", "rin"]
    assert [subset.class_tokens for subset in dataset.regularization] == ["girl"]


def test_regularization_that_is_not_there(tmp_path):
    """Case 17: upstream trained without it."""
    write_characters(tmp_path / "data", "rin", "mio")
    with pytest.raises(UserError, match=f"{tmp_path}/gone: no such folder; correct reg_data_dir"):
        from_folders(tmp_path / "data", reg_data_dir=str(tmp_path / "gone"))
    write_subset(tmp_path / "reg/girl", {"01": None})
    with pytest.raises(UserError, match="reg: no <repeats>_<character> folders in it"):
        from_folders(tmp_path / "data", reg_data_dir=str(tmp_path / "reg"))
    assert from_folders(tmp_path / "data", reg_data_dir="").regularization == ()


# --- dataset_config ----------------------------------------------------------------------------------------------


def test_regularization_subsets_are_no_characters(tmp_path):
    subsets = [{"image_dir": "rin"}, {"image_dir": "girls", "is_reg": True}, {"image_dir": "mio", "is_reg": False}]
    (dataset,) = from_tables(tmp_path, {"datasets": [{"subsets": subsets}]})
    assert [subset.folder for subset in dataset.subsets] == ["rin", "mio"]
    assert [subset.folder for subset in dataset.regularization] == ["girls"]


def test_a_trigger_is_its_subsets_own(tmp_path):
    subsets = [{"image_dir": "a", "trigger": "ana"}, {"image_dir": "b"}]
    (dataset,) = from_tables(tmp_path, {"datasets": [{"subsets": subsets}]})
    assert [subset.trigger for subset in dataset.subsets] == ["ana", None]
    with pytest.raises(UserError, match="data.toml, trigger: 3 is no text; write one"):
        from_tables(tmp_path, {"datasets": [{"subsets": [{"image_dir": "a", "trigger": 3}]}]})


def test_an_option_falls_back_from_subset_to_dataset_to_general_to_flags(tmp_path):
    levels = {"keep_tokens": 1, "num_repeats": 1, "class_tokens": "subset", "flip_aug": True}
    tables = {
        "general": {
            "keep_tokens": 3,
            "num_repeats": 3,
            "shuffle_caption": True,
            "caption_prefix": "general",
            "resolution": 512,
        },
        "datasets": [
            {"keep_tokens": 2, "num_repeats": 2, "caption_prefix": "dataset", "subsets": [{"image_dir": "a", **levels}]},
            {"resolution": [768, 512], "subsets": [{"image_dir": "b"}]},
        ],
    }
    flags = {
        "keep_tokens": 4,
        "dataset_repeats": 4,
        "caption_prefix": "flags",
        "caption_suffix": "flags",
        "caption_extension": "txt",
    }
    first, second = from_tables(tmp_path, tables, **flags)
    (a,), (b,) = first.subsets, second.subsets
    assert (a.rules.keep_tokens, a.repeats, a.class_tokens, a.flip_aug) == (1, 1, "subset", True)
    assert (b.rules.keep_tokens, b.repeats, b.class_tokens, b.flip_aug) == (3, 3, None, False)
    assert (a.rules.caption_prefix, b.rules.caption_prefix) == ("dataset", "general")
    assert a.rules.shuffle_caption
    assert a.rules.caption_suffix == "flags"
    assert a.caption_extension == ".txt"
    assert (first.canvas.size, second.canvas.size) == ((512, 512), (768, 512))


def test_a_false_or_zero_further_in_is_an_answer(tmp_path):
    tables = {"general": {"shuffle_caption": True, "keep_tokens": 2}, "datasets": [{"subsets": [{"image_dir": "a"}]}]}
    tables["datasets"][0]["subsets"][0] |= {"shuffle_caption": False, "keep_tokens": 0}
    ((a,),) = [dataset.subsets for dataset in from_tables(tmp_path, tables)]
    assert (a.rules.shuffle_caption, a.rules.keep_tokens) == (False, 0)


def test_the_flags_own_names_are_understood(tmp_path):
    tables = {
        "datasets": [{"subsets": [{"image_dir": "a"}]}, {"batch_size": 3, "subsets": [{"image_dir": "b", "num_repeats": 2}]}]
    }
    plain, own = from_tables(tmp_path, tables, train_batch_size=4, dataset_repeats=7)
    assert (plain.batch_size, own.batch_size) == (4, 3)
    assert (plain.subsets[0].repeats, own.subsets[0].repeats) == (7, 2)


def test_without_any_setting_upstreams_defaults_hold(tmp_path):
    (dataset,) = from_tables(tmp_path, {"datasets": [{"subsets": [{"image_dir": "a"}]}]})
    (a,) = dataset.subsets
    assert dataset.batch_size == 1
    assert (a.repeats, a.caption_extension, a.rules) == (1, ".caption", CaptionRules())


@pytest.mark.parametrize("table", ["general", "datasets"])
def test_a_composite_table_of_its_own(tmp_path, table):
    tables = {"general": {}, "datasets": [{"subsets": [{"image_dir": "a"}]}]}
    (tables[table][0] if table == "datasets" else tables[table])["composite"] = {"join": "latent"}
    with pytest.raises(UserError, match="data.toml: has a composite table of its own; run it with `lycoris-composite run`"):
        from_tables(tmp_path, tables)


def test_a_dataset_config_without_datasets(tmp_path):
    with pytest.raises(UserError, match=r"data.toml: no \[\[datasets\]\] in it; add one"):
        from_tables(tmp_path, {"general": {"resolution": 512}})


def test_a_missing_dataset_config_is_named(tmp_path):
    with pytest.raises(UserError, match="gone.toml: no such file"):
        datasets_of(stage_with(dataset_config=str(tmp_path / "gone.toml"), **RESOLUTION))


def test_subsets_that_upstream_ignores_are_no_characters(tmp_path):
    """Upstream ignores a subset whose num_repeats is below 1, so the data has one character less."""
    write_characters(tmp_path, "rin", "mio")
    subsets = [{"image_dir": str(tmp_path / "1_rin")}, {"image_dir": str(tmp_path / "1_mio"), "num_repeats": 0}]
    tables = {"datasets": [{"keep_tokens": 1, "caption_extension": ".txt", "subsets": subsets}]}
    with pytest.raises(UserError, match="two characters or more, but the data has 1"):
        plan_of(from_tables(tmp_path, tables)[0], CompositeOptions(), 42).composite(1, 0)


# --- the canvas --------------------------------------------------------------------------------------------------


def test_without_buckets_the_resolution_is_all(tmp_path):
    (tmp_path / "1_rin").mkdir()
    assert from_folders(tmp_path, bucket_no_upscale=True, bucket_reso_steps=32).canvas == Canvas((640, 640), 64)


def test_bucket_options_reach_the_canvas(tmp_path):
    (tmp_path / "1_rin").mkdir()
    plain = from_folders(tmp_path, enable_bucket=True).canvas
    assert plain == Canvas((640, 640), 64, (256, 1024))
    options = {"bucket_reso_steps": 48, "min_bucket_reso": 200, "max_bucket_reso": 1000, "bucket_no_upscale": True}
    assert from_folders(tmp_path, enable_bucket=True, **options).canvas == Canvas((640, 640), 48, (192, 1008), no_upscale=True)


def test_the_aspect_is_handed_on(tmp_path):
    (tmp_path / "1_rin").mkdir()
    settings = {"train_data_dir": str(tmp_path), **RESOLUTION}
    assert datasets_of(replace(stage_with(**settings), composite=CompositeOptions(aspect="equal")))[0].canvas.aspect == "equal"


@pytest.mark.parametrize(
    ("value", "size"),
    [("768,512", (768, 512)), (" 768 , 512 ", (768, 512)), ("768", (768, 768)), (768, (768, 768)), ([768, 512], (768, 512))],
)
def test_resolution(value, size):
    assert parse_resolution(value) == size


@pytest.mark.parametrize("value", ["640x640", "", "1,2,3", "0,640", [-64, 64], [], {}, "640,"])
def test_a_resolution_that_is_no_size(value):
    with pytest.raises(UserError, match='resolution: .* is no size; write "width,height" in pixels'):
        parse_resolution(value)


def test_a_missing_resolution(tmp_path):
    (tmp_path / "1_rin").mkdir()
    with pytest.raises(UserError, match='resolution: not set; give the training size, e.g. resolution = "640,640"'):
        from_folders(tmp_path, resolution=None)


# --- to a plan ---------------------------------------------------------------------------------------------------


def test_a_plan_from_folders(tmp_path):
    write_characters(tmp_path, "rin", "mio", images=3, repeats=2)
    dataset = from_folders(tmp_path, caption_extension=".txt", keep_tokens=1, train_batch_size=4)
    plan = plan_of(dataset, CompositeOptions(), 42)
    assert [(character.trigger, len(character.images)) for character in plan.characters] == [("mio", 3), ("rin", 3)]
    assert (plan.composites, plan.batch_size, plan.seed) == (12, 4, 42)
    assert plan.caption(plan.composite(1, 0), 1).split(",")[0] in ("mio/rin/COMPOSITE", "rin/mio/COMPOSITE")


def test_a_subset_without_a_folder_is_named(tmp_path):
    """Fine-tuning subsets name a metadata_file; they have no characters."""
    tables = {"datasets": [{"subsets": [{"metadata_file": "meta.json"}, {"image_dir": "b"}]}]}
    with pytest.raises(UserError, match="image_dir"):
        plan_of(from_tables(tmp_path, tables)[0], CompositeOptions(), 42)


def test_what_stage_2_sets_wins_over_its_dataset_config(tmp_path):
    path = tmp_path / "data.toml"
    path.write_text(toml.dumps({"datasets": [{"resolution": 512, "subsets": [{"image_dir": "a"}]}]}))
    stage = stage_with(dataset_config=str(path), resolution="768,512")
    assert datasets_of(stage)[0].canvas.size == (512, 512)
    assert datasets_of(replace(stage, overrides={"resolution": "768,512"}))[0].canvas.size == (768, 512)
