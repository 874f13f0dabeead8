"""Plans: what the search finds, what a role changes, and what plans reach where the optimum is known."""

import asyncio
import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from centroute import Artifact, Policy, Router
from centroute._kernel import Kernel
from centroute.artifact import Collaboration, EmbedderId, PoolModel
from centroute.calibrate import calibrate
from centroute.calibrate.roles import estimate_roles
from centroute.datasets import Outcomes, read_jsonl, write_jsonl
from centroute.edit import add_model, drop_model
from centroute.errors import ArtifactError, DataError, PolicyError
from centroute.knapsack import Item, select
from centroute.pool import Pool, read_pool
from centroute.roles import RoleScore, RoleScores, roles_from_json, roles_to_json

ROLES = ("planner", "coder", "critic")
EQUAL_TO = 1e-6


def random_groups(n_groups: int, n_items: int, seed: int) -> list[list[Item]]:
    """Dear items are better on the whole, as models are."""
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(-7, 1.5, n_items)) * rng.uniform(0.5, 2, (n_groups, 1))
    values = np.clip(0.6 + 0.07 * np.log(weights / 1e-3) + rng.normal(0, 0.06, weights.shape), 0, 1)
    return [
        [
            (float(weight), float(value), number)
            for number, (weight, value) in enumerate(zip(*row, strict=True))
        ]
        for row in zip(weights, values, strict=True)
    ]


def random_limit(groups: Sequence[Sequence[Item]], share: float) -> float:
    """Between what the lightest and the best items weigh."""
    least = sum(min(item[0] for item in group) for group in groups)
    most = sum(max(group, key=lambda item: item[1])[0] for group in groups)
    return least + share * (most - least)


def optimum(groups: Sequence[Sequence[Item]], limit: float) -> float:
    """Largest value within the limit, by dynamic programming over all sums that no other beats."""
    sums = [(0.0, 0.0)]
    for group in groups:
        grown = sorted((weight + w, -value - v) for weight, value in sums for w, v, _ in group)
        sums, best = [], -np.inf
        for weight, negative in grown:
            if weight <= limit and -negative > best:
                sums.append((weight, best := -negative))
    return best


@pytest.mark.parametrize("seed", range(8))
def test_the_search_finds_what_enumeration_finds(seed: int) -> None:
    groups = random_groups(3, 7, seed)
    limit = random_limit(groups, share=0.1 + 0.1 * seed)
    every = [one for one in itertools.product(*groups) if sum(item[0] for item in one) <= limit]
    wanted = max(sum(item[1] for item in one) for one in every)
    found = select(groups, limit)
    assert found is not None
    assert found.is_optimal
    assert found.value == pytest.approx(wanted, abs=1e-12)
    assert found.weight <= limit
    taken = [group[number] for group, number in zip(groups, found.ids, strict=True)]
    assert found.value == pytest.approx(sum(item[1] for item in taken))
    assert optimum(groups, limit) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.8])
def test_five_roles_of_thirty_models_are_solved_exactly(share: float) -> None:
    for seed in range(5):
        groups = random_groups(5, 30, seed)
        limit = random_limit(groups, share)
        found = select(groups, limit)
        assert found is not None
        assert found.weight <= limit
        assert found.value >= optimum(groups, limit) * (1 - EQUAL_TO if found.is_optimal else 0.98)


def test_a_search_that_gives_up_says_so_and_stays_near_its_bound() -> None:
    rng = np.random.default_rng(3)
    weights = rng.uniform(0.1, 1.0, (8, 40))
    # Value is weight but for a trace: nearly all choices are equally good for what they weigh.
    groups = [[(float(w), float(w + rng.normal(0, 1e-3)), n) for n, w in enumerate(row)] for row in weights]
    limit = random_limit(groups, 0.437)
    found = select(groups, limit)
    assert found is not None
    assert not found.is_optimal
    assert found.bound > found.value >= 0.98 * found.bound
    assert found.weight <= limit


def test_ties_go_to_the_lighter_item_then_to_the_lower_number() -> None:
    group = [(2.0, 1.0, 0), (1.0, 1.0, 2), (1.0, 1.0, 1)]
    found = select([group, group], 10.0)
    assert found is not None
    assert found.ids == (1, 1)
    assert select([group], 0.5) is None


