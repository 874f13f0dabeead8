"""Ensembles: which models are chosen, what their votes weigh, what they reach where the optimum is known."""

import asyncio
import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli

from centroute import Artifact, Policy, Router
from centroute.agreement import Agreement, accuracy_line, n_samples, vote_moments
from centroute.calibrate import calibrate
from centroute.calibrate.agreement import estimate_agreement
from centroute.datasets import Answers, Outcomes, read_jsonl, read_outcomes, split_by_text, write_jsonl
from centroute.edit import drop_model
from centroute.ensemble import Wanted, choose_ensemble
from centroute.errors import ArtifactError, DataError, PolicyError
from centroute.evaluate.ensemble import evaluate_ensemble

MMLU_PRO = Path(__file__).resolve().parents[2] / "shared" / "data" / "mmlu_pro.jsonl.gz"


def agreement_of(correlation: Any, **changes: Any) -> Agreement:
    rows = tuple(tuple(float(value) for value in row) for row in correlation)
    return dataclasses.replace(Agreement.independent(len(rows)), correlation=rows, **changes)


def random_agreement(n_models: int, seed: int) -> Agreement:
    """Correlations of two factors."""
    rng = np.random.default_rng(seed)
    loads = rng.uniform(0.1, 0.6, (n_models, 2))
    table = loads @ loads.T
    np.fill_diagonal(table, 1.0)
    return agreement_of(table)


def separation_of(agreement: Agreement, quality: dict[int, float]) -> float:
    """Fisher's criterion of a set, by NumPy."""
    ids = list(quality)
    moments = [vote_moments(quality[model], agreement.answered[model], agreement.n_choices) for model in ids]
    scores = np.array([mean / math.sqrt(variance) for mean, variance, _ in moments])
    table = np.array([[agreement.correlation[a][b] for b in ids] for a in ids])
    return float(np.sqrt(scores @ np.linalg.solve(table, scores)))


def test_votes_of_models_that_err_each_for_itself_weigh_their_log_odds() -> None:
    chosen = choose_ensemble(
        [(0, 0.6, None), (1, 0.8, None), (2, 0.4, None)], Agreement.independent(3), Wanted()
    )
    assert chosen.model_ids == (1, 0, 2)
    assert chosen.weights == pytest.approx([math.log(q * 9 / (1 - q)) for q in (0.8, 0.6, 0.4)])


def test_more_choices_make_a_vote_weigh_more() -> None:
    candidates = [(0, 0.5, None), (1, 0.5, None)]
    few, many = (
        choose_ensemble(candidates, Agreement.independent(2), Wanted(), n_choices=n_choices).weights[0]
        for n_choices in (3, 20)
    )
    assert (few, many) == pytest.approx((math.log(2), math.log(19)))


def test_weights_and_separation_are_those_of_the_formula() -> None:
    agreement = random_agreement(4, seed=1)
    quality = {0: 0.6, 1: 0.55, 2: 0.5, 3: 0.45}
    chosen = choose_ensemble([(m, q, None) for m, q in quality.items()], agreement, Wanted())
    moments = [vote_moments(quality[m], 1.0, 10.0) for m in chosen.model_ids]
    scores = np.array([mean / math.sqrt(variance) for mean, variance, _ in moments])
    table = np.array([[agreement.correlation[a][b] for b in chosen.model_ids] for a in chosen.model_ids])
    shares = np.linalg.solve(table, scores)
    assert chosen.weights == pytest.approx(
        [m[2] * s / z for m, s, z in zip(moments, shares, scores, strict=True)]
    )
    assert chosen.separation == pytest.approx(
        separation_of(agreement, {m: quality[m] for m in chosen.model_ids})
    )


def test_a_copy_of_a_model_is_left_for_one_that_says_something_new() -> None:
    agreement = agreement_of([[1, 0.99, 0.2], [0.99, 1, 0.2], [0.2, 0.2, 1]])
    candidates = [(0, 0.60, None), (1, 0.59, None), (2, 0.4, None)]
    assert set(choose_ensemble(candidates, agreement, Wanted(n_models=2)).model_ids) == {0, 2}
    assert set(choose_ensemble(candidates, agreement, Wanted(n_models=3)).model_ids) == {0, 2}


