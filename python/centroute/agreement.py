"""``Agreement``: how the votes of a pool's models hang together. Part of a router file, read without NumPy.

Take a query with ``K`` choices and one of its wrong ones at random. A model's *vote difference* is 1 where it
answers right, -1 where it gives that wrong answer, and 0 otherwise. With ``q`` the chance of a right answer
and ``w = (answered - q) / (K - 1)`` that of the one wrong answer:

    mean = q - w        variance = q + w - (q - w)²        log-odds of a vote = log(q / w)

Weighted votes go wrong where such differences are added up that say the same: models that are right on the
same queries, or wrong with the same answer. The correlation of the differences of two models holds both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from centroute._router_file import number_within
from centroute.errors import ArtifactError

DEFAULT_CHOICES: Final = 10.0
"""Choices of a query where nobody has counted them."""
MAX_CHOICES: Final = 30.0
"""More make the weights of good and poor models hardly more equal."""
SAME_MODEL: Final = 0.9
"""Correlation of entries of one model, such as two efforts, where no query shows it."""
LEAST_QUALITY: Final = 0.02
"""A quality nearer to 0 or to `answered` would make a vote certain."""

_SAMPLES = re.compile(r"@n([1-9][0-9]{0,5})$")


@dataclass(frozen=True, slots=True)
class Agreement:
    """What calibration knows about the votes of a pool. All tuples go by model id.

    Attributes
    ----------
    n_choices
        Choices of a query, as the right answers of the calibration data spread: 2 or more.
    mean_quality
        Mean score of each model.
    answered
        Share of queries on which each model gave an answer that could be read.
    correlation
        Of the models' vote differences, rows ``[n_models][n_models]``, 1 on the diagonal.
    trust
        Share of a query's predicted deviation from a model's mean that votes are weighed by, 0 to 1. It is
        below 1 where predictions are too noisy to be told from one another.
    intercept, slope
        ``logit(accuracy) = intercept + slope * sqrt(separation)`` of a vote; the separation is that of
        :mod:`centroute.ensemble`.
    """

    n_choices: float
    mean_quality: tuple[float, ...]
    answered: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]
    trust: float
    intercept: float
    slope: float

    @classmethod
    def independent(cls, n_models: int) -> Agreement:
        """What holds for a router file that says nothing: models that err each for itself."""
        intercept, slope = accuracy_line(DEFAULT_CHOICES)
        rows = tuple(
            tuple(1.0 if row == column else 0.0 for column in range(n_models)) for row in range(n_models)
        )
        # Without means there is nothing to hold predictions back to.
        return cls(DEFAULT_CHOICES, (0.5,) * n_models, (1.0,) * n_models, rows, 1.0, intercept, slope)

    def without(self, model_id: int) -> Agreement:
        """The same for a pool that has lost a model."""

        def left(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return values[:model_id] + values[model_id + 1 :]

        return replace(
            self,
            mean_quality=left(self.mean_quality),
            answered=left(self.answered),
            correlation=tuple(left(row) for row in left(self.correlation)),
        )

    def with_newcomer(self, name: str, mean_quality: float, pool: tuple[str, ...]) -> Agreement:
        """The same for a pool that has got a model at its end, of whose votes nothing is known.

        Its votes are taken to agree with the others' as theirs do on average, and closely with those of
        entries of the same model.
        """
        usual = mean_correlation(self.correlation)
        new = tuple(SAME_MODEL if is_same_model(name, other) else usual for other in pool)
        rows = tuple((*row, value) for row, value in zip(self.correlation, new, strict=True))
        answered = sum(self.answered) / len(self.answered)
        return replace(
            self,
            mean_quality=(*self.mean_quality, mean_quality),
            answered=(*self.answered, max(answered, mean_quality)),
            correlation=(*rows, (*new, 1.0)),
        )

    def to_json(self) -> dict[str, Any]:
        """As a router file holds it; of the correlations the part below the diagonal."""
        return {
            "n_choices": round(self.n_choices, 4),
            "mean_quality": [round(value, 6) for value in self.mean_quality],
            "answered": [round(value, 6) for value in self.answered],
            "correlation": [
                [round(value, 4) for value in values[:row]] for row, values in enumerate(self.correlation)
            ],
            "trust": self.trust,
            "intercept": round(self.intercept, 6),
            "slope": round(self.slope, 6),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], *, n_models: int) -> Agreement:
        """Read what `to_json` wrote.

        Raises
        ------
        ArtifactError
            If a number is missing, of another kind or outside its range, or there are not as many as models.
        """
        try:
            lower = [[number_within(value, -1.0, 1.0) for value in row] for row in entry["correlation"]]
            means = tuple(number_within(value, 0.0, 1.0) for value in entry["mean_quality"])
            answered = tuple(number_within(value, 0.0, 1.0) for value in entry["answered"])
            numbers = {
                "n_choices": number_within(entry["n_choices"], 2.0, math.inf),
                "trust": number_within(entry["trust"], 0.0, 1.0),
                "intercept": number_within(entry["intercept"], -math.inf, math.inf),
                "slope": number_within(entry["slope"], 0.0, math.inf),
            }
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ArtifactError(f"router metadata: agreement cannot be read ({error!r})") from error
        if [len(row) for row in lower] != list(range(n_models)) or not len(means) == len(
            answered
        ) == n_models:
            raise ArtifactError(f"router metadata: agreement is not that of {n_models} models")
        rows = tuple(
            (*row, 1.0, *(lower[below][place] for below in range(place + 1, n_models)))
            for place, row in enumerate(lower)
        )
        return cls(mean_quality=means, answered=answered, correlation=rows, **numbers)


def vote_moments(quality: float, answered: float, n_choices: float) -> tuple[float, float, float]:
    """Mean and variance of a model's vote difference, and the log-odds of its vote.

    Parameters
    ----------
    quality
        Chance of a right answer, 0 to 1.
    answered
        Chance of an answer that can be read.
    n_choices
        Choices of the query, 2 or more.

    Examples
    --------
    >>> vote_moments(0.5, 1.0, 2.0)  # a coin says nothing
    (0.0, 1.0, 0.0)
    """
    right = min(max(quality, LEAST_QUALITY), 1.0 - LEAST_QUALITY)
    wrong = max(answered - right, LEAST_QUALITY) / (n_choices - 1.0)
    mean = right - wrong
    return mean, right + wrong - mean * mean, math.log(right / wrong)


@lru_cache(maxsize=64)
def accuracy_line(n_choices: float) -> tuple[float, float]:
    """Intercept and slope of ``logit(accuracy)`` over ``sqrt(separation)``, as they are of one model alone.

    A vote whose separation is that of one model of quality ``q`` is right as often as that model.
    """
    points = []
    for step in range(2, 19):
        quality = step / 20
        mean, variance, _ = vote_moments(quality, 1.0, n_choices)
        points.append((signed_root(mean / math.sqrt(variance)), math.log(quality / (1 - quality))))
    n = len(points)
    mean_x, mean_y = (sum(values) / n for values in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return mean_y - slope * mean_x, slope


def signed_root(value: float) -> float:
    """Square root of the size, with the sign."""
    return math.copysign(math.sqrt(abs(value)), value)


def mean_correlation(correlation: tuple[tuple[float, ...], ...]) -> float:
    """Mean of what stands below the diagonal; 0 for one model."""
    below = [value for row, values in enumerate(correlation) for value in values[:row]]
    return sum(below) / len(below) if below else 0.0


def is_same_model(name: str, other: str) -> bool:
    """Whether two entries of a pool are one model at another effort or number of samples."""
    return name.partition("@")[0] == other.partition("@")[0]


def n_samples(name: str) -> int:
    """How many answers of its model an entry stands for: 5 for ``model@n5``, else 1.

    Examples
    --------
    >>> n_samples("small@n5"), n_samples("small@high")
    (5, 1)
    """
    found = _SAMPLES.search(name)
    return int(found[1]) if found else 1
