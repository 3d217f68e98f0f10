"""Copies sd-scripts and makes its U-Nets as narrow as the miniature's: `python narrow.py FOLDER`.

Upstream hard-codes the widths of SD 1.x in library/original_unet.py and reads them whenever it builds a U-Net. So a copy
with three other numbers loads the miniature and the tests' tiny models, and no real SD 1.x. The copy does not follow the
original: make it again after an update.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from lycoris_composite.trainers.kohya import checkout

WIDTHS = (32, 64, 128, 128)  # upstream's group norms always have 32 groups
_LINES = f"""
BLOCK_OUT_CHANNELS = {WIDTHS}
TIMESTEP_INPUT_DIM, TIME_EMBED_DIM = {WIDTHS[0]}, {4 * WIDTHS[0]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the copy goes; what is there is removed")
    parser.add_argument("--sd_scripts", metavar="DIR", help="the clone to copy (default: $SD_SCRIPTS_DIR, or a usual place)")
    args = parser.parse_args()
    narrow_copy(checkout.find(args.sd_scripts), args.folder)


def narrow_copy(sd_scripts: Path, folder: Path) -> Path:
    """A narrow copy of the checkout in `folder`, which it returns."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(sd_scripts, folder, symlinks=True)
    narrow(folder)
    return folder


def narrow(sd_scripts: Path) -> None:
    """Changes a checkout in place."""
    with open(sd_scripts / "library" / "original_unet.py", "a", encoding="utf-8") as file:
        file.write(_LINES)


if __name__ == "__main__":
    main()
