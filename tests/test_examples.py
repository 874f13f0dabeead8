"""Every example runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from centroute import Policy, Router

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXTS = ["What is the capital of France?", "Prove that the square root of two is irrational."]


def run(*arguments: object, router_file: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "ROUTER": str(router_file), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=cwd,
        timeout=60,
        check=False,
    )


def test_the_offline_batch_decides_every_row(router_file: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs centroute[parquet]")
    import pyarrow.parquet as pq

    texts = [*TEXTS, "", None, *(f"{TEXTS[0]} {number}" for number in range(40_000))]
    table = pa.table({"query": texts, "row": range(len(texts))})
    pq.write_table(table, tmp_path / "queries.parquet")
    done = run(
        EXAMPLES / "offline_batch.py",
        router_file,
        tmp_path / "queries.parquet",
        tmp_path / "decisions.parquet",
        "--willingness-to-pay",
        0.01,
        router_file=router_file,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "40004 rows\n"
    decided = pq.read_table(tmp_path / "decisions.parquet")
    assert decided.select(["query", "row"]) == table
    rows = decided.to_pylist()
    router, policy = Router.load(router_file), Policy(willingness_to_pay=0.01)
    for index in (0, 1, 4, 39_000):
        decision = router.route(texts[index], policy=policy)
        assert rows[index]["model"] == decision.model
        assert rows[index]["quality"] == pytest.approx(decision.quality, abs=1e-5)
        assert rows[index]["cost_usd"] == pytest.approx(decision.cost, rel=1e-4)
        assert rows[index]["in_distribution"] == decision.in_distribution
    for index in (2, 3):
        assert [rows[index][name] for name in ("model", "quality", "cost_usd", "in_distribution")] == [
            None
        ] * 4


def test_the_latency_test_passes(router_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="needs centroute[testing]")
    plugins = ("-p", "pytest_benchmark.plugin", "-p", "centroute.testing", "-p", "no:cacheprovider")
    # Whether it is quick enough is for a bench: here it has to run.
    done = run(
        *("-m", "pytest", "-q", *plugins, "--override-ini", "addopts=", "--benchmark-disable"),
        EXAMPLES / "test_latency.py",
        router_file=router_file,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_inline_service_answers(router_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("ROUTER", str(router_file))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import fastapi_inline

    router = Router.load(router_file)
    with TestClient(fastapi_inline.app) as client:
        for text in TEXTS:
            messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
            answer = client.post("/answer", json={"messages": messages})
            decision = router.route(text, policy=fastapi_inline.POLICY)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == decision.model
            assert answer.json()["then"] == list(decision.ranking[1:3])
        refused = client.post("/answer", json={"messages": [{"role": "system", "content": "Be brief."}]})
        assert refused.status_code == 400
        assert "user message" in refused.json()["detail"]
