"""Measuring ensembles on outcomes that hold answers: every vote is held as in use, and stops early."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.agreement import n_samples
from centroute.datasets import Answers, Outcomes
from centroute.datasets.answers import NOT_OBSERVED
from centroute.errors import DataError
from centroute.evaluate.choice import mean
from centroute.evaluate.evaluation import by_pool
from centroute.evaluate.resampling import Interval, mean_interval
from centroute.router import Router
from centroute.voting import Weighted, vote


@dataclass(frozen=True, slots=True)
class EnsembleMeasured:
    """What votes of ensembles reach.

    Attributes
    ----------
    n_models
        Most models of an ensemble.
    accuracy
        Share of the queries on which the vote named the right answer; of a tie its winner counts.
    mean_calls
        Calls a query until the vote was over; ``model@n5`` counts as five.
    mean_cost_usd
        Their cost a query, over queries where it is known; None where nowhere.
    n_queries
        Queries that were voted on: those with a right answer, and an answer or its absence of every model
        that was asked.
    accuracy_95
        Bootstrap interval of the accuracy.
    """

    n_models: int
    accuracy: float | None
    mean_calls: float | None
    mean_cost_usd: float | None
    n_queries: int
    accuracy_95: Interval | None

    def to_json(self) -> dict[str, object]:
        """Keys as ``docs/design.md`` names them."""
        return {**asdict(self), "accuracy_95": self.accuracy_95 and list(self.accuracy_95)}


def evaluate_ensemble(
    router: Router,
    outcomes: Outcomes,
    *,
    n_models: int,
    policy: Policy | None = None,
    embeddings: NDArray[np.float32] | None = None,
    patience: float = 1.0,
) -> EnsembleMeasured:
    """Vote on every query, asking one model after another until the vote is over.

    Parameters
    ----------
    router
        The router to measure.
    outcomes
        Outcomes with ``answers`` and ``answer``.
    n_models
        Most models of an ensemble.
    policy
        Limits and objective besides.
    embeddings
        Rows ``[n_queries, dim]`` of the queries, as `Router.embed` gives them, when they are at hand already.
    patience
        As of :func:`centroute.vote`.

    Raises
    ------
    DataError
        If the outcomes have no answers, share fewer than two models with the pool, or leave no query.
    PolicyError
        As :meth:`Router.route_ensemble`.
    """
    answers = _answers_of_pool(router, outcomes)
    costs = by_pool(outcomes.costs, outcomes, router)
    if embeddings is None:
        embeddings = router.embed(outcomes.queries, allow_zero_rows=True)
    asked = (policy or Policy()).replace(n_models=n_models)
    names = {
        name
        for name, given in zip(router.models, answers.given.T, strict=True)
        if (given > NOT_OBSERVED).any()
    }
    if len(names) < len(router.models):
        # Nobody can be asked whose answers nobody wrote down.
        asked = asked.replace(allow=names if asked.allow is None else names & asked.allow)
    ids = {name: model_id for model_id, name in enumerate(router.models)}
    right: list[float] = []
    calls: list[int] = []
    spent: list[float] = []
    for row in np.flatnonzero(embeddings.any(axis=1) & (answers.right >= 0)).tolist():
        decision = router.route_ensemble_embedding(np.ascontiguousarray(embeddings[row]), policy=asked)
        model_ids = [ids[name] for name in decision.models]
        voted = _vote(decision, model_ids, answers, row, patience)
        if voted is None:
            continue
        winner, n_asked = voted
        right.append(float(winner == answers.texts[answers.right[row]]))
        calls.append(sum(map(n_samples, decision.models[:n_asked])))
        spent.append(float(costs[row, model_ids[:n_asked]].sum()))
    if not right:
        raise DataError("ensemble: no query has a right answer and the answers of the models that are asked")
    scores = np.array(right)
    return EnsembleMeasured(
        n_models=n_models,
        accuracy=mean(scores),
        mean_calls=float(np.mean(calls)),
        mean_cost_usd=mean(np.array(spent)),
        n_queries=len(scores),
        accuracy_95=mean_interval(scores),
    )


def _vote(
    decision: Weighted, model_ids: Sequence[int], answers: Answers, row: int, patience: float
) -> tuple[str | None, int] | None:
    """Winner, and how many models were asked; None where an answer was not observed."""
    given: dict[str, str | None] = {}
    for n_asked, (name, model_id) in enumerate(zip(decision.models, model_ids, strict=True), start=1):
        if answers.given[row, model_id] == NOT_OBSERVED:
            return None
        given[name] = answers.of(row, model_id)
        if n_asked == len(model_ids) and all(answer is None for answer in given.values()):
            break
        # The answers are in the form in which equal ones are equal.
        found = vote(given, decision, normalise=str, patience=patience)
        if found.escalate is None:
            return found.winner, n_asked
    return None, len(model_ids)  # nothing to vote on is no right answer


def _answers_of_pool(router: Router, outcomes: Outcomes) -> Answers:
    if outcomes.answers is None:
        raise DataError("ensemble: the data has no 'answers' and no 'answer' to vote on")
    columns = {name: column for column, name in enumerate(outcomes.models)}
    answers = outcomes.answers.columns([columns.get(name, -1) for name in router.models])
    answering = [
        name
        for name, given in zip(router.models, answers.given.T, strict=True)
        if (given > NOT_OBSERVED).any()
    ]
    if len(answering) < 2:
        which = f"only {answering[0]}" if answering else "no model of the pool"
        raise DataError(f"ensemble: the data has answers of {which}, and a vote needs two")
    if not (answers.right >= 0).any():
        raise DataError("ensemble: no line of the data has the right 'answer'")
    return answers
