"""Whether a stage's network can be made, and whether stage 2 goes on with exactly what stage 1 saves.

Stage 2 begins when stage 1 has cost hours, so both networks are first made for a model of a few weights (stand_in.py): what
the one saves, the other has to hold. Upstream itself loads what fits and says nothing of the rest.
"""

from __future__ import annotations

import importlib
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lycoris_composite.architectures import ARCHITECTURES
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.stages import Stage
from lycoris_composite.errors import UserError, nearest, one_line
from lycoris_composite.trainers.machine import kept_quiet
from lycoris_composite.trainers.stand_in import text_encoders_and_unet

LYCORIS = "lycoris.kohya"
# What decides which tensors a network has, and what alpha scales them by.
_SHAPING = ("network_module", "network_dim", "network_alpha", "network_train_unet_only", "network_train_text_encoder_only")
_DEFAULTS = {"network_dim": 4}  # LyCORIS's
# How to get what somebody may want of a setting that only the whole run can have.
_INSTEAD = {
    "network_train_unet_only": "set text_encoder_lr = 0 there, which keeps stage 1's text encoder as it is",
    "network_train_text_encoder_only": "set unet_lr = 0 there, which keeps stage 1's U-Net as it is",
}
# Network arguments that leave tensors as they are. All others have to be the same in both stages.
_FREE_ARGUMENTS = {
    *("dropout", "rank_dropout", "module_dropout"),
    *("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio", "network_reg_lrs", "verbose"),
}
_NUMBERS = ("conv_dim", "conv_alpha", "dropout", "rank_dropout", "module_dropout", "block_size", "factor", "constraint")
_AS_FOR_IT = "set network_module, network_dim and network_args as they were for it"
_LARGEST_DIM = 10_000  # no layer is as wide; only LoKr takes a larger one, for whole matrices


def network_args(settings: KohyaSettings) -> dict[str, str]:
    """`network_args` by name, as upstream reads them.

    >>> network_args(KohyaSettings(network_args=["algo=loha", "conv_dim=4"]))
    {'algo': 'loha', 'conv_dim': '4'}
    """
    return dict(str(argument).split("=", 1) for argument in settings.network_args if "=" in str(argument))


def module_errors(stage: Stage, where: str) -> Iterator[UserError]:
    """For a network of upstream's that is made for another model: it would train nothing, or the text encoder alone."""
    model, module = stage.architecture, stage.settings.network_module
    made_for = [other.name for other in ARCHITECTURES.values() if module in other.networks]
    if model.networks and made_for and module not in model.networks:
        known = ", ".join(model.networks)
        yield UserError(
            f"{where} network_module: {module} is made for {' and '.join(made_for)}; for {model.name} set {known} or {LYCORIS}."
        )


def network_arg_errors(settings: KohyaSettings, where: str) -> Iterator[UserError]:
    """For each network argument that is no key=value, that LyCORIS does not have, or whose value it cannot use. LyCORIS
    itself ignores a wrong name (`agol=loha` trains LoCon) and raises a bare KeyError for a wrong algorithm."""
    given = settings.network_args
    if not isinstance(given, (list, tuple)):
        return  # what is no list is refused for its type
    yield from key_value_errors(given, f"{where}, network_args")
    if settings.network_module == LYCORIS:
        yield from _lycoris_errors(network_args(settings), f"{where}, network_args")
    if network_args(settings).get("algo", "").lower() == "lokr":
        return
    dims = {"network_dim": settings.network_dim, "network_args conv_dim": network_args(settings).get("conv_dim")}
    for key, value in dims.items():
        if str(value).isdecimal() and int(str(value)) > _LARGEST_DIM:
            yield UserError(f"{where} {key}: {value} is out of range; no layer is as wide, give {_LARGEST_DIM:,} or less.")


def key_value_errors(arguments: Sequence[Any], where: str) -> Iterator[UserError]:
    """One for each of a list of arguments that is no key=value."""
    for argument in arguments:
        key, equals, value = str(argument).partition("=")
        if not equals or not key.strip():
            name, _, rest = key.strip().partition(":" if ":" in key else " ")
            meant = f"{name.strip() or 'key'}={value or rest.strip() or 'value'}"
            yield UserError(f'{where}: "{argument}" is not of the form key=value; write "{meant}".')


