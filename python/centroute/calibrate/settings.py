"""What a calibration is told, and what it is left to choose."""

from collections.abc import Mapping
from dataclasses import dataclass

from centroute.artifact import AlphaScore

AVENGERS_PRO: Mapping[str, AlphaScore] = {
    "avengers-pro": "cost-by-maximum",
    "avengers-pro-min-max": "min-max",
    "avengers-pro-rank": "reciprocal-rank",
}
"""Avengers-Pro and its variants: what each scores the models of a cluster by."""

METHODS = ("auto", "learned", "means", *AVENGERS_PRO, "knn")
"""Methods that ``calibrate`` knows."""

AVENGERS_PRO_CLUSTERS = 60
AVENGERS_PRO_TOP_P = 4
AVENGERS_PRO_BETA = 9.0

MAX_COST_SHRINKAGE = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Numbers that fix a fit.

    Attributes
    ----------
    n_clusters
        Clusters of the k-means.
    top_p
        Clusters blended for a query.
    beta
        Sharpness of the softmax over similarities.
    shrinkage
        Pseudo-outcomes that draw each cell towards the model's mean.
    surface_weight
        Weight of the surface features behind the embeddings, 0 for none; see :mod:`centroute.surface`.
    learned
        Whether the tables are fitted to the blend by least squares (:mod:`centroute.calibrate.ridge`);
        means of the nearest rows otherwise.
    knn
        Whether every query is a centroid of its own (:mod:`centroute.calibrate.knn`).
    """

    n_clusters: int
    top_p: int
    beta: float
    shrinkage: float
    surface_weight: float = 0.0
    learned: bool = False
    knn: bool = False

    @property
    def cost_shrinkage(self) -> float:
        """Pseudo-outcomes that draw each cell's cost: costs are measured, where a score is a coin's toss."""
        return min(self.shrinkage, MAX_COST_SHRINKAGE)


@dataclass(frozen=True, slots=True)
class Asked:
    """Settings that the caller fixed; ``None`` is left to be chosen. The fields are those of `Settings`."""

    n_clusters: int | None = None
    top_p: int | None = None
    beta: float | None = None
    shrinkage: float | None = None
    surface_weight: float | None = None
