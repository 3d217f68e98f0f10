"""What is checked before training, and what the launcher says of it."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from lycoris_composite import launcher
from lycoris_composite.composites.plan import Plan
from lycoris_composite.config.datasets import Dataset, datasets_of, without_skip
from lycoris_composite.config.schedule import single_cost
from lycoris_composite.config.settings import CompositeOptions, Settings
from lycoris_composite.config.stages import Stage, stages_of
from lycoris_composite.data.characters import Subset
from lycoris_composite.errors import UserError, raise_first
from lycoris_composite.preflight import checks, inputs
from lycoris_composite.preflight.inputs import Data
from lycoris_composite.preflight.refusals import Refusals
from lycoris_composite.preflight.weights import weight_errors
from lycoris_composite.run import journal
from tests import tiny


def joined(settings: Settings) -> list[Dataset]:
    return datasets_of(stages_of(settings)[1])


def data_of(settings: Settings) -> Data:
    """What a run of these settings reads, its bad files left out."""
    stages = stages_of(settings)
    return inputs.read_data(stages, stages[1], Refusals(), lambda bad: None, show_progress=False)


def plans_of(settings: Settings) -> list[Plan]:
    return data_of(settings).plans


def check_weights(stages: list[Stage]) -> None:
    raise_first(weight_errors(stages))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tiny.draw_characters(tmp_path / "data", images=3)
    kohya = {"train_data_dir": str(tmp_path / "data"), "resolution": "128,128", "caption_extension": ".txt", "keep_tokens": 1}
    return Settings(tmp_path / "cg3.toml", {**kohya, "output_dir": str(tmp_path / "out"), "seed": 1}, CompositeOptions())


def bad(settings: Settings) -> dict[str, str]:
    return {path: file.why_not for path, file in inputs.image_files(joined(settings), False).items() if file.why_not}


def break_some(data: Path) -> list[Path]:
    """A broken file of each kind, by its path."""
    made = [
        shutil.copy(path, data / "1_rin" / f"{kind}{path.suffix}")
        for kind, path in tiny.broken_images(data.parent / "broken").items()
    ]
    (data / "1_mio/01.txt").write_bytes(b"mio, \xff")
    (data / "1_mio/02.txt").write_text("")
    (data / "1_uzuki/loop.png").symlink_to("loop.png")
    return [*map(Path, made), data / "1_mio/01.png", data / "1_mio/02.png", data / "1_uzuki/loop.png"]


def test_good_files_are_not_named(settings):
    assert bad(settings) == {}


def test_every_bad_file_is_named_at_once(settings, tmp_path):
    broken = break_some(tmp_path / "data")
    found = bad(settings)
    assert sorted(found) == sorted(map(str, broken))
    for path, reason in found.items():
        assert os.path.splitext(path)[0] in reason
        assert "\n" not in reason


def test_they_are_refused_or_left_out(settings, tmp_path, capsys):
    break_some(tmp_path / "data")
    found = bad(settings)
    with pytest.raises(UserError, match=rf"{len(found)} file\(s\) cannot be used \(named above\)"):
        checks._check_bad(found, False, print)
    assert capsys.readouterr().out.count("bad file: ") == len(found)

    checks._check_bad(found, True, print)
    [plan] = plans_of(settings)

    assert {character.trigger: len(character.images) for character in plan.characters} == {"mio": 1, "rin": 3, "uzuki": 3}
    assert capsys.readouterr().out.count("left out: ") == len(found)


def with_options(settings: Settings, **kohya: object) -> Settings:
    return Settings(settings.path, {**settings.kohya, **kohya}, settings.composite)


@pytest.mark.parametrize("size", [(40, 40), (60, 300), (9000, 20)])
def test_pictures_too_small_for_a_bucket_are_bad_files(settings, tmp_path, size):
    """Case 9: upstream divided by the width of a bucket that is 0."""
    Image.new("RGB", size).save(tmp_path / "data/1_rin/02.png")
    assert bad(with_options(settings, enable_bucket=True, min_bucket_reso=64)) == {}
    [(path, reason)] = bad(with_options(settings, enable_bucket=True, min_bucket_reso=64, bucket_no_upscale=True)).items()
    assert path == str(tmp_path / "data/1_rin/02.png")
    assert f"its {size[0]}x{size[1]} pixels make less than a bucket step, 64, and bucket_no_upscale leaves them so; " in reason


def test_bucket_steps_are_checked_for_both_stages(settings):
    wrong = with_options(settings, enable_bucket=True, min_bucket_reso=64, bucket_reso_steps=32)
    for read in (joined, lambda own: datasets_of(stages_of(own)[0])):
        with pytest.raises(UserError, match="bucket_reso_steps: 32 is no multiple of 64, which train_network needs"):
            read(wrong)
    later = Settings(
        settings.path,
        settings.kohya,
        settings.composite,
        stage2={"enable_bucket": True, "min_bucket_reso": 64, "bucket_reso_steps": 32},
    )
    with pytest.raises(UserError, match="bucket_reso_steps: 32 is no multiple of 64"):
        joined(later)


def test_regularization_images_are_looked_at_too(settings, tmp_path):
    (tmp_path / "reg/1_girl").mkdir(parents=True)
    own = with_options(settings, reg_data_dir=str(tmp_path / "reg"))
    with pytest.raises(UserError, match="1_girl: no regularization images in it; add some, or take it out of the config"):
        bad(own)
    (tmp_path / "reg/1_girl/01.png").write_bytes(b"no picture")
    assert list(bad(own)) == [str(tmp_path / "reg/1_girl/01.png")]


@pytest.mark.parametrize("is_reg", [False, True])
def test_an_image_dir_that_is_not_there(settings, tmp_path, is_reg):
    """Case 17."""
    tables = [
        *(f'image_dir = "{path}"' for path in sorted((tmp_path / "data").iterdir())),
        f'image_dir = "{tmp_path}/gone"\nis_reg = {str(is_reg).lower()}',
    ]
    (tmp_path / "data.toml").write_text("[[datasets]]\n" + "".join(f"[[datasets.subsets]]\n{table}\n" for table in tables))
    with pytest.raises(UserError, match=f"{tmp_path}/gone: no such folder; correct the path in the config"):
        bad(with_options(settings, dataset_config=str(tmp_path / "data.toml")))


def said_of(settings: Settings) -> list[str]:
    stages = stages_of(settings)
    data = data_of(settings)
    return inputs.passed_over(stages, data.singles, data.plans)


def test_what_is_left_out_of_any_folder_is_said_once(settings, tmp_path):
    assert said_of(settings) == []
    for folder in ("data/1_rin", "reg/1_girl"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / folder / "x.gif")
    Image.new("RGB", (64, 64)).save(tmp_path / "reg/1_girl/x.png")
    rin, girl = said_of(with_options(settings, reg_data_dir=str(tmp_path / "reg")))
    assert rin.startswith(f"{tmp_path}/data/1_rin: 1 picture(s) left out, as sd-scripts does not read .gif: x.gif")
    assert girl.startswith(f"{tmp_path}/reg/1_girl: 1 picture(s) left out")


def test_stale_latents_are_said_where_stage_1_reads_them(settings, tmp_path):
    """Case 18."""
    picture, latents = tmp_path / "data/1_rin/01.png", tmp_path / "data/1_rin/01_0096x0096_sd.npz"
    latents.write_bytes(b"npz")
    os.utime(latents, (1, 1))
    assert said_of(settings) == []
    [line] = said_of(with_options(settings, cache_latents_to_disk=True))
    assert "stage 1 trains on those latents: 01.png (01_0096x0096_sd.npz); delete these .npz files." in line
    stage = stages_of(with_options(settings, cache_latents_to_disk=True))[0]
    os.utime(picture, (1, 1))
    before, now = {str(picture): "old", str(picture.with_suffix(".txt")): "old"}, {str(picture): "new"}
    assert "are others than in the run before" in inputs.replaced_pictures(stage, before, now)[0]
    assert inputs.replaced_pictures(stage, now, now) == inputs.replaced_pictures(stage, {}, now) == []
    assert inputs.replaced_pictures(stages_of(settings)[0], before, now) == []


def test_a_decompression_bomb_is_refused_unopened(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert all("has more pixels than Pillow opens" in reason for reason in bad(settings).values())
    assert len(bad(settings)) == 9


def subsets_of(plan: Plan) -> list[Subset]:
    return [character.subset for character in plan.characters]


def test_inputs_are_known_by_their_content(settings, tmp_path):
    model = tmp_path / "model"
    (model / "unet").mkdir(parents=True)
    (model / "unet/weights").write_text("w")
    kohya = {**settings.kohya, "pretrained_model_name_or_path": str(model)}
    settings = Settings(settings.path, kohya, settings.composite)
    [plan] = plans_of(settings)
    stage = stages_of(settings)[0]
    before = inputs.input_digests([stage], subsets_of(plan), show_progress=False)[1]
    assert len(before) == 9 + 9 + 1

    caption = tmp_path / "data/1_rin/01.txt"
    caption.write_text(caption.read_text() + ", new tag")
    after = inputs.input_digests([stage], subsets_of(plan), show_progress=False)[1]

    assert {path for path in after if after[path] != before[path]} == {str(caption)}


def test_another_spelling_of_a_path_is_no_change_but_another_dataset_config_is(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "data.toml"
    subsets = "".join(f'[[datasets.subsets]]\nimage_dir = "{path}"\n' for path in sorted((tmp_path / "data").iterdir()))
    config.write_text(f"[[datasets]]\nresolution = 128\n{subsets}")

    def seen(**kohya: object) -> tuple:
        own = Settings(settings.path, {**settings.kohya, **kohya}, settings.composite)
        stages = stages_of(own)
        [plan] = plans_of(own)
        digests = inputs.input_digests(stages, subsets_of(plan), show_progress=False)
        return [stage.shaping for stage in stages], digests

    assert seen(train_data_dir="data") == seen(train_data_dir=str(tmp_path / "data"))
    before = seen(dataset_config="data.toml")
    assert before == seen(dataset_config=str(config))
    config.write_text(config.read_text() + "num_repeats = 2\n")
    (_, digests), (_, old) = seen(dataset_config="data.toml"), before
    assert [path for path in digests[1] if digests[1][path] != old[1][path]] == [str(config)]


def test_a_name_is_shown_without_what_it_would_do_to_a_terminal(capsys):
    name = "rin\n\x1b[31m\u202e\udcff é 凛.png"

    def fail() -> None:
        raise UserError(f"{name}: is gone.")

    assert launcher.report(fail) == 2
    assert capsys.readouterr().err == "error: rin\\n\\x1b[31m\\u202e\\udcff é 凛.png: is gone.\n"


def test_a_disk_that_refuses_upstream_is_one_sentence(tmp_path, capsys):
    (tmp_path / "plain").write_text("")
    assert launcher.report(lambda: (tmp_path / "nowhere" / "log").write_text("x")) == 2
    assert "nowhere/log: cannot be written (No such file or directory); make room or mend" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["{tmp}/a_file/out", "/sys/out"])
def test_a_folder_that_cannot_be_written_to_is_one_sentence(settings, tmp_path, capsys, folder):
    (tmp_path / "a_file").write_text("")
    folder = folder.format(tmp=tmp_path)

    def lock() -> None:
        with journal.sole_run(Path(folder) / "cg3.run.lock"):
            pass

    assert launcher.report(lock) == 2
    assert re.fullmatch(
        rf"error: {folder}\S*: cannot be written \(.+\); make room or mend the folder, .*\n", capsys.readouterr().err
    )


def test_a_workers_sentence_is_shown_without_its_traceback(capsys):
    wrapped = "Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\n  File x\nlycoris.errors.UserError: a.png: is gone."

    def fail() -> None:
        raise UserError(wrapped)

    assert launcher.report(fail) == 2
    assert capsys.readouterr().err == "error: a.png: is gone.\n"


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ("datasets = 1", "[[datasets]] and [[datasets.subsets]] lists of tables"),
        ("[[datasets]]\nbatch_size = true", "data.toml, batch_size: True is no whole number; write one."),
        ('[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = "x"\ncaption_separator = ""', "caption_separator: empty text"),
        ('[[datasets]]\nresolution = 64\nbatch_size = 0\n[[datasets.subsets]]\nimage_dir = "x"', "batch_size: 0 is out of range"),
    ],
)  # fmt: skip
def test_a_dataset_config_is_checked_before_anything_computes_with_it(settings, tmp_path, tables, sentence):
    (tmp_path / "data.toml").write_text(tables)
    kohya = {**settings.kohya, "dataset_config": str(tmp_path / "data.toml")}
    with pytest.raises(UserError) as error:
        joined(Settings(settings.path, kohya, settings.composite))
    assert sentence in str(error.value)


def test_a_picture_that_is_there_twice_is_named(settings, tmp_path):
    shutil.copy(tmp_path / "data/1_rin/01.png", tmp_path / "data/1_mio/02.png")
    [plan] = plans_of(settings)
    digests = inputs.input_digests(stages_of(settings), subsets_of(plan), show_progress=False)[2]
    [line] = inputs.duplicates(digests, [plan])
    assert line == f"the same picture: {tmp_path / 'data/1_mio/02.png'}, {tmp_path / 'data/1_rin/01.png'}"


def test_a_thousand_copies_are_not_all_named(settings, tmp_path):
    for number in range(30):
        for suffix in (".png", ".txt"):
            shutil.copy(tmp_path / f"data/1_rin/01{suffix}", tmp_path / f"data/1_rin/copy{number:02}{suffix}")
    [plan] = plans_of(settings)
    [line] = inputs.duplicates(inputs.input_digests(stages_of(settings), subsets_of(plan), show_progress=False)[2], [plan])
    assert line.endswith(", and 21 more")


def test_a_caption_of_a_megabyte_is_refused(settings, tmp_path):
    (tmp_path / "data/1_rin/01.txt").write_text("rin, " + "tag, " * 200_000)
    [reason] = bad(settings).values()
    assert reason.endswith("01.txt: a caption of 1,000,005 bytes, no model reads as much; shorten it.")


def stages_with(settings: Settings, only: int | None = None, stage2: dict | None = None, **kohya: object) -> list[Stage]:
    settings = Settings(settings.path, {**settings.kohya, **kohya}, settings.composite, stage2=stage2 or {})
    both = stages_of(settings, only or 1)
    return list(both) if only is None else [both[only - 1]]


def test_stage_two_alone_needs_what_stage_one_saved(settings):
    with pytest.raises(UserError, match="last-stage1.safetensors: not there, but stage 2 starts from it; run stage 1 first"):
        check_weights(stages_with(settings, only=2))


@pytest.mark.parametrize("model", ["/nowhere/model", "model.safetensors"])
def test_a_base_model_that_is_not_there(settings, model):
    with pytest.raises(UserError, match="pretrained_model_name_or_path .*: no such file or folder"):
        check_weights(stages_with(settings, pretrained_model_name_or_path=model))


def test_a_name_on_a_hub_is_left_to_upstream_where_it_was_downloaded(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    stages = stages_with(settings, pretrained_model_name_or_path="someone/model")
    with pytest.raises(UserError, match="someone/model: no such file or folder.* training fetches nothing"):
        check_weights(stages)
    (tmp_path / "hub/models--someone--model").mkdir(parents=True)
    check_weights(stages)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": np.zeros((64, 64), np.float32)}, path)
    return path


def test_an_interrupted_download_is_named_before_anything_is_loaded(settings, tmp_path, weights):
    check_weights(stages_with(settings, pretrained_model_name_or_path=str(weights)))
    whole = weights.read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.ckpt", "w") as made:
        made.writestr("data.pkl", whole)
    checkpoint = (tmp_path / "whole.ckpt").read_bytes()
    folder = tmp_path / "model" / "unet"
    folder.mkdir(parents=True)
    for name, content in {
        "half.safetensors": whole[:2000], "header.safetensors": whole[:20], "none.safetensors": b"", "none.ckpt": b"",
        "half.ckpt": checkpoint[:2000], "model/unet/half.safetensors": whole[:-1],
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
        model = tmp_path / name.split("/")[0]
        with pytest.raises(UserError, match=rf"{name.split('/')[-1]}: is no whole .*; download or save it again"):
            check_weights(stages_with(settings, pretrained_model_name_or_path=str(model)))
    check_weights(stages_with(settings, pretrained_model_name_or_path=str(tmp_path / "whole.ckpt")))


def test_stage_2s_own_weights_are_looked_at_before_stage_1_runs(settings, tmp_path, weights):
    with pytest.raises(UserError, match="vae .*other.safetensors: no such file or folder"):
        check_weights(
            stages_with(
                settings, pretrained_model_name_or_path=str(weights), stage2={"vae": str(tmp_path / "other.safetensors")}
            )
        )


def test_weights_count_in_the_stage_that_reads_them(settings, tmp_path, weights):
    [plan] = plans_of(settings)
    other = str(shutil.copy(weights, tmp_path / "other.safetensors"))
    stages = stages_with(settings, pretrained_model_name_or_path=str(weights), network_weights=other, stage2={"vae": other})
    first, second = inputs.input_digests(stages, subsets_of(plan), show_progress=False).values()
    assert {str(weights), other} <= set(first)
    assert {str(weights), other} <= set(second)
    alone = stages_with(settings, pretrained_model_name_or_path=str(weights), network_weights=other)
    assert other not in inputs.input_digests(alone, subsets_of(plan), show_progress=False)[2]


# --- pictures that skip_image_resolution leaves out --------------------------------------------------------------


@pytest.fixture
def with_small(settings: Settings, tmp_path: Path) -> Settings:
    """Each character with a picture of 64x48 besides three of 96x96; one of the small ones has no caption to use."""
    for folder in sorted((tmp_path / "data").iterdir()):
        Image.new("RGB", (64, 48)).save(folder / "small.png")
        (folder / "small.txt").write_text(f"{folder.name[2:]}, hat" if folder.name != "1_rin" else "")
    return replace(settings, kohya={**settings.kohya, "skip_image_resolution": "64"})


def test_small_pictures_are_in_nothing_and_named(with_small, tmp_path):
    first, second = stages_of(with_small)
    assert bad(with_small) == {}, "a picture that nobody reads is not bad"
    data = data_of(with_small)
    plans, singles = data.plans, data.singles
    assert [len(character.images) for character in plans[0].characters] == [3, 3, 3]
    assert single_cost(first, singles).samples == 9
    lines = inputs.passed_over((first, second), singles, plans)
    why = "1 picture(s) left out, as they have no more than 64x64 pixels (skip_image_resolution): small.png."
    assert [line for line in lines if "small.png" in line] == [
        f"{folder}: {why}" for folder in sorted((tmp_path / "data").iterdir())
    ]


def test_stages_may_leave_out_other_pictures(with_small):
    settings = replace(with_small, stage2={"skip_image_resolution": "32,32"})
    (Path(settings.kohya["train_data_dir"]) / "1_rin/small.txt").write_text("rin, hat")
    first, _ = stages_of(settings)
    plans = plans_of(settings)
    assert [len(character.images) for character in plans[0].characters] == [4, 4, 4]
    assert single_cost(first, data_of(settings).singles).samples == 9
    (Path(settings.kohya["train_data_dir"]) / "1_rin/small.txt").write_text("")
    assert len(data_of(settings).bad) == 1, "stage 2 reads it"


def test_a_character_is_never_left_out_whole(with_small, tmp_path):
    for path in (tmp_path / "data/1_rin").glob("0*.png"):
        Image.new("RGB", (64, 64)).save(path)
    match = "1_rin: none of its 4 picture.* more than 64x64 pixels, and skip_image_resolution leaves out the others; lower it"
    with pytest.raises(UserError, match=match):
        plans_of(with_small)


def test_a_size_to_skip_that_is_none(settings):
    wrong = replace(settings, kohya={**settings.kohya, "skip_image_resolution": "small"})
    with pytest.raises(UserError, match="skip_image_resolution: 'small' is no size"):
        joined(wrong)


def test_an_upstream_that_does_not_know_it_reads_all(with_small):
    assert "skip_image_resolution" not in without_skip(with_small).kohya
    [dataset] = joined(without_skip(with_small))
    assert {subset.largest_skipped for subset in dataset.subsets} == {None}


def test_an_image_is_read_once(settings, tmp_path, monkeypatch):
    """Its size, its digest for the journal, and why it cannot be used, of one reading; the digest is the journal's."""
    data = data_of(settings)
    monkeypatch.setattr(inputs, "digest", lambda path: pytest.fail(f"{path} is read again") if path.suffix == ".png" else "d")
    digests = inputs.input_digests(stages_of(settings), data.subsets, show_progress=False)[1]
    picture = tmp_path / "data/1_rin/01.png"
    assert digests[str(picture)] == journal.digest(picture)
