r"""Whether a router still sees what it was calibrated on: its log of decisions against its calibration.

The population stability index of shares ``q`` in use and ``p`` in calibration is ``Σ (q - p) ln(q / p)``: by
convention below 0.1 nothing happened, and above 0.25 the population is another one (Siddiqi 2006, *Credit
Risk Scorecards*). It is above zero by chance alone. For bins that a query falls in wholly or not it is,
without any drift, distributed as ``(1/n + 1/m) χ²`` with one degree of freedom less than there are bins, for
``n`` decisions and ``m`` queries of calibration (Yurdakul & Naranjo 2020, *Journal of Risk Model Validation*
14). Queries belong to clusters by weights, which vary less. The same argument then gives, with ``S`` the
covariance of the weights and ``D = diag(p)``, the mean ``(1/n + 1/m) tr(D⁻¹S)`` and the variance
``2 (1/n + 1/m)² tr((D⁻¹S)²)``; a scaled χ² of that mean and variance (Satterthwaite 1946) says what chance
reaches in one case of a hundred. ``S`` is taken from the log. What is judged is the index less its mean by
chance, and only where the index is beyond chance.

Decisions are taken as independent: a client that asks one thing over and over looks like drift, and is.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from centroute.artifact import Artifact
from centroute.errors import DataError
from centroute.logged_decisions import LoggedDecision

Verdict = Literal["stable", "watch", "recalibrate", "too few decisions"]

WATCH_INDEX: Final = 0.1
RECALIBRATE_INDEX: Final = 0.25
WATCH_OUTSIDE: Final = 0.03
RECALIBRATE_OUTSIDE: Final = 0.10
"""Shares out of distribution: calibration puts the threshold where 0.01 of its held-out queries are."""
N_MOVED: Final = 5
"""Clusters that are named."""

_Z_99, _Z_95_TWO_SIDED = 2.326, 1.960
_CHUNK = 4096

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Index:
    """A population stability index and what chance makes of it.

    Attributes
    ----------
    psi
        As measured.
    by_chance
        Its mean without drift.
    by_chance_99
        What it exceeds without drift in one case of a hundred.
    """

    psi: float
    by_chance: float
    by_chance_99: float

    @property
    def excess(self) -> float:
        """What is left of it without chance, 0 or more."""
        return max(0.0, self.psi - self.by_chance)

    def exceeds(self, limit: float) -> bool:
        """Whether there is drift of more than ``limit`` that is not chance."""
        return self.psi > self.by_chance_99 and self.excess > limit


@dataclass(frozen=True, slots=True)
class Moved:
    """A cluster whose share changed."""

    cluster: int
    calibrated: float
    in_use: float


@dataclass(frozen=True, slots=True)
class Drift:
    """What a log says of a router's calibration.

    Attributes
    ----------
    n_decisions
        Decisions of this router in the log.
    n_other_router
        Those of other router files, which are left out.
    clusters
        Use of the clusters.
    similarity
        Similarity to the nearest cluster over tenths of the calibration's; ``None`` where the router file
        does not hold them.
    outside, outside_95
        Share out of distribution and its 95 % interval (Wilson 1927); ``None`` where the router has no
        threshold.
    moved
        Clusters that moved most, the first first.
    verdict
        What to do.
    reasons
        Why, one clause each.
    """

    n_decisions: int
    n_other_router: int
    clusters: Index
    similarity: Index | None
    outside: float | None
    outside_95: tuple[float, float] | None
    moved: tuple[Moved, ...]
    verdict: Verdict
    reasons: tuple[str, ...]


def measure_drift(decisions: Iterable[LoggedDecision], artifact: Artifact, *, sha256: str) -> Drift:
    """Compare a log with the calibration of a router.

    Parameters
    ----------
    decisions
        The log.
    artifact
        The router.
    sha256
        Digest of its file: decisions of other files are left out and counted.

    Raises
    ------
    DataError
        If no decision is the router's, or one names a cluster that it lacks.
    """
    n_clusters = len(artifact.centroids)
    edges = _similarity_edges(artifact)
    used, similar = _Shares(n_clusters), _Shares(10)
    n_other_router = n_outside = 0
    own: list[LoggedDecision] = []
    stream = iter(decisions)
    while chunk := list(islice(stream, _CHUNK)):
        own = [decision for decision in chunk if decision.sha256 == sha256]
        n_other_router += len(chunk) - len(own)
        used.add(assignment(own, n_clusters))
        n_outside += sum(not decision.in_distribution for decision in own)
        if edges is not None:
            bins = np.searchsorted(edges[1:-1], [decision.similarity for decision in own], side="right")
            similar.add(np.eye(10)[bins])
    if used.n == 0:
        raise DataError(
            f"none of its {n_other_router} decisions is of this router file (sha256 {sha256[:16]}…)"
        )
    shares, n_calibration = calibrated_shares(artifact)
    clusters = used.index(shares, n_calibration)
    similarity = None if edges is None else similar.index(np.full(10, 0.1), n_calibration)
    outside = None if artifact.ood_threshold is None else n_outside / used.n
    outside_95 = None if outside is None else wilson_interval(n_outside, used.n)
    verdict, reasons = _verdict(clusters, similarity, outside_95)
    order = np.argsort(-np.abs(used.mean - shares), kind="stable")[:N_MOVED]
    return Drift(
        n_decisions=used.n,
        n_other_router=n_other_router,
        clusters=clusters,
        similarity=similarity,
        outside=outside,
        outside_95=outside_95,
        moved=tuple(Moved(int(c), float(shares[c]), float(used.mean[c])) for c in order),
        verdict=verdict,
        reasons=reasons,
    )


def assignment(decisions: list[LoggedDecision], n_clusters: int) -> _Floats:
    """Weights ``[n, n_clusters]`` with which decisions were blended, each row of sum 1.

    Raises
    ------
    DataError
        If a decision names a cluster beyond ``n_clusters``, or its weights sum to 0; names the line.
    """
    weights = np.zeros((len(decisions), n_clusters))
    for row, decision in zip(weights, decisions, strict=True):
        for cluster, weight in decision.clusters:
            if cluster >= n_clusters:
                raise DataError(
                    f"line {decision.line}, clusters: {cluster} is none of the router's {n_clusters}"
                )
            row[cluster] += weight
        if row.sum() <= 0:
            raise DataError(f"line {decision.line}, clusters: the weights sum to 0")
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def wilson_interval(n_hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share.

    Source: Wilson 1927, *Probable inference, the law of succession, and statistical inference*.

    >>> low, high = wilson_interval(1, 100)
    >>> round(low, 4), round(high, 4)
    (0.0018, 0.0545)
    """
    share, square = n_hits / n, _Z_95_TWO_SIDED**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z_95_TWO_SIDED / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


