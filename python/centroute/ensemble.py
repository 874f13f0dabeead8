"""Ensembles: which models to ask about one query, and what the vote of each weighs.

A set of models is worth its *separation*: how far the weighted votes for the right answer lead those for a
wrong one, in standard deviations. With ``mean`` and ``variance`` of each model's vote difference at its
predicted quality (:mod:`centroute.agreement`), ``z = mean / sqrt(variance)`` and ``R`` their correlations,

    separation² = zᵀ R⁻¹ z        weight_m = log(q_m / w_m) · (R⁻¹ z)_m / z_m

The first is Fisher's criterion (1936). The weight is the log-odds of the vote, which is right for models that
err each for itself (Nitzan & Paroush 1982), less what other models of the set say as well; without
correlations the factor is 1.

Sets are grown one model at a time, each the one that adds most, by Cholesky's factors: one more model is one
more column. Under a limit of cost they are grown twice, by what a model adds and by what it adds for its
cost, and the better set is taken, as for knapsacks (Khuller, Moss & Naor 1999). In plain Python, so that
NumPy need not be there; a decision takes some tens of microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

from centroute._decision_facts import DecisionFacts
from centroute._kernel import Decision, Policy
from centroute.agreement import Agreement, n_samples, signed_root, vote_moments
from centroute.errors import PolicyError

MAX_MODELS: Final = 64
"""Models of an ensemble, whatever the policy allows."""
_LEAST_VARIANCE: Final = 0.02
"""Share of a model's variance that the set must not know yet; less, and it is a copy of what is there."""
_TOLERANCE: Final = 1e-6
"""Share of itself within which a limit of cost holds, as in the kernel."""

_FOR_ONE_MODEL: Final = {
    "alpha": "give willingness_to_pay",
    "max_mean_cost": "give willingness_to_pay, or max_cost, the most that all models of a query may cost",
    "strong": "give n_models and allow",
}
"""Objectives that no ensemble has, and what may be given instead."""

Decide = Callable[[Policy | None], Decision]
Candidate = tuple[int, float, float | None]
"""Model id, predicted quality, predicted cost in USD or None."""


@dataclass(frozen=True, slots=True)
class EnsembleDecision(DecisionFacts):
    """The models to ask about one query, in the order in which to ask them.

    Attributes
    ----------
    models
        Names, the weightiest vote first.
    weights
        What each vote weighs, above 0; only their ratios matter.
    quality
        Predicted chance that the weighted vote is right.
    qualities, costs
        Predicted quality of each model alone, and its cost in USD for this query, None when unknown.
    best
        The decision for one model under the same policy.
    """

    models: tuple[str, ...]
    weights: tuple[float, ...]
    quality: float
    qualities: tuple[float, ...]
    costs: tuple[float | None, ...]
    best: Decision

    @property
    def cost(self) -> float | None:
        """Predicted cost in USD when all are asked, None when one is unknown; early stopping costs less."""
        known = [cost for cost in self.costs if cost is not None]
        return sum(known) if len(known) == len(self.costs) else None

    @property
    def n_calls(self) -> int:
        """Calls when all are asked: an entry ``model@n5`` is five."""
        return sum(map(n_samples, self.models))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a set of models is chosen for; None is not asked for.

    Attributes
    ----------
    n_models
        Most models.
    max_cost
        Most that all of them may cost together, USD.
    willingness_to_pay
        USD for one unit of quality: models are added while they are worth their cost.
    min_quality
        Chance of a right vote at which no further model is added.
    """

    n_models: int = MAX_MODELS
    max_cost: float | None = None
    willingness_to_pay: float | None = None
    min_quality: float | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A set of models: ids, weights, ``separation`` and chance of a right vote, cost in USD or None."""

    model_ids: tuple[int, ...]
    weights: tuple[float, ...]
    separation: float
    quality: float
    cost: float | None


def choose_ensemble(
    candidates: Iterable[Candidate],
    agreement: Agreement,
    wanted: Wanted,
    *,
    n_choices: float | None = None,
) -> Chosen:
    """Choose a set of models and weigh their votes.

    Parameters
    ----------
    candidates
        At least one; costs must be known where `wanted` names a price.
    agreement
        How the votes of the pool hang together.
    wanted
        Limits and objective.
    n_choices
        Choices of this query, where they are known; those of the calibration data otherwise.

    Returns
    -------
    Chosen
        At least one model; none whose vote would weigh nothing.
    """
    pool = _Votes(candidates, agreement, n_choices or agreement.n_choices)
    sets = [_grow(pool, wanted, for_cost=False)]
    if wanted.max_cost is not None or wanted.min_quality is not None:
        sets.append(_grow(pool, wanted, for_cost=True))
    found = [_weighed(growing) for growing in sets]
    goal = math.inf if wanted.min_quality is None else wanted.min_quality
    # The cheaper of those that reach the goal, else the better.
    return max(found, key=lambda chosen: (min(chosen.quality, goal), -(chosen.cost or 0.0)))


