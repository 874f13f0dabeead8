"""Fitting: outcomes with their embeddings and settings in, an artifact's centroids and tables out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.artifact import Artifact, EmbedderId, PoolModel
from centroute.calibrate.assignment import nearest_clusters, softmax_weights
from centroute.calibrate.kmeans import spherical_kmeans
from centroute.calibrate.ridge import learned_tables
from centroute.calibrate.settings import Settings
from centroute.calibrate.tables import ScoreTables, distinct_rows, mean_tables
from centroute.calibrate.uncertainty import quality_errors
from centroute.datasets import Outcomes, text_key
from centroute.embedders import Embedder
from centroute.errors import DataError
from centroute.surface import SurfaceFeatures, routed_identity


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows of the outcomes with what calibration needs of them; all arrays have one row a query."""

    embeddings: NDArray[np.float32]
    features: NDArray[np.float32]
    outcomes: Outcomes

    def subset(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Part":
        """Keep some rows: their indices or a mask."""
        return Part(
            np.ascontiguousarray(self.embeddings[rows]), self.features[rows], self.outcomes.subset(rows)
        )

    def surface(self, weight: float) -> SurfaceFeatures | None:
        """Surface features with the statistics of these rows."""
        return SurfaceFeatures.fit(self.features, weight) if weight else None

    def routed(self, surface: SurfaceFeatures | None) -> NDArray[np.float32]:
        """Rows to route ``[n, width]``."""
        return self.embeddings if surface is None else surface.append(self.embeddings, self.features)

    def folds(self, n_folds: int, *, seed: int) -> NDArray[np.intp]:
        """Fold of each row, ``[n]``; equal texts stay in one fold."""
        numbers: dict[str, int] = {}
        ids = np.array([numbers.setdefault(text_key(text), len(numbers)) for text in self.outcomes.queries])
        return np.asarray((np.random.default_rng(seed).permutation(len(numbers)) % n_folds)[ids])


def fit(part: Part, settings: Settings, *, seed: int, embedder: Embedder) -> Artifact:
    """Fit an artifact without frontier, threshold, policy, method and report.

    Raises
    ------
    DataError
        If a model has no outcome among the rows.
    """
    surface = part.surface(settings.surface_weight)
    rows = part.routed(surface)
    centroids, tables = fit_tables(rows, part.outcomes, settings, seed=seed)
    unscored = np.isnan(tables.prior_quality)
    if unscored.any():
        name = part.outcomes.models[int(np.argmax(unscored))]
        raise DataError(
            f"model {name!r} has no outcome in the calibration part; add outcomes or take another seed"
        )
    dim, fingerprint = routed_identity(embedder, surface)
    single = {
        name: getattr(tables, name).astype(np.float32)
        for name in ("quality", "cost", "count", "prior_quality", "prior_cost")
    }
    find = nearest_others if settings.knn else nearest_clusters
    ids, similarities = find(rows, centroids, settings.top_p)
    errors = quality_errors(
        ids,
        softmax_weights(similarities, settings.beta),
        part.outcomes.scores,
        tables.quality,
        shrinkage=settings.shrinkage,
    )
    return Artifact(
        models=tuple(PoolModel(name) for name in part.outcomes.models),
        embedder=EmbedderId(embedder.name, dim, fingerprint, surface),
        centroids=centroids,
        frontier=np.zeros((0, 3), dtype=np.float32),
        top_p=settings.top_p,
        beta=settings.beta,
        method={},
        quality_se=errors.astype(np.float32),
        **single,
    )


def nearest_others(
    rows: NDArray[np.float32], centroids: NDArray[np.float32], top_p: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids and similarities of the nearest centroids of each row but its own, which is the nearest of all."""
    if len(centroids) == 1:
        return nearest_clusters(rows, centroids, 1)
    ids, similarities = nearest_clusters(rows, centroids, min(top_p + 1, len(centroids)))
    return np.ascontiguousarray(ids[:, 1:]), np.ascontiguousarray(similarities[:, 1:])


def fit_tables(
    rows: NDArray[np.float32],
    outcomes: Outcomes,
    settings: Settings,
    *,
    seed: int,
    n_restarts: int = 4,
    allow_fewer: bool = False,
) -> tuple[NDArray[np.float32], ScoreTables]:
    """Centroids, unit rows ``[n_clusters, width]``, and their tables.

    ``n_restarts`` and ``allow_fewer`` are those of `spherical_kmeans`.
    """
    observed = (outcomes.scores, outcomes.costs)
    if settings.knn:
        centroids, labels = distinct_rows(rows)
        return centroids, mean_tables(
            labels, *observed, n_clusters=len(centroids),
            shrinkage=settings.shrinkage, cost_shrinkage=settings.cost_shrinkage,
        )  # fmt: skip
    clustering = spherical_kmeans(
        rows, n_clusters=settings.n_clusters, seed=seed, n_restarts=n_restarts, allow_fewer=allow_fewer
    )
    centroids = clustering.centroids
    if settings.learned:
        ids, similarities = nearest_clusters(rows, centroids, min(settings.top_p, len(centroids)))
        weights = softmax_weights(similarities, settings.beta)
        return centroids, learned_tables(
            ids, weights, *observed, n_clusters=len(centroids),
            shrinkage=settings.shrinkage, cost_shrinkage=settings.cost_shrinkage,
        )  # fmt: skip
    return centroids, mean_tables(
        clustering.labels, *observed, n_clusters=len(centroids),
        shrinkage=settings.shrinkage, cost_shrinkage=settings.cost_shrinkage,
    )  # fmt: skip
