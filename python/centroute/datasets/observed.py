"""Means over what was observed: NaN is left out, never counted as zero."""

import numpy as np
from numpy.typing import NDArray


def observed_means(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of the known values of each column.

    Parameters
    ----------
    values
        ``[n, n_columns]``, NaN where not observed.

    Returns
    -------
    NDArray[np.float64]
        ``[n_columns]``; NaN for a column without any known value.
    """
    known = ~np.isnan(values)
    n_known = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan)
