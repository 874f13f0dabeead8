"""The cost–accuracy frontier: what each willingness to pay would score and cost."""

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 2048
"""Rows that a grid is derived from; more do not move its quantiles."""


def willingness_grid(
    quality: NDArray[np.float32], cost: NDArray[np.float32], *, n_points: int = 40
) -> NDArray[np.float32]:
    """Amounts of USD for one unit of quality at which decisions change, ascending.

    A model takes over from a cheaper one at ``(difference in cost) / (difference in quality)``. The grid
    holds 0 (always the cheapest), quantiles of these rates over all rows and pairs of models, and twice the
    highest (quality first).

    Parameters
    ----------
    quality, cost
        Predictions ``[n, n_models]``, cost in USD a query; no NaN.
    n_points
        At most so many amounts.

    Returns
    -------
    NDArray[np.float32]
        ``[≤ n_points]``, strictly ascending.
    """
    step = max(1, len(quality) // MAX_ROWS)
    quality, cost = quality[::step].astype(np.float64), cost[::step].astype(np.float64)
    better = quality[:, :, None] - quality[:, None, :]
    dearer = cost[:, :, None] - cost[:, None, :]
    trade = (better > 1e-6) & (dearer > 0)
    if not trade.any():
        return np.zeros(1, dtype=np.float32)
    rates = dearer[trade] / better[trade]
    inner = np.quantile(rates, np.linspace(0.0, 1.0, n_points - 2))
    grid = np.concatenate([[0.0], inner, [2.0 * inner[-1]]]).astype(np.float32)
    return np.unique(grid)
