"""Clustering, score tables, selection and the whole of calibrate."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute import Artifact, DataError, Policy, PolicyError, Router, _reference
from centroute.calibrate import calibrate, selection, spherical_kmeans
from centroute.calibrate.assignment import blend, nearest_clusters, softmax_weights
from centroute.calibrate.frontier import (
    FRONTIER_POINTS,
    exchange_rates,
    level,
    willingness_amounts,
)
from centroute.calibrate.kmeans import nearest
from centroute.calibrate.ridge import NormalEquations, learned_tables
from centroute.calibrate.settings import AVENGERS_PRO, Asked, Settings
from centroute.calibrate.tables import cluster_means, mean_tables
from centroute.datasets import Outcomes, split_by_text, synthetic_outcomes
from centroute.evaluate import evaluate

TOPICS = (
    *("sonnet", "theorem", "kitchen", "garden", "python", "river", "tax", "violin", "glacier", "contract"),
    *("enzyme", "saddle", "comet", "ledger", "pasta", "harbour", "verb", "magnet", "orchard", "statute"),
    *("neuron", "canyon", "recipe", "lantern", "fossil", "bridge", "wolf", "sail", "clock", "fable"),
)


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
    tables = mean_tables(labels, scores, costs, n_clusters=3, shrinkage=0.0, cost_shrinkage=0.0)
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


def soft(n=60, n_clusters=5, top_p=3, seed=0):
    rng = np.random.default_rng(seed)
    rows, centroids = unit(rng.standard_normal((n, 8))), unit(rng.standard_normal((n_clusters, 8)))
    ids, similarities = nearest_clusters(rows, centroids, top_p)
    return rows, centroids, ids, softmax_weights(similarities, 9.0)


def dense(ids, weights, n_clusters):
    full = np.zeros((len(ids), n_clusters))
    np.put_along_axis(full, ids.astype(np.intp), weights, axis=1)
    return full


@pytest.mark.parametrize(("n_clusters", "top_p"), [(1, 1), (2, 1), (5, 3), (33, 33), (33, 16)])
def test_rows_are_assigned_as_the_reference_does(n_clusters, top_p):
    rows, centroids, ids, weights = soft(40, n_clusters, top_p)
    table = np.random.default_rng(1).random((n_clusters, 3))
    blended = blend(ids, weights, table)
    for row, query in enumerate(rows):
        near, wanted, _ = _reference.assign(query, centroids, top_p, 9.0)
        assert ids[row].tolist() == near.tolist()
        np.testing.assert_allclose(weights[row], wanted, rtol=1e-4)
        np.testing.assert_allclose(blended[row], wanted @ table[near], rtol=1e-4)


def test_the_lower_cluster_wins_a_tie():
    centroids = unit(np.array([[1, 0], [1, 1], [1, 0], [1, 0]]))
    ids, _ = nearest_clusters(centroids[:1], centroids, 3)
    assert ids.tolist() == [[0, 2, 3]]


@pytest.mark.parametrize("shrinkage", [0.01, 1.0, 100.0])
def test_learned_cells_solve_the_regularised_equations_of_what_was_observed(shrinkage):
    _, _, ids, weights = soft()
    full = dense(ids, weights, 5)
    rng = np.random.default_rng(2)
    values = rng.random((60, 4))
    values[::3, 1], values[::4, 2], values[:, 3] = np.nan, np.nan, np.nan
    equations = NormalEquations.of(ids, weights, values, n_clusters=5)
    cells = equations.solve(shrinkage)
    for column in range(3):
        known = ~np.isnan(values[:, column])
        inputs, prior = full[known], values[known, column].mean()
        wanted = np.linalg.solve(
            inputs.T @ inputs + shrinkage * np.eye(5), inputs.T @ (values[known, column] - prior)
        )
        np.testing.assert_allclose(cells[:, column], wanted + prior, rtol=1e-9)
        np.testing.assert_allclose(equations.count[:, column], inputs.sum(axis=0))
    assert np.isnan(cells[:, 3]).all()
    assert np.isnan(equations.prior[3])


def test_columns_take_their_own_shrinkage():
    _, _, ids, weights = soft()
    values = np.random.default_rng(3).random((60, 4))
    equations = NormalEquations.of(ids, weights, values, n_clusters=5)
    mixed = equations.solve(np.array([1.0, 1.0, 30.0, 0.0]))
    for column, strength in enumerate((1.0, 1.0, 30.0, 0.0)):
        np.testing.assert_array_equal(mixed[:, column], equations.solve(strength)[:, column])


def test_costs_are_drawn_to_the_mean_by_one_outcome_at_most():
    assert Settings(8, 4, 9.0, 30.0).cost_shrinkage == 1.0
    assert Settings(8, 4, 9.0, 0.0).cost_shrinkage == 0.0


def test_learned_cells_of_whole_assignments_are_shrunk_means():
    labels = np.random.default_rng(0).integers(0, 6, 80).astype(np.int32)
    values = np.random.default_rng(1).random((80, 3))
    values[::5, 0] = np.nan
    wanted, count, prior = cluster_means(labels, values, n_clusters=7, shrinkage=2.5)
    equations = NormalEquations.of(labels[:, None], np.ones((80, 1)), values, n_clusters=7)
    np.testing.assert_allclose(equations.solve(2.5), wanted)
    np.testing.assert_allclose(equations.count, count)
    np.testing.assert_allclose(equations.prior, prior)


def test_learned_tables_stay_in_range_and_a_cluster_without_rows_keeps_the_prior():
    ids = np.array([[0, 1], [0, 1], [1, 0]], dtype=np.int32)
    weights = np.array([[0.6, 0.4], [0.5, 0.5], [0.9, 0.1]])
    scores = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)
    costs = np.array([[1e-3, np.nan], [1e-6, np.nan], [1e-6, np.nan]])
    tables = learned_tables(ids, weights, scores, costs, n_clusters=3, shrinkage=0.0, cost_shrinkage=0.0)
    assert ((tables.quality >= 0) & (tables.quality <= 1)).all()
    assert (tables.cost[:, 0] >= 0).all()
    np.testing.assert_allclose(tables.quality[2], [2 / 3, 2 / 3])
    assert np.isnan(tables.cost[:, 1]).all()


# Selection


def test_selection_takes_the_simplest_size_within_one_standard_error():
    trials = [
        selection.Trial(Settings(4, 1, 9.0, 10.0), 0.60, 0.05, 0.01),
        selection.Trial(Settings(8, 1, 9.0, 10.0), 0.641, 0.009, 0.01),
        selection.Trial(Settings(8, 4, 9.0, 1.0), 0.645, 0.005, 0.01),
        selection.Trial(Settings(16, 1, 9.0, 10.0), 0.65, 0.0, 0.0),
        selection.Trial(Settings(128, 4, 9.0, 3.0, learned=True), 0.63, 0.02, 0.01),
    ]
    assert selection.select(trials) == trials[2].settings, "the best of its size, not the simplest of it"
    close = selection.Trial(Settings(64, 4, 9.0, 3.0, learned=True), 0.645, 0.005, 0.01)
    assert selection.select([*trials, close]) == close.settings, "learned tables before means"


def test_candidates_hold_what_the_caller_fixed():
    asked = Asked(n_clusters=64, top_p=2, beta=3.0, shrinkage=1.5)
    for method, learned in (("means", False), ("learned", True)):
        choices = selection.candidates(method, 5000, asked)
        wanted = [Settings(64, 2, 3.0, 1.5, w, learned=learned) for w in selection.SURFACE_WEIGHTS]
        assert choices == wanted
    assert max(choice.n_clusters for choice in selection.candidates("auto", 100, Asked())) <= 8
    for choice in selection.candidates("auto", 100, Asked(top_p=50)):
        assert choice.top_p <= choice.n_clusters
    assert {choice.n_clusters for choice in selection.candidates("auto", 3, Asked())} == {1}


def test_auto_tries_both_methods_each_setting_once_simplest_first():
    both = selection.candidates("auto", 5000, Asked())
    apart = [selection.candidates(method, 5000, Asked()) for method in ("means", "learned")]
    assert set(both) == set(apart[0]) | set(apart[1])
    assert len(both) == len(set(both))
    assert {choice.learned for choice in apart[0]} == {False}
    for some in apart:
        assert [choice.n_clusters for choice in some] == sorted(choice.n_clusters for choice in some)
    assert [choice.learned for choice in both] == sorted((choice.learned for choice in both), reverse=True)


@pytest.mark.parametrize("with_grid", [True, False])
def test_worth_is_the_mean_over_the_grid_of_score_less_cost(with_grid):
    rng = np.random.default_rng(0)
    predicted = rng.random((50, 6))
    scores = rng.random((50, 3)).astype(np.float32)
    costs = rng.random((50, 3))
    scores[::7, 1], costs[::5, 2] = np.nan, np.nan
    grid = np.array([0.5, 2.0]) if with_grid else np.zeros(0)
    wanted = np.empty((50, 1 + len(grid)))
    for row in range(50):
        for step, amount in enumerate([np.inf, *grid]):
            chosen = int(np.argmax(predicted[row, :3] - predicted[row, 3:] / amount))
            paid = 0.0 if amount == np.inf else costs[row, chosen] / amount
            wanted[row, step] = scores[row, chosen] - paid
    known = ~np.isnan(wanted)
    means = np.where(known, wanted, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    found = selection.worth(predicted, scores, costs, grid)
    np.testing.assert_allclose(found, np.where(known.any(axis=1), means, np.nan))


def test_exchange_grid_spans_the_hull_and_is_empty_without_costs():
    quality, cost = np.array([0.4, 0.6, 0.5, 0.8]), np.array([0.001, 0.003, 0.004, 0.013])
    grid = selection.exchange_grid(quality, cost)
    np.testing.assert_allclose(grid[[0, -1]], [0.01 / 2, 0.05 * 2])
    assert len(selection.exchange_grid(quality, cost * np.nan)) == 0
    assert len(selection.exchange_grid(quality, cost[::-1])) == 0, "the best is the cheapest"


@pytest.mark.parametrize("n_models", [1, 2, 7])
def test_decisions_change_at_the_exchange_rates_and_nowhere_else(n_models):
    rng = np.random.default_rng(n_models)
    for _ in range(50):
        quality, cost = rng.random((1, n_models)), rng.random((1, n_models))
        rates = exchange_rates(quality, cost)
        assert (np.diff(rates) >= 0).all()
        edges = np.concatenate([[0.0], rates, [1e9]])
        chosen = [
            [int(np.argmax(amount * quality[0] - cost[0])) for amount in np.linspace(low, high, 7)[1:-1]]
            for low, high in pairwise(edges)
        ]
        assert all(len(set(between)) == 1 for between in chosen), "no change between two rates"
        assert len({between[0] for between in chosen}) == len(chosen), "a change at each rate"


def test_amounts_ascend_from_nothing_to_quality_first():
    rng = np.random.default_rng(0)
    amounts = willingness_amounts(rng.random((300, 4)), rng.random((300, 4)))
    assert amounts[0] == 0
    assert (np.diff(amounts) > 0).all()
    assert len(amounts) == FRONTIER_POINTS
    assert willingness_amounts(np.ones((5, 2)), np.ones((5, 2))).tolist() == [0.0]


# The whole


def test_the_same_seed_gives_the_same_bytes(sample):
    first, again, other = (
        calibrate(sample, method="means", n_clusters=8, seed=seed).to_bytes() for seed in (4, 4, 5)
    )
    assert again == first
    assert other != first


@pytest.mark.parametrize("method", ["auto", "learned"])
def test_threads_and_hash_seed_do_not_change_the_bytes(method, tmp_path):
    script = (
        "import sys; from centroute.calibrate import calibrate;"
        "from centroute.datasets import synthetic_outcomes;"
        f"calibrate(synthetic_outcomes(n_queries=600), method='{method}').save(sys.argv[1])"
    )
    written = []
    for threads in ("1", "2"):
        path = tmp_path / f"{threads}.safetensors"
        libraries = ("OPENBLAS", "OMP", "MKL", "NUMBA", "RAYON")
        limits = {f"{library}_NUM_THREADS": threads for library in libraries} | {"PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", script, str(path)], env={**os.environ, **limits}, check=True)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_avengers_pro_has_the_papers_numbers(sample):
    artifact = calibrate(sample, method="avengers-pro")
    assert artifact.centroids.shape[0] == 60
    assert (artifact.top_p, artifact.beta, artifact.method["shrinkage"]) == (4, 9.0, 0.0)
    assert artifact.ood_threshold is None


@pytest.mark.parametrize(("method", "score"), AVENGERS_PRO.items())
def test_avengers_pro_and_its_variants_differ_in_the_alpha_score_alone(sample, method, score):
    plain = calibrate(sample, method="avengers-pro", n_clusters=8)
    variant = calibrate(sample, method=method, n_clusters=8)
    assert variant.alpha_score == score
    assert variant.method["name"] == method
    np.testing.assert_array_equal(variant.quality, plain.quality)
    np.testing.assert_array_equal(variant.cost, plain.cost)
    router, rows = Router.from_artifact(variant), Router.from_artifact(plain).embed(sample.queries[:40])
    for row, model in zip(
        rows, router.route_embeddings(rows, policy=Policy(alpha=0.6)).model_ids, strict=True
    ):
        assert _reference.route(variant, row, Policy(alpha=0.6)).model_id == model


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


def test_learned_tables_predict_what_the_kernel_blends(sample):
    artifact = calibrate(
        sample, method="learned", n_clusters=16, top_p=8, beta=20.0, shrinkage=3.0, holdout=0
    )
    assert artifact.method["name"] == artifact.method["requested"] == "learned"
    router = Router.from_artifact(artifact)
    rows = router.embed(sample.queries)
    ids, similarities = nearest_clusters(rows, artifact.centroids, 8)
    weights = softmax_weights(similarities, 20.0)
    tables = learned_tables(
        ids, weights, sample.scores, sample.costs, n_clusters=16, shrinkage=3.0, cost_shrinkage=1.0
    )
    np.testing.assert_allclose(artifact.quality, tables.quality, atol=1e-5)
    np.testing.assert_allclose(artifact.count.sum(), sample.n_queries * sample.n_models, rtol=1e-5)
    trusted = router.route_embeddings(rows).in_distribution
    quality, cost = router.predict(rows)
    np.testing.assert_allclose(quality[trusted], blend(ids, weights, tables.quality)[trusted], atol=1e-4)
    np.testing.assert_allclose(cost[trusted], blend(ids, weights, tables.cost)[trusted], rtol=1e-3)


def test_learned_tables_blend_closer_to_the_outcomes_than_means(sample):
    errors = {}
    for method in ("means", "learned"):
        artifact = calibrate(
            sample, method=method, n_clusters=32, top_p=16, beta=9.0, shrinkage=1.0, refit=False
        )
        router = Router.from_artifact(artifact)
        _, rows = split_by_text(sample, holdout=0.3, seed=0)
        held_out = sample.subset(rows)
        quality, _ = router.predict(router.embed(held_out.queries))
        errors[method] = ((quality - held_out.scores) ** 2).mean()
    assert errors["learned"] < errors["means"]


def test_scores_missing_at_random_hardly_move_learned_tables():
    rng = np.random.default_rng(0)
    _, _, ids, weights = soft(n=3000, n_clusters=6)
    scores = (rng.random((3000, 2)) < 0.3 + 0.4 * (ids[:, :1] % 2)).astype(np.float32)
    some = np.where(rng.random(scores.shape) < 0.5, np.nan, scores).astype(np.float32)
    costs = np.full((3000, 2), np.nan)
    whole, partial = (
        learned_tables(ids, weights, observed, costs, n_clusters=6, shrinkage=3.0, cost_shrinkage=1.0).quality
        for observed in (scores, some)
    )
    assert np.abs(whole - partial).max() < 0.15


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


def test_a_model_alone_is_refused():
    with pytest.raises(DataError, match="there is one model, 'a', and so nothing to choose between"):
        calibrate(outcomes_of(["one", "two", "three"], [[1], [0], [1]], models=("a",)))


def test_level_makes_mean_costs_ascend_and_leaves_out_the_unknown():
    points = np.array([[0, 0.5, 1.0], [1, 0.6, 3.0], [2, np.nan, 9.0], [3, 0.7, 2.0], [4, 0.8, 4.0]])
    np.testing.assert_allclose(level(points), [[0, 0.5, 1], [1, 0.6, 2.5], [3, 0.7, 2.5], [4, 0.8, 4]])
    assert level(np.zeros((0, 3))).shape == (0, 3)


def test_the_frontier_promises_what_tables_reach_on_rows_that_they_have_not_seen():
    # Scores are tosses of a coin: tables that had seen them would choose right more often than not.
    rng = np.random.default_rng(0)
    scores, costs = rng.integers(0, 2, (600, 2)), np.tile([0.001, 0.002], (600, 1))
    artifact = calibrate(
        outcomes_of([f"{word} {n}" for n in range(20) for word in TOPICS], scores, costs),
        method="means", n_clusters=60, top_p=1, shrinkage=0.0, surface_weight=0.0, holdout=0,
    )  # fmt: skip
    assert artifact.quality.max(axis=1).mean() > 0.56, "what they promise of rows that they have seen"
    assert np.abs(artifact.frontier[:, 1] - 0.5).max() < 0.08
    chosen = artifact.quality.argmax(axis=1)
    dearer = artifact.count.sum(axis=1)[chosen == 1].sum() / artifact.count.sum()
    assert artifact.frontier[-1, 2] == pytest.approx(0.001 * (1 + dearer), rel=0.02), (
        "cost of its own choices"
    )


@pytest.mark.parametrize("refit", [False, True])
def test_max_mean_cost_lands_near_the_budget_on_new_queries(embedder, refit):
    large = synthetic_outcomes()
    known, new = split_by_text(large, holdout=0.3, seed=1)
    artifact = calibrate(large.subset(known), embedder=embedder, n_clusters=16, refit=refit)
    evaluation = evaluate(Router.from_artifact(artifact), large.subset(new))
    assert len(evaluation.budgets) == 5
    for budget in evaluation.budgets:
        assert budget.mean_cost_usd == pytest.approx(budget.max_mean_cost, rel=0.1)


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
        ({"method": "magic"}, "method 'magic': wanted one of auto, learned, means, avengers-pro, "),
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
