"""The decision log: what is in a line, who is sampled, what happens to a slow disk, a rotation and a fork."""

import gzip
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from centroute import DataError, Decision, Policy, Router
from centroute import decision_log as module
from centroute._kernel import Kernel
from centroute.decision_log import DecisionLog
from centroute.logged_decisions import read_decisions, read_feedback
from centroute.session import KeptDecision

TEXT = "What is the capital of France?"


@pytest.fixture
def router(router_file: Path) -> Router:
    return Router.load(router_file)


@pytest.fixture
def decision(router: Router) -> Decision:
    return router.route(TEXT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def wait_until(is_so: Callable[[], bool]) -> None:
    stop = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < stop, "did not happen within 20 seconds"
        time.sleep(0.005)


def test_a_line_says_what_was_decided(router_file: Path, decision: Decision, file: Path) -> None:
    before = datetime.now(UTC)
    with DecisionLog(file) as log:
        decision_id = log.record(decision, text=TEXT)
    [line] = lines(file)
    assert before <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    close = pytest.approx
    assert line == {
        "id": decision_id,
        "generation": 1,
        "model": decision.model,
        "quality": close(decision.quality, rel=1e-6),
        "cost_usd": close(decision.cost, rel=1e-6),
        "margin": close(decision.margin, rel=1e-6),
        "similarity": close(decision.similarity, rel=1e-6),
        "in_distribution": True,
        "clusters": [{"id": id_, "weight": close(weight, rel=1e-6)} for id_, weight in decision.clusters],
        "sha256": json.loads(Kernel(router_file.read_bytes()).metadata_json)["sha256"],
    }


def test_the_text_is_written_only_when_asked_for(decision: Decision, file: Path) -> None:
    with DecisionLog(file, with_text=True) as log:
        log.record(decision, text="häßlich \ud800")
        log.record(decision)
    assert [line.get("text", "none") for line in lines(file)] == ["häßlich \ud800", "none"]


def test_what_is_unknown_is_null(router: Router, file: Path) -> None:
    with DecisionLog(file) as log:
        log.record(router.route(TEXT, policy=Policy(allow={router.models[0]})))
    assert lines(file)[0]["margin"] is None


def test_a_decision_that_a_session_kept_is_logged_as_one(router: Router, file: Path) -> None:
    best = router.route(TEXT)
    kept = router.route(TEXT, policy=Policy(allow={best.ranking[1]}))
    with DecisionLog(file) as log:
        log.record(KeptDecision(best=best, kept=kept, margin=-0.25))
    [line] = lines(file)
    assert (line["model"], line["margin"], line["sha256"]) == (kept.model, -0.25, best.sha256)


def test_the_sample_is_chosen_by_the_id(decision: Decision, tmp_path: Path) -> None:
    ids = [f"request-{number}" for number in range(4000)]
    written = []
    for name, sample in (("first", 0.25), ("second", 0.25), ("half", 0.5), ("none", 0.0)):
        with DecisionLog(tmp_path / name, sample=sample) as log:
            for decision_id in ids:
                assert log.record(decision, decision_id=decision_id) == decision_id
        written.append({line["id"] for line in lines(tmp_path / name)})
    first, second, half, none = written
    assert first == second
    assert first < half
    assert not none
    # Four standard deviations of a binomial.
    assert abs(len(first) - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5


def test_decisions_without_an_id_are_sampled_by_chance(decision: Decision, file: Path) -> None:
    with DecisionLog(file, sample=0.1) as log:
        ids = [log.record(decision) for _ in range(5000)]
    sampled = [decision_id for decision_id in ids if decision_id is not None]
    assert [line["id"] for line in lines(file)] == sampled
    assert len(set(sampled)) == len(sampled)
    # Five standard deviations of a binomial: one run in two million is further off.
    assert abs(len(sampled) - 500) < 5 * (5000 * 0.1 * 0.9) ** 0.5


def test_feedback_stands_beside_its_decision(decision: Decision, file: Path) -> None:
    with DecisionLog(file, sample=0.5) as log:
        made = next(filter(None, (log.record(decision) for _ in range(100))))
        log.feedback(made, score=0.5, cost_usd=0.001)
        own = [f"request-{number}" for number in range(200)]
        for decision_id in own:
            log.record(decision, decision_id=decision_id)
            log.feedback(decision_id, score=1.0)
    decisions = {read.decision_id for read in read_decisions(file)}
    feedback = {read.decision_id: read for read in read_feedback(file)}
    assert (feedback[made].score, feedback[made].cost_usd) == (0.5, 0.001)
    assert feedback.keys() - {made} == decisions & set(own)
    assert 0 < len(feedback) < 200


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({}, "give a score, a cost or both"),
        ({"score": 1.5}, r"score 1\.5 is outside 0\.\.1"),
        ({"score": float("nan")}, "score nan is outside"),
        ({"cost_usd": -1.0}, r"cost_usd -1\.0 is not a finite"),
        ({"cost_usd": float("inf")}, "cost_usd inf is not a finite"),
    ],
)
def test_feedback_out_of_range_is_refused(file: Path, numbers: dict, told: str) -> None:
    with DecisionLog(file) as log, pytest.raises(DataError, match=f"feedback on x: {told}"):
        log.feedback("x", **numbers)