def test_two_that_err_alike_weigh_less_than_one_that_errs_for_itself() -> None:
    agreement = agreement_of([[1, 0.6, 0.1], [0.6, 1, 0.1], [0.1, 0.1, 1]])
    chosen = choose_ensemble([(m, 0.5, None) for m in range(3)], agreement, Wanted())
    weights = dict(zip(chosen.model_ids, chosen.weights, strict=True))
    assert weights[2] > 1.3 * weights[0]
    assert weights[0] == pytest.approx(weights[1])


def test_a_model_below_chance_has_no_vote() -> None:
    chosen = choose_ensemble([(0, 0.6, None), (1, 0.03, None)], Agreement.independent(2), Wanted(n_models=2))
    assert chosen.model_ids == (0,)
    assert chosen.weights == (1.0,)


def test_trust_holds_predictions_back_to_the_means() -> None:
    candidates = [(0, 0.9, None), (1, 0.5, None)]
    for trust, held in ((0.0, 0.5), (0.5, 0.7), (1.0, 0.9)):
        agreement = dataclasses.replace(Agreement.independent(2), trust=trust)
        chosen = choose_ensemble(candidates, agreement, Wanted())
        weights = dict(zip(chosen.model_ids, chosen.weights, strict=True))
        assert weights[0] == pytest.approx(vote_moments(held, 1.0, 10.0)[2])


@pytest.mark.parametrize("seed", range(6))
def test_growing_comes_close_to_the_best_of_all_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    agreement = random_agreement(9, seed)
    quality = {m: float(q) for m, q in enumerate(rng.uniform(0.3, 0.6, 9))}
    chosen = choose_ensemble([(m, q, None) for m, q in quality.items()], agreement, Wanted(n_models=4))
    best = max(
        separation_of(agreement, {m: quality[m] for m in ids}) for ids in itertools.combinations(quality, 4)
    )
    assert chosen.separation >= 0.98 * best


@pytest.mark.parametrize("seed", range(6))
def test_a_limit_of_cost_holds_and_is_made_good_use_of(seed: int) -> None:
    rng = np.random.default_rng(seed)
    agreement = random_agreement(8, seed)
    candidates = [
        (m, float(q), float(c)) for m, (q, c) in enumerate(rng.uniform((0.3, 0.1), (0.6, 1.0), (8, 2)))
    ]
    by_id = {model_id: (quality, cost) for model_id, quality, cost in candidates}
    chosen = choose_ensemble(candidates, agreement, Wanted(max_cost=1.2))
    assert chosen.cost is not None
    assert chosen.cost <= 1.2 * (1 + 1e-6)
    fitting = [
        ids
        for size in range(1, 9)
        for ids in itertools.combinations(by_id, size)
        if sum(by_id[m][1] for m in ids) <= 1.2
    ]
    best = max(separation_of(agreement, {m: by_id[m][0] for m in ids}) for ids in fitting)
    assert chosen.separation >= 0.93 * best


def test_a_limit_never_exceeded_by_the_dear_best_alone() -> None:
    candidates = [(0, 0.62, 1.0), (1, 0.6, 0.1), (2, 0.58, 0.1)]
    chosen = choose_ensemble(candidates, Agreement.independent(3), Wanted(max_cost=1.0))
    assert set(chosen.model_ids) == {1, 2}


def test_models_are_added_while_they_are_worth_their_cost() -> None:
    candidates = [(m, 0.6, 0.01) for m in range(6)]
    sizes = [
        len(choose_ensemble(candidates, Agreement.independent(6), Wanted(willingness_to_pay=worth)).model_ids)
        for worth in (0.0, 0.1, 0.3, 3.0, 300.0)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] > 3