def _lycoris_errors(given: Mapping[str, str], where: str) -> Iterator[UserError]:
    from lycoris.config import PRESET
    from lycoris.kohya import create_network
    from lycoris.wrapper import deprecated_arg_dict, network_module_dict

    # The names that create_network asks its keywords for stand in its code; there is no list of them.
    known = {name for name in create_network.__code__.co_consts if isinstance(name, str) and name.isidentifier()}
    known |= deprecated_arg_dict.keys()
    for key, value in given.items():
        if key not in known:
            yield UserError(f"{where} {key}: unknown to LyCORIS{nearest(key, known) or '; remove it.'}")
        elif key == "algo" and value.lower() not in network_module_dict:
            hint = nearest(value, network_module_dict) or f"; choose one of {', '.join(network_module_dict)}."
            yield UserError(f'{where} algo: "{value}" is no LyCORIS algorithm{hint}')
        elif key == "preset" and value not in PRESET and not Path(value).is_file():
            hint = nearest(value, PRESET) or f"; choose one of {', '.join(PRESET)}, or name a preset's file."
            yield UserError(f'{where} preset: "{value}" is no LyCORIS preset{hint}')
        elif key in _NUMBERS and value and not _is_number(value):
            yield UserError(f'{where} {key}: "{value}" is no number; write one.')


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def network_errors(stages: Sequence[Stage], where: str) -> Iterator[UserError]:
    """For each setting that gives stage 2 another network. Where there is none: for a network that cannot be made, that has
    nothing to train, or that loads something else than it has saved. `stages` are both stages, or the only one that is to
    run."""
    *_, last = stages
    if last.weights_from is None:
        stages = [last]  # it goes on with no stage's network
    differences = list(_differences(*stages, where)) if len(stages) == 2 else []
    yield from differences
    # Somebody's own network may look for more than the stand-in has, but in a U-Net; sizes may be a file's.
    model = last.architecture
    is_known = model.has_unet or last.settings.network_module in (LYCORIS, *model.networks)
    if not differences and is_known and not stages[0].settings.dim_from_weights:
        yield from _rehearsal_errors(stages, where)


def _differences(first: Stage, second: Stage, where: str) -> Iterator[UserError]:
    place = f"{where}, [composite.stage2]"
    settings = first.settings, second.settings
    pairs = [(key, *(getattr(stage, key) or _DEFAULTS.get(key) for stage in settings)) for key in _SHAPING]
    before, after = map(network_args, settings)
    names = sorted({*before, *after} - _FREE_ARGUMENTS)
    pairs += [(f"network_args {name}", before.get(name), after.get(name)) for name in names]
    for key, old, new in pairs:
        if old != new:
            advice = "take it from stage 1" if key not in _SHAPING else _INSTEAD.get(key, "leave it out there")
            old, new = ("not set" if value is None else value for value in (old, new))
            yield UserError(
                f"{place} {key}: {new}, but {old} in stage 1, whose network stage 2 goes on with; {advice}, or set it for both."
            )


def _rehearsal_errors(stages: Sequence[Stage], where: str) -> Iterator[UserError]:
    settings, model = stages[0].settings, stages[0].architecture.name
    module_name, arguments = settings.network_module, network_args(settings)
    # Of the stand-in's layers, one block of each kind, arguments or a preset of the user's own may choose none.
    is_choosing = Path(arguments.get("preset") or "").is_file() if module_name == LYCORIS else bool(arguments)
    try:
        with kept_quiet():
            saved, lost = _saved_and_lost(made_network(stages[0]), partial(made_network, stages[-1]))
    except MemoryError:
        return
    except (Exception, SystemExit) as error:  # networks raise anything for arguments that they cannot use
        yield UserError(
            f"{where} network_args: {module_name} cannot make a network of these settings ({reason(error)}); correct them."
        )
        return
    if not saved and not is_choosing:
        advice = "set another preset, or update lycoris-lora" if module_name == LYCORIS else "correct them"
        yield UserError(
            f"{where} network_args: {module_name} finds no layer of {model} to train with these settings; {advice}."
        )
    elif lost:
        yield UserError(
            f"{where} network_args: {arguments.get('algo') or module_name} does not load again what it has saved (seen for "
            f"{lost} tensors of a small model), so stage 2 would lose a part of stage 1; choose another algorithm."
        )


def reason(error: BaseException) -> str:
    """What upstream says of a failure, in one language and not at any length."""
    return textwrap.shorten(one_line(error).partition(" / ")[0], 200, placeholder=" …") or type(error).__name__


def _saved_and_lost(first: Any, make_second: Callable[[str], Any]) -> tuple[int, int]:
    """How many tensors a network saves, and how many of them are not those that another holds after loading the file."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "network.safetensors"
        for parameter in first.parameters():
            parameter.data.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).reshape(parameter.shape))
        first.save_weights(str(saved), None, {})
        second = make_second(str(saved))
        second.load_weights(str(saved))
        return len(_tensors(saved)), len(not_held(saved, second))


def made_network(stage: Stage, weights: str | None = None) -> Any:
    """A stage's network, made for a small model; `weights` are for `dim_from_weights`. Raises what the network raises."""
    settings = stage.settings
    with _own_class_state(settings.network_module), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return create_network(settings, None, *text_encoders_and_unet(stage.architecture), weights)


