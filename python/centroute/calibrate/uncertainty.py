"""Standard errors of the quality table: how far a cell may be from what more outcomes would show.

The variance of one outcome around the blend is taken per cell, drawn to that of the model; divided by the
outcomes behind the cell and the pseudo-outcomes that its value was drawn by, it is the variance of the cell:

    s²[c, m] = (sum_i w_ic r_im² + STRENGTH · s²[m]) / (sum_i w_ic + STRENGTH),    r = score − blend
    quality_se[c, m]² = s²[c, m] / (sum_i w_ic + shrinkage + 1)

The last one keeps a cell that no outcome is behind at the spread of a single one. Errors between clusters and
between models are taken as independent where they are used (``rust/core/src/uncertainty.rs``).
"""

import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.assignment import blend, blended_sums

STRENGTH = 10.0
"""Outcomes that a cell's own variance must outweigh."""


def quality_errors(
    ids: NDArray[np.int32],
    weights: NDArray[np.float64],
    scores: NDArray[np.float32],
    quality: NDArray[np.float64],
    *,
    shrinkage: float,
) -> NDArray[np.float64]:
    """Standard error of every cell, ``[n_clusters, n_models]``.

    Parameters
    ----------
    ids, weights
        Soft assignment of the rows that the table was fitted on, ``[n, top_p]``.
    scores
        Their scores ``[n, n_models]``, NaN where not observed.
    quality
        The table ``[n_clusters, n_models]``.
    shrinkage
        Pseudo-outcomes that drew its cells.
    """
    known = ~np.isnan(scores)
    squares = np.where(known, (np.nan_to_num(scores) - blend(ids, weights, quality)) ** 2, 0.0)
    counts = blended_sums(ids, weights, known.astype(np.float64), len(quality))
    sums = blended_sums(ids, weights, squares, len(quality))
    pooled = squares.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return standard_errors(sums, counts, pooled, shrinkage=shrinkage)


def standard_errors(
    squares: NDArray[np.float64],
    counts: NDArray[np.float64],
    pooled: NDArray[np.float64],
    *,
    shrinkage: float,
) -> NDArray[np.float64]:
    """Errors of cells ``[n_clusters, n_models]`` from sums over the rows.

    Parameters
    ----------
    squares, counts
        ``sum_i w_ic r_im²`` and ``sum_i w_ic`` over the observed scores, ``[n_clusters, n_models]``.
    pooled
        Mean of ``r_im²`` of each model, ``[n_models]``.
    shrinkage
        Pseudo-outcomes that drew the cells.
    """
    variance = (squares + STRENGTH * pooled) / (counts + STRENGTH)
    return np.asarray(np.sqrt(variance / (counts + shrinkage + 1.0)))