def test_a_wanted_quality_ends_the_set_at_the_cheapest_that_reaches_it() -> None:
    candidates = [(0, 0.8, 5.0), (1, 0.6, 0.1), (2, 0.6, 0.1), (3, 0.6, 0.1)]
    chosen = choose_ensemble(candidates, Agreement.independent(4), Wanted(min_quality=0.75))
    assert chosen.quality >= 0.75
    assert set(chosen.model_ids) <= {1, 2, 3}
    every = choose_ensemble(candidates, Agreement.independent(4), Wanted(min_quality=1.0))
    assert len(every.model_ids) == 4


def test_one_model_alone_is_predicted_about_as_good_as_it_is() -> None:
    for quality in (0.3, 0.5, 0.7, 0.9):
        chosen = choose_ensemble([(0, quality, None)], Agreement.independent(1), Wanted())
        assert chosen.quality == pytest.approx(quality, abs=0.05)
    assert accuracy_line(10.0)[1] > 0


def test_agreement_is_written_and_read() -> None:
    agreement = dataclasses.replace(
        random_agreement(5, seed=3), trust=0.25, answered=(1.0, 0.9, 0.8, 0.7, 0.6)
    )
    rounded = Agreement.from_json(agreement.to_json(), n_models=5)
    assert rounded == Agreement.from_json(json.loads(json.dumps(rounded.to_json())), n_models=5)
    assert np.allclose(rounded.correlation, agreement.correlation, atol=1e-4)
    assert rounded.answered == agreement.answered


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trust": 2}, "outside 0 to 1"),
        ({"n_choices": 1}, "outside 2 to inf"),
        ({"slope": "steep"}, "'steep' is no finite number"),
        ({"slope": 10**400}, "cannot be read"),
        ({"correlation": [[], [2.0], [0, 0]]}, "outside -1 to 1"),
        ({"correlation": [[], [0.1]]}, "not that of 3 models"),
        ({"answered": [1, 1]}, "not that of 3 models"),
        ({"mean_quality": None}, "cannot be read"),
    ],
)
def test_a_damaged_agreement_is_refused(change: dict[str, Any], says: str) -> None:
    entry = {**Agreement.independent(3).to_json(), **change}
    with pytest.raises(ArtifactError, match=says):
        Agreement.from_json(entry, n_models=3)


def test_a_pool_may_lose_and_get_models() -> None:
    agreement = random_agreement(4, seed=4)
    less = agreement.without(1)
    assert less.correlation[0] == (1.0, agreement.correlation[0][2], agreement.correlation[0][3])
    more = less.with_newcomer("a@high", 0.4, ("a", "b", "c"))
    assert more.correlation[3] == (0.9, more.correlation[3][1], more.correlation[3][1], 1.0)
    assert [row[3] for row in more.correlation] == list(more.correlation[3])
    assert (len(more.answered), more.mean_quality[3]) == (4, 0.4)


# With a router.


def test_a_router_without_an_agreement_lets_models_err_each_for_itself(artifact: Artifact) -> None:
    router = Router.from_artifact(dataclasses.replace(artifact, agreement=None))
    decision = router.route_ensemble("Prove that 2 + 2 = 4", policy=Policy(n_models=3))
    assert len(decision.models) <= 3
    assert list(decision.weights) == sorted(decision.weights, reverse=True)


def test_an_ensemble_of_text_conversation_and_row_is_the_same(artifact: Artifact, embedder: Any) -> None:
    router = Router.from_artifact(artifact, embedder=embedder)
    policy, text = Policy(n_models=3), "Prove that the square root of 2 is irrational"
    found = [
        router.route_ensemble(text, policy=policy),
        router.route_ensemble([{"role": "user", "content": text}], policy=policy),
        router.route_ensemble_embedding(router.embed([text])[0], policy=policy),
        router.route_ensemble_batch(["Name a river", text], policy=policy)[1],
        asyncio.run(router.aroute_ensemble(text, policy=policy)),
        asyncio.run(router.aroute_ensemble(text + " " * 40_000, policy=policy)),
    ]
    assert len({(one.models, one.weights, one.cost, one.quality) for one in found}) == 1
    decision = found[0]
    assert decision.best.model == router.route(text).model
    assert decision.cost is None or decision.cost == pytest.approx(
        sum(c for c in decision.costs if c is not None)
    )
    assert decision.n_calls == len(decision.models)
    assert (decision.generation, decision.sha256) == (decision.best.generation, decision.best.sha256)


