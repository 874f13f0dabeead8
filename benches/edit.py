"""A model added from few outcomes against the full calibration with it, on held-out queries.

    python benches/edit.py [--data FOLDER] [--sets llmrouter9] [--method means] [--seeds 5] [--draws 3]
                           [--outcomes 10%,100,30] [--embedder NAME]

The pool is calibrated on 70 % of the data. Each model in turn is dropped, which leaves the router as it would
have been calibrated without it (clusters do not depend on the pool, nor columns on each other; the settings
are those chosen with it), and is added again from outcomes drawn out of the calibration part. Routed quality
first on the held-out 30 %, in points of accuracy:

- *full*: what the full calibration gains by having the model, with the standard error of that gain, paired
  by query. Models that gain more than this are told apart: a share of next to nothing says nothing.
- *edit*, *means*: what is gained by `add_model`, and by the cluster means of the same few outcomes, drawn
  to their mean by ten pseudo-outcomes.
- *headroom*: (router - best single) of the edited router, over that of the full calibration.

Nothing is fitted or chosen on the held-out part.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centroute import Artifact, Router
from centroute.calibrate import calibrate
from centroute.calibrate.tables import cluster_means
from centroute.datasets import Outcomes, read_outcomes, split_by_text
from centroute.edit import add_model, drop_model, soft_assignment
from centroute.embedders import Embedder, load_embedder
from centroute.surface import surface_features

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHRINKAGE = 10.0

Gains = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows to route ``[n, dim]`` and what every model scored on them ``[n, n_models]``."""

    rows: NDArray[np.float32]
    scores: NDArray[np.float32]
    models: tuple[str, ...]

    def reached(self, artifact: Artifact) -> NDArray[np.float64]:
        """Score of the chosen model on each query, quality first."""
        batch = Router.from_artifact(replace(artifact, default_policy=None)).route_embeddings(self.rows)
        columns = np.array([self.models.index(model.name) for model in artifact.models])
        return self.scores[np.arange(len(self.rows)), columns[batch.model_ids]].astype(np.float64)


def with_means(edited: Artifact, outcomes: Outcomes, rows: NDArray[np.float32]) -> Artifact:
    """The last model's column replaced by the shrunk cluster means of its outcomes on ``rows``."""
    _, nearest = soft_assignment(rows, edited)
    scores = outcomes.scores[:, [outcomes.models.index(edited.models[-1].name)]]
    means, _, _ = cluster_means(
        nearest.astype(np.int32), scores, n_clusters=len(edited.centroids), shrinkage=SHRINKAGE
    )
    quality = edited.quality.copy()
    quality[:, -1] = means[:, 0]
    return replace(edited, quality=quality)


def measure(
    outcomes: Outcomes,
    embeddings: NDArray[np.float32],
    *,
    embedder: Embedder,
    method: str,
    seed: int,
    sizes: Sequence[str],
    n_draws: int,
) -> tuple[Gains, dict[str, Gains]]:
    """One seed.

    Returns
    -------
    full
        Per model: gain of the full calibration, its standard error, and the full router's lead over the best
        single model, ``[n_models, 3]``.
    by_size
        For each size, per model: gains of the edit and of the means, and the edited router's lead,
        ``[n_models, 3]``, means over the draws.
    """
    full = calibrate(
        outcomes, embedder=embedder, embeddings=embeddings, method=method, seed=seed, refit=False
    )
    surface = full.embedder.surface
    rows = embeddings if surface is None else surface.append(embeddings, surface_features(outcomes.queries))
    calibration, held_out = split_by_text(outcomes, holdout=0.3, seed=seed)
    measured = HeldOut(np.ascontiguousarray(rows[held_out]), outcomes.scores[held_out], outcomes.models)
    best = measured.scores[:, int(full.prior_quality.argmax())].mean(dtype=np.float64)
    with_all = measured.reached(full)
    full_gains, by_size = [], {size: [] for size in sizes}
    for column, name in enumerate(outcomes.models):
        less = drop_model(full, name)
        without = measured.reached(less)
        gain = with_all - without
        full_gains.append((gain.mean(), gain.std() / np.sqrt(len(gain)), with_all.mean() - best))
        for size in sizes:
            n = round(len(calibration) * float(size[:-1]) / 100) if size.endswith("%") else int(size)
            reached = []
            for draw in range(n_draws):
                rng = np.random.default_rng([seed, column, draw])
                drawn = np.sort(rng.choice(calibration, size=n, replace=False))
                some = outcomes.subset(drawn)
                edited = add_model(less, name, some, embeddings=rows[drawn])
                by_means = measured.reached(with_means(edited, some, rows[drawn])).mean()
                by_edit = measured.reached(edited).mean()
                reached.append((by_edit - without.mean(), by_means - without.mean(), by_edit - best))
            by_size[size].append(np.mean(reached, axis=0))
    return np.array(full_gains), {size: np.array(gains) for size, gains in by_size.items()}


