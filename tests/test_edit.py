"""Edits of an artifact: a model more, a model less, another price; and `centroute edit`."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from centroute import Artifact, Policy, Router, _reference
from centroute.artifact import PoolModel
from centroute.datasets import Outcomes, synthetic_outcomes, write_jsonl
from centroute.edit import (
    MIN_FRONTIER_QUERIES,
    MIN_OUTCOMES,
    add_model,
    drop_model,
    set_price,
    soft_assignment,
)
from centroute.errors import ArtifactError, DataError, EmbedderError
from centroute.newcomer import PoolColumns, fit_deviation

NEW = "wayfarer-tongues"
TABLES = ("quality", "cost", "count")

Unchanged = Callable[[Path], AbstractContextManager[None]]


class Run(Protocol):
    """A run of the command line, in this process or another."""

    def __call__(self, *arguments: object, stdin: bytes = b"", **more: Any) -> Any: ...


@pytest.fixture(scope="module")
def less(artifact: Artifact) -> Artifact:
    """The pool without `NEW`, and no default policy."""
    return drop_model(artifact, NEW)


@pytest.fixture(scope="module")
def rows(artifact: Artifact, embedder: Any, outcomes: Outcomes) -> Any:
    return Router.from_artifact(artifact, embedder=embedder).embed(outcomes.queries)


@pytest.fixture
def file(less: Artifact, tmp_path: Path) -> Path:
    """Router file without `NEW`, to be edited."""
    path = tmp_path / "router.safetensors"
    less.save(path)
    return path


@pytest.fixture
def data(outcomes: Outcomes, tmp_path: Path) -> Path:
    """Outcomes of 40 queries, all models."""
    path = tmp_path / "new.jsonl"
    write_jsonl(outcomes.subset(np.arange(40)), path)
    return path


def names(artifact: Artifact) -> list[str]:
    return [model.name for model in artifact.models]


def only(outcomes: Outcomes, *models: str, costs: bool = True) -> Outcomes:
    """Columns of some models."""
    columns = [outcomes.models.index(model) for model in models]
    observed = outcomes.costs[:, columns] if costs else np.full((outcomes.n_queries, len(columns)), np.nan)
    return Outcomes(
        outcomes.queries, models, outcomes.scores[:, columns], observed, outcomes.datasets, outcomes.ids
    )


# The fit.


def pool(n_clusters: int, profiles: Any = None, similarities: Any = None) -> PoolColumns:
    """One model of mean one half, and one for each profile, on clusters that lie apart."""
    flat = np.zeros((n_clusters, 1))
    table = 0.5 + (flat if profiles is None else np.column_stack([flat, profiles]))
    if similarities is None:
        similarities = 0.2 + 0.8 * np.eye(n_clusters)
    return PoolColumns(table, np.full(table.shape[1], 0.5), np.full(n_clusters, 60.0), similarities)


def test_many_outcomes_are_followed() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(5, 0.3), size=4000)
    wanted = np.array([0.3, -0.2, 0.1, 0.0, -0.4])
    targets = weights @ wanted + rng.normal(0, 0.3, 4000)
    got, errors = fit_deviation(weights, targets, pool(5))
    np.testing.assert_allclose(got, wanted, atol=0.06)
    assert (np.abs(got - wanted) < 4 * errors).all()
    assert errors.max() < 0.03


def test_few_outcomes_keep_to_the_level() -> None:
    rng = np.random.default_rng(0)
    weights = np.eye(8)[rng.integers(8, size=20)]
    targets = 0.2 + rng.normal(0, 0.4, 20)
    got, errors = fit_deviation(weights, targets, pool(8))
    assert errors.min() > 0.05
    assert np.ptp(got) < np.ptp([targets[weights[:, c] > 0].mean() for c in range(8) if weights[:, c].any()])
    assert abs(got.mean()) < abs(targets.mean())


def test_a_model_like_another_is_found_from_few_outcomes() -> None:
    errors = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        profile = rng.normal(0, 0.3, (12, 1))
        weights = np.eye(12)[rng.integers(12, size=40)]
        targets = weights @ profile[:, 0] + rng.normal(0, 0.3, 40)
        for known in (pool(12, profile), pool(12)):
            got = fit_deviation(weights, targets, known)[0]
            errors.append(float(((got - profile[:, 0]) ** 2).mean()))
    leaning, alone = np.reshape(errors, (-1, 2)).mean(axis=0)
    assert leaning < 0.6 * alone


def test_a_cluster_without_outcomes_takes_after_its_neighbour() -> None:
    similarities = np.array([[1, 0.95, 0.1], [0.95, 1, 0.1], [0.1, 0.1, 1]])
    weights = np.eye(3)[[1] * 50 + [2] * 50]
    targets = np.where(np.arange(100) < 50, 0.4, -0.4) + 0.1 * (-1.0) ** np.arange(100)
    got, errors = fit_deviation(weights, targets, pool(3, similarities=similarities))
    assert got[0] > 0.2 > -0.2 > got[2]
    assert errors[0] > errors[1]


def test_nothing_to_deviate_stays_at_zero() -> None:
    got, errors = fit_deviation(np.eye(3), np.zeros(3), pool(3))
    assert got.tolist() == errors.tolist() == [0, 0, 0]


def test_constant_targets_are_a_level() -> None:
    got, _ = fit_deviation(np.eye(2)[[0, 1] * 20], np.full(40, 0.25), pool(2))
    np.testing.assert_allclose(got, 0.25, atol=0.01)


def test_soft_assignment_is_the_kernels(artifact: Artifact, rows: Any) -> None:
    weights, nearest = soft_assignment(3 * rows[:20], artifact)
    for row, got, first in zip(rows[:20], weights, nearest, strict=True):
        ids, wanted, _ = _reference.assign(row, artifact.centroids, artifact.top_p, artifact.beta)
        np.testing.assert_allclose(got[ids], wanted, atol=1e-6)
        assert got.sum() == pytest.approx(1)
        assert np.count_nonzero(got) == artifact.top_p
        assert first == ids[0]


# Adding a model.


def test_the_others_stay_bit_for_bit(
    less: Artifact, outcomes: Outcomes, embedder: Any, tmp_path: Path
) -> None:
    edited = add_model(less, NEW, outcomes.subset(np.arange(40)), embedder=embedder)
    assert names(edited) == [*names(less), NEW]
    for table in TABLES:
        np.testing.assert_array_equal(getattr(edited, table)[:, :-1], getattr(less, table))
    np.testing.assert_array_equal(edited.centroids, less.centroids)
    assert (edited.top_p, edited.beta, edited.ood_threshold) == (less.top_p, less.beta, less.ood_threshold)
    assert edited.count[:, -1].sum() == 40
    edited.save(tmp_path / "r")
    assert Artifact.load(tmp_path / "r").to_bytes() == edited.to_bytes()


def test_the_column_nears_that_of_the_calibration(
    less: Artifact, artifact: Artifact, outcomes: Outcomes, rows: Any
) -> None:
    wanted = artifact.quality[:, names(artifact).index(NEW)]
    distances = []
    for n in (20, 240):
        some = np.random.default_rng(0).permutation(240)[:n]
        got = add_model(less, NEW, outcomes.subset(some), embeddings=rows[some]).quality[:, -1]
        distances.append(float(np.abs(got - wanted).mean()))
    assert distances[1] < 0.1
    assert distances[1] < distances[0] < 0.2


def test_it_is_chosen_where_it_is_best(less: Artifact, outcomes: Outcomes, rows: Any) -> None:
    edited = add_model(less, NEW, outcomes, embeddings=rows)
    batch = Router.from_artifact(edited).route_embeddings(rows)
    theirs = np.array(batch.models) == NEW
    assert theirs.any()
    scores = outcomes.scores[:, [outcomes.models.index(name) for name in (NEW, *names(less))]]
    assert scores[theirs].mean(axis=0).argmax() == 0


def test_queries_of_the_pool_sharpen_the_fit(less: Artifact, outcomes: Outcomes, rows: Any) -> None:
    wanted = add_model(less, NEW, outcomes, embeddings=rows).prior_quality[-1]
    errors = []
    for seed in range(30):
        some = np.random.default_rng(seed).permutation(240)[:30]
        drawn = outcomes.subset(some)
        for told in (drawn, only(drawn, NEW)):
            edited = add_model(less, NEW, told, embeddings=rows[some])
            errors.append(float((edited.prior_quality[-1] - wanted) ** 2))
    paired, alone = np.reshape(errors, (-1, 2)).mean(axis=0)
    assert paired < alone


def test_the_mean_is_that_of_the_calibrations_queries(
    less: Artifact, artifact: Artifact, outcomes: Outcomes, rows: Any
) -> None:
    column = outcomes.models.index(NEW)
    # Only queries of the model's better half of the clusters: the plain mean would flatter it.
    _, nearest = soft_assignment(rows, artifact)
    good = np.isin(nearest, np.argsort(-artifact.quality[:, column])[:3])
    edited = add_model(less, NEW, outcomes.subset(good), embeddings=rows[good])
    plain = float(outcomes.scores[good, column].mean())
    true = float(artifact.prior_quality[column])
    assert abs(edited.prior_quality[-1] - true) < 0.6 * abs(plain - true)


def test_costs_follow_those_of_the_pool(less: Artifact, outcomes: Outcomes, rows: Any) -> None:
    costs = outcomes.costs.copy()
    new, other = (outcomes.models.index(name) for name in (NEW, "pebble-fair"))
    costs[:, new] = 3 * costs[:, other]
    data = replace(outcomes, costs=costs)
    some = np.arange(0, 240, 6)
    edited = add_model(less, NEW, data.subset(some), embeddings=rows[some])
    wanted = 3 * less.cost[:, names(less).index("pebble-fair")]
    np.testing.assert_allclose(edited.cost[:, -1], wanted, rtol=0.25)
    assert edited.prior_cost[-1] == pytest.approx(
        3 * less.prior_cost[names(less).index("pebble-fair")], rel=0.15
    )


def test_without_costs_the_cost_is_unknown(less: Artifact, outcomes: Outcomes, embedder: Any) -> None:
    edited = add_model(less, NEW, only(outcomes.subset(np.arange(40)), NEW, costs=False), embedder=embedder)
    assert np.isnan(edited.cost[:, -1]).all()
    assert np.isnan(edited.prior_cost[-1])
    assert edited.report["edits"][-1]["n_costs"] == 0  # type: ignore[index, call-overload]


def test_a_free_model_is_free(less: Artifact, outcomes: Outcomes, embedder: Any) -> None:
    some = only(outcomes.subset(np.arange(40)), NEW)
    edited = add_model(less, NEW, replace(some, costs=np.zeros((40, 1))), embedder=embedder)
    assert edited.cost[:, -1].tolist() == [0.0] * 6
    assert edited.prior_cost[-1] == 0


def test_costs_of_a_pool_without_any(less: Artifact, outcomes: Outcomes, embedder: Any) -> None:
    unknown = replace(
        less,
        cost=np.full_like(less.cost, np.nan),
        prior_cost=np.full_like(less.prior_cost, np.nan),
        frontier=np.zeros((0, 3), dtype=np.float32),
    )
    edited = add_model(unknown, NEW, outcomes.subset(np.arange(40)), embedder=embedder)
    assert np.isfinite(edited.cost[:, -1]).all()
    assert np.isnan(edited.cost[:, :-1]).all()


def test_the_order_of_the_outcomes_does_not_matter(less: Artifact, outcomes: Outcomes, rows: Any) -> None:
    some = np.arange(50)
    forth = add_model(less, NEW, outcomes.subset(some), embeddings=rows[some])
    back = add_model(less, NEW, outcomes.subset(some[::-1]), embeddings=rows[some[::-1]])
    np.testing.assert_allclose(forth.quality, back.quality, atol=1e-6)
    again = add_model(less, NEW, outcomes.subset(some), embeddings=rows[some])
    assert forth.to_bytes() == again.to_bytes()


def test_all_right_and_all_wrong_stay_in_range(less: Artifact, outcomes: Outcomes, embedder: Any) -> None:
    some = only(outcomes.subset(np.arange(40)), NEW)
    for score in (0, 1):
        scores = np.full((40, 1), score, dtype=np.float32)
        edited = add_model(less, NEW, replace(some, scores=scores), embedder=embedder)
        assert edited.quality[:, -1].min() >= 0
        assert edited.quality[:, -1].max() <= 1
        assert abs(edited.prior_quality[-1] - score) < 0.35


def test_a_pool_of_one(less: Artifact, outcomes: Outcomes, embedder: Any) -> None:
    one = less
    for name in names(less)[1:]:
        one = drop_model(one, name)
    edited = add_model(one, NEW, outcomes.subset(np.arange(40)), embedder=embedder)
    assert names(edited) == [names(less)[0], NEW]


def test_learned_tables_count_by_weight(less: Artifact, outcomes: Outcomes, embedder: Any) -> None:
    learned = replace(less, method={**less.method, "learned": True})
    edited = add_model(learned, NEW, outcomes.subset(np.arange(40)), embedder=embedder)
    assert edited.count[:, -1].sum() == pytest.approx(40)
    assert (edited.count[:, -1] % 1).any()


def test_the_frontier_is_measured_anew_or_dropped(less: Artifact, outcomes: Outcomes, rows: Any) -> None:
    for n, there in ((MIN_FRONTIER_QUERIES, True), (MIN_FRONTIER_QUERIES - 1, False)):
        some = np.arange(n)
        edited = add_model(less, NEW, outcomes.subset(some), embeddings=rows[some])
        assert bool(len(edited.frontier)) is there
        assert edited.report["edits"][-1]["n_frontier_queries"] == (n if there else 0)  # type: ignore[index, call-overload]
        if there:
            router = Router.from_artifact(edited)
            router.route_embeddings(rows, policy=Policy(max_mean_cost=float(edited.frontier[5, 2])))


def test_the_report_tells_what_was_done(artifact: Artifact, outcomes: Outcomes, embedder: Any) -> None:
    dropped = drop_model(artifact, NEW)
    edited = add_model(dropped, NEW, outcomes.subset(np.arange(40)), embedder=embedder)
    assert "evaluation" not in edited.report
    assert edited.report["evaluation_before_edits"] == artifact.report["evaluation"]
    assert NEW not in dropped.report["outcomes_per_model"]  # type: ignore[operator]
    assert edited.report["outcomes_per_model"][NEW] == 40  # type: ignore[index, call-overload]
    assert edited.report["edits"] == [
        {"edit": "drop-model", "model": NEW},
        {"edit": "add-model", "model": NEW, "n_outcomes": 40, "n_costs": 40, "n_frontier_queries": 0},
    ]
    assert "edits" not in artifact.report


def test_only_scored_and_routable_queries_count(less: Artifact, outcomes: Outcomes, embedder: Any) -> None:
    some = outcomes.subset(np.arange(60))
    scores = some.scores.copy()
    scores[40:50, some.models.index(NEW)] = np.nan
    queries = (*some.queries[:30], *["\u2603"] * 10, *some.queries[40:])
    edited = add_model(less, NEW, replace(some, scores=scores, queries=queries), embedder=embedder)
    assert edited.report["edits"][-1]["n_outcomes"] == 40  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("name", "change", "error", "told"),
    [
        ("pebble-fair", lambda o: o, ArtifactError, "in the pool already"),
        ("", lambda o: o, ArtifactError, "empty"),
        ("nobody", lambda o: o, DataError, "no score of 'nobody'; it has"),
        (NEW, lambda o: o.subset(np.arange(MIN_OUTCOMES - 1)), DataError, "9 outcomes; at least 10"),
        (NEW, lambda o: replace(o, queries=("\u2603",) * o.n_queries), DataError, "0 outcomes that"),
    ],
)
def test_outcomes_that_carry_no_model(
    name: str, change: Any, error: type, told: str, less: Artifact, outcomes: Outcomes, embedder: Any
) -> None:
    with pytest.raises(error, match=told):
        add_model(less, name, change(outcomes.subset(np.arange(40))), embedder=embedder)


def test_a_wrong_embedder_or_shape_is_refused(less: Artifact, outcomes: Outcomes, rows: Any) -> None:
    with pytest.raises(DataError, match=r"embeddings \[240, 255\]: wanted \[240, 256\]"):
        add_model(less, NEW, outcomes, embeddings=rows[:, 1:])
    other = replace(less, embedder=replace(less.embedder, fingerprint="0" * 64))
    with pytest.raises(EmbedderError, match="fingerprint"):
        add_model(other, NEW, outcomes)


def test_a_default_policy_that_needs_the_cost_refuses(
    less: Artifact, outcomes: Outcomes, embedder: Any
) -> None:
    asking = replace(less, default_policy=Policy(willingness_to_pay=0.01))
    with pytest.raises(ArtifactError, match=f"needs the cost of every candidate, and that of {NEW}"):
        add_model(asking, NEW, only(outcomes, NEW, costs=False), embedder=embedder)
    add_model(asking, NEW, outcomes, embedder=embedder)


# Dropping a model.


def test_drop_takes_one_column(artifact: Artifact, less: Artifact) -> None:
    column = names(artifact).index(NEW)
    assert names(less) == [name for name in names(artifact) if name != NEW]
    for table in TABLES:
        np.testing.assert_array_equal(
            getattr(less, table), np.delete(getattr(artifact, table), column, axis=1)
        )
    assert less.frontier.shape == (0, 3)


def test_drop_is_a_calibration_without_the_model(outcomes: Outcomes, embedder: Any) -> None:
    from centroute.calibrate import calibrate

    settings = {"method": "means", "n_clusters": 5, "top_p": 2, "beta": 9.0, "shrinkage": 3.0}
    left = [name for name in outcomes.models if name != NEW]
    whole, without = (
        calibrate(data, embedder=embedder, surface_weight=0.0, **settings)  # type: ignore[arg-type]
        for data in (outcomes, only(outcomes, *left))
    )
    dropped = drop_model(whole, NEW)
    for table in ("centroids", *TABLES):
        np.testing.assert_array_equal(getattr(dropped, table), getattr(without, table))


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (Policy(deny={NEW}), Policy()),
        (Policy(deny={NEW, "crumb-mini"}), Policy(deny={"crumb-mini"})),
        (Policy(allow={NEW, "crumb-mini"}, alpha=0.5), Policy(allow={"crumb-mini"}, alpha=0.5)),
        (Policy(willingness_to_pay=0.1), Policy(willingness_to_pay=0.1)),
    ],
)
def test_the_default_policy_loses_the_name(policy: Policy, left: Policy, artifact: Artifact) -> None:
    assert drop_model(replace(artifact, default_policy=policy), NEW).default_policy == left


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Policy(allow={NEW}), "the only one that the default policy allows"),
        (Policy(fallback=NEW), "fallback"),
        (Policy(max_mean_cost=0.004), "max_mean_cost=0.004, which is read off the frontier"),
    ],
)
def test_a_model_that_the_default_policy_needs_stays(policy: Policy, told: str, artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=told):
        drop_model(replace(artifact, default_policy=policy), NEW)


def test_the_last_model_stays(artifact: Artifact) -> None:
    for name in names(artifact)[1:]:
        artifact = drop_model(artifact, name)
    with pytest.raises(ArtifactError, match="the only one"):
        drop_model(artifact, artifact.models[0].name)


@pytest.mark.parametrize("edit", [drop_model, lambda a, name: set_price(a, name, cost_usd=1.0)])
def test_a_model_that_the_pool_lacks(edit: Any, artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="'nobody' is not in the pool; it has oakhollow-grand, "):
        edit(artifact, "nobody")


# Prices.


@pytest.fixture
def priced(artifact: Artifact) -> Artifact:
    """The first model's prices are known."""
    first = replace(artifact.models[0], input_usd_per_million=2.0, output_usd_per_million=8.0)
    return replace(artifact, models=(first, *artifact.models[1:]))


