"""Score tables: outcomes and cluster labels in, quality, cost and counts per cluster and model out.

Pairs that were not observed are left out of every sum; a cell without any takes the model's prior.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.datasets.observed import observed_means


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTables:
    """What calibration knows about every cluster and model.

    Attributes
    ----------
    quality, cost
        float64 ``[n_clusters, n_models]``; cost in USD a query, a whole column NaN where unknown.
    count
        Number of observed scores behind each cell, float64 ``[n_clusters, n_models]``.
    prior_quality, prior_cost
        Means over all observed pairs, float64 ``[n_models]``.
    """

    quality: NDArray[np.float64]
    cost: NDArray[np.float64]
    count: NDArray[np.float64]
    prior_quality: NDArray[np.float64]
    prior_cost: NDArray[np.float64]


def cluster_means(
    labels: NDArray[np.int32],
    values: NDArray[np.floating],
    *,
    n_clusters: int,
    shrinkage: float | NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean of each cell's known values, drawn towards the column's mean by ``shrinkage`` pseudo-outcomes.

    Parameters
    ----------
    labels
        Cluster of each row, int32 ``[n]``.
    values
        ``[n, n_models]``, NaN where not observed.
    n_clusters
        Number of clusters.
    shrinkage
        Weight of the prior in outcomes, 0 or more, one number or one a column:
        ``(sum + shrinkage * prior) / (count + shrinkage)``.

    Returns
    -------
    means, count, prior
        ``[n_clusters, n_models]`` twice and ``[n_models]``. A cell without outcomes holds the prior; a
        column without any holds NaN.
    """
    prior = observed_means(values)
    known = ~np.isnan(values)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(n_clusters + 1))
    total = np.zeros((n_clusters, values.shape[1]))
    count = np.zeros_like(total)
    for cluster in range(n_clusters):
        rows = order[starts[cluster] : starts[cluster + 1]]
        total[cluster] = np.where(known[rows], values[rows], 0.0).sum(axis=0, dtype=np.float64)
        count[cluster] = known[rows].sum(axis=0)
    weight = count + shrinkage
    means = (total + shrinkage * prior) / np.where(weight > 0, weight, 1.0)
    return np.where(weight > 0, means, prior), count, prior


def distinct_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Different rows in the order in which they come first, and which of them each row is."""
    places: dict[bytes, int] = {}
    labels = np.array([places.setdefault(row.tobytes(), len(places)) for row in rows], dtype=np.int32)
    _, firsts = np.unique(labels, return_index=True)
    return np.ascontiguousarray(rows[firsts]), labels


def mean_tables(
    labels: NDArray[np.int32],
    scores: NDArray[np.float32],
    costs: NDArray[np.float64],
    *,
    n_clusters: int,
    shrinkage: float,
    cost_shrinkage: float,
) -> ScoreTables:
    """Per-cluster means of scores and costs; see :func:`cluster_means` for the shapes and the shrinkage."""
    quality, count, prior_quality = cluster_means(labels, scores, n_clusters=n_clusters, shrinkage=shrinkage)
    cost, _, prior_cost = cluster_means(labels, costs, n_clusters=n_clusters, shrinkage=cost_shrinkage)
    return ScoreTables(
        quality=np.clip(quality, 0.0, 1.0),
        cost=cost,
        count=count,
        prior_quality=np.clip(prior_quality, 0.0, 1.0),
        prior_cost=prior_cost,
    )
