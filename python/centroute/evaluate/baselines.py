"""Other ways to choose a model: outcomes ``[n, n_models]`` in, a model id for each query (or its scores) out.

Scores and costs are by query and model of the pool, NaN where not observed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.artifact import Artifact, EmbedderId, PoolModel
from centroute.datasets.observed import observed_means
from centroute.evaluate.choice import Choice, Values
from centroute.router import Router

KNN_NEIGHBORS = 50
"""Neighbours that are asked, as RouterBench's public code."""

_ROWS_PER_BLOCK = 1024


def best_single_id(prior_quality: Values, prior_cost: Values) -> int:
    """Model of the highest mean quality; ties go to the lower cost (unknown last), then the lower id."""
    return int(best_first(prior_quality, prior_cost)[0])


def best_first(quality: Values, cost: Values) -> NDArray[np.intp]:
    """Model ids by falling quality, then rising cost (unknown last), then id; ``[n_models]``."""
    return np.lexsort((np.arange(len(cost)), _unknown_dear(cost), -_unknown_bad(quality)))


def cheapest_id(prior_quality: Values, prior_cost: Values) -> int | None:
    """Model of the lowest mean cost, ties to the better; ``None`` where no cost is known."""
    if np.isnan(prior_cost).all():
        return None
    return int(np.lexsort((-_unknown_bad(prior_quality), _unknown_dear(prior_cost)))[0])


def oracle(scores: Values, costs: Values) -> tuple[Values, Values]:
    """Best observed score of each query, and the lowest known cost that has it; two arrays ``[n]``."""
    best = _unknown_bad(scores).max(axis=1)
    best = np.where(np.isinf(best), np.nan, best)
    cost = np.where(scores == best[:, None], _unknown_dear(costs), np.inf).min(axis=1)
    return best, np.where(np.isinf(cost), np.nan, cost)


