"""Calibration on shards that are not held in memory: ``python benches/out_of_core.py [--queries 1000000]``.

Makes shards of synthetic queries, 50,000 a shard and seed, and calibrates on them in a process of its own
with static-256 and the choices of ``centroute calibrate``. Shards that are there are taken as they are.
Prints wall and processor seconds of each stage, and the peak memory: the largest resident set of the process
as the system counted it, and the largest sum over it and its children, looked at ten times a second.

``--engine ray`` runs the same work on Ray workers of this machine; needs ``centroute[ray]``.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import threading
import time
from pathlib import Path

from centroute.datasets import synthetic_outcomes, write_jsonl

PER_SHARD = 50_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def make_shard(task: tuple[Path, int, int]) -> None:
    """Write one shard, unless it is there."""
    folder, number, n_queries = task
    file = folder / f"shard-{number:05d}.jsonl"
    if not file.exists():
        write_jsonl(synthetic_outcomes(n_queries=n_queries, seed=number), file)


def make_shards(folder: Path, n_queries: int, *, processes: int) -> None:
    """Write the shards of so many queries."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        (folder, number, min(PER_SHARD, n_queries - start))
        for number, start in enumerate(range(0, n_queries, PER_SHARD))
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(make_shard, tasks, chunksize=1)


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def calibrated(folder: Path, checkpoint: Path, engine: str, n_workers: int) -> None:
    """Calibrate in this process, and print its stages as JSON."""
    from centroute.calibrate.streaming import calibrate_shards

    stages: dict[str, list[float]] = {}
    last = ["start", time.perf_counter(), processor_seconds()]

    def tell(step: str, _done: int, _total: int) -> None:
        now, spent = time.perf_counter(), processor_seconds()
        seconds = stages.setdefault(str(last[0]).split(",")[0], [0.0, 0.0])
        seconds[0] += now - float(last[1])
        seconds[1] += spent - float(last[2])
        last[:] = [step, now, spent]

    if engine == "ray":
        from centroute.ray import RayEngine

        with RayEngine(n_workers=n_workers) as workers:
            artifact = calibrate_shards([folder], checkpoint=checkpoint, engine=workers, progress=tell)
    else:
        artifact = calibrate_shards([folder], checkpoint=checkpoint, progress=tell)
    tell("end", 0, 0)
    size = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "stages": stages,
                "peak_bytes": peak,
                "scratch_bytes": size,
                "method": dict(artifact.method),
                "streaming": artifact.report["streaming"],
            }
        )
    )


def tree_bytes(root: int) -> int:
    """Resident memory of a process and all below it; shared pages count once for each."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                sizes[int(entry.name)] = int((entry / "statm").read_text().split()[1]) * PAGE_BYTES
                parents[int(entry.name)] = int(fields[1])
            except (OSError, IndexError):
                continue  # it ended meanwhile
    total = 0
    for process, size in sizes.items():
        above = process
        while above not in (root, 0, 1):
            above = parents.get(above, 0)
        total += size if above == root else 0
    return total


def watched(arguments: list[str]) -> tuple[str, int, float, float]:
    """Run a Python process; what it printed, its tree's peak, wall and processor seconds."""
    import subprocess

    started, spent = time.perf_counter(), processor_seconds()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], tree_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        printed, _ = process.communicate()
    finally:
        ended.set()
        watcher.join()
    if process.returncode:
        sys.exit(process.returncode)
    return printed, peak[0], time.perf_counter() - started, processor_seconds() - spent


def main() -> int:
    """Make shards, calibrate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("out-of-core"))
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-calibrate", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shards, checkpoint = options.folder / f"{options.queries}", options.folder / "checkpoint"
    if options.only_calibrate:
        calibrated(shards, checkpoint, options.engine, options.workers)
        return 0
    started = time.perf_counter()
    make_shards(shards, options.queries, processes=options.workers)
    n_bytes = sum(file.stat().st_size for file in shards.iterdir())
    print(f"{options.queries:,} queries, {n_bytes / 1e6:.0f} MB of JSON lines, made in "
          f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    shutil.rmtree(checkpoint, ignore_errors=True)
    own = [__file__, "--only-calibrate", *sys.argv[1:]]
    printed, tree_peak, wall, processor = watched(own)
    found = json.loads(printed.splitlines()[-1])
    shutil.rmtree(checkpoint, ignore_errors=True)
    for stage, (seconds, of_processor) in found["stages"].items():
        print(f"  {stage:16} {seconds:8.1f} s  ({of_processor:.1f} s of processor)")
    print(f"  {'in all':16} {wall:8.1f} s  ({processor:.1f} s of processor)")
    print(f"peak memory {found['peak_bytes'] / 1e6:.0f} MB of the process, {tree_peak / 1e6:.0f} MB of all")
    print(f"scratch on disk {found['scratch_bytes'] / 1e6:.0f} MB")
    print(f"method {found['method']}")
    print(f"measured {json.dumps(found['streaming'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
