"""How sure a mean is: resampled texts, and in each resample one of the splits.

Rows of one text stand or fall together, so that texts are drawn (with replacement) and not rows. Each draw
also takes the values of one split at random, for all columns the same: an interval covers what other folds
and seeds would have given, besides what other queries would. One split's whole spread is in it, not that of
the mean over the splits, since splits of the same rows differ less than fresh data would. What decides was
learned from a sample as well, which no drawing of the rows that measure can show: deviations are widened by
the root of n_folds / (n_folds - 1), the rows over those that were learned from. On simulated data sets of 400
rows the intervals then hold the truth in 86 to 99 of 100, 92 on average; where both were measured, it was 93
with and 89 without.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_DRAWS = 1000
_BLOCK = 64

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the middle 95 % of what the draws give."""

    value: float
    interval_95: tuple[float, float]

    def is_above(self, least: float) -> bool:
        """Whether it is at least that much, and its interval above zero."""
        return self.value >= least and self.interval_95[0] > 0


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Means of columns, ``[1 + N_DRAWS]`` each: of all texts and splits, then of every draw.

    Means of a column without any known value are NaN.
    """

    means: Mapping[str, Values]

    def estimate(self, figure: Callable[[Mapping[str, Values]], Values]) -> Estimate:
        """A figure made of the means, such as ``lambda means: means["router"] - means["knn"]``."""
        found = np.asarray(figure(self.means), dtype=np.float64)
        low, high = (
            np.nanquantile(found[1:], [0.025, 0.975]) if not np.isnan(found[1:]).all() else (np.nan,) * 2
        )
        return Estimate(float(found[0]), (float(low), float(high)))


def draw_means(
    columns: Mapping[str, Sequence[Values]], text_ids: NDArray[np.intp], *, n_folds: int, seed: int
) -> Draws:
    """Draw texts and splits.

    Parameters
    ----------
    columns
        Of each name one column ``[n]`` a split, or one alone that is the same for all; NaN where unknown.
    text_ids
        Number of each row's text, ``[n]``, from 0 without a gap.
    n_folds
        Folds of a split.
    seed
        Of the draws.
    """
    names = list(columns)
    n_splits = max(len(columns[name]) for name in names)
    n_texts = int(text_ids.max()) + 1
    flat = [columns[name][split % len(columns[name])] for split in range(n_splits) for name in names]
    known = np.array([np.bincount(text_ids, ~np.isnan(one), minlength=n_texts) for one in flat]).T
    sums = np.array([np.bincount(text_ids, np.nan_to_num(one), minlength=n_texts) for one in flat]).T
    rng = np.random.default_rng(seed)
    # The first "draw" takes every text once, and below every split.
    totals, counts = [sums.sum(axis=0)[None, :]], [known.sum(axis=0)[None, :]]
    for start in range(0, N_DRAWS, _BLOCK):
        size = min(_BLOCK, N_DRAWS - start)
        drawn = np.array(
            [np.bincount(rng.integers(n_texts, size=n_texts), minlength=n_texts) for _ in range(size)],
            dtype=np.float64,
        )
        totals.append(drawn @ sums)
        counts.append(drawn @ known)
    total, count = np.concatenate(totals), np.concatenate(counts)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(-1, n_splits, len(names))
    of_split = rng.integers(n_splits, size=N_DRAWS)
    taken = np.concatenate([means[:1].mean(axis=1), means[np.arange(1, N_DRAWS + 1), of_split]])
    taken[1:] = taken[0] + np.sqrt(n_folds / (n_folds - 1)) * (taken[1:] - taken[0])
    return Draws({name: taken[:, place] for place, name in enumerate(names)})


def z_score(columns: Sequence[Values], text_ids: NDArray[np.intp]) -> float:
    """Mean of a column over its standard error by text, splits averaged first; 0 where nothing varies.

    Parameters
    ----------
    columns
        One column ``[n]`` a split; NaN where unknown.
    text_ids
        Number of each row's text.
    """
    column = np.mean(columns, axis=0)
    known = ~np.isnan(column)
    if not known.any():
        return 0.0
    _, numbers = np.unique(text_ids[known], return_inverse=True)
    by_text = np.bincount(numbers, column[known])
    spread = float(by_text.std()) if len(by_text) > 1 else 0.0
    return float(by_text.mean() / spread * np.sqrt(len(by_text))) if spread > 0 else 0.0
