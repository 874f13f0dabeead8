"""Running an embedder folder with ONNX Runtime: texts to unit float32 rows.

Tokenize, truncate to ``max_tokens``, pad in NumPy, run, in pieces of bounded size. The
graph does the pooling and the normalisation (``models/`` holds the exporters).

A text without any known token (``""``, blanks, characters outside the vocabulary) gets a
zero row: there is nothing to route on, and a router treats it so. All other rows have
norm 1. A text's row does not depend on what else is in the batch (to rounding, 1e-5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers
from numpy.typing import NDArray

from centroute.embedders.folder import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    EmbedderDescription,
    read_description,
)
from centroute.errors import EmbedderError

# Padded tokens in one run of the graph. Larger runs are no faster for a static table and
# slower for a transformer, whose working memory then falls out of the processor's cache.
TOKENS_PER_RUN = 512
# Texts tokenized before any of them is run: bounds the memory of the token lists.
TEXTS_PER_BLOCK = 1024
# Characters first read of a long text, for one token of max_tokens. English needs about 4.5.
CHARACTERS_PER_TOKEN = 8

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_WHITESPACE = re.compile(r"[ \t\n\r]")


class Embedder:
    """A loaded embedder. Made by `centroute.embedders.load_embedder`; safe to share between threads.

    Attributes
    ----------
    name
        The embedder's name, as artifacts hold it.
    dim
        Length of a row.
    fingerprint
        SHA-256 that identifies the vectors, see `centroute.embedders.fingerprint`.
    max_tokens
        Tokens read from a text, special tokens counted; what follows them is ignored.
    description
        All of ``embedder.json``.
    """

    __slots__ = (
        "_cuts_long_texts",
        "_is_special",
        "_n_prefix_tokens",
        "_session",
        "_tokenizer",
        "description",
        "dim",
        "fingerprint",
        "max_tokens",
        "name",
    )

    def __init__(
        self,
        description: EmbedderDescription,
        *,
        session: onnxruntime.InferenceSession,
        tokenizer: tokenizers.Tokenizer,
        cuts_long_texts: bool,
    ) -> None:
        self.description = description
        self.name = description.name
        self.dim = description.dim
        self.fingerprint = description.fingerprint
        self.max_tokens = description.max_tokens
        self._session = session
        self._tokenizer = tokenizer
        self._cuts_long_texts = cuts_long_texts
        self._is_special = np.zeros(_n_token_ids(tokenizer), dtype=np.bool_)
        special_ids = [
            token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special
        ]
        self._is_special[special_ids] = True
        # A prefix is the same for every text, so that its tokens say nothing about one.
        self._n_prefix_tokens = self._n_known_tokens(self._tokenize([description.prefix])[0])

    def __repr__(self) -> str:
        return f"Embedder({self.name!r}, dim={self.dim}, fingerprint={self.fingerprint[:12]!r})"

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
        if isinstance(texts, str | bytes):
            raise TypeError(
                f"texts must be a sequence of str, got one {type(texts).__name__}: put it in a list"
            )
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{index}] must be str, got {type(text).__name__}")
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_PER_BLOCK):
            self._embed_block(texts[start : start + TEXTS_PER_BLOCK], rows[start : start + TEXTS_PER_BLOCK])
        return rows

    def _embed_block(self, texts: Sequence[str], rows: NDArray[np.float32]) -> None:
        """Fill ``rows``, which start as zeros, with the embeddings of ``texts``."""
        prefix = self.description.prefix
        token_ids = self._tokenize([prefix + _without_surrogates(text) for text in texts])
        has_content = [self._n_known_tokens(ids) > self._n_prefix_tokens for ids in token_ids]
        lengths = np.array([len(ids) if ok else 0 for ids, ok in zip(token_ids, has_content, strict=True)])
        for text_ids in _runs(lengths):
            seq = int(lengths[text_ids[-1]])
            padded = np.zeros((len(text_ids), seq), dtype=np.int64)
            for row, text_id in enumerate(text_ids):
                padded[row, : lengths[text_id]] = token_ids[text_id]
            mask = (np.arange(seq) < lengths[text_ids, None]).astype(np.int64)
            rows[text_ids] = _run(self._session, self.description, padded, mask)

    def _n_known_tokens(self, token_ids: NDArray[np.int64]) -> int:
        return int(np.count_nonzero(~self._is_special[token_ids]))

    def _tokenize(self, texts: list[str]) -> list[NDArray[np.int64]]:
        """Return each text's ids, truncated, reading long texts only as far as needed.

        A cut at whitespace is safe where `_may_cut` holds: words are then tokenized one by
        one, so that the ids of the part are the first ids of the whole. If the part alone
        gives ``max_tokens`` ids, the whole gives the same; if not, twice as much is read.
        """
        n_characters = CHARACTERS_PER_TOKEN * self.max_tokens
        results: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * len(texts)
        pending = list(range(len(texts)))
        while pending:
            parts = [self._head(texts[text_id], n_characters) for text_id in pending]
            unfinished = []
            encodings = self._tokenizer.encode_batch_fast(parts)
            for text_id, part, encoding in zip(pending, parts, encodings, strict=True):
                ids = encoding.ids
                if len(ids) < self.max_tokens and len(part) < len(texts[text_id]):
                    unfinished.append(text_id)
                else:
                    results[text_id] = np.array(ids, dtype=np.int64)
            pending = unfinished
            n_characters *= 2
        return results

    def _head(self, text: str, n_characters: int) -> str:
        """Return the text up to the first whitespace after ``n_characters``, or all of it."""
        if len(text) <= n_characters or not self._cuts_long_texts:
            return text
        whitespace = _WHITESPACE.search(text, n_characters)
        return text if whitespace is None else text[: whitespace.start()]


def open_embedder(folder: Path, *, threads: int = 1) -> Embedder:
    """Load an embedder folder; see `centroute.embedders.load_embedder`.

    Raises
    ------
    EmbedderError
        If the folder is incomplete, damaged or inconsistent; one line with the file's name.
    """
    if threads < 1:
        raise EmbedderError(f"threads must be at least 1, got {threads}")
    description = read_description(folder)
    tokenizer, cuts_long_texts = _open_tokenizer(folder / TOKENIZER_FILE, max_tokens=description.max_tokens)
    session = _open_session(folder / MODEL_FILE, threads=threads)
    _check_graph(folder, description, session, n_token_ids=_n_token_ids(tokenizer))
    return Embedder(description, session=session, tokenizer=tokenizer, cuts_long_texts=cuts_long_texts)


def _open_tokenizer(path: Path, *, max_tokens: int) -> tuple[tokenizers.Tokenizer, bool]:
    """Return the tokenizer, and whether long texts may be cut before it."""
    try:
        text = path.read_text(encoding="utf-8")
        tokenizer = tokenizers.Tokenizer.from_str(text)
        # Published tokenizers often have padding and a shorter truncation baked in.
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
    except Exception as error:
        raise EmbedderError(f"{path}: not a tokenizer: {_first_line(error)}") from error
    return tokenizer, _may_cut(json.loads(text))


def _may_cut(tokenizer: dict[str, Any]) -> bool:
    """Return whether a text may be cut at whitespace without changing the ids before the cut.

    Holds for BERT's pipeline: it normalises character by character (and combining marks
    never reach over whitespace), splits at whitespace, and WordPiece sees single words.
    An added token that spans or swallows whitespace would break it.
    """
    kinds = [(tokenizer.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"] and not any(
        token["lstrip"] or token["rstrip"] or token["single_word"] or _WHITESPACE.search(token["content"])
        for token in tokenizer.get("added_tokens", [])
    )


def _open_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads win nothing here and take the processor from everybody else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # fatal only: failures are raised, with the file's name
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EmbedderError(f"{path}: not a readable ONNX model: {_first_line(error)}") from error


def _check_graph(
    folder: Path, description: EmbedderDescription, session: onnxruntime.InferenceSession, *, n_token_ids: int
) -> None:
    """Compare the graph with ``embedder.json`` and run it once, on the largest token id too."""
    path = folder / MODEL_FILE
    for kind, wanted, found in (
        ("inputs", list(description.inputs), [entry.name for entry in session.get_inputs()]),
        ("outputs", [description.output], [entry.name for entry in session.get_outputs()]),
    ):
        if sorted(wanted) != sorted(found):
            raise EmbedderError(f"{path}: {kind} are {found}, {DESCRIPTION_FILE} says {wanted}")
    shape = session.get_outputs()[0].shape
    if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != description.dim):
        raise EmbedderError(
            f"{path}: output has shape {shape}, {DESCRIPTION_FILE} says dim {description.dim}"
        )
    ids = np.array([[n_token_ids - 1, 0], [0, 0]], dtype=np.int64)
    try:
        rows = _run(session, description, ids, np.ones_like(ids))
    except Exception as error:
        raise EmbedderError(
            f"{path}: cannot be run with {n_token_ids} token ids: {_first_line(error)}"
        ) from error
    if rows.shape != (2, description.dim) or rows.dtype != np.float32 or not np.isfinite(rows).all():
        raise EmbedderError(
            f"{path}: output is {rows.dtype} {list(rows.shape)} for 2 texts, "
            f"expected finite float32 [2, {description.dim}]"
        )


def _run(
    session: onnxruntime.InferenceSession,
    description: EmbedderDescription,
    token_ids: NDArray[np.int64],
    mask: NDArray[np.int64],
) -> NDArray[np.float32]:
    ids_name, mask_name = description.inputs
    rows: NDArray[np.float32] = session.run([description.output], {ids_name: token_ids, mask_name: mask})[0]
    return rows


def _n_token_ids(tokenizer: tokenizers.Tokenizer) -> int:
    """Return one more than the largest token id; ids may have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can hold, by U+FFFD."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def _runs(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the ids of the non-empty texts, shortest first, in groups for one run each.

    Sorted by length so that little is padded; a group's padded size is at most
    `TOKENS_PER_RUN`, or it is one text.
    """
    order = np.argsort(lengths, kind="stable")
    order = order[np.searchsorted(lengths[order], 1) :]
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= TOKENS_PER_RUN:
            stop += 1
        yield order[start:stop]
        start = stop


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
