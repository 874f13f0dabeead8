"""Choosing the settings of a fit by cross-validation inside the calibration part.

Folds are split by text. Every candidate routes the held-out folds, quality first and, where all costs are
known, along a grid of willingness to pay; its value on a row is the mean of ``score - cost / W`` over the
grid: what an answer is worth after it is paid. Among the candidates that are not worse than the best by more
than one standard error of the paired difference, the simplest is taken: fewest clusters, then fewest
blended, then the strongest shrinkage, then the least weight of the surface features (Breiman et al. 1984, the
one-standard-error rule).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.kmeans import spherical_kmeans
from centroute.calibrate.settings import Asked, Settings
from centroute.calibrate.tables import cluster_means
from centroute.datasets.observed import observed_means

N_FOLDS = 3
CLUSTERS = (4, 8, 16, 32, 64, 128)
BLENDS = ((1, 9.0), (2, 9.0), (4, 9.0), (4, 20.0), (8, 9.0), (8, 20.0), (16, 20.0))
SHRINKAGES = (1.0, 3.0, 10.0, 30.0, 100.0)
SURFACE_WEIGHTS = (0.0, 0.15)
"""Cross-validated on real data, 0.1 to 0.2 were best and hardly apart; above 0.3 the embedding drowned."""
ROWS_PER_CLUSTER = 12
"""Fewer rows a cluster than this are not tried: their means would be noise."""
GRID_POINTS = 6

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate and what it reached on the held-out rows.

    Attributes
    ----------
    settings
        What was tried.
    value
        Mean of ``score - cost / W`` over rows and grid.
    behind
        How much less that is than the best candidate's.
    standard_error
        Of that difference, paired by row.
    """

    settings: Settings
    value: float
    behind: float
    standard_error: float


def candidates(n_distinct: int, asked: Asked) -> list[Settings]:
    """All settings that the data carries and the caller left open, simplest first."""
    counts: tuple[int, ...] = tuple(n for n in CLUSTERS if n * ROWS_PER_CLUSTER <= n_distinct) or (1,)
    return [
        Settings(n_clusters, top_p, beta, strength, surface_weight)
        for n_clusters in (counts if asked.n_clusters is None else (asked.n_clusters,))
        for top_p, beta in _blends(n_clusters, asked)
        for strength in (SHRINKAGES[::-1] if asked.shrinkage is None else (asked.shrinkage,))
        for surface_weight in (SURFACE_WEIGHTS if asked.surface_weight is None else (asked.surface_weight,))
    ]


def _blends(n_clusters: int, asked: Asked) -> list[tuple[int, float]]:
    choices = {
        (
            min(n_clusters, top_p if asked.top_p is None else asked.top_p),
            beta if asked.beta is None else asked.beta,
        )
        for top_p, beta in BLENDS
    }
    return sorted(choices)


