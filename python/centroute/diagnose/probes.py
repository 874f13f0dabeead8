"""Probes: what kNN, a linear map, trees and dataset labels tell of which model is better.

A choice depends on differences between models alone, so that all probes predict *residuals*: a score less the
model's mean, less the mean of that over the models of the row. What a query's difficulty does to all models
is out of the way. Every probe returns predictions of its own training rows by what has not seen them, and of
the test rows; by the former it chooses its settings, is drawn towards the means, and is weighed with the
others (:func:`weights`), so that nothing is chosen on the rows that measure.
"""

from dataclasses import dataclass
from itertools import combinations

import numba
import numpy as np
from numpy.typing import NDArray

NEIGHBOR_COUNTS = (8, 16, 32, 64, 128)
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Candidates of the ridge; rows have norm 1."""
LABEL_STRENGTH = 10.0
"""Queries that a dataset's own mean must outweigh."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Residuals ``[n_train, n_columns]`` by what has not seen the row, and ``[n_test, n_columns]``."""

    of_train: Values
    of_test: Values


def residuals(values: Values, prior: Values) -> Values:
    """Values ``[n, n_models]`` less the models' means, less the row's mean of that; NaN where unknown.

    A row on which fewer than two models are known says nothing of their differences, and is unknown.

    Examples
    --------
    >>> residuals(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0.5, 0.5]))
    array([[ 0.5, -0.5],
           [ 0. ,  0. ]])
    """
    above = values - prior
    known = ~np.isnan(above)
    n_known = known.sum(axis=1, keepdims=True)
    level = np.where(known, above, 0.0).sum(axis=1, keepdims=True) / np.maximum(n_known, 1)
    return np.asarray(np.where(n_known > 1, above - level, np.nan))


def nearest_neighbors(
    neighbors: NDArray[np.int32],
    targets: Values,
    text_ids: NDArray[np.intp],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
) -> Predicted:
    """Means over the nearest training rows of other texts; how many, the training rows choose.

    Parameters
    ----------
    neighbors
        Nearest rows of each row, nearest first, ``[n, n_neighbors]``.
    targets
        Residuals of all rows, ``[n, n_columns]``, NaN where unknown.
    text_ids
        Number of each row's text.
    train, test
        Rows to learn from and to predict.
    """
    is_train = np.zeros(len(targets), dtype=np.bool_)
    is_train[train] = True
    counts = np.array(NEIGHBOR_COUNTS)
    others = np.where(is_train[neighbors] & (text_ids[neighbors] != text_ids[:, None]), neighbors, -1)
    of_train = _neighbor_means(others[train], targets, counts)
    errors = [_error(targets[train], of_train[place]) for place in range(len(counts))]
    best = int(np.argmin(errors))
    of_test = _neighbor_means(others[test], targets, counts[best : best + 1])
    return Predicted(of_train[best], of_test[0])


@dataclass(frozen=True, slots=True, eq=False)
class LinearProbe:
    """Ridge regression of all columns at once (Hoerl & Kennard 1970), its sums kept by fold.

    Attributes
    ----------
    rows
        ``[n, width]``.
    folds
        Fold of each row, ``[n]``.
    groups
        Columns that are known on the same rows.
    known
        Where each group is known, ``[n_groups, n]``.
    grams
        Sums of outer products of each fold's rows where the group is known,
        ``[n_groups, n_folds, width, width]``.
    """

    rows: Values
    folds: NDArray[np.intp]
    groups: tuple[NDArray[np.intp], ...]
    known: NDArray[np.bool_]
    grams: Values

    @classmethod
    def of(
        cls, rows: NDArray[np.float32], folds: NDArray[np.intp], known: NDArray[np.bool_]
    ) -> "LinearProbe":
        """Sum up rows for targets that are known where ``known`` ``[n, n_columns]`` says."""
        columns_of: dict[bytes, list[int]] = {}
        for column, where in enumerate(known.T):
            columns_of.setdefault(where.tobytes(), []).append(column)
        groups = tuple(np.array(columns) for columns in columns_of.values())
        # The last column takes the mean of the rows.
        wide = np.column_stack([rows, np.ones(len(rows))]).astype(np.float64)
        where_known = np.array([known[:, group[0]] for group in groups])
        grams = np.array(
            [
                [_gram(wide[(folds == fold) & where]) for fold in range(int(folds.max()) + 1)]
                for where in where_known
            ]
        )
        return cls(wide, folds, groups, where_known, grams)

    def predict(self, targets: Values, fold: int) -> Predicted:
        """Predict one fold from the others; the training rows by the other folds among them."""
        n_folds = self.grams.shape[1]
        train, test = np.flatnonzero(self.folds != fold), np.flatnonzero(self.folds == fold)
        filled = np.where(np.isnan(targets), 0.0, targets)
        moments = np.array([_of_fold(self.folds, other, self.rows, filled) for other in range(n_folds)])
        inner = [other for other in range(n_folds) if other != fold]
        by_ridge = np.zeros((len(RIDGES), len(targets), targets.shape[1]))
        for other in inner:
            for place, ridge in enumerate(RIDGES):
                line = self._line([part for part in inner if part != other], moments, ridge)
                part = self.folds == other
                by_ridge[place, part] = self.rows[part] @ line
        best = int(np.argmin([_error(targets[train], predicted[train]) for predicted in by_ridge]))
        line = self._line(inner, moments, RIDGES[best])
        return Predicted(by_ridge[best, train], self.rows[test] @ line)

    def _line(self, parts: list[int], moments: Values, ridge: float) -> Values:
        """Coefficients ``[width, n_columns]`` from the folds in ``parts``."""
        wanted: Values = moments[parts].sum(axis=0)
        line = np.empty_like(wanted)
        for group, grams in zip(self.groups, self.grams, strict=True):
            gram = grams[parts].sum(axis=0) + ridge * np.eye(grams.shape[1])
            line[:, group] = np.linalg.solve(gram, wanted[:, group])
        return line


