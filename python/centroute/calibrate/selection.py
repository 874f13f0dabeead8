"""Choosing the settings of a fit by cross-validation inside the calibration part.

Folds are split by text. Every candidate routes the held-out folds, quality first and, where all costs are
known, along a grid of willingness to pay; its value on a row is the mean of ``score - cost / W`` over the
grid: what an answer is worth after it is paid. Each term is the height at which a line of slope ``1 / W``
touches the cost–accuracy frontier, so that their mean measures the area below the frontier.

A size (method and number of clusters) is represented by its best candidate. Among the sizes that are not
worse than the best by more than one standard error of the paired difference (Breiman et al. 1984), the
simplest is taken: learned tables before means (their blends vary more smoothly), then fewest clusters.
Blend, shrinkage and surface weight make an artifact neither larger nor slower, and the best are taken: when
the rule chose them too, it shrank tables until one model was left to choose.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby

import numba
import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.assignment import blend, nearest_clusters, softmax_weights
from centroute.calibrate.frontier import exchange_rates
from centroute.calibrate.kmeans import spherical_kmeans
from centroute.calibrate.ridge import NormalEquations
from centroute.calibrate.settings import Asked, Settings
from centroute.calibrate.tables import cluster_means
from centroute.datasets.observed import observed_means

N_FOLDS = 3
CLUSTERS = (4, 8, 16, 32, 64, 128)
MEAN_BLENDS = ((1, 9.0), (2, 9.0), (4, 9.0), (4, 20.0), (8, 9.0), (8, 20.0), (16, 20.0))
LEARNED_BLENDS = ((4, 9.0), (4, 20.0), (8, 20.0), (16, 9.0), (16, 20.0))
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


def candidates(method: str, n_distinct: int, asked: Asked) -> list[Settings]:
    """All settings that the data carries and the caller left open, simplest first.

    Parameters
    ----------
    method
        ``"means"``, ``"learned"``, or ``"auto"`` for both.
    n_distinct
        Different embeddings to calibrate on.
    asked
        What the caller fixed.
    """
    counts: tuple[int, ...] = tuple(n for n in CLUSTERS if n * ROWS_PER_CLUSTER <= n_distinct) or (1,)
    if asked.n_clusters is not None:
        counts = (asked.n_clusters,)
    choices = [
        Settings(n_clusters, top_p, beta, strength, surface_weight, learned)
        for learned in ((False, True) if method == "auto" else (method == "learned",))
        for n_clusters in counts
        for top_p, beta in _blends(LEARNED_BLENDS if learned else MEAN_BLENDS, n_clusters, asked)
        for strength in (SHRINKAGES if asked.shrinkage is None else (asked.shrinkage,))
        for surface_weight in (SURFACE_WEIGHTS if asked.surface_weight is None else (asked.surface_weight,))
    ]
    return sorted(set(choices), key=_complexity)


def _size(choice: Settings) -> tuple[bool, int]:
    """Ascends from simple to complex: learned tables before means, then fewer clusters before more."""
    return not choice.learned, choice.n_clusters


def _complexity(choice: Settings) -> tuple[float, ...]:
    return (*_size(choice), choice.top_p, choice.beta, -choice.shrinkage, choice.surface_weight)


def _blends(blends: tuple[tuple[int, float], ...], n_clusters: int, asked: Asked) -> list[tuple[int, float]]:
    choices = {
        (
            min(n_clusters, top_p if asked.top_p is None else asked.top_p),
            beta if asked.beta is None else asked.beta,
        )
        for top_p, beta in blends
    }
    return sorted(choices)


def cross_validate(
    rows_by_weight: Mapping[float, NDArray[np.float32]],
    scores: NDArray[np.float32],
    costs: NDArray[np.float64],
    folds: NDArray[np.intp],
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
    folds
        Fold of each row, below `N_FOLDS`, ``[n]``.
    choices
        Candidates.
    seed
        Of clusterings.
    progress
        Called with steps done and steps in all.
    """
    grid = exchange_grid(observed_means(scores), observed_means(costs))
    outcomes, n_models = np.concatenate([scores, costs], axis=1), scores.shape[1]
    values = {choice: np.full(len(scores), np.nan) for choice in choices}
    by_centroids = _grouped(choices, lambda choice: (choice.surface_weight, choice.n_clusters))
    for fold in range(N_FOLDS):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for step, group in enumerate(by_centroids):
            progress(fold * len(by_centroids) + step, N_FOLDS * len(by_centroids))
            rows = rows_by_weight[group[0].surface_weight]
            clustering = spherical_kmeans(
                rows[inside], n_clusters=group[0].n_clusters, seed=seed, n_restarts=1, tolerance=1e-4,
                allow_fewer=True,
            )  # fmt: skip
            n_clusters = len(clustering.centroids)
            most = min(max(choice.top_p for choice in group), n_clusters)
            ids, similarities = nearest_clusters(rows, clustering.centroids, most)
            for blended in _grouped(group, lambda choice: (choice.top_p, choice.beta)):
                near = np.ascontiguousarray(ids[:, : blended[0].top_p])
                weights = softmax_weights(similarities[:, : blended[0].top_p], blended[0].beta)
                equations: NormalEquations | None = None
                for choice in blended:
                    strengths = np.repeat([choice.shrinkage, choice.cost_shrinkage], n_models)
                    if choice.learned:
                        equations = equations or NormalEquations.of(
                            near[inside], weights[inside], outcomes[inside], n_clusters=n_clusters
                        )
                        table = equations.solve(strengths)
                    else:
                        table, _, _ = cluster_means(
                            clustering.labels, outcomes[inside], n_clusters=n_clusters, shrinkage=strengths
                        )
                    predicted = blend(near[outside], weights[outside], clipped(table, n_models))
                    values[choice][outside] = worth(predicted, scores[outside], costs[outside], grid)
    progress(1, 1)
    return compared(values)


