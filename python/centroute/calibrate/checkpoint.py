"""Checkpoints: what a long calibration has done so far, in a folder of its own.

The folder holds ``centroute-checkpoint.json``, which says of which run it is, the embedded shards, and the
state of finished steps. Whatever is in it was written beside and renamed. It is never a result: a router file
is written at the end, elsewhere, and the folder is removed after it.
"""

import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centroute._atomic import write_atomic
from centroute._shown import show
from centroute.artifact import Json
from centroute.errors import DataError

NAME = "centroute-checkpoint.json"
VERSION = 1
"""Of what checkpoints hold and mean; another one is not continued."""

_LOCK = "lock"
_EMBEDDED = "embedded"
_STATES = "states"


class Checkpoint:
    """The folder of one run. Made by `opened_checkpoint`.

    Attributes
    ----------
    folder
        Where it is.
    is_resumed
        Whether it was there before.
    """

    __slots__ = ("_run", "folder", "is_resumed")

    def __init__(self, folder: Path, run: Mapping[str, Json]) -> None:
        self.folder = folder
        self._run = _digests(run)
        self.is_resumed = (folder / NAME).exists()
        if self.is_resumed:
            self._check()
            return
        if folder.exists() and any(entry.name != _LOCK for entry in folder.iterdir()):
            raise DataError(
                f"{folder}: is no checkpoint, and holds other files; name an empty or a new folder"
            )
        content = {"centroute_checkpoint": VERSION, "run": self._run}
        self._write(folder / NAME, (json.dumps(content, indent=1) + "\n").encode())

    @property
    def embedded(self) -> Path:
        """Folder of the embedded shards."""
        return self.folder / _EMBEDDED

    def load(self, step: str) -> dict[str, NDArray[Any]] | None:
        """Arrays that `save` kept of a step; None where it was not reached.

        Raises
        ------
        DataError
            They cannot be read; names the file.
        """
        file = self.folder / _STATES / f"{step}.npz"
        if not file.exists():
            return None
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{file}: the checkpoint is damaged ({error}); remove its folder and run again"
            ) from error

    def save(self, step: str, **arrays: NDArray[Any]) -> None:
        """Keep the arrays of a step."""
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]
        self._write(self.folder / _STATES / f"{step}.npz", packed.getvalue())

    def _write(self, file: Path, content: bytes) -> None:
        try:
            file.parent.mkdir(exist_ok=True)
            write_atomic(file, content)
        except OSError as error:
            raise DataError(f"{file}: cannot be written: {error.strerror or error}") from error

    def _check(self) -> None:
        file = self.folder / NAME
        try:
            found = json.loads(file.read_bytes())
            version, run = found["centroute_checkpoint"], found["run"]
            there = {str(name): str(digest) for name, digest in run.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file}: the checkpoint is damaged ({show(str(error))}); remove its folder and run again"
            ) from error
        if version != VERSION:
            raise DataError(f"{file}: the checkpoint is of version {show(version)}, wanted {VERSION}")
        for name, digest in self._run.items():
            if there.get(name) != digest:
                raise DataError(
                    f"{self.folder}: is the checkpoint of another run, with another {name}; name another "
                    "folder, or remove it"
                )


@contextmanager
def opened_checkpoint(folder: Path, run: Mapping[str, Json]) -> Iterator[Checkpoint]:
    """Open the checkpoint of a run, or begin one.

    Parameters
    ----------
    folder
        Where it is or will be.
    run
        All that the result depends on, by the names in which a difference is told.

    Raises
    ------
    DataError
        It is of another run, damaged, in use by another process, or no checkpoint; names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("wb")
    except OSError as error:
        raise DataError(f"{folder}: cannot be a checkpoint: {error.strerror or error}") from error
    with lock:
        _lock(lock.fileno(), folder)
        yield Checkpoint(folder, run)


def remove_checkpoint(folder: Path) -> None:
    """Remove what runs put into a folder, and the folder where nothing else is in it."""
    for name in (_EMBEDDED, _STATES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (NAME, _LOCK):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _lock(handle: int, folder: Path) -> None:
    """Keep other processes out for as long as the file is open, where the system can."""
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DataError(f"{folder}: the checkpoint is in use by another process") from error


def _digests(run: Mapping[str, Json]) -> dict[str, Json]:
    """By name, the SHA-256 of what a run was given: contents can be long, and differ or not."""
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        for name, value in run.items()
    }
