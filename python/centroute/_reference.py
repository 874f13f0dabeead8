"""The kernel in plain NumPy: the readable specification that every Rust path is tested against.

One query goes through :func:`assign`, :func:`aggregate`, :func:`utilities` and :func:`rank`;
:func:`route` puts them together. Nothing here is fast, and nothing here is called when routing.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.artifact import Artifact

Row = NDArray[np.floating]
LIMIT_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceDecision:
    """What the kernel must choose, with every number behind it; arrays are ``[n_models]`` or ``[top_p]``."""

    model_id: int
    quality: Row
    cost: Row
    utility: Row
    margin: float
    similarity: float
    in_distribution: bool
    cluster_ids: NDArray[np.intp]
    cluster_weights: Row
    ranking: tuple[int, ...]


def assign(query: Row, centroids: Row, top_p: int, beta: float) -> tuple[NDArray[np.intp], Row, Row]:
    """Ids, softmax weights and cosine similarities of the ``top_p`` nearest clusters, nearest first."""
    similarities = (centroids @ query) / np.linalg.norm(query)
    nearest = np.argsort(-similarities, kind="stable")[:top_p]
    best = similarities[nearest]
    weights = np.exp(beta * (best - best[0]))
    return nearest, weights / weights.sum(), best


def trust(similarity: float, threshold: float | None) -> float:
    """How far the tables are trusted: 1 in distribution, falling linearly to 0 at similarity 0."""
    if threshold is None or similarity >= threshold:
        return 1.0
    return max(similarity / threshold, 0.0) if threshold > 0 else 0.0


def aggregate(table: Row, prior: Row, cluster_ids: NDArray[np.intp], weights: Row, trusted: float) -> Row:
    """``prior * (1 - t) + t * sum_c w_c * table[c]``, one value per model."""
    blended: Row = trusted * (weights[:, None] * table[cluster_ids]).sum(axis=0)
    return blended if trusted == 1.0 else blended + (1 - trusted) * prior


def min_max(table: Row) -> Row:
    """Scaled to 0..1 over the known models of each row; a row without spread becomes zeros."""
    low = np.where(np.isnan(table), np.inf, table).min(axis=-1, keepdims=True)
    spread = np.where(np.isnan(table), -np.inf, table).max(axis=-1, keepdims=True) - low
    return np.where(spread > 0, (table - low) / np.where(spread > 0, spread, 1), table * 0)


def cheapness_by_max(table: Row) -> Row:
    """``1 - cost / max cost`` over the known models of each row."""
    high = np.nanmax(np.where(np.isnan(table), 0, table), axis=-1, keepdims=True)
    return 1 - table / np.where(high > 0, high, 1)


def reciprocal_ranks(alpha: float, quality: Row, cheapness: Row) -> Row:
    """One over the rank by ``alpha * quality + (1 - alpha) * cheapness`` in each row, ties by model id."""
    score = quality if alpha == 1 else alpha * quality + (1 - alpha) * cheapness
    ranks = np.argsort(np.argsort(-score, axis=-1, kind="stable"), axis=-1, kind="stable")
    return 1 / (1 + ranks)


def meets(quality: Row, wanted: float) -> NDArray[np.bool_]:
    """Whether a predicted quality is good enough."""
    return np.greater_equal(quality, wanted - LIMIT_TOLERANCE)


def utilities(policy: Policy, quality: Row, cost: Row, normalized: tuple[Row, Row], frontier: Row) -> Row:
    """What the policy maximises, one value per model; limits are not applied here."""
    if policy.alpha is not None:
        if policy.alpha == 1:
            return normalized[0]
        return policy.alpha * normalized[0] + (1 - policy.alpha) * normalized[1]
    if policy.willingness_to_pay is not None:
        return policy.willingness_to_pay * quality - cost
    if policy.max_mean_cost is not None:
        return float(np.interp(policy.max_mean_cost, frontier[:, 2], frontier[:, 0])) * quality - cost
    if policy.min_quality is not None:
        return np.where(meets(quality, policy.min_quality), -cost, quality - policy.min_quality)
    return quality


def strong_utilities(policy: Policy, artifact: Artifact, quality: Row) -> Row:
    """Quality, that of the strong model less the lead that it needs for its share of the queries."""
    assert artifact.pairs is not None  # noqa: S101
    names = [model.name for model in artifact.models]
    pair = {policy.strong, policy.weak}
    place = [set(names) for names in combinations(names, 2)].index(pair)  # type: ignore[arg-type]
    threshold, share = artifact.pairs[place].T[:2]
    needed = float(np.interp(policy.strong_share or 0.0, share, threshold))
    if policy.strong_share in (0, 1):
        needed = 2.0 if policy.strong_share == 0 else -2.0
    utility = quality.copy()
    utility[names.index(str(policy.strong))] -= needed
    return utility


def merge(policy: Policy, default: Policy) -> Policy:
    """The request's policy, with what it leaves open taken from the default."""
    objectives = (
        "alpha", "willingness_to_pay", "max_mean_cost", "min_quality", "strong", "weak", "strong_share",
    )  # fmt: skip
    limits = ("max_cost", "allow", "deny", "require", "fallback")
    if all(getattr(policy, name) is None for name in objectives):
        policy = policy.replace(**{name: getattr(default, name) for name in objectives})
    unset = {name: getattr(default, name) for name in limits if getattr(policy, name) is None}
    return policy.replace(**unset)


