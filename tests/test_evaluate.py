"""Figures of an evaluation, worked out by hand on a tiny set."""

import json
from dataclasses import replace

import numpy as np
import pytest

from centroute import Artifact, DataError, Policy, Router
from centroute.artifact import EmbedderId, PoolModel
from centroute.datasets import Outcomes
from centroute.evaluate import baselines, evaluate, metrics
from centroute.evaluate.frontier import willingness_grid

AXES = np.eye(2, dtype=np.float32)


def two_clusters(prior_quality=(0.6, 0.5), cost=((0.01, 0.001), (0.01, 0.001))):
    """Cluster 0 wants model a, cluster 1 wants model b."""
    cost = np.array(cost, dtype=np.float32)
    return Router.from_artifact(
        Artifact(
            models=(PoolModel("a"), PoolModel("b")),
            embedder=EmbedderId("outside", 2, None),
            centroids=AXES,
            quality=np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32),
            cost=cost,
            count=np.ones((2, 2), dtype=np.float32),
            prior_quality=np.array(prior_quality, dtype=np.float32),
            prior_cost=cost.mean(axis=0),
            frontier=np.zeros((0, 3), dtype=np.float32),
            top_p=1,
            beta=9.0,
            method={},
        )
    )


def outcomes_of(scores, costs, models=("a", "b")):
    n = len(scores)
    return Outcomes(
        queries=tuple(f"query {row}" for row in range(n)), models=models,
        scores=np.array(scores, dtype=np.float32), costs=np.array(costs, dtype=np.float64),
        datasets=("",) * n, ids=tuple(map(str, range(n))),
    )  # fmt: skip


SCORES = [[1, 0], [1, 1], [0, 1], [0, 0]]
COSTS = [[0.02, 0.001]] * 4
ROWS = AXES[[0, 0, 1, 1]]


def test_every_figure_by_hand():
    result = evaluate(two_clusters(), outcomes_of(SCORES, COSTS), embeddings=ROWS).to_json()
    assert result["n_queries"] == 4
    assert (result["accuracy"], result["mean_cost_usd"]) == (0.75, pytest.approx(0.0105))
    assert result["best_single"] == {"model": "a", "accuracy": 0.5, "mean_cost_usd": pytest.approx(0.02)}
    # The oracle pays the cheapest of the best: a, b, b, and b where all fail.
    assert result["oracle"] == {"accuracy": 0.75, "mean_cost_usd": pytest.approx((0.02 + 3 * 0.001) / 4)}
    assert result["random"] == {"accuracy": 0.5, "mean_cost_usd": pytest.approx(0.0105)}
    assert result["headroom_captured"] == 1.0
    assert [model["share"] for model in result["models"]] == [0.5, 0.5]
    costs = [point["mean_cost_usd"] for point in result["frontier"]]
    assert (costs[0], costs[-1]) == (pytest.approx(0.001), pytest.approx(0.0105))
    low, high = result["interval_95"]["accuracy"]
    assert 0 <= low <= 0.75 <= high <= 1
    json.dumps(result, allow_nan=False)


def test_best_single_is_the_best_on_the_calibration_data_not_here():
    result = evaluate(two_clusters(prior_quality=(0.4, 0.5)), outcomes_of(SCORES, COSTS), embeddings=ROWS)
    assert result.best_single.model == "b"


def test_unknown_values_are_null_and_never_zero():
    unknown = [[np.nan, np.nan]] * 4
    result = evaluate(two_clusters(), outcomes_of(SCORES, unknown), embeddings=ROWS).to_json()
    assert result["mean_cost_usd"] is None
    assert result["oracle"]["mean_cost_usd"] is None
    assert result["interval_95"]["mean_cost_usd"] is None
    assert result["frontier"] == []
    # Row 0 chose a, whose score is not observed: it counts for nobody.
    scores = [[np.nan, 0], [1, 1], [0, 1], [0, 0]]
    assert evaluate(
        two_clusters(), outcomes_of(scores, COSTS), embeddings=ROWS
    ).router.accuracy == pytest.approx(2 / 3)


