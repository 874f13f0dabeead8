"""Spherical k-means: unit rows ``[n, dim]`` in, unit centroids ``[n_clusters, dim]`` out.

Maximises the mean cosine similarity of rows to their centroid (Dhillon & Modha 2001), seeded by k-means++
(Arthur & Vassilvitskii 2007) on ``1 - cosine``, the best of several restarts. The same seed gives the same
result: every sum is taken in a fixed order.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from centroute.errors import DataError

ROWS_PER_BLOCK = 1024
"""Rows compared with all centroids at once: bounds memory to this many similarities a cluster."""
MAX_ITERATIONS = 50
TOLERANCE = 1e-5
"""Growth of the mean similarity below which another iteration is not worth it."""


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """Result of :func:`spherical_kmeans`.

    Attributes
    ----------
    centroids
        Unit rows float32 ``[n_clusters, dim]``, largest cluster first.
    labels
        Nearest centroid of each row, int32 ``[n]``.
    similarities
        Cosine similarity of each row to it, float32 ``[n]``.
    n_iterations
        Iterations of the restart that was kept.
    """

    centroids: NDArray[np.float32]
    labels: NDArray[np.int32]
    similarities: NDArray[np.float32]
    n_iterations: int

    @property
    def mean_similarity(self) -> float:
        """What the algorithm maximises."""
        return float(self.similarities.mean(dtype=np.float64))


def spherical_kmeans(
    rows: NDArray[np.float32],
    *,
    n_clusters: int,
    seed: int,
    n_restarts: int = 4,
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = TOLERANCE,
    allow_fewer: bool = False,
) -> Clustering:
    """Cluster unit rows by cosine similarity.

    Parameters
    ----------
    rows
        Unit rows, float32 ``[n, dim]``.
    n_clusters
        At most the number of different rows.
    seed
        Seed of the generator behind all random choices.
    n_restarts
        Seedings to try; the one with the highest mean similarity is kept.
    max_iterations
        Iterations of one restart.
    tolerance
        A restart ends when the mean similarity grows by less than this.
    allow_fewer
        Make as many clusters as there are different rows where these are fewer.

    Raises
    ------
    DataError
        If there are fewer different rows than clusters and ``allow_fewer`` is not set.

    Examples
    --------
    >>> rows = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    >>> spherical_kmeans(rows, n_clusters=2, seed=0).labels.tolist()
    [0, 0, 1]
    """
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    n_distinct = count_distinct(rows)
    if allow_fewer:
        n_clusters = min(n_clusters, n_distinct)
    if n_clusters < 1 or n_clusters > n_distinct:
        raise DataError(f"{n_clusters} clusters cannot be made of {n_distinct} different embeddings")
    best: Clustering | None = None
    for rng in np.random.default_rng(seed).spawn(n_restarts):
        clustering = _restart(rows, n_clusters, rng, max_iterations, tolerance)
        if best is None or clustering.mean_similarity > best.mean_similarity:
            best = clustering
        if n_clusters == 1:
            break
    assert best is not None  # noqa: S101, n_restarts is at least one
    return _largest_first(best)


def count_distinct(rows: NDArray[np.float32]) -> int:
    """Number of different rows."""
    return len({row.tobytes() for row in rows})


def nearest(
    rows: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Label and cosine similarity of the nearest centroid of each row; the lower label wins a tie."""
    labels = np.empty(len(rows), dtype=np.int32)
    similarities = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block = rows[start : start + ROWS_PER_BLOCK] @ centroids.T
        chosen = block.argmax(axis=1)
        labels[start : start + ROWS_PER_BLOCK] = chosen
        similarities[start : start + ROWS_PER_BLOCK] = np.take_along_axis(block, chosen[:, None], axis=1)[
            :, 0
        ]
    return labels, similarities


def _restart(
    rows: NDArray[np.float32],
    n_clusters: int,
    rng: np.random.Generator,
    max_iterations: int,
    tolerance: float,
) -> Clustering:
    centroids = _seed_centroids(rows, n_clusters, rng)
    return refine(rows, centroids, max_iterations=max_iterations, tolerance=tolerance)


