"""What a report shows beside the figures: clusters with their queries, predicted against measured quality."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.datasets import Outcomes
from centroute.evaluate.baselines import best_first
from centroute.evaluate.choice import Values, mean, pick
from centroute.evaluate.evaluation import by_pool
from centroute.evaluate.resampling import Interval, mean_interval
from centroute.router import Router

N_EXEMPLARS = 3
"""Queries shown of a cluster."""

FEW_OUTCOMES = 10
"""A cell of fewer outcomes is doubtful."""

N_BINS = 10
"""Bins of predicted quality."""


@dataclass(frozen=True, slots=True)
class ClusterDetail:
    """One cluster: what lies in it, what its tables say, and how sure that is.

    Attributes
    ----------
    cluster_id
        Row of the centroid.
    n_queries
        Evaluated queries that are nearest to it.
    exemplars
        The nearest of these, nearest first, no text twice.
    accuracy
        Of the router on these queries.
    best_model, best_quality
        The model that the tables put first in this cluster (ties to the lower cost), and its quality.
    runner_up, lead
        The second and by how much it is behind; ``None`` in a pool of one.
    lead_is_noise
        Whether the lead is below 1.96 standard errors of the difference. The errors are those of the artifact
        where it holds them, else those of means of 0/1 scores over as many outcomes as the cells hold;
        ``None`` where a cell holds none.
    n_outcomes
        Outcomes behind the best model's cell.
    doubtful
        Models whose cell holds fewer than `FEW_OUTCOMES` outcomes, and how many it holds.
    """

    cluster_id: int
    n_queries: int
    exemplars: tuple[str, ...]
    accuracy: float | None
    best_model: str
    best_quality: float
    runner_up: str | None
    lead: float | None
    lead_is_noise: bool | None
    n_outcomes: int
    doubtful: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Pairs of query and model of similar predicted quality: its mean, the mean score and its interval."""

    predicted: float
    measured: float
    interval_95: Interval
    n: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted against measured quality.

    ``error`` is the expected calibration error, the mean of ``|predicted - measured|`` over the bins, weighed
    by their size (Naeini et al. 2015); ``None`` without any observed pair.
    """

    bins: tuple[CalibrationBin, ...]
    error: float | None


@dataclass(frozen=True, slots=True)
class Details:
    """Clusters, the most visited first, and the reliability over chosen models and over all pairs."""

    clusters: tuple[ClusterDetail, ...]
    chosen: Reliability
    all_pairs: Reliability
    n_out_of_distribution: int


def details(
    router: Router,
    outcomes: Outcomes,
    *,
    policy: Policy | None = None,
    embeddings: NDArray[np.float32] | None = None,
) -> Details:
    """Look into a router on outcomes; parameters and errors as of :func:`centroute.evaluate.evaluate`."""
    if embeddings is None:
        embeddings = router.embed(outcomes.queries, allow_zero_rows=True)
    kept = np.flatnonzero(embeddings.any(axis=1))
    rows = np.ascontiguousarray(embeddings[kept], dtype=np.float32)
    scores = by_pool(outcomes.scores, outcomes, router)[kept]
    batch = router.route_embeddings(rows, policy=policy)
    quality, _ = router.predict(rows)
    chosen_scores = pick(scores, batch.model_ids)
    return Details(
        clusters=_clusters(
            router,
            [outcomes.queries[row] for row in kept],
            nearest=batch.cluster_ids[:, 0],
            similarity=batch.similarity,
            scores=chosen_scores,
        ),
        chosen=reliability(pick(quality, batch.model_ids), chosen_scores),
        all_pairs=reliability(quality.ravel(), scores.ravel()),
        n_out_of_distribution=int((~batch.in_distribution).sum()),
    )


def reliability(predicted: Values, measured: Values) -> Reliability:
    """Compare predictions with scores ``[n]``, NaN where not observed, in bins of equal width over 0..1."""
    known = ~np.isnan(measured)
    predicted, measured = predicted[known].astype(np.float64), measured[known].astype(np.float64)
    places = np.minimum((predicted * N_BINS).astype(np.intp), N_BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        interval = mean_interval(measured[inside]) or (0.0, 1.0)
        bins.append(
            CalibrationBin(
                float(predicted[inside].mean()), float(measured[inside].mean()), interval, int(inside.sum())
            )
        )
    total = sum(found.n for found in bins)
    error = math.fsum(found.n * abs(found.predicted - found.measured) for found in bins) / max(total, 1)
    return Reliability(tuple(bins), error if total else None)


def _clusters(
    router: Router,
    queries: list[str],
    *,
    nearest: NDArray[np.int32],
    similarity: NDArray[np.float32],
    scores: Values,
) -> tuple[ClusterDetail, ...]:
    artifact = router.artifact
    found = []
    for cluster in range(router.n_clusters):
        members = np.flatnonzero(nearest == cluster)
        members = members[np.argsort(-similarity[members], kind="stable")]
        # A text that repeats is shown once.
        texts = dict.fromkeys(" ".join(queries[row].split()) for row in members)
        quality, count = artifact.quality[cluster], artifact.count[cluster]
        error = None if artifact.quality_se is None else artifact.quality_se[cluster]
        if error is None:
            error = np.sqrt(quality * (1 - quality) / np.where(count > 0, count, np.nan))
        order = best_first(quality, artifact.cost[cluster])
        best, second = int(order[0]), int(order[1]) if len(order) > 1 else None
        lead = None if second is None else float(quality[best] - quality[second])
        found.append(
            ClusterDetail(
                cluster_id=cluster,
                n_queries=len(members),
                exemplars=tuple(texts)[:N_EXEMPLARS],
                accuracy=mean(scores[members]),
                best_model=router.models[best],
                best_quality=float(quality[best]),
                runner_up=None if second is None else router.models[second],
                lead=lead,
                lead_is_noise=None
                if second is None or lead is None
                else _is_noise(lead, error[best], error[second]),
                n_outcomes=int(count[best]),
                doubtful=tuple(
                    (name, int(outcomes))
                    for name, outcomes in zip(router.models, count, strict=True)
                    if outcomes < FEW_OUTCOMES
                ),
            )
        )
    return tuple(sorted(found, key=lambda cluster: (-cluster.n_queries, cluster.cluster_id)))


def _is_noise(lead: float, error: np.floating, error_of_second: np.floating) -> bool | None:
    within = 1.96 * math.hypot(error, error_of_second)
    return None if math.isnan(within) else lead < within
