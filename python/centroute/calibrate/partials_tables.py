"""Partial sums of score tables: what the tables, their errors and the frontier follow from."""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.assignment import blend, blended_sums, nearest_clusters, softmax_weights
from centroute.calibrate.frontier import N_FOLDS, NEVER
from centroute.calibrate.partials import Reader, Table
from centroute.calibrate.ridge import NormalEquations, gram_of
from centroute.calibrate.settings import Settings
from centroute.calibrate.shards import EmbeddedShard
from centroute.calibrate.tables import ScoreTables


@dataclass(frozen=True, slots=True, eq=False)
class CellSums:
    """What score tables follow from, by fold, so that the tables of the other folds do too.

    Attributes
    ----------
    totals, counts
        ``sum_i w_ic y_i`` and ``sum_i w_ic`` over the rows where a column was observed, both float64
        ``[N_FOLDS, n_clusters, 2 * n_models]``, scores before costs. For means the weight is 1 in the
        nearest cluster.
    column_totals, column_counts
        ``sum_i y_i`` and the number of observed values, ``[N_FOLDS, 2 * n_models]``.
    groups, grams
        For learned tables: columns that were observed on the same rows, and their ``sum_i w_ic w_id``
        ``[N_FOLDS, n_clusters, n_clusters]``.
    """

    totals: Table
    counts: Table
    column_totals: Table
    column_counts: Table
    groups: tuple[tuple[int, ...], ...]
    grams: tuple[Table, ...]

    def plus(self, other: "CellSums", /) -> "CellSums":
        """Both together: columns are of one group where they are in both."""
        pairs = [
            (columns, mine + theirs)
            for first, mine in zip(self.groups, self.grams, strict=True)
            for second, theirs in zip(other.groups, other.grams, strict=True)
            if (columns := tuple(sorted(set(first) & set(second))))
        ]
        pairs.sort(key=lambda pair: pair[0])
        return CellSums(
            self.totals + other.totals,
            self.counts + other.counts,
            self.column_totals + other.column_totals,
            self.column_counts + other.column_counts,
            tuple(columns for columns, _ in pairs),
            tuple(gram for _, gram in pairs),
        )

    def tables(self, settings: Settings, folds: NDArray[np.bool_]) -> ScoreTables:
        """Tables of the rows in some folds, by a mask ``[N_FOLDS]``."""
        total, count = self.totals[folds].sum(axis=0), self.counts[folds].sum(axis=0)
        column_counts = self.column_counts[folds].sum(axis=0)
        with np.errstate(invalid="ignore"):
            prior = np.where(column_counts > 0, self.column_totals[folds].sum(axis=0) / column_counts, np.nan)
        n_models = total.shape[1] // 2
        strengths = np.repeat([settings.shrinkage, settings.cost_shrinkage], n_models)
        if settings.learned:
            cells = NormalEquations(
                grams=tuple(gram[folds].sum(axis=0) for gram in self.grams),
                groups=tuple(np.array(columns) for columns in self.groups),
                moments=total - np.nan_to_num(prior) * count,
                count=count,
                prior=prior,
            ).solve(strengths)
        else:
            weight = count + strengths
            means = (total + strengths * prior) / np.where(weight > 0, weight, 1.0)
            cells = np.where(weight > 0, means, prior)
        return ScoreTables(
            quality=np.clip(cells[:, :n_models], 0.0, 1.0),
            cost=np.maximum(cells[:, n_models:], 0.0),
            count=count[:, :n_models],
            prior_quality=np.clip(prior[:n_models], 0.0, 1.0),
            prior_cost=prior[n_models:],
        )


@dataclass(frozen=True, slots=True, eq=False)
class SumCells:
    """The job that makes `CellSums` for the settings' kind of tables."""

    reader: Reader
    centroids: NDArray[np.float32]
    settings: Settings

    def __call__(self, shard: EmbeddedShard) -> CellSums:
        """Sum up one shard."""
        n_clusters, n_columns = len(self.centroids), 2 * shard.n_models
        total = CellSums(
            np.zeros((N_FOLDS, n_clusters, n_columns)),
            np.zeros((N_FOLDS, n_clusters, n_columns)),
            np.zeros((N_FOLDS, n_columns)),
            np.zeros((N_FOLDS, n_columns)),
            (tuple(range(n_columns)),),
            (np.zeros((N_FOLDS, n_clusters, n_clusters) if self.settings.learned else (N_FOLDS, 0, 0)),),
        )
        # Means belong wholly to the nearest cluster.
        top_p = min(self.settings.top_p, n_clusters) if self.settings.learned else 1
        for block, rows in self.reader(shard):
            ids, similarities = nearest_clusters(rows, self.centroids, top_p)
            weights = softmax_weights(similarities, self.settings.beta)
            values = np.concatenate([block.scores, block.costs], axis=1)
            total = total.plus(self._of(ids, weights, values, block.folds(N_FOLDS)))
        return total

    def _of(self, ids: NDArray[np.int32], weights: Table, values: Table, folds: NDArray[np.intp]) -> CellSums:
        n_clusters = len(self.centroids)
        known = ~np.isnan(values)
        filled, ones = np.where(known, values, 0.0), known.astype(np.float64)
        groups: dict[bytes, list[int]] = {}
        if self.settings.learned:
            for column, observed in enumerate(known.T):
                groups.setdefault(observed.tobytes(), []).append(column)
        else:
            groups[b""] = list(range(values.shape[1]))
        of_folds = [np.flatnonzero(folds == fold) for fold in range(N_FOLDS)]
        return CellSums(
            np.stack([blended_sums(ids[rows], weights[rows], filled[rows], n_clusters) for rows in of_folds]),
            np.stack([blended_sums(ids[rows], weights[rows], ones[rows], n_clusters) for rows in of_folds]),
            np.stack([filled[rows].sum(axis=0) for rows in of_folds]),
            np.stack([ones[rows].sum(axis=0) for rows in of_folds]),
            tuple(tuple(columns) for columns in groups.values()),
            tuple(
                np.stack(
                    [
                        gram_of(ids[rows], weights[rows], known[rows, columns[0]], n_clusters)
                        for rows in of_folds
                    ]
                )
                if self.settings.learned
                else np.zeros((N_FOLDS, 0, 0))
                for columns in groups.values()
            ),
        )


