"""Estimating how votes hang together: outcomes in, an :class:`centroute.agreement.Agreement` out.

Where the outcomes hold answers, wrong ones are compared too: two models that err alike agree, two that err
each in its own way do not. Where they hold scores alone, wrong answers are taken to be spread over all
choices, and what is left is that models are right on the same queries.

Two things need predictions of rows that no table has seen (cross-fitting), and are measured on votes over
them: how far a query's predictions are to be trusted, and how often a vote of a given separation is right.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from centroute.agreement import (
    DEFAULT_CHOICES,
    MAX_CHOICES,
    SAME_MODEL,
    Agreement,
    accuracy_line,
    is_same_model,
    signed_root,
)
from centroute.datasets import Answers, Outcomes
from centroute.datasets.answers import NOT_OBSERVED
from centroute.datasets.observed import observed_means
from centroute.ensemble import Chosen, Wanted, choose_ensemble

MAX_MODELS = 256
"""Models of a pool above which pairs are not estimated: they would be most of the router file."""
STRENGTH = 10.0
"""Queries that a pair's own correlation must outweigh to leave the pool's mean."""
DEFAULT_TRUST = 0.5
"""Where answers do not show another to be better. On real votes any from 0.4 to 0.8 did as well."""
TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIZES = (3, 5)
"""Models of the votes that the trust is chosen by."""
MAX_ROWS = 1500
"""Rows that are voted on; more do not move the choice."""
FEWEST_ROWS = 50
"""Fewer votes say nothing of the trust."""
PRIOR_STRENGTH = 2.5
"""Curvature that the measured line must outweigh: that of ten queries on whose answer nobody would bet."""

Table = NDArray[np.float64]


def estimate_agreement(outcomes: Outcomes, *, predicted: Table | None = None) -> Agreement | None:
    """Estimate how the votes of a pool hang together.

    Parameters
    ----------
    outcomes
        Scores, and answers where they were kept.
    predicted
        Quality of every model ``[n_queries, n_models]`` by tables that have not seen the row; needed for what
        is measured on votes.

    Returns
    -------
    Agreement | None
        None for a pool that is too large.
    """
    if outcomes.n_models > MAX_MODELS:
        return None
    answers = outcomes.answers
    n_choices = DEFAULT_CHOICES if answers is None else count_choices(answers)
    intercept, slope = accuracy_line(n_choices)
    first = Agreement(
        n_choices=n_choices,
        mean_quality=_within_unit(np.nan_to_num(observed_means(outcomes.scores), nan=0.5)),
        answered=_within_unit(_answered(outcomes)),
        correlation=_correlation(outcomes, n_choices),
        trust=DEFAULT_TRUST,
        intercept=intercept,
        slope=slope,
    )
    if predicted is None:
        return first
    means = np.array(first.mean_quality)
    # A model that a fold's tables lack is predicted below 0, and held at its mean.
    deviation = np.where(predicted >= 0, predicted - means, 0.0)

    def trusting(trust: float) -> Agreement:
        correlation = _correlation(outcomes, n_choices, means + trust * deviation)
        return replace(first, trust=trust, correlation=correlation)

    if answers is None or outcomes.n_models == 1:
        return trusting(DEFAULT_TRUST)
    observed = (answers.given > NOT_OBSERVED).any(axis=1)
    rows = np.flatnonzero(observed & (answers.right >= 0) & (predicted >= 0).all(axis=1))
    if len(rows) < FEWEST_ROWS:
        return trusting(DEFAULT_TRUST)
    rows = rows[:: max(1, len(rows) // MAX_ROWS)]
    return _measured_on_votes([trusting(trust) for trust in TRUSTS], answers, predicted, rows)


def count_choices(answers: Answers) -> float:
    """How many choices the right answers spread over: their perplexity, from 2 to `MAX_CHOICES`.

    Examples
    --------
    >>> right = np.array([0, 1, 2, 3], dtype=np.int32)
    >>> count_choices(Answers(("A", "B", "C", "D"), right[:, None], right))
    4.0
    """
    counts = np.bincount(answers.right[answers.right >= 0], minlength=1).astype(np.float64)
    if not counts.any():
        return DEFAULT_CHOICES
    shares = counts[counts > 0] / counts.sum()
    return round(float(np.clip(np.exp(-(shares * np.log(shares)).sum()), 2.0, MAX_CHOICES)), 4)


def _answered(outcomes: Outcomes) -> Table:
    """Share of each model's answers that could be read, ``[n_models]``; 1 where none is known."""
    if outcomes.answers is None:
        return np.ones(outcomes.n_models)
    given = outcomes.answers.given
    observed = (given > NOT_OBSERVED).sum(axis=0)
    return np.asarray(np.where(observed > 0, (given >= 0).sum(axis=0) / np.maximum(observed, 1), 1.0))


