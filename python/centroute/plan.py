"""Plans: a model for each role of an agent, under one budget for all of them.

A role is a call of its own, worth what any other call is worth, so that the qualities of a plan's roles are
added up:

    maximise Σ_r (W · quality[r, m_r] − cost[r, m_r])        subject to Σ_r cost[r, m_r] ≤ max_cost

Without a limit every role then gets the model that a request in this role alone would get. A product of
qualities, the chance that no role fails, would need failures that are independent; they are not, since a hard
query is hard in every role. What each role changes is in :mod:`centroute.roles`, and the search, exact but
for the worst cases, in :mod:`centroute.knapsack`.

The plan is compared with the best single model in all roles: errors of one model's shared tables count for
all of its roles together, those of its offsets role by role, and models are taken as independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from centroute._decision_facts import DecisionFacts
from centroute._kernel import Decision, Policy
from centroute.errors import PolicyError
from centroute.knapsack import Selection, select
from centroute.roles import AS_SHARED, MAX_ROLES, RoleScores

_RESOLVED: Final = 1.96
"""A lead of this many standard errors is more than chance (95 %), as for decisions."""
_TOLERANCE: Final = 1e-6
"""Share of itself within which a limit holds, as in the kernel."""
_ROUNDING: Final = 1e-9
"""A lead no larger is none."""
_LARGEST: Final = 3.4e38
"""A limit that excludes nobody, for the kernel's single precision: that of a plan holds for all roles."""

_FOR_ONE_MODEL: Final = {
    "alpha": "give willingness_to_pay",
    "max_mean_cost": "give willingness_to_pay, or max_cost, the most that the whole plan may cost",
    "strong": "give allow, and willingness_to_pay or max_cost",
    "n_models": "a role has one model",
}
"""What no plan has, and what may be given instead."""

Candidate = tuple[str, float, float | None]
"""Name, predicted quality, predicted cost in USD or None."""
Decide = Callable[[Policy | None], Decision]
ErrorOf = Callable[[Sequence[tuple[int, float]], int], float | None]
"""Standard error of a model's quality, blended from clusters and weights; None where nobody took it."""


@dataclass(frozen=True, slots=True)
class RoleChoice:
    """The model of one role.

    Attributes
    ----------
    role, model
        Their names.
    quality
        Predicted quality in this role.
    cost
        Predicted cost in USD, None when unknown.
    calibrated
        Whether outcomes of the model in this role are behind the prediction; else it is that of the shared
        tables, with what is usual in the role where others have outcomes in it.
    """

    role: str
    model: str
    quality: float
    cost: float | None
    calibrated: bool