FIRST = "oakhollow-grand"


def test_costs_follow_prices_that_change_by_one_factor(priced: Artifact) -> None:
    edited = set_price(priced, FIRST, input_usd_per_million=1.0, output_usd_per_million=4.0)
    np.testing.assert_allclose(edited.cost[:, 0], priced.cost[:, 0] / 2, rtol=1e-6)
    np.testing.assert_array_equal(edited.cost[:, 1:], priced.cost[:, 1:])
    assert edited.prior_cost[0] == pytest.approx(priced.prior_cost[0] / 2)
    assert edited.models[0] == PoolModel(FIRST, 1.0, 4.0)
    assert edited.frontier.shape == (0, 3)
    assert "evaluation_before_edits" in edited.report
    (edit,) = edited.report["edits"]  # type: ignore[union-attr, misc]
    assert edit["mean_cost_usd"] == pytest.approx(edit["mean_cost_usd_before"] / 2)  # type: ignore[index, call-overload, operator]


@pytest.mark.parametrize(
    ("prices", "told"),
    [
        ({"input_usd_per_million": 1.0}, "by different factors"),
        ({"input_usd_per_million": 1.0, "output_usd_per_million": 5.0}, "by different factors"),
    ],
)
def test_prices_that_change_differently_do_not_tell_the_costs(
    prices: dict[str, float], told: str, priced: Artifact
) -> None:
    with pytest.raises(ArtifactError, match=told):
        set_price(priced, FIRST, **prices)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "unknown"), [("input", "input"), ("output", "input")])
