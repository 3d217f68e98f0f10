"""Files and folders that are complete under their name, or not there: written beside it and renamed at the end.

What a killed run leaves half-written has a hidden name that says whose it was; `remove_leftovers` clears it away.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from lycoris_composite.errors import UserError

_LEFTOVER = re.compile(r"^\..+\.(?P<host>[^~]+)~(?P<pid>\d+)~part$")
_DAY = 86_400.0


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write a file or a folder to, with the name and suffix of `path`, which it takes when the block ends.

    Reaches the disk before it gets its name, so that a power cut tears nothing either. When the block raises,
    nothing is left; what bore the name before stays as it was. Raises UserError where the disk refuses.
    """
    target = Path(path)
    aside = target.parent / f".{target.name}.{_host()}~{os.getpid()}~part"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        yield aside / target.name
        _reach_disk(aside / target.name)
        _take_name(aside / target.name, target)
    except OSError as error:
        raise UserError(cannot_write(target, error)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """A text file in UTF-8, complete or not there. Every process of a run may write the same."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def cannot_write(path: str | os.PathLike, error: Exception) -> str:
    """The sentence for a file that could not be written."""
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return f"{path}: cannot be written ({reason}); make room or mend the folder, then run the same command again."


def check_writable(path: Path) -> None:
    """Raises UserError where a file of that name could not be made, as far as that can be seen without making one."""
    folder = existing_folder(path)
    code = 0
    if not folder.is_dir():
        code = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        code = errno.EROFS if _is_read_only(folder) else errno.EACCES
    if code:
        raise UserError(cannot_write(path, OSError(code, os.strerror(code))))


def existing_folder(path: Path) -> Path:
    """The nearest thing above a path that is there: a folder, unless the path leads through a file."""
    return next(parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink())


def _is_read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def remove_leftovers(folder: Path) -> list[Path]:
    """Removes what dead processes left half-written in a folder, and returns it. What another machine's process
    left is removed after a day: whether it lives cannot be seen from here."""
    removed = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        owner = _LEFTOVER.match(path.name)
        if owner and not _may_live(owner["host"], int(owner["pid"]), path):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _may_live(host: str, pid: int, path: Path) -> bool:
    if host == _host():
        return pid != os.getpid() and psutil.pid_exists(pid)
    try:
        return time.time() - path.stat().st_mtime < _DAY
    except OSError:
        return True


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40] or "-"


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
