"""Estimating what a role changes: outcomes in, a :class:`centroute.roles.RoleScores` of each role out.

The residual of an outcome is its score less what tables predict that have not seen the query. Its mean over a
role is the role's usual offset, drawn to 0; that of one model in it is drawn to the usual one,

    offset[m] = usual + d_m · n_m / (n_m + k),        d_m = mean residual of m − usual,   k = s² / tau²

with ``s²`` the variance of a residual and ``tau²`` that of the models' true deviations, as the method of
moments finds it (empirical Bayes; Efron & Morris, "Data analysis using Stein's estimator", 1975). Where the
models of a role differ by no more than chance, they all have the usual offset. Costs go likewise by ratios.
"""

import numpy as np
from numpy.typing import NDArray

from centroute.datasets import Outcomes
from centroute.errors import DataError
from centroute.roles import MAX_ROLES, RoleScore, RoleScores

MOST_USD = 1e6
"""A predicted cost of this or more stands for one that is not known."""
STRENGTH = 10.0
"""Queries of a role that its usual offset and the models' cost factors must outweigh."""
_LEAST_STRENGTH, _MOST_STRENGTH = 1.0, 1000.0
_BINARY_VARIANCE = 0.25
"""Of a residual, where a role has too few outcomes to show it: the most that scores in 0..1 have."""

Table = NDArray[np.float64]


def estimate_roles(outcomes: Outcomes, *, predicted: tuple[Table, Table]) -> dict[str, RoleScores] | None:
    """Estimate what each role that the outcomes name changes.

    Parameters
    ----------
    outcomes
        Scores and costs, with the role of each query.
    predicted
        Quality and cost of every model ``[n_queries, n_models]`` by tables that have not seen the row. A
        quality below 0 stands for a model that these tables lack, and a cost of `MOST_USD` or more for one
        that they do not know.

    Returns
    -------
    dict[str, RoleScores] | None
        By role, in the order of their names; None where the outcomes name no role.

    Raises
    ------
    DataError
        If there are more roles than a router holds.
    """
    if outcomes.roles is None:
        return None
    check_roles(outcomes)
    rows_of = np.array(outcomes.roles)
    return {
        role: _scores_of(outcomes.subset(rows_of == role), *(table[rows_of == role] for table in predicted))
        for role in sorted(set(outcomes.roles) - {""})
    }


def check_roles(outcomes: Outcomes) -> None:
    """Refuse outcomes that name more roles than a router holds.

    Raises
    ------
    DataError
        Names their number.
    """
    n_roles = len(set(outcomes.roles or ()) - {""})
    if n_roles > MAX_ROLES:
        raise DataError(
            f"the outcomes name {n_roles} roles, a router holds at most {MAX_ROLES}; is something else in "
            "the field role?"
        )


def _scores_of(outcomes: Outcomes, quality: Table, cost: Table) -> RoleScores:
    """What one role changes, from its rows."""
    known = ~np.isnan(outcomes.scores) & (quality >= 0)
    residuals = np.where(known, outcomes.scores - quality, 0.0)
    counts = known.sum(axis=0)
    means = residuals.sum(axis=0) / np.maximum(counts, 1)
    by_query = residuals.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    usual = float(by_query.sum() / (known.any(axis=1).sum() + STRENGTH))
    variance, strength = _spread(residuals, known, means, usual)
    offsets = usual + (means - usual) * counts / (counts + strength)
    errors = np.sqrt(variance / (counts + strength))
    factors, usual_factor = _cost_factors(outcomes.costs, cost, known)
    return RoleScores(
        models={
            name: RoleScore(
                float(np.clip(offsets[place], -1.0, 1.0)),
                float(min(errors[place], 1.0)),
                float(factors[place]),
                int(counts[place]),
            )
            for place, name in enumerate(outcomes.models)
            if counts[place]
        },
        usual=RoleScore(usual, float(min(np.sqrt(variance / strength), 1.0)), usual_factor, 0),
    )


def _spread(residuals: Table, known: NDArray[np.bool_], means: Table, usual: float) -> tuple[float, float]:
    """Variance of a residual around its model's mean, and the outcomes that a model must outweigh."""
    counts = known.sum(axis=0)
    free = int(counts.sum() - (counts > 0).sum())
    squares = np.where(known, (residuals - means) ** 2, 0.0).sum()
    # One pseudo-outcome of the largest variance keeps scores that are all alike from being certain.
    variance = float((squares + _BINARY_VARIANCE) / (free + 1))
    seen = counts > 0
    between = (counts[seen] * (means[seen] - usual) ** 2 - variance).sum() / max(int(counts.sum()), 1)
    strength = variance / between if between > 0 else np.inf
    return variance, float(np.clip(strength, _LEAST_STRENGTH, _MOST_STRENGTH))


def _cost_factors(costs: Table, predicted: Table, known: NDArray[np.bool_]) -> tuple[Table, float]:
    """Of each model, and the usual one: what was paid over what was predicted."""
    priced = known & ~np.isnan(costs) & (predicted > 0) & (predicted < MOST_USD)
    counts = priced.sum(axis=0)
    paid, expected = (np.where(priced, table, 0.0).sum(axis=0) for table in (costs, predicted))
    # By model: one that is dear does not outweigh the others.
    ratios = np.where(counts > 0, paid / np.where(counts > 0, expected, 1.0), 1.0)
    n_queries = int(priced.any(axis=1).sum())
    mean_ratio = float((counts * ratios).sum() / max(int(counts.sum()), 1))
    usual = (n_queries * mean_ratio + STRENGTH) / (n_queries + STRENGTH)
    return (counts * ratios + STRENGTH * usual) / (counts + STRENGTH), usual