@dataclass(frozen=True, slots=True, eq=False)
class FitSums:
    """How far tables are from the outcomes that they were fitted to, and what their choices cost and score.

    Attributes
    ----------
    squares, counts
        Of `quality_errors`: weighted squared residuals and weights, ``[n_clusters, n_models]``.
    pooled, n_scores
        Squared residuals and their number by model, ``[n_models]``.
    spent, reached
        By willingness to pay, sums and numbers of what was observed: the cost of what the tables choose, and
        the score of what the tables of the other folds choose, each ``[n_amounts, 2]``.
    """

    squares: Table
    counts: Table
    pooled: Table
    n_scores: Table
    spent: Table
    reached: Table

    def plus(self, other: "FitSums", /) -> "FitSums":
        """Both together."""
        return FitSums(*(getattr(self, name) + getattr(other, name) for name in FitSums.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class SumFit:
    """The job that makes `FitSums`.

    Attributes
    ----------
    quality, cost
        The tables.
    others
        Quality and cost ``[N_FOLDS, n_clusters, n_models]`` of tables that lack one fold each.
    amounts
        Amounts of willingness to pay.
    """

    reader: Reader
    centroids: NDArray[np.float32]
    settings: Settings
    quality: Table
    cost: Table
    others: tuple[Table, Table]
    amounts: Table

    def __call__(self, shard: EmbeddedShard) -> FitSums:
        """Sum up one shard."""
        n_clusters, n_models = self.quality.shape
        total = FitSums(
            np.zeros((n_clusters, n_models)),
            np.zeros((n_clusters, n_models)),
            np.zeros(n_models),
            np.zeros(n_models),
            np.zeros((len(self.amounts), 2)),
            np.zeros((len(self.amounts), 2)),
        )
        top_p = min(self.settings.top_p, n_clusters)
        for block, rows in self.reader(shard):
            ids, similarities = nearest_clusters(rows, self.centroids, top_p)
            weights = softmax_weights(similarities, self.settings.beta)
            quality, cost = blend(ids, weights, self.quality), blend(ids, weights, self.cost)
            known = ~np.isnan(block.scores)
            squares = np.where(known, (np.nan_to_num(block.scores) - quality) ** 2, 0.0)
            unseen = unseen_predictions(ids, weights, block.folds(N_FOLDS), self.others)
            total = total.plus(
                FitSums(
                    blended_sums(ids, weights, squares, n_clusters),
                    blended_sums(ids, weights, known.astype(np.float64), n_clusters),
                    squares.sum(axis=0),
                    known.sum(axis=0).astype(np.float64),
                    along(quality, cost, block.costs, self.amounts),
                    along(*unseen, block.scores.astype(np.float64), self.amounts),
                )
            )
        return total


def unseen_predictions(
    ids: NDArray[np.int32], weights: Table, folds: NDArray[np.intp], others: tuple[Table, Table]
) -> tuple[Table, Table]:
    """Quality and cost ``[n, n_models]`` of each row by the tables that lack its fold."""
    shape = (len(ids), others[0].shape[2])
    quality, cost = np.empty(shape), np.empty(shape)
    for fold in range(len(others[0])):
        rows = folds == fold
        quality[rows] = np.nan_to_num(blend(ids[rows], weights[rows], others[0][fold]), nan=-NEVER)
        cost[rows] = np.nan_to_num(blend(ids[rows], weights[rows], others[1][fold]), nan=NEVER)
    return quality, cost


@numba.njit(cache=True)
def along(quality: Table, cost: Table, observed: Table, amounts: Table) -> Table:
    """Sum and number of the observed values of what each willingness to pay chooses, ``[n_amounts, 2]``."""
    sums = np.zeros((len(amounts), 2))
    for row in range(quality.shape[0]):
        for place in range(len(amounts)):
            chosen, highest = 0, -np.inf
            for model in range(quality.shape[1]):
                utility = amounts[place] * quality[row, model] - cost[row, model]
                if utility > highest:
                    chosen, highest = model, utility
            if not np.isnan(observed[row, chosen]):
                sums[place, 0] += observed[row, chosen]
                sums[place, 1] += 1.0
    return sums
