"""Two axes: which model, and how much of it.

Entries ``model@effort`` and ``model@nK`` (K samples and their vote) let a request choose both. How much more
to spend on one model against a better model is what compute-optimal scaling asks (Snell et al., arXiv
2408.03314). Four ways to choose are measured at the same amounts of willingness to pay ``W``:

- *both*: any entry, for each request;
- *models only*: any model for each request, at the one effort of it that is worth most on average;
- *efforts only*: the one model whose best entry is worth most on average, at any effort for each request;
- *fixed*: that one entry for all.

What is worth most on average is told by the calibration data, ``W · quality − cost`` of the means.

What an entry brings is what is lost without it, at the amounts at which it is used. Where two stand for each
other neither brings much; so the one that brings least is taken out, as long as that is not shown to lose
anything, and the rest is measured again (backward elimination). Those that stay are worth it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.agreement import is_same_model
from centroute.datasets.observed import observed_means
from centroute.errors import PolicyError
from centroute.evaluate.choice import Choice, Values, mean, pick
from centroute.evaluate.resampling import Interval, mean_interval
from centroute.router import Router

MAX_AMOUNTS = 12
"""Amounts of willingness to pay along which the axes are compared."""
MAX_ROWS = 10_000
"""Queries that are routed, evenly drawn."""
USED_SHARE = 0.01
"""Share of the queries at which an entry counts as used."""

WORTH_IT, NOT_SHOWN, NEVER_CHOSEN, TOO_DEAR = "worth it", "not shown", "never chosen", "costs more"


@dataclass(frozen=True, slots=True)
class Gain:
    """Mean over queries and amounts of ``(W · more quality − more cost) / W``, in accuracy."""

    accuracy: float | None
    interval_95: Interval | None


@dataclass(frozen=True, slots=True)
class EntryWorth:
    """What one entry of a model with several is worth.

    Attributes
    ----------
    name, model, effort
        ``model@effort``, and its parts; the effort is empty for the plain entry.
    accuracy, mean_cost_usd
        What it scores and costs alone.
    highest_share
        Largest share of the queries that it gets at any amount.
    used_from, used_to
        Lowest and highest willingness to pay at which it gets `USED_SHARE` of them; None where at none.
    brings
        What is lost without it at those amounts, beside the entries that are still in.
    verdict
        ``"worth it"``: the loss is more than chance. ``"costs more"``: a gain is. ``"not shown"``: neither.
        ``"never chosen"``: no amount uses it.
    """

    name: str
    model: str
    effort: str
    accuracy: float | None
    mean_cost_usd: float | None
    highest_share: float
    used_from: float | None
    used_to: float | None
    brings: Gain
    verdict: str


@dataclass(frozen=True, slots=True)
class Axes:
    """Both axes against one.

    Attributes
    ----------
    amounts
        Amounts of willingness to pay, ascending, USD.
    frontiers
        By way to choose: pairs of mean cost in USD and accuracy, one an amount, None where unknown.
    gains
        By the other ways: what both axes bring over them.
    entries
        The entries of models with several, in the pool's order.
    """

    amounts: tuple[float, ...]
    frontiers: Mapping[str, tuple[tuple[float | None, float | None], ...]]
    gains: Mapping[str, Gain]
    entries: tuple[EntryWorth, ...]

    def to_json(self) -> dict[str, object]:
        """Figures by name."""
        return {
            "frontiers": {
                way: [
                    {"willingness_to_pay": amount, "mean_cost_usd": cost, "accuracy": accuracy}
                    for amount, (cost, accuracy) in zip(self.amounts, points, strict=True)
                ]
                for way, points in self.frontiers.items()
            },
            "gain_over": {way: asdict(gain) for way, gain in self.gains.items()},
            "entries": [asdict(entry) for entry in self.entries],
        }


def measure_axes(
    router: Router,
    rows: NDArray[np.float32],
    scores: Values,
    costs: Values,
    *,
    amounts: Sequence[float],
    policy: Policy | None = None,
) -> Axes | None:
    """Compare both axes with each alone.

    Parameters
    ----------
    router
        The router to measure.
    rows
        Embeddings ``[n, dim]``.
    scores, costs
        Observed, ``[n, n_models]`` of the pool, NaN where unknown.
    amounts
        Amounts of willingness to pay to draw from, ascending.
    policy
        Limits that hold for all ways.

    Returns
    -------
    Axes | None
        None where no model has two entries that the policy allows, or there is no amount above 0.
    """
    limits = _limits(policy or Policy())
    try:
        candidates = _candidates(router, rows[0], limits)
    except PolicyError:
        return None
    of_several = [name for family in _families(candidates) if len(family) > 1 for name in family]
    drawn = _drawn([amount for amount in amounts if amount > 0.0])
    if not of_several or not drawn:
        return None
    # More move the figures by less than their intervals.
    step = -(-len(rows) // MAX_ROWS)
    rows, scores, costs = np.ascontiguousarray(rows[::step]), scores[::step], costs[::step]
    outcomes = _Outcomes(router, rows, scores, costs, limits)
    prior = _Prior(router, candidates)
    try:
        ways = {
            "both": [outcomes.choose(amount, candidates) for amount in drawn],
            "models_only": [outcomes.choose(amount, prior.best_efforts(amount)) for amount in drawn],
            "efforts_only": [outcomes.choose(amount, prior.best_family(amount)) for amount in drawn],
            "fixed": [outcomes.choose(amount, [prior.best(amount, candidates)]) for amount in drawn],
        }
        along = list(zip(drawn, ways["both"], strict=True))
        entries = _eliminate(outcomes, candidates, of_several, along)
    except PolicyError:
        # A limit of cost that leaves some query without a candidate.
        return None
    return Axes(
        amounts=tuple(drawn),
        frontiers={
            way: tuple((mean(pick(costs, choice)), mean(pick(scores, choice))) for choice in choices)
            for way, choices in ways.items()
        },
        gains={
            way: _gain(
                outcomes.worth(both, amount) - outcomes.worth(other, amount)
                for (amount, both), other in zip(along, choices, strict=True)
            )
            for way, choices in ways.items()
            if way != "both"
        },
        entries=tuple(entries),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Outcomes:
    """What choices among some entries come to; see :func:`measure_axes`."""

    router: Router
    rows: NDArray[np.float32]
    scores: Values
    costs: Values
    limits: Policy

    def choose(self, amount: float, allowed: Iterable[str]) -> Choice:
        """An entry for each request."""
        asked = self.limits.replace(willingness_to_pay=amount, allow=frozenset(allowed))
        return self.router.route_embeddings(self.rows, policy=asked).model_ids

    def worth(self, choice: Choice, amount: float) -> Values:
        """Of each request, in units of accuracy."""
        return np.asarray(pick(self.scores, choice) - pick(self.costs, choice) / amount)


class _Prior:
    """What the calibration data tell of the candidates as a whole."""

    def __init__(self, router: Router, candidates: Sequence[str]) -> None:
        artifact = router.artifact
        self.quality = dict(zip(router.models, artifact.prior_quality.tolist(), strict=True))
        self.cost = dict(zip(router.models, artifact.prior_cost.tolist(), strict=True))
        self.families = _families(candidates)

    def best(self, amount: float, names: Sequence[str]) -> str:
        """The entry that is worth most, the first of equals."""
        return max(names, key=lambda name: amount * self.quality[name] - self.cost[name])

    def best_efforts(self, amount: float) -> list[str]:
        """The best entry of each model."""
        return [self.best(amount, family) for family in self.families]

    def best_family(self, amount: float) -> list[str]:
        """All entries of the model that has the best."""
        best = self.best(amount, self.best_efforts(amount))
        return next(family for family in self.families if best in family)


def _eliminate(
    outcomes: _Outcomes,
    candidates: Sequence[str],
    names: Sequence[str],
    along: Sequence[tuple[float, Choice]],
) -> list[EntryWorth]:
    """Take out what is not shown to bring anything, the least first; each as it was in its last round."""
    found: dict[str, EntryWorth] = {}
    kept, left = list(candidates), list(names)
    while left:
        found.update((name, _entry(outcomes, name, kept, along)) for name in left)
        idle = [found[name] for name in left if found[name].verdict != WORTH_IT]
        if not idle or len(kept) == 1:
            break
        worst = min(idle, key=_brings_least).name
        left.remove(worst)
        kept.remove(worst)
        along = [(amount, outcomes.choose(amount, kept)) for amount, _ in along]
    return [found[name] for name in names]


def _brings_least(entry: EntryWorth) -> float:
    return -math.inf if entry.brings.accuracy is None else entry.brings.accuracy


def _entry(
    outcomes: _Outcomes, name: str, candidates: Sequence[str], along: Sequence[tuple[float, Choice]]
) -> EntryWorth:
    model_id = outcomes.router.models.index(name)
    shares = [float(np.mean(choice == model_id)) for _, choice in along]
    used = [one for one, share in zip(along, shares, strict=True) if share >= USED_SHARE]
    others = [other for other in candidates if other != name]
    brings = Gain(None, None)
    if others:
        brings = _gain(
            outcomes.worth(choice, amount) - outcomes.worth(outcomes.choose(amount, others), amount)
            for amount, choice in used
        )
    verdict = NEVER_CHOSEN
    if used:
        low, high = brings.interval_95 or (0.0, 0.0)
        verdict = WORTH_IT if low > 0.0 else TOO_DEAR if high < 0.0 else NOT_SHOWN
    model, _, effort = name.partition("@")
    return EntryWorth(
        name=name,
        model=model,
        effort=effort,
        accuracy=mean(outcomes.scores[:, model_id]),
        mean_cost_usd=mean(outcomes.costs[:, model_id]),
        highest_share=max(shares),
        used_from=min((amount for amount, _ in used), default=None),
        used_to=max((amount for amount, _ in used), default=None),
        brings=brings,
        verdict=verdict,
    )


def _limits(policy: Policy) -> Policy:
    """What of a policy excludes candidates."""
    return Policy(max_cost=policy.max_cost, allow=policy.allow, deny=policy.deny, require=policy.require)


def _candidates(router: Router, row: NDArray[np.float32], limits: Policy) -> list[str]:
    """Names that the policy allows for some cost, in the pool's order."""
    decision = router.route_embedding(row, policy=limits.replace(max_cost=None, willingness_to_pay=1.0))
    return [router.models[model_id] for model_id in sorted(one[0] for one in decision.predictions)]


def _families(names: Sequence[str]) -> list[list[str]]:
    """Entries by model, in the order of the names."""
    families: list[list[str]] = []
    for name in names:
        family = next((family for family in families if is_same_model(family[0], name)), None)
        if family is None:
            families.append([name])
        else:
            family.append(name)
    return families


def _drawn(amounts: Sequence[float]) -> list[float]:
    """At most `MAX_AMOUNTS` of them, evenly placed."""
    places = np.unique(np.linspace(0, len(amounts) - 1, min(MAX_AMOUNTS, len(amounts))).round().astype(int))
    return [amounts[place] for place in places]


def _gain(differences: Iterable[Values]) -> Gain:
    """Of each query the mean over the amounts at which it is known, then the mean over queries."""
    rows = list(differences)
    if not rows:
        return Gain(None, None)
    values = observed_means(np.stack(rows))
    return Gain(mean(values), mean_interval(values))
