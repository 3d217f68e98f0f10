"""Stage 2 goes on with stage 1's network, or is refused before stage 1 begins."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from safetensors.torch import save_file

from lycoris_composite.architectures import ARCHITECTURES
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.stages import Stage, stages_of
from lycoris_composite.errors import UserError
from tests.helpers import kohya_settings

pytest.importorskip("lycoris.kohya", reason='needs `pip install ".[builtin]"`')
networks = pytest.importorskip("lycoris_composite.trainers.networks")

LOHA = ["algo=loha", "conv_dim=4", "conv_alpha=1"]


def errors(tmp_path, stage2=None, trainer="train_network", **kohya):
    kohya = {"network_module": "lycoris.kohya", "network_dim": 4, "network_args": LOHA, **kohya}
    stages = stages_of(kohya_settings(tmp_path, {"stage2": stage2 or {}, "trainer": trainer}, **kohya))
    return [str(error) for error in networks.network_errors(stages, "cg3.toml")]


@pytest.mark.parametrize("algorithm", ["lora", "locon", "loha", "lokr", "ia3", "glora", "full", "diag-oft", "boft"])
@pytest.mark.parametrize("more", [[], ["dora_wd=True", "train_norm=True"], ["use_tucker=True"]])
def test_an_algorithm_that_loads_what_it_saves(tmp_path, algorithm, more):
    assert errors(tmp_path, network_args=[f"algo={algorithm}", *LOHA[1:], *more]) == []


def test_dylora_does_not(tmp_path):
    [sentence] = errors(tmp_path, network_args=["algo=dylora", "block_size=2"])
    assert "cg3.toml network_args: dylora does not load again what it has saved" in sentence
    assert "so stage 2 would lose a part of stage 1; choose another algorithm" in sentence


@pytest.mark.parametrize(
    ("stage2", "sentence"),
    [
        ({"network_args": ["algo=locon", *LOHA[1:]]}, "network_args algo: locon, but loha in stage 1"),
        ({"network_args": ["algo=loha"]}, "network_args conv_alpha: not set, but 1 in stage 1"),
        ({"network_args": [*LOHA, "preset=attn-only"]}, "network_args preset: attn-only, but not set in stage 1"),
        ({"network_dim": 8}, "network_dim: 8, but 4 in stage 1"),
        ({"network_alpha": 2}, "network_alpha: 2, but 1 in stage 1"),
        ({"network_module": "networks.lora"}, "network_module: networks.lora, but lycoris.kohya in stage 1"),
        ({"network_train_unet_only": True}, "network_train_unet_only: True, but not set in stage 1, whose network stage 2 goes on "
                                            "with; set text_encoder_lr = 0 there"),
        ({"network_train_text_encoder_only": True}, "network_train_text_encoder_only: True, but not set in stage 1, whose network "
                                                    "stage 2 goes on with; set unet_lr = 0 there"),
    ],
)  # fmt: skip
def test_another_network_in_stage_2_is_refused(tmp_path, stage2, sentence):
    assert f"cg3.toml, [composite.stage2] {sentence}" in errors(tmp_path, stage2)[0]


@pytest.mark.parametrize(
    "stage2",
    [{"network_args": [*reversed(LOHA), "dropout=0.1", "rank_dropout=0.1"]},
     {"network_args": [*LOHA, "network_reg_lrs=.*attn.*=1e-4", "verbose=True"]}, {"network_alpha": 1}, {"network_dim": 4},
     {"network_train_unet_only": False}, {"dim_from_weights": True}, {"text_encoder_lr": 0.0}],
)  # fmt: skip
def test_what_keeps_every_tensor_may_differ(tmp_path, stage2):
    assert errors(tmp_path, stage2) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["algo=loha", "preset=attn_mlp"], 'network_args preset: "attn_mlp" is no LyCORIS preset; did you mean "attn-mlp"?'),
        (["algo=loha", "preset=nothing"], '"nothing" is no LyCORIS preset; choose one of full, '),
        (["algo=loha", "conv_dim=abc"], 'network_args conv_dim: "abc" is no number; write one'),
        (["conv_dim:4"], 'network_args: "conv_dim:4" is not of the form key=value; write "conv_dim=4"'),
        (["dropout"], 'network_args: "dropout" is not of the form key=value'),
        (["algo=loha", "conv_dim=1000000"], "network_args conv_dim: 1000000 is out of range"),
    ],
)
def test_arguments_that_no_network_takes(arguments, sentence):
    found = networks.network_arg_errors(
        KohyaSettings({"network_module": "lycoris.kohya", "network_args": arguments}), "cg3.toml"
    )
    assert sentence in str(next(found))


def test_a_network_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "preset.toml").write_text("enable_conv = 1\nunet_target_name = 5\n")
    [sentence] = errors(tmp_path, network_args=["algo=loha", f"preset={tmp_path / 'preset.toml'}"])
    assert "cg3.toml network_args: lycoris.kohya cannot make a network of these settings (" in sentence


@pytest.mark.parametrize(
    ("trainer", "module", "sentence"),
    [
        ("flux_train_network", "networks.lora", "networks.lora is made for SD and SDXL; for Flux set networks.lora_flux, "
                                                "networks.oft_flux or lycoris.kohya."),
        ("sdxl_train_network", "networks.lora_flux", "networks.lora_flux is made for Flux; for SDXL set networks.lora, "),
        ("anima_train_network", "networks.dylora", "networks.dylora is made for SD and SDXL; for Anima set networks.lora_anima, "),
        ("train_network", "networks.loha", "networks.loha is made for SDXL and Anima; for SD set networks.lora, "),
    ],
)  # fmt: skip
def test_a_network_that_is_made_for_another_model_is_refused(trainer, module, sentence):
    [error] = networks.module_errors(Stage(1, trainer, {"network_module": module}), "cg3.toml")
    assert str(error).startswith(f"cg3.toml network_module: {sentence}")


@pytest.mark.parametrize(
    ("trainer", "module"),
    [("flux_train_network", "my_own.lora"), ("my_own_train_network", "networks.lora"), ("builtin", "networks.lora"),
     *((trainer, "lycoris.kohya") for trainer in ARCHITECTURES),
     *((trainer, module) for trainer, row in ARCHITECTURES.items() for module in row.networks)],
)  # fmt: skip
def test_what_a_row_names_and_what_nobody_knows_is_let_through(trainer, module):
    assert list(networks.module_errors(Stage(1, trainer, {"network_module": module}), "cg3.toml")) == []


# SDXL's stand-in is of a class of sd-scripts (tests/architectures).
OTHERS = [trainer for trainer, row in ARCHITECTURES.items() if not row.has_unet]


@pytest.mark.parametrize("trainer", OTHERS)
@pytest.mark.parametrize("arguments", [["algo=loha"], ["algo=lokr"], ["algo=locon", "dora_wd=True"], ["algo=full"]])
def test_lycoris_is_tried_on_every_model(tmp_path, trainer, arguments):
    assert errors(tmp_path, trainer=trainer, network_args=arguments) == []
    [sentence] = errors(tmp_path, trainer=trainer, network_args=[*arguments, "preset=unet-convblock-only"])
    model = ARCHITECTURES[trainer].name
    assert f"cg3.toml network_args: lycoris.kohya finds no layer of {model} to train with these settings" in sentence
    assert "; set another preset, or update lycoris-lora." in sentence


def test_layers_that_somebody_chooses_may_be_none_of_the_stand_ins(tmp_path, monkeypatch):
    """By number in a network of upstream's, or in a preset's file."""
    preset = tmp_path / "preset.toml"
    preset.write_text('unet_target_module = []\nunet_target_name = ["up_blocks.3.*"]\ntext_encoder_target_module = []\n')
    assert errors(tmp_path, network_args=["algo=loha", f"preset={preset}"]) == []
    empty = SimpleNamespace(
        parameters=list, save_weights=lambda file, *_: save_file({}, file), load_weights=lambda file: None, state_dict=dict
    )
    monkeypatch.setattr(networks, "made_network", lambda *_: empty)
    assert errors(tmp_path, network_module="networks.lora", network_args=["block_dims=0,0,4"]) == []
    assert "finds no layer" in errors(tmp_path, network_module="networks.lora", network_args=None)[0]


def test_layers_have_as_many_outputs_as_the_models_own(tmp_path):
    """BOFT needs numbers that it can take apart, and Flux's are none."""
    [sentence] = errors(tmp_path, trainer="flux_train_network", network_args=["algo=boft"])
    assert "cannot make a network of these settings (It is impossible to decompose 9216 with factor 4" in sentence


