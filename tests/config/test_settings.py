"""The config file and `--set`: what is read from them, and the one sentence for each mistake."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from lycoris_composite.architectures import TAGS
from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.config import settings as config
from lycoris_composite.config.options import check_value
from lycoris_composite.errors import UserError
from tests.helpers import load_config

GUIDE = """
stray = 1

[additional_network_arguments]
network_module = "lycoris.kohya"
network_args = ["algo=loha", "conv_dim=0"]

[training_arguments]
train_batch_size = 4
xformers = true
seed = 1

[dataset_arguments]
resolution = "640,640"

[composite]

[composite.stage2]
train_batch_size = 2
resolution = "768,768"
"""


def composite(folder: Path, text: str, *overrides: str) -> config.Settings:
    return load_config(folder, f"[composite]\n{text}\n", *overrides)


# --- what is read ------------------------------------------------------------------------------------------------


def test_a_kohya_config_with_an_empty_composite_table(tmp_path):
    settings = load_config(tmp_path, GUIDE)
    assert settings.path == tmp_path / "cg3.toml"
    assert settings.kohya == {
        "stray": 1,
        "network_module": "lycoris.kohya",
        "network_args": ["algo=loha", "conv_dim=0"],
        "train_batch_size": 4,
        "xformers": True,
        "seed": 1,
        "resolution": "640,640",
    }
    assert settings.composite == CompositeOptions(TAGS, 1.0, "latent", "natural")
    assert settings.stage2 == {"train_batch_size": 2, "resolution": "768,768"}
    assert settings.trainer == "train_network"


def test_all_keys_of_the_composite_table(tmp_path):
    text = 'caption = "{right}, {left}"\ncomposites_per_image = 0.5\njoin = "pixel"\naspect = "equal"\ntrainer = "sdxl_train_network.py"'
    settings = composite(tmp_path, text)
    assert settings.composite == CompositeOptions("{right}, {left}", 0.5, "pixel", "equal")
    assert settings.trainer == "sdxl_train_network"


def test_a_whole_number_of_composites_per_image(tmp_path):
    assert composite(tmp_path, "composites_per_image = 2").composite.composites_per_image == 2.0


def test_flattening_is_upstreams():
    """A later key wins, and a table within a table stays one value."""
    tables = {"seed": 1, "a": {"seed": 2, "lr": 0.1}, "b": {"seed": 3, "more": {"seed": 4}}, "lr": 0.2}
    assert config.flatten(tables) == {"seed": 3, "lr": 0.2, "more": {"seed": 4}}


# --- mistakes in [composite] -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('jion = "pixel"', r'cg3.toml, \[composite\] jion: unknown key; did you mean "join"\?'),
        ("stage_2 = 1", r'\[composite\] stage_2: unknown key; did you mean "stage2"\?'),
        ("zzz = 1", r"\[composite\] zzz: unknown key; write kohya's settings in another table"),
        ("seed = 1", r"\[composite\] seed: unknown key"),
        ('join = "latnet"', r'cg3.toml, \[composite\] join: "latnet" is neither latent nor pixel; did you mean "latent"\?'),
        ('aspect = "zzz"', r'\[composite\] aspect: "zzz" is neither natural nor equal'),
        ("join = 1", r"\[composite\] join: 1 is no text; write one"),
        ("caption = true", r"\[composite\] caption: True is no text"),
        ('composites_per_image = "2"', r"\[composite\] composites_per_image: '2' is no number; write one"),
        ("composites_per_image = true", r"\[composite\] composites_per_image: True is no number"),
        ("composites_per_image = 0", r"composites_per_image: 0.0 is out of range; give 0.01 to 10000"),
        ("composites_per_image = -1.0", r"composites_per_image: -1.0 is out of range"),
        ("composites_per_image = nan", r"composites_per_image: nan is out of range"),
        ('caption = "{middle}"', r"cg3.toml, \[composite\] caption: unknown field \{middle\}; the fields are \{left\}"),
        ('caption = "{left"', r"cg3.toml, \[composite\] caption: expected '}' before end of string"),
        ("trainer = 1", r'\[composite\] trainer: 1 is no script name; write e.g. "sdxl_train_network"'),
        ('trainer = "../evil"', r"\[composite\] trainer: '../evil' is no script name"),
        ("stage2 = 1", r"\[composite\] stage2: must be a table; write \[composite.stage2\]"),
    ],
)
def test_a_mistake_names_file_table_and_key(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        composite(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "cg3.toml"))
    assert "\n" not in str(caught.value)


def test_a_config_without_the_table(tmp_path):
    with pytest.raises(UserError, match=r"cg3.toml: no \[composite\] table; add one \(it may be empty\), or run upstream's"):
        load_config(tmp_path, "seed = 1")


def test_a_composite_that_is_no_table(tmp_path):
    with pytest.raises(UserError, match=r"cg3.toml, composite: must be a table; write \[composite\]"):
        load_config(tmp_path, "composite = true")


def test_a_dataset_configs_composite_table_takes_the_same_options():
    where = "dataset_config, [datasets.composite]"
    assert config.composite_options({"join": "pixel", "composites_per_image": 3}, where).join == "pixel"
    with pytest.raises(UserError, match=r'\[datasets.composite\] jion: unknown key; did you mean "join"'):
        config.check_option_keys({"jion": 1}, where)
    for key in ("stage2", "trainer"):  # they are about stages, of which there are none here
        with pytest.raises(UserError, match=rf"\[datasets.composite\] {key}: unknown key"):
            config.check_option_keys({key: {}}, where)


# --- files that cannot be read -----------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/gone.toml: no such file; correct the path"):
        config.load_settings(tmp_path / "gone.toml")


def test_a_folder_instead_of_a_file(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read .*; correct the path"):
        config.load_settings(tmp_path)


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "cg3.toml").write_bytes('name = "café"'.encode("latin-1"))
    with pytest.raises(UserError, match=r"cg3.toml: not UTF-8 \(byte 11\); save it as UTF-8"):
        config.load_settings(tmp_path / "cg3.toml")


@pytest.mark.parametrize(
    "text", ["seed = ", "[composite", "seed 1", 'name = "a', "seed = 1\nseed = 2", "[a]\n[a]", "[", "=", "x = [1, 'a'"]
)
def test_a_file_that_is_not_toml(tmp_path, text):
    with pytest.raises(UserError, match=r"cg3.toml: not TOML \(.+\); correct that line") as caught:
        load_config(tmp_path, f"{text}\n")
    assert "\n" not in str(caught.value)


def test_a_toml_error_names_the_line(tmp_path):
    with pytest.raises(UserError, match=r"cg3.toml: not TOML \(.*line 3 .*\); correct that line"):
        load_config(tmp_path, "[composite]\nseed = 1\nxformers = maybe\n")


@pytest.mark.parametrize("line", ["wandb_api_key = s3cret", "huggingface_token = 5s3cret", "wandb_api_key = -s3cret"])
def test_a_secret_that_is_not_quoted_is_not_shown(tmp_path, line):
    with pytest.raises(UserError, match=r"cg3.toml: not TOML \(.*line 2 .*\)") as caught:
        load_config(tmp_path, f"[composite]\n{line}\n")
    assert "s3cret" not in str(caught.value)


def test_a_secret_of_the_wrong_type_is_not_shown():
    with pytest.raises(UserError, match="c.toml huggingface_token: its value is no text; write one."):
        check_value(12345, str, "c.toml huggingface_token")


# --- --set -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False),
        ("8", 8),
        ("1e-4", 1e-4),
        ("192,192", "192,192"),
        ('"192,192"', "192,192"),
        ("AdamW8bit", "AdamW8bit"),
        ("/models/a b#c.safetensors", "/models/a b#c.safetensors"),
        ("C:\\xl\\new", "C:\\xl\\new"),
        ('["algo=lora", "conv_dim=4"]', ["algo=lora", "conv_dim=4"]),
        ("[1, 2]", [1, 2]),
        ("2024-01-01", datetime.date(2024, 1, 1)),
        ("a=b", "a=b"),
    ],
)
def test_set_reads_a_toml_value_or_takes_the_text(tmp_path, text, value):
    assert load_config(tmp_path, GUIDE, f"some_key={text}").kohya["some_key"] == value


def test_set_replaces_a_key_where_the_file_has_it(tmp_path):
    settings = load_config(tmp_path, GUIDE, "xformers=false", "seed=7", "new=1")
    assert (settings.kohya["xformers"], settings.kohya["seed"], settings.kohya["new"]) == (False, 7, 1)


def test_set_reaches_tables_by_dots(tmp_path):
    overrides = ["composite.stage2.resolution=192,192", "composite.stage2.network_dim=4", "composite.join=pixel"]
    settings = load_config(tmp_path, GUIDE, *overrides, "training_arguments.seed=9")
    assert settings.stage2 == {"train_batch_size": 2, "resolution": "192,192", "network_dim": 4}
    assert settings.composite.join == "pixel"
    assert settings.kohya["seed"] == 9
    assert settings.kohya["resolution"] == "640,640"


def test_set_can_make_the_table_that_a_plain_kohya_config_lacks(tmp_path):
    settings = load_config(tmp_path, "seed = 1", "composite.stage2.seed=2")
    assert (settings.kohya, settings.stage2) == ({"seed": 1}, {"seed": 2})


def test_the_last_set_of_a_key_wins(tmp_path):
    assert load_config(tmp_path, GUIDE, "seed=2", "training_arguments.seed=3", "seed=4").kohya["seed"] == 4


def test_set_without_a_value_takes_a_key_away(tmp_path):
    settings = load_config(tmp_path, GUIDE, "seed=", "composite.stage2.resolution=", "never_there=")
    assert "seed" not in settings.kohya
    assert "never_there" not in settings.kohya
    assert settings.stage2 == {"train_batch_size": 2}


@pytest.mark.parametrize("text", ["xformers", "=1", " =1", ""])
def test_a_set_that_is_no_assignment(tmp_path, text):
    with pytest.raises(UserError, match=f"--set {text}: not of the form key=value; write e.g."):
        load_config(tmp_path, GUIDE, text)


def test_a_set_through_something_that_is_no_table(tmp_path):
    with pytest.raises(UserError, match="--set stray.seed: stray is no table; leave out what stands before the last dot"):
        load_config(tmp_path, GUIDE, "stray.seed=1")


def test_what_set_writes_is_checked_like_the_file(tmp_path):
    with pytest.raises(UserError, match=r'cg3.toml, \[composite\] join: "latnet" is neither'):
        load_config(tmp_path, GUIDE, "composite.join=latnet")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "cg3.toml"
    path.write_bytes("seed = 7\n[composite]\n".encode("utf-8-sig"))
    assert config.load_settings(path).kohya == {"seed": 7}


def test_an_empty_text_is_an_unset_key(tmp_path):
    """GUIs export every field, filled in or not."""
    text = '[a]\nvae = ""\nlogging_dir = ""\nseed = 0\nflip_aug = false\n[composite.stage2]\nvae = ""'
    settings = load_config(tmp_path, text)
    assert settings.kohya == {"seed": 0, "flip_aug": False}
    assert settings.stage2 == {"vae": ""}, "there it takes the key away from stage 2"
