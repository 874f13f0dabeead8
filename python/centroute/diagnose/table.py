"""What is diagnosed: rows with their texts, embeddings and what every model was worth on them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.fitting import Part
from centroute.datasets import Outcomes, text_key
from centroute.diagnose.trees import Binned, bin_columns
from centroute.errors import DataError

N_NEIGHBORS = 256
"""Nearest rows of each row that are kept; more than the kNN probe ever asks."""
_ROWS_PER_BLOCK = 256

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Worth:
    """What the models were worth, whatever the embedder.

    Attributes
    ----------
    values
        Score of each pair, less its cost over the willingness to pay where one is given; NaN where unknown,
        ``[n, n_models]``.
    text_ids
        Number of each row's text, equal for equal texts; ``[n]``.
    dataset_ids
        Number of each row's dataset, ``[n]``; None where the data name fewer than two.
    """

    values: Values
    text_ids: NDArray[np.intp]
    dataset_ids: NDArray[np.intp] | None

    @classmethod
    def of(cls, outcomes: Outcomes, willingness_to_pay: float | None) -> "Worth":
        """Take scores and costs.

        Raises
        ------
        DataError
            If a willingness to pay is given and a model's costs are not known.
        """
        values = outcomes.scores.astype(np.float64)
        if willingness_to_pay is not None:
            unknown = np.isnan(outcomes.costs).all(axis=0)
            if unknown.any():
                name = outcomes.models[int(np.argmax(unknown))]
                raise DataError(
                    f"willingness to pay needs the cost of every model, and that of {name!r} is unknown; "
                    "give costs, or leave the willingness out"
                )
            values = values - outcomes.costs / willingness_to_pay
        texts: dict[str, int] = {}
        text_ids = [texts.setdefault(text_key(query), len(texts)) for query in outcomes.queries]
        names: dict[str, int] = {}
        dataset_ids = [names.setdefault(dataset, len(names)) for dataset in outcomes.datasets]
        return cls(
            values=values,
            text_ids=np.array(text_ids),
            dataset_ids=np.array(dataset_ids) if len(names) > 1 else None,
        )

    @property
    def n_texts(self) -> int:
        """Number of different texts."""
        return int(self.text_ids.max()) + 1

    def folds(self, n_folds: int, *, seed: int) -> NDArray[np.intp]:
        """Fold of each row, ``[n]``; equal texts stay in one."""
        return np.asarray((np.random.default_rng(seed).permutation(self.n_texts) % n_folds)[self.text_ids])


@dataclass(frozen=True, eq=False)
class Embedded:
    """The rows as one embedder sees them.

    Attributes
    ----------
    name
        Of the embedder.
    part
        Embeddings, surface features and outcomes, as calibration takes them.
    surface_weight
        Weight of the surface features, 0 for none.
    """

    name: str
    part: Part
    surface_weight: float

    @cached_property
    def rows(self) -> NDArray[np.float32]:
        """Rows that are routed, ``[n, width]``; the features' means are taken over all of them."""
        return self.part.routed(self.part.surface(self.surface_weight))

    @cached_property
    def binned(self) -> Binned:
        """The same for trees."""
        return bin_columns(self.rows)

    @cached_property
    def neighbors(self) -> NDArray[np.int32]:
        """Nearest rows of each row by cosine, itself among them, nearest first; ``[n, at most 256]``."""
        n_kept = min(N_NEIGHBORS, len(self.rows))
        found = np.empty((len(self.rows), n_kept), dtype=np.int32)
        for start in range(0, len(self.rows), _ROWS_PER_BLOCK):
            similarity = self.rows[start : start + _ROWS_PER_BLOCK] @ self.rows.T
            near = np.argpartition(-similarity, n_kept - 1, axis=1)[:, :n_kept]
            order = np.argsort(-np.take_along_axis(similarity, near, axis=1), axis=1, kind="stable")
            found[start : start + _ROWS_PER_BLOCK] = np.take_along_axis(near, order, axis=1)
        return found