def create_network(settings: KohyaSettings, vae: Any, text_encoder: Any, unet: Any, weights: str | None = None) -> Any:
    """A stage's network, hooked into the model, as upstream's `NetworkTrainer.train` makes it."""
    module, arguments = importlib.import_module(settings.network_module), network_args(settings)
    if settings.dim_from_weights and weights:
        network, _ = module.create_network_from_weights(1, weights, vae, text_encoder, unet, **arguments)
    else:
        size, dropout = (settings.network_dim, settings.network_alpha), settings.network_dropout
        arguments = {"dropout": dropout, **arguments}
        network = module.create_network(1.0, *size, vae, text_encoder, unet, neuron_dropout=dropout, **arguments)
    parts = not settings.network_train_unet_only, not settings.network_train_text_encoder_only
    network.apply_to(text_encoder, unet, *parts)
    return network


@contextmanager
def _own_class_state(module_name: str) -> Iterator[None]:
    """LyCORIS writes a preset onto its class, where the next network finds it; here it is taken back."""
    module = importlib.import_module(module_name)
    classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    before = [(kind, name, value) for kind in classes for name, value in vars(kind).items() if name.isupper()]
    try:
        yield
    finally:
        for kind, name, value in before:
            setattr(kind, name, value)


def not_held(weights: Path, network: Any) -> list[str]:
    """The names of a file's tensors that the network does not hold. LyCORIS's `full` adds them to the base's and takes
    them off again, which rounds; everything else is exact."""
    state = network.state_dict()
    return [name for name, value in _tensors(weights).items() if name not in state or not _is_same(state[name], value)]


def _tensors(weights: Path) -> dict[str, torch.Tensor]:
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(weights)
    return torch.load(weights, map_location="cpu", weights_only=True)


def _is_same(held: torch.Tensor, saved: torch.Tensor) -> bool:
    held = held.detach().cpu()
    if held.to(saved.dtype).equal(saved):
        return True
    is_rounded = held.shape == saved.shape and saved.is_floating_point()
    return is_rounded and torch.allclose(held.float(), saved.float(), rtol=torch.finfo(saved.dtype).eps, atol=1e-6)


def load_surely(
    load: Callable[[str], Any], network: Any, is_continued: bool, say: Callable[[str], None], is_made_from_it: bool = False
) -> Callable:
    """`load_weights` that then compares network and file. Raises UserError where no tensor of the file fits the network, one
    has another shape, or an alpha is another: networks take that over, but not the strength that it stands for, unless
    the network `is_made_from_it`. Where stage 2 goes on with stage 1's file, it raises UserError if a single tensor differs."""

    def loading(file: str) -> Any:
        alphas = {name: value.clone() for name, value in network.named_buffers() if name.endswith(".alpha")}
        try:
            result = load(file)
        except RuntimeError as error:  # torch's, for tensors of another shape
            what = textwrap.shorten(str(error), 200, placeholder=" …")
            raise UserError(f"{file}: does not fit the network ({what}); {_AS_FOR_IT}.") from error
        tensors = _tensors(Path(file))
        if is_continued:
            _check_stage_1(file, tensors, network)
        elif not is_made_from_it:
            _check_alphas(file, tensors, alphas)
        missing = tensors.keys() - network.state_dict().keys()
        if len(missing) == len(tensors):
            raise UserError(
                f"{file}: none of its {len(tensors)} tensors fits the network (such as {next(iter(tensors), 'none at all')}); "
                f"{_AS_FOR_IT}, or leave network_weights out."
            )
        if missing:
            say(f"{file}: {len(missing)} of its {len(tensors)} tensors are in no part of this network and are left out")
        return result

    return loading


def _check_stage_1(file: str, tensors: Mapping[str, torch.Tensor], network: Any) -> None:
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise UserError(
            f"{file}: not all of its numbers are finite, so stage 1 has diverged; lower its learning rate or change "
            "its precision, and train it again with --fresh."
        )
    if lost := not_held(Path(file), network):
        raise UserError(
            f"{file}: {len(lost)} of its {len(tensors)} tensors are not in the network as they were saved (such as "
            f"{lost[0]}); give stage 2 the network of stage 1."
        )


def _check_alphas(file: str, tensors: Mapping[str, torch.Tensor], alphas: Mapping[str, torch.Tensor]) -> None:
    """`alphas` are the network's before it loaded."""
    for name, alpha in alphas.items():
        if name in tensors and not _is_same(alpha, tensors[name]):
            raise UserError(
                f"{file}: was trained with an alpha of {tensors[name].item():g}, and the network has {alpha.item():g} (at "
                f"{name}), which changes its strength; set network_dim, network_alpha and network_args as they were for it."
            )
