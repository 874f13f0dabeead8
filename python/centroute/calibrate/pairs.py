"""Thresholds between any two models of the pool, for ``Policy(strong=…, weak=…, strong_share=…)``.

A query goes to the strong model of a pair when its predicted quality leads by more than a threshold
(RouteLLM, arXiv 2406.18665). For a grid of shares the threshold is the quantile of the leads that the
artifact's own tables predict on the calibration queries. The accuracy promised there is that of
cross-fitting: tables look better on rows that they have seen.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.frontier import Predicted

N_POINTS = 21
"""Points of a curve: shares 0, 0.05, …, 1."""
MAX_MODELS = 64
"""Larger pools keep no curves: their number grows with the square of the pool's."""


def pair_curves(
    own: Predicted,
    unseen: Predicted,
    scores: NDArray[np.floating],
    costs: NDArray[np.floating],
    prior_quality: NDArray[np.floating],
) -> NDArray[np.float32] | None:
    """Measure every pair of models.

    Parameters
    ----------
    own, unseen
        Predicted quality and cost ``[n, n_models]``, by the artifact and by tables that lack the row.
    scores, costs
        Outcomes ``[n, n_models]``, NaN where not observed; a cost in USD.
    prior_quality
        ``[n_models]``; the higher one of a pair is strong.

    Returns
    -------
    NDArray[np.float32] | None
        ``[n_pairs, N_POINTS, 6]``: threshold, share of the calibration queries above it, accuracy, its
        standard error, that of the part of the gap between the two that is recovered (NaN where the strong
        one is not better), mean cost in USD. Pairs as ``itertools.combinations`` gives them; NaN where no
        query was answered by both, and for costs where one is unknown. None without two models or beyond
        `MAX_MODELS`.
    """
    n_models = scores.shape[1]
    if not 2 <= n_models <= MAX_MODELS:
        return None
    curves = []
    for first, second in combinations(range(n_models), 2):
        strong, weak = (first, second) if prior_quality[first] > prior_quality[second] else (second, first)
        both = ~np.isnan(scores[:, [strong, weak]]).any(axis=1)
        curves.append(
            _curve(
                own[0][both, strong] - own[0][both, weak],
                unseen[0][both, strong] - unseen[0][both, weak],
                scores[both][:, [strong, weak]],
                costs[both][:, [strong, weak]],
            )
        )
    return np.array(curves, dtype=np.float32)


def _curve(
    own_lead: NDArray[np.float64],
    unseen_lead: NDArray[np.float64],
    scores: NDArray[np.floating],
    costs: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Points ``[N_POINTS, 6]``; scores and costs ``[n, 2]`` of the strong and the weak model."""
    n_rows = len(scores)
    if n_rows == 0:
        return np.full((N_POINTS, 6), np.nan)
    # The last shares of the grid lie below the lowest lead, so that its queries are among those above.
    shares = np.linspace(0.0, 1.0, N_POINTS)
    thresholds = np.quantile(own_lead, 1.0 - shares)
    thresholds[-1] = np.nextafter(np.float32(thresholds[-1]), np.float32(-1))
    reached = (own_lead[None, :] > thresholds[:, None]).mean(axis=1)
    # As many queries as the artifact's own threshold lets through, by the leads of the other tables.
    order = np.argsort(-unseen_lead, kind="stable")
    n_strong = np.rint(reached * n_rows).astype(int)
    points = np.empty((N_POINTS, 6))
    for place, count in enumerate(n_strong):
        is_strong = np.zeros(n_rows, dtype=np.bool_)
        is_strong[order[:count]] = True
        points[place] = (thresholds[place], reached[place], *curve_point(is_strong, scores, costs))
    points[:, 0] = np.clip(points[:, 0], -1, 1)
    # A cost is known along the whole curve or not at all.
    if np.isnan(points[:, -1]).any():
        points[:, -1] = np.nan
    return points


def curve_point(
    is_strong: NDArray[np.bool_], scores: NDArray[np.floating], costs: NDArray[np.floating]
) -> tuple[float, float, float, float]:
    """Measure one choice between a strong and a weak model.

    Parameters
    ----------
    is_strong
        Which of the rows the strong model answers, ``[n]``.
    scores, costs
        Of the strong and the weak model, ``[n, 2]``; a cost may be NaN.

    Returns
    -------
    tuple[float, float, float, float]
        Accuracy, its standard error, the standard error of the recovered part of the gap (NaN where there is
        no gap), mean cost in USD.
    """
    strong, weak = scores.T.astype(np.float64)
    chosen = np.where(is_strong, strong, weak)
    return (
        float(chosen.mean()),
        float(chosen.std() / np.sqrt(len(chosen))),
        _recovered_error(chosen, strong, weak),
        _known_mean(np.where(is_strong, *costs.T)),
    )


def _recovered_error(
    chosen: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64]
) -> float:
    """Standard error of ``(chosen - weak) / (strong - weak)``, a ratio of means, by the delta method."""
    gap = strong.mean() - weak.mean()
    if gap <= 0:
        return float("nan")
    recovered = (chosen.mean() - weak.mean()) / gap
    return float((chosen - weak - recovered * (strong - weak)).std() / np.sqrt(len(chosen)) / gap)


def _known_mean(values: NDArray[np.floating]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