def _correlation(
    outcomes: Outcomes, n_choices: float, held: Table | None = None
) -> tuple[tuple[float, ...], ...]:
    """Correlations of vote differences around their expectation, each drawn to the mean of all pairs.

    Parameters
    ----------
    outcomes
        Scores, and answers where they were kept.
    n_choices
        Choices of a query.
    held
        Quality ``[n_queries, n_models]`` that votes will be weighed by; the models' means when not given.
        What it foretells is in the weights already, and no correlation.
    """
    products, counts = _residual_products(outcomes, n_choices, held)
    spread = np.sqrt(np.outer(products.diagonal(), products.diagonal()))
    below = np.tril(np.ones_like(products, dtype=np.bool_), -1)
    known = below & (counts > 1) & (spread > 0)
    found = np.clip(products / np.where(spread > 0, spread, 1.0), -1.0, 1.0)
    weight = counts[known].sum()
    usual = float((found[known] * counts[known]).sum() / weight) if weight else 0.0
    drawn = (found * counts + STRENGTH * usual) / (counts + STRENGTH)
    table = np.where(known, drawn, usual)
    for first, name in enumerate(outcomes.models):
        for second in range(first):
            if not known[first, second] and is_same_model(name, outcomes.models[second]):
                table[first, second] = SAME_MODEL
    table = np.where(below, table, 0.0)
    table += table.T + np.eye(outcomes.n_models)
    return tuple(tuple(row) for row in table.round(4).tolist())


