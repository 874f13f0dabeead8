"""Intervals and the paired test: what chance alone could have done to a mean over queries. Seeded draws."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""

N_SIGN_FLIPS = 9999
"""Draws of the paired test."""

MANY_SIZES = 500
"""Different sizes of differences above which their sum under sign flips is taken as normal."""

_BLOCK = 64
Interval = tuple[float, float]


def mean_intervals(columns: NDArray[np.floating], *, seed: int = 0) -> list[Interval | None]:
    """95 % percentile bootstrap intervals of the mean of each column (Efron 1979).

    Queries are resampled with replacement, the same ones for all columns; a resample's mean is over its known
    values.

    Parameters
    ----------
    columns
        ``[n, n_columns]``, NaN where unknown.
    seed
        Seed of the draws.

    Returns
    -------
    list[Interval | None]
        ``n_columns`` pairs of low and high; ``None`` where nothing is known.
    """
    known = (~np.isnan(columns)).astype(np.float64)
    values = np.where(known > 0, columns, 0.0).astype(np.float64)
    means = np.empty((N_RESAMPLES, columns.shape[1]))
    done = 0
    for counts in _resamples(len(columns), seed):
        n_known = counts @ known
        total = counts @ values
        means[done : done + len(counts)] = np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan)
        done += len(counts)
    return [_middle(means[:, column]) for column in range(columns.shape[1])]


def mean_interval(values: NDArray[np.floating], *, seed: int = 0) -> Interval | None:
    """95 % bootstrap interval of one mean, as :func:`mean_intervals`, quick where few different values occur.

    How often each value occurs in a resample of the known ones is multinomial, so that no query is drawn.

    Parameters
    ----------
    values
        ``[n]``, NaN where unknown.
    seed
        Seed of the draws.
    """
    different, counts = np.unique(values[~np.isnan(values)].astype(np.float64), return_counts=True)
    n_known = int(counts.sum())
    if n_known == 0:
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_known, counts / n_known, size=N_RESAMPLES)
    return _middle(drawn @ different / n_known)


def paired_p_value(differences: NDArray[np.floating], *, seed: int = 0) -> float | None:
    """Two-sided p-value that paired differences have mean zero, by sign flips (Fisher's randomisation test).

    Where two ways to choose are equally good, each difference is as likely to have the other sign:
    ``p = (1 + #{|Σ ± d| ≥ |Σ d|}) / (1 + draws)``. With scores of 0 and 1 it is McNemar's exact test up to
    the draws. Where sizes of more than `MANY_SIZES` occur, ``Σ ± d`` is taken as normal of variance ``Σ d²``.

    Parameters
    ----------
    differences
        ``[n]``: score of the one minus score of the other, NaN where either is unknown.
    seed
        Seed of the draws.

    Returns
    -------
    float | None
        ``None`` without any known difference; 1 where all are zero.
    """
    known = differences[~np.isnan(differences)].astype(np.float64)
    if len(known) == 0:
        return None
    # Equal sizes flip together: the number of positive signs among k of them is binomial.
    sizes, counts = np.unique(np.abs(known[known != 0]), return_counts=True)
    if len(sizes) == 0:
        return 1.0
    if len(sizes) > MANY_SIZES:
        return math.erfc(abs(float(known.sum())) / math.sqrt(2 * float((known**2).sum())))
    rng = np.random.default_rng(seed)
    totals = np.zeros(N_SIGN_FLIPS)
    for size, count in zip(sizes, counts, strict=True):
        totals += size * (2.0 * rng.binomial(count, 0.5, size=N_SIGN_FLIPS) - count)
    extreme = np.abs(totals) >= abs(known.sum()) - 1e-9
    return float((1 + extreme.sum()) / (1 + N_SIGN_FLIPS))


def _middle(means: NDArray[np.float64]) -> Interval | None:
    """Where the middle 95 % of the known means lie."""
    known = means[~np.isnan(means)]
    if len(known) == 0:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _resamples(n: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each of ``n`` rows is drawn, in blocks ``[≤ 64, n]`` of together ``N_RESAMPLES``."""
    rng = np.random.default_rng(seed)
    for start in range(0, N_RESAMPLES, _BLOCK):
        size = min(_BLOCK, N_RESAMPLES - start)
        drawn = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(size)]
        yield np.array(drawn, dtype=np.float64)
