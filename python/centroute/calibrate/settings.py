"""What a calibration is told, and what it is left to choose."""

from dataclasses import dataclass

METHODS = ("auto", "learned", "means", "avengers-pro")
"""Methods that ``calibrate`` knows."""

AVENGERS_PRO_CLUSTERS = 60
AVENGERS_PRO_TOP_P = 4
AVENGERS_PRO_BETA = 9.0


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
    n_coarse
        Clusters of a second, coarser k-means whose centroids stand behind the first's, 0 for none.
    learned
        Whether the tables are fitted to the blend by least squares (:mod:`centroute.calibrate.ridge`);
        means of the nearest rows otherwise.
    """

    n_clusters: int
    top_p: int
    beta: float
    shrinkage: float
    surface_weight: float = 0.0
    n_coarse: int = 0
    learned: bool = False

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Clusters of each k-means, the finer first."""
        return (self.n_clusters, self.n_coarse) if self.n_coarse else (self.n_clusters,)

    @property
    def n_centroids(self) -> int:
        """Rows of the artifact's tables."""
        return sum(self.resolutions)


@dataclass(frozen=True, slots=True)
class Asked:
    """Settings that the caller fixed; ``None`` is left to be chosen. The fields are those of `Settings`."""

    n_clusters: int | None = None
    top_p: int | None = None
    beta: float | None = None
    shrinkage: float | None = None
    surface_weight: float | None = None