def candidates(policy: Policy, artifact: Artifact, cost: Row) -> NDArray[np.bool_]:
    """Which models the limits leave."""
    left = np.ones(len(artifact.models), dtype=bool)
    for model_id, model in enumerate(artifact.models):
        if policy.allow is not None and model.name not in policy.allow:
            left[model_id] = False
        if policy.deny is not None and model.name in policy.deny:
            left[model_id] = False
        if policy.strong_share is not None and model.name not in (policy.strong, policy.weak):
            left[model_id] = False
        for requirement in policy.require or ():
            if requirement.startswith("context>="):
                least = int(requirement.removeprefix("context>="))
                left[model_id] &= model.context_length is not None and model.context_length >= least
            else:
                left[model_id] &= requirement in model.tags
        if policy.max_cost is not None:
            left[model_id] &= bool(cost[model_id] <= policy.max_cost * (1 + LIMIT_TOLERANCE))
    return left


def rank(policy: Policy, quality: Row, cost: Row, utility: Row, left: NDArray[np.bool_]) -> list[int]:
    """Candidates, best first: by utility, then lower cost (unknown last), then lower id."""
    good_enough = meets(quality, policy.min_quality if policy.min_quality is not None else 0.0)
    known = np.where(np.isnan(cost), np.inf, cost)
    order = [int(model) for model in np.flatnonzero(left)]
    return sorted(order, key=lambda m: (not good_enough[m], -utility[m], known[m], m))


def margin(policy: Policy, quality: Row, utility: Row, ranking: list[int]) -> float:
    """How far the first leads the second in the policy's own measure; NaN without a second."""
    if len(ranking) < 2:
        return float("nan")
    first, second = ranking[:2]
    if policy.min_quality is not None:
        good_enough = meets(quality, policy.min_quality)
        if good_enough[first] and not good_enough[second]:
            return float(-utility[second])
    return float(utility[first] - utility[second])


def quality_se(
    artifact: Artifact, cluster_ids: NDArray[np.intp], weights: Row, model_id: int
) -> float | None:
    """Standard error of a model's blended quality, cells taken as independent; ``None`` without errors."""
    if artifact.quality_se is None:
        return None
    return float(np.sqrt(((weights * artifact.quality_se[cluster_ids, model_id]) ** 2).sum()))


def resolved(artifact: Artifact, policy: Policy, decision: "ReferenceDecision") -> bool | None:
    """Whether the lead over the second candidate is more than chance (95 %); see `Decision.resolved`."""
    no_second = len(decision.ranking) < 2 or np.isnan(decision.margin)
    no_measure = policy.min_quality is not None or (
        policy.alpha is not None and artifact.alpha_score == "reciprocal-rank"
    )
    if artifact.quality_se is None or no_second or no_measure:
        return None
    rows = decision.cluster_ids
    scale = np.ones(len(rows))
    if policy.willingness_to_pay is not None:
        scale *= policy.willingness_to_pay
    elif policy.alpha is not None:
        spread = np.ptp(artifact.quality[rows], axis=1)
        scale = np.divide(policy.alpha, spread, out=np.zeros(len(rows)), where=spread > 0)
    errors = artifact.quality_se[rows][:, list(decision.ranking[:2])]
    square = ((scale * decision.cluster_weights)[:, None] ** 2 * errors.astype(np.float64) ** 2).sum()
    return bool(decision.in_distribution and decision.margin > 1.96 * np.sqrt(square))


def route(artifact: Artifact, query: Row, policy: Policy | None = None) -> ReferenceDecision:
    """Decide one query ``[dim]`` as the kernel must.

    Raises
    ------
    ValueError
        If no candidate is left and the policy has no fallback.
    """
    policy = merge(policy or Policy(), artifact.default_policy or Policy())
    cluster_ids, weights, similarities = assign(query, artifact.centroids, artifact.top_p, artifact.beta)
    similarity = float(similarities[0])
    trusted = trust(similarity, artifact.ood_threshold)

    def blend(table: Row, prior: Row) -> Row:
        return aggregate(table, prior, cluster_ids, weights, trusted)

    quality = blend(artifact.quality, artifact.prior_quality)
    cost = blend(artifact.cost, artifact.prior_cost)

    def cheapness(table: Row) -> Row:
        return 1 - min_max(table) if artifact.alpha_score == "min-max" else cheapness_by_max(table)

    if policy.alpha is not None and artifact.alpha_score == "reciprocal-rank":
        tables, priors = (
            reciprocal_ranks(policy.alpha, min_max(q), cheapness(c))
            for q, c in ((artifact.quality, artifact.cost), (artifact.prior_quality, artifact.prior_cost))
        )
        normalized = (blend(tables, priors), blend(tables, priors))
    else:
        normalized = (
            blend(min_max(artifact.quality), min_max(artifact.prior_quality)),
            blend(cheapness(artifact.cost), cheapness(artifact.prior_cost)),
        )
    if policy.strong_share is None:
        utility = utilities(policy, quality, cost, normalized, artifact.frontier)
    else:
        utility = strong_utilities(policy, artifact, quality)
    ranking = rank(policy, quality, cost, utility, candidates(policy, artifact, cost))
    in_distribution = artifact.ood_threshold is None or similarity >= artifact.ood_threshold
    lead = margin(policy, quality, utility, ranking)
    if policy.fallback is not None and (not in_distribution or not ranking):
        fallback = [model.name for model in artifact.models].index(policy.fallback)
        ranking = [fallback, *(model for model in ranking if model != fallback)]
        lead = float("nan")
    if not ranking:
        raise ValueError("no candidate is left")
    return ReferenceDecision(
        model_id=ranking[0],
        quality=quality,
        cost=cost,
        utility=utility,
        margin=lead,
        similarity=similarity,
        in_distribution=in_distribution,
        cluster_ids=cluster_ids,
        cluster_weights=weights,
        ranking=tuple(ranking),
    )
