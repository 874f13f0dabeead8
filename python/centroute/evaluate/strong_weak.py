"""Strong or weak: what shares of calls to the better of two models reach, promised and measured.

:func:`promised` reads off the router file what calibration measured by cross-fitting; :func:`measured` routes
outcomes by the same thresholds. Figures are those of RouteLLM (arXiv 2406.18665): *PGR* is the part of the
gap between the weak and the strong model that is recovered, *APGR* its mean over the share of strong calls
(0.5 by chance), *CPT(x)* the least share that recovers x.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.artifact import Artifact
from centroute.calibrate.pairs import curve_point
from centroute.datasets import Outcomes
from centroute.errors import DataError, PolicyError
from centroute.evaluate.baselines import best_single_id, cheapest_id
from centroute.evaluate.evaluation import by_pool
from centroute.router import Router

_Z_95 = 1.96


@dataclass(frozen=True, slots=True)
class SharePoint:
    """One threshold: the share above it, and what is reached there; the cost is None where it is unknown."""

    strong_share: float
    threshold: float
    accuracy: float
    accuracy_se: float
    mean_cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; None where the curve does not get there."""

    value: float | None
    interval_95: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class StrongWeak:
    """A pair's curve and figures.

    Attributes
    ----------
    n_queries
        Queries measured on; None for what the router file promises.
    apgr, cpt_50, cpt_80
        None where the strong model is not better. The interval of APGR takes the errors along the curve as
        one, which makes it wide rather than narrow.
    """

    strong: str
    weak: str
    points: tuple[SharePoint, ...]
    apgr: Estimate | None
    cpt_50: Estimate | None
    cpt_80: Estimate | None
    n_queries: int | None = None

    def to_json(self) -> Mapping[str, object]:
        """Keys as ``docs/design.md`` names them."""
        return asdict(self)


def default_pair(artifact: Artifact) -> tuple[str, str]:
    """The best single model of the calibration and the cheapest one.

    Raises
    ------
    PolicyError
        If no cost is known, or one model is both.
    """
    strong = best_single_id(artifact.prior_quality, artifact.prior_cost)
    weak = cheapest_id(artifact.prior_quality, artifact.prior_cost)
    if weak is None or weak == strong:
        why = "no cost is known" if weak is None else f"{artifact.models[weak].name} is both"
        raise PolicyError(f"no best and cheapest model to weigh ({why}); name a strong and a weak one")
    return artifact.models[strong].name, artifact.models[weak].name


def promised(router: Router, strong: str, weak: str) -> StrongWeak:
    """What calibration measured of a pair.

    Raises
    ------
    PolicyError
        If the pool lacks a model, nothing is to be weighed between the two, or the file has no thresholds.
    """
    points = _stored(router, strong, weak)
    return _figures(strong, weak, points, n_queries=None)


def measured(
    router: Router,
    outcomes: Outcomes,
    strong: str,
    weak: str,
    *,
    embeddings: NDArray[np.float32] | None = None,
) -> StrongWeak:
    """Route outcomes by the stored thresholds of a pair.

    Parameters
    ----------
    router, strong, weak
        As of :func:`promised`.
    outcomes
        Scores and costs of both models; queries that lack a score of either are left out.
    embeddings
        Rows ``[n_queries, dim]``, as `Router.embed` gives them, when they are at hand already.

    Raises
    ------
    PolicyError
        As :func:`promised`.
    DataError
        If no query has scores of both.
    """
    thresholds = _stored(router, strong, weak)[:, 0]
    columns = [router.models.index(strong), router.models.index(weak)]
    scores = by_pool(outcomes.scores, outcomes, router)[:, columns].astype(np.float64)
    costs = by_pool(outcomes.costs, outcomes, router)[:, columns]
    rows = router.embed(outcomes.queries, allow_zero_rows=True) if embeddings is None else embeddings
    left = ~np.isnan(scores).any(axis=1) & rows.any(axis=1)
    if not left.any():
        raise DataError(f"no query has scores of both {strong} and {weak}")
    quality, _ = router.predict(np.ascontiguousarray(rows[left]))
    lead = quality[:, columns[0]] - quality[:, columns[1]]
    points = [
        (threshold, (lead > threshold).mean(), *curve_point(lead > threshold, scores[left], costs[left]))
        for threshold in thresholds
    ]
    return _figures(strong, weak, np.array(points), n_queries=int(left.sum()))


def _stored(router: Router, strong: str, weak: str) -> NDArray[np.float32]:
    artifact = router.artifact
    # The kernel says what is wrong with a pair.
    router.route_embedding(artifact.centroids[0], policy=Policy(strong=strong, weak=weak, strong_share=0.5))
    pairs = [set(pair) for pair in combinations(router.models, 2)]
    curve: NDArray[np.float32] = np.asarray(artifact.pairs)[pairs.index({strong, weak})]
    return curve


def _figures(strong: str, weak: str, points: NDArray[np.floating], *, n_queries: int | None) -> StrongWeak:
    threshold, share, accuracy, error, recovered_error, cost = points.astype(np.float64).T
    shown = tuple(
        SharePoint(float(s), float(t), float(a), float(e), None if np.isnan(c) else float(c))
        for s, t, a, e, c in zip(share, threshold, accuracy, error, cost, strict=True)
    )
    if np.isnan(recovered_error).any():
        return StrongWeak(strong, weak, shown, None, None, None, n_queries)
    recovered = (accuracy - accuracy[0]) / (accuracy[-1] - accuracy[0])
    width = share[-1] - share[0]
    apgr = float(np.trapezoid(recovered, share) / width)
    apgr_error = float(np.trapezoid(recovered_error, share) / width)
    low, high = recovered - _Z_95 * recovered_error, recovered + _Z_95 * recovered_error

    def least_share(wanted: float) -> Estimate:
        return Estimate(
            _first(share, recovered, wanted), (_first(share, high, wanted), _first(share, low, wanted))
        )

    interval = (apgr - _Z_95 * apgr_error, apgr + _Z_95 * apgr_error)
    return StrongWeak(
        strong, weak, shown, Estimate(apgr, interval), least_share(0.5), least_share(0.8), n_queries
    )


def _first(share: NDArray[np.float64], height: NDArray[np.float64], wanted: float) -> float | None:
    """Where a curve first reaches a height, between points linearly."""
    there = np.flatnonzero(height >= wanted)
    if len(there) == 0:
        return None
    place = int(there[0])
    if place == 0:
        return float(share[0])
    return float(np.interp(wanted, height[place - 1 : place + 1], share[place - 1 : place + 1]))
