"""Counters of the gateway for Prometheus, beside those of its router; none where the client is missing.

==============================================  ==============================================================
``centroute_gateway_requests_total``            requests by ``endpoint`` and ``status``; 499: the client left
``centroute_gateway_request_seconds``           histogram by ``endpoint``, streams until their end
``centroute_gateway_requests_in_progress``      requests in work
``centroute_gateway_attempts_total``            requests to upstreams by ``upstream`` and ``outcome``
``centroute_gateway_model_fallbacks_total``     answers by another ``model`` than the one first chosen
``centroute_gateway_circuit_open``              1 where an ``upstream`` is being left alone
``centroute_gateway_tokens_total``              tokens by ``model`` and ``kind``, as upstreams count them
``centroute_gateway_cost_usd_total``            what they cost by ``model``, where prices and tokens are known
``centroute_gateway_answers_of_unknown_cost``   ``_total``: answers by ``model`` whose cost is not known
==============================================  ==============================================================

Labels are names of the config and of the pool, never a client's words. Each worker counts for itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from centroute.gateway.accounting import Usage
    from centroute.gateway.upstream import Upstream
    from centroute.router import Router

_BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.1,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
)
_PREFIX = "centroute_gateway_"


class GatewayMetrics:
    """What the gateway counts. Without ``prometheus_client`` it counts nothing, and says so when asked."""

    def __init__(self) -> None:
        self.n_in_progress = 0
        """Requests in work; the gateway's own limit reads it."""
        self._registry: CollectorRegistry | None = None
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError:
            return
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, text, labels, registry=registry)

        self._requests = counter("requests", "Requests.", "endpoint", "status")
        self._seconds = Histogram(
            _PREFIX + "request_seconds", "Duration.", ("endpoint",), registry=registry, buckets=_BUCKETS
        )
        self._ended: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        in_progress = Gauge(_PREFIX + "requests_in_progress", "Requests in work.", registry=registry)
        in_progress.set_function(lambda: self.n_in_progress)
        self._attempts = counter("attempts", "Requests to upstreams.", "upstream", "outcome")
        self._fallbacks = counter("model_fallbacks", "Answers by another model than the first.", "model")
        self._open = Gauge(
            _PREFIX + "circuit_open", "Whether an upstream is left alone.", ("upstream",), registry=registry
        )
        self._tokens = counter("tokens", "Tokens, as upstreams count them.", "model", "kind")
        self._cost = counter("cost_usd", "Cost of answers, where known.", "model")
        self._unknown = counter("answers_of_unknown_cost", "Answers whose cost is not known.", "model")

    def watch(self, router: Router, upstreams: Mapping[str, Upstream]) -> None:
        """Show the counters of a router and the breakers of upstreams besides."""
        if self._registry is None:
            return
        from centroute.metrics import RouterCollector

        collector: Collector = RouterCollector(router)
        self._registry.register(collector)
        for name, upstream in upstreams.items():
            self._open.labels(name).set_function(partial(_is_open, upstream))

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        if self._registry is None:
            return
        # Looking labels up takes longer than counting, and decisions alone are answered fast.
        ended = self._ended.get((endpoint, status))
        if ended is None:
            ended = (self._requests.labels(endpoint, status), self._seconds.labels(endpoint))
            self._ended[endpoint, status] = ended
        requests, durations = ended
        requests.inc()
        durations.observe(seconds)

    def attempt(self, upstream: str, outcome: str) -> None:
        """Count a request to an upstream."""
        if self._registry is not None:
            self._attempts.labels(upstream, outcome).inc()

    def fallback(self, model: str) -> None:
        """Count an answer by another model than the one first chosen."""
        if self._registry is not None:
            self._fallbacks.labels(model).inc()

    def usage(self, model: str, usage: Usage | None, cost_usd: float | None) -> None:
        """Count what an answer took; ``None`` is not known."""
        if self._registry is None:
            return
        if usage is not None:
            self._tokens.labels(model, "prompt").inc(usage.prompt_tokens)
            self._tokens.labels(model, "completion").inc(usage.completion_tokens)
        if cost_usd is None:
            self._unknown.labels(model).inc()
        else:
            self._cost.labels(model).inc(cost_usd)

    def exposition(self) -> tuple[bytes, bytes] | None:
        """Content type and text for Prometheus; ``None`` where ``prometheus_client`` is not installed."""
        if self._registry is None:
            return None
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return CONTENT_TYPE_LATEST.encode(), generate_latest(self._registry)


def _is_open(upstream: Upstream) -> float:
    return float(upstream.breaker.is_open)