def test_headroom_is_null_where_there_is_none():
    result = evaluate(two_clusters(), outcomes_of([[1, 0]] * 2, COSTS[:2]), embeddings=ROWS[:2])
    assert result.oracle.accuracy == result.best_single.accuracy
    assert result.headroom_captured is None


def test_a_policys_limits_hold_along_the_frontier():
    result = evaluate(two_clusters(), outcomes_of(SCORES, COSTS), embeddings=ROWS, policy=Policy(deny={"a"}))
    assert [point.mean_cost_usd for point in result.frontier] == [pytest.approx(0.001)] * len(result.frontier)
    assert result.frontier


def test_models_are_matched_by_name_and_strangers_are_ignored():
    swapped = outcomes_of(
        [[9 / 10, s[1], s[0]] for s in SCORES], [[1.0, c[1], c[0]] for c in COSTS], ("x", "b", "a")
    )
    assert evaluate(two_clusters(), swapped, embeddings=ROWS).router.accuracy == 0.75
    with pytest.raises(DataError, match="no model in common"):
        evaluate(two_clusters(), outcomes_of(SCORES, COSTS, ("x", "y")), embeddings=ROWS)


def test_rows_that_cannot_be_routed_are_left_out_and_counted():
    rows = ROWS.copy()
    rows[3] = 0
    result = evaluate(two_clusters(), outcomes_of(SCORES, COSTS), embeddings=rows)
    assert (result.n_queries, result.n_left_out, result.router.accuracy) == (3, 1, 1.0)


def test_the_grid_runs_from_always_cheapest_to_quality_first():
    rng = np.random.default_rng(0)
    quality = rng.random((50, 4)).astype(np.float32)
    cost = rng.random((50, 4)).astype(np.float32)
    grid = willingness_grid(quality, cost)
    assert grid[0] == 0
    assert (np.diff(grid) > 0).all()
    highest = (grid[-1] * quality - cost).argmax(axis=1)
    np.testing.assert_array_equal(highest, quality.argmax(axis=1))
    assert willingness_grid(quality[:, :1], cost[:, :1]).tolist() == [0.0]


# Metrics, intervals and the paired comparison in the evaluation.


def named(outcomes, *datasets):
    return replace(outcomes, datasets=datasets)


def test_metrics_by_hand():
    result = evaluate(two_clusters(), outcomes_of(SCORES, COSTS), embeddings=ROWS).to_json()
    found = result["metrics"]
    # Always b scores .5 at .001, quality first scores .75 at .0105; a alone scores .5 at .02.
    # The hull is level at .75 from .0105 on: (.0095 · .625 + .0095 · .75) / .019.
    assert found["aiq"] == pytest.approx(0.6875)
    # b, the weak model, is as good as a, the strong one: there is no gap to recover.
    assert [found[name] for name in ("apgr", "cpt_50", "cpt_80")] == [None] * 3
    assert found["perf_gain"] == pytest.approx(0.5)
    assert found["cost_save"] == pytest.approx(0.95)
    assert found["pareto_dist"] == 0
    # 10.5 USD per 1,000 queries.
    assert found["arena"] == pytest.approx(metrics.arena(0.75, 0.0105))
    assert result["gain_over_best_single"]["accuracy"] == pytest.approx(0.25)
    low, high = result["gain_over_best_single"]["interval_95"]
    assert low <= 0.25 <= high
    # One win among four: the one difference has either sign with the same chance.
    assert result["gain_over_best_single"]["p_value"] == 1.0


def test_the_gap_to_the_strong_of_two_models_is_over_the_share_of_its_calls():
    scores = [[1, 0], [1, 1], [1, 1], [1, 0]]
    found = evaluate(two_clusters(), outcomes_of(scores, COSTS), embeddings=ROWS).metrics
    # Weak .5, strong 1; half of the calls go to a and recover half of the gap.
    assert found.apgr == pytest.approx(0.25 * 0.5 + 0.5 * 0.5)
    assert found.cpt_50 == pytest.approx(0.5)
    assert found.cpt_80 is None