def test_a_full_queue_drops_and_counts(decision: Decision, file: Path) -> None:
    entered, gate = threading.Event(), threading.Event()

    def stuck(*_) -> None:
        entered.set()
        assert gate.wait(20)

    with mock.patch.object(module, "_write_all", stuck):
        log = DecisionLog(file, queue_size=100)
        log.record(decision)
        assert entered.wait(20)
        for _ in range(150):
            log.record(decision)
        assert log.n_dropped == 50
        gate.set()
        log.close()
    assert log.n_written == 101


def test_records_of_many_threads_are_all_written(decision: Decision, file: Path) -> None:
    with DecisionLog(file) as log:
        threads = [
            threading.Thread(target=lambda: [log.record(decision) for _ in range(1000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len({line["id"] for line in lines(file)}) == 4000 == log.n_written
    assert log.n_dropped == 0


def test_lines_are_written_while_it_is_open(decision: Decision, file: Path) -> None:
    with DecisionLog(file) as log:
        for number in range(1, 4):
            log.record(decision)
            wait_until(lambda number=number: file.read_bytes().count(b"\n") == number)


def test_a_rotated_file_is_followed_by_a_new_one(decision: Decision, file: Path) -> None:
    moved = file.with_name("decisions.jsonl.1")
    with DecisionLog(file) as log:
        log.record(decision, decision_id="before")
        wait_until(lambda: file.stat().st_size > 0)
        file.rename(moved)
        log.record(decision, decision_id="after")
        wait_until(file.exists)
    assert [line["id"] for line in lines(moved)] == ["before"]
    assert [line["id"] for line in lines(file)] == ["after"]


def test_a_failing_disk_is_told_once_and_counted(decision: Decision, file: Path, caplog) -> None:
    whole = module._write_all

    def full(handle, data) -> None:
        handle.write(data[:20])
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.ERROR), DecisionLog(file) as log:
        with mock.patch.object(module, "_write_all", full):
            for number in range(1, 4):
                log.record(decision)
                wait_until(lambda number=number: log.n_dropped == number)
        assert module._write_all is whole
        log.record(decision, decision_id="again")
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}: decisions are lost: No space left on device"
    ]
    assert [read.decision_id for read in read_decisions(file)] == ["again"]


def test_a_half_line_of_a_killed_writer_spoils_no_other(decision: Decision, file: Path) -> None:
    file.write_bytes(b'{"id": "half", "mod')
    with DecisionLog(file) as log:
        log.record(decision, decision_id="whole")
    assert [read.decision_id for read in read_decisions(file)] == ["whole"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_writes_too(decision: Decision, file: Path) -> None:
    with DecisionLog(file) as log:
        first = log.record(decision)
        child = os.fork()
        if child == 0:
            log.record(decision)
            log.close()
            os._exit(0 if log.n_written == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ids = [line["id"] for line in lines(file)]
    assert len(set(ids)) == len(ids) == 2
    assert first in ids


def test_a_closed_log_drops(decision: Decision, file: Path) -> None:
    log = DecisionLog(file)
    log.close()
    log.close()
    log.record(decision)
    assert log.n_dropped == 1


def test_a_log_is_read_back(decision: Decision, file: Path) -> None:
    with DecisionLog(file) as log:
        decision_id = log.record(decision)
    packed = file.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    for source in (file, packed):
        [read] = read_decisions(source)
        assert (read.line, read.decision_id, read.model) == (1, decision_id, decision.model)
        assert read.similarity == pytest.approx(decision.similarity)
        assert [cluster for cluster, _ in read.clusters] == [cluster for cluster, _ in decision.clusters]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": 7}, "id: must be a string"),
        ({"similarity": 2}, "similarity: 2.0 is no cosine"),
        ({"similarity": None}, "similarity: None is no cosine"),
        ({"in_distribution": 1}, "in_distribution: must be true or false"),
        ({"clusters": []}, "clusters: must be a list"),
        ({"clusters": [{"id": -1, "weight": 1}]}, "clusters: each must have the number"),
        ({"clusters": [{"id": 1, "weight": "1"}]}, "clusters: each must have a weight"),
    ],
)
def test_a_line_at_fault_is_named(decision: Decision, file: Path, change: dict, told: str) -> None:
    with DecisionLog(file) as log:
        log.record(decision)
        log.record(decision)
    first, second = lines(file)
    file.write_text(json.dumps(first) + "\n" + json.dumps(second | change) + "\n")
    with pytest.raises(DataError) as raised:
        list(read_decisions(file))
    assert str(raised.value).startswith(f"{file}, line 2, {told}")


def test_faults_of_the_settings_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample 1\.5: wanted a share"):
        DecisionLog(tmp_path / "log", sample=1.5)
    with pytest.raises(DataError, match="queue_size 0"):
        DecisionLog(tmp_path / "log", queue_size=0)
    with pytest.raises(DataError, match=r"cannot be written \(No such file"):
        DecisionLog(tmp_path / "missing" / "log")
