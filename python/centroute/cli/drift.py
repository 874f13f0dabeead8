"""``centroute drift``."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from centroute._router_file import load_kernel, read_metadata
from centroute.artifact import Artifact
from centroute.cli import screen
from centroute.drift import RECALIBRATE_INDEX, WATCH_INDEX, Drift, Index, measure_drift
from centroute.errors import DataError
from centroute.logged_decisions import read_decisions


def run_drift(log: Path, router: Path, *, as_json: bool) -> None:
    """Show how far use has moved from calibration."""
    kernel = load_kernel(router)
    artifact = Artifact.from_kernel(kernel, source=router)
    sha256 = read_metadata(kernel)["sha256"]
    try:
        drift = measure_drift(read_decisions(log), artifact, sha256=sha256)
    except DataError as error:
        message = str(error)
        raise DataError(message if message.startswith(str(log)) else f"{log}: {message}") from error
    if as_json:
        sys.stdout.write(json.dumps(to_json(drift), indent=1, allow_nan=False) + "\n")
        return
    _show(drift, log)


def to_json(drift: Drift) -> dict[str, object]:
    """Keys as ``docs/design.md`` names them."""
    return {
        "verdict": drift.verdict,
        "reasons": list(drift.reasons),
        "n_decisions": drift.n_decisions,
        "n_other_router": drift.n_other_router,
        "clusters": asdict(drift.clusters),
        "similarity": None if drift.similarity is None else asdict(drift.similarity),
        "out_of_distribution": None
        if drift.outside is None or drift.outside_95 is None
        else {"share": drift.outside, "interval_95": list(drift.outside_95)},
        "moved": [asdict(moved) for moved in drift.moved],
    }


def _show(drift: Drift, log: Path) -> None:
    others = f", {drift.n_other_router} of other router files left out" if drift.n_other_router else ""
    screen.out.print(f"{log}: {drift.n_decisions} decisions{others}")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for heading in ("in use", "by chance", "watch", "recalibrate"):
        table.add_column(heading, justify="right")
    table.add_row("PSI of the clusters", *_cells(drift.clusters))
    if drift.similarity is None:
        table.add_row("PSI of the similarity", "unknown: the router file does not hold its distribution")
    else:
        table.add_row("PSI of the similarity", *_cells(drift.similarity))
    if drift.outside is None or drift.outside_95 is None:
        table.add_row("out of distribution", "unknown: the router has no threshold")
    else:
        low, high = drift.outside_95
        table.add_row(
            "out of distribution",
            f"{100 * drift.outside:.1f} %",
            f"interval {100 * low:.1f}–{100 * high:.1f} %",
            "3 %",
            "10 %",
        )
    screen.out.print(table, soft_wrap=False)
    moved = ", ".join(
        f"{move.cluster} ({100 * move.calibrated:.1f} → {100 * move.in_use:.1f} %)" for move in drift.moved
    )
    screen.out.print(f"clusters that moved most: {moved}")
    reasons = f": {', '.join(drift.reasons)}" if drift.reasons else ""
    screen.out.print(f"{drift.verdict}{reasons}", style="bold")


def _cells(index: Index) -> tuple[str, ...]:
    return (
        f"{index.psi:.3f}",
        f"{index.by_chance:.3f}, up to {index.by_chance_99:.3f}",
        f"{WATCH_INDEX:g} above it",
        f"{RECALIBRATE_INDEX:g} above it",
    )