def test_deciding_and_voting_on_texts_needs_no_numpy(router_file: Path) -> None:
    script = (
        "import sys; from centroute import Policy, Router; from centroute.voting import vote\n"
        f"router = Router.load({str(router_file)!r}); policy = Policy(n_models=3)\n"
        "decision = router.route_ensemble('What is 2 + 2?', policy=policy)\n"
        "print(vote({decision.models[0]: 'x'}, decision).winner, 'numpy' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.split() == ["x", "False"]


def test_limits_of_the_policy_hold(artifact: Artifact, embedder: Any) -> None:
    router = Router.from_artifact(artifact, embedder=embedder)
    priced = {m.name for m, c in zip(artifact.models, artifact.prior_cost, strict=True) if not np.isnan(c)}
    allowed = sorted(priced)[:3]
    found = router.route_ensemble("What is 2 + 2?", policy=Policy(n_models=5, allow=allowed))
    assert set(found.models) <= set(allowed)
    one = router.route("What is 2 + 2?", policy=Policy(min_quality=0.0, allow=priced))
    assert one.cost is not None
    tight = router.route_ensemble("What is 2 + 2?", policy=Policy(max_cost=2.5 * one.cost, allow=priced))
    assert tight.cost is not None
    assert tight.cost <= 2.5 * one.cost * (1 + 1e-5)


def test_out_of_distribution_the_fallback_answers_alone(artifact: Artifact, embedder: Any) -> None:
    router = Router.from_artifact(dataclasses.replace(artifact, ood_threshold=1.0), embedder=embedder)
    name = artifact.models[1].name
    found = router.route_ensemble("What is 2 + 2?", policy=Policy(n_models=3, fallback=name))
    assert (found.models, found.weights) == ((name,), (1.0,))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "does not say how many models"),
        ({"alpha": 0.5, "n_models": 3}, "alpha: it compares single models"),
        ({"max_mean_cost": 0.1, "n_models": 3}, "max_mean_cost: it compares single models"),
        ({"n_models": 3, "allow": ["only"]}, "is the only candidate, and one model holds no vote"),
    ],
)
def test_policies_that_make_no_ensemble_are_refused(artifact: Artifact, fields: Any, says: str) -> None:
    router = Router.from_artifact(artifact)
    if "allow" in fields:
        fields = {**fields, "allow": [artifact.models[0].name]}
    with pytest.raises(PolicyError, match=re.escape(says)) as refused:
        router.route_ensemble("What is 2 + 2?", policy=Policy(**fields))
    assert "\n" not in str(refused.value)


def test_a_number_of_models_is_checked_and_is_for_ensembles_alone(artifact: Artifact) -> None:
    for n_models in (1, 0, -3):
        with pytest.raises(PolicyError, match=f"n_models={n_models}: wanted 2 or more"):
            Policy(n_models=n_models)
    policy = Policy(n_models=3, deny={"x"})
    assert policy.replace(deny=None) == Policy(n_models=3) != Policy(n_models=4)
    assert (repr(Policy(n_models=3)), hash(Policy(n_models=3))) == (
        "Policy(n_models=3)",
        hash(Policy(n_models=3)),
    )
    with pytest.raises(PolicyError, match="n_models=3: wanted none: here one model is decided on"):
        Router.from_artifact(artifact).route("What is 2 + 2?", policy=Policy(n_models=3))
    with pytest.raises(ArtifactError, match="default_policy: n_models"):
        dataclasses.replace(artifact, default_policy=Policy(n_models=3)).to_bytes()
    with pytest.raises(PolicyError, match="n_choices=1"):
        Router.from_artifact(artifact).route_ensemble("2?", policy=Policy(n_models=3), n_choices=1)