def test_values_below_zero_and_weights_of_zero() -> None:
    groups = [[(0.0, -5.0, 0), (3.0, -1.0, 1)], [(0.0, -4.0, 0), (3.0, -3.0, 1)]]
    found = select(groups, 3.0)
    assert found is not None
    assert (found.ids, found.value) == ((1, 0), -5.0)


# A router of three models over two clusters; large is best at all of it.
NAMES = ("large", "middle", "small")
QUALITY = np.array([[0.9, 0.7, 0.5], [0.8, 0.75, 0.3]], dtype=np.float32)
COST = np.array([[0.010, 0.004, 0.001]] * 2, dtype=np.float32)
QUERY = np.array([1.0, 0.0], dtype=np.float32)


def tables(*, error: float | None = None, cost: NDArray[np.float32] = COST, **changes: Any) -> Artifact:
    return Artifact(
        models=tuple(PoolModel(name) for name in NAMES),
        embedder=EmbedderId("own", 2, None),
        centroids=np.eye(2, dtype=np.float32),
        quality=QUALITY,
        cost=cost,
        count=np.full((2, 3), 50.0, dtype=np.float32),
        prior_quality=QUALITY.mean(axis=0),
        prior_cost=cost.mean(axis=0),
        frontier=np.zeros((0, 3), dtype=np.float32),
        top_p=1,
        beta=1.0,
        method={},
        quality_se=None if error is None else np.full((2, 3), error, dtype=np.float32),
        **changes,
    )


def offsets(error: float = 0.0, factor: float = 1.0, **by_model: float) -> RoleScores:
    return RoleScores(
        {model: RoleScore(offset, error, factor, 40) for model, offset in by_model.items()},
        RoleScore(0.0, error, factor, 0),
    )


CODER = {"coder": offsets(small=0.45, large=-0.3)}


def plan_of(artifact: Artifact, roles: Sequence[str] = ROLES, **policy: Any) -> Any:
    return Router.from_artifact(artifact).plan_embedding(QUERY, roles=roles, policy=Policy(**policy))


def test_a_role_with_outcomes_gets_another_model_and_one_without_says_so() -> None:
    plan = plan_of(tables(roles=CODER))
    assert plan.models == {"planner": "large", "coder": "small", "critic": "large"}
    assert [choice.calibrated for choice in plan.roles] == [False, True, False]
    assert [choice.quality for choice in plan.roles] == pytest.approx([0.9, 0.95, 0.9])
    assert plan.quality == pytest.approx(2.75 / 3)
    assert plan.cost == pytest.approx(0.021)
    assert plan.is_optimal
    assert (plan.in_distribution, plan.generation) == (True, 1)


def test_without_limits_each_role_gets_the_model_of_a_request_of_its_own() -> None:
    router = Router.from_artifact(tables())
    for policy in (
        Policy(),
        Policy(willingness_to_pay=0.02),
        Policy(deny={"large"}),
    ):
        alone = router.route_embedding(QUERY, policy=policy)
        plan = router.plan_embedding(QUERY, roles=ROLES, policy=policy)
        assert set(plan.models.values()) == {alone.model}
        assert plan.best.model == alone.model
        assert plan.single == alone.model
        assert plan.is_single_as_good
        assert plan.lead == 0.0


def test_one_budget_holds_for_all_roles() -> None:
    artifact = tables(roles=CODER)
    router = Router.from_artifact(artifact)
    for max_cost in (0.003, 0.006, 0.0061, 0.012, 0.0151, 0.03):
        plan = router.plan_embedding(QUERY, roles=ROLES, policy=Policy(max_cost=max_cost))
        assert plan.cost is not None
        assert plan.cost <= max_cost * (1 + EQUAL_TO)
        every = [
            sum(artifact_quality(artifact, role, model) for role, model in zip(ROLES, models, strict=True))
            for models in itertools.product(range(3), repeat=3)
            if sum(COST[0, model] for model in models) <= max_cost * (1 + EQUAL_TO)
        ]
        assert 3 * plan.quality == pytest.approx(max(every))


def artifact_quality(artifact: Artifact, role: str, model: int) -> float:
    scores = (artifact.roles or {}).get(role)
    offset = 0.0 if scores is None else scores.of(NAMES[model]).quality_offset
    return float(np.clip(QUALITY[0, model] + offset, 0, 1))