def cross_validate(
    rows_by_weight: Mapping[float, NDArray[np.float32]],
    scores: NDArray[np.float32],
    costs: NDArray[np.float64],
    text_ids: NDArray[np.intp],
    choices: list[Settings],
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> list[Trial]:
    """Measure every candidate on held-out folds.

    Parameters
    ----------
    rows_by_weight
        Unit rows to route ``[n, width]`` for every surface weight among the candidates.
    scores, costs
        ``[n, n_models]``, NaN where not observed.
    text_ids
        Equal for equal texts, ``[n]``; they stay in one fold.
    choices
        Candidates.
    seed
        Of folds and clusterings.
    progress
        Called with steps done and steps in all.
    """
    grid = exchange_grid(observed_means(scores), observed_means(costs))
    fold_of_text = np.random.default_rng(seed).permutation(int(text_ids.max()) + 1) % N_FOLDS
    folds = fold_of_text[text_ids]
    by_clustering: dict[tuple[float, int], dict[tuple[int, float], list[Settings]]] = {}
    for choice in choices:
        by_blend = by_clustering.setdefault((choice.surface_weight, choice.n_clusters), {})
        by_blend.setdefault((choice.top_p, choice.beta), []).append(choice)
    values = {choice: np.full(len(scores), np.nan) for choice in choices}
    for fold in range(N_FOLDS):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for step, ((surface_weight, n_clusters), by_blend) in enumerate(by_clustering.items()):
            progress(fold * len(by_clustering) + step, N_FOLDS * len(by_clustering))
            rows = rows_by_weight[surface_weight]
            clustering = spherical_kmeans(
                rows[inside], n_clusters=n_clusters, seed=seed, n_restarts=1, allow_fewer=True
            )
            similarities = rows[outside] @ clustering.centroids.T
            tables = {
                strength: [
                    cluster_means(
                        clustering.labels,
                        observed[inside],
                        n_clusters=len(clustering.centroids),
                        shrinkage=strength,
                    )[0]
                    for observed in (scores, costs)
                ]
                for strength in {choice.shrinkage for choice in choices}
            }
            for (top_p, beta), blended in by_blend.items():
                weights = soft_assignment(similarities, top_p, beta)
                for choice in blended:
                    quality, cost = (weights @ table for table in tables[choice.shrinkage])
                    values[choice][outside] = worth(quality, cost, scores[outside], costs[outside], grid)
    progress(1, 1)
    return _trials(values)


def select(trials: list[Trial]) -> Settings:
    """The first candidate, simplest first, within one standard error of the best."""
    return next(trial.settings for trial in trials if trial.behind <= trial.standard_error)


def exchange_grid(quality: Table, cost: Table) -> Table:
    """Amounts of willingness to pay at which the pool's models change places on average.

    From half the lowest to twice the highest exchange rate on the hull of the models' means
    ``(cost, quality)``, in equal ratios; empty when a cost is unknown or one model is best and cheapest.
    """
    if np.isnan(cost).any() or np.isnan(quality).any():
        return np.zeros(0)
    rates = []
    place = int(np.lexsort((-quality, cost))[0])
    while True:
        better = np.flatnonzero((quality > quality[place]) & (cost > cost[place]))
        if len(better) == 0:
            break
        steps = (cost[better] - cost[place]) / (quality[better] - quality[place])
        place = int(better[np.argmin(steps)])
        rates.append(float(steps.min()))
    if not rates:
        return np.zeros(0)
    return np.geomspace(rates[0] / 2, rates[-1] * 2, GRID_POINTS)


def worth(
    quality: Table, cost: Table, scores: NDArray[np.float32], costs: NDArray[np.float64], grid: Table
) -> NDArray[np.float64]:
    """What routing by predictions leaves of an answer's worth, one value a row; NaN where not observed."""
    rows = np.arange(len(quality))
    chosen = np.nan_to_num(quality, nan=-1.0).argmax(axis=1)
    reached = [scores[rows, chosen].astype(np.float64)]
    for amount in grid:
        chosen = np.nan_to_num(amount * quality - cost, nan=-np.inf).argmax(axis=1)
        reached.append(scores[rows, chosen] - costs[rows, chosen] / amount)
    return observed_means(np.stack(reached))


def soft_assignment(similarities: NDArray[np.float32], top_p: int, beta: float) -> Table:
    """Softmax weights of the ``top_p`` nearest clusters, zero elsewhere, ``[n, n_clusters]``."""
    top_p = min(top_p, similarities.shape[1])
    nearest = np.argpartition(-similarities, top_p - 1, axis=1)[:, :top_p]
    near = np.take_along_axis(similarities, nearest, axis=1).astype(np.float64)
    soft = np.exp(beta * (near - near.max(axis=1, keepdims=True)))
    weights = np.zeros(similarities.shape)
    np.put_along_axis(weights, nearest, soft / soft.sum(axis=1, keepdims=True), axis=1)
    return weights


def _trials(values: dict[Settings, NDArray[np.float64]]) -> list[Trial]:
    means = {choice: float(observed_means(reached[:, None])[0]) for choice, reached in values.items()}
    best = max(means, key=lambda choice: means[choice])
    trials = []
    for choice, reached in values.items():
        behind = values[best] - reached
        known = behind[~np.isnan(behind)]
        spread = float(known.std() / np.sqrt(len(known))) if len(known) else 0.0
        trials.append(Trial(choice, means[choice], float(known.mean()) if len(known) else 0.0, spread))
    return trials
