"""k-means beside scikit-learn's: 20,000 unit rows of 384 numbers, 64 clusters, one thread each.

    python benches/bench_kmeans.py [--rounds 5]

Both get one seeding a run and stop by their own default rule. The rows are drawn around 300 centres with
noise. Inertia is the sum of squared distances of the rows to the mean of their cluster, computed here in the
same way from the labels of both. Times are processor time; the rounds take turns and differ by their seed.
"""

import argparse
import os
import statistics
import sys
import time

# Read when the libraries are loaded.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from centroute.calibrate import spherical_kmeans

N_ROWS, DIM, N_CLUSTERS, N_CENTRES, SPREAD = 20_000, 384, 64, 300, 0.05


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows scaled to norm one."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def inertia(rows: NDArray[np.float32], labels: NDArray[np.int32]) -> float:
    """Sum of squared distances to the means of the clusters."""
    total = 0.0
    for label in np.unique(labels):
        members = rows[labels == label].astype(np.float64)
        total += float(((members - members.mean(axis=0)) ** 2).sum())
    return total


def ours(rows: NDArray[np.float32], seed: int) -> NDArray[np.int32]:
    """Labels of one seeding."""
    return spherical_kmeans(rows, n_clusters=N_CLUSTERS, seed=seed, n_restarts=1).labels


def theirs(rows: NDArray[np.float32], seed: int) -> NDArray[np.int32]:
    """Labels of one seeding."""
    labels: NDArray[np.int32] = KMeans(N_CLUSTERS, n_init=1, random_state=seed).fit(rows).labels_
    return labels


def main() -> int:
    """Print one line a library and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((N_CENTRES, DIM)))
    rows = unit(centres[rng.integers(N_CENTRES, size=N_ROWS)] + SPREAD * rng.standard_normal((N_ROWS, DIM)))
    peers = {"centroute": ours, f"scikit-learn {sklearn.__version__}": theirs}
    for run in peers.values():
        run(rows[:2000], 0)
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    inertias: dict[str, list[float]] = {name: [] for name in peers}
    for seed in range(arguments.rounds):
        for name, run in peers.items():
            started = time.process_time()
            labels = run(rows, seed)
            seconds[name].append(time.process_time() - started)
            inertias[name].append(inertia(rows, labels))
    print(
        f"{N_ROWS} rows x {DIM}, {N_CLUSTERS} clusters, one seeding, one thread, "
        f"medians of {arguments.rounds}"
    )
    for name in peers:
        middle = statistics.median(inertias[name])
        print(f"{name:22} {statistics.median(seconds[name]):7.3f} s   inertia {middle:.1f}")
    own, other = peers
    faster = statistics.median(seconds[other]) / statistics.median(seconds[own])
    worse = statistics.median(inertias[own]) / statistics.median(inertias[other]) - 1
    print(f"{own}: {faster:.1f} times as fast, inertia {100 * worse:+.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
