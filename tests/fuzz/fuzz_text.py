"""Texts: the tokenizer against the package ``tokenizers``, the static path against ONNX Runtime.

An input is JSON: a list of texts.
"""

from __future__ import annotations

import functools
import json
import random
import sys

import numpy as np
import tokenizers
from harness import main
from test_tokenizer import FILE, MAX_TOKENS, compare, made_up_texts, open_theirs

from centroute._kernel import Tokenizer, surface_features
from centroute.embedders import Embedder, load_embedder
from centroute.surface import surface_features as reference_features


@functools.cache
def _tokenizers() -> tuple[Tokenizer, tokenizers.Tokenizer]:
    return Tokenizer(FILE.read_bytes(), max_tokens=MAX_TOKENS), open_theirs()


@functools.cache
def _embedders() -> tuple[Embedder, Embedder]:
    return load_embedder("static-256"), load_embedder("static-256", runtime="onnx", device="cpu")


def make(chance: random.Random) -> bytes:
    """Return one input."""
    texts = made_up_texts(20, seed=chance.getrandbits(40))
    for _ in range(6):
        length = chance.choice((1, 3, 20, 300, 3000))
        texts.append("".join(_character(chance) for _ in range(length)))
    if chance.random() < 0.2:
        texts.append(chance.choice(texts) * chance.choice((50, 400)))
    return json.dumps([text.encode("utf-8", "replace").decode() for text in texts]).encode()


def _character(chance: random.Random) -> str:
    code = chance.choice(
        (chance.randrange(128), chance.randrange(0x3000), chance.randrange(sys.maxunicode + 1))
    )
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def check(data: bytes) -> None:
    """Ids are equal, rows are within 1e-5, and a text has its row alone and in the batch."""
    texts: list[str] = json.loads(data)
    compare(*_tokenizers(), texts)
    ours, theirs = _embedders()
    rows = ours.embed(texts)
    assert np.abs(rows - theirs.embed(texts)).max() < 1e-5
    for text, row in zip(texts[:5], rows, strict=False):
        assert np.array_equal(ours.embed([text])[0], row)
    surface = surface_features(texts)
    assert np.isfinite(surface).all()
    np.testing.assert_allclose(surface, reference_features(texts), rtol=1e-6, atol=1e-6)


if __name__ == "__main__":
    main("text", make, check)
