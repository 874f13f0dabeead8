"""The index over many rows beside comparing with all, faiss and usearch: a query at a time, one thread each.

    python benches/bench_index.py [--sizes 1000,131072,1000000] [--data synthetic|mixture] [--rows FILE.npy
        --queries FILE.npy] [--peers] [--queries-timed 300] [--rounds 5]

Rows are embeddings of synthetic texts (``static-256``), those of a file, or a mixture of Gaussians around one
centre for every hundred rows; queries are drawn as the rows are and are not among them. Isotropic Gaussian
rows are left out: there nothing finds neighbours without comparing with nearly all. Every way takes its turn,
and the shortest of the rounds counts for a query, since other work of a machine can only make one longer; the
median over the queries is printed. Peers are set to the smallest effort that reaches the recall of ours on
the same queries, and hold f32 rows, as ours does.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Read when the libraries are loaded.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
from numpy.typing import NDArray

from centroute import Artifact, Router
from centroute._kernel import RowIndex
from centroute.artifact import EmbedderId, PoolModel
from centroute.calibrate.index import build_index

TOP_P = 8
N_OWNERS = 1000
Rows = NDArray[np.float32]
Search = Callable[[Rows], NDArray[np.integer]]


def synthetic(n: int, seed: int) -> Rows:
    """Embeddings of ``n`` different synthetic texts."""
    from centroute.datasets.synthetic_phrases import KINDS
    from centroute.datasets.synthetic_texts import draw_text
    from centroute.embedders import load_embedder

    rng, kinds = np.random.default_rng(seed), tuple(KINDS)
    texts: dict[str, None] = {}
    while len(texts) < n:
        texts[draw_text(kinds[len(texts) % len(kinds)], rng=rng).text] = None
    embedder, listed = load_embedder("static-256"), list(texts)
    return np.concatenate([embedder.embed(listed[start : start + 4096]) for start in range(0, n, 4096)])


def mixture(n: int, seed: int) -> Rows:
    """Rows of 256 numbers around a centre for every hundred of them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n // 100 + 1, 256), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = centres[rng.integers(0, len(centres), n)]
    for start in range(0, n, 65_536):
        block = rows[start : start + 65_536]
        block += 0.05 * rng.standard_normal(block.shape, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def exact(rows: Rows, queries: Rows) -> NDArray[np.intp]:
    """Nearest rows of each query by comparison with all, ``[n, TOP_P]``."""
    best = np.zeros((len(queries), 0), dtype=np.float32)
    ids = np.zeros((len(queries), 0), dtype=np.intp)
    for start in range(0, len(rows), 16_384):
        block = queries @ rows[start : start + 16_384].T
        numbers = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        best, ids = np.concatenate([best, block], axis=1), np.concatenate([ids, numbers], axis=1)
        kept = np.argpartition(-best, TOP_P - 1, axis=1)[:, :TOP_P]
        best, ids = np.take_along_axis(best, kept, axis=1), np.take_along_axis(ids, kept, axis=1)
    return ids


def recall(found: NDArray[np.integer], wanted: NDArray[np.intp]) -> float:
    """Share of the wanted rows that were found."""
    pairs = zip(found, wanted, strict=True)
    return sum(len(np.intersect1d(got, all_of)) for got, all_of in pairs) / wanted.size


def whole_search(rows: Rows) -> Search:
    """The kernel's decision with all centroids compared in f32, its own default without an index."""
    n = len(rows)
    table = np.full((n, 2), 0.5, dtype=np.float32)
    artifact = Artifact(
        models=(PoolModel("one"), PoolModel("two")), embedder=EmbedderId("bench", rows.shape[1], None),
        centroids=rows, quality=table, cost=table, count=table, prior_quality=table[0], prior_cost=table[0],
        frontier=np.zeros((0, 3), dtype=np.float32), top_p=TOP_P, beta=9.0, method={},
    )  # fmt: skip
    router = Router.from_artifact(artifact, precision="f32")
    return lambda query: np.array([cluster for cluster, _ in router.route_embedding(query).clusters])


def faiss_search(rows: Rows, queries: Rows, wanted: NDArray[np.intp], aim: float) -> tuple[str, Search]:
    """An inverted file of faiss that probes as few lists as reach the recall."""
    import faiss

    faiss.omp_set_num_threads(1)
    n_lists = int(4 * len(rows) ** 0.5)
    index = faiss.index_factory(rows.shape[1], f"IVF{n_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = 64
    index.train(rows)
    index.add(rows)
    for n_probe in sorted({int(1.25**step) for step in range(50)}):
        index.nprobe = min(n_probe, n_lists)
        if recall(index.search(queries, TOP_P)[1], wanted) >= aim or n_probe >= n_lists:
            break
    return f"faiss IVF{n_lists} n_probe={index.nprobe}", lambda query: index.search(query[None], TOP_P)[1][0]


def usearch_search(rows: Rows, queries: Rows, wanted: NDArray[np.intp], aim: float) -> tuple[str, Search]:
    """A graph of usearch that expands as little as reaches the recall."""
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=128)
    index.add(np.arange(len(rows), dtype=np.uint64), rows, threads=1)
    for expansion in sorted({int(16 * 1.25**step) for step in range(24)}):
        index.expansion_search = expansion
        found = np.stack([index.search(query, TOP_P, threads=1).keys for query in queries]).astype(np.int64)
        if recall(found, wanted) >= aim:
            break
    return f"usearch ef={expansion}", lambda query: index.search(query, TOP_P, threads=1).keys.astype(
        np.int64
    )


def medians_us(ways: dict[str, Search], queries: Rows, n_rounds: int) -> dict[str, float]:
    """Median over the queries of the shortest of the rounds, in microseconds; the ways take turns."""
    shortest = {name: np.full(len(queries), np.inf) for name in ways}
    for _ in range(n_rounds):
        for name, search in ways.items():
            for row, query in enumerate(queries):
                started = time.perf_counter()
                search(query)
                shortest[name][row] = min(shortest[name][row], time.perf_counter() - started)
    return {name: float(np.median(seconds)) * 1e6 for name, seconds in shortest.items()}


def measure(rows: Rows, queries: Rows, arguments: argparse.Namespace) -> None:
    """Print a table of one size."""
    wanted = exact(rows, queries)
    started = time.perf_counter()
    arrays = build_index(rows, seed=0, top_p=TOP_P)
    built = time.perf_counter() - started
    owners = np.random.default_rng(1).integers(0, N_OWNERS, len(rows)).astype(np.int32)
    index = RowIndex(rows, owners=owners, n_owners=N_OWNERS, index=None if arrays is None else dict(arrays))
    ours, _ = index.search_batch(queries, TOP_P)
    aim = recall(ours, wanted)
    ways: dict[str, Search] = {"all compared, f32": whole_search(rows)}
    ways["index" if arrays else "no index: too few rows"] = lambda query: index.search(query, TOP_P)[0]
    if arrays is not None:
        allowed = np.zeros(N_OWNERS, dtype=bool)
        allowed[np.random.default_rng(2).choice(N_OWNERS, N_OWNERS // 100, replace=False)] = True
        numbers = np.flatnonzero(allowed[owners])
        filtered = recall(
            index.search_batch(queries, TOP_P, allowed)[0], numbers[exact(rows[numbers], queries)]
        )
        ways["index, 1 % of owners allowed"] = lambda query: index.search(query, TOP_P, allowed)[0]
        print(f"recall with 1 % of the owners allowed: {filtered:.4f}; built in {built:.0f} s")
        print(f"depth, groups, lists, candidates: {arrays['index.probes'].tolist()}")
        if arguments.peers:
            for peer in (faiss_search, usearch_search):
                name, search = peer(rows, queries, wanted, aim)
                ways[name] = search
    times = medians_us(ways, queries[: arguments.queries_timed], arguments.rounds)
    base = times["all compared, f32"]
    for name, us in times.items():
        found = np.stack([ways[name](query) for query in queries[:200]])
        share = "" if "allowed" in name else f"recall {recall(found, wanted[:200]):.4f}"
        print(f"  {name:34} {us:10.1f} us  {base / us:7.1f} x  {share}")


def main() -> int:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="1000,131072")
    parser.add_argument("--data", choices=("synthetic", "mixture"), default="synthetic")
    parser.add_argument("--rows", type=Path, help="unit rows [n, dim], float32, in place of drawn ones")
    parser.add_argument("--queries", type=Path, help="with --rows: queries [n, dim], float32")
    parser.add_argument("--peers", action="store_true", help="faiss and usearch as well")
    parser.add_argument("--queries-timed", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    if arguments.rows:
        rows, queries = np.load(arguments.rows), np.load(arguments.queries)[:1000]
        rows = rows[np.random.default_rng(0).permutation(len(rows))]
    else:
        drawn = {"synthetic": synthetic, "mixture": mixture}[arguments.data](max(sizes) + 1000, 0)
        rows, queries = drawn[1000:], drawn[:1000]
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    for size in sizes:
        some = np.ascontiguousarray(rows[:size])
        print(f"K={len(some):,} D={some.shape[1]} top-{TOP_P}, {arguments.rows or arguments.data}")
        measure(some, queries, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
