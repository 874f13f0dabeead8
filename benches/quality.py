"""Routing quality on real outcomes: calibrate on 70 %, measure on the held-out 30 %, several seeds.

    python benches/quality.py [--data FOLDER] [--seeds 5] [--sets llmrouter9,routerbench3]

Prints the table that the README shows. Accuracy is in per cent, the mean over the seeds with the standard
deviation between them; costs are shares of the best single model's, at the cheapest point of the held-out
frontier that reaches the given share of its accuracy. Nothing is fitted or chosen on the held-out part.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from centroute.calibrate import calibrate
from centroute.datasets import read_outcomes
from centroute.embedders import load_embedder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
METHODS = ("means", "avengers-pro")


def cost_share(evaluation: dict[str, Any], accuracy_share: float) -> float | None:
    """Cheapest measured point with that share of the best single model's accuracy, over its cost."""
    best = evaluation["best_single"]
    if not best["mean_cost_usd"]:
        return None
    costs = [
        point["mean_cost_usd"]
        for point in evaluation["frontier"]
        if point["accuracy"] >= accuracy_share * best["accuracy"]
    ]
    return min(costs) / best["mean_cost_usd"] if costs else None


def measure(path: Path, *, method: str, seeds: int, embedder: Any) -> list[dict[str, Any]]:
    """Evaluations on the holdout, one a seed."""
    outcomes = read_outcomes(path)
    embeddings = embedder.embed(outcomes.queries)
    return [
        dict(
            calibrate(
                outcomes, embedder=embedder, embeddings=embeddings, method=method, seed=seed, refit=False
            ).report["evaluation"]  # type: ignore[call-overload]
        )
        for seed in range(seeds)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the outcome files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default="llmrouter9,routerbench3")
    parser.add_argument("--embedder", default="static-256")
    arguments = parser.parse_args()

    embedder = load_embedder(arguments.embedder)
    print(f"{arguments.seeds} seeds, 70/30 by text, embedder {embedder.name}\n")
    print("| data | method | accuracy | best single | gain | oracle | headroom captured "
          "| cost at 98 % of best single | at 90 % |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.sets.split(","):
        path = arguments.data / f"{name}.jsonl.gz"
        if not path.is_file():
            print(f"{path} is not there; give its folder with --data", file=sys.stderr)
            return 1
        for method in METHODS:
            runs = measure(path, method=method, seeds=arguments.seeds, embedder=embedder)

            def mean(*keys: str, runs: list[dict[str, Any]] = runs) -> float:
                values: list[Any] = list(runs)
                for key in keys:
                    values = [value[key] for value in values]
                return statistics.mean(values)

            gains = [100 * (run["accuracy"] - run["best_single"]["accuracy"]) for run in runs]
            spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
            shares = {share: [cost_share(run, share) for run in runs] for share in (0.98, 0.9)}
            shown = [
                "–" if None in values else f"{100 * statistics.mean(filter(None, values)):.1f} %"
                for values in shares.values()
            ]
            print(
                f"| {name} | {method} | {100 * mean('accuracy'):.1f} | "
                f"{100 * mean('best_single', 'accuracy'):.1f} | "
                f"{statistics.mean(gains):+.1f} ± {spread:.1f} | "
                f"{100 * mean('oracle', 'accuracy'):.1f} | {100 * mean('headroom_captured'):.1f} % | "
                f"{shown[0]} | {shown[1]} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
