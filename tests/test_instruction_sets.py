"""Instruction sets, search precisions, threads and per-row policies: all decide alike."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernel import CLUSTERS, DIMS, assert_agrees, make_artifact, policies, queries

import centroute
from centroute import ArtifactError, DataError, Policy, PolicyError, Router

PRECISIONS = ("f32", "f16", "i8")
FIELDS = (
    "model_ids",
    "quality",
    "cost",
    "margin",
    "similarity",
    "in_distribution",
    "cluster_ids",
    "cluster_weights",
)


@contextmanager
def forced(isa):
    before = os.environ.get("CENTROUTE_SIMD")
    os.environ["CENTROUTE_SIMD"] = isa
    try:
        yield
    finally:
        if before is None:
            del os.environ["CENTROUTE_SIMD"]
        else:
            os.environ["CENTROUTE_SIMD"] = before


def is_available(isa):
    with forced(isa):
        try:
            return centroute.simd() == isa
        except ValueError:
            return False


AVAILABLE = tuple(isa for isa in ("serial", "avx2", "avx512", "neon") if is_available(isa))


def router_of(artifact, isa, precision="f32"):
    with forced(isa):
        router = Router.from_artifact(artifact, precision=precision)
    assert router.simd == isa
    assert router.precision == precision
    return router


def assert_same_bits(left, right):
    for field in FIELDS:
        assert getattr(left, field).tobytes() == getattr(right, field).tobytes(), field


def test_the_portable_loops_are_always_there_and_the_widest_is_the_default():
    assert "serial" in AVAILABLE
    assert centroute.simd() == AVAILABLE[-1]


def test_an_unknown_instruction_set_is_refused_with_those_of_the_machine():
    with forced("mmx"), pytest.raises(ValueError, match=r"CENTROUTE_SIMD=mmx: this machine has .*serial"):
        centroute.simd()
    with pytest.raises(ValueError, match="precision 'f8': wanted one of 'f32', 'f16', 'i8'"):
        Router.from_artifact(make_artifact(), precision="f8")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("isa", AVAILABLE)
@given(
    dim=st.sampled_from(DIMS),
    n_clusters=st.sampled_from((*CLUSTERS, 64, 65, 130)),
    n_models=st.sampled_from((3, 16, 17)),
    top_p=st.sampled_from((1, 4, 32)),
    policy=policies(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_every_instruction_set_equals_the_reference(
    isa, precision, dim, n_clusters, n_models, top_p, policy, seed
):
    artifact = make_artifact(seed=seed, dim=dim, n_clusters=n_clusters, n_models=n_models, top_p=top_p)
    if precision == "f32":
        assert_agrees(artifact, queries(3, dim, seed + 1), policy, router_of(artifact, isa))
        return
    # One query is searched approximately and scored again; a batch is searched in f32.
    exact, router = router_of(artifact, isa), router_of(artifact, isa, precision)
    for query in queries(8, dim, seed + 1):
        wanted, got = (each.route_embedding(query, policy=policy) for each in (exact, router))
        similar = exact.route_embeddings(query[None], policy=policy)
        assert got.similarity == pytest.approx(wanted.similarity, abs=2e-6)
        if [cluster for cluster, _ in got.clusters] != [cluster for cluster, _ in wanted.clusters]:
            # Only where similarities are equal to rounding may the order differ.
            products = artifact.centroids @ query
            chosen = (sorted(products[[c for c, _ in each.clusters]]) for each in (got, wanted))
            np.testing.assert_allclose(*chosen, atol=2e-6)
        else:
            assert got.quality == pytest.approx(float(similar.quality[0]), abs=5e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("isa", AVAILABLE)
@pytest.mark.parametrize("n_clusters", [130, 300])  # from 256 on a batch is searched in bytes
def test_all_instruction_sets_choose_the_same_models(n_clusters, isa, precision):
    artifact = make_artifact(n_clusters=n_clusters, dim=97, n_models=9)
    rows = queries(2000, 97)
    policy = Policy(willingness_to_pay=0.02)
    wanted = router_of(artifact, "serial").route_embeddings(rows, policy=policy)
    router = router_of(artifact, isa, precision)
    got = router.route_embeddings(rows, policy=policy)
    ones = [router.route_embedding(row, policy=policy).model_id for row in rows]
    assert (got.cluster_ids == wanted.cluster_ids).all(axis=1).mean() > 0.999
    for model_ids in (got.model_ids, ones):
        differ = np.flatnonzero(wanted.model_ids != model_ids)
        assert (wanted.margin[differ] < 1e-6).all(), differ


@pytest.mark.parametrize("n", [1, 5, 255, 257, 1000])
@pytest.mark.parametrize("isa", AVAILABLE)
def test_threads_give_the_same_bits(isa, n):
    router = router_of(make_artifact(n_clusters=70, dim=65), isa)
    rows = queries(n, 65)
    one = router.route_embeddings(rows, policy=Policy(alpha=0.4))
    for threads in (2, 3, 16):
        assert_same_bits(one, router.route_embeddings(rows, policy=Policy(alpha=0.4), threads=threads))


@pytest.mark.parametrize("isa", AVAILABLE)
def test_a_batch_has_the_bits_of_a_loop(isa):
    router = router_of(make_artifact(n_clusters=70, dim=33), isa)
    rows = queries(130, 33)
    batch = router.route_embeddings(rows)
    for row in range(len(rows)):
        one = router.route_embeddings(rows[row : row + 1])
        for field in FIELDS:
            assert getattr(one, field)[0].tobytes() == getattr(batch, field)[row].tobytes(), (row, field)


def test_the_first_row_at_fault_is_named_on_any_number_of_threads():
    router = Router.from_artifact(make_artifact())
    rows = queries(3000, 16)
    rows[[700, 2900]] = 0
    for threads in (1, 2, 4):
        with pytest.raises(DataError, match="row 700: its norm is zero"):
            router.route_embeddings(rows, threads=threads)


# Policies by row


def test_rows_may_have_their_own_willingness_alpha_and_masks():
    artifact = make_artifact(n_models=7)
    router = Router.from_artifact(artifact)
    rows = queries(300, 16)
    rng = np.random.default_rng(3)
    amounts = rng.choice([0.0, 0.003, 0.01, 0.5], 300).astype(np.float32)
    masks = rng.random((300, 7)) < 0.6
    masks[np.arange(300), rng.integers(7, size=300)] = True
    limits = Policy(deny={"m6"}, max_cost=0.02)
    masks[:, 0] |= ~masks[:, :6].any(axis=1)
    for threads in (1, 2):
        batch = router.route_embeddings(
            rows, policy=limits, willingness_to_pay=amounts, allow=masks, threads=threads
        )
        for row in range(300):
            allowed = {f"m{model}" for model in np.flatnonzero(masks[row])}
            policy = limits.replace(willingness_to_pay=float(amounts[row]), allow=allowed)
            assert router.route_embedding(rows[row], policy=policy).model_id == batch.model_ids[row]
    alphas = rng.random(300).astype(np.float32)
    batch = router.route_embeddings(rows, policy=Policy(willingness_to_pay=1.0), alpha=alphas)
    ones = [
        router.route_embedding(q, policy=Policy(alpha=float(a))).model_id
        for q, a in zip(rows, alphas, strict=True)
    ]
    assert batch.model_ids.tolist() == ones


def test_row_arrays_at_fault_are_refused_with_the_row():
    router = Router.from_artifact(make_artifact(unknown_cost=(2,)))
    rows = queries(4, 16)
    one = np.ones(4, dtype=np.float32)
    wrong = one.copy()
    wrong[2] = np.nan
    with pytest.raises(PolicyError, match="willingness_to_pay of row 2: NaN is out of range"):
        router.route_embeddings(rows, willingness_to_pay=wrong)
    with pytest.raises(PolicyError, match="alpha of row 3: 2 is out of range"):
        router.route_embeddings(rows, alpha=np.array([0, 1, 0.5, 2], dtype=np.float32))
    with pytest.raises(PolicyError, match="alpha and willingness_to_pay exclude each other"):
        router.route_embeddings(rows, alpha=one, willingness_to_pay=one)
    with pytest.raises(PolicyError, match="got 3 numbers for 4 rows"):
        router.route_embeddings(rows, alpha=one[:3])
    with pytest.raises(DataError, match="alpha: got an array of float64"):
        router.route_embeddings(rows, alpha=np.ones(4))
    with pytest.raises(PolicyError, match=r"allow: got an array of bool \[4, 2\], wanted .* \[4, 5\]"):
        router.route_embeddings(rows, allow=np.ones((4, 2), dtype=bool))
    with pytest.raises(PolicyError, match="needs the cost of every candidate, and that of m2 is unknown"):
        router.route_embeddings(rows, willingness_to_pay=one)
    assert len(router.route_embeddings(rows, alpha=one)) == 4, "quality alone needs no cost"
    masks = np.ones((4, 5), dtype=bool)
    masks[1] = False
    with pytest.raises(PolicyError, match="row 1: the row's own allow leaves none"):
        router.route_embeddings(rows, allow=masks)


# Stored precisions


@pytest.mark.parametrize(("precision", "tolerance"), [("f16", 2e-4), ("i8", 6e-3)])
def test_centroids_may_be_stored_rounded(precision, tolerance, tmp_path):
    artifact = make_artifact(n_clusters=64, dim=128)
    full, small = tmp_path / "full", tmp_path / "small"
    artifact.save(full)
    replace(artifact, precision=precision).save(small)
    assert small.stat().st_size < full.stat().st_size - 64 * 128
    router = Router.load(small)
    assert router.precision == precision
    assert router.artifact.precision == precision
    np.testing.assert_allclose(router.artifact.centroids, artifact.centroids, atol=tolerance)
    rows = queries(1000, 128)
    wanted, got = (Router.load(path).route_embeddings(rows) for path in (full, small))
    assert (wanted.cluster_ids[:, 0] == got.cluster_ids[:, 0]).mean() > 0.97
    assert Router.load(small, precision="f32").precision == "f32"


def test_rows_too_wide_for_byte_sums_are_refused():
    # All bytes at their extremes: the widest sums that are let in do not overflow.
    widest = 1 << 16
    ones = np.full((2, widest), 1 / 256, dtype=np.float32)
    artifact = make_artifact(n_clusters=2, dim=widest, n_models=2, top_p=1, centroids=ones)
    for sign in (1, -1):
        router = Router.from_artifact(artifact, precision="i8")
        assert router.route_embedding(sign * ones[0]).similarity == pytest.approx(sign, abs=1e-4)
    wider = make_artifact(n_clusters=1, dim=widest + 1, n_models=2, top_p=1)
    with pytest.raises(ArtifactError, match="dim 65537: centroids are searched in i8 up to 65536 dims"):
        Router.from_artifact(wider, precision="i8")


def test_instruction_sets_are_forced_from_the_environment():
    script = "import centroute; print(centroute.simd())"
    for isa in AVAILABLE:
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "CENTROUTE_SIMD": isa},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == isa