class _Shares:
    """Mean and covariance of rows of sum 1, taken in chunk by chunk."""

    def __init__(self, n_bins: int) -> None:
        self.n = 0
        self._sum = np.zeros(n_bins)
        self._gram = np.zeros((n_bins, n_bins))

    def add(self, rows: _Floats) -> None:
        self.n += len(rows)
        self._sum += rows.sum(axis=0)
        self._gram += rows.T @ rows

    @property
    def mean(self) -> _Floats:
        return self._sum / self.n

    def index(self, shares: _Floats, n_calibration: int) -> Index:
        """Stability index against ``shares``, which were measured on ``n_calibration`` queries."""
        # One query more, spread as the other side is: no share is zero, and few queries prove little.
        expected = (n_calibration * shares + 1 / len(shares)) / (n_calibration + 1)
        in_use = (self._sum + expected) / (self.n + 1)
        psi = float(((in_use - expected) * np.log(in_use / expected)).sum())
        covariance = self._gram / self.n - np.outer(self.mean, self.mean)
        scaled = covariance / expected[:, None]
        noise = 1 / self.n + 1 / max(1, n_calibration)
        mean = noise * float(np.trace(scaled))
        variance = 2 * noise**2 * float((scaled * scaled.T).sum())
        return Index(psi, mean, _scaled_chi_square_99(mean, variance))


def _scaled_chi_square_99(mean: float, variance: float) -> float:
    """99 % quantile of a scaled χ² with this mean and variance, by Wilson & Hilferty's cube (1931)."""
    if mean <= 0 or variance <= 0:
        return mean
    spread = variance / (9 * mean * mean)
    return mean * max(0.0, 1 - spread + _Z_99 * math.sqrt(spread)) ** 3


def calibrated_shares(artifact: Artifact) -> tuple[_Floats, int]:
    """Shares of the clusters in calibration, and the number of queries that they were measured on."""
    stored = artifact.report.get("cluster_shares")
    if isinstance(stored, list) and len(stored) == len(artifact.centroids):
        shares = np.array(stored, dtype=np.float64)
        if np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0:
            return shares / shares.sum(), _n_held_out(artifact)
    # What a file of an older version has: outcomes behind each cluster.
    count = artifact.count.mean(axis=1, dtype=np.float64)
    n_queries = artifact.report.get("n_queries")
    n = n_queries if isinstance(n_queries, int) else round(float(count.sum()))
    total = float(count.sum())
    return (count / total if total > 0 else np.full(len(count), 1 / len(count))), max(1, n)


def _similarity_edges(artifact: Artifact) -> _Floats | None:
    """Tenths of the similarity on the held-out queries, from the least to the most, ``[11]``."""
    stored = artifact.report.get("similarity_quantiles")
    if not isinstance(stored, list) or len(stored) != 11:
        return None
    edges = np.array(stored, dtype=np.float64)
    return edges if np.isfinite(edges).all() and (np.diff(edges) >= 0).all() else None


def _n_held_out(artifact: Artifact) -> int:
    for key in ("n_holdout", "n_calibration", "n_queries"):
        n = artifact.report.get(key)
        if isinstance(n, int) and n > 0:
            return n
    return 1


def _verdict(
    clusters: Index, similarity: Index | None, outside_95: tuple[float, float] | None
) -> tuple[Verdict, tuple[str, ...]]:
    """What to do and why."""
    indices = [("use of the clusters", clusters)]
    if similarity is not None:
        indices.append(("similarity", similarity))
    for verdict, index_limit, outside_limit in (
        ("recalibrate", RECALIBRATE_INDEX, RECALIBRATE_OUTSIDE),
        ("watch", WATCH_INDEX, WATCH_OUTSIDE),
    ):
        reasons = [
            f"{name} moved by {index.excess:.2f}, more than {index_limit:g}"
            for name, index in indices
            if index.exceeds(index_limit)
        ]
        if outside_95 is not None and outside_95[0] > outside_limit:
            reasons.append(f"more than {100 * outside_limit:g} % are out of distribution")
        if reasons:
            return verdict, tuple(reasons)  # type: ignore[return-value]
    if clusters.by_chance_99 > RECALIBRATE_INDEX:
        return "too few decisions", (f"chance alone reaches {clusters.by_chance_99:.2f}",)
    return "stable", ()