def clipped(table: Table, n_models: int) -> Table:
    """Qualities, the first ``n_models`` columns, within 0..1, and costs, the others, from 0."""
    high = np.where(np.arange(table.shape[1]) < n_models, 1.0, np.inf)
    return np.clip(table, 0.0, high)


def _grouped(choices: list[Settings], key: Callable[[Settings], tuple[float, ...]]) -> list[list[Settings]]:
    """Candidates with the same key, together."""
    return [list(group) for _, group in groupby(sorted(choices, key=key), key=key)]


def select(trials: list[Trial]) -> Settings:
    """The best candidate of the simplest size and method whose best is within one standard error of all."""
    leaders: dict[tuple[bool, int], Trial] = {}
    for trial in trials:
        size = _size(trial.settings)
        if size not in leaders or trial.value > leaders[size].value:
            leaders[size] = trial
    enough = [size for size, trial in leaders.items() if trial.behind <= trial.standard_error]
    return leaders[min(enough)].settings


def exchange_grid(quality: Table, cost: Table) -> Table:
    """Amounts of willingness to pay at which the pool's models change places on average.

    From half the lowest to twice the highest exchange rate on the hull of the models' means
    ``(cost, quality)``, in equal ratios; empty when a cost is unknown or one model is best and cheapest.
    """
    if np.isnan(cost).any() or np.isnan(quality).any():
        return np.zeros(0)
    rates = exchange_rates(quality[None, :], cost[None, :])
    if len(rates) == 0:
        return np.zeros(0)
    return np.geomspace(rates[0] / 2, rates[-1] * 2, GRID_POINTS)


@numba.njit(cache=True)
def worth(
    predicted: Table, scores: NDArray[np.float32], costs: NDArray[np.float64], grid: Table
) -> NDArray[np.float64]:
    """What routing by predictions leaves of an answer's worth, one value a row; NaN where not observed.

    Parameters
    ----------
    predicted
        Quality, then cost, of every model, ``[n, 2 * n_models]``; NaN where unknown.
    scores, costs
        What was observed, ``[n, n_models]``; NaN where not.
    grid
        Amounts of willingness to pay; quality first is measured besides.
    """
    n_models = scores.shape[1]
    values = np.empty(len(scores))
    for row in range(len(scores)):
        total, n_known = 0.0, 0
        for step in range(len(grid) + 1):
            chosen, highest = 0, -np.inf
            for model in range(n_models):
                utility = predicted[row, model]
                if step < len(grid):
                    utility -= predicted[row, n_models + model] / grid[step]
                if utility > highest:
                    chosen, highest = model, utility
            reached = float(scores[row, chosen])
            if step < len(grid):
                reached -= costs[row, chosen] / grid[step]
            if not np.isnan(reached):
                total += reached
                n_known += 1
        values[row] = total / n_known if n_known else np.nan
    return values


def compared(values: dict[Settings, NDArray[np.float64]]) -> list[Trial]:
    """Trials of what each candidate reached on every row, ``[n]``, NaN where unknown."""
    means = {choice: float(observed_means(reached[:, None])[0]) for choice, reached in values.items()}
    best = max(means, key=lambda choice: means[choice])
    trials = []
    for choice, reached in values.items():
        behind = values[best] - reached
        known = behind[~np.isnan(behind)]
        spread = float(known.std() / np.sqrt(len(known))) if len(known) else 0.0
        trials.append(Trial(choice, means[choice], float(known.mean()) if len(known) else 0.0, spread))
    return trials
