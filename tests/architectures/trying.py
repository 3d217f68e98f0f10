"""A network module of somebody's own, which tries others on the model that upstream has loaded, and then trains nothing.

Its network argument `trials` names a file: a list of network modules with their arguments. The list of what came of each,
`[tensors saved, of them the transformer's, tensors lost]` or an error's text, takes its place.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.trainers import networks


def create_network(*given: Any, trials: str, **_: Any) -> None:
    path = Path(trials)
    path.write_text(json.dumps([_try(module, arguments, given[4:]) for module, arguments in json.loads(path.read_text())]))


def _try(module: str, arguments: list[str], model: tuple[Any, Any]) -> list[int] | str:
    """`model` is the text encoders, and what is trained beside them."""
    settings = KohyaSettings(network_module=module, network_args=arguments, network_dim=4, network_alpha=1)

    def make(file: str = "") -> Any:
        with networks._own_class_state(module):
            return networks.create_network(settings, None, *copy.deepcopy(model))

    try:
        first = make()
        saved, lost = networks._saved_and_lost(first, make)
        return [saved, sum("_unet_" in name for name in first.state_dict()), lost]
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
