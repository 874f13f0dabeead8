"""Outcomes: what every model of a pool scored and cost on every query, and their split by text."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from centroute._shown import show
from centroute.datasets.answers import Answers
from centroute.errors import DataError


@lru_cache(maxsize=4096)  # a file repeats the same few names on every line
def model_name_fault(name: str) -> str | None:
    """Say what is wrong with a model name, ``None`` when it can be used.

    Names travel through command lines, JSON and error messages, so they are not empty, have no white
    space at their ends, and hold neither control characters nor lone surrogates.
    """
    if not name.strip():
        return f"a model name is empty: {name!r}"
    if name != name.strip():
        return f"the model name {show(name)} begins or ends with white space"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name):
        return f"the model name {show(name)} holds a control character"
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Observed scores and costs of (query, model) pairs. Immutable: the arrays are read-only copies.

    Parameters
    ----------
    queries
        The texts, ``n_queries`` of them, none empty or only white space. Texts may repeat.
    models
        The pool in its order. Files give the order in which models first appear.
    scores
        ``[n_queries, n_models]`` float32 in 0..1; NaN where the pair was not observed.
    costs
        ``[n_queries, n_models]`` float64, USD a query; NaN where unknown. Unknown is never 0.
    datasets
        The source of each query, ``""`` where not given.
    ids
        An identifier of each query, for people to find it again; need not be unique.
    tokens
        ``[n_queries, n_models, 2]`` float64: input and output tokens counted for the pair, NaN where
        unknown; ``None`` where the data have no counts.
    answers
        What the models answered and what was right, for votes; ``None`` where the data do not say.
    roles
        In which role of a plan each query was answered, ``""`` where not given; ``None`` where the data name
        no role.
    allow_unobserved
        Accept models without any observed score. Parts of a larger set need it (`subset`).

    Raises
    ------
    DataError
        Shapes do not fit, a score is outside 0..1, a cost or count is negative or infinite, a text is empty,
        a model name is unusable or repeated, a query has no observed score, a model has none, or there
        are no queries or no models.

    Examples
    --------
    >>> import numpy as np
    >>> outcomes = Outcomes(
    ...     queries=("What is 2 + 2?", "Name a river."),
    ...     models=("large", "small"),
    ...     scores=np.array([[1.0, 1.0], [1.0, np.nan]], dtype=np.float32),
    ...     costs=np.array([[0.002, np.nan], [0.001, np.nan]]),
    ...     datasets=("", ""),
    ...     ids=("1", "2"),
    ... )
    >>> outcomes.has_costs.tolist()
    [True, False]
    """

    queries: tuple[str, ...]
    models: tuple[str, ...]
    scores: NDArray[np.float32]
    costs: NDArray[np.float64]
    datasets: tuple[str, ...]
    ids: tuple[str, ...]
    allow_unobserved: InitVar[bool] = False
    tokens: NDArray[np.float64] | None = None
    answers: Answers | None = None
    roles: tuple[str, ...] | None = None

    def __post_init__(self, allow_unobserved: bool) -> None:
        for field in ("queries", "models", "datasets", "ids"):
            object.__setattr__(self, field, _texts(field, getattr(self, field)))
        _check_names(self.queries, self.models)
        object.__setattr__(self, "roles", None if self.roles is None else _texts("roles", self.roles))
        for field in ("datasets", "ids", *(() if self.roles is None else ("roles",))):
            if len(getattr(self, field)) != self.n_queries:
                n_entries = len(getattr(self, field))
                raise DataError(f"{field} has {n_entries} entries for {self.n_queries} queries")

        shape = (self.n_queries, self.n_models)
        scores = _matrix("scores", self.scores, shape)
        costs = _matrix("costs", self.costs, shape)
        self._check_range("score", scores, (scores < 0) | (scores > 1), "is outside 0..1")
        wrong = (costs < 0) | np.isinf(costs)
        self._check_range("cost", costs, wrong, "is not a finite USD amount of 0 or more")

        observed = ~np.isnan(scores)
        if not observed.any(axis=1).all():
            row = int(np.argmin(observed.any(axis=1)))
            raise DataError(f"query {row} (id {show(self.ids[row])}) has no observed score of any model")
        if not allow_unobserved and not observed.any(axis=0).all():
            names = [show(self.models[column]) for column in np.flatnonzero(~observed.any(axis=0))]
            raise DataError(f"no score was observed for {_shortened(names)}; leave it out of the pool")

        matrices: dict[str, NDArray[np.floating]] = {"scores": scores.astype(np.float32), "costs": costs}
        if self.tokens is not None:
            tokens = _matrix("tokens", self.tokens, (*shape, 2))
            for position, what in enumerate(("input token count", "output token count")):
                counts = tokens[:, :, position]
                wrong = (counts < 0) | np.isinf(counts)
                self._check_range(what, counts, wrong, "is not a finite number of 0 or more")
            matrices["tokens"] = tokens
        if self.answers is not None and self.answers.given.shape != shape:
            raise DataError(
                f"answers have shape {self.answers.given.shape}, wanted {shape} (queries, models)"
            )
        for field, matrix in matrices.items():
            matrix.setflags(write=False)
            object.__setattr__(self, field, matrix)

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return len(self.queries)

    @property
    def n_models(self) -> int:
        """Number of models in the pool."""
        return len(self.models)

    @property
    def has_costs(self) -> NDArray[np.bool_]:
        """``[n_models]``: the model has a known cost on at least one query."""
        return np.asarray((~np.isnan(self.costs)).any(axis=0), dtype=np.bool_)

    def subset(self, rows: ArrayLike) -> "Outcomes":
        """Return the given rows, in the given order, with the whole pool.

        Every part keeps the model list, so that the parts' columns agree; a part may therefore hold a
        model without an observed score.

        Parameters
        ----------
        rows
            ``[n]`` integer row numbers in ``0..n_queries - 1``, at least one; or a ``[n_queries]`` bool mask.

        Raises
        ------
        DataError
            No row, not one-dimensional, not whole numbers, or a row outside the range.
        """
        chosen = np.asarray(rows)
        if chosen.ndim != 1:
            raise DataError(f"rows must be one-dimensional, got shape {chosen.shape}")
        if chosen.dtype.kind == "b":
            if len(chosen) != self.n_queries:
                raise DataError(f"the row mask has {len(chosen)} entries for {self.n_queries} queries")
            chosen = np.flatnonzero(chosen)
        if len(chosen) == 0:
            raise DataError("a subset needs at least one row")
        if chosen.dtype.kind not in "iu":
            raise DataError(f"rows must be whole numbers, got {chosen.dtype}")
        outside = (chosen < 0) | (chosen >= self.n_queries)
        if outside.any():
            raise DataError(f"row {chosen[outside][0]} is outside 0..{self.n_queries - 1}")
        numbers = [int(row) for row in chosen]
        return Outcomes(
            queries=tuple(self.queries[row] for row in numbers),
            models=self.models,
            scores=self.scores[chosen],
            costs=self.costs[chosen],
            datasets=tuple(self.datasets[row] for row in numbers),
            ids=tuple(self.ids[row] for row in numbers),
            tokens=None if self.tokens is None else self.tokens[chosen],
            answers=None if self.answers is None else self.answers.subset(chosen),
            roles=None if self.roles is None else tuple(self.roles[row] for row in numbers),
            allow_unobserved=True,
        )

    def _check_range(
        self, what: str, matrix: NDArray[np.float64], wrong: NDArray[np.bool_], how: str
    ) -> None:
        """Raise for the first wrong cell and name its query, model and value."""
        if wrong.any():
            row, column = (int(index) for index in np.argwhere(wrong)[0])
            raise DataError(
                f"{what} {float(matrix[row, column])} of model {show(self.models[column])} on query {row} "
                f"(id {show(self.ids[row])}) {how}"
            )


