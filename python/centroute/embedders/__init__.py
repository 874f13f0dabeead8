"""Embedders: text to unit float32 rows. ``load_embedder("static-256").embed(texts)``.

Importing this package loads neither ONNX Runtime nor a tokenizer; `load_embedder` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from centroute.embedders.base import Embedder
from centroute.embedders.cache import cached_folder, cached_names
from centroute.embedders.fingerprint import fingerprint
from centroute.embedders.folder import EmbedderDescription, bundled_folder, bundled_names, read_description
from centroute.embedders.layouts import read_folder
from centroute.errors import EmbedderError

if TYPE_CHECKING:
    from centroute.embedders.onnx import Device, Provider

__all__ = [
    "EXPORT_COMMANDS",
    "Embedder",
    "EmbedderDescription",
    "bundled_folder",
    "bundled_names",
    "cached_folder",
    "cached_names",
    "find_folder",
    "fingerprint",
    "load_embedder",
    "read_description",
    "read_folder",
]

EXPORT_COMMANDS = {
    "minilm-l6": "centroute embed export minilm-l6",
    "minilm-l6-int8": "centroute embed export minilm-l6 --precision int8",
}
"""Embedders that are not bundled and can be made, and the command that makes each."""


def find_folder(name_or_dir: str | os.PathLike[str]) -> Path:
    """Return the folder of an embedder: a bundled one, one in the cache, or the folder itself.

    Raises
    ------
    EmbedderError
        If a plain name is none of these; lists the names there are, and says how to make one
        that could be.
    """
    folder = Path(name_or_dir)
    if not isinstance(name_or_dir, str) or folder.name != name_or_dir:
        return folder
    if name_or_dir in bundled_names():
        return bundled_folder(name_or_dir)
    if (cached := cached_folder(name_or_dir)) is not None:
        return cached
    if folder.is_dir():
        return folder
    known = [*bundled_names(), *cached_names()]
    listing = f"no embedder named {name_or_dir!r} and no such folder; there are: {', '.join(known) or 'none'}"
    command = EXPORT_COMMANDS.get(name_or_dir)
    raise EmbedderError(f"{listing}; run: {command}" if command else listing)


def load_embedder(
    name_or_dir: str | os.PathLike[str],
    *,
    threads: int = 1,
    device: Device = "auto",
    providers: Sequence[Provider] | None = None,
    runtime: Literal["auto", "onnx"] = "auto",
) -> Embedder:
    """Load an embedder by the name of a bundled or exported one or from a folder.

    Parameters
    ----------
    name_or_dir
        A name such as ``"static-256"``, or the path of a folder of one of the layouts that
        `centroute.embedders.layouts` describes. A bundled name comes before an exported one
        and before a folder of that name in the working directory; write ``./static-256`` for
        the latter.
    threads
        Threads within one call of the graph, at least 1. Calls from several Python threads
        run side by side whatever this is.
    device
        Where a graph runs: ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where ONNX Runtime has
        it and it starts, else the CPU. ``embedder.device`` tells which was taken. Static tables
        run on the CPU without ONNX Runtime unless CUDA, ``providers`` or ``runtime="onnx"`` ask
        for it.
    providers
        ONNX Runtime's execution providers, in the place of ``device``: names, or pairs of name
        and options.
    runtime
        ``"auto"``, or ``"onnx"`` to run by ONNX Runtime what could also be run without.

    Raises
    ------
    EmbedderError
        If there is no such embedder, its folder is incomplete, damaged or inconsistent, or the
        device is not there.

    Examples
    --------
    >>> embedder = load_embedder("static-256")
    >>> embedder.embed(["What is a prime number?", "Name a prime number."]).shape
    (2, 256)
    """
    if runtime not in ("auto", "onnx"):
        raise EmbedderError(f"runtime must be auto or onnx, got {runtime!r}")
    if device not in ("auto", "cpu", "cuda"):
        raise EmbedderError(f"device must be auto, cpu or cuda, got {device!r}")
    folder = read_folder(find_folder(name_or_dir))
    wants_onnx = runtime == "onnx" or device == "cuda" or providers is not None
    if folder.table is not None and wants_onnx:
        raise EmbedderError(f"{folder.model}: is a static table, which runs on the CPU without ONNX Runtime")
    if folder.is_static and not wants_onnx:
        from centroute.embedders.static import open_static_embedder

        if (static := open_static_embedder(folder, threads=threads)) is not None:
            return static
    # Imported here and not above: this module brings in onnxruntime.
    from centroute.embedders.onnx import open_onnx_embedder

    return open_onnx_embedder(folder, threads=threads, device=device, providers=providers)
