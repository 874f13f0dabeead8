"""Routing quality on real outcomes: calibrate on 70 %, measure on the held-out 30 %, several seeds.

    python benches/quality.py [--data FOLDER] [--seeds 5] [--sets llmrouter9,routerbench3]
                              [--embedder NAME] [--surface-weight W]

Prints the table that the README shows. `means` is routed by willingness to pay, `avengers-pro` by alpha as
published, both quality first for the accuracy. Accuracy is in per cent, the mean over the seeds, its gain
over the best single model with the standard deviation between seeds; costs are shares of the best single
model's, at the cheapest held-out point that reaches the given share of its accuracy. Nothing is fitted or
chosen on the held-out part.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centroute import Policy, Router
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes, read_outcomes, split_by_text
from centroute.embedders import Embedder, load_embedder
from centroute.evaluate import Evaluation, evaluate
from centroute.surface import surface_features

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
METHODS = ("means", "avengers-pro")
ALPHAS = np.linspace(0, 1, 41)


@dataclass(frozen=True, slots=True)
class Run:
    """One seed: quality-first figures, and (accuracy, mean cost) along the method's own trade-off."""

    evaluation: Evaluation
    frontier: list[tuple[float, float]]


def measure(
    outcomes: Outcomes,
    embeddings: NDArray[np.float32],
    *,
    method: str,
    seed: int,
    embedder: Embedder,
    surface_weight: float | None,
) -> Run:
    """Calibrate on 70 % and measure on the rest."""
    artifact = calibrate(
        outcomes,
        embedder=embedder,
        embeddings=embeddings,
        method=method,
        seed=seed,
        refit=False,
        surface_weight=surface_weight,
    )
    router = Router.from_artifact(artifact)
    _, rows = split_by_text(outcomes, holdout=0.3, seed=seed)
    held_out, held_out_rows = outcomes.subset(rows), np.ascontiguousarray(embeddings[rows])
    if artifact.embedder.surface is not None:
        held_out_rows = artifact.embedder.surface.append(held_out_rows, surface_features(held_out.queries))
    policy = Policy(alpha=1.0) if method == "avengers-pro" else Policy()
    evaluation = evaluate(router, held_out, embeddings=held_out_rows, policy=policy)
    if not evaluation.frontier:
        return Run(evaluation, [])
    if method == "avengers-pro":
        frontier = []
        for alpha in ALPHAS:
            chosen = router.route_embeddings(held_out_rows, policy=Policy(alpha=float(alpha))).model_ids
            every = np.arange(len(rows))
            frontier.append((held_out.scores[every, chosen].mean(), held_out.costs[every, chosen].mean()))
        return Run(evaluation, frontier)
    return Run(evaluation, [(p.accuracy or 0.0, p.mean_cost_usd or 0.0) for p in evaluation.frontier])


def cost_share(run: Run, accuracy_share: float) -> float | None:
    """Cheapest point with that share of the best single model's accuracy, over its cost."""
    best = run.evaluation.best_single
    if not best.mean_cost_usd or not best.accuracy:
        return None
    costs = [cost for accuracy, cost in run.frontier if accuracy >= accuracy_share * best.accuracy]
    return min(costs) / best.mean_cost_usd if costs else None


def table_row(name: str, method: str, runs: list[Run]) -> str:
    """One line of the table, means over the seeds."""
    evaluations = [run.evaluation for run in runs]

    def mean(values: list[float | None]) -> str:
        known = [value for value in values if value is not None]
        return f"{100 * statistics.mean(known):.1f}" if len(known) == len(values) else "–"

    gains = [100 * (e.router.accuracy - e.best_single.accuracy) for e in evaluations]  # type: ignore[operator]
    spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
    cells = (
        name,
        method,
        mean([e.router.accuracy for e in evaluations]),
        mean([e.best_single.accuracy for e in evaluations]),
        f"{statistics.mean(gains):+.1f} ± {spread:.1f}",
        mean([e.oracle.accuracy for e in evaluations]),
        mean([e.headroom_captured for e in evaluations]),
        mean([cost_share(run, 0.98) for run in runs]),
        mean([cost_share(run, 0.90) for run in runs]),
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the outcome files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default="llmrouter9,routerbench3")
    parser.add_argument("--embedder", default="static-256")
    parser.add_argument("--surface-weight", type=float, help="of the surface features; chosen by default")
    arguments = parser.parse_args()

    embedder = load_embedder(arguments.embedder)
    print(f"{arguments.seeds} seeds, 70/30 by text, embedder {embedder.name}; all figures in per cent\n")
    print(
        "| data | method | accuracy | best single | gain | oracle | headroom captured "
        "| cost at 98 % of best single | at 90 % |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.sets.split(","):
        path = arguments.data / f"{name}.jsonl.gz"
        if not path.is_file():
            print(f"{path} is not there; give its folder with --data", file=sys.stderr)
            return 1
        outcomes = read_outcomes(path)
        embeddings = embedder.embed(outcomes.queries)
        for method in METHODS:
            runs = [
                measure(
                    outcomes,
                    embeddings,
                    method=method,
                    seed=seed,
                    embedder=embedder,
                    surface_weight=arguments.surface_weight,
                )
                for seed in range(arguments.seeds)
            ]
            print(table_row(name, method, runs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
