"""Metrics of a router as they are published: measured points in, one number or ``None`` out.

A point is a mean cost (USD a query) and an accuracy (0..1) of one operating point, such as one willingness to
pay. What cannot be known is ``None``, never 0.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

ARENA_BETA = 0.1
ARENA_DEAREST = 200.0
ARENA_CHEAPEST = 0.0044
"""Weight of the cost, and its range in USD per 1,000 queries, of RouterArena."""

_NEARLY = 1e-12


def headroom_captured(router: float | None, best_single: float | None, oracle: float | None) -> float | None:
    """``(router - best single) / (oracle - best single)``, accuracies; ``None`` where there is no headroom.

    The performance gap recovered of RouteLLM (arXiv 2406.18665) with the best single model as the weak
    and the oracle as the strong one. Below zero where the router is worse than the best single model.

    Examples
    --------
    >>> headroom_captured(0.7, 0.6, 0.8)
    0.5
    """
    if router is None or best_single is None or oracle is None or oracle <= best_single:
        return None
    return _rounded((router - best_single) / (oracle - best_single))


def non_decreasing_hull(points: ArrayLike) -> NDArray[np.float64]:
    """Vertices of the non-decreasing convex hull of points, by ascending cost.

    The upper hull over mixtures of the points (a query goes to one of two by chance), without the part behind
    the highest accuracy: RouterBench, arXiv 2403.12031, section 3.2.

    Parameters
    ----------
    points
        ``[n, 2]``: mean cost and accuracy, at least one.

    Returns
    -------
    NDArray[np.float64]
        ``[≤ n, 2]``; cost and accuracy both strictly ascending.

    Examples
    --------
    >>> non_decreasing_hull([(1, 0.5), (2, 0.5), (3, 0.9), (4, 0.8)]).tolist()
    [[1.0, 0.5], [3.0, 0.9]]
    """
    table = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    hull: list[tuple[float, float]] = []
    for cost, accuracy in table[np.lexsort((-table[:, 1], table[:, 0]))].tolist():
        if hull and accuracy <= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], (cost, accuracy)):
            hull.pop()
        hull.append((cost, accuracy))
    return np.array(hull, dtype=np.float64).reshape(-1, 2)


def aiq(points: Sequence[tuple[float, float]], cost_range: tuple[float, float] | None) -> float | None:
    """Average improvement in quality: mean height of the non-decreasing convex hull over a range of costs.

    ``1 / (c_max - c_min) · ∫ hull(c) dc`` from ``c_min`` to ``c_max``: RouterBench, arXiv 2403.12031, section
    3.2. Beyond its dearest point the hull is level; below its cheapest it comes down to the null router that
    costs nothing and answers nothing, ``(0, 0)``.

    Parameters
    ----------
    points
        Mean cost and accuracy of each operating point.
    cost_range
        ``c_min, c_max``: mean cost of the cheapest and the dearest single model.

    Returns
    -------
    float | None
        0..1; ``None`` without points or without a range.

    Examples
    --------
    >>> aiq([(1.0, 0.6), (2.0, 0.6)], (1.0, 2.0))
    0.6
    """
    if not points or cost_range is None:
        return None
    low, high = cost_range
    hull = non_decreasing_hull([(0.0, 0.0), *points])
    if high <= low:
        return float(np.interp(low, hull[:, 0], hull[:, 1]))
    inside = hull[(hull[:, 0] > low) & (hull[:, 0] < high), 0]
    costs = np.concatenate([[low], inside, [high]])
    area = np.trapezoid(np.interp(costs, hull[:, 0], hull[:, 1]), costs)
    return _rounded(float(area) / (high - low))


def apgr(points: Sequence[tuple[float, float]], *, weak: float | None, strong: float | None) -> float | None:
    """Average performance gap recovered between a weak and a strong model.

    ``PGR(x) = (accuracy(x) - weak) / (strong - weak)``, averaged over the share ``x`` from 0 to 1: RouteLLM,
    arXiv 2406.18665 (whose ten steps are here the integral, as in its public code). 0.5 is what mixing
    the two models by chance reaches; above 1 a router beats the strong model on average.

    Parameters
    ----------
    points
        Share given to the strong model and accuracy of each operating point. Between points the accuracy is
        interpolated, from share 0 it starts at the weak model, behind the last point it is level.
    weak, strong
        Accuracies of the two models alone.

    Returns
    -------
    float | None
        ``None`` without points, or where the strong model is not better.

    Examples
    --------
    >>> apgr([(0.0, 0.4), (1.0, 0.8)], weak=0.4, strong=0.8)
    0.5
    """
    curve = _recovered_curve(points, weak, strong)
    return None if curve is None else _rounded(float(np.trapezoid(curve[:, 1], curve[:, 0])))


def cpt(
    points: Sequence[tuple[float, float]], recovered: float, *, weak: float | None, strong: float | None
) -> float | None:
    """Call-performance threshold: least share of the strong model that recovers so much of the gap.

    The lowest ``x`` with ``PGR(x) ≥ recovered``: CPT(50 %) and CPT(80 %) of RouteLLM, arXiv 2406.18665,
    on the curve of :func:`apgr`.

    Parameters
    ----------
    points, weak, strong
        As of :func:`apgr`.
    recovered
        Wanted share of the gap, above 0.

    Returns
    -------
    float | None
        0..1; ``None`` where the router never gets there within share 1.

    Examples
    --------
    >>> cpt([(0.0, 0.4), (1.0, 0.8)], 0.5, weak=0.4, strong=0.8)
    0.5
    """
    curve = _recovered_curve(points, weak, strong)
    if curve is None:
        return None
    there = np.flatnonzero(curve[:, 1] >= recovered - _NEARLY)
    if len(there) == 0:
        return None
    last = int(there[0])
    if last == 0:
        return float(curve[0, 0])
    (x0, y0), (x1, y1) = curve[last - 1], curve[last]
    return _rounded(float(x0 + (x1 - x0) * (recovered - y0) / (y1 - y0)))


def perf_gain(accuracies: Iterable[float], best_single: float | None) -> float | None:
    """``(highest accuracy of any operating point - best single) / best single``.

    PerfGain of LLMRouterBench, arXiv 2601.07206. The operating point is picked on the data it is measured on,
    so that many points on few queries flatter.

    Examples
    --------
    >>> perf_gain([0.5, 0.66], 0.6)
    0.1
    """
    highest = max(accuracies, default=None)
    if highest is None or not best_single:
        return None
    return _rounded(highest / best_single - 1)


def cost_save(
    points: Sequence[tuple[float, float]], *, accuracy: float | None, mean_cost_usd: float | None
) -> float | None:
    """``1 - (lowest cost that reaches the best single model's accuracy) / (best single model's cost)``.

    CostSave of LLMRouterBench, arXiv 2601.07206; below zero where the router needs more.

    Parameters
    ----------
    points
        Mean cost and accuracy of each operating point.
    accuracy, mean_cost_usd
        Of the best single model.

    Returns
    -------
    float | None
        ``None`` where no point reaches the accuracy, or the best single model is free or of unknown cost.

    Examples
    --------
    >>> cost_save([(0.002, 0.6), (0.004, 0.7)], accuracy=0.6, mean_cost_usd=0.008)
    0.75
    """
    if accuracy is None or not mean_cost_usd:
        return None
    costs = [cost for cost, reached in points if reached >= accuracy - _NEARLY]
    return _rounded(1 - min(costs) / mean_cost_usd) if costs else None


def pareto_dist(points: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> float | None:
    """Mean distance of a router's operating points to the common Pareto frontier; 0 is best.

    ParetoDist of LLMRouterBench, arXiv 2601.07206, which leaves the scale open. Here cost and accuracy are
    each scaled to 0..1 by their lowest and highest value over all points (min-max), and the distance is the
    Euclidean one to the nearest point that no other point beats (cheaper and at least as accurate, or more
    accurate and not dearer).

    Parameters
    ----------
    points
        Mean cost and accuracy of the router's operating points.
    others
        Those of what it is compared with: the single models.

    Examples
    --------
    >>> pareto_dist([(1.0, 1.0)], [(0.0, 0.0), (1.0, 0.5)])
    0.0
    """
    if not points:
        return None
    table = np.array([*points, *others], dtype=np.float64)
    spread = np.ptp(table, axis=0)
    scaled = (table - table.min(axis=0)) / np.where(spread > 0, spread, 1)
    frontier = scaled[on_pareto_frontier(scaled)]
    apart = scaled[: len(points), None, :] - frontier[None, :, :]
    return _rounded(float(np.sqrt((apart**2).sum(axis=2)).min(axis=1).mean()))


def on_pareto_frontier(points: ArrayLike) -> NDArray[np.bool_]:
    """Whether no other point is as cheap and as accurate, and better in one; points ``[n, 2]`` as above."""
    table = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    cost, accuracy = table[:, 0], table[:, 1]
    no_worse = (cost[None, :] <= cost[:, None]) & (accuracy[None, :] >= accuracy[:, None])
    better = (cost[None, :] < cost[:, None]) | (accuracy[None, :] > accuracy[:, None])
    return np.asarray(~(no_worse & better).any(axis=1))


def arena(accuracy: float | None, mean_cost_usd: float | None) -> float | None:
    """Arena score of RouterArena, arXiv 2510.00202.

    ``C = (log2 200 - log2 c) / (log2 200 - log2 0.0044)`` with ``c`` in USD per 1,000 queries, held within
    0..1, and ``S = 1.1 · A · C / (0.1 · A + C)``.

    Parameters
    ----------
    accuracy
        ``A``, 0..1.
    mean_cost_usd
        USD a query.

    Examples
    --------
    >>> round(arena(0.6809, 0.54 / 1000), 3)  # an entry of the public leaderboard: 66.66 %
    0.667
    """
    if accuracy is None or mean_cost_usd is None:
        return None
    cost = min(max(1000 * mean_cost_usd, ARENA_CHEAPEST), ARENA_DEAREST)
    cheapness = math.log2(ARENA_DEAREST / cost) / math.log2(ARENA_DEAREST / ARENA_CHEAPEST)
    weighed = ARENA_BETA * accuracy + cheapness
    return _rounded((1 + ARENA_BETA) * accuracy * cheapness / weighed) if weighed > 0 else 0.0


def macro(values: Mapping[str, float | None]) -> float | None:
    """Mean over datasets, each of the same weight; ``None`` without any known value."""
    known = [value for value in values.values() if value is not None]
    return math.fsum(known) / len(known) if known else None


def _recovered_curve(
    points: Sequence[tuple[float, float]], weak: float | None, strong: float | None
) -> NDArray[np.float64] | None:
    """Share and performance gap recovered from share 0 to 1, ``[n, 2]``."""
    if not points or weak is None or strong is None or strong <= weak:
        return None
    best: dict[float, float] = {}
    for share, accuracy in points:
        best[share] = max(accuracy, best.get(share, 0.0))
    if min(best) > 0:
        best[0.0] = weak
    shares = np.array(sorted(best))
    recovered = (np.array([best[share] for share in shares]) - weak) / (strong - weak)
    grid = np.concatenate([[0.0], shares[(shares > 0) & (shares < 1)], [1.0]])
    return np.column_stack([grid, np.interp(grid, shares, recovered)])


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    across = right[0] - left[0]
    return (right[1] - left[1]) / across if across > 0 else math.inf


def _rounded(value: float) -> float:
    """Without the noise of the last bits, so that 0.1 reads 0.1."""
    return round(value, 12)
