"""Drift: null by simulation, a shift that is found, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from centroute import Artifact, DataError, Router
from centroute._kernel import Kernel
from centroute.drift import Index, assignment, measure_drift
from centroute.logged_decisions import LoggedDecision

SHA256 = "a" * 64


def logged(weights: np.ndarray, *, similarity: float = 0.9, inside: bool = True, sha256: str = SHA256):
    return [
        LoggedDecision(
            line=number,
            decision_id=str(number),
            sha256=sha256,
            model="any",
            similarity=similarity,
            in_distribution=inside,
            clusters=tuple((int(c), float(row[c])) for c in np.flatnonzero(row)),
        )
        for number, row in enumerate(weights, start=1)
    ]


def with_report(artifact: Artifact, **report: object) -> Artifact:
    """The report with these in it, and the similarities of the calibration only where they are given."""
    return replace(artifact, report={**artifact.report, "similarity_quantiles": None, **report})


def blends(rng: np.random.Generator, n: int, shares: np.ndarray) -> np.ndarray:
    """Two clusters a row, the first of them drawn by ``shares``."""
    n_clusters = len(shares)
    first = rng.choice(n_clusters, n, p=shares)
    part = rng.uniform(0.5, 1.0, n)
    rows = np.zeros((n, n_clusters))
    rows[np.arange(n), first] += part
    rows[np.arange(n), (first + 1) % n_clusters] += 1 - part
    return rows


@pytest.mark.parametrize(("n", "m"), [(60, 400), (500, 500), (1500, 300)])
def test_the_index_without_drift_is_what_chance_makes_it(artifact: Artifact, n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    shares = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.05])
    indices = []
    for _ in range(120):
        calibrated = with_report(
            artifact, cluster_shares=blends(rng, m, shares).mean(axis=0).tolist(), n_holdout=m
        )
        indices.append(measure_drift(logged(blends(rng, n, shares)), calibrated, sha256=SHA256).clusters)
    measured = np.mean([index.psi for index in indices])
    expected = np.mean([index.by_chance for index in indices])
    assert measured == pytest.approx(expected, rel=0.35)
    assert sum(index.psi > index.by_chance_99 for index in indices) <= 7


def test_one_hot_bins_give_the_published_expectation(artifact: Artifact) -> None:
    rows = np.eye(6)[np.arange(600) % 6]
    calibrated = with_report(artifact, cluster_shares=[1 / 6] * 6, n_holdout=300)
    index = measure_drift(logged(rows), calibrated, sha256=SHA256).clusters
    assert index.by_chance == pytest.approx(5 * (1 / 600 + 1 / 300), rel=1e-6)
    # 15.086 is the 99 % quantile of χ² with five degrees of freedom.
    assert index.by_chance_99 == pytest.approx(15.086 * (1 / 600 + 1 / 300), rel=0.01)
    assert index.psi == pytest.approx(0, abs=1e-9)


def test_the_index_is_the_published_formula(artifact: Artifact) -> None:
    rows = np.eye(6)[[0] * 500 + [1] * 100 + [2] * 100 + [3] * 100 + [4] * 100 + [5] * 100]
    calibrated = with_report(artifact, cluster_shares=[1 / 6] * 6, n_holdout=10_000_000)
    p, q = np.full(6, 1 / 6), np.array([0.5] + [0.1] * 5)
    index = measure_drift(logged(rows), calibrated, sha256=SHA256).clusters
    assert index.psi == pytest.approx(float(((q - p) * np.log(q / p)).sum()), rel=0.01)


def test_a_shift_is_found_and_its_clusters_named(artifact: Artifact) -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.05])
    calibrated = with_report(artifact, cluster_shares=blends(rng, 500, shares).mean(axis=0).tolist())
    drift = measure_drift(logged(blends(rng, 400, shares[::-1])), calibrated, sha256=SHA256)
    assert drift.verdict == "recalibrate"
    assert drift.reasons[0].startswith("use of the clusters moved by ")
    assert drift.moved[0].cluster == 5
    assert drift.moved[0].in_use > drift.moved[0].calibrated + 0.1


def test_a_short_log_does_not_cry_wolf(artifact: Artifact) -> None:
    calibrated = with_report(artifact, cluster_shares=[1 / 6] * 6, n_holdout=500)
    # Three decisions in one cluster: the plain index is far above its limit.
    drift = measure_drift(logged(np.eye(6)[[0, 0, 1, 2]]), calibrated, sha256=SHA256)
    assert drift.clusters.psi > 0.25
    assert drift.verdict == "too few decisions"


def test_similarity_is_compared_in_tenths(artifact: Artifact) -> None:
    edges = np.linspace(0.2, 0.9, 11)
    shares = [1 / 6] * 6
    calibrated = with_report(artifact, similarity_quantiles=edges.tolist(), cluster_shares=shares)
    rows = np.eye(6)[np.arange(60) % 6]
    spread = [
        decision
        for middle in (edges[1:] + edges[:-1]) / 2
        for decision in logged(rows, similarity=float(middle))
    ]
    same = measure_drift(spread, calibrated, sha256=SHA256).similarity
    assert same is not None
    assert same.psi == pytest.approx(0, abs=1e-9)
    low = measure_drift(logged(np.repeat(rows, 10, axis=0), similarity=0.1), calibrated, sha256=SHA256)
    assert low.verdict == "recalibrate"
    assert any(reason.startswith("similarity moved by") for reason in low.reasons)
    assert measure_drift(spread, with_report(artifact), sha256=SHA256).similarity is None


@pytest.mark.parametrize(("n_outside", "verdict"), [(6, "stable"), (60, "watch"), (200, "recalibrate")])
def test_the_share_out_of_distribution_is_judged_by_its_interval(
    artifact: Artifact, n_outside: int, verdict: str
) -> None:
    calibrated = with_report(artifact, cluster_shares=[1 / 6] * 6, n_holdout=500)
    rows = np.eye(6)[np.arange(1002) % 6]
    log = logged(rows[n_outside:]) + logged(rows[:n_outside], inside=False)
    drift = measure_drift(log, calibrated, sha256=SHA256)
    assert drift.outside == pytest.approx(n_outside / 1002)
    assert drift.verdict == verdict


def test_decisions_of_another_router_file_are_left_out(artifact: Artifact) -> None:
    rows = np.eye(6)[np.arange(60) % 6]
    log = logged(rows) + logged(rows[:7], sha256="b" * 64)
    drift = measure_drift(log, artifact, sha256=SHA256)
    assert (drift.n_decisions, drift.n_other_router) == (60, 7)
    with pytest.raises(DataError, match=r"none of its 7 decisions is of this router file \(sha256 aaaa"):
        measure_drift(logged(rows[:7], sha256="b" * 64), artifact, sha256=SHA256)


def test_a_cluster_that_the_router_lacks_is_named() -> None:
    with pytest.raises(DataError, match="line 2, clusters: 6 is none of the router's 6"):
        assignment(logged(np.eye(7)[[0, 6]]), 6)


def test_chance_is_taken_off() -> None:
    index = Index(psi=0.4, by_chance=0.2, by_chance_99=0.3)
    assert index.excess == pytest.approx(0.2)
    assert index.exceeds(0.1)
    assert not index.exceeds(0.25)
    assert not Index(psi=0.29, by_chance=0.05, by_chance_99=0.3).exceeds(0.1)


@pytest.fixture
def log_file(router_file: Path, outcomes, tmp_path: Path):
    sha256 = json.loads(Kernel(router_file.read_bytes()).metadata_json)["sha256"]
    router = Router.load(router_file)

    def write(texts) -> Path:
        file = tmp_path / "decisions.jsonl"
        with file.open("w") as stream:
            for number, text in enumerate(texts):
                decision = router.route(text)
                line = {
                    "id": f"d-{number}",
                    "model": decision.model,
                    "similarity": decision.similarity,
                    "in_distribution": decision.in_distribution,
                    "clusters": [{"id": id_, "weight": weight} for id_, weight in decision.clusters],
                    "sha256": sha256,
                }
                stream.write(json.dumps(line) + "\n")
        return file

    return write


def test_the_command_finds_no_drift_where_there_is_none(cli, log_file, router_file: Path, outcomes) -> None:
    done = cli("drift", log_file(outcomes.queries), router_file)
    assert (done.code, done.err) == (0, "")
    assert "240 decisions" in done.out
    assert done.out.splitlines()[-1] == "stable"


def test_the_command_finds_drift_and_tells_it_as_json(cli, log_file, router_file: Path) -> None:
    texts = [f"What is {number} times {number + 7}?" for number in range(300)]
    done = cli("drift", log_file(texts), router_file, "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["verdict"] == "recalibrate"
    assert told["n_decisions"] == 300
    assert told["clusters"]["psi"] > 0.25
    assert set(told["moved"][0]) == {"cluster", "calibrated", "in_use"}


def test_the_command_names_what_is_at_fault(cli, log_file, router_file: Path, tmp_path: Path) -> None:
    cli("drift", tmp_path / "missing.jsonl", router_file).assert_refused("missing.jsonl", "cannot be read")
    file = log_file(["2 + 2?"])
    file.write_text(file.read_text() + '{"id": "x"}\n')
    cli("drift", file, router_file).assert_refused(f"{file}, line 2", "is missing")
    cli("drift", file).assert_wrong_usage("ROUTER")