def test_a_module_of_somebodys_own_is_tried_on_a_unet_alone(tmp_path, monkeypatch):
    """On other models it may look for what the stand-in does not have."""
    tried = []
    monkeypatch.setattr(networks, "_rehearsal_errors", lambda stages, where: tried.append(stages[0].trainer) or [])
    for trainer in ("train_network", "flux_train_network"):
        assert errors(tmp_path, trainer=trainer, network_module="my_own.lora", network_args=None) == []
    assert tried == ["train_network"]


def test_a_rehearsal_leaves_lycoris_as_it_was(tmp_path):
    from lycoris.kohya import LycorisNetworkKohya

    before = {name: value for name, value in vars(LycorisNetworkKohya).items() if name.isupper()}
    assert errors(tmp_path, network_args=["algo=loha", "preset=attn-only"]) == []
    assert {name: value for name, value in vars(LycorisNetworkKohya).items() if name.isupper()} == before


@pytest.fixture
def loading(tmp_path):
    """Loads a file into a LoHa by the guarded door; what is said is collected."""
    settings = {"network_module": "lycoris.kohya", "network_dim": 4, "network_args": LOHA}
    network, said = networks.made_network(Stage(1, "train_network", settings)), []

    def load(tensors, is_continued=False):
        save_file(tensors, tmp_path / "weights.safetensors")
        networks.load_surely(network.load_weights, network, is_continued, said.append)(str(tmp_path / "weights.safetensors"))
        return said

    return network, load


