"""``centroute thresholds``."""

import json
import sys
from pathlib import Path

from rich.table import Table

from centroute import Router
from centroute._shown import dollars, share
from centroute.cli import screen
from centroute.datasets import read_outcomes
from centroute.evaluate.strong_weak import Estimate, StrongWeak, default_pair, measured, promised


def run_thresholds(
    router_file: Path,
    data: Path | None,
    *,
    strong: str | None,
    weak: str | None,
    as_json: bool,
    embedder: str | None,
) -> None:
    """Show what shares of calls to the strong one of two models reach."""
    router = Router.load(router_file, embedder=embedder)
    if strong is None or weak is None:
        best, cheapest = default_pair(router.artifact)
        strong, weak = strong or best, weak or cheapest
    promise = promised(router, strong, weak)
    found = None if data is None else measured(router, read_outcomes(data), strong, weak)
    if as_json:
        both = {"promised": promise.to_json(), "measured": None if found is None else found.to_json()}
        sys.stdout.write(json.dumps(both, indent=1, allow_nan=False) + "\n")
        return
    screen.out.print(f"strong: {strong}\nweak:   {weak}\n")
    screen.out.print(_curve(promise, found))
    screen.out.print()
    for name, which in (("promised", promise), (f"measured on {data}", found)):
        if which is not None:
            screen.out.print(f"{name}: {_figures(which)}")


def _curve(promise: StrongWeak, found: StrongWeak | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    headings = ["strong calls", "lead above", "accuracy promised", "mean cost"]
    if found is not None:
        headings += ["strong calls measured", "accuracy measured", "mean cost measured"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for place, point in enumerate(promise.points):
        cells = [
            share(point.strong_share),
            f"{point.threshold:+.3f}",
            f"{share(point.accuracy)} ± {196 * point.accuracy_se:.1f}",
            dollars(point.mean_cost_usd),
        ]
        if found is not None:
            there = found.points[place]
            cells += [
                share(there.strong_share),
                f"{share(there.accuracy)} ± {196 * there.accuracy_se:.1f}",
                dollars(there.mean_cost_usd),
            ]
        # Every other point is enough to look at.
        if place % 2 == 0:
            table.add_row(*cells)
    return table


def _figures(pair: StrongWeak) -> str:
    if pair.apgr is None or pair.cpt_50 is None or pair.cpt_80 is None:
        return "the strong model is not better, so that no gap is recovered"
    queries = "" if pair.n_queries is None else f", {pair.n_queries} queries"
    return (
        f"APGR {_number(pair.apgr)} (by chance 0.5), CPT(50) {_percent(pair.cpt_50)}, "
        f"CPT(80) {_percent(pair.cpt_80)}{queries}"
    )


def _number(estimate: Estimate) -> str:
    low, high = estimate.interval_95
    return f"{estimate.value:.3f} ({low:.3f} to {high:.3f})"


def _percent(estimate: Estimate) -> str:
    value, low, high = ("never" if x is None else share(x) for x in (estimate.value, *estimate.interval_95))
    return f"{value} ({low} to {high})"