def test_without_old_prices_the_costs_are_not_told(kind: str, unknown: str, artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=f"come from data and cannot be scaled: its {unknown} price"):
        set_price(artifact, FIRST, **{f"{kind}_usd_per_million": 1.0})  # type: ignore[arg-type]


def test_a_price_from_zero_has_no_factor(artifact: Artifact) -> None:
    free = replace(artifact.models[0], input_usd_per_million=0.0, output_usd_per_million=0.0)
    artifact = replace(artifact, models=(free, *artifact.models[1:]))
    with pytest.raises(ArtifactError, match="different factors"):
        set_price(artifact, FIRST, input_usd_per_million=1.0)


def test_a_mean_cost_scales_the_column(artifact: Artifact) -> None:
    edited = set_price(artifact, FIRST, input_usd_per_million=3.0, cost_usd=0.5)
    factor = 0.5 / artifact.prior_cost[0]
    np.testing.assert_allclose(edited.cost[:, 0], artifact.cost[:, 0] * factor, rtol=1e-5)
    assert edited.prior_cost[0] == 0.5
    assert edited.models[0].input_usd_per_million == 3.0
    assert edited.models[0].output_usd_per_million is None


def test_costs_can_be_kept(artifact: Artifact) -> None:
    edited = set_price(
        artifact, FIRST, input_usd_per_million=1.0, output_usd_per_million=2.0, keep_costs=True
    )
    np.testing.assert_array_equal(edited.cost, artifact.cost)
    np.testing.assert_array_equal(edited.frontier, artifact.frontier)
    assert edited.report["evaluation"] == artifact.report["evaluation"]
    assert edited.models[0].output_usd_per_million == 2.0
    with pytest.raises(DataError, match="cannot be changed and kept"):
        set_price(artifact, FIRST, cost_usd=1.0, keep_costs=True)