def text_key(text: str) -> str:
    """Return what two texts share when a split counts them as equal.

    Unicode NFC, letter case and runs of white space are levelled: such twins embed almost alike, and one
    of them in each part would let the holdout report what calibration has memorised.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def split_by_text(
    outcomes: Outcomes, *, holdout: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows into calibration and holdout so that equal texts stay together.

    Parameters
    ----------
    outcomes
        What to split.
    holdout
        Share of the distinct texts (see `text_key`) that is held out, above 0 and below 1; rounded to
        whole texts, halves up. The share of rows can differ where texts repeat.
    seed
        Seed of the draw, 0 or more. The same outcomes, share and seed give the same split.

    Returns
    -------
    calibration_rows, holdout_rows
        Row numbers, each sorted ascending; together every row once.

    Raises
    ------
    DataError
        The share is not between 0 and 1, the seed is negative, or a side would be empty.
    """
    if not 0.0 < holdout < 1.0:
        raise DataError(f"holdout must be above 0 and below 1, got {holdout}")
    if seed < 0:
        raise DataError(f"seed must be 0 or more, got {seed}")
    # Numbered in order of first appearance: a dict keeps that order whatever PYTHONHASHSEED says.
    numbers: dict[str, int] = {}
    text_ids = np.array([numbers.setdefault(text_key(query), len(numbers)) for query in outcomes.queries])
    n_texts = len(numbers)
    n_holdout = int(np.floor(holdout * n_texts + 0.5))
    if n_holdout in (0, n_texts):
        side = "holdout" if n_holdout == 0 else "calibration"
        raise DataError(
            f"a holdout of {holdout} of {n_texts} distinct texts leaves no query for {side}; "
            "give more queries or another share"
        )
    held_out = np.zeros(n_texts, dtype=np.bool_)
    held_out[np.random.default_rng(seed).permutation(n_texts)[:n_holdout]] = True
    in_holdout = held_out[text_ids]
    return np.flatnonzero(~in_holdout), np.flatnonzero(in_holdout)


def _texts(field: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise DataError(f"{field} must be a sequence of texts, got the single text {show(values)}")
    texts = tuple(values)
    for position, value in enumerate(texts):
        if not isinstance(value, str):
            raise DataError(f"{field}[{position}] must be text, got {show(value)}")
    return texts


def _check_names(queries: Sequence[str], models: Sequence[str]) -> None:
    if not queries:
        raise DataError("outcomes need at least one query, got none")
    if not models:
        raise DataError("outcomes need at least one model, got none")
    for row, query in enumerate(queries):
        if not query.strip():
            raise DataError(f"query {row} is empty: {show(query)}")
    seen: set[str] = set()
    for model in models:
        if fault := model_name_fault(model):
            raise DataError(fault)
        if model in seen:
            raise DataError(f"the model {show(model)} is in the pool twice")
        seen.add(model)


def _matrix(field: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a float64 copy of the wanted shape; range checks come before the cast to float32."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{field} must be an array of real numbers, got {array.dtype}")
    if array.shape != shape:
        axes = "queries, models" if len(shape) == 2 else "queries, models, input and output"
        raise DataError(f"{field} has shape {array.shape}, wanted {shape} ({axes})")
    return np.array(array, dtype=np.float64, order="C")


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
