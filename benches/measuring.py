"""One timed call for the table that `conftest.py` prints."""

import gc
import time
from collections.abc import Callable

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture


def measure(
    benchmark: BenchmarkFixture,
    group: str,
    name: str,
    call: Callable[[], object],
    *,
    n_queries: int = 1,
    agrees: float | None = None,
    seconds: float = 1.0,
) -> None:
    """Time a call; iterations of one, so that the slowest calls can be seen."""
    benchmark.group = group
    benchmark.extra_info.update(name=name, n_queries=n_queries, agrees=agrees)
    call()
    started = time.perf_counter()
    call()
    one = time.perf_counter() - started
    gc.disable()
    benchmark.pedantic(call, rounds=int(np.clip(seconds / max(one, 1e-7), 5, 20_000)), warmup_rounds=5)
    gc.enable()
