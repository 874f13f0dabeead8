"""Learned tables: those whose blends come closest to the outcomes, drawn towards the models' means.

For each model, over the rows ``i`` where its value ``y_i`` was observed, the cells ``t`` minimise

    sum_i (y_i - sum_c w_ic t_c)² + shrinkage * sum_c (t_c - prior)²

with ``w_ic`` the soft assignment that the kernel blends with: ridge regression towards the prior (Hoerl &
Kennard 1970). Where every row belongs wholly to one cluster this is the mean with ``shrinkage``
pseudo-outcomes of :func:`centroute.calibrate.tables.cluster_means`. Sums and solutions are computed in a
fixed order, so that the same outcomes give the same bits on any number of threads.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.assignment import blended_sums
from centroute.calibrate.tables import ScoreTables
from centroute.datasets.observed import observed_means

LEAST_SHRINKAGE = 1e-6
"""Keeps a cell that no row touches at the prior, and the equations solvable."""


@dataclass(frozen=True, slots=True, eq=False)
class NormalEquations:
    """Sums over the rows from which tables of any shrinkage follow.

    Attributes
    ----------
    grams
        ``sum_i w_ic w_id`` ``[n_clusters, n_clusters]`` over the rows where a group of columns was observed.
    groups
        Columns that each of `grams` belongs to: those observed on the same rows.
    moments
        ``sum_i w_ic (y_i - prior)``, ``[n_clusters, n_columns]``.
    count
        ``sum_i w_ic``, the outcomes behind each cell, ``[n_clusters, n_columns]``.
    prior
        Mean of each column, NaN where nothing was observed, ``[n_columns]``.
    """

    grams: tuple[NDArray[np.float64], ...]
    groups: tuple[NDArray[np.intp], ...]
    moments: NDArray[np.float64]
    count: NDArray[np.float64]
    prior: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        ids: NDArray[np.int32],
        weights: NDArray[np.float64],
        values: NDArray[np.floating],
        *,
        n_clusters: int,
    ) -> "NormalEquations":
        """Sum up rows.

        Parameters
        ----------
        ids, weights
            Soft assignment of each row, ``[n, top_p]``.
        values
            ``[n, n_columns]``, NaN where not observed.
        n_clusters
            Number of clusters.
        """
        known = ~np.isnan(values)
        prior = observed_means(values)
        residuals = np.where(known, values - prior, 0.0)
        columns_of: dict[bytes, list[int]] = {}
        for column, observed in enumerate(known.T):
            columns_of.setdefault(observed.tobytes(), []).append(column)
        groups = tuple(np.array(columns) for columns in columns_of.values())
        firsts = [group[0] for group in groups]
        of_groups = blended_sums(ids, weights, known[:, firsts].astype(np.float64), n_clusters)
        count = np.empty((n_clusters, values.shape[1]))
        for place, group in enumerate(groups):
            count[:, group] = of_groups[:, [place]]
        return cls(
            grams=tuple(gram_of(ids, weights, known[:, first], n_clusters) for first in firsts),
            groups=groups,
            moments=blended_sums(ids, weights, residuals, n_clusters),
            count=count,
            prior=prior,
        )

    def solve(self, shrinkage: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Cells ``[n_clusters, n_columns]`` for one shrinkage or one a column; NaN if never observed."""
        cells = np.zeros_like(self.moments)
        strengths = np.broadcast_to(np.maximum(shrinkage, LEAST_SHRINKAGE), cells.shape[1])
        for group, gram in zip(self.groups, self.grams, strict=True):
            if np.isnan(self.prior[group[0]]):
                continue
            for strength in np.unique(strengths[group]):
                columns = group[strengths[group] == strength]
                regular = gram + strength * np.eye(len(gram))
                cells[:, columns] = _solve(regular, np.ascontiguousarray(self.moments[:, columns]))
        return np.asarray(cells + self.prior)


def learned_tables(
    ids: NDArray[np.int32],
    weights: NDArray[np.float64],
    scores: NDArray[np.float32],
    costs: NDArray[np.float64],
    *,
    n_clusters: int,
    shrinkage: float,
    cost_shrinkage: float,
) -> ScoreTables:
    """Tables of scores and costs ``[n, n_models]`` on soft assignments ``[n, top_p]``, in valid ranges.

    The count of a cell is the weight of the outcomes behind it.
    """
    quality = NormalEquations.of(ids, weights, scores, n_clusters=n_clusters)
    cost = NormalEquations.of(ids, weights, costs, n_clusters=n_clusters)
    return ScoreTables(
        quality=np.clip(quality.solve(shrinkage), 0.0, 1.0),
        cost=np.maximum(cost.solve(cost_shrinkage), 0.0),
        count=quality.count,
        prior_quality=np.clip(quality.prior, 0.0, 1.0),
        prior_cost=cost.prior,
    )


@numba.njit(cache=True)
def gram_of(
    ids: NDArray[np.int32], weights: NDArray[np.float64], observed: NDArray[np.bool_], n_clusters: int
) -> NDArray[np.float64]:
    """``sum_i w_ic w_id`` over the observed rows, float64 ``[n_clusters, n_clusters]``."""
    gram = np.zeros((n_clusters, n_clusters))
    for row in range(ids.shape[0]):
        if observed[row]:
            for first in range(ids.shape[1]):
                for second in range(ids.shape[1]):
                    gram[ids[row, first], ids[row, second]] += weights[row, first] * weights[row, second]
    return gram


@numba.njit(cache=True)
def _solve(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solution of ``matrix @ x = right`` by Cholesky's factors; both arguments are overwritten.

    LAPACK's bits depend on the number of threads; these do not.
    """
    n = matrix.shape[0]
    for pivot in range(n):
        root = np.sqrt(matrix[pivot, pivot])
        for column in range(pivot, n):
            matrix[pivot, column] /= root
        for row in range(pivot + 1, n):
            factor = matrix[pivot, row]
            for column in range(row, n):
                matrix[row, column] -= factor * matrix[pivot, column]
    for row in range(n):
        right[row] /= matrix[row, row]
        for below in range(row + 1, n):
            right[below] -= matrix[row, below] * right[row]
    for row in range(n - 1, -1, -1):
        for above in range(row + 1, n):
            right[row] -= matrix[row, above] * right[above]
        right[row] /= matrix[row, row]
    return right