def dataset_means(
    dataset_ids: NDArray[np.intp], targets: Values, train: NDArray[np.intp], test: NDArray[np.intp]
) -> Predicted:
    """Means of each dataset's training rows, drawn to zero; a training row does not see itself."""
    own = targets[train]
    known = ~np.isnan(own)
    filled = np.where(known, own, 0.0)
    n_datasets = int(dataset_ids.max()) + 1
    sums, counts = np.zeros((n_datasets, targets.shape[1])), np.zeros((n_datasets, targets.shape[1]))
    np.add.at(sums, dataset_ids[train], filled)
    np.add.at(counts, dataset_ids[train], known)
    of_train = (sums[dataset_ids[train]] - filled) / (counts[dataset_ids[train]] - known + LABEL_STRENGTH)
    return Predicted(of_train, sums[dataset_ids[test]] / (counts[dataset_ids[test]] + LABEL_STRENGTH))


def weights(targets: Values, predictions: list[Values]) -> Values:
    """Weights, none below zero, whose blend of predictions comes closest to the targets (stacking).

    Stacked regressions (Breiman 1996). With predictions of rows by what has not seen them, noise gets a
    weight of about zero and leaves the models' means.

    Parameters
    ----------
    targets
        ``[n, n_columns]``, NaN where unknown.
    predictions
        Some arrays of that shape.
    """
    known = ~np.isnan(targets)
    columns = np.array([predicted[known] for predicted in predictions])
    gram, moment = columns @ columns.T, columns @ targets[known]
    best, least = np.zeros(len(predictions)), 0.0
    # Few predictions: every set of them is tried, and the best without a negative weight is the answer.
    for size in range(1, len(predictions) + 1):
        for chosen in map(list, combinations(range(len(predictions)), size)):
            found = np.linalg.lstsq(gram[np.ix_(chosen, chosen)], moment[chosen], rcond=None)[0]
            error = -float(found @ moment[chosen])
            if (found >= 0).all() and error < least:
                best, least = np.zeros(len(predictions)), error
                best[chosen] = found
    return best


def _gram(rows: Values) -> Values:
    return np.asarray(rows.T @ rows)


def _of_fold(folds: NDArray[np.intp], fold: int, rows: Values, targets: Values) -> Values:
    return np.asarray(rows[folds == fold].T @ targets[folds == fold])


def _error(targets: Values, predicted: Values) -> float:
    """Mean square over what is known."""
    known = ~np.isnan(targets)
    return float(((targets[known] - predicted[known]) ** 2).mean()) if known.any() else 0.0


@numba.njit(cache=True, nogil=True)
def _neighbor_means(neighbors: NDArray[np.int32], targets: Values, counts: NDArray[np.intp]) -> Values:
    """Means of the known targets of the first neighbours, ``[n_counts, n_rows, n_columns]``.

    Neighbours of -1 are passed over. Fewer where there are not so many; 0 where nothing is known.
    """
    n_columns = targets.shape[1]
    means = np.zeros((len(counts), len(neighbors), n_columns))
    for place in range(len(neighbors)):
        total, n_known = np.zeros(n_columns), np.zeros(n_columns)
        n_asked, step = 0, 0
        for near in neighbors[place]:
            if near < 0:
                continue
            for column in range(n_columns):
                if not np.isnan(targets[near, column]):
                    total[column] += targets[near, column]
                    n_known[column] += 1.0
            n_asked += 1
            if n_asked == counts[step]:
                means[step, place] = total / np.maximum(n_known, 1.0)
                step += 1
                if step == len(counts):
                    break
        for rest in range(step, len(counts)):
            means[rest, place] = total / np.maximum(n_known, 1.0)
    return means