def test_the_same_prices_change_nothing(priced: Artifact) -> None:
    edited = set_price(priced, FIRST, input_usd_per_million=2.0, output_usd_per_million=8.0)
    np.testing.assert_array_equal(edited.cost, priced.cost)
    np.testing.assert_array_equal(edited.frontier, priced.frontier)


def test_an_unknown_cost_stays_unknown_until_it_is_told(
    less: Artifact, outcomes: Outcomes, embedder: Any
) -> None:
    added = add_model(less, NEW, only(outcomes, NEW, costs=False), embedder=embedder)
    edited = set_price(added, NEW, input_usd_per_million=1.0, output_usd_per_million=4.0)
    assert np.isnan(edited.cost[:, -1]).all()
    told = set_price(edited, NEW, cost_usd=0.002)
    np.testing.assert_allclose(told.cost[:, -1], 0.002)
    assert told.report["edits"][-1]["mean_cost_usd_before"] is None  # type: ignore[index, call-overload]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_price_that_is_none(value: float, artifact: Artifact) -> None:
    for prices in ({"input_usd_per_million": value}, {"cost_usd": value}):
        with pytest.raises(DataError, match="wanted a finite number of USD"):
            set_price(artifact, FIRST, **prices)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no price"):
        set_price(artifact, FIRST)


