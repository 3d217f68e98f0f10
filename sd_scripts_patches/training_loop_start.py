"""NetworkTrainer.train, with one statement more: `self.begin_loop` decides where the loop starts.

Why: a resumed run counts its steps from zero, or from the interrupted epoch's first (`skip_until_initial_step`), so
its checkpoints get wrong names and it trains past `max_train_steps`; with gradient accumulation it mistakes batches
for steps. `train` is one function, and what it counts with are its local variables: no method can reach them.
Until: upstream goes on from the step that its state says.
Fits: v0.10.1, v0.10.6, v0.11.1, c162e90. Checked: the function makes its progress bar once, and has the variables by name.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

import train_network
from train_network import NetworkTrainer

from sd_scripts_patches.tools import Misfit, Undo, replace, require

_STATEMENT = (
    "global_step, epoch_to_start, initial_step = "
    "self.begin_loop(args, progress_bar, len(train_dataloader), global_step, epoch_to_start, initial_step)"
)
_VARIABLES = {"args", "progress_bar", "train_dataloader", "global_step", "epoch_to_start", "initial_step"}


def check() -> None:
    require(NetworkTrainer, "train")
    _with_statement()


def apply() -> Undo:
    """The trainer needs a method `begin_loop(args, progress_bar, batches, global_step, epoch_to_start, initial_step)`
    that returns the last three, `initial_step` in batches of the epoch that it starts in."""
    return replace(NetworkTrainer, "train", _with_statement())


def _with_statement() -> Callable:
    function = NetworkTrainer.train
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    body = tree.body[0].body  # type: ignore[attr-defined]
    places = [number for number, statement in enumerate(body) if _makes_progress_bar(statement)]
    known = {*function.__code__.co_varnames, *function.__code__.co_cellvars}
    if len(places) != 1 or not known >= _VARIABLES:
        raise Misfit(f"NetworkTrainer.train makes {len(places)} progress bars and lacks {sorted(_VARIABLES - known)}")
    body[places[0] + 1 : places[0] + 1] = ast.parse(_STATEMENT).body
    ast.increment_lineno(ast.fix_missing_locations(tree), first - 1)
    made: dict[str, Callable] = {}
    exec(compile(tree, inspect.getsourcefile(function) or "train_network.py", "exec"), train_network.__dict__, made)
    return made["train"]


def _makes_progress_bar(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "progress_bar"
