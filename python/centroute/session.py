"""``Session``: keep a conversation's model unless another gains more than the switch costs.

Routed turn by turn, a conversation can swing between models that are nearly equal, and each swing loses the
prompt cache of the model that is left and the thread of its answers. Nothing is stored here: the caller
passes back what it got.

>>> session = Session(switch_cost_usd=0.002, switch_quality=0.02)
>>> for messages in turns:  # doctest: +SKIP
...     decision = router.route(messages, session=session)
...     session = session.after(decision)

**When it switches.** With ``b`` the model that would be chosen without a session, ``k`` the session's,
quality ``q`` and cost ``c`` as predicted for this query: by willingness to pay ``W``, of the policy or the
artifact's default, it switches where

    W · (q_b − q_k) − (c_b − c_k)  >  switch_cost_usd + W · switch_quality

Under all other objectives, in which quality has no price, where the new model is better by more than
``switch_quality`` or cheaper by more than ``switch_cost_usd``:

    q_b − q_k > switch_quality   or   c_k − c_b > switch_cost_usd

An unknown cost is no saving. The session's model is left in any case when the policy does not allow it or the
pool does not have it; it is kept when the query is out of distribution and the policy's fallback would be
taken, since nothing is then known to be gained.

**What to fill in.** ``switch_cost_usd``: tokens of the conversation so far × (price of an input token −
price of a cached one), for the model that would have to read them anew. ``switch_quality``: the quality that
a change of voice is worth; differences below the standard error (``quality_se``) are noise in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from centroute._decision_facts import DecisionFacts
from centroute._kernel import Decision, Policy

Decide = Callable[[Policy | None], Decision]
"""One query under any policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a conversation keeps from turn to turn. Immutable.

    Attributes
    ----------
    model
        The model that answered so far; None before the first turn.
    switch_cost_usd
        What a switch costs: the prompt cache that is lost, in USD.
    switch_quality
        What a switch costs in quality, 0 to 1.

    Raises
    ------
    ValueError
        If an amount is negative or not finite.
    """

    model: str | None = None
    switch_cost_usd: float = 0.0
    switch_quality: float = 0.0

    def __post_init__(self) -> None:
        for name in ("switch_cost_usd", "switch_quality"):
            amount = getattr(self, name)
            if not (math.isfinite(amount) and amount >= 0):
                raise ValueError(f"{name}: got {amount}, wanted a finite amount, 0 or more")

    def after(self, decision: Decision | KeptDecision) -> Session:
        """The session of the next turn, in which the decision's model has answered."""
        return replace(self, model=decision.model)


@dataclass(frozen=True, slots=True)
class KeptDecision(DecisionFacts):
    """The decision for the session's model, where another would have been chosen.

    It has the attributes of a `Decision`. The ranking starts with the model that was kept.

    Attributes
    ----------
    best
        The decision without the session.
    kept
        The session's model alone.
    margin
        By how much it is behind ``best`` in the policy's own measure, as a negative number; None when
        ``best`` is the policy's fallback.
    """

    best: Decision
    kept: Decision
    margin: float | None

    @property
    def model(self) -> str:
        """Name of the model that was kept."""
        return self.kept.model

    @property
    def model_id(self) -> int:
        """Its index in the pool."""
        return self.kept.model_id

    @property
    def quality(self) -> float:
        """Its predicted quality, 0 to 1."""
        return self.kept.quality

    @property
    def quality_se(self) -> float | None:
        """Standard error of its quality."""
        return self.kept.quality_se

    @property
    def cost(self) -> float | None:
        """Its predicted cost in USD for this query, None when unknown."""
        return self.kept.cost

    @property
    def resolved(self) -> bool | None:
        """None: it does not lead."""
        return None

    @property
    def ranking(self) -> tuple[str, ...]:
        """Names of all candidates: the one that was kept, then the others, best first."""
        return (self.model, *(name for name in self.best.ranking if name != self.model))

    @property
    def predictions(self) -> tuple[tuple[int, float, float | None], ...]:
        """What all candidates are predicted to score and cost, in the order of the ranking."""
        others = (one for one in self.best.predictions if one[0] != self.model_id)
        return (*self.kept.predictions, *others)


def stay_or_switch(
    decide: Decide, session: Session, *, policy: Policy | None, default: Policy
) -> Decision | KeptDecision:
    """Decide one query of a conversation; the rule stands in the module's description.

    Parameters
    ----------
    decide
        The query under any policy.
    session
        What the conversation keeps.
    policy
        What this request wants.
    default
        The artifact's default, which holds for what the policy leaves open.

    Raises
    ------
    PolicyError
        As :meth:`centroute.Router.route`.
    """
    best = decide(policy)
    model = session.model
    if model is None or model == best.model or model not in best.ranking:
        return best
    wanted = policy if policy is not None else Policy()
    # A fallback must be among the allowed models. One is set only where there was one, as it changes what
    # happens out of distribution.
    fallback = model if (wanted.fallback or default.fallback) is not None else None
    kept = decide(wanted.replace(allow={model}, fallback=fallback))
    if best.margin is None:  # though there is a second: the fallback was taken
        return KeptDecision(best, kept, None)
    gain = best.quality - kept.quality
    saving = 0.0 if best.cost is None or kept.cost is None else kept.cost - best.cost
    worth = _willingness_to_pay(wanted, default)
    if worth is None:
        switches = gain > session.switch_quality or saving > session.switch_cost_usd
    else:
        switches = worth * gain + saving > session.switch_cost_usd + worth * session.switch_quality
    if switches:
        return best
    behind = decide(wanted.replace(allow={best.model, model}, fallback=fallback)).margin
    return KeptDecision(best, kept, None if behind is None else -behind)


def _willingness_to_pay(policy: Policy, default: Policy) -> float | None:
    """USD for one unit of quality, where the objective that holds has it."""
    objectives = (policy.alpha, policy.willingness_to_pay, policy.max_mean_cost, policy.min_quality)
    holds = default if all(objective is None for objective in objectives) else policy
    return holds.willingness_to_pay