def test_costs_beyond_float32_are_refused(priced: Artifact) -> None:
    with pytest.raises(DataError, match=r"the costs of .* would no longer be finite"):
        set_price(priced, FIRST, cost_usd=3.4e38)


# The command.


def test_add_model_in_place(cli: Run, file: Path, data: Path, less: Artifact) -> None:
    finished = cli("edit", file, "add-model", NEW, "--data", data)
    assert finished.code == 0, finished.err
    assert finished.err == ""
    for told in (f"added {NEW}: 40 outcomes", "mean quality", f"wrote {file}"):
        assert told in finished.out
    assert names(Artifact.load(file)) == [*names(less), NEW]
    assert sorted(path.name for path in file.parent.iterdir()) == ["new.jsonl", "router.safetensors"]
    assert cli("route", file, "Translate into French: where is the station?").code == 0
    assert cli("inspect", file).code == 0


def test_add_model_to_another_file(process: Run, file: Path, data: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    finished = process("edit", file, "add-model", NEW, "--data", data, "-o", tmp_path / "o")
    assert finished.code == 0, finished.err
    assert file.read_bytes() == before
    assert NEW in names(Artifact.load(tmp_path / "o"))


def test_add_model_takes_price_and_tags_from_a_pool(cli: Run, file: Path, data: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.toml"
    prices = "input_usd_per_million = 1.5\noutput_usd_per_million = 6.0\n"
    pool.write_text(f'[models."{NEW}"]\n{prices}tags = ["vision"]\ncontext_length = 9000\n')
    finished = cli("edit", file, "add-model", NEW, "--data", data, "--pool", pool)
    assert finished.code == 0, finished.err
    added = Artifact.load(file).models[-1]
    assert added == PoolModel(NEW, 1.5, 6.0, frozenset({"vision"}), 9000)
    (row,) = cli("route", file, "where is the station?", "--require", "vision", "--json").rows
    assert row["model"] == NEW
    pool.write_text("[models.nobody]\ncontext_length = 5\n")
    cli("edit", file, "add-model", "other", "--data", data, "--pool", pool).assert_refused("'nobody'")


def test_few_outcomes_are_told(cli: Run, file: Path, outcomes: Outcomes, tmp_path: Path) -> None:
    write_jsonl(outcomes.subset(np.arange(12)), tmp_path / "few.jsonl")
    finished = cli("edit", file, "add-model", NEW, "--data", tmp_path / "few.jsonl")
    assert finished.code == 0
    assert finished.err.startswith("centroute: 12 outcomes are few")


def test_a_new_frontier_is_told(cli: Run, file: Path, outcomes: Outcomes, tmp_path: Path) -> None:
    write_jsonl(outcomes, tmp_path / "all.jsonl")
    finished = cli("edit", file, "add-model", NEW, "--data", tmp_path / "all.jsonl")
    assert "frontier: measured anew on 240 queries" in finished.out


def test_drop_model_tells_what_it_took(cli: Run, artifact: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "router"
    replace(artifact, default_policy=Policy(deny={NEW, "crumb-mini"})).save(file)
    finished = cli("edit", file, "drop-model", NEW)
    assert finished.code == 0, finished.err
    for told in (f"dropped {NEW}; the pool is oakhollow-grand, ", "frontier: dropped", "default policy: "):
        assert told in finished.out
    described = json.loads(cli("inspect", file, "--json").out)
    assert described["report"]["edits"] == [{"edit": "drop-model", "model": NEW}]


def test_set_price_tells_the_costs(cli: Run, file: Path, less: Artifact) -> None:
    finished = cli("edit", file, "set-price", FIRST, "--cost-usd", 0.25)
    assert finished.code == 0, finished.err
    assert "$0.250 now" in finished.out
    finished = cli("edit", file, "set-price", FIRST, "--input-usd-per-million", 2, "--keep-costs")
    assert "is as before" in finished.out
    assert Artifact.load(file).models[0].input_usd_per_million == 2
    assert Artifact.load(file).prior_cost[0] == 0.25


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("add-model", NEW, "--data", "{folder}/none.jsonl"), ("none.jsonl",)),
        (("add-model", "nobody", "--data", "{data}"), ("new.jsonl", "no score of 'nobody'")),
        (("add-model", "crumb-mini", "--data", "{data}"), ("router.safetensors", "in the pool already")),
        (("add-model", NEW, "--data", "{data}", "-o", "{folder}"), ("cannot be written", "folder")),
        (("add-model", NEW, "--data", "{data}", "-o", "{folder}/no/r"), ("cannot be written", "no folder")),
        (("add-model", NEW, "--data", "{data}", "-o", "{data}"), ("it is the data",)),
        (("add-model", NEW, "--data", "{data}", "--embedder", "nowhere"), ("nowhere",)),
        (("drop-model", "nobody"), ("router.safetensors", "'nobody' is not in the pool")),
        (("drop-model", "crumb-mini", "-o", "{folder}/no/r"), ("cannot be written",)),
        (("set-price", "nobody", "--cost-usd", "1"), ("'nobody' is not in the pool",)),
        (("set-price", FIRST, "--input-usd-per-million", "1"), ("come from data", "give a mean cost")),
        (("set-price", FIRST, "--cost-usd", "nan"), ("cost_usd nan",)),
    ],
)
def test_refused_in_one_line(
    arguments: tuple[str, ...],
    told: tuple[str, ...],
    cli: Run,
    file: Path,
    data: Path,
    tmp_path: Path,
    unchanged: Unchanged,
) -> None:
    filled = [part.format(folder=tmp_path, data=data) for part in arguments]
    with unchanged(tmp_path):
        cli("edit", file, *filled).assert_refused(*told)


