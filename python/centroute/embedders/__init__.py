"""Embedders: text to unit float32 rows. ``load_embedder("static-256").embed(texts)``.

Importing this package loads neither ONNX Runtime nor a tokenizer; `load_embedder` does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from centroute.embedders.fingerprint import fingerprint
from centroute.embedders.folder import EmbedderDescription, bundled_folder, bundled_names, read_description

if TYPE_CHECKING:
    from centroute.embedders.onnx import Embedder

__all__ = [
    "Embedder",
    "EmbedderDescription",
    "bundled_folder",
    "bundled_names",
    "fingerprint",
    "load_embedder",
    "read_description",
]


def load_embedder(name_or_dir: str | os.PathLike[str], *, threads: int = 1) -> Embedder:
    """Load an embedder by the name of a bundled one or from a folder.

    Parameters
    ----------
    name_or_dir
        A name such as ``"static-256"``, or the path of a folder with ``model.onnx``,
        ``tokenizer.json`` and ``embedder.json``. A bundled name comes before a folder of
        that name in the working directory; write ``./static-256`` for the latter.
    threads
        Threads within one call of the graph, at least 1. Calls from several Python threads
        run side by side whatever this is.

    Raises
    ------
    EmbedderError
        If there is no such embedder, or its folder is incomplete, damaged or inconsistent.

    Examples
    --------
    >>> embedder = load_embedder("static-256")
    >>> embedder.embed(["What is a prime number?", "Name a prime number."]).shape
    (2, 256)
    """
    # Imported here and not above: this module brings in onnxruntime and tokenizers.
    from centroute.embedders.onnx import open_embedder

    folder = Path(name_or_dir)
    # A plain name is looked up; where nothing has it, the error lists the bundled names.
    if isinstance(name_or_dir, str) and folder.name == name_or_dir:
        is_bundled = name_or_dir in bundled_names()
        if is_bundled or not folder.is_dir():
            folder = bundled_folder(name_or_dir)
    return open_embedder(folder, threads=threads)


def __getattr__(name: str) -> object:
    if name == "Embedder":
        from centroute.embedders.onnx import Embedder

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