def test_weights_of_which_nothing_fits_are_refused(loading):
    network, load = loading
    other = {name.replace("hada_w1_a", "lora_up"): value for name, value in network.state_dict().items() if "hada_w1_a" in name}
    with pytest.raises(UserError, match=r"none of its \d+ tensors fits the network \(such as .*lora_up\); set network_module"):
        load(other)


def test_weights_of_which_a_part_fits_are_loaded_and_the_rest_is_said(loading):
    network, load = loading
    tensors = {name: value + (not name.endswith("alpha")) for name, value in network.state_dict().items()}
    [line] = load({**tensors, "lora_unet_of_another.alpha": tensors[next(iter(tensors))].clone()})
    assert f"1 of its {len(tensors) + 1} tensors are in no part of this network" in line
    assert all(network.state_dict()[name].equal(value) for name, value in tensors.items())


def test_stage_2_does_not_go_on_with_a_stage_1_that_diverged(loading):
    network, load = loading
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    next(iter(tensors.values())).fill_(math.nan)
    with pytest.raises(UserError, match="not all of its numbers are finite, so stage 1 has diverged; lower its learning rate"):
        load(tensors, is_continued=True)


def test_loading_asks_the_network_for_its_tensors_a_few_times_whatever_their_number(loading, monkeypatch):
    """LyCORIS goes over all its modules each time, and a file of SDXL has thousands of tensors."""
    network, load = loading
    tensors = network.state_dict()
    asked = []
    state_dict = type(network).state_dict
    monkeypatch.setattr(type(network), "state_dict", lambda *args, **named: asked.append(1) or state_dict(*args, **named))

    load(tensors)

    assert len(asked) < 5 < len(tensors)


def test_weights_of_another_shape_are_refused(loading):
    network, load = loading
    tensors = {name: value[..., :2] if "hada_w1_a" in name else value for name, value in network.state_dict().items()}
    with pytest.raises(
        UserError, match=r"does not fit the network \(.* size mismatch for .*\); set network_module, network_dim"
    ):
        load({name: value.contiguous() for name, value in tensors.items()})


def test_weights_of_another_alpha_would_have_another_strength(loading):
    network, load = loading
    tensors = {name: value * 4 if name.endswith(".alpha") else value for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match=r"was trained with an alpha of 4, and the network has 1 \(at lora_.*alpha\), which"):
        load(tensors)


def test_stage_2_takes_all_of_stage_1_or_stops(loading):
    network, load = loading
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    assert load(tensors, is_continued=True) == []
    with pytest.raises(
        UserError, match=r"1 of its \d+ tensors are not in the network as they were saved \(such as gone.alpha\)"
    ):
        load({**tensors, "gone.alpha": tensors[next(iter(tensors))].clone()}, is_continued=True)
