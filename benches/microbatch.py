"""Texts of concurrent callers embedded together or each alone: ``python benches/microbatch.py [NAME...]``.

Callers are tasks of one event loop that route one text after another with ``aroute``. Each alone, a text goes
to one of as many worker threads as there are processors; in batches it goes to `MicroBatch`, without and with
a wait, with one thread and with two. All ways take turns within a round, and the medians over the rounds are
compared. Batching is worth being on by default on a device where it gains `WORTH_IT`.

NAME is an exported embedder (``centroute embed export minilm-l6``), by default minilm-l6-int8 and minilm-l6;
``--device cuda`` measures a GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from itertools import cycle

from centroute import Router
from centroute.artifact import Artifact
from centroute.calibrate import calibrate
from centroute.datasets import synthetic_outcomes
from centroute.embedders import Embedder, load_embedder
from centroute.microbatch import MicroBatch

N_CALLERS = (1, 4, 16, 64)
ROUNDS = 5
SECONDS = 1.0
WORTH_IT = 1.2
WAYS: dict[str, MicroBatch | None] = {
    "alone": None,
    "batches": MicroBatch(),
    "batches after 2 ms": MicroBatch(max_wait_ms=2),
    "batches, 2 threads": MicroBatch(threads=2),
}
SENTENCE = "what is the capital of france and who wrote a long book about old rivers in the law of numbers"


def texts(kind: str) -> list[str]:
    """64 texts: all of 12 words, or of 4 to 200, most of them short."""
    rng, words = random.Random(0), SENTENCE.split()  # noqa: S311 - texts
    lengths = (
        [12] * 64 if kind == "equal" else [min(200, int(4 + rng.expovariate(1 / 30))) for _ in range(64)]
    )
    return [" ".join(rng.choice(words) for _ in range(length)) for length in lengths]


async def throughput(router: Router, queries: Sequence[str], n_callers: int) -> tuple[float, float]:
    """Decisions a second, and the median milliseconds of one."""
    left, times = cycle(queries), list[float]()
    ends = time.perf_counter() + SECONDS

    async def caller() -> None:
        while (started := time.perf_counter()) < ends:
            await router.aroute(next(left))
            times.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(n_callers)))
    return len(times) / (time.perf_counter() - started), 1e3 * statistics.median(times)


def measure(embedder: Embedder, artifact: Artifact) -> None:
    """Print one table: decisions a second and their ratio to those alone."""
    routers = {
        way: Router.from_artifact(artifact, embedder=embedder, microbatch=options)
        for way, options in WAYS.items()
    }
    print(
        f"\n### {embedder.name}, {embedder.device}: decisions a second (median ms of one), ratio to alone\n"
    )
    print("| texts | callers | " + " | ".join(WAYS) + " |\n|---|---|" + "---|" * len(WAYS))
    for kind in ("equal", "mixed"):
        queries = texts(kind)
        for n_callers in N_CALLERS:
            runs: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way, router in routers.items():
                    runs[way].append(asyncio.run(throughput(router, queries, n_callers)))
            rates = {way: statistics.median(rate for rate, _ in of_way) for way, of_way in runs.items()}
            cells = [
                f"{rates[way]:.0f} ({statistics.median(ms for _, ms in runs[way]):.1f}) "
                f"{rates[way] / rates['alone']:.2f}"
                for way in WAYS
            ]
            print(f"| {kind} | {n_callers} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["minilm-l6-int8", "minilm-l6"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    arguments = parser.parse_args()
    print(f"{ROUNDS} rounds of {SECONDS:g} s each; worth being on from {WORTH_IT} x")
    for name in arguments.names:
        embedder = load_embedder(name, device=arguments.device)
        artifact = calibrate(
            synthetic_outcomes(n_queries=400),
            embedder=embedder,
            method="means",
            n_clusters=8,
            surface_weight=0.0,
        )
        measure(embedder, artifact)


if __name__ == "__main__":
    main()
