"""OpenTelemetry spans of decisions, read back from the SDK's in-memory exporter."""

import asyncio
import sys
from pathlib import Path
from unittest import mock

import pytest

from centroute import DataError, Policy, Router

pytest.importorskip("opentelemetry.sdk", reason="needs centroute[otel] and the SDK")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased

from centroute.tracing import TracedRouter, describe

TEXT = "What is the capital of France?"


@pytest.fixture
def router(router_file: Path) -> Router:
    return Router.load(router_file)


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()

    def tracer(sampler=None):
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return provider.get_tracer("test")

    exporter.tracer = tracer
    return exporter


def test_a_decision_is_a_span_with_its_numbers(router: Router, spans) -> None:
    decision = TracedRouter(router, tracer=spans.tracer()).route(TEXT, policy=Policy(alpha=0.5))
    [span] = spans.get_finished_spans()
    assert span.name == "centroute.route"
    assert dict(span.attributes) == {
        "centroute.model": decision.model,
        "centroute.quality": decision.quality,
        "centroute.cost_usd": decision.cost,
        "centroute.margin": decision.margin,
        "centroute.similarity": decision.similarity,
        "centroute.in_distribution": decision.in_distribution,
        "centroute.generation": 1,
    }


def test_what_is_unknown_is_left_out(router: Router, spans) -> None:
    only = Policy(allow={router.models[0]})
    TracedRouter(router, tracer=spans.tracer()).route(TEXT, policy=only)
    [span] = spans.get_finished_spans()
    assert "centroute.margin" not in span.attributes


def test_the_span_is_a_child_of_the_callers(router: Router, spans) -> None:
    tracer = spans.tracer()
    with tracer.start_as_current_span("request"):
        TracedRouter(router, tracer=tracer).route(TEXT)
    child, parent = spans.get_finished_spans()
    assert child.parent.span_id == parent.context.span_id


def test_a_refused_query_tells_its_class_and_never_its_text(router: Router, spans) -> None:
    traced = TracedRouter(router, tracer=spans.tracer())
    with pytest.raises(DataError):
        traced.route("\u2603" * 3)
    [span] = spans.get_finished_spans()
    assert span.attributes["error.type"] == "DataError"
    assert not span.status.is_ok
    assert span.status.description is None
    assert not span.events
    assert "\u2603" not in span.to_json()


def test_inside_a_trace_that_is_not_recorded_the_tracer_is_not_asked(router: Router, spans) -> None:
    tracer = spans.tracer(ParentBased(ALWAYS_OFF))
    with tracer.start_as_current_span("request"):
        counted = mock.Mock(wraps=tracer)
        assert TracedRouter(router, tracer=counted).route(TEXT).model
    counted.start_span.assert_not_called()
    assert not spans.get_finished_spans()


def test_the_tracers_sampler_decides_without_a_parent(router: Router, spans) -> None:
    tracer = spans.tracer(TraceIdRatioBased(0.0))
    TracedRouter(router, tracer=tracer).route(TEXT)
    assert not spans.get_finished_spans()


def test_one_decision_in_so_many_is_offered(router: Router, spans) -> None:
    traced = TracedRouter(router, tracer=spans.tracer(), every=10)
    models = {traced.route(TEXT).model for _ in range(100)}
    assert len(models) == 1
    assert len(spans.get_finished_spans()) == 10


def test_an_async_decision_is_a_span_too(router: Router, spans) -> None:
    class Async:
        route = staticmethod(router.route)

        async def aroute(self, text: str, **options: object):
            await asyncio.sleep(0)
            return router.route(text, **options)

    traced = TracedRouter(Async(), tracer=spans.tracer(), every=2)
    decisions = [asyncio.run(traced.aroute(TEXT)) for _ in range(4)]
    assert [span.attributes["centroute.model"] for span in spans.get_finished_spans()] == [
        decisions[0].model
    ] * 2


def test_numbers_can_be_put_on_a_span_of_ones_own(router: Router, spans) -> None:
    with spans.tracer().start_as_current_span("mine") as span:
        describe(span, router.route(TEXT))
    [span] = spans.get_finished_spans()
    assert span.attributes["centroute.generation"] == 1


def test_faults_are_told(router: Router) -> None:
    with pytest.raises(DataError, match="every 0: wanted 1 or more"):
        TracedRouter(router, every=0)
    with (
        mock.patch.dict(sys.modules, {"opentelemetry": None}),
        pytest.raises(DataError, match=r"centroute\[otel\]"),
    ):
        TracedRouter(router)
