"""A model of a few weights for each that is trained, on which networks are made as on the model itself.

Networks find their layers by the names of classes and of places, and some count on a layer's outputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from lycoris_composite.architectures import Architecture

_WIDTH = 64


def text_encoders_and_unet(architecture: Architecture) -> tuple[Any, torch.nn.Module]:
    """What stands in for a model's text encoders, one or a list as upstream has them, and for what it trains beside them."""
    unet = _model(architecture.layers) if architecture.layers else _sd_unet()
    if architecture.unet_class:
        module, _, name = architecture.unet_class.rpartition(".")
        unet.__class__ = getattr(importlib.import_module(module), name)
    return [_text_encoder(kind) for kind in architecture.text_models] or _text_encoder(), unet


def _model(layers: Mapping[str, str | int]) -> torch.nn.Module:
    """The layers, each in its place."""
    root = _Part()
    for place, layer in layers.items():
        *folders, name = place.split(".")
        parent = root
        for folder in folders:
            parent = parent._modules.setdefault(folder, _Part())
        if isinstance(layer, int):
            parent.add_module(name, _linear(outside=layer))
        else:  # a U-Net's with its layers, any other empty
            parent.add_module(name, _UNET_PARTS.get(layer, type(layer, (_Part,), {}))())
    return root


class _Part(torch.nn.Sequential):
    """A part of a model that holds others by name and by number."""


def _block(name: str, **layers: torch.nn.Module | list[torch.nn.Module]) -> torch.nn.Module:
    """A module of the class name that networks look for."""
    block = type(name, (torch.nn.Module,), {})()
    for key, layer in layers.items():
        block.add_module(key, torch.nn.ModuleList(layer) if isinstance(layer, list) else layer)
    return block


def _linear(inside: int = _WIDTH, outside: int = _WIDTH) -> torch.nn.Linear:
    return torch.nn.Linear(inside, outside)


def _conv(size: int, inside: int = _WIDTH, outside: int = _WIDTH) -> torch.nn.Conv2d:
    return torch.nn.Conv2d(inside, outside, size, padding=size // 2)


def _norm() -> torch.nn.GroupNorm:
    return torch.nn.GroupNorm(32, _WIDTH)


def _attention() -> torch.nn.Module:
    return _block("CrossAttention", to_q=_linear(), to_k=_linear(), to_v=_linear(), to_out=[_linear()])


def _transformer() -> torch.nn.Module:
    gate = _block("GEGLU", proj=_linear(_WIDTH, 8 * _WIDTH))
    forward = _block("FeedForward", net=[gate, torch.nn.Identity(), _linear(4 * _WIDTH)])
    norm = torch.nn.LayerNorm(_WIDTH)
    layer = _block("BasicTransformerBlock", norm1=norm, attn1=_attention(), attn2=_attention(), ff=forward)
    return _block("Transformer2DModel", norm=_norm(), proj_in=_conv(1), transformer_blocks=[layer], proj_out=_conv(1))


def _resnet() -> torch.nn.Module:
    return _block("ResnetBlock2D", norm1=_norm(), conv1=_conv(3), time_emb_proj=_linear(4 * _WIDTH), conv2=_conv(3))


_UNET_PARTS = {
    "Transformer2DModel": _transformer,
    "ResnetBlock2D": _resnet,
    "Downsample2D": lambda: _block("Downsample2D", conv=_conv(3)),
    "Upsample2D": lambda: _block("Upsample2D", conv=_conv(3)),
}


def _sd_unet() -> torch.nn.Module:
    """A block of each kind that SD's U-Net has."""
    transformer, resnet, smaller, larger = (make() for make in _UNET_PARTS.values())
    down = _block("CrossAttnDownBlock2D", attentions=[transformer], resnets=[resnet], downsamplers=[smaller])
    up = _block("UpBlock2D", upsamplers=[larger])
    time = _block("TimeEmbedding", linear_1=_linear(_WIDTH, 4 * _WIDTH), linear_2=_linear(4 * _WIDTH, 4 * _WIDTH))
    ends = {"conv_in": _conv(3, 4), "conv_out": _conv(3, _WIDTH, 4)}
    return _block("UNet2DConditionModel", **ends, time_embedding=time, down_blocks=[down], up_blocks=[up])


def _text_encoder(kind: str = "CLIP") -> torch.nn.Module:
    attention = _block(f"{kind}Attention", q_proj=_linear(), k_proj=_linear(), v_proj=_linear(), out_proj=_linear())
    layers = {"self_attn": attention, "mlp": _block(f"{kind}MLP", fc1=_linear(_WIDTH, 4 * _WIDTH), fc2=_linear(4 * _WIDTH))}
    encoder = _block("CLIPEncoder", layers=[_block("CLIPEncoderLayer", **layers)])
    return _block("CLIPTextModel", text_model=_block("CLIPTextTransformer", encoder=encoder))
