"""The user's cache folder: embedders that were exported once and are then found by name.

It is ``$CENTROUTE_CACHE_DIR``, else ``$XDG_CACHE_HOME/centroute``, else ``~/.cache/centroute``;
an embedder lies in ``embedders/NAME`` below it. A folder is written beside its place and renamed
as a whole, so that whatever has a name there is complete.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from centroute._atomic import replace_folder
from centroute.embedders.folder import DESCRIPTION_FILE


def cache_folder() -> Path:
    """Return the user's cache folder, which need not exist."""
    if chosen := os.environ.get("CENTROUTE_CACHE_DIR"):
        return Path(chosen).absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore a relative path.
    return (shared if shared.is_absolute() else _home() / ".cache") / "centroute"


def embedder_place(name: str) -> Path:
    """Return where an embedder of that name lies once it is in the cache."""
    return cache_folder() / "embedders" / name


def cached_folder(name: str) -> Path | None:
    """Return the folder of an embedder in the cache, or None where there is none of that name."""
    return embedder_place(name) if name in cached_names() else None


def cached_names() -> list[str]:
    """Return the names of the embedders in the cache, sorted; none where it cannot be read."""
    try:
        return sorted(
            folder.name
            for folder in embedder_place("").iterdir()
            if not folder.name.startswith(".") and (folder / DESCRIPTION_FILE).is_file()
        )
    except OSError:
        return []


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of ``target`` when the block ends without an error.

    After an error ``target`` is as it was and nothing is left beside it.

    Raises
    ------
    OSError
        If the folder above cannot be made or written, or ``target`` is no folder.
    """
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    new, old = beside / "new", beside / "old"
    try:
        new.mkdir()
        yield new
        replace_folder(new, target, beside=old)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no entry in the password file
        return Path(tempfile.gettempdir())
