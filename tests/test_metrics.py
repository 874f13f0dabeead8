"""Metrics against values worked out by hand, and properties that must hold on any points."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from centroute.evaluate import metrics
from centroute.evaluate.resampling import mean_interval, mean_intervals, paired_p_value

# In steps, so that no two values differ by less than the metrics can tell.
amounts = st.integers(10, 100_000).map(lambda value: value / 10_000)
shares = st.integers(0, 10_000).map(lambda value: value / 10_000)
points = st.lists(st.tuples(amounts, shares), min_size=1, max_size=12)
curves = st.lists(st.tuples(shares, shares), min_size=1, max_size=12)
steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# Non-decreasing convex hull and AIQ.


def test_the_hull_by_hand():
    # (2, .5) lies below the line from (1, .4) to (3, .8); (4, .7) is dearer and worse than (3, .8).
    hull = metrics.non_decreasing_hull([(4, 0.7), (3, 0.8), (2, 0.5), (1, 0.4), (1, 0.3)])
    assert hull.tolist() == [[1, 0.4], [3, 0.8]]
    assert metrics.non_decreasing_hull([(1, 0.4), (2, 0.7), (3, 0.8)]).tolist() == [
        [1, 0.4],
        [2, 0.7],
        [3, 0.8],
    ]
    assert metrics.non_decreasing_hull([(2, 0.5)]).tolist() == [[2, 0.5]]


@steady
@given(points)
def test_the_hull_rises_ever_slower_and_lies_above_every_point(some):
    hull = metrics.non_decreasing_hull(some)
    assert (np.diff(hull[:, 0]) > 0).all()
    assert (np.diff(hull[:, 1]) > 0).all()
    slopes = np.diff(hull[:, 1]) / np.diff(hull[:, 0])
    assert (np.diff(slopes) < 0).all()
    for cost, accuracy in some:
        assert np.interp(cost, hull[:, 0], hull[:, 1]) >= accuracy - 1e-9


def test_aiq_by_hand():
    # The hull is .4 at 1 and .8 at 3, level up to 5: (2 · .6 + 2 · .8) / 4.
    assert metrics.aiq([(1, 0.4), (2, 0.5), (3, 0.8)], (1, 5)) == pytest.approx(0.7)
    # Below the cheapest point it comes down to nothing for nothing: (.5 · (.2 + .4) + 2 · .4) / 2.5.
    assert metrics.aiq([(1, 0.4)], (0.5, 3)) == pytest.approx((0.5 * 0.3 + 2 * 0.4) / 2.5)
    # Where the null router and a dear one mixed beat a cheap one, the cheap one is not on the hull.
    assert metrics.aiq([(1, 0.1), (2, 0.8)], (1, 2)) == pytest.approx(0.6)


@steady
@given(shares, amounts, amounts)
def test_aiq_of_a_constant_frontier_is_its_height(height, low, width):
    assert metrics.aiq([(low, height), (low + width, height)], (low, low + width)) == pytest.approx(height)


@steady
@given(points, amounts, amounts)
def test_aiq_lies_between_zero_and_the_best_accuracy_and_grows_with_every_point(some, low, width):
    area = metrics.aiq(some, (low, low + width))
    assert -1e-9 <= area <= max(accuracy for _, accuracy in some) + 1e-9
    assert metrics.aiq([*some, (low, 1.0)], (low, low + width)) >= area - 1e-9


def test_aiq_where_all_models_cost_the_same_is_the_hull_there():
    assert metrics.aiq([(1, 0.4), (3, 0.8)], (2, 2)) == pytest.approx(0.6)
    assert metrics.aiq([(0.0, 0.4)], (0.0, 0.0)) == pytest.approx(0.4)


# APGR and CPT.


def test_apgr_by_hand():
    # Half of the gap is recovered at a quarter of the calls, all of it at three quarters, and it stays there:
    # .25 · .25 + .5 · .75 + .25 · 1.
    curve = [(0.0, 0.2), (0.25, 0.4), (0.75, 0.6)]
    assert metrics.apgr(curve, weak=0.2, strong=0.6) == pytest.approx(0.6875)
    assert metrics.cpt(curve, 0.5, weak=0.2, strong=0.6) == pytest.approx(0.25)
    assert metrics.cpt(curve, 0.8, weak=0.2, strong=0.6) == pytest.approx(0.55)
    assert metrics.cpt(curve, 1.0, weak=0.2, strong=0.6) == pytest.approx(0.75)


def test_weak_alone_strong_alone_and_chance_between_them():
    assert metrics.apgr([(0.0, 0.3)], weak=0.3, strong=0.9) == 0
    assert metrics.apgr([(0.0, 0.9)], weak=0.3, strong=0.9) == 1
    assert metrics.apgr([(0.0, 0.0), (1.0, 1.0)], weak=0.0, strong=1.0) == 0.5
    assert metrics.apgr([(1.0, 1.0)], weak=0.0, strong=1.0) == 0.5, "from share 0 it starts at the weak model"
    assert metrics.cpt([(0.0, 0.9)], 0.8, weak=0.3, strong=0.9) == 0


@steady
@given(curves, st.floats(0.01, 0.5), st.floats(0.51, 1))
def test_cpt_grows_with_what_is_wanted(curve, less, more):
    first, second = (metrics.cpt(curve, wanted, weak=0.2, strong=0.8) for wanted in (less, more))
    if second is not None:
        assert 0 <= first <= second <= 1


@steady
@given(curves)
def test_what_recovers_the_gap_nowhere_has_no_threshold(curve):
    low = [(share, min(accuracy, 0.3)) for share, accuracy in curve]
    assert metrics.cpt(low, 0.5, weak=0.2, strong=0.8) is None


def test_points_dearer_than_the_strong_model_count_up_to_it():
    # The line from (0, 0) to (2, 1) is at a half where the share is 1.
    assert metrics.apgr([(0.0, 0.0), (2.0, 1.0)], weak=0.0, strong=1.0) == pytest.approx(0.25)
    assert metrics.cpt([(0.0, 0.0), (2.0, 1.0)], 0.8, weak=0.0, strong=1.0) is None
    # A share below zero: cheaper than the cheapest single model.
    assert metrics.apgr([(-0.5, 0.5), (0.5, 1.0)], weak=0.0, strong=1.0) == pytest.approx(0.9375)


# PerfGain, CostSave, ParetoDist, arena score.


def test_perf_gain_and_cost_save_by_hand():
    assert metrics.perf_gain([0.4, 0.66, 0.5], 0.6) == pytest.approx(0.1)
    assert metrics.perf_gain([0.3], 0.6) == pytest.approx(-0.5)
    frontier = [(1, 0.5), (2, 0.6), (3, 0.7), (2.5, 0.6)]
    assert metrics.cost_save(frontier, accuracy=0.6, mean_cost_usd=8) == pytest.approx(0.75)
    assert metrics.cost_save(frontier, accuracy=0.7, mean_cost_usd=2) == pytest.approx(-0.5)
    assert metrics.cost_save(frontier, accuracy=0.8, mean_cost_usd=2) is None


def test_pareto_dist_by_hand():
    # Cost 0..4 and accuracy 0..1 are scaled; the frontier is (0, 0), (.25, .5), (1, 1). The first point is
    # on it; the second, (.5, .5), is .25 from (.25, .5).
    others = [(0, 0.0), (1, 0.5), (4, 0.4)]
    assert metrics.pareto_dist([(4, 1.0), (2, 0.5)], others) == pytest.approx(0.125)
    assert metrics.pareto_dist([(4, 1.0)], []) == 0


@steady
@given(points, points)
def test_what_nothing_beats_is_at_distance_zero(some, others):
    distance = metrics.pareto_dist(some, others)
    assert 0 <= distance <= math.sqrt(2)
    on_it = metrics.on_pareto_frontier([*some, *others])[: len(some)]
    assert (distance == 0) == on_it.all()


@pytest.mark.parametrize(
    ("accuracy", "usd_per_thousand", "score"),
    # Of the public leaderboard, whose figures are rounded.
    [(0.7396, 10.02, 0.6432), (0.6809, 0.54, 0.6666), (0.6634, 0.21, 0.6612)],
)
def test_arena_scores_of_the_leaderboard(accuracy, usd_per_thousand, score):
    assert metrics.arena(accuracy, usd_per_thousand / 1000) == pytest.approx(score, abs=2e-4)


def test_arena_by_hand_and_at_its_ends():
    # c at the geometric mean of the range: C = .5; S = 1.1 · .8 · .5 / (.08 + .5).
    middle = math.sqrt(200 * 0.0044) / 1000
    assert metrics.arena(0.8, middle) == pytest.approx(0.44 / 0.58)
    assert metrics.arena(0.8, 0.0) == metrics.arena(0.8, 1e-9) == pytest.approx(1.1 * 0.8 / 1.08)
    assert metrics.arena(0.8, 0.2) == metrics.arena(0.8, 5.0) == 0
    assert metrics.arena(0.0, 5.0) == 0


def test_headroom_and_macro_by_hand():
    assert metrics.headroom_captured(0.65, 0.6, 0.8) == pytest.approx(0.25)
    assert metrics.headroom_captured(0.5, 0.6, 0.8) == pytest.approx(-0.5)
    assert metrics.headroom_captured(0.6, 0.6, 0.6) is None
    assert metrics.macro({"a": 0.5, "b": 1.0, "c": None}) == 0.75
    assert metrics.macro({"a": None}) is None


def test_unknown_is_none_and_never_zero():
    assert metrics.headroom_captured(None, 0.6, 0.8) is None
    assert metrics.aiq([], (0, 1)) is None
    assert metrics.aiq([(1, 0.5)], None) is None
    assert metrics.apgr([], weak=0.1, strong=0.2) is None
    assert metrics.apgr([(0.5, 0.5)], weak=None, strong=0.2) is None
    assert metrics.apgr([(0.5, 0.5)], weak=0.2, strong=0.2) is None
    assert metrics.cpt([(0.5, 0.5)], 0.5, weak=0.3, strong=0.2) is None
    assert metrics.perf_gain([], 0.5) is None
    assert metrics.perf_gain([0.5], None) is None
    assert metrics.perf_gain([0.5], 0.0) is None
    assert metrics.cost_save([(1, 0.5)], accuracy=None, mean_cost_usd=1) is None
    assert metrics.cost_save([(1, 0.5)], accuracy=0.5, mean_cost_usd=None) is None
    assert metrics.cost_save([(1, 0.5)], accuracy=0.5, mean_cost_usd=0.0) is None
    assert metrics.pareto_dist([], [(1, 0.5)]) is None
    assert metrics.arena(None, 0.1) is None
    assert metrics.arena(0.5, None) is None


# Intervals and the paired test.


def test_an_interval_holds_the_mean_and_narrows_with_queries():
    rng = np.random.default_rng(0)
    few, many = (rng.random((n, 1)) < 0.7 for n in (100, 2500))
    (low, high), (lower, higher) = mean_intervals(few * 1.0)[0], mean_intervals(many * 1.0)[0]
    assert low < few.mean() < high
    assert lower < many.mean() < higher
    # Of a share p over n queries the normal interval is 2 · 1.96 · sqrt(p (1 - p) / n) wide.
    assert higher - lower == pytest.approx(2 * 1.96 * math.sqrt(0.7 * 0.3 / 2500), rel=0.15)
    assert high - low > 3 * (higher - lower)


def test_intervals_leave_unknown_values_out():
    column = np.array([0.0, 1.0, np.nan, np.nan])
    known, unknown = mean_intervals(np.column_stack([column, np.full(4, np.nan)]))
    assert known == (0.0, 1.0)
    assert unknown is None
    assert mean_intervals(np.full((5, 1), 0.25)) == [(0.25, 0.25)]
    assert mean_intervals(np.zeros((5, 0))) == []


def test_one_interval_is_that_of_many():
    rng = np.random.default_rng(2)
    for values in ((rng.random(400) < 0.3) * 1.0, rng.random(300), np.r_[rng.random(50), np.full(9, np.nan)]):
        alone, among = mean_interval(values), mean_intervals(values[:, None])[0]
        assert alone == pytest.approx(among, abs=0.1 * (among[1] - among[0]))
    assert mean_interval(np.full(3, np.nan)) is None
    assert mean_interval(np.full(7, 0.25)) == (0.25, 0.25)


def test_many_sizes_are_taken_as_normal():
    rng = np.random.default_rng(3)
    few, many = rng.normal(0.06, 1, 490), rng.normal(0.06, 1, 510)
    for differences in (few, many):
        deviation = abs(differences.sum()) / math.sqrt((differences**2).sum())
        assert paired_p_value(differences) == pytest.approx(math.erfc(deviation / math.sqrt(2)), abs=0.02)


def test_intervals_are_the_same_each_time():
    values = np.random.default_rng(1).random((50, 2))
    assert mean_intervals(values) == mean_intervals(values)
    assert mean_intervals(values) != mean_intervals(values, seed=1)


@pytest.mark.parametrize(
    ("differences", "exact"),
    [
        # Five wins, no loss: two of the 32 sign patterns are as extreme.
        ([1.0] * 5 + [0.0] * 20, 2 / 32),
        # Six wins, two losses: 2 · (1 + 8 + 28) / 256, McNemar's exact test.
        ([1.0] * 6 + [-1.0] * 2, 2 * 37 / 256),
        # Sizes 3, 1 and -1: |±3 ±1 ±1| is at least 3 in 6 of 8 patterns.
        ([3.0, 1.0, -1.0], 6 / 8),
    ],
)
def test_the_paired_test_by_hand(differences, exact):
    assert paired_p_value(np.array(differences)) == pytest.approx(exact, abs=0.015)
    assert paired_p_value(-np.array(differences)) == pytest.approx(exact, abs=0.015)


def test_the_paired_test_at_its_ends():
    assert paired_p_value(np.full(3, np.nan)) is None
    assert paired_p_value(np.zeros(5)) == 1.0
    assert paired_p_value(np.array([1.0, -1.0, np.nan])) == 1.0
    assert paired_p_value(np.ones(100)) == pytest.approx(1e-4)
