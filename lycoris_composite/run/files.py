"""Files and folders that are complete under their name, or not there: written beside it and renamed at the end.

What a killed program leaves half-written has a hidden name that ends in `~part`. A run removes it when it begins.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lycoris_composite.errors import UserError, one_line

_SUFFIX = "~part"


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path to write a file or a folder to. At the end of the block it is written to the disk and renamed to
    `path`. If the block raises, it is removed and `path` stays as it was. Raises UserError if the disk refuses."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(_SUFFIX, f".{target.name}.", target.parent, ignore_cleanup_errors=True) as aside:
            part = Path(aside) / target.name
            yield part
            _reach_disk(part)
            _take_name(part, target)
    except OSError as error:
        raise UserError(cannot_write(target, error)) from error


def write_whole(path: Path, text: str) -> None:
    """A text file in UTF-8, complete or not there. Every process of a run may write the same."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def cannot_write(path: str | os.PathLike, error: Exception) -> str:
    """The sentence for a file that could not be written."""
    reason = getattr(error, "strerror", None) or one_line(error)
    return f"{path}: cannot be written ({reason}); make room or mend the folder, then run the same command again."


def check_writable(path: Path) -> None:
    """Raises UserError where a file of that name could not be made, as far as that can be seen without making one."""
    folder = existing_folder(path)
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return
    code = errno.EACCES
    if not folder.is_dir():
        code = errno.ENOTDIR
    elif hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        code = errno.EROFS
    raise UserError(cannot_write(path, OSError(code, os.strerror(code))))


def existing_folder(path: Path) -> Path:
    """The nearest thing above a path that is there: a folder, unless the path leads through a file."""
    return next(parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink())


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Removes what killed programs left half-written of files of that name. The caller knows that nothing writes them now."""
    for path in folder.glob(f".{name}.*{_SUFFIX}"):
        shutil.rmtree(path, ignore_errors=True)


def _reach_disk(path: Path) -> None:
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


def _take_name(part: Path, target: Path) -> None:
    """A rename replaces a file but not a folder: an older folder steps aside first."""
    if target.is_dir() and not part.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.is_dir():
        target.rename(part.with_name("old"))
    os.replace(part, target)
