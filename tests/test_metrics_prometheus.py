"""Prometheus metrics: what the kernel counted is what a scrape shows."""

import sys
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from centroute import Artifact, DataError, Policy, PolicyError, Router
from centroute.metrics import RouterCollector

prometheus_client = pytest.importorskip("prometheus_client", reason="needs centroute[prometheus]")

TEXT = "What is the capital of France?"


@pytest.fixture
def router(artifact: Artifact, embedder) -> Router:
    return Router.from_artifact(artifact, embedder=embedder)


@pytest.fixture
def scraped(router: Router):
    registry = prometheus_client.CollectorRegistry()
    registry.register(RouterCollector(router))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"centroute_{name}", labels)

    return value


def test_every_way_to_route_is_counted_by_model(router: Router, scraped) -> None:
    texts = [f"{TEXT} And {number} plus {number}?" for number in range(50)]
    chosen = [router.route(text).model for text in texts]
    chosen += router.route_batch(texts, threads=2).models
    rows = router.embed(texts)
    chosen += router.route_embeddings(rows).models
    chosen += [router.route_embedding(row).model for row in rows]
    for model in router.models:
        assert scraped("decisions_total", model=model) == chosen.count(model)
    assert len(chosen) == 200


def test_queries_out_of_distribution_and_fallbacks_are_counted(router: Router, scraped) -> None:
    policy = Policy(fallback=router.models[1])
    # At right angles to a centroid, and to all others nearly so.
    rows = np.linalg.svd(router.artifact.centroids.astype(np.float64))[2][-4:].astype(np.float32)
    rows = np.ascontiguousarray(rows)
    known = router.embed([TEXT])
    assert not router.route_embedding(rows[0], policy=policy).in_distribution
    assert router.route_embedding(known[0], policy=policy).in_distribution
    router.route_embeddings(np.concatenate([rows, known]), policy=policy)
    router.route_embedding(rows[0])
    assert scraped("out_of_distribution_total") == 6
    assert scraped("fallbacks_total") == 5


def test_refused_queries_are_counted_by_kind(router: Router, scraped) -> None:
    for text in ("", "   "):
        with pytest.raises(DataError):
            router.route(text)
    with pytest.raises(DataError):
        router.route_batch([TEXT, ""])
    with pytest.raises(PolicyError):
        router.route(TEXT, policy=Policy(deny=set(router.models)))
    assert scraped("errors_total", kind="data") == 3
    assert scraped("errors_total", kind="policy") == 1
    assert sum(scraped("decisions_total", model=model) for model in router.models) == 0


def test_one_decision_in_64_is_timed_stage_by_stage(router: Router, scraped) -> None:
    for _ in range(640):
        router.route(TEXT)
    for stage in ("tokenize", "embed", "kernel"):
        assert scraped("stage_seconds_count", stage=stage) == 10
        assert 0 < scraped("stage_seconds_sum", stage=stage) < 10
        buckets = [
            scraped("stage_seconds_bucket", stage=stage, le=str(bound / 1e9))
            for bound in router.counters.BOUNDS_NS
        ]
        assert buckets == sorted(buckets)
        assert scraped("stage_seconds_bucket", stage=stage, le="+Inf") == 10


def test_no_count_is_lost_between_threads(router: Router, scraped) -> None:
    def work() -> None:
        for _ in range(500):
            router.route(TEXT)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(scraped("decisions_total", model=model) for model in router.models) == 2000


def test_counts_survive_a_reload(router_file: Path) -> None:
    router = Router.load(router_file)
    registry = prometheus_client.CollectorRegistry()
    registry.register(RouterCollector(router))
    model = router.route(TEXT).model
    router.reload(router_file)
    assert router.route(TEXT).model == model
    assert registry.get_sample_value("centroute_decisions_total", {"model": model}) == 2
    assert registry.get_sample_value("centroute_generation") == 2


def test_an_embedder_that_runs_elsewhere_is_timed_at_every_decision(artifact: Artifact) -> None:
    from centroute.embedders import load_embedder

    router = Router.from_artifact(artifact, embedder=load_embedder("static-256", runtime="onnx"))
    for _ in range(5):
        router.route(TEXT)
    with pytest.raises(DataError):
        router.route(" ")
    counts = router.counters.snapshot()
    # The sixth is the text that was refused, which had to be embedded to find out.
    assert sum(counts["stages"]["embed"][0]) == 6
    assert sum(counts["decisions"].values()) == 5
    assert counts["errors"] == {"data": 1, "policy": 0}


def test_two_routers_share_a_registry_under_labels(router: Router, router_file: Path) -> None:
    other = Router.load(router_file)
    registry = prometheus_client.CollectorRegistry()
    registry.register(RouterCollector(router, labels={"router": "chat"}))
    model = router.route(TEXT).model
    page = prometheus_client.generate_latest(registry).decode()
    assert f'centroute_decisions_total{{model="{model}",router="chat"}} 1.0' in page
    assert 'centroute_generation{router="chat"} 1.0' in page
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(RouterCollector(other))


def test_a_missing_client_names_the_extra(router: Router) -> None:
    with (
        mock.patch.dict(sys.modules, {"prometheus_client": None}),
        pytest.raises(DataError, match=r"centroute\[prometheus\]"),
    ):
        RouterCollector(router)
