"""The kernel beside its peers, in one run, on one thread: ``make bench``.

Every measurement checks first that the decisions are right: the share of 512 queries on which the same
model is chosen as by the NumPy specification stands beside the speed. `conftest.py` prints the table.
"""

import itertools
from collections.abc import Callable
from typing import Any

import measuring
import numpy as np
import peers
import pytest
from numpy.typing import NDArray
from peers import Case
from pytest_benchmark.fixture import BenchmarkFixture

from centroute import Policy

SMALL = Case(64, 384, 16, 4)
MEDIUM = Case(1024, 384, 32, 8)
LARGE = Case(16384, 384, 16, 4)
BATCH = 4096
THREADED_BATCH = 65536

Decide = Callable[[NDArray[np.float32]], object]


def agreement(case: Case, chosen: NDArray[np.integer], queries: NDArray[np.float32], wanted: Policy) -> float:
    """Share of queries on which the specification chooses the same model."""
    from centroute import _reference

    right = [_reference.route(case.artifact, query, wanted).model_id for query in queries]
    return float((np.asarray(chosen) == right).mean())


def measure(
    benchmark: BenchmarkFixture, case: Case, work: str, name: str, call: Callable[[], object], **options: Any
) -> None:
    """Time a call beside the others of the same work and sizes."""
    measuring.measure(benchmark, f"{work}, {case}", name, call, **options)


def turns(rows: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    """Hands out 64 rows in turn, so that neither caches nor branches know the query."""
    return itertools.cycle([row.copy() for row in rows[:64]]).__next__


def check_rows(case: Case) -> NDArray[np.float32]:
    return case.queries(64 if case.n_clusters > 4096 else 512)


OURS = ("f32", "f16", "i8")
SINGLE_PEERS = {
    "NumPy vectorised": peers.numpy_vectorised,
    "numba loop": peers.numba_loop,
    "faiss + NumPy": peers.faiss_blend,
    "faiss search alone": peers.faiss_search,
    "scikit-learn + NumPy": peers.sklearn_blend,
    "NumPy specification": peers.reference,
    "Avengers-Pro loop": peers.avengers_pro,
}


@pytest.mark.parametrize("precision", OURS)
@pytest.mark.parametrize("case", [SMALL, MEDIUM, LARGE], ids=str)
def test_one_query(benchmark: BenchmarkFixture, case: Case, precision: str) -> None:
    """One query through ``Router.route_embedding`` with a reused policy."""
    router, policy, rows = case.router(precision), peers.policy(), check_rows(case)
    chosen = np.array([router.route_embedding(row, policy=policy).model_id for row in rows])
    agrees = agreement(case, chosen, rows, policy)
    following = turns(rows)
    name = f"centroute {precision}"
    measure(
        benchmark,
        case,
        "one query",
        name,
        lambda: router.route_embedding(following(), policy=policy),
        agrees=agrees,
    )
    benchmark.extra_info["table_bytes"] = (
        case.n_clusters * case.dim * {"f32": 4, "f16": 2, "i8": 1}[precision]
    )


def test_one_query_with_a_fresh_policy(benchmark: BenchmarkFixture) -> None:
    """The same with a policy made and compiled for the call."""
    router, following = SMALL.router(), turns(check_rows(SMALL))
    measure(
        benchmark, SMALL, "one query", "centroute f32, fresh policy",
        lambda: router.route_embedding(following(), policy=Policy(willingness_to_pay=peers.WILLINGNESS)),
    )  # fmt: skip


@pytest.mark.parametrize("name", SINGLE_PEERS)
@pytest.mark.parametrize("case", [SMALL, MEDIUM, LARGE], ids=str)
def test_one_query_peers(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    """One query, peers."""
    if case is not SMALL and name in {"Avengers-Pro loop", "NumPy specification"}:
        pytest.skip("measured at K=64")
    peer, rows = SINGLE_PEERS[name], check_rows(case)
    policy = Policy(alpha=0.7) if name == "Avengers-Pro loop" else peers.policy()
    agrees = None if name == "faiss search alone" else agreement(case, peer(case, rows), rows, policy)
    following = turns(rows[:, None])
    measure(benchmark, case, "one query", name, lambda: peer(case, following()), agrees=agrees)


BATCH_PEERS = {name: SINGLE_PEERS[name] for name in list(SINGLE_PEERS)[:5]}


@pytest.mark.parametrize("precision", ["f32", "i8"])
@pytest.mark.parametrize("case", [SMALL, MEDIUM], ids=str)
def test_batch(benchmark: BenchmarkFixture, case: Case, precision: str) -> None:
    """A batch on one thread."""
    router, policy, rows = case.router(precision), peers.policy(), case.queries(BATCH)
    chosen = router.route_embeddings(rows, policy=policy).model_ids[:512]
    agrees = agreement(case, chosen, rows[:512], policy)
    call = lambda: router.route_embeddings(rows, policy=policy)
    work, name = f"batch of {BATCH:,}", f"centroute {precision}"
    measure(benchmark, case, work, name, call, n_queries=BATCH, agrees=agrees)
    if precision == "f32":
        benchmark.extra_info["flops"] = 2 * case.n_clusters * case.dim


@pytest.mark.parametrize("name", BATCH_PEERS)
@pytest.mark.parametrize("case", [SMALL, MEDIUM], ids=str)
def test_batch_peers(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    """A batch on one thread, peers."""
    peer, rows = BATCH_PEERS[name], case.queries(BATCH)
    agrees = (
        None
        if name == "faiss search alone"
        else agreement(case, peer(case, rows[:512]), rows[:512], peers.policy())
    )
    measure(
        benchmark, case, f"batch of {BATCH:,}", name, lambda: peer(case, rows), n_queries=BATCH, agrees=agrees
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(benchmark: BenchmarkFixture, threads: int) -> None:
    """A large batch on one thread and on two."""
    router, policy, rows = SMALL.router(), peers.policy(), SMALL.queries(THREADED_BATCH)
    call = lambda: router.route_embeddings(rows, policy=policy, threads=threads)
    name = f"centroute f32, {threads} thread{'s' if threads > 1 else ''}"
    measure(
        benchmark, SMALL, f"batch of {THREADED_BATCH:,}", name, call, n_queries=THREADED_BATCH, seconds=3.0
    )


SWEEP = [
    *(Case(n_clusters, 384, 16, 4) for n_clusters in (16, 64, 256, 1024, 4096, 16384, 65536, 131072)),
    *(Case(64, dim, 16, 4) for dim in (256, 384, 1024)),
    *(Case(64, 384, n_models, 4) for n_models in (4, 16, 64, 128)),
    *(Case(64, 384, 16, top_p) for top_p in (1, 4, 16, 32)),
]


@pytest.mark.sweep
@pytest.mark.parametrize("case", SWEEP, ids=str)
@pytest.mark.parametrize("name", ["centroute f32", "centroute i8", "NumPy vectorised"])
def test_sweep_of_one_query(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    """One query over all sizes; ``make bench-sweep``."""
    rows = case.queries(64)
    following = turns(rows[:, None] if name == "NumPy vectorised" else rows)
    if name == "NumPy vectorised":
        measure(
            benchmark, case, "one query", name, lambda: peers.numpy_vectorised(case, following()), seconds=0.3
        )
        return
    router, policy = case.router(name.removeprefix("centroute ")), peers.policy()
    measure(
        benchmark,
        case,
        "one query",
        name,
        lambda: router.route_embedding(following(), policy=policy),
        seconds=0.3,
    )
