"""Amounts of willingness to pay (USD for one unit of quality) at which decisions change.

For one query a dearer model takes over from a cheaper one at ``(difference in cost) / (difference in
quality)``. Only steps along the hull of the models' points ``(cost, quality)`` ever decide: they are the
exchange rates.
"""

import numba
import numpy as np
from numpy.typing import NDArray

FRONTIER_POINTS = 100
MAX_ROWS = 2048
"""Rows that a grid is derived from; more do not move its quantiles."""


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
