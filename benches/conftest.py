"""Prints the table of ratios after the kernel benches, with the machine and its measured limits."""

import os

# Before NumPy is loaded: every peer runs on one thread.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import platform
import time
from pathlib import Path

import numba
import numpy as np
import pytest

import centroute


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sweep: all sizes; run by 'make bench-sweep'")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "sweep" not in (config.option.markexpr or ""):
        items[:] = [item for item in items if "sweep" not in item.keywords]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    write = terminalreporter.write_line
    write("")
    write(f"machine: {_processor()}, {centroute.simd()}, one thread unless said; medians")
    write(
        f"versions: centroute {centroute.__version__}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, "
        + ", ".join(f"{name} {_version(name)}" for name in ("faiss-cpu", "scikit-learn", "numba"))
    )
    peak = _sgemm_gflops()
    write(
        f"limits: {peak:.0f} GFLOP/s, the best of NumPy's sgemm on 1,024 x 1,024 matrices; "
        "GB/s, a compiled loop that reads a buffer of the table's size"
    )
    groups: dict[str, list] = {}
    for bench in session.benchmarks:
        groups.setdefault(bench.group, []).append(bench)
    for group, benches in groups.items():
        ours = benches[0].stats.median / benches[0].extra_info["n_queries"]
        write("")
        write(f"{group}")
        write(f"  {'':30} {'µs a query':>11} {'p99':>9} {'ratio':>8} {'agrees':>8}  limit reached")
        for bench in benches:
            info = bench.extra_info
            each = bench.stats.median / info["n_queries"]
            p99 = float(np.quantile(bench.stats.data, 0.99)) / info["n_queries"]
            agrees = "" if info["agrees"] is None else f"{100 * info['agrees']:.1f} %"
            write(
                f"  {info['name']:30} {1e6 * each:11.2f} {1e6 * p99:9.2f} {each / ours:8.2f} {agrees:>8}  "
                f"{_limit(info, each, peak)}".rstrip()
            )


def _limit(info: dict, seconds: float, peak: float) -> str:
    if "flops" in info:
        reached = info["flops"] / seconds / 1e9
        return f"{100 * reached / peak:.0f} % of {peak:.0f} GFLOP/s"
    if "table_bytes" in info:
        bandwidth = _read_gbps(info["table_bytes"])
        return f"{100 * info['table_bytes'] / seconds / 1e9 / bandwidth:.0f} % of {bandwidth:.0f} GB/s"
    return ""


_bandwidths: dict[int, float] = {}


@numba.njit(fastmath=True)
def _read(values: np.ndarray, times: int) -> float:
    total = np.float32(0)
    for time_ in range(times):
        part = np.float32(0)
        for place in range(values.size):
            part += values[place] * values[place]
        # Each round depends on the one before, and so is not left out.
        total = total * np.float32(0.5) + part
        values[time_ % values.size] = np.float32(1)
    return total


def _read_gbps(n_bytes: int) -> float:
    """Bandwidth of the cache level that a table of this size lives in: a compiled sum of squares."""
    if n_bytes not in _bandwidths:
        buffer, times = np.ones(n_bytes // 4, dtype=np.float32), max(3, int(1e8 / n_bytes))
        _read(buffer, 2)
        best = np.inf
        for _ in range(5):
            started = time.perf_counter()
            _read(buffer, times)
            best = min(best, (time.perf_counter() - started) / times)
        _bandwidths[n_bytes] = n_bytes / best / 1e9
    return _bandwidths[n_bytes]


def _sgemm_gflops() -> float:
    matrix = np.ones((1024, 1024), dtype=np.float32)
    best = np.inf
    for _ in range(20):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return 2 * 1024**3 / best / 1e9


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)
