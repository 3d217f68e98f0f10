"""What is raised when the user, and not this code, has to change something."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One sentence for the user: where, what is wrong, what to do. Shown without traceback, exit code 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "join"?` when one of `known` is close to `word`, else an empty string."""
    found = difflib.get_close_matches(word, sorted(known), n=1)
    return f'; did you mean "{found[0]}"?' if found else ""
