"""What every embedder is: `Embedder`, texts to unit float32 rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from centroute.embedders.folder import EmbedderDescription

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Embedder(ABC):
    """A loaded embedder. Made by `centroute.embedders.load_embedder`; safe to share between threads.

    A text without any known token (``""``, blanks, characters outside the vocabulary) gets a
    zero row: there is nothing to route on, and a router treats it so. All other rows have
    norm 1. A text's row does not depend on what else is in the batch (to rounding, 1e-5).

    Attributes
    ----------
    description
        All that is known of it: what ``embedder.json`` holds.
    runtime
        What runs it: ``"onnxruntime"`` or ``"centroute"``.
    device
        Where it runs: ``"cpu"`` or ``"cuda"``.
    """

    description: EmbedderDescription
    runtime: str
    device: str

    @property
    def name(self) -> str:
        """The embedder's name, as artifacts hold it."""
        return self.description.name

    @property
    def dim(self) -> int:
        """Length of a row."""
        return self.description.dim

    @property
    def fingerprint(self) -> str:
        """SHA-256 that identifies the vectors, see `centroute.embedders.fingerprint`."""
        return self.description.fingerprint

    @property
    def max_tokens(self) -> int:
        """Tokens read from a text, special tokens counted; what follows them is ignored."""
        return self.description.max_tokens

    @property
    @abstractmethod
    def tokenizer(self) -> str:
        """What tokenizes: ``"centroute"``, or ``"tokenizers"`` and why."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Parameters
        ----------
        texts
            Any Python strings; lone surrogates are read as U+FFFD.

        Returns
        -------
        NDArray[np.float32]
            ``[n, dim]``, C-contiguous, finite; a row has norm 1, or is zero when the text
            has no known token.

        Raises
        ------
        TypeError
            If ``texts`` is one string, or an item is not a string; names index and type.
        """

    @abstractmethod
    def tokenize(self, text: str) -> NDArray[np.int64]:
        """Token ids of a text as it is embedded, int64 ``[n_tokens]``; prefix and special tokens included."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, dim={self.dim}, device={self.device!r}, "
            f"fingerprint={self.fingerprint[:12]!r})"
        )


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no sequence of strings.

    Raises
    ------
    TypeError
        If ``texts`` is one string, or an item is not a string; names index and type.
    """
    if isinstance(texts, str | bytes):
        raise TypeError(f"texts must be a sequence of str, got one {type(texts).__name__}: put it in a list")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] must be str, got {type(text).__name__}")