class _Votes:
    """The candidates as votes, by place: cheapest first, then by id, as ties go."""

    __slots__ = ("agreement", "candidates", "costs", "log_odds", "scores")

    def __init__(self, candidates: Iterable[Candidate], agreement: Agreement, n_choices: float) -> None:
        self.agreement = agreement
        self.candidates = sorted(candidates, key=lambda one: (math.inf if one[2] is None else one[2], one[0]))
        self.costs = [cost or 0.0 for _, _, cost in self.candidates]
        self.scores: list[float] = []
        self.log_odds: list[float] = []
        trust, means, answered = agreement.trust, agreement.mean_quality, agreement.answered
        for model_id, quality, _ in self.candidates:
            held = means[model_id] + trust * (quality - means[model_id])
            mean, variance, log_odds = vote_moments(held, answered[model_id], n_choices)
            self.scores.append(mean / math.sqrt(variance))
            self.log_odds.append(log_odds)

    def quality(self, separation: float) -> float:
        """Chance that a vote of a separation is right."""
        exponent = self.agreement.intercept + self.agreement.slope * signed_root(separation)
        return 1.0 / (1.0 + math.exp(-exponent)) if exponent > -700 else 0.0


class _Growing:
    """A set that grows, with what each candidate would still add to it; lists go by place."""

    __slots__ = (
        "columns",
        "places",
        "pool",
        "quality",
        "roots",
        "scores",
        "spent",
        "squared",
        "steps",
        "variances",
    )

    def __init__(self, pool: _Votes, places: Iterable[int] = ()) -> None:
        self.pool = pool
        self.places: list[int] = []
        # What of a candidate's score and variance the set does not say already.
        self.scores = pool.scores
        self.variances = [1.0] * len(pool.scores)
        self.columns: list[list[float]] = []
        self.roots: list[float] = []
        self.steps: list[float] = []
        self.squared = self.spent = self.quality = 0.0
        for place in places:
            self.add(place)

    def open_places(self, limit: float) -> list[int]:
        """Candidates that can be paid for and are no copies of what is there."""
        costs, left = self.pool.costs, limit - self.spent
        if not self.places:
            return [place for place, cost in enumerate(costs) if cost <= left]
        scores, variances, places = self.scores, self.variances, self.places
        return [
            place
            for place, cost in enumerate(costs)
            if scores[place] > 0.0
            and variances[place] >= _LEAST_VARIANCE
            and cost <= left
            and place not in places
        ]

    def gain(self, place: int) -> float:
        """What a candidate adds to the squared separation."""
        score = self.scores[place]
        return score * abs(score) / self.variances[place]

    def add(self, place: int) -> None:
        """Take a candidate into the set, and out of the others what it says."""
        root = math.sqrt(self.variances[place])
        step = self.scores[place] / root
        row = self.pool.agreement.correlation[self.pool.candidates[place][0]]
        column = [row[model_id] for model_id, _, _ in self.pool.candidates]
        for known in self.columns:
            share = known[place]
            column = [value - other * share for value, other in zip(column, known, strict=True)]
        column = [value / root for value in column]
        self.scores = [score - value * step for score, value in zip(self.scores, column, strict=True)]
        self.variances = [
            variance - value * value for variance, value in zip(self.variances, column, strict=True)
        ]
        self.columns.append(column)
        self.roots.append(root)
        self.steps.append(step)
        self.places.append(place)
        self.squared += step * abs(step)
        self.quality = self.pool.quality(signed_root(self.squared))
        self.spent += self.pool.costs[place]

    def shares(self) -> list[float]:
        """``R⁻¹ z`` of the set, one number a model."""
        found = [0.0] * len(self.places)
        for row in range(len(found) - 1, -1, -1):
            column = self.columns[row]
            known = sum(column[self.places[below]] * found[below] for below in range(row + 1, len(found)))
            found[row] = (self.steps[row] - known) / self.roots[row]
        return found


def _grow(pool: _Votes, wanted: Wanted, *, for_cost: bool) -> _Growing:
    """A set as it is wanted."""
    growing = _Growing(pool)
    limit = math.inf if wanted.max_cost is None else wanted.max_cost * (1.0 + _TOLERANCE)
    goal = math.inf if wanted.min_quality is None else wanted.min_quality
    value = growing.gain
    if wanted.willingness_to_pay is not None:
        value = partial(_worth, growing, wanted.willingness_to_pay)
    elif for_cost:
        value = partial(_for_its_cost, growing)
    while len(growing.places) < wanted.n_models and growing.quality < goal:
        places = growing.open_places(limit)
        if not places:
            break
        # max keeps the first of equals, which is the cheapest.
        best = max(places, key=value)
        if growing.places and value(best) <= 0.0:
            break
        growing.add(best)
    return growing


