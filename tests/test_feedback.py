"""Feedback in the tables: running means, regression, counts, what is refused and what is told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from centroute import Artifact, DataError, Router
from centroute._kernel import Kernel
from centroute.drift import calibrated_shares
from centroute.feedback import absorb, prior_precision
from centroute.logged_decisions import Feedback, LoggedDecision, read_feedback

SHA256 = "a" * 64


def decided(rows: np.ndarray, model: str, *, sha256: str = SHA256, start: int = 1) -> list[LoggedDecision]:
    return [
        LoggedDecision(
            line=number,
            decision_id=f"{model}-{number}",
            sha256=sha256,
            model=model,
            similarity=0.9,
            in_distribution=True,
            clusters=tuple((int(c), float(row[c])) for c in np.flatnonzero(row)),
        )
        for number, row in enumerate(rows, start=start)
    ]


def told(decisions: list[LoggedDecision], scores, costs=None) -> list[Feedback]:
    costs = [None] * len(decisions) if costs is None else costs
    return [
        Feedback(number, decision.decision_id, score, cost)
        for number, (decision, score, cost) in enumerate(zip(decisions, scores, costs, strict=True), start=1)
    ]


@pytest.fixture
def unshrunk(artifact: Artifact) -> Artifact:
    """Cells are plain means of their outcomes."""
    return replace(artifact, method={**artifact.method, "shrinkage": 0.0})


def test_whole_clusters_give_the_running_mean(unshrunk: Artifact) -> None:
    model = unshrunk.models[1].name
    decisions = decided(np.eye(6)[[2] * 30], model)
    scores = [1.0] * 20 + [0.25] * 10
    after = absorb(unshrunk, decisions, told(decisions, scores, [0.002] * 30), sha256=SHA256).artifact
    count = unshrunk.count[2, 1]
    assert after.quality[2, 1] == pytest.approx(
        (count * unshrunk.quality[2, 1] + sum(scores)) / (count + 30), rel=1e-5
    )
    assert after.cost[2, 1] == pytest.approx(
        (count * unshrunk.cost[2, 1] + 30 * 0.002) / (count + 30), rel=1e-5
    )
    assert after.count[2, 1] == count + 30
    untouched = np.ones((6, len(unshrunk.models)), dtype=bool)
    untouched[2, 1] = False
    for table in ("quality", "cost", "count"):
        before, now = getattr(unshrunk, table), getattr(after, table)
        np.testing.assert_allclose(now[untouched], before[untouched], rtol=1e-6)


def test_blends_are_fitted_by_regression(artifact: Artifact) -> None:
    rng = np.random.default_rng(5)
    truth = np.array([0.1, 0.9, 0.3, 0.7, 0.2, 0.8])
    rows = rng.dirichlet(np.full(6, 0.5), 20_000)
    model = artifact.models[0].name
    decisions = decided(rows, model)
    scores = np.clip(rows @ truth + rng.normal(0, 0.05, len(rows)), 0, 1).tolist()
    after = absorb(artifact, decisions, told(decisions, scores), sha256=SHA256).artifact
    # Far more outcomes than the table had: the cells are those that the blends were made of.
    assert np.abs(after.quality[:, 0] - truth).max() < 0.1
    assert np.abs(artifact.quality[:, 0] - truth).max() > 0.3


def test_the_update_is_the_minimum_that_is_described(unshrunk: Artifact) -> None:
    rng = np.random.default_rng(9)
    rows = rng.dirichlet(np.ones(6), 50)
    decisions = decided(rows, unshrunk.models[0].name)
    scores = rng.uniform(0.3, 0.7, 50)
    after = absorb(unshrunk, decisions, told(decisions, scores.tolist()), sha256=SHA256).artifact
    present = unshrunk.quality[:, 0].astype(float)
    precision = prior_precision(unshrunk.count[:, 0].astype(float), rows.T @ rows, 0.0)

    def loss(cells: np.ndarray) -> float:
        change = cells - present
        return float(((scores - rows @ cells) ** 2).sum() + change @ precision @ change)

    found = after.quality[:, 0].astype(float)
    for nudge in 0.01 * np.concatenate([np.eye(6), -np.eye(6)]):
        assert loss(found) < loss(found + nudge)


def test_the_precision_is_that_of_the_outcomes_where_the_log_is_like_them() -> None:
    rng = np.random.default_rng(3)
    calibration, log = rng.dirichlet(np.full(6, 0.4), 3000), rng.dirichlet(np.full(6, 0.4), 500)
    found = prior_precision(calibration.sum(axis=0), log.T @ log, 0.0)
    truth = calibration.T @ calibration
    assert np.abs(found - truth).max() < 0.15 * np.abs(truth).max()
    # Whatever the log is like, no cluster is known worse than its count says, nor much better.
    other = rng.dirichlet(np.array([5, 1, 0.1, 0.1, 0.1, 0.1]), 40)
    count = calibration.sum(axis=0)
    sums = prior_precision(count, other.T @ other, 0.0).sum(axis=1)
    assert (sums >= count * (1 - 1e-9)).all()
    assert (sums <= 1.5 * count).all()
    assert np.linalg.eigvalsh(prior_precision(count, other.T @ other, 10.0)).min() >= 10 - 1e-6


def test_feedback_at_once_and_in_two_parts_come_to_the_same_cells(unshrunk: Artifact) -> None:
    model = unshrunk.models[0].name
    decisions = decided(np.eye(6)[[0, 1, 2, 3] * 10], model)
    scores = [1.0, 0.0, 0.5, 1.0] * 10
    whole = absorb(unshrunk, decisions, told(decisions, scores), sha256=SHA256).artifact
    parts = unshrunk
    for half in (slice(0, 20), slice(20, 40)):
        parts = absorb(parts, decisions[half], told(decisions[half], scores[half]), sha256=SHA256).artifact
    np.testing.assert_allclose(parts.quality, whole.quality, rtol=1e-5)
    np.testing.assert_array_equal(parts.count, whole.count)
    np.testing.assert_allclose(parts.prior_quality, whole.prior_quality, rtol=1e-3)


def test_errors_shrink_where_outcomes_came(artifact: Artifact) -> None:
    assert artifact.quality_se is not None
    decisions = decided(np.eye(6)[[4] * 50], artifact.models[0].name)
    after = absorb(artifact, decisions, told(decisions, [0.5] * 50), sha256=SHA256).artifact
    ratio = after.quality_se / artifact.quality_se
    assert ratio[4, 0] < 0.9
    ratio[4, 0] = 1
    np.testing.assert_allclose(ratio, 1, rtol=1e-6)


def test_the_mean_of_a_model_is_not_that_of_where_it_was_chosen(unshrunk: Artifact) -> None:
    # All feedback is from the one cluster in which the model is best: its mean moves by that cluster's share.
    decisions = decided(np.eye(6)[[1] * 500], unshrunk.models[0].name)
    after = absorb(unshrunk, decisions, told(decisions, [1.0] * 500), sha256=SHA256).artifact
    share = calibrated_shares(unshrunk)[0][1]
    moved = after.prior_quality[0] - unshrunk.prior_quality[0]
    assert moved == pytest.approx(share * (after.quality[1, 0] - unshrunk.quality[1, 0]), rel=1e-3)


def test_an_unknown_cost_stays_unknown(artifact: Artifact) -> None:
    cost, prior = artifact.cost.copy(), artifact.prior_cost.copy()
    cost[:, 0] = prior[0] = np.nan
    unknown = replace(artifact, cost=cost, prior_cost=prior, frontier=np.zeros((0, 3), dtype=np.float32))
    decisions = decided(np.eye(6)[[1] * 5], artifact.models[0].name)
    absorbed = absorb(unknown, decisions, told(decisions, [1.0] * 5, [0.1] * 5), sha256=SHA256)
    assert np.isnan(absorbed.artifact.cost[:, 0]).all()
    assert (absorbed.n_scores, absorbed.n_costs, absorbed.n_without_cost) == (5, 0, 5)


def test_repeated_and_foreign_feedback_is_counted_once_and_told(unshrunk: Artifact) -> None:
    model = unshrunk.models[0].name
    decisions = decided(np.eye(6)[[0] * 4], model)
    feedback = [
        *told(decisions, [0.0, 1.0, 1.0, 1.0]),
        *told(decisions[:1], [1.0]),
        Feedback(6, "of another log", 1.0, None),
    ]
    absorbed = absorb(unshrunk, [*decisions, *decisions], feedback, sha256=SHA256)
    assert (absorbed.n_scores, absorbed.n_repeated, absorbed.n_unmatched) == (4, 1, 1)
    once = absorb(unshrunk, decisions, told(decisions, [1.0] * 4), sha256=SHA256)
    np.testing.assert_array_equal(absorbed.artifact.quality, once.artifact.quality)
    np.testing.assert_array_equal(absorbed.artifact.count, once.artifact.count)


def test_decisions_of_another_router_file_are_refused(artifact: Artifact) -> None:
    decisions = decided(np.eye(6)[[0] * 4], artifact.models[0].name, sha256="b" * 64)
    with pytest.raises(
        DataError, match=r"no feedback on a decision of this router file \(sha256 aaaa.*4 dec"
    ):
        absorb(artifact, decisions, told(decisions, [1.0] * 4), sha256=SHA256)


def test_a_model_that_the_pool_lacks_is_named(artifact: Artifact) -> None:
    decisions = decided(np.eye(6)[[0] * 2], "nobody")
    with pytest.raises(DataError, match="line 1, model: 'nobody' is not in the pool"):
        absorb(artifact, decisions, told(decisions, [1.0] * 2), sha256=SHA256)


def test_a_frontier_is_predicted_on_the_decisions_or_dropped(artifact: Artifact) -> None:
    rng = np.random.default_rng(1)
    assert len(artifact.frontier)
    decisions = decided(rng.dirichlet(np.ones(6), 300), artifact.models[0].name)
    many = absorb(artifact, decisions, told(decisions, [0.5] * 300), sha256=SHA256).artifact
    assert len(many.frontier) > 1
    assert (np.diff(many.frontier[:, 0]) > 0).all()
    assert (np.diff(many.frontier[:, 2]) >= 0).all()
    few = absorb(artifact, decisions[:50], told(decisions[:50], [0.5] * 50), sha256=SHA256).artifact
    assert len(few.frontier) == 0


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"id": "a", "score": 1.5}', "score: 1.5 is outside 0..1"),
        ('{"id": "a", "score": -1}', "score: -1.0 is outside 0..1"),
        ('{"id": "a", "score": "good"}', "score: must be a number"),
        ('{"id": "a", "cost_usd": -0.1}', "cost_usd: -0.1 is not a finite number of USD"),
        ('{"id": "a", "score": null}', "has neither a score nor a cost_usd"),
        ('{"id": 7, "score": 1}', "id: must be a string"),
        ('{"score": 1}', "id: is missing"),
        ('{"id": "a", "score": 1, "score": 0}', "score: is given more than once"),
        ("{nonsense}", "not valid JSON"),
    ],
)
def test_feedback_at_fault_is_named(tmp_path: Path, line: str, named: str) -> None:
    file = tmp_path / "feedback.jsonl"
    file.write_text('{"id": "z", "score": 1}\n' + line + "\n")
    with pytest.raises(DataError) as raised:
        list(read_feedback(file))
    assert str(raised.value).startswith(f"{file}, line 2")
    assert named in str(raised.value)


@pytest.fixture
def log_file(router_file: Path, outcomes, tmp_path: Path) -> Path:
    """Decisions on the calibration's own queries, and feedback behind them."""
    sha256 = json.loads(Kernel(router_file.read_bytes()).metadata_json)["sha256"]
    router = Router.load(router_file)
    lines = []
    for number, text in enumerate(outcomes.queries[:150]):
        decision = router.route(text)
        lines.append(
            {
                "id": f"d-{number}",
                "model": decision.model,
                "similarity": decision.similarity,
                "in_distribution": decision.in_distribution,
                "clusters": [{"id": id_, "weight": weight} for id_, weight in decision.clusters],
                "sha256": sha256,
            }
        )
        lines.append({"id": f"d-{number}", "score": 0.0, "cost_usd": 0.001})
    file = tmp_path / "decisions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_the_command_absorbs_and_writes_a_router_that_routes(
    cli, log_file: Path, router_file: Path, outcomes, tmp_path: Path
) -> None:
    target = tmp_path / "edited.safetensors"
    done = cli("edit", router_file, "absorb", log_file, "-o", target)
    assert (done.code, done.err) == (0, "")
    assert "frontier: predicted anew on 150 decisions" in done.out
    before, after = Artifact.load(router_file), Artifact.load(target)
    assert after.count.sum() == pytest.approx(before.count.sum() + 150, rel=1e-5)
    edit = after.report["edits"][-1]
    assert (edit["edit"], edit["n_outcomes"], edit["n_costs"]) == ("absorb", 150, 150)
    assert "evaluation" not in after.report
    # Everyone who was asked failed: the router thinks less of those who were.
    text = outcomes.queries[0]
    model = Router.load(router_file).route(text).model
    column = [entry.name for entry in before.models].index(model)
    assert after.prior_quality[column] < before.prior_quality[column]
    # The log is of the file before the edit: it cannot be absorbed twice.
    cli("edit", target, "absorb", log_file).assert_refused(str(log_file), "no feedback on a decision of this")


def test_the_command_takes_feedback_from_a_file_of_its_own(
    cli, log_file: Path, router_file: Path, tmp_path: Path
) -> None:
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text('{"id": "d-3", "score": 1}\n{"id": "elsewhere", "score": 1}\n')
    done = cli("edit", router_file, "absorb", log_file, "--feedback", feedback, "-o", tmp_path / "out")
    assert done.code == 0
    assert "1 of feedback on a decision that had some already" in done.err
    assert "1 of feedback on decisions that" in done.err


def test_the_command_names_what_is_at_fault(cli, log_file: Path, router_file: Path, tmp_path: Path) -> None:
    cli("edit", router_file, "absorb", tmp_path / "none.jsonl", "-o", tmp_path / "out").assert_refused(
        "none.jsonl: cannot be read"
    )
    bad = tmp_path / "bad.jsonl"
    bad.write_text(log_file.read_text() + '{"id": "d-1", "score": 7}\n')
    cli("edit", router_file, "absorb", bad, "-o", tmp_path / "out").assert_refused(
        f"{bad}, line 301, score: 7.0 is outside"
    )
    cli("edit", router_file, "absorb", log_file, "-o", log_file).assert_refused("it is the log")
    assert not (tmp_path / "out").exists()