def test_all_predictions_of_a_decision_can_be_seen(artifact: Artifact) -> None:
    router = Router.from_artifact(artifact)
    decision = router.route("What is 2 + 2?")
    quality, cost = router.predict(router.embed(["What is 2 + 2?"]))
    assert [router.models[model] for model, _, _ in decision.predictions] == list(decision.ranking)
    for model, predicted, price in decision.predictions:
        assert predicted == quality[0, model]
        assert (np.nan if price is None else price) == pytest.approx(cost[0, model], nan_ok=True)


# Simulated votes, of which all is known.

TOPICS = ("equation number algebra sum", "poem verse rhyme stanza")
QUALITY = np.array([[0.85, 0.75, 0.7, 0.3, 0.3, 0.7], [0.3, 0.3, 0.35, 0.8, 0.75, 0.35]])
"""By topic and model; the last model copies what the third answers."""
LETTERS = "ABCDE"


def simulated(n_queries: int, *, seed: int) -> tuple[Outcomes, np.ndarray]:
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 2, n_queries)
    right = rng.integers(0, 5, n_queries)
    hits = rng.random((n_queries, 6)) < QUALITY[topic]
    wrong = (right[:, None] + rng.integers(1, 5, (n_queries, 6))) % 5
    given = np.where(hits, right[:, None], wrong)
    given[:, 5] = given[:, 2]
    outcomes = Outcomes(
        queries=tuple(
            f"{TOPICS[t]} {' '.join(rng.choice(TOPICS[t].split(), 2))} {row}" for row, t in enumerate(topic)
        ),
        models=("m0", "m1", "m2", "m3", "m4", "m2@low"),
        scores=(given == right[:, None]).astype(np.float32),
        costs=np.broadcast_to([0.03, 0.02, 0.01, 0.03, 0.02, 0.01], given.shape).copy(),
        datasets=("",) * n_queries,
        ids=tuple(map(str, range(n_queries))),
        answers=Answers(tuple(LETTERS), given.astype(np.int32), right.astype(np.int32)),
    )
    return outcomes, topic


def optimum(outcomes: Outcomes, topic: np.ndarray) -> float:
    """Accuracy of the vote with the true log-odds, the copy left out."""
    answers = outcomes.answers
    assert answers is not None
    weights = np.log(QUALITY * 4 / (1 - QUALITY))[topic][:, :5]
    counts = np.zeros((len(topic), 5))
    for model in range(5):
        counts[np.arange(len(topic)), answers.given[:, model]] += weights[:, model]
    return float((counts.argmax(axis=1) == answers.right).mean())


@pytest.fixture(scope="module")
def voted(embedder: Any) -> Artifact:
    outcomes, _ = simulated(1000, seed=0)
    return calibrate(
        outcomes, embedder=embedder, method="means", n_clusters=4, top_p=2, surface_weight=0.0, holdout=0
    )


def test_calibration_finds_who_copies_whom_and_who_errs_for_itself(voted: Artifact) -> None:
    agreement = voted.agreement
    assert agreement is not None
    assert agreement.n_choices == pytest.approx(5, abs=0.05)
    assert agreement.answered == (1.0,) * 6
    table = np.array(agreement.correlation)
    assert table[5, 2] > 0.97
    # Given the topic, which the tables know, all others err each for itself.
    assert np.abs(table[:5, :5] - np.eye(5)).max() < 0.12
    assert agreement.trust >= 0.5
    by_mean = estimate_agreement(simulated(1000, seed=0)[0])
    assert by_mean is not None
    table = np.array(by_mean.correlation)
    assert table[0, 3] < -0.05 < 0.05 < table[0, 1]  # strong on different topics, and on the same


