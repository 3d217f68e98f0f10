"""What is raised when the user, and not this code, has to change something."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator


class UserError(Exception):
    """One sentence for the user: where, what is wrong, what to do. Shown without traceback, exit code 2."""


def sentence(error: UserError) -> str:
    """What to show of it, on one line. From a loader's worker it comes wrapped in the worker's traceback."""
    return printable(str(error).rpartition("UserError: ")[2].strip())


def printable(text: str) -> str:
    """The text with what would break a line, steer a terminal or be no text at all in Python's escapes: captions and
    file names are other people's."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def refusals(checks: Iterable[Callable[[], None]]) -> Iterator[UserError]:
    """What each of several checks raises, where it does."""
    for check in checks:
        try:
            check()
        except UserError as error:
            yield error


def raise_first(errors: Iterable[UserError]) -> None:
    for error in errors:
        raise error


def one_line(error: BaseException) -> str:
    """What an exception of somebody else's says, in one line."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0].strip())


class Stopped(BaseException):
    """Somebody stopped the run. No Exception, so that nothing on the way up takes it for a failure."""

    def __init__(self, signal: int, what: str) -> None:
        super().__init__(what)
        self.exit_code = 128 + signal


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "join"?` when one of `known` is close to `word`, else an empty string."""
    found = difflib.get_close_matches(word, sorted(known), n=1)
    return f'; did you mean "{found[0]}"?' if found else ""
