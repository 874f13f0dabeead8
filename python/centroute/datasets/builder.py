"""Outcomes put together row by row, as a reader meets them, with an account of what it left out."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from centroute.datasets.answers import NOT_OBSERVED, UNREAD, Answers
from centroute.datasets.outcomes import Outcomes
from centroute.errors import DataError

# Scores are kept as a dense [n_queries, n_models] matrix. A file that names thousands of models has
# something else in the place of the names, and would ask for memory far beyond its own size.
MAX_MODELS = 4096
# The same for files in which every row names a few models and all together thousands.
_SPARSE_CELLS = 1 << 24
_CELLS_A_SCORE = 100
# A table of Parquet can say in a few bytes that one row comes a billion times.
MAX_QUERIES = 10_000_000

Value = float | None
"""A number, or ``None`` where it is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a reader made of a file.

    Attributes
    ----------
    outcomes
        The outcomes.
    form
        Name of the format that the file was read as.
    left_out
        What of the file is not in the outcomes: the reason, and how often it held.
    """

    outcomes: Outcomes
    form: str
    left_out: Mapping[str, int]


class OutcomesBuilder:
    """Collects rows; the pool grows with the models that they name, behind those known beforehand."""

    __slots__ = (
        "_answers",
        "_cells",
        "_datasets",
        "_ids",
        "_left_out",
        "_may_lack_models",
        "_pool",
        "_queries",
        "_right",
        "_roles",
        "_source",
        "_texts",
    )

    def __init__(self, source: Path, *, pool: Iterable[str] = ()) -> None:
        self._source = source
        self._pool: dict[str, int] = {model: column for column, model in enumerate(pool)}
        # Of a pool that is known beforehand, some of a source's rows may lack a model.
        self._may_lack_models = bool(self._pool)
        self._queries: list[str] = []
        self._datasets: list[str] = []
        self._ids: list[str] = []
        self._cells = {name: _Cells() for name in ("score", "cost", "input", "output")}
        self._left_out: dict[str, int] = {}
        # Answers repeat: each is kept once, and known by its number.
        self._texts: dict[str, int] = {}
        self._answers = _Cells()
        self._right: list[int] = []
        self._roles: list[str] = []

    @property
    def n_models(self) -> int:
        """Number of models named so far."""
        return len(self._pool)

    @property
    def last_model(self) -> str:
        """The model named last."""
        return next(reversed(self._pool))

    def add(
        self,
        query: str,
        *,
        scores: Mapping[str, Value],
        costs: Mapping[str, Value],
        tokens: Mapping[str, tuple[Value, Value]],
        dataset: str,
        row_id: str,
        answers: Mapping[str, str | None] | None = None,
        answer: str | None = None,
        role: str = "",
    ) -> None:
        """Append a row.

        Parameters
        ----------
        query, dataset, row_id
            Its text, where it comes from, and how people find it again.
        scores, costs, tokens
            By model: the score in 0..1, the cost in USD, and the input and output tokens. ``None`` is not
            known, as is what stands for no model.
        answers, answer
            What the models answered, ``None`` where that cannot be read, and what is right.
        role
            In which role of a plan they answered, ``""`` where not given.
        """
        row = len(self._queries)
        if row >= MAX_QUERIES:
            raise DataError(f"{self._source}: the file holds more than {MAX_QUERIES} queries")
        for name, values in (("score", scores), ("cost", costs)):
            for model, value in values.items():
                self._put(name, row, model, value)
        for model, (n_input, n_output) in tokens.items():
            self._put("input", row, model, n_input)
            self._put("output", row, model, n_output)
        for model, text in (answers or {}).items():
            column = self._pool.setdefault(model, len(self._pool))
            self._answers.add(row, column, UNREAD if text is None else self._number(text))
        self._right.append(NOT_OBSERVED if answer is None else self._number(answer))
        self._queries.append(query)
        self._datasets.append(dataset)
        self._ids.append(row_id)
        self._roles.append(role)

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count what is not taken over, under the reason for it."""
        self._left_out[reason] = self._left_out.get(reason, 0) + count

    def finish(self, form: str) -> Reading:
        """Return what was collected, as read in the format named ``form``.

        Raises
        ------
        DataError
            There is no row, or a model without any score; the message names the file.
        """
        n_queries, n_models = len(self._queries), len(self._pool)
        if not n_queries:
            left_out = "; ".join(f"left out: {count} {reason}" for reason, count in self._left_out.items())
            raise DataError(
                f"{self._source}: the file holds no query" + (f" ({left_out})" if left_out else "")
            )
        n_cells, n_scores = n_queries * n_models, len(self._cells["score"].values)
        if n_cells > max(_SPARSE_CELLS, _CELLS_A_SCORE * n_scores):
            raise DataError(
                f"{self._source}: {n_queries} queries by {n_models} models, and only {n_scores} scores, less "
                f"than one in {_CELLS_A_SCORE}; is something else in the place of the models' names?"
            )
        matrices = {name: cells.matrix(n_queries, n_models) for name, cells in self._cells.items()}
        tokens = None
        if self._cells["input"].values or self._cells["output"].values:
            tokens = np.stack((matrices["input"], matrices["output"]), axis=2)
        try:
            outcomes = Outcomes(
                queries=tuple(self._queries),
                models=tuple(self._pool),
                scores=cast("NDArray[np.float32]", matrices["score"]),
                costs=matrices["cost"],
                datasets=tuple(self._datasets),
                ids=tuple(self._ids),
                tokens=tokens,
                answers=self._all_answers(n_queries, n_models),
                roles=tuple(self._roles) if any(self._roles) else None,
                allow_unobserved=self._may_lack_models,
            )
        except DataError as error:  # what only the whole file can show: a model without any score
            raise DataError(f"{self._source}: {error}") from error
        return Reading(outcomes, form, self._left_out)

    def _all_answers(self, n_queries: int, n_models: int) -> Answers | None:
        if not self._answers.values:
            return None
        given = np.nan_to_num(self._answers.matrix(n_queries, n_models), nan=NOT_OBSERVED)
        return Answers(tuple(self._texts), given.astype(np.int32), np.array(self._right, dtype=np.int32))

    def _number(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def _put(self, name: str, row: int, model: str, value: Value) -> None:
        column = self._pool.setdefault(model, len(self._pool))
        if value is not None:
            self._cells[name].add(row, column, value)


class _Cells:
    """Sparse (row, model, value) triples; memory grows with the values read, not with the matrix."""

    __slots__ = ("columns", "rows", "values")

    def __init__(self) -> None:
        self.rows = array("q")
        self.columns = array("q")
        self.values = array("d")

    def add(self, row: int, column: int, value: float) -> None:
        self.rows.append(row)
        self.columns.append(column)
        self.values.append(value)

    def matrix(self, n_queries: int, n_models: int) -> NDArray[np.float64]:
        dense = np.full((n_queries, n_models), np.nan)
        dense[np.frombuffer(self.rows, np.int64), np.frombuffer(self.columns, np.int64)] = self.values
        return dense
