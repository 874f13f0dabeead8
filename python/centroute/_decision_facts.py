"""`DecisionFacts`: what ensembles, plans and kept decisions say as the decision for one model behind them."""

from __future__ import annotations

from centroute._kernel import Decision


class DecisionFacts:
    """What holds for the query and the router, whoever is chosen; told by ``best``."""

    __slots__ = ()

    best: Decision

    @property
    def similarity(self) -> float:
        """Cosine similarity of the nearest cluster."""
        return self.best.similarity

    @property
    def in_distribution(self) -> bool:
        """Whether the query resembles the calibration data."""
        return self.best.in_distribution

    @property
    def clusters(self) -> tuple[tuple[int, float], ...]:
        """Pairs of cluster id and weight, nearest first."""
        return self.best.clusters

    @property
    def generation(self) -> int:
        """Which loading of the router decided."""
        return self.best.generation

    @property
    def sha256(self) -> str:
        """SHA-256 of the router file that decided."""
        return self.best.sha256
