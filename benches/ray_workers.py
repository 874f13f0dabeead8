"""Embedding shards with Ray against one process: ``python benches/ray_workers.py [NAME...]``.

NAME is an embedder, static-256 when not given. The same shards of synthetic queries are read, embedded and
written as ``calibrate --engine local`` and ``--engine ray`` do, in turns. "one process" is the local engine:
it reads on one thread, and the embedder runs on every processor; "one thread" is the same with the embedder
on one. The time with Ray counts from the work to its last result, with the start of the workers and of their
embedders; the start of the cluster, and of what Ray Data starts once, stands apart. Needs ``centroute[ray]``.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from centroute._engine import Engine, LocalEngine
from centroute.calibrate.shards import Embedding, loaded_embedder, located_embedder
from centroute.datasets import synthetic_outcomes, write_jsonl
from centroute.datasets.shards import Shard, find_shards, shard_models
from centroute.pool import Pool
from centroute.ray import RayEngine

N_SHARDS = 8
QUERIES = {"static-256": 400_000}
OTHER_QUERIES = 3200
"""Of a graph, which embeds some hundred texts a second."""


def make_shards(folder: Path, n_queries: int) -> list[Shard]:
    """Shards of so many queries."""
    folder.mkdir()
    # Drawing texts takes most of a millisecond each: what counts is what is read, not that it differs.
    outcomes = synthetic_outcomes(n_queries=n_queries // N_SHARDS, seed=0)
    for number in range(N_SHARDS):
        write_jsonl(outcomes, folder / f"part-{number}.jsonl")
    return find_shards([folder])


def seconds(engine: Engine, shards: list[Shard], name: str, threads: int) -> float:
    """Embed all shards into a new folder."""
    loaded_embedder.cache_clear()
    models = shard_models(shards[0])
    with tempfile.TemporaryDirectory() as folder:
        work = Embedding(Path(folder), located_embedder(name), models, shards[0], Pool(), 0, threads)
        started = time.perf_counter()
        n_rows = sum(done.n_rows for done in engine.scatter(work, enumerate(shards)))
        taken = time.perf_counter() - started
    assert n_rows
    return taken


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["static-256"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int)
    options = parser.parse_args()
    local = LocalEngine()
    started = time.perf_counter()
    with RayEngine(n_workers=options.workers) as ray:
        print(f"cluster started in {time.perf_counter() - started:.1f} s")
        for name in options.names:
            n_queries = options.queries or QUERIES.get(name, OTHER_QUERIES)
            folder = Path(tempfile.mkdtemp())
            try:
                shards = make_shards(folder / "shards", n_queries)
                # The actors of Ray Data that hold no work start with the first data set.
                list(ray.scatter(abs, [1]))
                ways: dict[str, Callable[[], float]] = {
                    "one thread": lambda s=shards, n=name: seconds(local, s, n, 1),
                    "one process": lambda s=shards, n=name: seconds(local, s, n, local.threads),
                    "Ray": lambda s=shards, n=name: seconds(ray, s, n, ray.threads),
                }
                taken: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(options.rounds):
                    for way, measure in ways.items():
                        taken[way].append(measure())
            finally:
                shutil.rmtree(folder)
            print(f"{name}: {n_queries} queries in {N_SHARDS} shards, {options.workers} workers")
            middle = {way: statistics.median(times) for way, times in taken.items()}
            for way, times in taken.items():
                every = ", ".join(f"{value:.1f}" for value in times)
                ratio = middle[way] / middle["Ray"]
                print(f"  {way:12} {middle[way]:7.1f} s  ({every})  Ray is {ratio:.2f} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(main())