def test_too_few_outcomes_are_refused_in_one_line(
    cli: Run, file: Path, outcomes: Outcomes, tmp_path: Path, unchanged: Unchanged
) -> None:
    write_jsonl(outcomes.subset(np.arange(9)), tmp_path / "few.jsonl")
    with unchanged(tmp_path):
        finished = cli("edit", file, "add-model", NEW, "--data", tmp_path / "few.jsonl")
        finished.assert_refused("few.jsonl", f"model '{NEW}' has 9 outcomes; at least 10")


def test_a_damaged_router_is_refused(cli: Run, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])
    cli("edit", file, "drop-model", "crumb-mini").assert_refused("router.safetensors")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "ROUTER"),
        (("r",), "Missing command"),
        (("r", "rename-model"), "No such command"),
        (("r", "add-model", NEW), "--data"),
        (("r", "drop-model"), "NAME"),
        (("r", "set-price", NEW), "at least one"),
        (("r", "set-price", NEW, "--cost-usd", "-1"), "--cost-usd"),
        (("r", "set-price", NEW, "--cost-usd", "1", "--keep-costs"), "exclude each other"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], told: str, cli: Run) -> None:
    finished = cli("edit", *arguments)
    assert finished.code == 2
    assert told in finished.err + finished.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--help",), ("ROUTER COMMAND", "add-model", "set-price", "drop-model")),
        (("r", "add-model", "--help"), ("ROUTER add-model", "--data", "--output", "--embedder")),
        (("r", "set-price", "--help"), ("--input-usd-per-million", "--cost-usd", "--keep-costs")),
        (("r", "drop-model", "--help"), ("NAME", "--output")),
    ],
)
def test_help(arguments: tuple[str, ...], told: tuple[str, ...], cli: Run) -> None:
    finished = cli("edit", *arguments)
    assert finished.code == 0
    for word in told:
        assert word in finished.out, finished.out


def test_the_sample_gains_most_of_what_a_calibration_gains(embedder: Any) -> None:
    from centroute.calibrate import calibrate

    outcomes = synthetic_outcomes(n_queries=1600)
    rows = embedder.embed(outcomes.queries)
    half = outcomes.subset(np.arange(800))
    settings = {"method": "means", "n_clusters": 16, "top_p": 4, "beta": 9.0, "surface_weight": 0.0}
    full = calibrate(half, embedder=embedder, embeddings=rows[:800], holdout=0, **settings)  # type: ignore[arg-type]

    def accuracy(artifact: Artifact) -> float:
        chosen = Router.from_artifact(artifact).route_embeddings(rows[800:]).models
        columns = [outcomes.models.index(name) for name in chosen]
        return float(outcomes.scores[np.arange(800, 1600), columns].mean())

    gains = []
    for name in outcomes.models:
        without = drop_model(full, name)
        edited = add_model(without, name, outcomes.subset(np.arange(80)), embeddings=rows[:80])
        gains.append((accuracy(edited) - accuracy(without), accuracy(full) - accuracy(without)))
    edited_sum, full_sum = np.sum(gains, axis=0)
    assert edited_sum > 0.6 * full_sum > 0, gains
