"""Route every query of data sets through each instruction set of this machine and count what differs.

    python benches/determinism.py FILE.jsonl.gz [...] [--json counts.json]

A router is calibrated on each file, and every query routed as text by every instruction set, on one thread
and on two, with several policies. A difference counts as a fault where the two best utilities of the decision
are 1e-6 or more apart; nearer ones are ties to a float32, and are counted beside. Exits with 1 on a fault.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from centroute import Policy, Router
from centroute.calibrate import calibrate
from centroute.datasets import read_outcomes

TIE = 1e-6
INSTRUCTION_SETS = ("serial", "avx2", "avx512", "neon")


def policies(router: Router) -> dict[str, Policy]:
    """What is asked of every query; those on cost only where all costs are known."""
    wanted = {"quality": Policy(), "alpha": Policy(alpha=0.6), "worth": Policy(willingness_to_pay=0.01)}
    known = {}
    for name, policy in wanted.items():
        try:
            router.route("What is two plus two?", policy=policy)
        except ValueError:
            continue
        known[name] = policy
    return known


def decide(router_file: str, texts_file: str, out: str) -> None:
    """Decide all texts with the instruction set of the environment; models, margins and rows go to a file."""
    router = Router.load(router_file)
    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for name, policy in policies(router).items():
        for n_threads in (1, 2):
            batch = router.route_batch(texts, policy=policy, threads=n_threads)
            found[f"{name}/{n_threads}/model_ids"] = batch.model_ids
            found[f"{name}/{n_threads}/margin"] = batch.margin
            found[f"{name}/{n_threads}/quality"] = batch.quality
    np.savez(out, **found)


def compare(file: Path) -> dict[str, Any]:
    """Counts for one data set."""
    outcomes = read_outcomes(file)
    with tempfile.TemporaryDirectory() as folder:
        router_file, texts_file = Path(folder, "router.safetensors"), Path(folder, "texts.json")
        artifact = calibrate(outcomes, method="learned", n_clusters=32, top_p=16, beta=9.0, holdout=0.0)
        artifact.save(router_file)
        router = Router.load(router_file)
        rows = router.embed(outcomes.queries, allow_zero_rows=True)
        texts = [text for text, row in zip(outcomes.queries, rows, strict=True) if row.any()]
        texts_file.write_text(json.dumps(texts), encoding="utf-8")
        found = {}
        for name in INSTRUCTION_SETS:
            out = Path(folder, f"{name}.npz")
            done = subprocess.run(
                [sys.executable, __file__, "--decide", str(router_file), str(texts_file), str(out)],
                env={**os.environ, "CENTROUTE_SIMD": name},
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode == 0:
                found[name] = dict(np.load(out))
            elif "this machine has" not in done.stderr:
                sys.exit(done.stderr)
    counts: dict[str, Any] = {"data": file.name, "n_texts": len(texts), "instruction_sets": list(found)}
    counts |= {
        "n_decisions": 0,
        "n_faults": 0,
        "n_ties": 0,
        "n_threads_differ": 0,
        "largest_quality_difference": 0.0,
    }
    wanted = found["serial"]
    for decided in found.values():
        for key in wanted:
            policy, n_threads, field = key.split("/")
            if field != "model_ids":
                continue
            differ = decided[key] != wanted[key]
            margins = np.fmin(decided[f"{policy}/{n_threads}/margin"], wanted[f"{policy}/{n_threads}/margin"])
            counts["n_decisions"] += len(differ)
            counts["n_faults"] += int((differ & (margins >= TIE)).sum())
            counts["n_ties"] += int((differ & ~(margins >= TIE)).sum())
            quality = f"{policy}/{n_threads}/quality"
            same = ~differ
            gap = float(np.abs(decided[quality] - wanted[quality])[same].max(initial=0.0))
            counts["largest_quality_difference"] = max(counts["largest_quality_difference"], gap)
            if n_threads == "2":
                counts["n_threads_differ"] += int((decided[key] != decided[f"{policy}/1/model_ids"]).sum())
    return counts


def main() -> int:
    """Compare all files and print one line each."""
    parser = argparse.ArgumentParser(description="Count decisions that differ between instruction sets.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, help="write the counts there")
    parser.add_argument("--decide", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.decide:
        decide(*given.decide)
        return 0
    counts = []
    for file in given.files:
        counts.append(compare(file))
        print(json.dumps(counts[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    return int(any(count["n_faults"] or count["n_threads_differ"] for count in counts))


if __name__ == "__main__":
    sys.exit(main())
