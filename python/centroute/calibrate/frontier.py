"""Amounts of willingness to pay (USD for one unit of quality) at which decisions change.

For one query a dearer model takes over from a cheaper one at ``(difference in cost) / (difference in
quality)``. Only steps along the hull of the models' points ``(cost, quality)`` ever decide: they are the
exchange rates.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from centroute.artifact import Artifact
from centroute.calibrate.assignment import blend, nearest_clusters, softmax_weights
from centroute.calibrate.fitting import Part, fit_tables
from centroute.calibrate.settings import Settings
from centroute.calibrate.tables import ScoreTables
from centroute.datasets.observed import observed_means

FRONTIER_POINTS = 100
N_FOLDS = 5
"""Parts of the rows that are predicted by tables of the other parts."""
MAX_ROWS = 2048
"""Rows that a grid is derived from; more do not move its quantiles."""


NEVER = 1e6
"""Stands for a quality and a cost that nobody would choose."""

Predicted = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Quality and cost, two arrays ``[n, n_models]``."""


@numba.njit(cache=True)
def exchange_rates(quality: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """All exchange rates of rows ``[n, n_models]``, row by row, ascending within one; no NaN in the input.

    Examples
    --------
    >>> exchange_rates(np.array([[0.4, 0.8, 0.5]]), np.array([[0.001, 0.005, 0.004]])).round(4)
    array([0.01])
    """
    n_models = quality.shape[1]
    rates = np.empty(quality.shape[0] * max(n_models - 1, 0))
    n_found = 0
    for row in range(quality.shape[0]):
        place = 0
        for model in range(1, n_models):
            if cost[row, model] < cost[row, place] or (
                cost[row, model] == cost[row, place] and quality[row, model] > quality[row, place]
            ):
                place = model
        while True:
            following, lowest = -1, np.inf
            for model in range(n_models):
                better = quality[row, model] - quality[row, place]
                dearer = cost[row, model] - cost[row, place]
                if better > 0 and dearer > 0 and dearer / better < lowest:
                    following, lowest = model, dearer / better
            if following < 0:
                break
            rates[n_found] = lowest
            n_found += 1
            place = following
    return rates[:n_found]


def willingness_amounts(quality: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.float32]:
    """At most `FRONTIER_POINTS` amounts, ascending: 0, quantiles of the exchange rates, twice the highest.

    Parameters
    ----------
    quality, cost
        Predictions ``[n, n_models]``, cost in USD a query; no NaN.
    """
    step = max(1, len(quality) // MAX_ROWS)
    rates = exchange_rates(np.ascontiguousarray(quality[::step]), np.ascontiguousarray(cost[::step]))
    if len(rates) == 0:
        return np.zeros(1, dtype=np.float32)
    inner = np.quantile(rates, np.linspace(0.0, 1.0, FRONTIER_POINTS - 2))
    return np.unique(np.concatenate([[0.0], inner, [2.0 * inner[-1]]]).astype(np.float32))


def fitted_frontier(
    own: Predicted, unseen: Predicted, scores: NDArray[np.floating], costs: NDArray[np.floating]
) -> NDArray[np.float32]:
    """What each willingness to pay costs and scores with an artifact that was fitted to these rows.

    The score is that of cross-fitting: each fold chooses by tables of the other folds, since tables look
    better on rows that they have seen. The cost is what the artifact's own choices cost on these rows: where
    the pool's models change places depends on the tables to the last digit, and other tables, even of most of
    the same rows, spend up to a quarter more or less at the same willingness.

    Parameters
    ----------
    own
        What the artifact predicts for its rows, as `predict` gives it.
    unseen
        What tables predict that lack the row, as `cross_fitted` gives it.
    scores, costs
        Outcomes ``[n, n_models]``, NaN where not observed; a cost in USD.

    Returns
    -------
    NDArray[np.float32]
        Rows (willingness to pay, accuracy, mean cost in USD), willingness and cost ascending,
        ``[n_points, 3]``; none where a model's cost is unknown.
    """
    if np.isnan(own[1]).any():
        return np.zeros((0, 3), dtype=np.float32)
    rows = np.arange(len(scores))
    points = []
    for amount in willingness_amounts(*own).tolist():
        spent = costs[rows, _choose(own, amount)]
        reached = scores[rows, _choose(unseen, amount)]
        points.append((amount, _mean(reached), _mean(spent)))
    return level(np.array(points))


def cross_fitted(part: Part, settings: Settings, *, seed: int) -> Predicted:
    """Predictions of each fold by tables of the others; a model that these lack is not worth choosing."""
    quality = np.full(part.outcomes.scores.shape, -NEVER)
    cost = np.full(part.outcomes.costs.shape, NEVER)
    folds = part.folds(N_FOLDS, seed=seed)
    for fold in range(N_FOLDS):
        inside, outside = folds != fold, folds == fold
        if inside.any() and outside.any():
            rest = part.subset(inside)
            surface = rest.surface(settings.surface_weight)
            centroids, tables = fit_tables(
                rest.routed(surface), rest.outcomes, settings, seed=seed, n_restarts=1, allow_fewer=True
            )
            predicted = predict(part.subset(outside).routed(surface), centroids, tables, settings)
            quality[outside] = np.nan_to_num(predicted[0], nan=-NEVER)
            cost[outside] = np.nan_to_num(predicted[1], nan=NEVER)
    return quality, cost


def predict(
    rows: NDArray[np.float32],
    centroids: NDArray[np.float32],
    tables: Artifact | ScoreTables,
    settings: Settings,
) -> Predicted:
    """Quality and cost that tables predict for rows ``[n, width]``; NaN for a cost that is unknown."""
    ids, similarities = nearest_clusters(rows, centroids, min(settings.top_p, len(centroids)))
    weights = softmax_weights(similarities, settings.beta)
    return (
        blend(ids, weights, tables.quality.astype(np.float64)),
        blend(ids, weights, tables.cost.astype(np.float64)),
    )


def _choose(predicted: Predicted, amount: float) -> NDArray[np.intp]:
    return np.asarray((amount * predicted[0] - predicted[1]).argmax(axis=1))


def _mean(values: NDArray[np.floating]) -> float:
    return float(observed_means(values[:, None])[0])


def level(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows (willingness to pay, accuracy, mean cost) with the mean cost ascending, without unknown ones.

    Predicted mean cost can only rise with the willingness; the noise of measured ones is levelled from both
    sides.
    """
    table = points.reshape(-1, 3)
    table = table[~np.isnan(table).any(axis=1)]
    if len(table):
        rising = np.maximum.accumulate(table[:, 2])
        falling = np.minimum.accumulate(table[::-1, 2])[::-1]
        table[:, 2] = (rising + falling) / 2
    return table.astype(np.float32)
