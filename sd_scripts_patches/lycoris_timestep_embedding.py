"""lycoris.kohya.LycorisNetworkKohya.__init__, wrapped so that it does not match an SD 1.x U-Net's time embedding twice.

Why: from 4.0.0 on the default preset names `time_embedding.linear_1` and also targets the class TimestepEmbedding,
added for another architecture, so every SD 1.x U-Net fails with "duplicated lora name".
Until: LyCORIS leaves out what a name has matched already.
Fits: LyCORIS 3.4.0 (no double match, nothing changes), 4.0.0 and 4.1.3. Checked: the class, its two lists and that it
reads them when it is made, the parameter.
"""

from __future__ import annotations

from typing import Any

from sd_scripts_patches.tools import Undo, replace, require, require_call, require_parameters

_CLASS = "TimestepEmbedding"


def check() -> None:
    network = _network_class()
    require(network, "UNET_TARGET_REPLACE_MODULE", "UNET_TARGET_REPLACE_NAME")
    require_call(network.__init__, "UNET_TARGET_REPLACE_MODULE")
    require_parameters(network.__init__, "text_encoder", "unet")


def apply() -> Undo:
    network = _network_class()
    original = network.__init__

    def __init__(self: Any, text_encoder: Any, unet: Any, *args: Any, **kwargs: Any) -> None:
        modules = network.UNET_TARGET_REPLACE_MODULE
        if _matched_twice(network, unet):
            modules = [name for name in modules if name != _CLASS]
        undo = replace(network, "UNET_TARGET_REPLACE_MODULE", modules)
        try:
            original(self, text_encoder, unet, *args, **kwargs)
        finally:
            undo()

    return replace(network, "__init__", __init__)


def _network_class() -> type:
    from lycoris.kohya import LycorisNetworkKohya  # slow to import, and only some runs use it

    return LycorisNetworkKohya


def _matched_twice(network: Any, unet: Any) -> bool:
    """Whether a named target lies inside a module of the targeted class."""
    blocks = [name for name, module in unet.named_modules() if type(module).__name__ == _CLASS]
    return any(name.startswith(f"{block}.") for name in network.UNET_TARGET_REPLACE_NAME for block in blocks)
