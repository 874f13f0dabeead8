"""Partial sums of what a router reaches on rows that it was not fitted to."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Kernel
from centroute.calibrate.frontier import NEVER
from centroute.calibrate.partials import Reader, Table
from centroute.calibrate.shards import EmbeddedShard

SIMILARITY_BINS = 20_000
"""Equal parts of -1 to 1 in which similarities are counted: quantiles are exact to 1e-4."""


@dataclass(frozen=True, slots=True, eq=False)
class HoldoutSums:
    """What a router reached on rows that it was not fitted to; sums and numbers of observed values.

    Attributes
    ----------
    n_queries
        Rows.
    chosen, oracle, random
        Score, number of scores, cost, number of costs, each ``[4]``: of the router's choice, of the best
        model of each row (the cheapest of the best), and of the mean over the row's models.
    models
        The same of each model, ``[n_models, 4]``.
    shares
        How often each is chosen, ``[n_models]``.
    similarities
        How many rows are how similar to the nearest centroid, ``[SIMILARITY_BINS]``.
    weights
        Sum of the weight of each cluster, ``[n_clusters]``.
    """

    n_queries: int
    chosen: Table
    oracle: Table
    random: Table
    models: Table
    shares: Table
    similarities: NDArray[np.int64]
    weights: Table

    def plus(self, other: "HoldoutSums", /) -> "HoldoutSums":
        """Both together."""
        return HoldoutSums(*(getattr(self, name) + getattr(other, name) for name in HoldoutSums.__slots__))

    def similarity_quantiles(self, shares: Iterable[float]) -> Table:
        """Similarities below which each share of the rows lies; exact to the width of a bin."""
        edges = np.linspace(-1.0, 1.0, SIMILARITY_BINS + 1)
        reached = np.concatenate([[0.0], np.cumsum(self.similarities) / self.similarities.sum()])
        # From the lowest filled bin to the highest one: what is flat is no quantile.
        low, high = np.flatnonzero(self.similarities)[[0, -1]]
        inside = slice(low, high + 2)
        return np.interp(np.fromiter(shares, dtype=np.float64), reached[inside], edges[inside])


@dataclass(frozen=True, slots=True, eq=False)
class SumHoldout:
    """The job that makes `HoldoutSums` of a router.

    Attributes
    ----------
    reader
        Rows, with the router's surface features.
    router
        Bytes of the router file, whose default policy holds.
    """

    reader: Reader
    router: bytes

    def __call__(self, shard: EmbeddedShard) -> HoldoutSums:
        """Sum up one shard."""
        kernel = Kernel(self.router)
        n_clusters, n_models = kernel.n_clusters, len(kernel.models)
        total = HoldoutSums(
            0,
            np.zeros(4),
            np.zeros(4),
            np.zeros(4),
            np.zeros((n_models, 4)),
            np.zeros(n_models),
            np.zeros(SIMILARITY_BINS, dtype=np.int64),
            np.zeros(n_clusters),
        )
        for block, rows in self.reader(shard):
            batch = kernel.route_batch(np.ascontiguousarray(rows), None)
            chosen = batch.model_ids
            scores, costs = block.scores.astype(np.float64), block.costs
            every = np.arange(len(rows))
            best = quality_first(np.where(np.isnan(scores), -np.inf, scores), costs)
            bins = np.clip((batch.similarity + 1.0) * (SIMILARITY_BINS / 2), 0, SIMILARITY_BINS - 1)
            total = total.plus(
                HoldoutSums(
                    len(rows),
                    _observed(scores[every, chosen], costs[every, chosen]),
                    _observed(scores[every, best], costs[every, best]),
                    _observed(_row_means(scores), _row_means(costs)),
                    np.stack([_observed(scores[:, place], costs[:, place]) for place in range(n_models)]),
                    np.bincount(chosen, minlength=n_models).astype(np.float64),
                    np.bincount(bins.astype(np.intp), minlength=SIMILARITY_BINS),
                    np.bincount(
                        batch.cluster_ids.ravel(), batch.cluster_weights.ravel(), minlength=n_clusters
                    ).astype(np.float64),
                )
            )
        return total


def quality_first(quality: Table, cost: Table) -> NDArray[np.intp]:
    """Best model of each row, the cheapest of equals; an unknown cost is dearer than any."""
    is_best = quality >= quality.max(axis=1, keepdims=True)
    return np.asarray(np.where(is_best, np.nan_to_num(cost, nan=NEVER), np.inf).argmin(axis=1))


def _observed(scores: Table, costs: Table) -> Table:
    is_scored, is_priced = ~np.isnan(scores), ~np.isnan(costs)
    return np.array(
        [scores[is_scored].sum(), is_scored.sum(), costs[is_priced].sum(), is_priced.sum()], dtype=np.float64
    )


def _row_means(values: Table) -> Table:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1))
