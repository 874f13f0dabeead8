"""Answers: what every model of a pool said to every query, and what was right, for votes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.errors import DataError

NOT_OBSERVED = -2
"""Stands for an answer that nobody wrote down."""
UNREAD = -1
"""Stands for an answer that was given and could not be read; it is a vote for nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answers of (query, model) pairs, in the form in which equal ones are equal. Immutable.

    Attributes
    ----------
    texts
        The different answers.
    given
        Int32 ``[n_queries, n_models]``: number in `texts`, `UNREAD` or `NOT_OBSERVED`.
    right
        Int32 ``[n_queries]``: number of the right answer in `texts`, or `NOT_OBSERVED`.

    Raises
    ------
    DataError
        If a number is outside `texts`.
    """

    texts: tuple[str, ...]
    given: NDArray[np.int32]
    right: NDArray[np.int32]

    def __post_init__(self) -> None:
        for field in ("given", "right"):
            numbers = np.array(getattr(self, field), dtype=np.int32)
            if numbers.size and not NOT_OBSERVED <= numbers.min() <= numbers.max() < len(self.texts):
                raise DataError(f"answers: {field} holds a number outside the {len(self.texts)} texts")
            numbers.setflags(write=False)
            object.__setattr__(self, field, numbers)

    def subset(self, rows: NDArray[np.intp] | Sequence[int]) -> "Answers":
        """Keep some rows, given by their numbers."""
        return Answers(self.texts, self.given[rows], self.right[rows])

    def columns(self, model_ids: Sequence[int]) -> "Answers":
        """Keep some models, in the given order; the number -1 stands for one that was not observed."""
        places = np.asarray(model_ids, dtype=np.intp)
        given = np.where(places >= 0, self.given[:, np.maximum(places, 0)], NOT_OBSERVED)
        return Answers(self.texts, given.astype(np.int32), self.right)

    def of(self, row: int, model_id: int) -> str | None:
        """What a model answered; None where it could not be read or was not observed."""
        number = int(self.given[row, model_id])
        return self.texts[number] if number >= 0 else None
