"""`lycoris-composite <command>`: arguments to one call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lycoris_composite import __version__, checkout, gallery, launcher
from lycoris_composite.errors import printable

_RUN_EXAMPLE = "example: lycoris-composite run train_network.py --dataset_config my.toml --output_dir out ..."


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lycoris-composite",
        description="Composites for kohya's sd-scripts.",
        epilog="example: lycoris-composite gallery output",
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
    run = commands.add_parser(
        "run", help="run an upstream script with [datasets.composite] understood", epilog=_RUN_EXAMPLE, allow_abbrev=False
    )
    run.add_argument("script", help="e.g. train_network.py or sdxl_train_network.py; all its own flags follow")
    run.add_argument("--sd_scripts", metavar="DIR", help="the sd-scripts clone to use")
    run.add_argument("--allow_pickle", action="store_true", help="load .ckpt files that hold more than weights")
    shown = commands.add_parser(
        "gallery",
        help="the samples of both stages as a page and a picture",
        description="The samples of both stages as one page and one picture: prompts down, epochs across, the loss "
        "curve above. Run it again at any time, also during training.",
        epilog="example: lycoris-composite gallery output --name cg3comp",
    )
    shown.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="the config's output_dir")
    shown.add_argument("--logs", type=Path, metavar="DIR", help="TensorBoard logs (default: the config's logging_dir)")
    shown.add_argument("--name", metavar="OUTPUT_NAME", help="which run (default: the one with the newest samples)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    own, flags = parser().parse_known_args(arguments)
    if own.command == "run":
        return launcher.report(lambda: _run(own, flags))
    if flags:
        parser().error(f"unrecognized arguments: {' '.join(flags)}")
    return launcher.report(lambda: {"setup": _setup, "gallery": _gallery}[own.command](own))


def _setup(own: argparse.Namespace) -> None:
    for line in checkout.setup(own.url, own.ref, own.dir, own.tokenizers):
        print(line, flush=True)


def _gallery(own: argparse.Namespace) -> None:
    paths, said = gallery.write_gallery(own.output_dir, own.logs, own.name)
    for line in (*said, *map(str, paths)):
        print(printable(line), flush=True)


def _run(own: argparse.Namespace, flags: Sequence[str]) -> None:
    folder = checkout.find(own.sd_scripts)
    from lycoris_composite.trainers.kohya import Upstream

    Upstream(folder, own.script).run_script(flags, own.allow_pickle)


if __name__ == "__main__":
    sys.exit(main())