def test_votes_reach_the_optimum_of_simulated_models(voted: Artifact, embedder: Any) -> None:
    outcomes, topic = simulated(1200, seed=1)
    router = Router.from_artifact(voted, embedder=embedder)
    rows = router.embed(outcomes.queries)
    found = evaluate_ensemble(router, outcomes, n_models=5, embeddings=rows)
    assert found.accuracy is not None
    assert found.mean_calls is not None
    single = float(outcomes.scores[np.arange(1200), router.route_embeddings(rows).model_ids].mean())
    assert found.accuracy > single + 0.02
    assert found.accuracy >= optimum(outcomes, topic) - 0.015
    assert found.mean_calls < 3.5
    assert found.n_queries == 1200
    # What is promised is what comes.
    promised = np.mean(
        [router.route_ensemble_embedding(row, policy=Policy(n_models=5)).quality for row in rows[:300]]
    )
    assert promised == pytest.approx(found.accuracy, abs=0.04)


def test_stopping_early_saves_calls_and_costs_no_accuracy(voted: Artifact, embedder: Any) -> None:
    outcomes, _ = simulated(400, seed=2)
    router = Router.from_artifact(voted, embedder=embedder)
    rows = router.embed(outcomes.queries)
    answers = outcomes.answers
    assert answers is not None
    n_right = 0
    for row in range(400):
        decision = router.route_ensemble_embedding(rows[row], policy=Policy(n_models=4))
        counts: dict[int, float] = {}
        for name, weight in zip(decision.models, decision.weights, strict=True):
            answer = int(answers.given[row, router.models.index(name)])
            counts[answer] = counts.get(answer, 0.0) + weight
        n_right += max(counts, key=counts.__getitem__) == answers.right[row]
    early = evaluate_ensemble(router, outcomes, n_models=4, embeddings=rows)
    assert early.accuracy == pytest.approx(n_right / 400, abs=0.003)
    hasty = evaluate_ensemble(router, outcomes, n_models=4, embeddings=rows, patience=0.3)
    assert early.mean_calls is not None
    assert hasty.mean_calls is not None
    assert hasty.mean_calls < early.mean_calls < 4
    assert early.mean_cost_usd is not None
    assert 0.03 < early.mean_cost_usd < 0.09


def test_the_copy_is_not_paid_for(voted: Artifact, embedder: Any) -> None:
    router = Router.from_artifact(voted, embedder=embedder)
    for text in TOPICS:
        found = router.route_ensemble(text, policy=Policy(n_models=6))
        assert len({"m2", "m2@low"} & set(found.models)) == 1


def test_scores_alone_show_who_is_right_together() -> None:
    outcomes, _ = simulated(1500, seed=3)
    found = estimate_agreement(dataclasses.replace(outcomes, answers=None))
    assert found is not None
    table = np.array(found.correlation)
    assert table[5, 2] > 0.6
    assert table[5, 2] > table[0, 1] > table[0, 3]
    assert (found.n_choices, found.trust) == (10.0, 0.5)


def test_pairs_that_no_query_shows_take_the_usual_correlation() -> None:
    outcomes, _ = simulated(300, seed=4)
    scores = outcomes.scores.copy()
    scores[::2, 0] = np.nan
    scores[1::2, 1] = np.nan
    scores[::2, 5] = np.nan
    scores[1::2, 2] = np.nan
    found = estimate_agreement(dataclasses.replace(outcomes, scores=scores, answers=None))
    assert found is not None
    assert found.correlation[5][2] == 0.9  # entries of one model
    below = [found.correlation[a][b] for a in range(6) for b in range(a)]
    assert min(below) < found.correlation[1][0] < max(below)


def test_the_file_keeps_what_was_estimated(voted: Artifact, tmp_path: Path) -> None:
    voted.save(tmp_path / "router.safetensors")
    loaded = Artifact.load(tmp_path / "router.safetensors")
    assert loaded.agreement == voted.agreement
    assert loaded.to_bytes() == voted.to_bytes()
    less = drop_model(loaded, "m1")
    assert less.agreement is not None
    assert len(less.agreement.correlation) == 5
    with pytest.raises(ArtifactError, match="agreement is not that of 6 models"):
        dataclasses.replace(voted, agreement=Agreement.independent(5)).to_bytes()


