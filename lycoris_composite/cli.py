"""`lycoris-composite <command>`: arguments to one call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lycoris_composite import __version__, checkout, doctor, findings, launcher
from lycoris_composite.errors import printable

_DOCTOR = """Says in a table what is there and what it means. With a config: all that a run
of it would refuse, what it needs of disk and memory, and what hurts. Changes
nothing. Exit code 0: all is well, 1: warnings, 2: errors."""
_RUN_EXAMPLE = "example: lycoris-composite run train_network.py --dataset_config my.toml --output_dir out ..."


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lycoris-composite",
        description="Composites for kohya's sd-scripts.",
        epilog="example: lycoris-composite doctor cg3.toml",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    setup = commands.add_parser(
        "setup", help="get sd-scripts and what it needs", epilog="example: lycoris-composite setup --dir ../sd-scripts"
    )
    setup.add_argument("--url", default=checkout.PUBLIC_URL, help="where to clone from (default: %(default)s)")
    setup.add_argument("--ref", default=checkout.DEFAULT_REF, help="tag, branch or commit (default: %(default)s)")
    setup.add_argument("--dir", type=Path, default=checkout.default_folder(), help="where to (default: %(default)s)")
    setup.add_argument("--tokenizers", action="store_true", help="fetch CLIP's tokenizers too, as training fetches nothing")
    preview = commands.add_parser(
        "preview",
        help="show what training will see: a page and a contact sheet",
        epilog="example: lycoris-composite preview cg3.toml --set composite.stage2.resolution=512,512",
    )
    _add_config(preview)
    preview.add_argument("--epoch", type=int, default=1, help="whose composites to show (default: %(default)s)")
    preview.add_argument("--count", type=int, default=24, help="how many of them (default: %(default)s)")
    preview.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the config's output_dir)")
    export = commands.add_parser(
        "export",
        help="write composites as images and captions, for another trainer",
        epilog="example: lycoris-composite export cg3.toml --epochs 4 --out composites",
    )
    _add_config(export)
    export.add_argument("--epochs", type=int, default=1, help="how many epochs' composites (default: %(default)s)")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write kohya's <repeats>_<name> folder")
    run = commands.add_parser(
        "run", help="run an upstream script with [datasets.composite] understood", epilog=_RUN_EXAMPLE, allow_abbrev=False
    )
    run.add_argument("script", help="e.g. train_network.py or sdxl_train_network.py; all its own flags follow")
    run.add_argument("--sd_scripts", metavar="DIR", help="the sd-scripts clone to use")
    run.add_argument("--allow_pickle", action="store_true", help="load .ckpt files that hold more than weights")
    look = commands.add_parser(
        "doctor",
        help="say what is there, and what a config would meet",
        description=_DOCTOR,
        epilog="example: lycoris-composite doctor cg3.toml --set xformers=false",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    look.add_argument("config", nargs="?", type=Path, metavar="FILE", help="a kohya config with a [composite] table")
    look.add_argument("--sd_scripts", metavar="DIR", help="the sd-scripts clone to use")
    look.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key, dots for tables")
    look.add_argument("--cpu", action="store_true", help="look as a run with --cpu would")
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, help="a kohya config with a [composite] table")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key, dots for tables")


def main(arguments: Sequence[str] | None = None) -> int:
    own, flags = parser().parse_known_args(arguments)
    if own.command == "run":
        return launcher.report(lambda: _run(own, flags))
    if flags:
        parser().error(f"unrecognized arguments: {' '.join(flags)}")
    if own.command == "doctor":
        return _doctor(own)
    return launcher.report(lambda: _COMMANDS[own.command](own))


def _doctor(own: argparse.Namespace) -> int:
    sections = doctor.examine(own.config, own.set, own.sd_scripts, own.cpu)
    findings.show(sections)
    return findings.exit_code(finding for section in sections for finding in section)


def _setup(own: argparse.Namespace) -> None:
    for line in checkout.setup(own.url, own.ref, own.dir, own.tokenizers):
        print(line, flush=True)


def _preview(own: argparse.Namespace) -> None:
    from lycoris_composite.preview import preview

    for path in preview(own.config, own.set, max(1, own.epoch), max(1, own.count), own.out):
        print(path, flush=True)


def _export(own: argparse.Namespace) -> None:
    from lycoris_composite.export import export

    folder, count, lines = export(own.config, own.set, max(1, own.epochs), own.out)
    for line in lines:
        print(printable(line), flush=True)
    print(f"{folder}: {count:,} composites", flush=True)


def _run(own: argparse.Namespace, flags: Sequence[str]) -> None:
    folder = checkout.find(own.sd_scripts)
    from lycoris_composite.trainers.kohya import Upstream

    Upstream(folder, own.script).run_script(flags, own.allow_pickle)


_COMMANDS = {"setup": _setup, "preview": _preview, "export": _export}


if __name__ == "__main__":
    sys.exit(main())
