"""A pytest plugin for latency checks that hold on slow machines: ``pip install 'centroute[testing]'``.

    def test_routing_is_quick_enough(routing_latency):
        routing_latency("router.safetensors", texts, total=0.4, kernel=0.15)

Budgets are multiples of a machine unit: the time that the same interpreter takes, between the decisions of
the same run, for a fixed loop (:func:`machine_unit`; 5 to 10 µs on servers of these years). A slow or a busy
machine is slow at both, so that a budget means the same on a laptop and in continuous integration. Of every
text and of the unit the lower quartile of many rounds counts, which a machine that is busy with other things
reaches too. Measure yours with a budget that is too small, which tells them all, and leave room for a half
more.

The numbers of a test stand in the table of pytest-benchmark, with the stages in units as its ``extra_info``.
With ``--benchmark-disable`` or ``--benchmark-skip`` nothing is asserted. The plugin is found by its entry
point; where entry points are off, ask for it with ``-p centroute.testing``.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Final

import pytest

from centroute import Policy, Router
from centroute.errors import DataError

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

STAGES: Final = ("tokenize", "embed", "kernel", "total")
MIN_ROUNDS, MAX_ROUNDS = 12, 2000


def machine_unit() -> int:
    """The fixed work that one machine unit is the time of: 100 steps of a linear congruence.

    >>> machine_unit()
    1738083805
    """
    state = 1
    for _ in repeat(None, 100):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return state


class RoutingLatency:
    """What the fixture ``routing_latency`` gives: measures a router, and fails where a budget is exceeded."""

    def __init__(self, benchmark: BenchmarkFixture) -> None:
        self._benchmark = benchmark

    def __call__(
        self,
        router: Router | str | os.PathLike[str],
        texts: Sequence[str],
        *,
        policy: Policy | None = None,
        tokenize: float | None = None,
        embed: float | None = None,
        kernel: float | None = None,
        total: float | None = None,
        seconds: float = 1.0,
    ) -> dict[str, float]:
        """Route the texts again and again, and compare the time a text with the budgets.

        Parameters
        ----------
        router
            The router, or its file.
        texts
            A sample of queries, each of which can be routed.
        policy
            What the requests want.
        tokenize, embed, kernel, total
            Budgets in machine units a text, the mean over the texts; ``None`` for no limit. The total is
            that of ``Router.route`` as a caller sees it.
        seconds
            How long to measure; at least a dozen rounds are.

        Returns
        -------
        dict of str to float
            Machine units a text by stage; empty where benchmarks are disabled.

        Raises
        ------
        AssertionError
            If a stage takes more than its budget; tells all stages.
        DataError
            If there is no text or no budget, or a budget is not above 0.
        """
        budgets = dict(zip(STAGES, (tokenize, embed, kernel, total), strict=True))
        _check(texts, budgets)
        loaded = router if isinstance(router, Router) else Router.load(router)
        measured = _Measured(loaded, texts, policy)
        measured.round()
        started = time.perf_counter()
        measured.round()
        n_rounds = round(seconds / (time.perf_counter() - started))
        measured.clear()
        self._benchmark.pedantic(  # type: ignore[no-untyped-call]
            measured.route_all,
            setup=measured.round,
            rounds=min(max(n_rounds, MIN_ROUNDS), MAX_ROUNDS),
        )
        if self._benchmark.stats is None:
            return {}
        unit_ns, units = measured.result()
        self._benchmark.extra_info.update(machine_unit_us=unit_ns / 1e3, machine_units=units)
        exceeded = [
            stage for stage, budget in budgets.items() if budget is not None and units[stage] > budget
        ]
        if exceeded:
            over = ", ".join(f"{stage} {units[stage]:.3g} (budget {budgets[stage]:g})" for stage in exceeded)
            every = ", ".join(f"{stage} {units[stage]:.3g}" for stage in STAGES)
            raise AssertionError(
                f"over budget, in machine units a text: {over}. Measured: {every}; "
                f"a unit is {unit_ns / 1e3:.2f} µs here"
            )
        return units


@pytest.fixture
def routing_latency(request: pytest.FixtureRequest) -> RoutingLatency:
    """Check the latency of a router in units of the machine; see :class:`RoutingLatency`."""
    try:
        benchmark = request.getfixturevalue("benchmark")
    except pytest.FixtureLookupError:
        pytest.fail("routing_latency needs pytest-benchmark: pip install 'centroute[testing]'", pytrace=False)
    return RoutingLatency(benchmark)


class _Measured:
    """Times of a router, text by text, and of the unit between them, in nanoseconds."""

    def __init__(self, router: Router, texts: Sequence[str], policy: Policy | None) -> None:
        self._router, self._texts, self._policy = router, texts, policy
        self.clear()

    def clear(self) -> None:
        """Forget what was measured, as that of a cold start."""
        self._stages: list[list[tuple[int, ...]]] = [[] for _ in self._texts]
        self._units: list[int] = []

    def round(self) -> None:
        """Measure every text once."""
        for text, times in zip(self._texts, self._stages, strict=True):
            self._units.append(_time(machine_unit))
            stages = self._router.time_stages(text, policy=self._policy)
            total = _time(lambda text=text: self._router.route(text, policy=self._policy))  # type: ignore[misc]
            times.append((*stages, total))

    def route_all(self) -> None:
        """What the table of pytest-benchmark shows."""
        for text in self._texts:
            self._router.route(text, policy=self._policy)

    def result(self) -> tuple[float, dict[str, float]]:
        """The unit in nanoseconds, and the stages in units."""
        unit = _lower_quartile(self._units)
        means = {
            stage: statistics.fmean(
                _lower_quartile([times[place] for times in text]) for text in self._stages
            )
            for place, stage in enumerate(STAGES)
        }
        return unit, {stage: mean / unit for stage, mean in means.items()}


def _check(texts: Sequence[str], budgets: dict[str, float | None]) -> None:
    if isinstance(texts, str) or not texts:
        raise DataError("texts: wanted a list of at least one text")
    if all(budget is None for budget in budgets.values()):
        raise DataError(f"no budget: give at least one of {', '.join(STAGES)}")
    for stage, budget in budgets.items():
        if budget is not None and not budget > 0:
            raise DataError(f"{stage} {budget}: wanted a budget above 0 machine units")


def _time(call: Callable[[], object]) -> int:
    started = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - started


def _lower_quartile(values: Sequence[int]) -> float:
    return statistics.quantiles(values, n=4, method="inclusive")[0]
