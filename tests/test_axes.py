"""Models and efforts: a simulated pool whose efforts pay where they should, and what is said of it."""

import json

import numpy as np
import pytest

from centroute import Policy, Router
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes, split_by_text, synthetic_outcomes
from centroute.evaluate import Evaluation, evaluate
from centroute.evaluate.axes import WORTH_IT, measure_axes
from centroute.evaluate.report import render_report

REASONING = ("mathematics", "logic", "code")
"""Kinds of queries on which thinking longer helps in the simulation."""
PRICES = {"small": 0.0004, "grand": 0.004}
SKILL = {"small": 0.2, "grand": 1.1}
EFFORTS = {"": (1.0, 0.0), "high": (5.0, 2.2), "waste": (15.0, 2.2), "n5": (5.0, 0.5)}
"""Times the price, and what is added to the skill on queries that need reasoning."""


def simulated(names: tuple[str, ...], *, n_queries: int = 2400, seed: int = 0) -> Outcomes:
    """Synthetic outcomes of `model@effort` entries on synthetic queries."""
    texts = synthetic_outcomes(n_queries=n_queries, seed=seed)
    rng = np.random.default_rng(seed)
    reasoning = np.isin(texts.datasets, REASONING)
    difficulty = rng.normal(0.6, 0.6, n_queries) + np.where(reasoning, 0.9, -0.6)
    scores, costs = np.empty((n_queries, len(names))), np.empty((n_queries, len(names)))
    for column, name in enumerate(names):
        model, _, effort = name.partition("@")
        times, skill = EFFORTS[effort]
        logit = 1.7 * (SKILL[model] + np.where(reasoning, skill, 0.0) - difficulty)
        scores[:, column] = rng.random(n_queries) < 1.0 / (1.0 + np.exp(-logit))
        costs[:, column] = PRICES[model] * times * rng.lognormal(0.0, 0.2, n_queries)
    return Outcomes(
        ids=texts.ids,
        datasets=texts.datasets,
        queries=texts.queries,
        models=names,
        scores=scores,
        costs=costs,
    )


NAMES = ("small", "small@high", "small@n5", "grand", "grand@high", "grand@waste")


@pytest.fixture(scope="module")
def parts() -> tuple[Outcomes, Outcomes]:
    outcomes = simulated(NAMES)
    seen, held_out = split_by_text(outcomes, holdout=0.4, seed=0)
    return outcomes.subset(seen), outcomes.subset(held_out)


@pytest.fixture(scope="module")
def evaluation(router: Router, parts: tuple[Outcomes, Outcomes]) -> Evaluation:
    return evaluate(router, parts[1])


@pytest.fixture(scope="module")
def router(parts: tuple[Outcomes, Outcomes]) -> Router:
    return Router.from_artifact(calibrate(parts[0], n_clusters=24, top_p=4, method="means", holdout=0.3))


def test_both_axes_beat_one(evaluation: Evaluation) -> None:
    axes = evaluation.axes
    assert axes is not None
    for way in ("models_only", "efforts_only", "fixed"):
        interval = axes.gains[way].interval_95
        assert interval is not None
        assert interval[0] > 0.0, way


def test_efforts_that_pay_are_told_from_those_that_do_not(evaluation: Evaluation) -> None:
    axes = evaluation.axes
    assert axes is not None
    verdicts = {entry.name: entry.verdict for entry in axes.entries}
    assert verdicts["small@high"] == WORTH_IT
    assert verdicts["grand@high"] == WORTH_IT
    # As good as grand@high and dearer, so that either may stand for the other.
    assert verdicts["grand@waste"] != WORTH_IT
    assert verdicts["small@n5"] != WORTH_IT
    waste = next(entry for entry in axes.entries if entry.name == "grand@waste")
    assert (waste.model, waste.effort) == ("grand", "waste")


def test_one_budget_is_spent_over_both_axes(router: Router, parts: tuple[Outcomes, Outcomes]) -> None:
    held_out = parts[1]
    rows = router.embed(held_out.queries)
    budget = 0.004
    reached = {}
    for name, allow in {"both": None, "one effort": {"small", "grand"}}.items():
        chosen = router.route_embeddings(rows, policy=Policy(max_mean_cost=budget, allow=allow)).model_ids
        places = np.arange(len(rows)), chosen
        assert held_out.costs[places].mean() < 1.1 * budget
        reached[name] = held_out.scores[places].mean()
    assert reached["both"] > reached["one effort"] + 0.05
    reasoning = np.isin(held_out.datasets, REASONING)
    batch = router.route_embeddings(rows, policy=Policy(max_mean_cost=budget))
    at_high = np.array(["@" in router.models[model_id] for model_id in batch.model_ids])
    assert at_high[reasoning].mean() > 0.8
    assert at_high[~reasoning].mean() < 0.1


def test_an_entry_that_is_denied_is_not_measured(router: Router, parts: tuple[Outcomes, Outcomes]) -> None:
    axes = evaluate(router, parts[1], policy=Policy(deny={"grand@waste", "grand@high"})).axes
    assert axes is not None
    assert {entry.name for entry in axes.entries} == {"small", "small@high", "small@n5"}


def test_no_axes_without_several_entries_or_costs(router: Router, parts: tuple[Outcomes, Outcomes]) -> None:
    held_out = parts[1]
    rows = router.embed(held_out.queries)
    amounts = [0.001, 0.01, 0.1]
    one_each = Policy(allow={"small", "grand"})
    assert (
        measure_axes(router, rows, held_out.scores, held_out.costs, amounts=amounts, policy=one_each) is None
    )
    assert measure_axes(router, rows, held_out.scores, held_out.costs, amounts=[]) is None
    without = simulated(NAMES, n_queries=300)
    without = Outcomes(
        ids=without.ids,
        datasets=without.datasets,
        queries=without.queries,
        models=NAMES,
        scores=without.scores,
        costs=np.full_like(without.costs, np.nan),
    )
    assert evaluate(router, without).axes is None


def test_json_and_report_tell_them(
    router: Router, parts: tuple[Outcomes, Outcomes], evaluation: Evaluation
) -> None:
    found = json.loads(json.dumps(evaluation.to_json()))["axes"]
    assert set(found) == {"frontiers", "gain_over", "entries"}
    assert set(found["frontiers"]) == {"both", "models_only", "efforts_only", "fixed"}
    page = render_report(router, parts[1], evaluation, title="simulated")
    assert "Models and efforts" in page
    assert "grand@waste" in page
