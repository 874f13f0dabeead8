"""Files that are either wholly written or not there: write beside, flush, rename."""

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends without an error.

    A reader sees the old file or the whole new one, never a part; after an error the old one is as it was.

    Parameters
    ----------
    path
        The file; its folder must exist.

    Raises
    ------
    OSError
        If the folder is missing or not writable, ``path`` is a folder, or the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(target))
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(target.parent)


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write the whole of ``data`` through :func:`atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


def replace_folder(new: Path, target: Path, *, beside: Path) -> None:
    """Give a finished folder its name, and what had the name before it the name ``beside``.

    Where the system can exchange two names at once, as Linux does, there is a folder of that name at any
    time; elsewhere there is none between two renames.

    Raises
    ------
    OSError
        If it cannot be; then ``target`` is as it was.
    """
    if not target.exists():
        new.rename(target)
    elif _exchange(new, target):
        new.rename(beside)
    else:
        target.rename(beside)
        try:
            new.rename(target)
        except OSError:
            beside.rename(target)
            raise
    sync_folder(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where the system or the disk cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    in_working_folder, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and not rename(
        in_working_folder, os.fsencode(one), in_working_folder, os.fsencode(other), exchange
    )


def sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the platform can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
