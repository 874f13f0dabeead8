"""Prometheus metrics of a router: ``pip install 'centroute[prometheus]'``.

The kernel counts for itself, always; what is here reads its counters when Prometheus asks, so that a decision
pays nothing for being watched.

    from prometheus_client import REGISTRY, start_http_server
    from centroute.metrics import RouterCollector

    REGISTRY.register(RouterCollector(router))
    start_http_server(9108)

==================================  =======================================================================
``centroute_decisions_total``       decisions by ``model``, those of batches included
``centroute_out_of_distribution``   ``_total``: decisions on queries unlike the calibration data
``centroute_fallbacks_total``       decisions that took the policy's fallback
``centroute_errors_total``          queries refused, by ``kind``: ``data`` (nothing to route on) or ``policy``
``centroute_stage_seconds``         histogram by ``stage`` (tokenize, embed, kernel) of one decision in 64
``centroute_generation``            which loading of the router decides
==================================  =======================================================================

The share out of distribution is ``sum(rate(centroute_out_of_distribution_total[10m])) /
sum(rate(centroute_decisions_total[10m]))``. Counters survive a reload; a model that left the pool keeps its
count. Each process counts for itself: with several workers, let Prometheus scrape each, as the multiprocess
mode of ``prometheus_client`` does not know collectors of one's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from centroute.errors import DataError

if TYPE_CHECKING:
    from prometheus_client import Metric


class Counters(Protocol):
    """What a kernel counts."""

    @property
    def BOUNDS_NS(self) -> list[int]:  # noqa: N802 - a constant of the extension's class
        """Upper bounds of the buckets of durations, in nanoseconds; one more bucket has none."""

    def snapshot(self) -> dict[str, Any]:
        """Counts since the start."""


class Counted(Protocol):
    """A router, or what counts as one does."""

    @property
    def counters(self) -> Counters:
        """What was decided so far."""

    @property
    def generation(self) -> int:
        """Which loading decides."""


class RouterCollector:
    """Shows a router's counters to a ``prometheus_client`` registry.

    Parameters
    ----------
    router
        The router to watch.
    labels
        Labels that all its metrics get, such as ``{"router": "chat"}`` where a process has several routers:
        give them all the same label names.

    Raises
    ------
    DataError
        If ``prometheus_client`` is not installed.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> registry = CollectorRegistry()
    >>> registry.register(RouterCollector(router))  # doctest: +SKIP
    """

    def __init__(self, router: Counted, *, labels: Mapping[str, str] | None = None) -> None:
        try:
            from prometheus_client import metrics_core
        except ImportError as error:
            raise DataError(
                "metrics need prometheus_client, which is not installed: pip install 'centroute[prometheus]'"
            ) from error
        self._metrics = metrics_core
        self._router = router
        self._names = tuple(labels or ())
        self._values = tuple((labels or {}).values())

    def describe(self) -> Iterable[Metric]:
        """The metrics without their values, by which a registry refuses two of a name."""
        for metric in self.collect():
            metric.samples = []
            yield metric

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand now."""
        counters = self._router.counters
        counts = counters.snapshot()
        yield self._counter("decisions", "Decisions by model.", "model", counts["decisions"])
        for name, text in (
            ("out_of_distribution", "Decisions on queries unlike the calibration data."),
            ("fallbacks", "Decisions that took the fallback."),
        ):
            metric = self._metrics.CounterMetricFamily(f"centroute_{name}", text, labels=self._names)
            metric.add_metric(self._values, counts[name])
            yield metric
        yield self._counter("errors", "Queries refused, by kind of error.", "kind", counts["errors"])
        yield self._stages(counts["stages"], counters.BOUNDS_NS)
        generation = self._metrics.GaugeMetricFamily(
            "centroute_generation", "Which loading of the router decides.", labels=self._names
        )
        generation.add_metric(self._values, self._router.generation)
        yield generation

    def _counter(self, name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
        metric = self._metrics.CounterMetricFamily(f"centroute_{name}", text, labels=(*self._names, label))
        for value, count in counts.items():
            metric.add_metric((*self._values, value), count)
        return metric

    def _stages(self, stages: Mapping[str, tuple[list[int], int]], bounds_ns: list[int]) -> Metric:
        metric = self._metrics.HistogramMetricFamily(
            "centroute_stage_seconds",
            "Duration of the stages of one decision in 64.",
            labels=(*self._names, "stage"),
        )
        bounds = [*(str(bound / 1e9) for bound in bounds_ns), "+Inf"]
        for stage, (counts, sum_ns) in stages.items():
            # Prometheus counts in each bucket what is in the lower ones too.
            total, buckets = 0, []
            for bound, count in zip(bounds, counts, strict=True):
                total += count
                buckets.append((bound, float(total)))
            metric.add_metric((*self._values, stage), buckets, sum_ns / 1e9)
        return metric