def show(models: Sequence[str], full: Gains, gains: Gains, size: str) -> None:
    """Table and shares of one size, means over the seeds."""
    counts = full[:, 0] > full[:, 1]
    print(f"\n{size} of the outcomes" if size.endswith("%") else f"\n{size} outcomes")
    print("\n| left out | full | edit | means | edit / full | headroom |\n|---|---|---|---|---|---|")
    for name, whole, some, telling in zip(models, full, gains, counts, strict=True):
        share = f"{100 * some[0] / whole[0]:.0f} %" if telling else "–"
        headroom = f"{100 * some[2] / whole[2]:.0f} %" if whole[2] > 0 else "–"
        print(
            f"| {name} | {100 * whole[0]:+.2f} ± {100 * whole[1]:.2f} | {100 * some[0]:+.2f} "
            f"| {100 * some[1]:+.2f} | {share} | {headroom} |"
        )
    for place, method in enumerate(("edit", "means")):
        shares = gains[counts, place] / full[counts, 0]
        median = f"{100 * np.median(shares):.0f} %" if counts.any() else "–"
        print(
            f"{method}: median share {median} over the {counts.sum()} of {len(counts)} models that gain more "
            f"than a standard error, share of the sums {100 * gains[:, place].sum() / full[:, 0].sum():.0f} %"
        )
    leads = full[:, 2] > 0
    if leads.any():
        median = np.median(gains[leads, 2] / full[leads, 2])
        print(f"headroom: median {100 * median:.0f} % over all models", flush=True)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the outcome files")
    parser.add_argument("--sets", default="llmrouter9")
    parser.add_argument("--method", default="means")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=3, help="draws of outcomes for each seed and model")
    parser.add_argument("--outcomes", default="10%,100,30", help="numbers of outcomes, or shares")
    parser.add_argument("--embedder", default="static-256")
    arguments = parser.parse_args()

    embedder = load_embedder(arguments.embedder)
    sizes = arguments.outcomes.split(",")
    for name in arguments.sets.split(","):
        path = arguments.data / f"{name}.jsonl.gz"
        if not path.is_file():
            print(f"{path} is not there; give its folder with --data", file=sys.stderr)
            return 1
        outcomes = read_outcomes(path)
        embeddings = embedder.embed(outcomes.queries)
        runs = [
            measure(
                outcomes,
                embeddings,
                embedder=embedder,
                method=arguments.method,
                seed=seed,
                sizes=sizes,
                n_draws=arguments.draws,
            )
            for seed in range(arguments.seeds)
        ]
        print(f"{name}, method {arguments.method}, {arguments.seeds} seeds, {arguments.draws} draws each")
        full = np.mean([run[0] for run in runs], axis=0)
        for size in sizes:
            show(outcomes.models, full, np.mean([run[1][size] for run in runs], axis=0), size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
