"""Routing quality on real outcomes: calibrate on 70 %, measure on the held-out 30 %, several seeds.

    python benches/quality.py [--data FOLDER] [--seeds 5] [--sets llmrouter9,routerbench3,…]
                              [--embedders static-256,minilm-l6] [--methods auto,learned,…]
                              [--surface-weight W] [--embeddings FOLDER]

Prints one table an embedder, all in per cent, means over the seeds. Equal texts stay on one side of a split;
nothing is fitted or chosen on the held-out part.

- gain: accuracy over the best single model of the calibration part; over Avengers-Pro: over that method on
  the same rows. Both are paired by seed, with half the width of Student's 95 % interval.
- headroom: (accuracy - best single) / (oracle - best single).
- cost at 98 % and at 90 %: the lowest cost of a held-out point with that share of the best single model's
  accuracy, over that model's cost. AIQ: see `centroute.evaluate.metrics`.

Own methods are routed by willingness to pay, `avengers-pro` (60 clusters, top-p 4, beta 9, embeddings without
surface features) by the alpha of its paper, each quality first for the accuracy. `extra-trees` is a peer that
no kernel runs: 300 trees of scikit-learn on the rows that `auto` may route, surface features at 0.15.
"""

import argparse
import math
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
from centroute.evaluate import evaluate
from centroute.evaluate.frontier import willingness_grid
from centroute.evaluate.metrics import aiq
from centroute.surface import SurfaceFeatures, surface_features

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("llmrouter9", "routerbench3", "mmlu_pro", "routellm2")
METHODS = ("auto", "learned", "means", "avengers-pro", "extra-trees")
ALPHAS = np.linspace(0, 1, 41)
SURFACE_WEIGHT = 0.15
STUDENT_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 8: 2.36, 10: 2.26, 12: 2.20, 20: 2.09, 24: 2.07}
"""Quantile by the number of seeds; others take 1.96."""

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of one method: quality first, and (mean cost, accuracy) along its trade-off."""

    accuracy: float
    best_single: float
    best_single_cost: float
    oracle: float
    points: Points
    cost_range: tuple[float, float]
    chosen: str

    @property
    def gain(self) -> float:
        """Accuracy over the best single model's."""
        return self.accuracy - self.best_single

    @property
    def headroom(self) -> float:
        """Share of what the oracle would gain."""
        return self.gain / (self.oracle - self.best_single)

    def cost_share(self, accuracy_share: float) -> float | None:
        """Cheapest point with that share of the best single model's accuracy, over its cost."""
        costs = [cost for cost, accuracy in self.points if accuracy >= accuracy_share * self.best_single]
        return min(costs) / self.best_single_cost if costs else None

    @property
    def aiq(self) -> float | None:
        """Mean height of the hull between the cheapest and the dearest single model."""
        return aiq(self.points, self.cost_range)


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """One data set with its embeddings and surface features, a row a query."""

    name: str
    outcomes: Outcomes
    embeddings: NDArray[np.float32]
    features: NDArray[np.float32]

    def split(self, seed: int) -> tuple["Data", "Data"]:
        """Calibration part and held-out part, as `calibrate` splits them."""
        first, second = (
            Data(self.name, self.outcomes.subset(rows), self.embeddings[rows], self.features[rows])
            for rows in split_by_text(self.outcomes, holdout=0.3, seed=seed)
        )
        return first, second


def measure(data: Data, *, method: str, seed: int, embedder: Embedder, surface_weight: float | None) -> Run:
    """Calibrate on 70 % and measure on the rest."""
    calibration, held_out = data.split(seed)
    if method == "extra-trees":
        return extra_trees(calibration, held_out, seed)
    artifact = calibrate(
        data.outcomes, embedder=embedder, embeddings=data.embeddings, method=method, seed=seed, refit=False,
        surface_weight=surface_weight,
    )  # fmt: skip
    router = Router.from_artifact(artifact)
    rows = held_out.embeddings
    if artifact.embedder.surface is not None:
        rows = artifact.embedder.surface.append(rows, held_out.features)
    if method == "avengers-pro":
        found = evaluate(router, held_out.outcomes, embeddings=rows, policy=Policy(alpha=1.0))
        choices = [
            router.route_embeddings(rows, policy=Policy(alpha=float(alpha))).model_ids
            for alpha in ALPHAS
            if found.frontier
        ]
        points = [point(held_out.outcomes, choice) for choice in choices]
    else:
        found = evaluate(router, held_out.outcomes, embeddings=rows)
        points = [(p.mean_cost_usd or 0.0, p.accuracy or 0.0) for p in found.frontier]
    best, oracle, accuracy = found.best_single, found.oracle, found.router.accuracy
    assert accuracy is not None
    assert best.accuracy is not None
    assert oracle.accuracy is not None
    prices = np.nanmean(held_out.outcomes.costs, axis=0) if points else np.zeros(1)
    about = artifact.method
    return Run(
        accuracy, best.accuracy, best.mean_cost_usd or 0.0, oracle.accuracy, points,
        (float(prices.min()), float(prices.max())),
        f"{about['name']} K={len(artifact.centroids)} p={artifact.top_p} beta={artifact.beta:g}"
        f" shrinkage={about['shrinkage']:g} surface={about['surface_weight']:g}",
    )  # fmt: skip


