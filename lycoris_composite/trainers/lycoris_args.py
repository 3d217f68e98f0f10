"""What a network's arguments may be, asked of the installed LyCORIS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lycoris_composite.errors import UserError, nearest


def network_arg_errors(settings: Mapping[str, Any], where: str) -> Iterator[UserError]:
    """One for each LyCORIS argument or algorithm that the installed version does not have. LyCORIS itself ignores the
    one (`agol=loha` trains LoCon) and raises a bare KeyError for the other."""
    given = settings.get("network_args") or []
    if settings.get("network_module") != "lycoris.kohya" or not isinstance(given, list):
        return  # what is no list is refused for its type
    from lycoris.kohya import create_network
    from lycoris.wrapper import deprecated_arg_dict, network_module_dict

    # The names that create_network asks its keywords for stand in its code; there is no list of them.
    known = {name for name in create_network.__code__.co_consts if isinstance(name, str) and name.isidentifier()}
    known |= deprecated_arg_dict.keys()
    for argument in given:
        key, _, value = str(argument).partition("=")
        if key not in known:
            yield UserError(f"{where}, network_args {key}: unknown to LyCORIS{nearest(key, known) or '; remove it.'}")
        elif key == "algo" and value.lower() not in network_module_dict:
            hint = nearest(value, network_module_dict) or f"; choose one of {', '.join(network_module_dict)}."
            yield UserError(f'{where}, network_args algo: "{value}" is no LyCORIS algorithm{hint}')
