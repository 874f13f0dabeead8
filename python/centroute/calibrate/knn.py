"""Nearest neighbours: every calibration query is a centroid, and its outcomes are its row of the tables.

Queries whose embeddings are equal share one. A cell is drawn towards the model's mean by ``shrinkage``
pseudo-outcomes, as the means of clusters are; a model that was not observed on a query has its mean there.
``top_p`` neighbours are blended by the same softmax as clusters. Settings are chosen by cross-validation as
those of clusters are (:mod:`centroute.calibrate.selection`).
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from centroute.artifact import Artifact
from centroute.calibrate.assignment import blend, nearest_clusters, softmax_weights
from centroute.calibrate.fitting import Part, nearest_others
from centroute.calibrate.selection import N_FOLDS, SURFACE_WEIGHTS, Trial, compared, exchange_grid, worth
from centroute.calibrate.settings import Asked, Settings
from centroute.calibrate.tables import distinct_rows, mean_tables
from centroute.datasets.observed import observed_means

TOP_PS = (8, 16, 32, 64)
BETAS = (9.0, 20.0, 40.0)
SHRINKAGES = (0.0, 1.0, 3.0)


def candidates(n_distinct: int, asked: Asked) -> list[Settings]:
    """All settings that the caller left open, fewest neighbours first."""
    top_ps = {min(n_distinct, top_p) for top_p in (TOP_PS if asked.top_p is None else (asked.top_p,))}
    betas = BETAS if asked.beta is None else (asked.beta,)
    shrinkages = SHRINKAGES if asked.shrinkage is None else (asked.shrinkage,)
    weights = SURFACE_WEIGHTS if asked.surface_weight is None else (asked.surface_weight,)
    return [
        Settings(n_distinct, top_p, beta, shrinkage, weight, knn=True)
        for top_p, beta, shrinkage, weight in product(sorted(top_ps), betas, shrinkages, weights)
    ]


def cross_validate(
    part: Part, choices: list[Settings], *, seed: int, progress: Callable[[int, int], None]
) -> list[Trial]:
    """Measure every candidate on held-out folds; ``progress`` is told the folds done and all of them."""
    scores, costs = part.outcomes.scores, part.outcomes.costs
    grid = exchange_grid(observed_means(scores), observed_means(costs))
    folds = part.folds(N_FOLDS, seed=seed)
    values = {choice: np.full(len(scores), np.nan) for choice in choices}
    for fold in range(N_FOLDS):
        progress(fold, N_FOLDS)
        inside, outside = folds != fold, folds == fold
        for choice, predicted in _predictions(part, inside, outside, choices):
            values[choice][outside] = worth(predicted, scores[outside], costs[outside], grid)
    progress(N_FOLDS, N_FOLDS)
    return compared(values)


def select(trials: list[Trial]) -> Settings:
    """The best candidate: none makes an artifact larger than another."""
    return max(trials, key=lambda trial: trial.value).settings


def predict_by_others(
    rows: NDArray[np.float32], artifact: Artifact, settings: Settings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quality and cost ``[n, n_models]`` of the rows that were fitted, each without its own outcomes."""
    ids, similarities = nearest_others(rows, artifact.centroids, settings.top_p)
    weights = softmax_weights(similarities, settings.beta)
    return (
        blend(ids, weights, artifact.quality.astype(np.float64)),
        blend(ids, weights, artifact.cost.astype(np.float64)),
    )


def _predictions(
    part: Part, inside: NDArray[np.bool_], outside: NDArray[np.bool_], choices: list[Settings]
) -> Iterator[tuple[Settings, NDArray[np.float64]]]:
    """What each candidate predicts for the rows outside by those inside: quality, then cost."""
    rest = part.subset(inside)
    for weight in sorted({choice.surface_weight for choice in choices}):
        rows = part.routed(part.surface(weight))
        centroids, labels = distinct_rows(rows[inside])
        own = [choice for choice in choices if choice.surface_weight == weight]
        most = min(max(choice.top_p for choice in own), len(centroids))
        ids, similarities = nearest_clusters(rows[outside], centroids, most)
        for shrinkage in sorted({choice.shrinkage for choice in own}):
            alike = [choice for choice in own if choice.shrinkage == shrinkage]
            tables = mean_tables(
                labels, rest.outcomes.scores, rest.outcomes.costs, n_clusters=len(centroids),
                shrinkage=shrinkage, cost_shrinkage=alike[0].cost_shrinkage,
            )  # fmt: skip
            both = np.concatenate([tables.quality, tables.cost], axis=1)
            for choice in alike:
                near = np.ascontiguousarray(ids[:, : choice.top_p])
                weights = softmax_weights(similarities[:, : choice.top_p], choice.beta)
                yield choice, blend(near, weights, both)