# Data with answers.


def test_answers_come_back_from_a_file(tmp_path: Path) -> None:
    outcomes, _ = simulated(30, seed=5)
    answers = outcomes.answers
    assert answers is not None
    given = answers.given.copy()
    given[0, 0], given[1, 1] = -1, -2
    right = answers.right.copy()
    right[2] = -2
    changed = dataclasses.replace(outcomes, answers=Answers(answers.texts, given, right))
    write_jsonl(changed, tmp_path / "a.jsonl")
    read = read_jsonl(tmp_path / "a.jsonl").answers
    assert read is not None
    for row, model in itertools.product(range(30), range(6)):
        known = (given[row, model] == -2) == (read.given[row, model] == -2)
        assert known
        assert read.of(row, model) == (LETTERS[given[row, model]] if given[row, model] >= 0 else None)
    assert [None if n < 0 else read.texts[n] for n in read.right] == [
        None if n < 0 else LETTERS[n] for n in right
    ]
    assert read_jsonl(tmp_path / "a.jsonl").subset([3, 1]).answers is not None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"answers": ["A"]}, "line 1, answers: must be an object of model and answer"),
        ({"answers": {"a": ["A"]}}, "answers['a']: must be a string, a number or null"),
        ({"answers": {"z": "A"}}, "answers['z']: is of a model that has no score"),
        ({"answers": {"a": "A"}, "answer": True}, "answer: must be a string, a number or null"),
    ],
)
def test_answers_at_fault_are_named(line: dict[str, Any], says: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"query": "x", "scores": {"a": 1, "b": 0}, **line}))
    with pytest.raises(DataError, match=re.escape(says)):
        read_jsonl(file)


