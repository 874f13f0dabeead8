"""What more outcomes would give: the router's gain by number of queries, and a line beyond the last.

``gain(n) = a - b / n^c`` is fitted to the measured points by least squares, with the `c` of `EXPONENTS` that
fits best, in each draw anew: what choosing by means of n outcomes loses falls with a power of n, fast where
few clusters are soon known, slowly where there is always more to learn. Beyond the rows at hand it is an
extrapolation, and a guess, which figures and texts call so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.diagnose.draws import Estimate

EXPONENTS = (0.25, 0.5, 1.0, 2.0)

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Gain over the best single model of tables that were calibrated on that many queries."""

    n_queries: int
    gain: Estimate


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Measured points, and what the line says of twice the queries.

    Attributes
    ----------
    points
        Measured, ascending.
    doubled
        Extrapolated gain with twice the queries of the data.
    growth
        How much more that is than the line's gain with the queries of the data.
    """

    points: tuple[CurvePoint, ...]
    doubled: CurvePoint
    growth: Estimate


def line_at(n_train: Sequence[float], gains: Values, n_queries: Sequence[float]) -> Values:
    """The fitted line's gains at numbers of queries, ``[n_wanted, n_draws]``.

    Parameters
    ----------
    n_train
        Queries behind each measured point.
    gains
        ``[n_points, n_draws]``.
    n_queries
        Where, ``n_wanted`` of them.

    Examples
    --------
    >>> line_at([100, 400, 1600], np.array([[0.0], [0.05], [0.075]]), [6400]).round(4)
    array([[0.0875]])
    """
    sizes = np.asarray(n_train, dtype=np.float64)
    # Squares count by the queries behind them: early points say least of what follows the last.
    weights = np.sqrt(sizes / sizes.sum())[:, None]
    found = np.empty((len(n_queries), gains.shape[1]))
    least = np.full(gains.shape[1], np.inf)
    for exponent in EXPONENTS:
        design = np.column_stack([np.ones(len(sizes)), -((sizes / sizes[-1]) ** -exponent)])
        line = np.linalg.lstsq(weights * design, weights * gains, rcond=None)[0]
        errors = ((weights * (design @ line - gains)) ** 2).sum(axis=0)
        wanted = (np.asarray(n_queries, dtype=np.float64)[:, None] / sizes[-1]) ** -exponent
        found = np.where(errors < least, line[0] - line[1] * wanted, found)
        least = np.minimum(errors, least)
    return found
