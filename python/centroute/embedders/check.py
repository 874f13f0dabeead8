"""Trying an embedder out: what it is, how fast, and what is off. Behind ``centroute embed check``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from centroute.embedders import Embedder, find_folder, load_embedder, read_folder
from centroute.embedders.folder import EmbedderFolder
from centroute.errors import EmbedderError

if TYPE_CHECKING:
    from centroute._kernel import Tokenizer
    from centroute.embedders.onnx import Device

# Each pair says the same without a word in common, so that only meaning makes it alike.
RELATED = (
    ("How do I sort a list of numbers in Python?", "code putting arrays into ascending order"),
    ("What is the capital city of France?", "Paris hosts French government offices"),
    ("The cat is sleeping on the sofa.", "a kitten naps upon some couch"),
    ("Solve the equation for x.", "find unknown quantities in algebra problems"),
    ("My stomach hurts after the dinner.", "I feel belly pain when having eaten"),
    ("Translate this sentence to German.", "render that phrase in another language"),
)
OTHERS = (
    "a",
    "def f(x):\n    return x ** 2  # naïve",
    "Prove that √2 is irrational.",
    "¿Dónde está la estación? 駅はどこですか",
    "broken \ud800 surrogate, nul \x00 and 🙂",
    "Tell me everything about the history of the Roman empire, its rise and its fall.",
)
N_TOKENS_TIMED = (12, 64, 256)

_TIME_PER_LENGTH_S = 0.4
_MAX_TIMED_RUNS = 200


@dataclass(frozen=True, slots=True)
class Speed:
    """How long one text alone takes."""

    n_tokens: int
    median_us: float
    """Wall time from text to row, microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What `check_embedder` found out; the field names are the JSON keys."""

    name: str
    folder: str
    layout: str
    runtime: str
    device: str
    tokenizer: str
    dim: int
    pooling: str
    max_tokens: int
    prefix: str
    fingerprint: str
    speed: tuple[Speed, ...]
    norms: tuple[float, float] | None
    """Least and largest norm of the rows that are not zero."""
    batch_difference: float | None
    """Largest difference between a text's row alone and in a batch."""
    notes: tuple[str, ...]
    """Worth knowing, but nothing is wrong."""
    findings: tuple[str, ...]
    """What is off."""

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types."""
        return asdict(self)


def check_embedder(name_or_dir: str | Path, *, device: Device = "auto") -> Check:
    """Load an embedder, run it on sample texts, measure it and look for what is off.

    Raises
    ------
    EmbedderError
        If it cannot be loaded at all.
    """
    # Imported here: this module brings in the tokenizers.
    from centroute.embedders.tokenizer import open_tokenizer

    folder = read_folder(find_folder(name_or_dir))
    embedder = load_embedder(name_or_dir, device=device)
    tokenizer = open_tokenizer(folder.tokenizer, max_tokens=embedder.max_tokens)
    findings = [*_vocabulary_findings(tokenizer), *_length_findings(embedder, tokenizer)]
    rows, batch_difference = _try_rows(embedder, findings)
    norms = None if rows is None else np.linalg.norm(rows[rows.any(axis=1)], axis=1)
    return Check(
        name=embedder.name,
        folder=str(folder.path),
        layout=folder.layout,
        runtime=embedder.runtime,
        device=embedder.device,
        tokenizer=embedder.tokenizer,
        dim=embedder.dim,
        pooling=_pooling(folder, embedder),
        max_tokens=embedder.max_tokens,
        prefix=embedder.description.prefix,
        fingerprint=embedder.fingerprint,
        speed=tuple(_speeds(embedder, tokenizer)),
        norms=None if norms is None or not len(norms) else (float(norms.min()), float(norms.max())),
        batch_difference=batch_difference,
        notes=(*_notes(folder, embedder, tokenizer), *(_meaning_notes(rows) if rows is not None else ())),
        findings=tuple(findings),
    )


def _pooling(folder: EmbedderFolder, embedder: Embedder) -> str:
    if folder.layout != "centroute" and getattr(embedder, "pools_in_graph", False):
        return "in the graph"
    return embedder.description.pooling


def _notes(folder: EmbedderFolder, embedder: Embedder, tokenizer: Tokenizer) -> Iterator[str]:
    if folder.pooling_is_assumed and not getattr(embedder, "pools_in_graph", False):
        yield (
            "nothing in the folder says how to pool and the mean was taken; "
            'an embedder.json can say otherwise: {"pooling": "cls"}'
        )
    if getattr(embedder, "tokens_per_run", None) == 0:
        yield "a row depends on what is beside it (dynamic quantisation does that), so each text runs alone"
    if folder.vocab_size is not None and folder.vocab_size > tokenizer.n_token_ids:
        yield f"the tokenizer has {tokenizer.n_token_ids} token ids, the token table {folder.vocab_size} rows"


def _vocabulary_findings(tokenizer: Tokenizer) -> Iterator[str]:
    ids, _, n_known = tokenizer.encode_batch([text for pair in RELATED for text in pair])
    if n_known.sum() < len(ids) / 2:
        yield f"the tokenizer knows only {n_known.sum()} of {len(ids)} tokens of ordinary English"


def _length_findings(embedder: Embedder, tokenizer: Tokenizer) -> Iterator[str]:
    longest = _text_of(tokenizer, embedder.max_tokens)
    try:
        embedder.embed([longest])
    except EmbedderError as error:
        yield f"max_tokens is {embedder.max_tokens}, but a text of that length fails: {error}"


def _try_rows(embedder: Embedder, findings: list[str]) -> tuple[NDArray[np.float32] | None, float | None]:
    """Return the rows of the sample texts, and how far they are from those of each text alone."""
    related = [text for pair in RELATED for text in pair]
    texts = [*related, *OTHERS]
    try:
        rows = embedder.embed(texts)
        alone = np.concatenate([embedder.embed([text]) for text in texts])
    except EmbedderError as error:
        if not findings:
            findings.append(str(error))
        return None, None
    findings.extend(_row_findings(rows, texts, n_related=len(related)))
    difference = float(np.abs(rows - alone).max())
    if difference > 1e-5:
        findings.append(f"a text's row differs by {difference:.1e} between alone and in a batch")
    return rows, difference


def _row_findings(rows: NDArray[np.float32], texts: Sequence[str], *, n_related: int) -> Iterator[str]:
    if not np.isfinite(rows).all():
        yield "rows hold values that are not finite"
        return
    norms = np.linalg.norm(rows, axis=1)
    if not norms[:n_related].all():
        yield f"no known token in {texts[int(np.argmin(norms[:n_related]))]!r}"
        return
    wrong = np.abs(norms[norms > 0] - 1)
    if wrong.max() > 1e-3:
        yield f"rows are not of norm 1, but off by up to {wrong.max():.1e}"
        return
    cosines = rows[:n_related] @ rows[:n_related].T
    if cosines.min() > 0.999:
        yield f"rows of different texts are all alike (cosine {cosines.min():.4f} or more)"
        return


def _meaning_notes(rows: NDArray[np.float32]) -> Iterator[str]:
    """Look whether the rows of `RELATED`, the first of ``rows``, show what the texts mean."""
    pair_of = np.repeat(np.arange(len(RELATED)), 2)
    cosines = rows[: len(pair_of)] @ rows[: len(pair_of)].T
    is_pair = pair_of[:, None] == pair_of
    related = cosines[is_pair & ~np.eye(len(pair_of), dtype=np.bool_)].mean()
    unrelated = cosines[~is_pair].mean()
    # Real embedders reach about one half, whatever their mean cosine; a scrambled vocabulary 0.05.
    if related - unrelated < 0.1 * (1 - unrelated):
        yield (
            f"texts that say the same are hardly more alike than others (cosine {related:.2f} and "
            f"{unrelated:.2f}): is the tokenizer that of another model?"
        )


def _speeds(embedder: Embedder, tokenizer: Tokenizer) -> Iterator[Speed]:
    wanted = sorted({min(n_tokens, embedder.max_tokens) for n_tokens in N_TOKENS_TIMED})
    for text in (_text_of(tokenizer, n_tokens) for n_tokens in wanted):
        times: list[int] = []
        try:
            embedder.embed([text])
            while len(times) < 3 or (sum(times) < _TIME_PER_LENGTH_S * 1e9 and len(times) < _MAX_TIMED_RUNS):
                started = time.perf_counter_ns()
                embedder.embed([text])
                times.append(time.perf_counter_ns() - started)
        except EmbedderError:  # a finding already
            return
        yield Speed(int(tokenizer.encode_batch([text])[1][0]), float(np.median(times)) / 1e3)


def _text_of(tokenizer: Tokenizer, n_tokens: int) -> str:
    """Return an English text of ``n_tokens`` tokens, or a few less."""

    def n_tokens_of(text: str) -> int:
        return int(tokenizer.encode_batch([text])[1][0])

    words = " ".join(text for pair in RELATED for text in pair).split()
    words *= 1 + n_tokens // len(words)
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if n_tokens_of(" ".join(words[:middle])) <= n_tokens:
            low = middle
        else:
            high = middle - 1
    text = " ".join(words[:low])
    # Short words for what the last long one left.
    for _ in range(n_tokens - n_tokens_of(text)):
        if n_tokens_of(f"{text} a") <= n_tokens:
            text += " a"
    return text
