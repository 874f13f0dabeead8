"""Choices: one model for each query, and what the chosen ones scored or cost."""

import numpy as np
from numpy.typing import NDArray

from centroute.datasets.observed import observed_means

Values = NDArray[np.floating]
"""A number of each query, or of each (query, model) pair; NaN where unknown."""
Choice = NDArray[np.int32]
"""Model id of each query."""


def pick(values: Values, model_ids: NDArray[np.integer]) -> Values:
    """Value of the chosen model of each row, ``[n]``."""
    return np.take_along_axis(values, model_ids[:, None].astype(np.intp), axis=1)[:, 0]


def mean(values: Values) -> float | None:
    """Mean of the known values, ``None`` where there is none."""
    found = float(observed_means(values[:, None])[0])
    return None if np.isnan(found) else found
