"""Reading a router file for routing. Apart from `centroute.artifact`, as it needs no NumPy."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Literal

from centroute._kernel import Counters, Kernel
from centroute.errors import ArtifactError

MAX_BYTES = 1 << 34
"""Files larger than this are refused before they are read."""
_LOOK_AHEAD_BYTES = 1 << 20

Precision = Literal["f32", "f16", "i8"]
FileStamp = tuple[int, int, int]
"""Time of the last change in nanoseconds, size and inode: another file or another content has another."""


def load_kernel(
    path: str | os.PathLike[str],
    *,
    generation: int = 1,
    precision: Precision | None = None,
    counters: Counters | None = None,
) -> Kernel:
    """Read and validate a router file, or that of a bundle's folder, for routing.

    ``generation`` is the number that its decisions carry; ``precision`` is the one to search centroids in,
    the file's own when not given; ``counters`` are those of the kernel that it follows.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged, altered or of another version; the message names it.
    """
    file = Path(path)
    if file.is_dir():
        from centroute.bundle import read_bundle

        file = read_bundle(file).router
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ArtifactError(f"{file}: cannot be read (is no regular file)")
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ArtifactError(f"{file}: {size} bytes, a router file has at most {MAX_BYTES}")
        with file.open("rb") as opened:
            # Looked at before all of it is in memory: a file of gigabytes may hold nothing at all.
            n_header = int.from_bytes(opened.read(8), "little")
            if size > _LOOK_AHEAD_BYTES and not 2 <= n_header <= size - 8:
                raise ArtifactError(
                    f"{file}: not a readable safetensors file: {n_header} bytes of header in {size} of file"
                )
            opened.seek(0)
            data = opened.read()
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({reason(error)})") from error
    except MemoryError:
        raise ArtifactError(f"{file}: cannot be read (not enough memory for its {size} bytes)") from None
    try:
        return Kernel(data, generation=generation, precision=precision, counters=counters)
    except ArtifactError as error:
        raise ArtifactError(f"{file}: {error}") from None


def read_metadata(kernel: Kernel) -> dict[str, Any]:
    """All of a router's metadata, with what deciding does not need.

    Raises
    ------
    ArtifactError
        If Python cannot read what the kernel did not look at: deep nesting, numbers of thousands of digits;
        or an object is none.
    """
    try:
        metadata: object = json.loads(kernel.metadata_json)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"router metadata: cannot be read as JSON ({error})") from None
    if not isinstance(metadata, dict):
        raise ArtifactError("router metadata: is no JSON object")
    # The kernel would take lists for these as well, in the order of their fields.
    objects = {"embedder": [metadata["embedder"]], "models": metadata["models"]}
    if (policy := metadata.get("default_policy")) is not None:
        objects["default_policy"] = [policy]
    for name, values in objects.items():
        if not all(isinstance(value, dict) for value in values):
            raise ArtifactError(f"router metadata: {name} is no JSON object")
    return metadata


def find_embedder(path: Path | None, kernel: Kernel) -> Path | str:
    """Where the embedder of a router is: in its bundle, else where its name leads."""
    if path is not None and path.is_dir():
        from centroute.bundle import EMBEDDER_FOLDER

        return path / EMBEDDER_FOLDER
    return kernel.embedder[0]


def file_stamp(path: str | os.PathLike[str]) -> FileStamp | None:
    """What tells a file from what was there before, None where there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def reason(error: OSError) -> str:
    """What the system says, in lower case."""
    return (error.strerror or str(error)).lower()


def number_within(value: object, low: float, high: float) -> float:
    """Return a number of the metadata.

    Raises
    ------
    TypeError
        If it is no finite number.
    ValueError
        If it is outside ``low`` to ``high``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no finite number")
    if not low <= value <= high:
        raise ValueError(f"{value!r} is outside {low:g} to {high:g}")
    return float(value)