def best_per_dataset(
    datasets: tuple[str, ...],
    seen: tuple[tuple[str, ...], Values, Values],
    *,
    otherwise: int,
) -> Choice:
    """Model that was best on the outcomes of the query's dataset.

    Parameters
    ----------
    datasets
        Dataset of each query to choose for, ``n`` of them.
    seen
        Datasets, scores and costs of the outcomes to choose by.
    otherwise
        Model for a dataset that these outcomes lack.
    """
    names, scores, costs = np.array(seen[0], dtype=object), seen[1], seen[2]
    best = {}
    for name in set(datasets):
        rows = names == name
        quality = observed_means(scores[rows])
        unseen = np.isnan(quality).all()
        best[name] = otherwise if unseen else best_single_id(quality, observed_means(costs[rows]))
    return np.array([best[name] for name in datasets], dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class NearestNeighbors:
    """kNN router of RouterBench (arXiv 2403.12031): means over the nearest calibration queries by cosine.

    It chooses the model of the highest ``willingness to pay · mean score - mean cost``. Costs are those
    observed on the neighbours, where RouterBench takes the models' list prices.

    Attributes
    ----------
    rows
        Embeddings of the calibration queries, float32 ``[n_seen, dim]``.
    scores, costs
        ``[n_seen, n_models]``.
    """

    rows: NDArray[np.float32]
    scores: Values
    costs: Values

    def predict(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean score and cost of each model among the neighbours, two arrays ``[n, n_models]``.

        A model without any known neighbour has its mean over all calibration queries, NaN where it has none.
        """
        n_neighbors = min(KNN_NEIGHBORS, len(self.rows))
        seen = _unit(self.rows)
        quality, cost = (
            np.empty((len(rows), self.scores.shape[1])),
            np.empty((len(rows), self.costs.shape[1])),
        )
        for start in range(0, len(rows), _ROWS_PER_BLOCK):
            block = slice(start, start + _ROWS_PER_BLOCK)
            similarity = _unit(rows[block]) @ seen.T
            nearest = np.argpartition(-similarity, n_neighbors - 1, axis=1)[:, :n_neighbors]
            quality[block] = _mean_over_neighbors(self.scores, nearest)
            cost[block] = _mean_over_neighbors(self.costs, nearest)
        return quality, cost


def choose(quality: Values, cost: Values, willingness_to_pay: float | None) -> Choice:
    """Highest ``willingness to pay · quality - cost`` of each row, quality first where that is ``None``.

    Ties go to the lower cost, then the lower id. Models of unknown quality are not chosen, nor are those of
    unknown cost for a willingness to pay.
    """
    utility = quality if willingness_to_pay is None else willingness_to_pay * quality - cost
    utility = _unknown_bad(utility)
    best = utility.max(axis=1, keepdims=True)
    tied = utility >= best - 1e-12 * np.maximum(1.0, np.abs(best))
    # Among equals the cheapest, and an unknown cost behind every known one.
    price = np.where(tied, np.minimum(_unknown_dear(cost), 1e300), np.inf)
    return np.asarray(price.argmin(axis=1), dtype=np.int32)


def avengers_pro(
    rows: NDArray[np.float32], scores: Values, costs: Values, *, seed: int = 0
) -> tuple[Router, NDArray[np.intp]]:
    """Fit Avengers-Pro (arXiv 2508.12631) as published: plain means of 60 clusters, top-p 4, beta 9.

    Parameters
    ----------
    rows
        Embeddings ``[n_seen, dim]`` of the calibration queries, none zero.
    scores, costs
        ``[n_seen, n_models]``; a model without any score is left out of the pool.
    seed
        Seed of the k-means.

    Returns
    -------
    router, model_ids
        Routed by ``Policy(alpha=…)``, and the pool id of each of its models.
    """
    from centroute.calibrate.kmeans import spherical_kmeans
    from centroute.calibrate.settings import AVENGERS_PRO_BETA, AVENGERS_PRO_CLUSTERS, AVENGERS_PRO_TOP_P

    model_ids = np.flatnonzero(~np.isnan(scores).all(axis=0))
    scores, costs = scores[:, model_ids], costs[:, model_ids]
    clustering = spherical_kmeans(_unit(rows), n_clusters=AVENGERS_PRO_CLUSTERS, seed=seed, allow_fewer=True)
    n_clusters = len(clustering.centroids)
    of_cluster = [clustering.labels == cluster for cluster in range(n_clusters)]

    def means(values: Values) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        prior = observed_means(values)
        table = np.array([observed_means(values[members]) for members in of_cluster])
        return np.where(np.isnan(table), prior, table).astype(np.float32), prior.astype(np.float32)

    quality, prior_quality = means(scores)
    cost, prior_cost = means(costs)
    artifact = Artifact(
        models=tuple(PoolModel(f"model {model}") for model in model_ids),
        embedder=EmbedderId("calibration rows", rows.shape[1], None),
        centroids=clustering.centroids,
        quality=np.clip(quality, 0, 1),
        cost=cost,
        count=np.array([(~np.isnan(scores[members])).sum(axis=0) for members in of_cluster], np.float32),
        prior_quality=np.clip(prior_quality, 0, 1),
        prior_cost=prior_cost,
        frontier=np.zeros((0, 3), dtype=np.float32),
        top_p=min(AVENGERS_PRO_TOP_P, n_clusters),
        beta=AVENGERS_PRO_BETA,
        method={"name": "avengers-pro"},
    )
    return Router.from_artifact(artifact), model_ids


def by_alpha(router: Router, rows: NDArray[np.float32], policy: Policy, alpha: float) -> Choice:
    """Choose by Avengers-Pro's rule within the limits of a policy, ``[n]``."""
    objective = policy.replace(willingness_to_pay=None, max_mean_cost=None, min_quality=None, alpha=alpha)
    return router.route_embeddings(rows, policy=objective).model_ids


def _mean_over_neighbors(values: Values, nearest: NDArray[np.intp]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    n_known = known[nearest].sum(axis=1)
    total = np.where(known, values, 0.0)[nearest].sum(axis=1, dtype=np.float64)
    return np.where(n_known > 0, total / np.maximum(n_known, 1), observed_means(values))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _unknown_bad(values: Values) -> Values:
    return np.where(np.isnan(values), -np.inf, values)


def _unknown_dear(values: Values) -> Values:
    return np.where(np.isnan(values), np.inf, values)
