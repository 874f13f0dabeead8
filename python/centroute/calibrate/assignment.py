"""Soft assignments: rows and centroids in, the ``top_p`` nearest clusters of each row and their weights out.

The kernel's own arithmetic (:func:`centroute._reference.assign`) for many rows at once. Assignments are
sparse, ``[n, top_p]``, and every sum is taken in a fixed order, whatever the number of threads.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.kmeans import ROWS_PER_BLOCK


def nearest_clusters(
    rows: NDArray[np.float32], centroids: NDArray[np.float32], top_p: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids and cosine similarities of the nearest clusters, nearest first, both ``[n, top_p]``.

    Parameters
    ----------
    rows, centroids
        Unit rows ``[n, dim]`` and ``[n_clusters, dim]``.
    top_p
        Clusters of each row, at most ``n_clusters``; the lower id wins a tie.
    """
    ids = np.empty((len(rows), top_p), dtype=np.int32)
    similarities = np.empty((len(rows), top_p), dtype=np.float32)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block = slice(start, start + ROWS_PER_BLOCK)
        _highest(rows[block] @ centroids.T, ids[block], similarities[block])
    return ids, similarities


def softmax_weights(similarities: NDArray[np.float32], beta: float) -> NDArray[np.float64]:
    """Weights in proportion to ``exp(beta * similarity)``, each row summing to one; nearest first in and out.

    Examples
    --------
    >>> softmax_weights(np.array([[0.5, 0.5]], dtype=np.float32), 9.0)
    array([[0.5, 0.5]])
    """
    wide = similarities.astype(np.float64)
    soft = np.exp(beta * (wide - wide[:, :1]))
    return np.asarray(soft / soft.sum(axis=1, keepdims=True))


@numba.njit(cache=True)
def blend(
    ids: NDArray[np.int32], weights: NDArray[np.float64], table: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``sum_c w_c * table[c]`` of each row, float64 ``[n, n_columns]``."""
    blended = np.zeros((ids.shape[0], table.shape[1]))
    for row in range(ids.shape[0]):
        for place in range(ids.shape[1]):
            weight = weights[row, place]
            cells = table[ids[row, place]]
            for column in range(table.shape[1]):
                blended[row, column] += weight * cells[column]
    return blended


@numba.njit(cache=True)
def blended_sums(
    ids: NDArray[np.int32], weights: NDArray[np.float64], values: NDArray[np.float64], n_clusters: int
) -> NDArray[np.float64]:
    """``sum_i w_ic * values_i`` of each cluster, float64 ``[n_clusters, n_columns]``; no NaN in the input."""
    sums = np.zeros((n_clusters, values.shape[1]))
    for row in range(ids.shape[0]):
        for place in range(ids.shape[1]):
            weight = weights[row, place]
            for column in range(values.shape[1]):
                sums[ids[row, place], column] += weight * values[row, column]
    return sums


@numba.njit(cache=True)
def _highest(block: NDArray[np.float32], ids: NDArray[np.int32], similarities: NDArray[np.float32]) -> None:
    """Write each row's highest entries, highest first, by insertion."""
    top_p = ids.shape[1]
    for row in range(block.shape[0]):
        n_held = 0
        for cluster in range(block.shape[1]):
            value = block[row, cluster]
            if n_held == top_p and value <= similarities[row, top_p - 1]:
                continue
            place = min(n_held, top_p - 1)
            while place > 0 and similarities[row, place - 1] < value:
                similarities[row, place] = similarities[row, place - 1]
                ids[row, place] = ids[row, place - 1]
                place -= 1
            similarities[row, place] = value
            ids[row, place] = cluster
            n_held = min(n_held + 1, top_p)
