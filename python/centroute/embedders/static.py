"""Static tables without ONNX Runtime: texts to unit float32 rows in the extension, some microseconds each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from centroute import _kernel
from centroute.embedders.base import Embedder
from centroute.embedders.folder import EmbedderDescription, EmbedderFolder
from centroute.embedders.tokenizer import implementation
from centroute.errors import EmbedderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class StaticEmbedder(Embedder):
    """A table of token rows. A text's row is the weighted sum of its tokens' rows, scaled to norm 1."""

    runtime = "centroute"
    device = "cpu"

    def __init__(
        self, description: EmbedderDescription, static: _kernel.StaticEmbedder, *, threads: int = 1
    ) -> None:
        self.description = description
        self.static = static
        """The extension's part; `Router` hands it to the kernel, so that a text is one call."""
        self._threads = threads

    @property
    def tokenizer(self) -> str:
        """What tokenizes: ``"centroute"``, or ``"tokenizers"`` and why."""
        return implementation(self.static.fallback_reason)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; see `Embedder.embed`."""
        return self.static.embed(texts, threads=self._threads)

    def tokenize(self, text: str) -> NDArray[np.int64]:
        """Token ids of a text; see `Embedder.tokenize`."""
        return self.static.tokenize(text)


def open_static_embedder(folder: EmbedderFolder, *, threads: int = 1) -> StaticEmbedder | None:
    """Load a static table; None where the folder's graph is no table that can be read without running it.

    Raises
    ------
    EmbedderError
        If table or tokenizer are damaged or do not fit each other; one line with the file's name.
    """
    if threads < 1:
        raise EmbedderError(f"threads must be at least 1, got {threads}")
    description, table = folder.description, folder.table
    try:
        model, tokenizer = folder.model.read_bytes(), folder.tokenizer.read_bytes()
    except OSError as error:
        raise EmbedderError(f"{error.filename}: cannot be read: {error.strerror}") from error
    try:
        if table is None:
            static = _kernel.StaticEmbedder.from_onnx(
                model, tokenizer, max_tokens=description.max_tokens, prefix=description.prefix
            )
        else:
            static = _kernel.StaticEmbedder.from_safetensors(
                model,
                tokenizer,
                rows=table.rows,
                weights=table.weights,
                mapping=table.mapping,
                max_tokens=description.max_tokens,
                prefix=description.prefix,
                max_characters=table.max_characters,
                add_special_tokens=table.adds_special_tokens,
                drop_unknown=table.drops_unknown,
            )
    except EmbedderError as error:
        at_fault = folder.tokenizer if str(error).startswith("not a tokenizer") else folder.model
        raise EmbedderError(f"{at_fault}: {error}") from None
    if static is None:
        return None
    if static.dim != description.dim:
        raise EmbedderError(f"{folder.model}: rows have dim {static.dim}, described {description.dim}")
    return StaticEmbedder(description, static, threads=threads)
