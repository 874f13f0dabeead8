"""What a look at outcomes shows before anything is fitted: repeats, contradictions, shared templates."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from centroute._shown import show
from centroute.datasets.outcomes import Outcomes, text_key

TEMPLATE_CHARACTERS = 40
"""Characters that texts must share at an end to be counted as one template."""
TEMPLATE_SHARE = 0.01
"""Share of the distinct texts that must have a template for it to be told."""
TEMPLATE_TEXTS = 5
"""Texts below which nothing is a template."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two rows of one text on which a model scored differently.

    Attributes
    ----------
    ids
        Of the row with the lower and of the row with the higher score.
    model
        The model.
    scores
        The lower and the higher score.
    """

    ids: tuple[str, str]
    model: str
    scores: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Texts that stand in more than one row, as `text_key` counts them equal.

    Attributes
    ----------
    n_texts
        Number of distinct texts.
    n_repeated_texts, n_repeated_rows
        Number of texts in more than one row, and of these rows.
    n_conflicts
        Number of (text, model) pairs with different scores.
    n_conflicting_texts
        Number of texts with such a pair.
    example
        One of them; ``None`` without any.
    """

    n_texts: int
    n_repeated_texts: int
    n_repeated_rows: int
    n_conflicts: int
    n_conflicting_texts: int
    example: Conflict | None


@dataclass(frozen=True, slots=True)
class Template:
    """What many texts begin or end with.

    Attributes
    ----------
    place
        Whether they begin or end with it.
    text
        The longest text that all of them share there.
    n_texts
        How many distinct texts have it.
    """

    place: Literal["begin", "end"]
    text: str
    n_texts: int


def find_repeats(outcomes: Outcomes) -> Repeats:
    """Find texts that repeat, and those whose rows contradict each other.

    Contradictions are no fault: they are what two answers of one model look like, and a mean is made of them.
    They tell how far a score can be trusted.
    """
    numbers: dict[str, int] = {}
    text_ids = np.array([numbers.setdefault(text_key(text), len(numbers)) for text in outcomes.queries])
    n_rows = np.bincount(text_ids)
    rows = np.argsort(text_ids, kind="stable")
    rows = rows[n_rows[text_ids[rows]] > 1]
    if not len(rows):
        return Repeats(len(numbers), 0, 0, 0, 0, None)
    starts = np.flatnonzero(np.diff(text_ids[rows], prepend=-1))
    scores = outcomes.scores[rows]
    lowest = np.fmin.reduceat(scores, starts, axis=0)
    highest = np.fmax.reduceat(scores, starts, axis=0)
    differs = lowest < highest  # false where nothing was observed
    example = None
    if differs.any():
        text, model = (int(index) for index in np.argwhere(differs)[0])
        end = starts[text + 1] if text + 1 < len(starts) else len(rows)
        example = _conflict(outcomes, rows[starts[text] : end], model)
    return Repeats(
        n_texts=len(numbers),
        n_repeated_texts=len(starts),
        n_repeated_rows=len(rows),
        n_conflicts=int(differs.sum()),
        n_conflicting_texts=int(differs.any(axis=1).sum()),
        example=example,
    )


def find_templates(texts: Iterable[str], *, largest: int = 4) -> list[Template]:
    """Find what many texts begin or end with, such as an instruction, most texts first.

    Distinct texts are grouped by their first `TEMPLATE_CHARACTERS` characters, and again by their last: one
    pass and one dictionary each. Of a group, the longest beginning (or end) that all of it shares is the
    template. A template that is shorter, or stands in the middle, is not found.

    Parameters
    ----------
    texts
        The texts; equal ones count once.
    largest
        How many to return at most.

    Examples
    --------
    >>> sums = [f"Work out this sum and give only the number: {n} + {n}" for n in range(9)]
    >>> [(found.place, found.text, found.n_texts) for found in find_templates(sums)]
    [('begin', 'Work out this sum and give only the number: ', 9)]
    """
    distinct = list(dict.fromkeys(texts))
    enough = max(TEMPLATE_TEXTS, round(TEMPLATE_SHARE * len(distinct)))
    found = [
        *(Template("begin", *group) for group in _shared_beginnings(distinct, enough)),
        *(
            Template("end", beginning[::-1], n_texts)
            for beginning, n_texts in _shared_beginnings([text[::-1] for text in distinct], enough)
        ),
    ]
    return sorted(found, key=lambda template: (-template.n_texts, -len(template.text)))[:largest]


def _conflict(outcomes: Outcomes, rows: NDArray[np.intp], model: int) -> Conflict:
    scores = outcomes.scores[rows, model]
    low, high = int(np.nanargmin(scores)), int(np.nanargmax(scores))
    return Conflict(
        ids=(outcomes.ids[rows[low]], outcomes.ids[rows[high]]),
        model=outcomes.models[model],
        scores=(float(scores[low]), float(scores[high])),
    )


def _shared_beginnings(texts: Sequence[str], enough: int) -> list[tuple[str, int]]:
    groups: dict[str, list[str]] = {}
    for text in texts:
        if len(text) > TEMPLATE_CHARACTERS:
            groups.setdefault(text[:TEMPLATE_CHARACTERS], []).append(text)
    # What the least and the greatest of sorted texts share, all between them share.
    return [
        (_common_beginning(min(group), max(group)), len(group))
        for group in groups.values()
        if len(group) >= enough
    ]


def _common_beginning(one: str, other: str) -> str:
    differing = (
        position for position, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]
    )
    return one[: next(differing, min(len(one), len(other)))]


def calibration_fault(outcomes: Outcomes) -> str | None:
    """Say why nothing can be calibrated on outcomes; ``None`` where that can be tried."""
    if outcomes.n_models == 1:
        return f"there is one model, {show(outcomes.models[0])}, and so nothing to choose between"
    return None


def datasets_of_one_model(outcomes: Outcomes) -> dict[str, int]:
    """Return the datasets in which only one of several models was scored, and their numbers of queries."""
    if outcomes.n_models == 1:
        return {}
    numbers: dict[str, int] = {}
    dataset_ids = np.array([numbers.setdefault(dataset, len(numbers)) for dataset in outcomes.datasets])
    scored = np.zeros((len(numbers), outcomes.n_models), dtype=np.bool_)
    rows, columns = np.nonzero(~np.isnan(outcomes.scores))
    scored[dataset_ids[rows], columns] = True
    n_queries = np.bincount(dataset_ids)
    return {name: int(n_queries[i]) for name, i in numbers.items() if scored[i].sum() == 1}