def point(outcomes: Outcomes, choice: NDArray[np.integer]) -> tuple[float, float]:
    """Mean cost and accuracy of a choice for each query."""
    every = np.arange(len(choice))
    return float(np.nanmean(outcomes.costs[every, choice])), float(np.nanmean(outcomes.scores[every, choice]))


def extra_trees(calibration: Data, held_out: Data, seed: int) -> Run:
    """The same measurement with extra-trees in the place of centroids and tables."""
    from sklearn.ensemble import ExtraTreesRegressor

    surface = SurfaceFeatures.fit(calibration.features, SURFACE_WEIGHT)
    seen, rows = (surface.append(part.embeddings, part.features) for part in (calibration, held_out))
    scores, costs = calibration.outcomes.scores, calibration.outcomes.costs
    has_costs = not np.isnan(costs).any()
    scale = float(costs.mean()) if has_costs else 1.0
    targets = np.concatenate([scores, costs / scale], axis=1) if has_costs else scores
    trees = ExtraTreesRegressor(300, min_samples_leaf=3, max_features=0.3, n_jobs=-1, random_state=seed).fit(
        seen, targets
    )
    predicted = trees.predict(rows).reshape(len(rows), -1)
    quality = predicted[:, : scores.shape[1]]
    points: Points = []
    prices = np.zeros(1)
    if has_costs:
        cost = predicted[:, scores.shape[1] :] * scale
        prices = held_out.outcomes.costs.mean(axis=0)
        grid = willingness_grid(quality.astype(np.float32), cost.astype(np.float32))
        points = [point(held_out.outcomes, (amount * quality - cost).argmax(axis=1)) for amount in grid]
    best = int(scores.mean(axis=0).argmax())
    real = held_out.outcomes.scores
    accuracy = float(real[np.arange(len(rows)), quality.argmax(axis=1)].mean())
    best_cost = float(prices[best]) if has_costs else 0.0
    return Run(
        accuracy, float(real[:, best].mean()), best_cost, float(real.max(axis=1).mean()), points,
        (float(prices.min()), float(prices.max())), "300 trees",
    )  # fmt: skip


def interval(values: list[float]) -> str:
    """Mean and half the width of its 95 % interval over the seeds, in per cent."""
    half = 0.0
    if len(values) > 1:
        half = STUDENT_95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{100 * statistics.mean(values):+.1f} ± {100 * half:.1f}"


def average(values: list[float | None]) -> str:
    """Mean in per cent, a dash where one is unknown."""
    known = [value for value in values if value is not None]
    return f"{100 * statistics.mean(known):.1f}" if known and len(known) == len(values) else "–"


def table_row(name: str, method: str, runs: list[Run], paper: list[Run]) -> str:
    """One line of the table."""
    costs = bool(runs[0].points)
    ahead = [run.accuracy - other.accuracy for run, other in zip(runs, paper, strict=False)]
    cells = (
        name,
        method,
        average([run.accuracy for run in runs]),
        average([run.best_single for run in runs]),
        interval([run.gain for run in runs]),
        interval(ahead) if ahead and method != "avengers-pro" else "–",
        average([run.oracle for run in runs]),
        average([run.headroom for run in runs]),
        average([run.cost_share(0.98) for run in runs]) if costs else "–",
        average([run.cost_share(0.90) for run in runs]) if costs else "–",
        average([run.aiq for run in runs]) if costs else "–",
    )
    return f"| {' | '.join(cells)} |"


def load(path: Path, embedder: Embedder, kept: Path | None) -> Data:
    """Read outcomes and embed them, or take the embeddings from a file of an earlier run."""
    outcomes = read_outcomes(path)
    name = path.name.removesuffix(".jsonl.gz")
    file = None if kept is None else kept / f"{embedder.name}_{name}.npy"
    if file is not None and file.is_file():
        embeddings = np.load(file)
    else:
        embeddings = embedder.embed(outcomes.queries)
        if file is not None:
            np.save(file, embeddings)
    return Data(name, outcomes, embeddings, surface_features(outcomes.queries))


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the outcome files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--embedders", default="static-256")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--surface-weight", type=float, help="of the surface features; chosen by default")
    parser.add_argument("--embeddings", type=Path, help="folder to keep embeddings in between runs")
    parser.add_argument("--verbose", action="store_true", help="print what each seed chose")
    arguments = parser.parse_args()

    for embedder_name in arguments.embedders.split(","):
        embedder = load_embedder(embedder_name)
        print(f"\n{arguments.seeds} seeds, 70/30 by text, embedder {embedder.name}; all in per cent\n")
        print(
            "| data | method | accuracy | best single | gain | over Avengers-Pro | oracle "
            "| headroom captured | cost at 98 % of best single | at 90 % | AIQ |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for name in arguments.sets.split(","):
            path = arguments.data / f"{name}.jsonl.gz"
            if not path.is_file():
                print(f"{path} is not there; give its folder with --data", file=sys.stderr)
                return 1
            data = load(path, embedder, arguments.embeddings)
            methods = arguments.methods.split(",")
            runs = {
                method: [
                    measure(
                        data, method=method, seed=seed, embedder=embedder,
                        surface_weight=None if method == "avengers-pro" else arguments.surface_weight,
                    )
                    for seed in range(arguments.seeds)
                ]
                for method in methods
            }  # fmt: skip
            for method in methods:
                print(table_row(name, method, runs[method], runs.get("avengers-pro", [])), flush=True)
                if arguments.verbose:
                    for run in runs[method]:
                        print(f"    {100 * run.gain:+.2f}  {run.chosen}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