def _worth(growing: _Growing, willingness_to_pay: float, place: int) -> float:
    """What a candidate adds to the vote in USD, less what it costs."""
    better = growing.pool.quality(signed_root(growing.squared + growing.gain(place))) - growing.quality
    return willingness_to_pay * better - growing.pool.costs[place]


def _for_its_cost(growing: _Growing, place: int) -> float:
    """What a candidate adds for one USD; what is free comes first."""
    gain, cost = growing.gain(place), growing.pool.costs[place]
    if cost > 0.0:
        return gain / cost
    return math.inf if gain > 0.0 else gain


def _weighed(growing: _Growing) -> Chosen:
    """The set with its weights; models that the others leave no weight are dropped."""
    pool, places, shares = growing.pool, growing.places, growing.shares()
    while len(places) > 1:
        # Predicted below chance, or a copy of a better model: a vote of it would count against its answer.
        idle = [
            place
            for place, share in zip(places, shares, strict=True)
            if share * pool.scores[place] <= 0.0 or pool.log_odds[place] <= 0.0
        ]
        if not idle:
            break
        worst = min(idle, key=lambda place: pool.scores[place])
        places = [place for place in places if place != worst]
        shares = _Growing(pool, places).shares()
    weights = [1.0]
    if len(places) > 1:
        weights = [
            pool.log_odds[place] * share / pool.scores[place]
            for place, share in zip(places, shares, strict=True)
        ]
    separation = signed_root(
        sum(share * abs(pool.scores[place]) for place, share in zip(places, shares, strict=True))
    )
    order = sorted(range(len(places)), key=lambda index: (-weights[index], places[index]))
    costs = [pool.candidates[place][2] for place in places]
    known = [cost for cost in costs if cost is not None]
    return Chosen(
        model_ids=tuple(pool.candidates[places[index]][0] for index in order),
        weights=tuple(weights[index] for index in order),
        separation=separation,
        quality=pool.quality(separation),
        cost=sum(known) if len(known) == len(costs) else None,
    )


def decide_ensemble(
    decide: Decide,
    policy: Policy,
    *,
    default: Policy,
    models: Sequence[str],
    agreement: Agreement,
    n_choices: float | None = None,
) -> EnsembleDecision:
    """Decide which models to ask about one query.

    Parameters
    ----------
    decide
        The query under any policy for one model.
    policy
        What this request wants.
    default
        The artifact's default, which holds for what the policy leaves open.
    models
        Names of the pool.
    agreement
        How their votes hang together.
    n_choices
        Choices of this query, where they are known.

    Raises
    ------
    PolicyError
        As :meth:`centroute.Router.route_ensemble`.
    """
    wanted = _wanted(policy, default)
    if n_choices is not None and not 2 <= n_choices < math.inf:
        raise PolicyError(f"n_choices={n_choices}: wanted 2 or more")
    best = decide(_for_one_model(policy))
    candidates = best.predictions
    fallback = policy.fallback or default.fallback
    if fallback == best.model and not (best.in_distribution and len(candidates) > 1):
        candidates = candidates[:1]
    elif len(candidates) == 1 and wanted.max_cost is None:
        raise PolicyError(f"ensemble: {best.model} is the only candidate, and one model holds no vote")
    if len(candidates) == 1:
        return EnsembleDecision((best.model,), (1.0,), best.quality, (best.quality,), (best.cost,), best)
    chosen = choose_ensemble(candidates, agreement, wanted, n_choices=n_choices)
    by_id = {model_id: (quality, cost) for model_id, quality, cost in candidates}
    return EnsembleDecision(
        models=tuple(models[model_id] for model_id in chosen.model_ids),
        weights=chosen.weights,
        quality=chosen.quality,
        qualities=tuple(by_id[model_id][0] for model_id in chosen.model_ids),
        costs=tuple(by_id[model_id][1] for model_id in chosen.model_ids),
        best=best,
    )


@lru_cache(maxsize=256)
def _for_one_model(policy: Policy) -> Policy:
    # Kept, since a policy is compiled once for each router.
    return policy.replace(n_models=None)


@lru_cache(maxsize=256)
def _wanted(policy: Policy, default: Policy) -> Wanted:
    objectives = ("willingness_to_pay", "min_quality", *_FOR_ONE_MODEL)
    holds = policy if any(getattr(policy, name, None) is not None for name in objectives) else default
    for name, advice in _FOR_ONE_MODEL.items():
        if getattr(holds, name, None) is not None:
            raise PolicyError(
                f"policy {name}: it compares single models and says nothing of a vote; {advice}"
            )
    max_cost = default.max_cost if policy.max_cost is None else policy.max_cost
    limits = (policy.n_models, max_cost, holds.willingness_to_pay, holds.min_quality)
    if all(limit is None for limit in limits):
        raise PolicyError(
            "ensemble: the policy does not say how many models; give n_models, max_cost, willingness_to_pay "
            "or min_quality"
        )
    return Wanted(
        min(policy.n_models or MAX_MODELS, MAX_MODELS), max_cost, holds.willingness_to_pay, holds.min_quality
    )
