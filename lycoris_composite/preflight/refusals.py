"""What a run refuses: raised at once, or collected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

from lycoris_composite.errors import UserError, one_line, sentence
from lycoris_composite.trainers.machine import kept_quiet


class Refusals:
    """What a run refuses. The launcher raises the first refusal; the doctor collects all, each once."""

    def __init__(self, collects: bool = False) -> None:
        self.sentences: list[str] = []
        self._collects = collects

    @contextmanager
    def collecting(self, is_long: bool = False) -> Iterator[None]:
        """Collects the refusal that the block raises, and the checks go on after it; the launcher's raises it. Any other
        exception is collected only if nothing was refused before. A long block shows its progress."""
        if not self._collects:
            yield
            return
        try:
            with nullcontext() if is_long else kept_quiet():
                yield
        except UserError as error:
            self._take(sentence(error))
        except (Exception, SystemExit) as error:  # what imports upstream or a broken package may raise anything
            if not self.sentences:
                self._take(f"a run stops with {type(error).__name__}: {one_line(error)}")

    def each(self, errors: Iterable[UserError]) -> bool:
        """Refuses for errors that do not depend on each other; whether there were none."""
        before = len(self.sentences)
        with self.collecting():
            for error in errors:
                if not self._collects:
                    raise error
                self._take(sentence(error))
        return len(self.sentences) == before

    def _take(self, text: str) -> None:
        if text not in self.sentences:
            self.sentences.append(text)