def test_willingness_to_pay_is_for_one_unit_of_one_role() -> None:
    # The planner's large model leads the middle one by .2 and costs .006 more.
    assert plan_of(tables(), willingness_to_pay=0.029).models["planner"] == "middle"
    assert plan_of(tables(), willingness_to_pay=0.031).models["planner"] == "large"
    below = plan_of(tables(), willingness_to_pay=0.031, max_cost=0.018)
    assert sorted(below.models.values()) == ["large", "middle", "middle"]


def test_min_quality_is_the_cheapest_plan_that_reaches_it_on_the_mean() -> None:
    artifact = tables(roles=CODER)
    plan = plan_of(artifact, min_quality=0.78)
    assert plan.quality >= 0.78 - EQUAL_TO
    every = {
        models: sum(
            artifact_quality(artifact, role, model) for role, model in zip(ROLES, models, strict=True)
        )
        for models in itertools.product(range(3), repeat=3)
    }
    cheapest = min(sum(COST[0, list(models)]) for models, total in every.items() if total >= 3 * 0.78)
    assert plan.cost == pytest.approx(cheapest)
    assert plan.single == "large"
    # Out of reach, and too dear: the best within what may be spent.
    assert plan_of(artifact, min_quality=0.99).models == plan_of(artifact).models
    assert plan_of(artifact, min_quality=0.78, max_cost=0.004).cost <= 0.004 * (1 + EQUAL_TO)


def test_a_role_changes_costs_too() -> None:
    roles = {"planner": offsets(factor=3.0, large=0.0)}
    plan = plan_of(tables(roles=roles), ["planner", "critic"])
    assert [choice.cost for choice in plan.roles] == pytest.approx([0.03, 0.01])
    assert plan_of(tables(roles=roles), ["planner"], max_cost=0.02).models == {"planner": "middle"}


def test_a_single_model_does_as_well_unless_the_lead_is_more_than_its_error() -> None:
    clear = plan_of(tables(roles={"coder": offsets(0.02, small=0.45, large=-0.3)}, error=0.03))
    assert clear.single == "large"
    assert clear.single_quality == pytest.approx((0.9 + 0.6 + 0.9) / 3)
    assert clear.single_cost == pytest.approx(0.03)
    assert clear.lead == pytest.approx(0.35 / 3)
    # One role differs: both models' table errors and both offsets' errors, over three roles.
    assert clear.lead_se == pytest.approx((2 * 0.03**2 + 2 * 0.02**2) ** 0.5 / 3)
    assert not clear.is_single_as_good
    unclear = plan_of(tables(roles={"coder": offsets(0.2, small=0.45, large=-0.3)}, error=0.03))
    assert unclear.models == clear.models
    assert unclear.is_single_as_good
    unknown = plan_of(tables(roles=CODER))
    assert unknown.lead_se is None
    assert not unknown.is_single_as_good


def test_errors_of_one_model_count_for_all_its_roles_together() -> None:
    roles = {role: offsets(small=0.45, large=-0.3) for role in ("a", "b")}
    plan = plan_of(tables(roles=roles, error=0.03), ["a", "b", "c", "d", "e"])
    assert plan.single == "large"
    assert plan.lead_se == pytest.approx((2 * (2 * 0.03) ** 2) ** 0.5 / 5)


def test_costs_that_nobody_knows() -> None:
    unknown = COST.copy()
    unknown[:, 2] = np.nan
    plan = plan_of(tables(cost=unknown, roles={"coder": offsets(small=0.5)}))
    assert plan.models["coder"] == "small"
    assert plan.cost is None
    assert plan.roles[1].cost is None
    with pytest.raises(PolicyError, match=r"max_cost.*small"):
        plan_of(tables(cost=unknown), max_cost=0.02)
    with pytest.raises(PolicyError, match=r"willingness_to_pay.*small"):
        plan_of(tables(cost=unknown), willingness_to_pay=0.02)