def _residual_products(
    outcomes: Outcomes, n_choices: float, held: Table | None
) -> tuple[Table, NDArray[np.float64]]:
    """Mean products of the residuals of every two models ``[n_models, n_models]``, and over how many queries.

    A vote difference is that of one wrong choice at random, see :mod:`centroute.agreement`: its mean and mean
    square over the choices are known by query, and so is its product with another model's.
    """
    others = n_choices - 1.0
    answers = outcomes.answers
    if answers is None:
        known = ~np.isnan(outcomes.scores)
        right = np.where(known, outcomes.scores, 0.0).astype(np.float64)
        wrong = np.where(known, 1.0 - right, 0.0)
    else:
        known = (answers.given > NOT_OBSERVED) & (answers.right >= 0)[:, None]
        hits = answers.given == answers.right[:, None]
        right = (known & hits).astype(np.float64)
        wrong = (known & ~hits & (answers.given >= 0)).astype(np.float64)
    mean, square = right - wrong / others, right + wrong / others
    expected = np.where(known, mean, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    if held is not None:
        expected = held - np.maximum(_answered(outcomes) - held, 0.0) / others
    residual = np.where(known, mean - expected, 0.0)
    counts = known.astype(np.float64).T @ known.astype(np.float64)
    sums = residual.T @ residual
    if answers is not None:
        # Wrong on both sides: -1 · -1 where the answers are equal, where the means say by chance.
        chance = (wrong / others).T @ (wrong / others)
        for first in range(outcomes.n_models):
            same = (answers.given == answers.given[:, [first]]) * wrong * wrong[:, [first]]
            sums[first] += same.sum(axis=0) / others - chance[first]
    np.fill_diagonal(sums, (residual**2 + np.where(known, square - mean**2, 0.0)).sum(axis=0))
    return sums / np.maximum(counts, 1.0), counts


def _measured_on_votes(
    candidates: Sequence[Agreement], answers: Answers, predicted: Table, rows: NDArray[np.intp]
) -> Agreement:
    """Choose by the trust, and fit how often a vote of a given separation is right."""
    n_models = predicted.shape[1]
    sizes = [size for size in SIZES if size <= n_models] or [n_models]
    points = [_votes_on(rows, answers, predicted, candidate, sizes) for candidate in candidates]
    accuracy = [
        np.array([is_right for _, is_right in found], dtype=np.float64).reshape(-1, len(sizes)).mean(axis=1)
        for found in points
    ]
    place = _best(accuracy, default=TRUSTS.index(DEFAULT_TRUST))
    chosen = candidates[place]
    intercept, slope = _logistic_line(
        [*points[place], *_votes_on(rows, answers, predicted, chosen, [1])],
        start=(chosen.intercept, chosen.slope),
        weight=1.0 / (len(sizes) + 1),
    )
    return replace(chosen, intercept=intercept, slope=slope)


def _best(accuracy: Sequence[Table], *, default: int) -> int:
    """Place of what is right most often, by query, where it beats the default by more than its error."""
    best = max(range(len(accuracy)), key=lambda place: accuracy[place].mean())
    better = accuracy[best] - accuracy[default]
    return best if better.mean() > better.std() / np.sqrt(len(better)) else default


def _votes_on(
    rows: NDArray[np.intp], answers: Answers, predicted: Table, agreement: Agreement, sizes: Sequence[int]
) -> list[tuple[float, bool]]:
    """Separation of the ensemble of each size on each query, and whether its vote was right."""
    points = []
    for row in rows.tolist():
        given = answers.given[row].tolist()
        candidates = [
            (model_id, value, None)
            for model_id, value in enumerate(predicted[row].tolist())
            if given[model_id] > NOT_OBSERVED
        ]
        for size in sizes:
            chosen = choose_ensemble(candidates, agreement, Wanted(n_models=size))
            points.append((chosen.separation, _is_right(chosen, answers, row)))
    return points


def _is_right(chosen: Chosen, answers: Answers, row: int) -> bool:
    counts: dict[int, float] = {}
    for model_id, weight in zip(chosen.model_ids, chosen.weights, strict=True):
        answer = int(answers.given[row, model_id])
        if answer >= 0:
            counts[answer] = counts.get(answer, 0.0) + weight
    return bool(counts) and max(counts, key=counts.__getitem__) == int(answers.right[row])


def _logistic_line(
    points: Sequence[tuple[float, bool]], *, start: tuple[float, float], weight: float
) -> tuple[float, float]:
    """Intercept and slope of a logistic regression by Newton's steps, drawn to ``start``.

    ``weight`` is that of a point: a query gives several.
    """
    separations = np.array([signed_root(separation) for separation, _ in points])
    right = np.array([is_right for _, is_right in points], dtype=np.float64)
    design = np.column_stack([np.ones_like(separations), separations])
    origin = np.array(start)
    line = origin.copy()
    for _ in range(20):
        chance = 1.0 / (1.0 + np.exp(-(design @ line)))
        gradient = weight * (design.T @ (right - chance)) - PRIOR_STRENGTH * (line - origin)
        curvature = weight * (design.T * (chance * (1 - chance))) @ design + PRIOR_STRENGTH * np.eye(2)
        step = np.clip(np.linalg.solve(curvature, gradient), -2.0, 2.0)
        line = line + step
        if np.abs(step).max() < 1e-9:
            break
    return round(float(line[0]), 6), round(max(float(line[1]), 0.0), 6)


def _within_unit(values: Table) -> tuple[float, ...]:
    return tuple(np.clip(values, 0.0, 1.0).round(6).tolist())