def refine(
    rows: NDArray[np.float32], centroids: NDArray[np.float32], *, max_iterations: int, tolerance: float
) -> Clustering:
    """Move centroids to the means of their rows until the mean similarity hardly grows any more.

    The clusters keep the order of ``centroids``; the numbers are those of `spherical_kmeans`.
    """
    n_clusters = len(centroids)
    labels, similarities = nearest(rows, centroids)
    mean = float(similarities.mean(dtype=np.float64))
    n_iterations = 0
    for n_iterations in range(1, max_iterations + 1):  # noqa: B007, reported
        _repair_empty(labels, similarities, n_clusters)
        centroids = unit_rows(sum_by_label(rows, labels, n_clusters), centroids)
        labels, similarities = nearest(rows, centroids)
        before, mean = mean, float(similarities.mean(dtype=np.float64))
        has_empty = np.bincount(labels, minlength=n_clusters).min() == 0
        if mean - before < tolerance and not has_empty:
            break
    return Clustering(centroids, labels, similarities, n_iterations)


def _seed_centroids(
    rows: NDArray[np.float32], n_clusters: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """k-means++: further centroids drawn in proportion to ``1 - cosine`` to the nearest one so far."""
    chosen = [int(rng.integers(len(rows)))]
    distance = np.maximum(1.0 - (rows @ rows[chosen[0]]).astype(np.float64), 0.0)
    while len(chosen) < n_clusters:
        distance[chosen[-1]] = 0.0
        cumulative = np.cumsum(distance)
        if cumulative[-1] <= 0.0:
            # Rounding made every row a copy of a chosen one: any other row will do.
            distance = np.ones(len(rows))
            distance[chosen] = 0.0
            cumulative = np.cumsum(distance)
        draw = rng.random() * cumulative[-1]
        chosen.append(int(min(np.searchsorted(cumulative, draw, side="right"), len(rows) - 1)))
        np.minimum(distance, np.maximum(1.0 - rows @ rows[chosen[-1]], 0.0), out=distance)
    return rows[chosen]


@numba.njit(cache=True)
def sum_by_label(
    rows: NDArray[np.float32], labels: NDArray[np.int32], n_clusters: int
) -> NDArray[np.float64]:
    """Sum of the rows of each cluster, float64 ``[n_clusters, dim]``, in row order."""
    sums = np.zeros((n_clusters, rows.shape[1]))
    for row in range(rows.shape[0]):
        target = sums[labels[row]]
        for column in range(rows.shape[1]):
            target[column] += rows[row, column]
    return sums


@numba.njit(cache=True)
def _repair_empty(labels: NDArray[np.int32], similarities: NDArray[np.float32], n_clusters: int) -> None:
    """Give each empty cluster the row that fits its own cluster worst, in place."""
    sizes = np.zeros(n_clusters, dtype=np.int64)
    for row in range(labels.shape[0]):
        sizes[labels[row]] += 1
    for cluster in range(n_clusters):
        if sizes[cluster] > 0:
            continue
        worst = -1
        for row in range(labels.shape[0]):
            if sizes[labels[row]] > 1 and (worst < 0 or similarities[row] < similarities[worst]):
                worst = row
        if worst < 0:
            return
        sizes[labels[worst]] -= 1
        labels[worst] = cluster
        similarities[worst] = np.float32(1.0)
        sizes[cluster] = 1


def unit_rows(sums: NDArray[np.float64], previous: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to norm one; a sum that vanishes (opposite rows) keeps the previous centroid."""
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    fine = norms > 1e-9
    return np.where(fine, sums / np.where(fine, norms, 1.0), previous).astype(np.float32)


def _largest_first(clustering: Clustering) -> Clustering:
    sizes = np.bincount(clustering.labels, minlength=len(clustering.centroids))
    order = np.argsort(-sizes, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Clustering(
        centroids=np.ascontiguousarray(clustering.centroids[order]),
        labels=place[clustering.labels].astype(np.int32),
        similarities=clustering.similarities,
        n_iterations=clustering.n_iterations,
    )
