r"""The identity of an embedder: one SHA-256 that changes whenever its vectors could.

An artifact stores the fingerprint of the embedder that it was calibrated with, and a
router refuses any other one: vectors of two embedders are not comparable.

The form is exact, so that other languages can reproduce it. It is the SHA-256, in
lower-case hexadecimal, of the UTF-8 bytes of a JSON object with these six keys in this
order (sorted), no spaces or line breaks, no final newline:

    {"max_tokens":256,"model_sha256":"…","pooling":"sum","prefix":"","surface_features":null,"tokenizer_sha256":"…"}

- ``max_tokens``: integer, special tokens counted.
- ``model_sha256``, ``tokenizer_sha256``: SHA-256 of the bytes of ``model.onnx`` and
  ``tokenizer.json``, 64 lower-case hexadecimal digits.
- ``pooling``, ``prefix``: strings as in ``embedder.json``.
- ``surface_features``: ``null``, or a string that names the feature set and its weight.
  It is a string and not a number because decimal notation differs between languages.

Strings hold non-ASCII characters as themselves; only ``"``, ``\`` and characters below
U+0020 are escaped, the latter as ``\b \t \n \f \r`` or ``\u00xx`` in lower case. This is
what Python's ``json`` (``ensure_ascii=False``) and Rust's ``serde_json`` both write.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 lower-case hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(
    model_sha256: str,
    *,
    tokenizer_sha256: str,
    pooling: str,
    max_tokens: int,
    surface_features: str | None = None,
    prefix: str = "",
) -> str:
    """Return the fingerprint of an embedder; the exact form is in the module's description.

    Parameters
    ----------
    model_sha256, tokenizer_sha256
        SHA-256 of the two files' bytes, lower-case hexadecimal.
    pooling
        How token rows become one row, as in ``embedder.json``.
    max_tokens
        Tokens read from a text, special tokens counted.
    surface_features
        Name and weight of appended surface features, or None where there are none.
    prefix
        Text put before every query.

    Raises
    ------
    ValueError
        If a digest is not 64 lower-case hexadecimal digits or ``max_tokens`` is below 1.

    Examples
    --------
    >>> fingerprint("0" * 64, tokenizer_sha256="1" * 64, pooling="sum", max_tokens=256)[:16]
    'aeb021505b5c7902'
    """
    for name, digest in (("model_sha256", model_sha256), ("tokenizer_sha256", tokenizer_sha256)):
        if not _SHA256_HEX.fullmatch(digest):
            raise ValueError(f"{name} must be 64 lower-case hexadecimal digits, got {digest!r}")
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    identity = {
        "max_tokens": max_tokens,
        "model_sha256": model_sha256,
        "pooling": pooling,
        "prefix": prefix,
        "surface_features": surface_features,
        "tokenizer_sha256": tokenizer_sha256,
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
