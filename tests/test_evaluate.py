"""Figures of an evaluation, worked out by hand on a tiny set."""

import json

import numpy as np
import pytest

from centroute import Artifact, DataError, Policy, Router
from centroute.artifact import EmbedderId, PoolModel
from centroute.datasets import Outcomes
from centroute.evaluate import evaluate
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
