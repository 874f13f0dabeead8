"""``centroute bench``: how long a decision takes, stage by stage."""

import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from rich.table import Table

from centroute import Policy, Router, __version__
from centroute.cli import screen
from centroute.cli.output import refuse_unwritable, write_json
from centroute.cli.policy_flags import PolicyFlags
from centroute.datasets import read_outcomes, synthetic_outcomes
from centroute.errors import DataError

STAGES = ("tokenize", "embed", "kernel", "total")
MIN_CALLS = 20
"""Calls that are timed however long they take."""


def run_bench(
    router_file: Path,
    data: Path | None,
    *,
    json_file: Path | None,
    embedder: str | None,
    seconds: float,
    threads: int,
    flags: PolicyFlags,
) -> None:
    """Time single decisions by stage, then batches, on the texts of DATA or of the synthetic sample."""
    if json_file is not None and str(json_file) != "-":
        refuse_unwritable(json_file)
    router = Router.load(router_file, embedder=embedder)
    policy = flags.policy(router)
    texts = list((read_outcomes(data) if data else synthetic_outcomes(n_queries=500)).queries)
    texts, n_left_out = _routable(router, texts)
    stages = time_stages(router, texts, policy, seconds=seconds)
    result = {
        "stages": stages,
        "throughput_qps": throughput(router, texts, policy, seconds=seconds, threads=threads),
        "simd": router.simd,
        "threads": threads,
        "versions": _versions(),
        "embedder": {
            "name": router.embedder.name,
            "runtime": router.embedder.runtime,
            "device": router.embedder.device,
        },
        "texts": str(data) if data else "synthetic sample",
        "n_texts": len(texts),
        "n_left_out": n_left_out,
    }
    if json_file is not None:
        write_json(json_file, result)
        if str(json_file) == "-":
            return
    _show(result)


def time_stages(
    router: Router, texts: Sequence[str], policy: Policy, *, seconds: float
) -> dict[str, dict[str, float]]:
    """Median and 99th percentile of each stage over single decisions, in microseconds.

    ``total`` is ``Router.route`` as a caller sees it; the stages are timed in calls of their own and on other
    texts: right after them a text's rows of the embedder's table would still lie in the cache.
    """
    for text in islice(cycle(texts), MIN_CALLS):
        router.route(text, policy=policy)
    parts: list[tuple[int, int, int]] = []
    totals: list[int] = []
    stop = time.perf_counter() + seconds
    for text, other in zip(cycle(texts), islice(cycle(texts), len(texts) // 2, None), strict=True):
        parts.append(router.time_stages(text, policy=policy))
        started = time.perf_counter_ns()
        router.route(other, policy=policy)
        totals.append(time.perf_counter_ns() - started)
        if len(totals) >= MIN_CALLS and time.perf_counter() > stop:
            break
    measured = np.column_stack([np.array(parts), totals]) / 1e3
    medians, slowest = np.quantile(measured, [0.5, 0.99], axis=0).round(3).tolist()
    return {
        stage: {"p50_us": median, "p99_us": p99}
        for stage, median, p99 in zip(STAGES, medians, slowest, strict=True)
    }


def throughput(
    router: Router, texts: Sequence[str], policy: Policy, *, seconds: float, threads: int
) -> float:
    """Decisions a second of ``route_batch``: the median over batches that take about a tenth of the time."""
    started = time.perf_counter()
    router.route_batch(texts, policy=policy, threads=threads)
    once = time.perf_counter() - started
    batch = list(islice(cycle(texts), max(1, int(len(texts) * min(seconds / 10 / once, 100)))))
    rates: list[float] = []
    stop = time.perf_counter() + seconds
    while not rates or time.perf_counter() < stop:
        started = time.perf_counter()
        router.route_batch(batch, policy=policy, threads=threads)
        rates.append(len(batch) / (time.perf_counter() - started))
    return round(float(np.median(rates)), 1)


def _routable(router: Router, texts: list[str]) -> tuple[list[str], int]:
    known = np.flatnonzero(router.embedder.embed(texts).any(axis=1))
    if not len(known):
        raise DataError("no text holds anything that the embedder knows")
    routable = [texts[index] for index in known]
    return routable, len(texts) - len(routable)


def _versions() -> dict[str, str]:
    versions = {"centroute": __version__, "python": platform.python_version(), "numpy": np.__version__}
    # Named only where it ran: static embedders need none.
    if "onnxruntime" in sys.modules:
        try:
            versions["onnxruntime"] = version("onnxruntime")
        except PackageNotFoundError:
            versions["onnxruntime"] = version("onnxruntime-gpu")
    return versions


def _show(result: dict) -> None:  # type: ignore[type-arg]
    embedder = result["embedder"]
    screen.out.print(
        f"{embedder['name']} on {embedder['device']} ({embedder['runtime']}), kernel {result['simd']}; "
        f"{result['n_texts']} texts of {result['texts']}"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("one decision")
    table.add_column("median µs", justify="right")
    table.add_column("p99 µs", justify="right")
    for stage, times in result["stages"].items():
        table.add_row(
            stage,
            f"{times['p50_us']:.2f}",
            f"{times['p99_us']:.2f}",
            style="bold" if stage == "total" else None,
        )
    screen.out.print(table, soft_wrap=False)
    plural = "" if result["threads"] == 1 else "s"
    screen.out.print(
        f"batches: {result['throughput_qps']:,.0f} decisions a second on {result['threads']} thread{plural}"
    )