@pytest.mark.parametrize(
    ("roles", "policy", "named"),
    [
        ((), {}, "roles: got none"),
        (("coder", "critic", "coder"), {}, "roles: 'coder' is there twice"),
        ("coder", {}, "roles: got one string, 'coder'"),
        (("coder", " "), {}, r"roles\[1\]: got ' '"),
        (("coder", 3), {}, r"roles\[1\]: got 3"),
        (tuple(map(str, range(65))), {}, "roles: got 65, wanted at most 64"),
        (ROLES, {"max_cost": 0.002}, r"max_cost=0\.002 USD leaves no candidate.*planner, coder.*0\.003 USD"),
        (ROLES, {"alpha": 0.5}, "policy alpha: .*give willingness_to_pay"),
        (ROLES, {"max_mean_cost": 0.01}, "policy max_mean_cost: .*max_cost"),
        (ROLES, {"strong": "large", "weak": "small", "strong_share": 0.5}, "policy strong: "),
        (ROLES, {"n_models": 3}, "policy n_models: .*one model"),
        (ROLES, {"allow": {"gpt-9"}}, "gpt-9"),
        (ROLES, {"deny": set(NAMES)}, "deny"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(roles: Any, policy: Any, named: str) -> None:
    with pytest.raises(PolicyError, match=named) as refused:
        plan_of(tables(roles=CODER), roles, **policy)
    assert len(str(refused.value).splitlines()) == 1


def test_the_fallback_takes_all_roles() -> None:
    artifact = tables(roles=CODER, ood_threshold=0.95)
    away = np.array([1.0, 1.0], dtype=np.float32)
    router = Router.from_artifact(artifact)
    policy = Policy(fallback="middle", max_cost=0.001)
    plans = [
        router.plan_embedding(away, roles=ROLES, policy=policy),
        router.plan_embedding(QUERY, roles=ROLES, policy=policy),
    ]
    for plan in plans:
        assert set(plan.models.values()) == {"middle"}
        assert plan.single == "middle"
        assert plan.is_single_as_good
    assert [plan.in_distribution for plan in plans] == [False, True]
    assert set(plan_of(artifact, fallback="middle").models.values()) == {"large", "small"}


def test_the_default_policy_holds_for_what_is_left_open() -> None:
    artifact = tables(roles=CODER, default_policy=Policy(max_cost=0.006, deny={"large"}))
    plan = Router.from_artifact(artifact).plan_embedding(QUERY, roles=ROLES)
    assert plan.cost is not None
    assert plan.cost <= 0.006 * (1 + EQUAL_TO)
    assert "large" not in plan.models.values()
    artifact = tables(default_policy=Policy(alpha=0.5))
    assert plan_of(artifact, willingness_to_pay=1.0).single == "large"
    with pytest.raises(PolicyError, match="policy alpha"):
        plan_of(artifact)


def test_the_router_file_keeps_the_roles(tmp_path: Path) -> None:
    artifact = tables(roles=CODER)
    artifact.save(tmp_path / "router.safetensors")
    assert Artifact.load(tmp_path / "router.safetensors").roles == CODER
    assert roles_from_json(json.loads(json.dumps(roles_to_json(CODER)))) == CODER
    assert b'"roles"' not in tables().to_bytes()


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {"coder": {}},
        {"coder": {"usual": [0.0, 0.0, 1.0, 0], "models": []}},
        {"coder": {"usual": [0.0, 0.0, 1.0], "models": {}}},
        {"coder": {"usual": [2.0, 0.0, 1.0, 0], "models": {}}},
        {"coder": {"usual": [0.0, 0.0, -1.0, 0], "models": {}}},
        {"coder": {"usual": [0.0, 0.0, 1.0, 0], "models": {"small": [None, 0.0, 1.0, 1]}}},
    ],
)
def test_a_damaged_entry_is_refused(entry: Any) -> None:
    with pytest.raises(ArtifactError, match="router metadata: roles"):
        roles_from_json(entry)


def test_an_edited_pool_keeps_what_the_roles_say() -> None:
    less = drop_model(tables(roles=CODER), "large")
    plan = plan_of(less)
    assert plan.models == {"planner": "middle", "coder": "small", "critic": "middle"}
    outcomes = Outcomes(
        queries=tuple(f"query {row}" for row in range(40)),
        models=("new",),
        scores=np.full((40, 1), 1.0, dtype=np.float32),
        costs=np.full((40, 1), 0.002),
        datasets=("",) * 40,
        ids=tuple(map(str, range(40))),
    )
    more = add_model(less, "new", outcomes, embeddings=np.tile(QUERY, (40, 1)))
    assert plan_of(more).models["planner"] == "new"
    assert not plan_of(more).roles[0].calibrated


def test_jsonl_lines_hold_a_role(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    lines: list[dict[str, Any]] = [
        {"query": "one", "role": "coder", "scores": {"a": 1, "b": 0}},
        {"query": "two", "scores": {"a": 1, "b": 0}},
        {"query": "three", "role": None, "scores": {"a": 0, "b": 1}},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcomes = read_jsonl(file)
    assert outcomes.roles == ("coder", "", "")
    assert outcomes.subset([2, 0]).roles == ("", "coder")
    again = tmp_path / "again.jsonl"
    write_jsonl(outcomes, again)
    assert read_jsonl(again).roles == outcomes.roles
    file.write_text(json.dumps(lines[1]) + "\n" + json.dumps(lines[2]) + "\n")
    assert read_jsonl(file).roles is None
    file.write_text(json.dumps({**lines[0], "role": ["coder"]}) + "\n")
    with pytest.raises(DataError, match=r"outcomes\.jsonl, line 1.*role"):
        read_jsonl(file)
    with pytest.raises(DataError, match="roles has 1 entries for 3 queries"):
        dataclasses.replace(outcomes, roles=("coder",))


@dataclass
class OwnEmbedder:
    """Rows come from outside."""

    name: str = "own"
    dim: int = 8
    fingerprint: str | None = None


@dataclass
class Simulated:
    """Outcomes of known qualities: eight kinds of query, each at a unit vector of its own, and noise."""

    quality: NDArray[np.float64]
    """``[n_roles, n_kinds, n_models]``."""
    cost: NDArray[np.float64]
    """``[n_roles, n_models]``."""
    outcomes: Outcomes
    embeddings: NDArray[np.float32]
    roles: tuple[str, ...]


def simulate(*, n_models: int, n_roles: int, n_queries: int, seed: int) -> Simulated:
    rng = np.random.default_rng(seed)
    roles = tuple(f"role-{number}" for number in range(n_roles))
    price = np.exp(rng.normal(-7, 1.2, n_models))
    skill = 0.55 + 0.08 * np.log(price / np.median(price)) + rng.normal(0, 0.05, (8, n_models))
    quality = np.clip(skill + rng.normal(0, 0.1, (n_roles, 1, n_models)), 0.02, 0.98)
    cost = price * rng.uniform(0.5, 2.0, (n_roles, 1))
    kinds = rng.integers(0, 8, n_queries)
    in_role = rng.integers(0, n_roles, n_queries)
    rows = np.eye(8)[kinds] + rng.normal(0, 0.05, (n_queries, 8))
    scores = rng.random((n_queries, n_models)) < quality[in_role, kinds]
    paid = cost[in_role] * np.exp(rng.normal(0, 0.3, (n_queries, n_models)) - 0.045)
    outcomes = Outcomes(
        queries=tuple(f"query {row}" for row in range(n_queries)),
        models=tuple(f"model-{number:02}" for number in range(n_models)),
        scores=scores.astype(np.float32),
        costs=paid,
        datasets=("",) * n_queries,
        ids=tuple(map(str, range(n_queries))),
        roles=tuple(roles[number] for number in in_role),
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Simulated(quality, cost, outcomes, rows.astype(np.float32), roles)


def calibrated(truth: Simulated, outcomes: Outcomes | None = None) -> Artifact:
    return calibrate(
        outcomes or truth.outcomes, embedder=OwnEmbedder(), embeddings=truth.embeddings,  # type: ignore[arg-type]
        method="means", n_clusters=8, top_p=1, beta=9.0, shrinkage=10.0, holdout=0.0,
    )  # fmt: skip


def share_of_optimum(truth: Simulated, artifact: Artifact, *, willingness: float, share: float) -> float:
    """True utility of the plans of all kinds over that of the plans that are best by the truth."""
    router = Router.from_artifact(artifact)
    reached = wanted = 0.0
    for kind in range(8):
        groups = [
            [
                (float(cost), float(willingness * quality - cost), number)
                for number, (cost, quality) in enumerate(zip(costs, qualities, strict=True))
            ]
            for costs, qualities in zip(truth.cost, truth.quality[:, kind], strict=True)
        ]
        max_cost = random_limit(groups, share)
        plan = router.plan_embedding(
            np.eye(8, dtype=np.float32)[kind],
            roles=truth.roles,
            policy=Policy(willingness_to_pay=willingness, max_cost=max_cost),
        )
        reached += sum(
            group[router.models.index(choice.model)][1]
            for group, choice in zip(groups, plan.roles, strict=True)
        )
        wanted += optimum(groups, max_cost)
    return reached / wanted


def test_plans_on_simulated_outcomes_reach_the_known_optimum() -> None:
    truth = simulate(n_models=6, n_roles=3, n_queries=3000, seed=0)
    willingness = 0.02
    with_roles = share_of_optimum(truth, calibrated(truth), willingness=willingness, share=0.5)
    without = share_of_optimum(
        truth,
        calibrated(truth, dataclasses.replace(truth.outcomes, roles=None)),
        willingness=willingness,
        share=0.5,
    )
    assert with_roles >= 0.98
    assert without < with_roles - 0.02


def test_offsets_are_those_of_the_simulation_and_their_errors_are_honest() -> None:
    truth = simulate(n_models=10, n_roles=3, n_queries=3000, seed=1)
    # Tables that know the mean over roles exactly leave the role's own part as the residual.
    kinds = truth.embeddings.argmax(axis=1)
    predicted = (truth.quality.mean(axis=0)[kinds], np.tile(truth.cost.mean(axis=0), (3000, 1)))
    found = estimate_roles(truth.outcomes, predicted=predicted)
    assert found is not None
    z, ratios = [], []
    for number, role in enumerate(truth.roles):
        for place, model in enumerate(truth.outcomes.models):
            score = found[role].of(model)
            wanted = (truth.quality[number] - truth.quality.mean(axis=0))[:, place].mean()
            z.append((score.quality_offset - wanted) / score.quality_offset_se)
            ratios.append(score.cost_factor / (truth.cost[number] / truth.cost.mean(axis=0))[place])
    assert 0.5 < np.std(z) < 1.5
    assert np.abs(np.log(ratios)).max() < 0.1


def test_what_differs_by_chance_alone_is_drawn_together() -> None:
    rng = np.random.default_rng(5)
    truth = simulate(n_models=6, n_roles=20, n_queries=2000, seed=5)
    scores = (rng.random((2000, 6)) < 0.6).astype(np.float32)
    outcomes = dataclasses.replace(truth.outcomes, scores=scores)
    found = estimate_roles(outcomes, predicted=(np.full((2000, 6), 0.5), truth.outcomes.costs))
    assert found is not None
    drawn, plain = [], []
    for role, of_role in found.items():
        drawn.append([of_role.of(model).quality_offset for model in outcomes.models])
        plain.append(scores[np.array(outcomes.roles) == role].mean(axis=0) - 0.5)
    assert np.mean(drawn) == pytest.approx(0.1, abs=0.015)
    assert np.std(drawn, axis=1).mean() < 0.6 * np.std(plain, axis=1).mean()


def test_a_model_without_outcomes_in_a_role_has_what_is_usual_there() -> None:
    truth = simulate(n_models=6, n_roles=2, n_queries=600, seed=2)
    in_role = np.array([role == "role-0" for role in truth.outcomes.roles or ()])
    scores = truth.outcomes.scores.copy()
    scores[in_role, 3] = np.nan
    artifact = calibrated(truth, dataclasses.replace(truth.outcomes, scores=scores))
    plan = Router.from_artifact(artifact).plan_embedding(
        truth.embeddings[0], roles=["role-0", "role-1"], policy=Policy(allow={"model-03"})
    )
    assert [choice.calibrated for choice in plan.roles] == [False, True]
    assert plan.single == "model-03"


def test_too_many_roles_are_refused() -> None:
    truth = simulate(n_models=3, n_roles=65, n_queries=900, seed=0)
    with pytest.raises(DataError, match=r"65 roles, a router holds at most 64.*field role"):
        calibrated(truth)


POOL = """
[models.team]
plan = {mode = "chain", roles = {planner = "large", coder = "small@low"}}
"""


def pool_of(text: str, folder: Path) -> Pool:
    file = folder / "pool.toml"
    file.write_text(text)
    return read_pool(file)


def test_a_plan_is_an_entry_of_the_pool(tmp_path: Path) -> None:
    pool = pool_of(POOL, tmp_path)
    pool.check_names(["team", "large", "small@low"])
    artifact = tables()
    artifact = dataclasses.replace(artifact, models=(pool.model("team"), *artifact.models[1:]))
    again = Artifact.from_kernel(Kernel(artifact.to_bytes()))
    assert again.models == artifact.models
    assert again.models[0].plan == Collaboration("chain", {"planner": "large", "coder": "small@low"})
    assert again.models[1].plan is None
    assert Router.from_artifact(artifact).route_embedding(QUERY).model == "team"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            POOL,
            r"pool\.toml: the model 'small@low' in the plan 'team' is not in the data; there are team, large",
        ),
        (
            POOL.replace("large", "team"),
            r"pool\.toml, models\.'team'\.'plan'\.'roles'\.'planner': names the plan",
        ),
        ("[models.team]\nplan = 3", "must be a table"),
        ("[models.team]\nplan = {mode = 'chain'}", "roles: is missing"),
        ("[models.team]\nplan = {roles = {a = 'large'}}", "mode: is missing"),
        ("[models.team]\nplan = {mode = 'chain', roles = {a = 3}}", "a: must be a text, got 3"),
        ("[models.team]\nplan = {mode = 'chain', steps = 3}", "'steps': is not known"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=named) as refused:
        pool_of(text, tmp_path).check_names(["team", "large"])
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("plan", [3, {"mode": 3, "roles": {}}, {"mode": "chain", "roles": {"a": 3}}])
def test_a_damaged_plan_in_a_router_file_is_refused(plan: Any, pack: Any) -> None:
    kernel = Kernel(tables().to_bytes())
    metadata = json.loads(kernel.metadata_json)
    metadata["models"][0]["plan"] = plan
    with pytest.raises(ArtifactError, match="router metadata: the plan of a model"):
        Artifact.from_kernel(Kernel(pack(kernel.tensors(), metadata)))


def test_a_plan_is_awaited_as_it_is_called(router_file: Path) -> None:
    router, text, policy = Router.load(router_file), "Write a sorting function.", Policy(max_cost=0.02)
    wanted = router.plan(text, roles=ROLES, policy=policy)
    for query in (text, text + " " * 40_000):
        found = asyncio.run(router.aplan(query, roles=ROLES, policy=policy))
        assert (found.roles, found.lead) == (wanted.roles, wanted.lead)


def test_the_command_plans(router_file: Path, cli: Any) -> None:
    asked = (
        "plan",
        router_file,
        "Write a sorting function.",
        "--roles",
        "planner,coder",
        "--roles",
        "critic",
    )
    shown = cli(*asked, "--max-cost", 0.01)
    assert (shown.code, shown.err) == (0, "")
    assert [line.split()[0] for line in shown.out.splitlines()[1:4]] == list(ROLES)
    assert "no outcomes in this role" in shown.out
    found = json.loads(cli(*asked, "--json").out)
    assert [choice["role"] for choice in found["roles"]] == list(ROLES)
    assert {"single", "is_single_as_good", "lead", "lead_se", "is_optimal", "best"} < set(found)
    for more, says in (
        (("--alpha", 0.5), "policy alpha: it says nothing of a plan"),
        (("--roles", "coder"), "roles: 'coder' is there twice"),
        (("--max-cost", 1e-9), "plan: max_cost=1e-09 USD leaves no candidate"),
    ):
        refused = cli(*asked, *more)
        assert refused.code == 1
        assert refused.err.startswith(f"centroute: {says}")
        assert refused.err.count("\n") == 1


def test_a_text_is_planned_without_numpy_until_it_is_needed(router_file: Path) -> None:
    script = (
        "import sys; from centroute import Router; before = 'numpy' in sys.modules;"
        f"router = Router.load({str(router_file)!r});"
        "plan = router.plan('Write a sorting function.', roles=['planner', 'coder']);"
        "print(before, len(plan.roles), plan.is_single_as_good, [choice.calibrated for choice in plan.roles])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.split(maxsplit=3) == ["False", "2", "True", "[False, False]\n"]
