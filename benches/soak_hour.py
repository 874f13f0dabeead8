"""An hour of routing on 64 threads with reloads: memory, open files and latency, a sample every ten seconds.

    python benches/soak_hour.py [--minutes 60] [--json soak.json] [--markdown soak.md]

A router with texts and vectors is shared by all threads; its file is replaced every second and reloaded,
every tenth time by a broken one. Fails when the resident memory or the number of open files in the end
exceeds that after a tenth of the time by more than one per cent, or when any decision fails.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from centroute import Policy, Router
from centroute._atomic import write_atomic
from centroute.calibrate import calibrate
from centroute.datasets import synthetic_outcomes

N_THREADS = 64
SAMPLE_SECONDS = 10.0
TOLERANCE = 0.01
KEPT_LATENCIES = 20_000


class Worker(threading.Thread):
    """Routes until it is told to stop, by text, by vector, and in batches."""

    def __init__(
        self, router: Router, texts: list[str], rows: Any, stopped: threading.Event, number: int
    ) -> None:
        super().__init__(daemon=True)
        self.n_routed, self.faults = 0, list[str]()
        self.latencies_ns: list[int] = []
        self._router, self._texts, self._rows, self._stopped, self._number = (
            router,
            texts,
            rows,
            stopped,
            number,
        )

    def run(self) -> None:
        """Route on."""
        policies = [
            Policy(),
            Policy(willingness_to_pay=0.01),
            Policy(alpha=0.5, deny={self._router.models[0]}),
        ]
        turn = self._number
        while not self._stopped.is_set():
            turn += 1
            policy = policies[turn % len(policies)]
            started = time.perf_counter_ns()
            try:
                if turn % 50 == 0:
                    self.n_routed += len(self._router.route_batch(self._texts[:20], policy=policy, threads=2))
                elif turn % 2:
                    self._router.route(self._texts[turn % len(self._texts)], policy=policy)
                    self.n_routed += 1
                else:
                    self._router.route_embedding(self._rows[turn % len(self._rows)], policy=policy)
                    self.n_routed += 1
            except Exception as error:  # noqa: BLE001 - counted and told in the end
                self.faults.append(repr(error))
            if turn % 7 == 0 and len(self.latencies_ns) < KEPT_LATENCIES:
                self.latencies_ns.append(time.perf_counter_ns() - started)
            # Threads that never rest would measure the interpreter lock and nothing else.
            time.sleep(0.002)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])


def sample(workers: list[Worker], router: Router, started: float) -> dict[str, float]:
    """What is so now; latencies are those since the last sample."""
    latencies: list[int] = []
    for worker in workers:
        taken, worker.latencies_ns = worker.latencies_ns, []
        latencies += taken
    p50, p99, p999 = np.percentile(latencies or [0], [50, 99, 99.9]) / 1e3
    return {
        "seconds": round(time.monotonic() - started, 1),
        "resident_mb": round(resident_bytes() / 1e6, 2),
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "generation": router.generation,
        "n_routed": sum(worker.n_routed for worker in workers),
        "p50_us": round(float(p50), 1),
        "p99_us": round(float(p99), 1),
        "p999_us": round(float(p999), 1),
    }


def main() -> int:
    """Run, and say whether anything grew or failed."""
    parser = argparse.ArgumentParser(description="Route on 64 threads with reloads and watch the process.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    outcomes = synthetic_outcomes(n_queries=400)
    artifact = calibrate(outcomes, method="means", n_clusters=16)
    files = [artifact.to_bytes(), replace(artifact, beta=artifact.beta + 1).to_bytes()]
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "router.safetensors")
        write_atomic(path, files[0])
        router = Router.load(path)
        rows = router.embed(outcomes.queries)
        stopped = threading.Event()
        workers = [
            Worker(router, list(outcomes.queries), rows, stopped, number) for number in range(N_THREADS)
        ]
        for worker in workers:
            worker.start()
        started, n_reloads, n_refused = time.monotonic(), 0, 0
        end, next_sample = started + 60 * given.minutes, started + SAMPLE_SECONDS
        while time.monotonic() < end:
            n_reloads += 1
            write_atomic(path, files[n_reloads % 2] if n_reloads % 10 else files[0][:-7])
            try:
                router.reload(path)
            except ValueError:
                n_refused += 1
            if time.monotonic() >= next_sample:
                samples.append(sample(workers, router, started))
                next_sample += SAMPLE_SECONDS
            stopped.wait(1.0)
        stopped.set()
        for worker in workers:
            worker.join(30)
    faults = [fault for worker in workers for fault in worker.faults]
    return report(given, samples, faults, n_reloads=n_reloads, n_refused=n_refused)


def report(
    given: argparse.Namespace,
    samples: list[dict[str, float]],
    faults: list[str],
    *,
    n_reloads: int,
    n_refused: int,
) -> int:
    """Write what was sampled and return the exit code."""
    if len(samples) < 2:
        print("too short for two samples")
        return int(bool(faults))
    first, last = samples[len(samples) // 10], samples[-1]
    growth = {name: last[name] / first[name] - 1 for name in ("resident_mb", "open_files")}
    summary = {
        "minutes": given.minutes,
        "n_threads": N_THREADS,
        "n_reloads": n_reloads,
        "n_refused": n_refused,
        "n_faults": len(faults),
        "growth": {name: round(value, 5) for name, value in growth.items()},
    }
    if given.json is not None:
        given.json.write_text(json.dumps({**summary, "samples": samples}, indent=1) + "\n", encoding="utf-8")
    columns = list(samples[0])
    shown = samples[:: max(1, len(samples) // 24)]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(f"{row[name]:g}" for name in columns) + " |" for row in shown]
    if given.markdown is not None:
        given.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps(summary), *lines, *faults[:5], sep="\n")
    return int(bool(faults) or any(value > TOLERANCE for value in growth.values()))


if __name__ == "__main__":
    sys.exit(main())
