"""Opening a ``tokenizer.json``. Texts become token ids in the extension, without the interpreter lock.

Padding and truncation that are baked into the file do not count: texts are truncated to ``max_tokens`` and
never padded. BERT's pipeline is the extension's own, in one pass that stops at ``max_tokens``; any other is
left to the crate ``tokenizers``.
"""

from __future__ import annotations

from pathlib import Path

from centroute._kernel import Tokenizer
from centroute.errors import EmbedderError


def open_tokenizer(path: Path, *, max_tokens: int) -> Tokenizer:
    """Read a ``tokenizer.json``.

    Parameters
    ----------
    path
        The file.
    max_tokens
        Tokens kept of a text, special tokens counted.

    Raises
    ------
    EmbedderError
        If the file cannot be read, is no tokenizer or has no token; one line with its name.
    """
    try:
        tokenizer = Tokenizer(path.read_bytes(), max_tokens=max_tokens)
    except OSError as error:
        raise EmbedderError(f"{path}: cannot be read: {error.strerror}") from error
    except EmbedderError as error:
        raise EmbedderError(f"{path}: {error}") from None
    if tokenizer.n_token_ids == 0:
        raise EmbedderError(f"{path}: not a tokenizer: it has no token")
    return tokenizer


def implementation(fallback_reason: str | None) -> str:
    """What tokenizes: ``"centroute"``, or ``"tokenizers"`` and why."""
    return "centroute" if fallback_reason is None else f"tokenizers ({fallback_reason})"
