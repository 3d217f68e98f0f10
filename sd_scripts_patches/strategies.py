"""The `_strategy` of strategy_base's four strategy classes, empty again for each stage.

Why: each refuses to be set twice in one process, and two stages in one process set them twice. The public
`set_strategy` is what refuses, so the underscored attribute is the only way.
Until: upstream can train twice in a process.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: the classes and their attribute.
"""

from __future__ import annotations

from library import strategy_base

from sd_scripts_patches.tools import Undo, all_of, replace, require

_CLASSES = ("TokenizeStrategy", "TextEncodingStrategy", "LatentsCachingStrategy", "TextEncoderOutputsCachingStrategy")


def check() -> None:
    require(strategy_base, *_CLASSES)
    for name in _CLASSES:
        require(getattr(strategy_base, name), "_strategy", "set_strategy", "get_strategy")


def apply() -> Undo:
    return all_of(replace(getattr(strategy_base, name), "_strategy", None) for name in _CLASSES)
