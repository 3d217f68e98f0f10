"""`lycoris-composite <command>`: arguments to one call. A command's module is imported when the command is given."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lycoris_composite import __version__, launcher
from lycoris_composite.architectures import ARCHITECTURES
from lycoris_composite.errors import printable
from lycoris_composite.run import environment
from lycoris_composite.trainers.kohya import checkout

_DOCTOR = """Says in a table what is there and what it means. With a config: all that a run
of it would refuse, and what hurts. Changes nothing. Exit code 0: all is well,
1: warnings, 2: errors."""
_GALLERY = """The samples of both stages as one page: prompts down, epochs across, the loss
curve above. Run it again at any time, also during training."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lycoris-composite",
        description="Composites for kohya's sd-scripts.",
        epilog="example: lycoris-composite preview cg3.toml",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_setup, _add_doctor, _add_preview, _add_gallery, _add_export, _add_run):
        add(commands)
    return parser


@environment.set_back()
def main(arguments: Sequence[str] | None = None) -> int:
    args, flags = parser().parse_known_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # a redirect on Windows may know fewer characters than a path has
        stream.reconfigure(errors="backslashreplace")
    if args.command == "run":
        return launcher.report(lambda: _run(args, flags))
    if flags:
        parser().error(f"unrecognized arguments: {' '.join(flags)}")
    if args.command == "doctor":
        return _doctor(args)
    return launcher.report(lambda: _print(_COMMANDS[args.command](args)))


def _new(commands: Any, name: str, help: str, example: str, **options: Any) -> argparse.ArgumentParser:
    epilog = f"example: lycoris-composite {name} {example}"
    return commands.add_parser(name, help=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def _add_config(command: argparse.ArgumentParser, **options: Any) -> None:
    command.add_argument("config", type=Path, metavar="FILE", help="a kohya config with a [composite] table", **options)
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key, dots for tables")


def _count(most: int | None = None) -> Callable[[str], int]:
    """A type for whole numbers from 1, up to `most` where there is one."""

    def count(text: str) -> int:
        number = int(text)
        if number < 1 or (most is not None and number > most):
            raise ValueError
        return number

    count.__name__ = f"number, 1 to {most}" if most else "number, 1 or more"  # argparse names it in its error
    return count


def _print(lines: Iterable[object]) -> None:
    for line in lines:
        print(printable(str(line)), flush=True)


def _add_setup(commands: Any) -> None:
    add = _new(commands, "setup", "get sd-scripts and what it needs", "--dir ../sd-scripts").add_argument
    add("--url", default=checkout.PUBLIC_URL, help="where to clone from (default: %(default)s)")
    add("--ref", default=checkout.DEFAULT_REF, help="tag, branch or commit (default: %(default)s)")
    add("--dir", type=Path, default=checkout.default_folder(), help="where to (default: %(default)s)")
    models, text = dict.fromkeys(row.name for row in ARCHITECTURES.values()), "fetch the tokenizers of these models too"
    text += f" ({', '.join(models)}; without a name SD's and SDXL's), as training fetches nothing"
    add("--tokenizers", nargs="*", default=None, choices=models, metavar="MODEL", help=text)


def _setup(args: argparse.Namespace) -> Iterable[object]:
    names = args.tokenizers or (() if args.tokenizers is None else ("SD", "SDXL"))
    return checkout.setup(args.url, args.ref, args.dir, [row for row in ARCHITECTURES.values() if row.name in names])


def _add_doctor(commands: Any) -> None:
    example = "cg3.toml --set xformers=false"
    doctor = _new(commands, "doctor", "say what is there, and what a config would meet", example, description=_DOCTOR)
    _add_config(doctor, nargs="?")
    doctor.add_argument("--sd_scripts", metavar="DIR", help="the sd-scripts clone to use")
    doctor.add_argument("--cpu", action="store_true", help="look as a run with --cpu would")


def _doctor(args: argparse.Namespace) -> int:
    from lycoris_composite.doctor.examine import examine
    from lycoris_composite.doctor.findings import show

    return show(examine(args.config, args.set, args.sd_scripts, args.cpu))


def _add_preview(commands: Any) -> None:
    example = "cg3.toml --epoch 3 --count 60"
    preview = _new(commands, "preview", "show what training will see: a page and a picture", example)
    _add_config(preview)
    preview.add_argument("--epoch", type=_count(), default=1, help="whose composites to show (default: %(default)s)")
    preview.add_argument("--count", type=_count(200), default=24, help="how many of them (default: %(default)s)")
    preview.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the config's output_dir)")


def _preview(args: argparse.Namespace) -> Iterable[object]:
    from lycoris_composite.look.preview import write_preview

    paths, lines = write_preview(args.config, args.set, args.epoch, args.count, args.out)
    return [*lines, *paths]


def _add_gallery(commands: Any) -> None:
    gallery = _new(commands, "gallery", "the samples of both stages as a page", "output --name cg3comp", description=_GALLERY)
    gallery.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="the config's output_dir")
    gallery.add_argument("--logs", type=Path, metavar="DIR", help="TensorBoard logs (default: the config's logging_dir)")
    gallery.add_argument("--name", metavar="OUTPUT_NAME", help="which run (default: the one with the newest samples)")


def _gallery(args: argparse.Namespace) -> Iterable[object]:
    from lycoris_composite.look.gallery import write_gallery

    page, lines = write_gallery(args.output_dir, args.logs, args.name)
    return [*lines, page]


def _add_export(commands: Any) -> None:
    example = "cg3.toml --epochs 4 --out composites"
    export = _new(commands, "export", "write composites as images and captions, for another trainer", example)
    _add_config(export)
    export.add_argument("--epochs", type=_count(), default=1, help="how many epochs' composites (default: %(default)s)")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="where kohya's <repeats>_<name> folder goes")


def _export(args: argparse.Namespace) -> Iterable[object]:
    from lycoris_composite.look.export import export

    folder, count, lines = export(args.config, args.set, args.epochs, args.out)
    return [*lines, f"{folder}: {count:,} composites"]


def _add_run(commands: Any) -> None:
    example = "train_network.py --dataset_config my.toml ..."
    run = _new(commands, "run", "run an upstream script with [datasets.composite] understood", example, allow_abbrev=False)
    run.add_argument("script", help="e.g. train_network.py or sdxl_train_network.py; all its own flags follow")
    run.add_argument("--sd_scripts", metavar="DIR", help="the sd-scripts clone to use")
    run.add_argument("--allow_pickle", action="store_true", help="load .ckpt files that hold more than weights")


def _run(args: argparse.Namespace, flags: Sequence[str]) -> None:
    folder = checkout.find(args.sd_scripts)
    from lycoris_composite.trainers.kohya.script import Upstream

    Upstream(folder, args.script).run_script(flags, args.allow_pickle)


_COMMANDS = {"setup": _setup, "preview": _preview, "gallery": _gallery, "export": _export}


if __name__ == "__main__":
    sys.exit(main())