def test_unknown_costs_leave_only_what_needs_none():
    unknown = [[np.nan, np.nan]] * 4
    found = evaluate(two_clusters(), outcomes_of(SCORES, unknown), embeddings=ROWS).to_json()
    known = {name for name, value in found["metrics"].items() if value is not None}
    assert known == {"perf_gain"}
    assert found["metrics"]["perf_gain"] == pytest.approx(0.5)
    assert found["alpha_rule"]["frontier"] == []
    assert found["alpha_rule"]["aiq"] is None


# Datasets.


def test_macro_weighs_datasets_and_micro_queries():
    outcomes = named(outcomes_of(SCORES, COSTS), "x", "x", "x", "y")
    result = evaluate(two_clusters(), outcomes, embeddings=ROWS).to_json()
    assert (result["accuracy"], result["macro_accuracy"]) == (0.75, 0.5)
    x, y = result["datasets"]
    assert (x["name"], x["n_queries"], x["accuracy"], x["oracle_accuracy"]) == ("x", 3, 1.0, 1.0)
    assert x["best_single_accuracy"] == pytest.approx(2 / 3)
    # a and b both score two of three there: the cheaper one.
    assert x["best_model"] == {"model": "b", "accuracy": pytest.approx(2 / 3)}
    assert (y["name"], y["n_queries"], y["accuracy"]) == ("y", 1, 0.0)
    assert result["best_per_dataset"]["chosen_on"] == "data"
    assert result["best_per_dataset"]["accuracy"] == pytest.approx(0.5)


def test_without_names_of_datasets_there_are_no_figures_by_dataset():
    result = evaluate(two_clusters(), outcomes_of(SCORES, COSTS), embeddings=ROWS).to_json()
    assert result["datasets"] == []
    assert result["macro_accuracy"] is None
    assert result["best_per_dataset"] is None


def test_the_best_model_per_dataset_is_chosen_on_the_calibration_data_where_it_is_given():
    outcomes = named(outcomes_of(SCORES, COSTS), "x", "x", "y", "z")
    # By the calibration data a is best on x and b on y; it has no z, which goes to the best single model.
    seen = named(outcomes_of([[1, 0], [1, 0], [0, 1], [0, 1]], COSTS), "x", "x", "y", "y")
    result = evaluate(
        two_clusters(), outcomes, embeddings=ROWS, calibration=seen, calibration_embeddings=ROWS
    )
    assert result.best_per_dataset_by == "calibration"
    assert result.best_per_dataset.accuracy == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert result.best_per_dataset.mean_cost_usd == pytest.approx((3 * 0.02 + 0.001) / 4)


# Baselines that are fitted.


def test_baselines_that_need_calibration_data_are_absent_without_it():
    result = evaluate(two_clusters(), outcomes_of(SCORES, COSTS), embeddings=ROWS).to_json()
    assert result["knn"] is None
    assert result["avengers_pro"] is None
    assert result["calibration"] is None
    assert result["alpha_rule"]["accuracy"] == 0.75
    assert [point["alpha"] for point in result["alpha_rule"]["frontier"]] == pytest.approx(
        np.linspace(0, 1, 21)
    )


def seen_often(n):
    """Calibration data in which a is right on the first axis and b on the second."""
    scores, rows = [[1, 0]] * n + [[0, 1]] * n, AXES[[0] * n + [1] * n]
    jitter = np.random.default_rng(0).normal(scale=0.01, size=rows.shape)
    return outcomes_of(scores, [[0.02, 0.001]] * (2 * n)), (rows + jitter).astype(np.float32)


def test_knn_and_avengers_pro_are_fitted_to_the_calibration_data():
    seen, rows = seen_often(60)
    # This router's own tables are wrong: they know nothing of a.
    router = two_clusters(prior_quality=(0.1, 0.5), cost=((0.01, 0.001), (0.01, 0.001)))
    result = evaluate(
        router, outcomes_of(SCORES, COSTS), embeddings=ROWS, calibration=seen, calibration_embeddings=rows
    )
    for baseline in (result.knn, result.avengers_pro):
        assert baseline.accuracy == 0.75
        assert baseline.mean_cost_usd == pytest.approx(0.0105)
        number, accuracy, cost = baseline.points[0]
        assert (number, accuracy, cost) == (0.0, 0.5, pytest.approx(0.001))
        assert baseline.points[-1][1:] == (0.75, pytest.approx(0.0105))
        assert baseline.aiq == pytest.approx(0.6875)
    assert (result.knn.trade_off, result.avengers_pro.trade_off) == ("willingness_to_pay", "alpha")
    assert (result.calibration.n_queries, result.calibration.n_shared_texts) == (120, 4)