def test_numbers_are_answers_too_and_an_answer_alone_is_of_no_concern(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [
        {"query": "x", "scores": {"a": 1, "b": 0}, "answers": {"a": 12, "b": " "}, "answer": "12 "},
        {"query": "y", "scores": {"a": 1, "b": 0}, "answer": {"anything": 1}},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    read = read_jsonl(file).answers
    assert read is not None
    assert read.given.tolist() == [[0, -1], [-2, -2]]
    assert read.right.tolist() == [0, -2]


# The command line.


@pytest.fixture(scope="module")
def files(voted: Artifact, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ensemble")
    voted.save(folder / "router.safetensors")
    write_jsonl(simulated(120, seed=6)[0], folder / "data.jsonl")
    return folder / "router.safetensors", folder / "data.jsonl"


def test_evaluate_measures_ensembles(files: tuple[Path, Path], cli: Cli) -> None:
    done = cli("evaluate", *files, "--ensemble", 3, "--json", "-")
    assert done.code == 0, done.err
    found = json.loads(done.out)["ensemble"]
    assert {"n_models", "accuracy", "mean_calls", "mean_cost_usd"} <= set(found)
    assert found["n_models"] == 3
    assert 0.6 < found["accuracy"] <= 1
    assert 1 <= found["mean_calls"] <= 3
    assert "ensemble" not in json.loads(cli("evaluate", *files, "--json", "-").out)
    assert "votes of up to 3 models" in cli("evaluate", *files, "--ensemble", 3).out
    cheap = json.loads(cli("evaluate", *files, "--ensemble", 3, "--max-cost", 0.04, "--json", "-").out)
    assert cheap["ensemble"]["mean_cost_usd"] <= 0.04


def test_route_shows_ensembles(files: tuple[Path, Path], cli: Cli) -> None:
    asked = ("route", files[0], "Which letter is it?", "", "--n-models", 3)
    shown = cli(*asked)
    assert shown.code == 1
    assert "vote right" in shown.out
    assert "text 2 holds only spaces or nothing" in shown.err
    first, second = map(json.loads, cli(*asked, "--json").out.splitlines())
    assert set(first) == {"models", "quality", "cost_usd", "n_calls", "best"}
    assert 1 <= len(first["models"]) <= 3
    assert set(first["models"][0]) == {"model", "weight", "quality", "cost_usd"}
    assert set(second) == {"error"}
    refused = cli(*asked, "--alpha", 0.5)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "policy alpha: it compares single models" in refused.err


def write_without(data: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        change(row)
    target.write_text("\n".join(map(json.dumps, rows)))
    return target


def test_bad_data_for_votes_is_one_line(files: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    router, data = files
    none = write_without(data, tmp_path / "none.jsonl", lambda row: row.pop("answers"))
    cli("evaluate", router, none, "--ensemble", 3).assert_refused("no 'answers'")
    one = write_without(data, tmp_path / "one.jsonl", lambda row: row.update(answers={"m0": "A"}))
    cli("evaluate", router, one, "--ensemble", 3).assert_refused("answers of only m0", "a vote needs two")
    unknown = write_without(data, tmp_path / "unknown.jsonl", lambda row: row.pop("answer"))
    cli("evaluate", router, unknown, "--ensemble", 3).assert_refused(
        "no line of the data has the right 'answer'"
    )
    cli("evaluate", router, data, "--ensemble", 3, "--alpha", 0.5).assert_refused("alpha")
    cli("evaluate", router, data, "--ensemble", 1).assert_wrong_usage("--ensemble")


def test_answers_missing_for_some_models(files: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    router, data = files
    without = write_without(data, tmp_path / "two.jsonl", lambda row: row["answers"].pop("m0"))
    found = json.loads(cli("evaluate", router, without, "--ensemble", 3, "--json", "-").out)["ensemble"]
    assert found["n_queries"] == 120
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows[:60]:
        row["answers"] = dict.fromkeys(row["answers"], None)
    part = tmp_path / "part.jsonl"
    part.write_text("\n".join(map(json.dumps, rows)))
    found = json.loads(cli("evaluate", router, part, "--ensemble", 3, "--json", "-").out)["ensemble"]
    assert found["n_queries"] == 120
    assert 0.25 < found["accuracy"] <= 0.5  # where no answer can be read, none is right


def test_samples_of_one_model_are_calls() -> None:
    assert (n_samples("m@n5"), n_samples("m@n0"), n_samples("m@high"), n_samples("n5")) == (5, 1, 1, 1)


@pytest.mark.skipif(not MMLU_PRO.is_file(), reason="the real answers of mmlu_pro are not here")
def test_votes_of_small_models_beat_the_best_of_them_on_real_answers(embedder: Any, tmp_path: Path) -> None:
    import gzip

    part = tmp_path / "part.jsonl"
    with gzip.open(MMLU_PRO, "rb") as stream:
        part.write_bytes(b"".join(itertools.islice(itertools.islice(stream, 0, None, 10), 1200)))
    every = read_outcomes(part)
    names = ("Meta-Llama-3_1-8B-Instruct", "mathstral-7B", "Phi-3-mini-4k-instruct", "gemma-7b", "Yi-6b-Chat")
    columns = [every.models.index(name) for name in names]
    assert every.answers is not None
    outcomes = Outcomes(
        queries=every.queries, models=names, scores=every.scores[:, columns], costs=every.costs[:, columns],
        datasets=every.datasets, ids=every.ids, answers=every.answers.columns(columns),
    )  # fmt: skip
    settings = {"method": "learned", "n_clusters": 8, "top_p": 8, "beta": 9.0, "shrinkage": 30.0}
    artifact = calibrate(outcomes, embedder=embedder, surface_weight=0.0, refit=False, **settings)  # type: ignore[arg-type]
    held_out = outcomes.subset(split_by_text(outcomes, holdout=0.3, seed=0)[1])
    router = Router.from_artifact(artifact, embedder=embedder)
    found = evaluate_ensemble(router, held_out, n_models=5)
    best = float(held_out.scores[:, int(np.argmax(artifact.prior_quality))].mean())
    assert found.accuracy is not None
    assert found.accuracy > best + 0.02
    assert found.mean_calls is not None
    assert found.mean_calls < 4
