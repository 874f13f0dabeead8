"""Ten million routed queries and the memory they leave behind: ``make soak``.

Fails when the resident memory in the end exceeds that after a tenth of them by more than one per cent.
"""

import sys
import time
from pathlib import Path

import numpy as np
from peers import Case

from centroute import Policy

N_QUERIES = 10_000_000
BATCH = 4096
TOLERANCE = 0.01
N_SINGLES_A_BATCH = 64


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> int:
    """Route, one by one and in batches, with reused and fresh policies, on one thread and two."""
    case = Case(64, 384, 16, 4)
    router, rows = case.router("i8"), case.queries(BATCH)
    amounts = np.full(BATCH, 0.01, dtype=np.float32)
    started, n_routed, n_batches, first = time.perf_counter(), 0, 0, 0
    while n_routed < N_QUERIES:
        for row in rows[:N_SINGLES_A_BATCH]:
            fresh = Policy(willingness_to_pay=0.02, deny={"model-1"})
            decision = router.route_embedding(row, policy=fresh)
            assert decision.ranking[0] == decision.model
        threads = 1 + n_batches % 2
        router.route_embeddings(rows, willingness_to_pay=amounts, threads=threads)
        router.predict(rows[:16])
        n_routed += BATCH + N_SINGLES_A_BATCH
        n_batches += 1
        if not first and n_routed >= N_QUERIES // 10:
            first = resident_bytes()
    last = resident_bytes()
    growth = last / first - 1
    print(
        f"{n_routed:,} queries in {time.perf_counter() - started:.0f} s; resident memory "
        f"{first / 1e6:.1f} MB after a tenth, {last / 1e6:.1f} MB in the end, {100 * growth:+.2f} %"
    )
    return int(growth > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