@dataclass(frozen=True, slots=True)
class Plan(DecisionFacts):
    """A model for each role.

    Attributes
    ----------
    roles
        In the order in which they were asked for.
    single
        The best model to take for all roles, under the same policy; None where each one passes the limit.
    single_quality, single_cost
        Its mean predicted quality over the roles, and its cost in USD for all of them, None when unknown.
    is_single_as_good
        Whether the lead of the plan over `single` is no more than 1.96 standard errors leave to chance; where
        those are not known, whether there is no lead.
    lead, lead_se
        By how much the plan is better, and the standard error of that: in USD for ``willingness_to_pay``, in
        USD saved where both reach the ``min_quality``, else in mean quality. None when unknown.
    is_optimal
        Whether no plan is predicted to be better. The search gives up on proving it where very many plans are
        equally good to within a per cent.
    best
        The decision for one call by the shared tables, under the same policy without its ``max_cost``.
    """

    roles: tuple[RoleChoice, ...]
    single: str | None
    single_quality: float | None
    single_cost: float | None
    is_single_as_good: bool
    lead: float | None
    lead_se: float | None
    is_optimal: bool
    best: Decision

    @property
    def models(self) -> dict[str, str]:
        """Model of each role, by their names."""
        return {choice.role: choice.model for choice in self.roles}

    @property
    def quality(self) -> float:
        """Mean predicted quality over the roles."""
        return sum(choice.quality for choice in self.roles) / len(self.roles)

    @property
    def cost(self) -> float | None:
        """Predicted cost in USD of all roles, None when one is unknown."""
        known = [choice.cost for choice in self.roles if choice.cost is not None]
        return sum(known) if len(known) == len(self.roles) else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a plan is chosen for; None is not asked for.

    Attributes
    ----------
    max_cost
        Most that all roles may cost together, USD.
    willingness_to_pay
        USD for one unit of quality of one role.
    min_quality
        Mean quality that is good enough: the cheapest plan that reaches it, else the best.
    """

    max_cost: float | None = None
    willingness_to_pay: float | None = None
    min_quality: float | None = None


class _Predicted:
    """What the candidates are predicted in each role; lists by role, then by place of the candidate.

    A cost that is unknown is infinite: it is needed for ties alone, the kernel refuses it for all else.
    """

    __slots__ = ("costs", "limit", "names", "qualities", "scores", "wanted")

    def __init__(
        self, candidates: Sequence[Candidate], roles: Sequence[RoleScores | None], wanted: Wanted
    ) -> None:
        self.names = [name for name, _, _ in candidates]
        self.wanted = wanted
        self.limit = math.inf if wanted.max_cost is None else wanted.max_cost * (1.0 + _TOLERANCE)
        self.scores = [
            [AS_SHARED if role is None else role.of(name) for name in self.names] for role in roles
        ]
        self.qualities = [
            [
                min(max(quality + score.quality_offset, 0.0), 1.0)
                for (_, quality, _), score in zip(candidates, row, strict=True)
            ]
            for row in self.scores
        ]
        self.costs = [
            [
                math.inf if cost is None else cost * score.cost_factor
                for (_, _, cost), score in zip(candidates, row, strict=True)
            ]
            for row in self.scores
        ]

    def quality(self, places: Sequence[int]) -> float:
        """Mean over the roles."""
        return sum(row[place] for row, place in zip(self.qualities, places, strict=True)) / len(places)

    def cost(self, places: Sequence[int]) -> float:
        """Sum over the roles."""
        return sum(row[place] for row, place in zip(self.costs, places, strict=True))

    def is_good_enough(self, places: Sequence[int]) -> bool:
        """Whether they reach the quality that was asked for."""
        least = self.wanted.min_quality
        return least is not None and self.quality(places) >= least - _TOLERANCE

    def value(self, places: Sequence[int]) -> float:
        """Sum over the roles of what is to be as high as can be."""
        amount = self.wanted.willingness_to_pay
        quality = len(places) * self.quality(places)
        return quality if amount is None else amount * quality - self.cost(places)

    def choose(self) -> Selection | None:
        """Place of the candidate of each role; None where all of them together pass the limit."""
        if self.wanted.min_quality is not None:
            found = self._cheapest(self.wanted.min_quality)
            if found is not None and -found.value <= self.limit:
                return found
        amount = self.wanted.willingness_to_pay
        return select(
            [
                [
                    (cost, quality if amount is None else amount * quality - cost, place)
                    for place, (quality, cost) in enumerate(zip(*row, strict=True))
                ]
                for row in zip(self.qualities, self.costs, strict=True)
            ],
            self.limit,
        )

    def _cheapest(self, min_quality: float) -> Selection | None:
        """The problem turned round: the most saved, for what the qualities may fall short of the best."""
        best = [max(row) for row in self.qualities]
        spare = sum(best) - len(best) * (min_quality - _TOLERANCE)
        return select(
            [
                [
                    (top - quality, -cost, place)
                    for place, (quality, cost) in enumerate(zip(*row, strict=True))
                ]
                for top, row in zip(best, zip(self.qualities, self.costs, strict=True), strict=True)
            ],
            spare,
        )

    def best_single(self) -> int | None:
        """Place of the best candidate to take for all roles; None where each passes the limit."""
        in_all = [(place,) * len(self.costs) for place in range(len(self.names))]
        affordable = [places for places in in_all if self.cost(places) <= self.limit]
        good = [places for places in affordable if self.is_good_enough(places)]
        if good:
            return min(good, key=self.cost)[0]
        # min keeps the first of equals, which is the cheapest.
        return min(affordable, key=lambda places: -self.value(places), default=(None,))[0]

    def lead(
        self, places: Sequence[int], single: int, variance_of: Callable[[str], float | None]
    ) -> tuple[float, float | None]:
        """By how much the places are better than one for all roles, and the standard error of that."""
        others = (single,) * len(places)
        if self.is_good_enough(places) and self.is_good_enough(others):
            return self.cost(others) - self.cost(places), 0.0
        amount = self.wanted.willingness_to_pay
        scale = 1.0 / len(places) if amount is None else 1.0
        lead = scale * (self.value(places) - self.value(others))
        # How many roles each has more than in the other.
        net: dict[int, int] = {}
        square = 0.0
        for row, place in zip(self.scores, places, strict=True):
            if place != single:
                net[place] = net.get(place, 0) + 1
                net[single] = net.get(single, 0) - 1
                square += row[place].quality_offset_se ** 2 + row[single].quality_offset_se ** 2
        for place, count in net.items():
            variance = variance_of(self.names[place])
            if variance is None:
                return lead, None
            square += count * count * variance
        return lead, scale * (1.0 if amount is None else amount) * math.sqrt(square)


def decide_plan(
    decide: Decide,
    roles: Sequence[str],
    policy: Policy | None,
    *,
    default: Policy,
    models: Sequence[str],
    scores: Mapping[str, RoleScores],
    error_of: ErrorOf,
) -> Plan:
    """Assign a model to each role.

    Parameters
    ----------
    decide
        The query under any policy for one call.
    roles
        Their names.
    policy
        What this request wants.
    default
        The artifact's default, which holds for what the policy leaves open.
    models
        Names of the pool.
    scores
        What the roles change, for those with outcomes.
    error_of
        Standard errors of the shared tables.

    Raises
    ------
    PolicyError
        As :meth:`centroute.Router.plan`.
    """
    names = _checked(roles)
    asked = policy or Policy()
    wanted = _wanted(asked, default)
    best = decide(_for_all_candidates(asked, has_limit=wanted.max_cost is not None))
    fallback = asked.fallback or default.fallback
    # Cheapest first, then by id, as ties go.
    ordered = sorted(best.predictions, key=lambda one: (math.inf if one[2] is None else one[2], one[0]))
    candidates = [(models[model_id], quality, cost) for model_id, quality, cost in ordered]
    if fallback is not None and not best.in_distribution:
        candidates, wanted = [one for one in candidates if one[0] == fallback], Wanted()
    of_role = [scores.get(name) for name in names]
    predicted = _Predicted(candidates, of_role, wanted)
    found = predicted.choose()
    if found is None:
        if fallback is None:
            cheapest = sum(min(row) for row in predicted.costs)
            raise PolicyError(
                f"plan: max_cost={wanted.max_cost:g} USD leaves no candidate: the cheapest models for "
                f"{', '.join(names)} cost {cheapest:.3g} USD together"
            )
        predicted = _Predicted([one for one in candidates if one[0] == fallback], of_role, Wanted())
        found = predicted.choose()
    return _plan(names, predicted, found, best, lambda model: error_of(best.clusters, models.index(model)))  # type: ignore[arg-type]


def _plan(
    names: Sequence[str],
    predicted: _Predicted,
    found: Selection,
    best: Decision,
    error_of: Callable[[str], float | None],
) -> Plan:
    def variance_of(model: str) -> float | None:
        error = error_of(model)
        return None if error is None else error * error

    places = found.ids
    choices = [
        RoleChoice(
            role,
            predicted.names[place],
            predicted.qualities[row][place],
            _known(predicted.costs[row][place]),
            calibrated=predicted.scores[row][place].n_outcomes > 0,
        )
        for row, (role, place) in enumerate(zip(names, places, strict=True))
    ]
    single = predicted.best_single()
    lead, error = (None, None) if single is None else predicted.lead(places, single, variance_of)
    in_all = None if single is None else (single,) * len(names)
    return Plan(
        roles=tuple(choices),
        single=None if single is None else predicted.names[single],
        single_quality=None if in_all is None else predicted.quality(in_all),
        single_cost=None if in_all is None else _known(predicted.cost(in_all)),
        is_single_as_good=lead is not None and lead <= max(_RESOLVED * (error or 0.0), _ROUNDING),
        lead=lead,
        lead_se=error,
        is_optimal=found.is_optimal,
        best=best,
    )


def _known(cost: float) -> float | None:
    return cost if cost < math.inf else None


def _checked(roles: Sequence[str]) -> tuple[str, ...]:
    if isinstance(roles, str):
        raise PolicyError(f"roles: got one string, {roles[:80]!r}, wanted a sequence of them")
    names = tuple(roles)
    if not names:
        raise PolicyError("roles: got none, wanted one or more")
    if len(names) > MAX_ROLES:
        raise PolicyError(f"roles: got {len(names)}, wanted at most {MAX_ROLES}")
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise PolicyError(f"roles[{place}]: got {name!r}, wanted a name")
        if name in names[:place]:
            raise PolicyError(f"roles: {name!r} is there twice")
    return names


@lru_cache(maxsize=256)
def _for_all_candidates(policy: Policy, *, has_limit: bool) -> Policy:
    # Kept, since a policy is compiled once for each router.
    return policy.replace(max_cost=_LARGEST if has_limit else None)


@lru_cache(maxsize=256)
def _wanted(policy: Policy, default: Policy) -> Wanted:
    objectives = ("willingness_to_pay", "min_quality", *_FOR_ONE_MODEL)
    holds = policy if any(getattr(policy, name) is not None for name in objectives) else default
    for name, advice in _FOR_ONE_MODEL.items():
        if getattr(holds, name) is not None:
            raise PolicyError(f"policy {name}: it says nothing of a plan; {advice}")
    max_cost = default.max_cost if policy.max_cost is None else policy.max_cost
    return Wanted(max_cost, holds.willingness_to_pay, holds.min_quality)
