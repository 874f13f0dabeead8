"""Clustering, score tables, selection and the whole of calibrate."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute import Artifact, DataError, Policy, PolicyError, Router
from centroute.calibrate import calibrate, selection, spherical_kmeans
from centroute.calibrate.kmeans import nearest
from centroute.calibrate.settings import Asked, Settings
from centroute.calibrate.tables import cluster_means, mean_tables
from centroute.datasets import Outcomes, split_by_text, synthetic_outcomes
from centroute.surface import surface_features


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def blobs(n_blobs, per_blob, dim=16, spread=0.15, seed=0):
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((n_blobs, dim)))
    return unit(
        np.repeat(centres, per_blob, axis=0) + spread * rng.standard_normal((n_blobs * per_blob, dim))
    )


@pytest.fixture(scope="module")
def sample():
    return synthetic_outcomes(n_queries=600, seed=3)


# k-means


def test_kmeans_finds_separate_blobs():
    rows = blobs(8, 50)
    clustering = spherical_kmeans(rows, n_clusters=8, seed=0)
    groups = clustering.labels.reshape(8, 50)
    assert all(len(set(group.tolist())) == 1 for group in groups)
    assert len(set(groups[:, 0].tolist())) == 8


@given(
    n=st.integers(3, 60),
    dim=st.sampled_from((1, 2, 7, 16)),
    n_clusters=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_kmeans_invariants(n, dim, n_clusters, seed):
    rows = unit(np.random.default_rng(seed).standard_normal((n, dim)))
    clustering = spherical_kmeans(rows, n_clusters=n_clusters, seed=seed, allow_fewer=True)
    n_made = len(clustering.centroids)
    assert n_made == min(n_clusters, len(np.unique(rows, axis=0)))
    np.testing.assert_allclose(np.linalg.norm(clustering.centroids, axis=1), 1, atol=1e-5)
    labels, similarities = nearest(rows, clustering.centroids)
    np.testing.assert_array_equal(labels, clustering.labels)
    np.testing.assert_array_equal(similarities, clustering.similarities)
    sizes = np.bincount(labels, minlength=n_made)
    assert (np.diff(sizes) <= 0).all(), "largest cluster first"


def test_kmeans_reaches_the_inertia_of_many_restarts():
    rows = blobs(30, 40, dim=32, spread=0.6)
    few = spherical_kmeans(rows, n_clusters=30, seed=0).mean_similarity
    many = max(spherical_kmeans(rows, n_clusters=30, seed=seed).mean_similarity for seed in range(1, 8))
    assert few > 0.99 * many


def test_kmeans_is_the_same_for_the_same_seed_and_differs_for_another():
    rows = blobs(20, 20, spread=0.8)
    first, again, other = (spherical_kmeans(rows, n_clusters=12, seed=seed) for seed in (5, 5, 6))
    assert first.centroids.tobytes() == again.centroids.tobytes()
    assert first.centroids.tobytes() != other.centroids.tobytes()


def test_kmeans_fills_every_cluster_where_rows_repeat():
    rows = np.repeat(unit(np.random.default_rng(0).standard_normal((6, 8))), 50, axis=0)
    clustering = spherical_kmeans(rows, n_clusters=6, seed=0)
    assert np.bincount(clustering.labels, minlength=6).tolist() == [50] * 6
    assert clustering.mean_similarity == pytest.approx(1.0, abs=1e-6)


def test_kmeans_refuses_more_clusters_than_different_rows():
    rows = np.repeat(unit(np.ones((1, 4))), 9, axis=0)
    with pytest.raises(DataError, match="2 clusters cannot be made of 1 different"):
        spherical_kmeans(rows, n_clusters=2, seed=0)
    assert len(spherical_kmeans(rows, n_clusters=1, seed=0).centroids) == 1


# Tables


def test_missing_pairs_are_left_out_and_never_counted_as_zero():
    labels = np.array([0, 0, 0, 1], dtype=np.int32)
    scores = np.array([[1, np.nan], [1, 0.5], [0, np.nan], [np.nan, 1]], dtype=np.float32)
    costs = np.array([[0.2, np.nan], [np.nan, np.nan], [0.4, np.nan], [0.9, np.nan]])
    tables = mean_tables(labels, scores, costs, n_clusters=3, shrinkage=0.0)
    np.testing.assert_allclose(tables.quality, [[2 / 3, 0.5], [2 / 3, 1.0], [2 / 3, 0.75]])
    np.testing.assert_allclose(tables.count, [[3, 1], [0, 1], [0, 0]])
    np.testing.assert_allclose(tables.cost[:, 0], [0.3, 0.9, 0.5])
    assert np.isnan(tables.cost[:, 1]).all()
    assert np.isnan(tables.prior_cost[1])


def test_shrinkage_draws_small_cells_to_the_mean():
    labels = np.array([0] + [1] * 99, dtype=np.int32)
    values = np.concatenate([[1.0], np.zeros(99)])[:, None]
    means, count, prior = cluster_means(labels, values, n_clusters=2, shrinkage=9.0)
    assert prior == pytest.approx(0.01)
    assert count[:, 0].tolist() == [1, 99]
    np.testing.assert_allclose(means[:, 0], [(1 + 9 * 0.01) / 10, 9 * 0.01 / 108])


# Selection


def test_selection_takes_the_simplest_within_one_standard_error():
    settings_ = [Settings(4, 1, 9.0, 10.0), Settings(8, 1, 9.0, 10.0), Settings(16, 1, 9.0, 10.0)]
    trials = [
        selection.Trial(settings_[0], 0.60, 0.05, 0.01),
        selection.Trial(settings_[1], 0.645, 0.005, 0.01),
        selection.Trial(settings_[2], 0.65, 0.0, 0.0),
    ]
    assert selection.select(trials) == settings_[1]


def test_candidates_hold_what_the_caller_fixed():
    choices = selection.candidates(5000, Asked(n_clusters=7, top_p=2, beta=3.0, shrinkage=1.5))
    assert choices == [Settings(7, 2, 3.0, 1.5, weight) for weight in selection.SURFACE_WEIGHTS]
    assert max(choice.n_clusters for choice in selection.candidates(100, Asked())) <= 8
    assert all(choice.top_p <= choice.n_clusters for choice in selection.candidates(100, Asked(top_p=50)))
    assert {choice.n_clusters for choice in selection.candidates(3, Asked())} == {1}


def test_exchange_grid_spans_the_hull_and_is_empty_without_costs():
    quality, cost = np.array([0.4, 0.6, 0.5, 0.8]), np.array([0.001, 0.003, 0.004, 0.013])
    grid = selection.exchange_grid(quality, cost)
    np.testing.assert_allclose(grid[[0, -1]], [0.01 / 2, 0.05 * 2])
    assert len(selection.exchange_grid(quality, cost * np.nan)) == 0
    assert len(selection.exchange_grid(quality, cost[::-1])) == 0, "the best is the cheapest"


# The whole


def test_the_same_seed_gives_the_same_bytes(sample):
    first = calibrate(sample, method="means", seed=4).to_bytes()
    assert calibrate(sample, method="means", seed=4).to_bytes() == first
    assert calibrate(sample, method="means", seed=5).to_bytes() != first


def test_threads_and_hash_seed_do_not_change_the_bytes(tmp_path):
    script = (
        "import sys; from centroute.calibrate import calibrate;"
        "from centroute.datasets import synthetic_outcomes;"
        "calibrate(synthetic_outcomes(n_queries=600)).save(sys.argv[1])"
    )
    written = []
    for threads in ("1", "2"):
        path = tmp_path / f"{threads}.safetensors"
        limits = {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", script, str(path)], env={**os.environ, **limits}, check=True)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_avengers_pro_has_the_papers_numbers(sample):
    artifact = calibrate(sample, method="avengers-pro")
    assert artifact.centroids.shape[0] == 60
    assert (artifact.top_p, artifact.beta, artifact.method["shrinkage"]) == (4, 9.0, 0.0)
    assert artifact.ood_threshold is None


def test_the_tables_are_the_means_of_the_nearest_rows(sample):
    artifact = calibrate(sample, method="avengers-pro", n_clusters=8, holdout=0)
    router = Router.from_artifact(artifact)
    labels, _ = nearest(router.embedder.embed(sample.queries), artifact.centroids)
    for cluster in range(8):
        np.testing.assert_allclose(
            artifact.quality[cluster], sample.scores[labels == cluster].mean(axis=0), atol=1e-6
        )
        np.testing.assert_allclose(
            artifact.cost[cluster], sample.costs[labels == cluster].mean(axis=0), rtol=1e-5
        )


def test_without_refit_the_holdout_stays_out_of_the_tables(sample):
    artifact = calibrate(sample, method="means", n_clusters=8, refit=False)
    rows, _ = split_by_text(sample, holdout=0.3, seed=0)
    assert artifact.count.sum() == len(rows) * sample.n_models
    refitted = calibrate(sample, method="means", n_clusters=8)
    assert refitted.count.sum() == sample.n_queries * sample.n_models
    assert refitted.report["evaluation"] == artifact.report["evaluation"], "measured before the refit"


def test_the_report_says_what_was_done(sample):
    report = calibrate(sample).report
    assert report["n_calibration"] + report["n_holdout"] == report["n_queries"] == 600
    assert report["measured_on"] == "holdout"
    assert len(report["tried"]) > 10
    assert report["evaluation"]["accuracy"] > report["evaluation"]["random"]["accuracy"]
    assert calibrate(sample, n_clusters=4, holdout=0).report["measured_on"] == "calibration"


def test_a_stored_default_policy_is_checked_against_the_pool(sample):
    with pytest.raises((PolicyError, ValueError), match="unknown model 'nobody'"):
        calibrate(sample, n_clusters=4, default_policy=Policy(deny={"nobody"}))
    artifact = calibrate(sample, n_clusters=4, default_policy=Policy(alpha=0.5, deny={"crumb-mini"}))
    assert (
        Artifact.from_kernel(Router.from_artifact(artifact)._kernel).default_policy == artifact.default_policy
    )


def test_max_mean_cost_lands_near_the_budget_on_the_holdout(embedder):
    large = synthetic_outcomes()
    artifact = calibrate(large, embedder=embedder, refit=False)
    router = Router.from_artifact(artifact)
    _, rows = split_by_text(large, holdout=0.3, seed=0)
    held_out = large.subset(rows)
    embeddings = embedder.embed(held_out.queries)
    if artifact.embedder.surface is not None:
        embeddings = artifact.embedder.surface.append(embeddings, surface_features(held_out.queries))
    for budget in (0.001, 0.002, 0.003):
        chosen = router.route_embeddings(embeddings, policy=Policy(max_mean_cost=budget)).model_ids
        spent = held_out.costs[np.arange(len(rows)), chosen].mean()
        assert spent == pytest.approx(budget, rel=0.15)


def outcomes_of(queries, scores, costs=None, models=("a", "b")):
    n = len(queries)
    costs = np.full((n, len(models)), np.nan) if costs is None else costs
    return Outcomes(
        queries=tuple(queries), models=models, scores=np.asarray(scores, dtype=np.float32),
        costs=np.asarray(costs, dtype=np.float64), datasets=("",) * n, ids=tuple(map(str, range(n))),
    )  # fmt: skip


def test_queries_without_any_known_token_are_left_out_and_counted():
    queries = [f"the number {number} of the list" for number in range(40)] + ["\x00", "\u200b\x01"]
    outcomes = outcomes_of(queries, [[1, 0]] * 42)
    report = calibrate(outcomes, n_clusters=2).report
    assert (report["n_left_out"], report["n_queries"]) == (2, 40)
    with pytest.raises(DataError, match="none of the 2 queries holds anything that static-256 knows"):
        calibrate(outcomes_of(queries[40:], [[1, 0]] * 2))


def test_a_model_seen_once_is_refused_by_name():
    scores = [[1, np.nan]] * 9 + [[1, 1]]
    with pytest.raises(DataError, match="model 'b' has 1 outcome, at least 2 are needed"):
        calibrate(outcomes_of([f"query {n}" for n in range(10)], scores))


def test_costs_unknown_for_a_model_stay_unknown():
    queries = [f"query number {number}" for number in range(30)]
    costs = [[0.01, np.nan]] * 30
    artifact = calibrate(outcomes_of(queries, [[1, 0]] * 30, costs), n_clusters=2)
    assert np.isnan(artifact.prior_cost[1])
    assert artifact.prior_cost[0] == pytest.approx(0.01)
    assert artifact.frontier.shape == (0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method 'magic': wanted one of auto, means, avengers-pro"),
        ({"holdout": 1.0}, "holdout 1.0"),
        ({"holdout": -0.1}, "holdout -0.1"),
        ({"seed": -1}, "seed -1"),
        ({"n_clusters": 601}, "601 clusters cannot be made"),
        ({"top_p": 0}, "top-p 0"),
    ],
)
def test_bad_settings_name_the_value(sample, options, message):
    with pytest.raises(DataError, match=message):
        calibrate(sample, **options)
