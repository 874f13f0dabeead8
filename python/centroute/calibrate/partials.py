"""Partial sums: what a pass over shards takes from each, and how the parts are put together.

Every sum has a job, which a worker runs on one shard after the other (`Job`, a map), and parts that are added
up in the order of the shards (``plus``, a reduce). A part is as large as the tables, never as the rows, so
that neither a worker nor the one that adds holds more than a block of rows. Added in one order, the parts
give the same numbers on any number of workers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.kmeans import nearest, sum_by_label, unit_rows
from centroute.calibrate.shards import Block, EmbeddedShard, Rows
from centroute.datasets.shards import BLOCK_ROWS
from centroute.surface import FEATURE_NAMES, SurfaceFeatures, in_other_letters

N_WORST = 64
"""Rows that fit their cluster worst which a pass keeps, to fill clusters that became empty."""

Table = NDArray[np.float64]


class Partial(Protocol):
    """A part that can be added up."""

    def plus(self, other: Self, /) -> Self:
        """Both together; ``other`` is of later rows."""


P = TypeVar("P", bound=Partial)


@dataclass(frozen=True, slots=True)
class Reader:
    """Rows of a shard as they are routed.

    Attributes
    ----------
    rows, holdout
        Which rows, as of `EmbeddedShard.blocks`.
    surface
        Surface features behind the embeddings, None for none.
    """

    rows: Rows
    holdout: float
    surface: SurfaceFeatures | None = None

    def __call__(self, shard: EmbeddedShard) -> Iterator[tuple[Block, NDArray[np.float32]]]:
        """Blocks, and their rows to route ``[n, width]``."""
        for block in shard.blocks(self.rows, self.holdout, n_rows=BLOCK_ROWS):
            yield block, routed(block, self.surface)


def added(parts: Iterable[P]) -> P | None:
    """All parts together; None without any."""
    total: P | None = None
    for part in parts:
        total = part if total is None else total.plus(part)
    return total


def routed(block: Block, surface: SurfaceFeatures | None) -> NDArray[np.float32]:
    """Rows to route: those of `SurfaceFeatures.append`, some fifty times as fast as there.

    Every pass over the shards computes them anew.
    """
    if surface is None:
        return block.embeddings
    return _with_features(
        block.embeddings,
        np.ascontiguousarray(block.features[:, : len(surface.mean)]),
        surface.weight,
        np.array(surface.mean),
        np.array(surface.scale),
    )


@dataclass(frozen=True, slots=True, eq=False)
class RowSums:
    """How many rows there are, and what their surface features are like.

    Attributes
    ----------
    count
        Rows.
    n_scores
        Observed scores of each model, ``[n_models]``.
    total, squares, lowest, highest
        Of the surface features: sums, sums of squares, lowest and highest values, each ``[20]``.
    n_in_other_letters
        Rows of texts in other letters than those of ASCII.
    """

    count: int
    n_scores: NDArray[np.int64]
    total: Table
    squares: Table
    lowest: Table
    highest: Table
    n_in_other_letters: int

    def plus(self, other: "RowSums", /) -> "RowSums":
        """Both together."""
        return RowSums(
            self.count + other.count,
            self.n_scores + other.n_scores,
            self.total + other.total,
            self.squares + other.squares,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
            self.n_in_other_letters + other.n_in_other_letters,
        )

    def surface(self, weight: float) -> SurfaceFeatures | None:
        """The features with the statistics of these rows, as `SurfaceFeatures.fit` gives them."""
        if not weight:
            return None
        mean = self.total / self.count
        spread = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0.0))
        return SurfaceFeatures.from_moments(
            mean,
            np.where(self.highest > self.lowest, spread, 0.0),
            share_in_other_letters=self.n_in_other_letters / self.count,
            weight=weight,
        )


@dataclass(frozen=True, slots=True)
class SumRows:
    """The job that makes `RowSums`."""

    reader: Reader

    def __call__(self, shard: EmbeddedShard) -> RowSums:
        """Sum up one shard."""
        width = len(FEATURE_NAMES)
        total = RowSums(
            0,
            np.zeros(shard.n_models, dtype=np.int64),
            np.zeros(width),
            np.zeros(width),
            np.full(width, np.inf),
            np.full(width, -np.inf),
            0,
        )
        for block, _ in self.reader(shard):
            features = block.features.astype(np.float64)
            total = total.plus(
                RowSums(
                    len(features),
                    (~np.isnan(block.scores)).sum(axis=0),
                    features.sum(axis=0),
                    (features**2).sum(axis=0),
                    features.min(axis=0),
                    features.max(axis=0),
                    int(in_other_letters(block.features).sum()),
                )
            )
        return total


@dataclass(frozen=True, slots=True, eq=False)
class ClusterSums:
    """What one step of k-means needs of rows.

    Attributes
    ----------
    sums, counts
        Sum of the rows nearest to each centroid, float64 ``[n_clusters, width]``, and their number.
    similarity
        Sum of their cosine similarities.
    worst_rows, worst_similarities, worst_labels
        Of the rows that fit their cluster worst, worst first, at most `N_WORST`.
    """

    sums: Table
    counts: NDArray[np.int64]
    similarity: float
    worst_rows: NDArray[np.float32]
    worst_similarities: NDArray[np.float32]
    worst_labels: NDArray[np.int32]

    @property
    def mean_similarity(self) -> float:
        """What k-means maximises."""
        return self.similarity / max(int(self.counts.sum()), 1)

    def plus(self, other: "ClusterSums", /) -> "ClusterSums":
        """Both together."""
        similarities = np.concatenate([self.worst_similarities, other.worst_similarities])
        worst = np.argsort(similarities, kind="stable")[:N_WORST]
        return ClusterSums(
            self.sums + other.sums,
            self.counts + other.counts,
            self.similarity + other.similarity,
            np.concatenate([self.worst_rows, other.worst_rows])[worst],
            similarities[worst],
            np.concatenate([self.worst_labels, other.worst_labels])[worst],
        )

    def step(self, centroids: NDArray[np.float32]) -> NDArray[np.float32]:
        """Centroids after one step: as in memory, an empty cluster gets the row that fits its own worst."""
        sums, counts = self.sums.copy(), self.counts.copy()
        taken = np.zeros(len(self.worst_labels), dtype=np.bool_)
        for cluster in np.flatnonzero(counts == 0):
            free = np.flatnonzero(~taken & (counts[self.worst_labels] > 1))
            if not len(free):
                break
            row, label = self.worst_rows[free[0]].astype(np.float64), self.worst_labels[free[0]]
            taken[free[0]] = True
            sums[label] -= row
            counts[label] -= 1
            sums[cluster] += row
            counts[cluster] = 1
        return unit_rows(sums, centroids)


@dataclass(frozen=True, slots=True, eq=False)
class SumClusters:
    """The job that makes `ClusterSums` of the rows nearest to ``centroids``."""

    reader: Reader
    centroids: NDArray[np.float32]

    def __call__(self, shard: EmbeddedShard) -> ClusterSums:
        """Sum up one shard."""
        n_clusters, width = self.centroids.shape
        total = ClusterSums(
            np.zeros((n_clusters, width)),
            np.zeros(n_clusters, dtype=np.int64),
            0.0,
            np.zeros((0, width), dtype=np.float32),
            np.zeros(0, dtype=np.float32),
            np.zeros(0, dtype=np.int32),
        )
        for _, rows in self.reader(shard):
            labels, similarities = nearest(rows, self.centroids)
            worst = np.argsort(similarities, kind="stable")[:N_WORST]
            total = total.plus(
                ClusterSums(
                    sum_by_label(rows, labels, n_clusters),
                    np.bincount(labels, minlength=n_clusters),
                    float(similarities.sum(dtype=np.float64)),
                    rows[worst],
                    similarities[worst],
                    labels[worst],
                )
            )
        return total


@numba.njit(cache=True)
def _with_features(
    embeddings: NDArray[np.float32], features: NDArray[np.float32], weight: float, mean: Table, scale: Table
) -> NDArray[np.float32]:
    dim, n_features = embeddings.shape[1], features.shape[1]
    rows = np.empty((embeddings.shape[0], dim + n_features), dtype=np.float32)
    behind = np.empty(n_features)
    for row in range(embeddings.shape[0]):
        total = 0.0
        for column in range(dim):
            total += np.float64(embeddings[row, column]) ** 2
        for column in range(n_features):
            standardised = (np.float64(features[row, column]) - mean[column]) / scale[column]
            behind[column] = weight * min(max(standardised, -4.0), 4.0)
            total += behind[column] ** 2
        norm = np.sqrt(total)
        for column in range(dim):
            rows[row, column] = embeddings[row, column] / norm
        for column in range(n_features):
            rows[row, dim + column] = behind[column] / norm
    return rows