def test_knn_by_hand():
    seen = baselines.NearestNeighbors(
        AXES, np.array([[1.0, np.nan], [0.0, 0.5]]), np.array([[0.02, np.nan], [0.04, 0.001]])
    )
    quality, cost = seen.predict(np.array([[1, 0.1], [0, 2]], dtype=np.float32))
    # Both calibration queries are among the 50 nearest; what was not observed is in no mean.
    np.testing.assert_allclose(quality, [[0.5, 0.5]] * 2)
    np.testing.assert_allclose(cost, [[0.03, 0.001]] * 2)
    # A tie in quality goes to the cheaper model.
    assert baselines.choose(quality, cost, None).tolist() == [1, 1]


def test_knn_asks_the_nearest(monkeypatch):
    monkeypatch.setattr(baselines, "KNN_NEIGHBORS", 1)
    nan = np.nan
    seen = baselines.NearestNeighbors(AXES, np.array([[1.0, 0.2], [nan, 0.9]]), np.full((2, 2), nan))
    quality, cost = seen.predict(np.array([[3, 0.1], [0.1, 1]], dtype=np.float32))
    # A model that no neighbour has seen is taken at its mean.
    np.testing.assert_allclose(quality, [[1.0, 0.2], [1.0, 0.9]])
    assert np.isnan(cost).all()
    assert baselines.choose(quality, cost, None).tolist() == [0, 0]


def test_a_model_of_unknown_cost_is_never_free_to_knn():
    quality, cost = np.array([[0.9, 0.5]]), np.array([[np.nan, 0.001]])
    assert baselines.choose(quality, cost, 1.0).tolist() == [1]
    assert baselines.choose(quality, cost, None).tolist() == [0]
    assert baselines.choose(np.array([[np.nan, 0.0]]), cost, None).tolist() == [1]


def test_calibration_data_may_lack_models_and_costs():
    seen, rows = seen_often(60)
    unknown = np.full((120, 1), np.nan)
    only_b = replace(seen, models=("b",), scores=seen.scores[:, 1:], costs=unknown)
    result = evaluate(
        two_clusters(), outcomes_of(SCORES, COSTS), embeddings=ROWS, calibration=only_b,
        calibration_embeddings=rows,
    )  # fmt: skip
    assert result.knn.accuracy == result.avengers_pro.accuracy == 0.5
    assert result.knn.points == result.avengers_pro.points == ()
    json.dumps(result.to_json(), allow_nan=False)


def test_calibration_data_of_another_pool_is_refused_by_its_name():
    seen, rows = seen_often(60)
    with pytest.raises(DataError, match=r"^calibration data: no model in common"):
        evaluate(
            two_clusters(), outcomes_of(SCORES, COSTS), embeddings=ROWS,
            calibration=replace(seen, models=("x", "y")), calibration_embeddings=rows,
        )  # fmt: skip


def test_baselines_do_not_see_the_routers_surface_features(outcomes, embedder):
    from centroute.calibrate import calibrate

    part = outcomes.subset(np.arange(120))
    routers = [
        Router.from_artifact(
            calibrate(
                part, embedder=embedder, method="means", n_clusters=4, top_p=1, beta=9.0,
                surface_weight=weight,
            ),
            embedder=embedder,
        )
        for weight in (0.0, 0.5)
    ]  # fmt: skip
    with_none, with_some = (evaluate(router, outcomes, calibration=part) for router in routers)
    assert routers[0].dim != routers[1].dim
    assert with_some.knn.accuracy == pytest.approx(with_none.knn.accuracy, abs=0.01)
    assert with_some.calibration.n_shared_texts >= 120


def test_the_same_evaluation_each_time(outcomes, artifact):
    router = Router.from_artifact(artifact)
    first, second = (evaluate(router, outcomes, calibration=outcomes).to_json() for _ in range(2))
    assert first == second
