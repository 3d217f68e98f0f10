"""What every trainer offers to the launcher and the doctor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from lycoris_composite.config.stages import Stage
from lycoris_composite.errors import UserError
from lycoris_composite.run.states import Attempt


class Trainer(Protocol):
    """`kohya.script.Upstream` is a script of sd-scripts, `builtin.train.Builtin` the embedded trainer. Methods that end in
    `_errors` yield a UserError for each thing to refuse, and change nothing. `where` begins its sentence."""

    def known_options(self) -> set[str]:
        """The keys that it reads."""

    def given_flags(self, flags: Sequence[str]) -> dict[str, Any]:
        """The flags of a command line, typed. Raises UserError."""

    def option_errors(self, options: Mapping[str, Any], where: str) -> Iterator[UserError]:
        """For keys that it does not read."""

    def stage_errors(self, stage: Stage, where: str) -> Iterator[UserError]:
        """For a stage that it cannot train."""

    def rehearsal_errors(self, stages: Sequence[Stage], where: str) -> Iterator[UserError]:
        """For what only shows when networks and optimizers are made. To be asked once no stage has errors."""

    def fits(self, network_module: str | None) -> Iterator[tuple[str, str | None]]:
        """Each patch's name, and why it does not fit what is installed, or None where it does."""

    def run_stage(self, stage: Stage, attempt: Attempt, allow_pickle: bool = False) -> tuple[int, int]:
        """Trains a stage from its written config; its steps and epochs. Raises UserError, or Stopped on a signal."""

    def end(self) -> None:
        """Ends what the stages shared, where several processes ran them."""
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
