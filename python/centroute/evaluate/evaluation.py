"""Measuring a router on outcomes: accuracy, cost, baselines, headroom and the frontier."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.datasets import Outcomes
from centroute.datasets.observed import observed_means
from centroute.errors import DataError, PolicyError
from centroute.evaluate.frontier import willingness_grid
from centroute.router import Router

N_RESAMPLES = 1000
"""Bootstrap resamples behind the intervals."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Accuracy and mean cost of one way to choose.

    Attributes
    ----------
    accuracy
        Mean score of the chosen models, 0..1, over queries where it was observed; ``None`` when nowhere.
    mean_cost_usd
        Mean cost in USD a query over queries where it is known; ``None`` when nowhere.
    model
        The one model that was always chosen, ``None`` for a mixture.
    """

    accuracy: float | None
    mean_cost_usd: float | None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """What one willingness to pay (USD for one unit of quality) scores and costs."""

    willingness_to_pay: float
    accuracy: float | None
    mean_cost_usd: float | None


@dataclass(frozen=True, slots=True)
class ModelMeasured:
    """What one model scores and costs alone, and the share of queries that the router gave it."""

    name: str
    accuracy: float | None
    mean_cost_usd: float | None
    share: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a router scores and costs on outcomes, beside the baselines.

    Attributes
    ----------
    n_queries
        Queries routed.
    n_left_out
        Queries without anything that the embedder knows; in no other figure.
    router
        The router under the policy that was asked for.
    best_single
        The model that was best on the calibration data, measured here.
    oracle
        The best observed score of each query, at the lowest known cost that has it.
    random
        Any observed model with equal chance.
    headroom_captured
        ``(router - best single) / (oracle - best single)``; ``None`` when there is no headroom.
    models
        What each model of the pool would score and cost alone, and the share of queries it was chosen for.
    frontier
        By ascending willingness to pay; empty where a cost is unknown.
    interval_95
        Bootstrap intervals of accuracy and mean cost, ``[low, high]`` or ``None``.
    """

    n_queries: int
    n_left_out: int
    router: Measured
    best_single: Measured
    oracle: Measured
    random: Measured
    headroom_captured: float | None
    models: tuple[ModelMeasured, ...]
    frontier: tuple[FrontierPoint, ...]
    interval_95: Mapping[str, tuple[float, float] | None]

    def to_json(self) -> dict[str, object]:
        """Keys as ``docs/design.md`` names them; unknown values are ``None``."""

        def mixture(measured: Measured) -> dict[str, object]:
            return {"accuracy": measured.accuracy, "mean_cost_usd": measured.mean_cost_usd}

        return {
            "n_queries": self.n_queries,
            "n_left_out": self.n_left_out,
            **mixture(self.router),
            "best_single": {"model": self.best_single.model, **mixture(self.best_single)},
            "oracle": mixture(self.oracle),
            "random": mixture(self.random),
            "headroom_captured": self.headroom_captured,
            "models": [asdict(model) for model in self.models],
            "frontier": [asdict(point) for point in self.frontier],
            "interval_95": {name: interval and list(interval) for name, interval in self.interval_95.items()},
        }


def evaluate(
    router: Router,
    outcomes: Outcomes,
    *,
    policy: Policy | None = None,
    embeddings: NDArray[np.float32] | None = None,
    frontier_points: int = 40,
) -> Evaluation:
    """Route every query and look up what the chosen model scored and cost.

    Parameters
    ----------
    router
        The router to measure.
    outcomes
        Observed scores and costs. Models that the pool lacks are ignored; pool models that are not observed
        count as not observed.
    policy
        What is asked of the router; its own default when not given.
    embeddings
        Rows ``[n_queries, dim]`` of the queries, when they are at hand already.
    frontier_points
        Amounts of willingness to pay to measure, 0 for none.

    Raises
    ------
    DataError
        If the outcomes share no model with the pool, or no query can be routed.
    PolicyError
        As :meth:`Router.route`.
    """
    scores, costs = _by_pool(outcomes.scores, outcomes, router), _by_pool(outcomes.costs, outcomes, router)
    if embeddings is None:
        embeddings = router.embed(outcomes.queries, allow_zero_rows=True)
    routable = np.asarray(embeddings.any(axis=1))
    if not routable.any():
        raise DataError(f"none of the {len(routable)} queries holds anything that the embedder knows")
    rows = np.ascontiguousarray(embeddings[routable], dtype=np.float32)
    scores, costs = scores[routable], costs[routable]

    batch = router.route_embeddings(rows, policy=policy)
    chosen_scores, chosen_costs = _pick(scores, batch.model_ids), _pick(costs, batch.model_ids)
    artifact = router.artifact
    best_id = best_single_id(artifact.prior_quality, artifact.prior_cost)
    best = _measured(scores[:, best_id], costs[:, best_id], model=router.models[best_id])
    routed = _measured(chosen_scores, chosen_costs)
    oracle = _oracle(scores, costs)
    shares = np.bincount(batch.model_ids, minlength=len(router.models)) / len(rows)
    return Evaluation(
        n_queries=len(rows),
        n_left_out=int((~routable).sum()),
        router=routed,
        best_single=best,
        oracle=oracle,
        random=_measured(_row_means(scores), _row_means(costs)),
        headroom_captured=headroom_captured(routed, best, oracle),
        models=tuple(
            ModelMeasured(name, _mean(scores[:, column]), _mean(costs[:, column]), float(shares[column]))
            for column, name in enumerate(router.models)
        ),
        frontier=measure_frontier(
            router, rows, scores, costs, grid=artifact.frontier[:, 0], policy=policy, n_points=frontier_points
        ),
        interval_95={
            "accuracy": _interval(chosen_scores),
            "mean_cost_usd": _interval(chosen_costs),
        },
    )


def best_single_id(prior_quality: NDArray[np.floating], prior_cost: NDArray[np.floating]) -> int:
    """Model of the highest mean quality; ties go to the lower cost (unknown last), then the lower id."""
    known = np.where(np.isnan(prior_cost), np.inf, prior_cost)
    return int(np.lexsort((np.arange(len(known)), known, -prior_quality))[0])


def headroom_captured(routed: Measured, best: Measured, oracle: Measured) -> float | None:
    """``(router - best single) / (oracle - best single)``, ``None`` where undefined."""
    if routed.accuracy is None or best.accuracy is None or oracle.accuracy is None:
        return None
    headroom = oracle.accuracy - best.accuracy
    return (routed.accuracy - best.accuracy) / headroom if headroom > 0 else None


def measure_frontier(
    router: Router,
    rows: NDArray[np.float32],
    scores: NDArray[np.floating],
    costs: NDArray[np.floating],
    *,
    grid: NDArray[np.float32],
    policy: Policy | None,
    n_points: int,
) -> tuple[FrontierPoint, ...]:
    """Measure each willingness to pay on rows ``[n, dim]``, with the limits of ``policy``.

    The amounts are those of ``grid``, and where it is empty a new one over the predictions. Empty when
    ``n_points`` is 0, a candidate's cost is unknown, or no cost was observed.
    """
    if n_points == 0 or np.isnan(costs).all():
        return ()
    if len(grid) == 0:
        quality, cost = router.predict(rows)
        known = ~np.isnan(cost).any(axis=0)
        grid = willingness_grid(quality[:, known], cost[:, known], n_points=n_points)
    cleared = (policy or Policy()).replace(alpha=None, max_mean_cost=None, min_quality=None)
    points = []
    for amount in grid.tolist():
        try:
            batch = router.route_embeddings(rows, policy=cleared.replace(willingness_to_pay=amount))
        except PolicyError:
            return ()
        measured = _measured(_pick(scores, batch.model_ids), _pick(costs, batch.model_ids))
        points.append(FrontierPoint(amount, measured.accuracy, measured.mean_cost_usd))
    return tuple(points)


def _by_pool(values: NDArray[np.floating], outcomes: Outcomes, router: Router) -> NDArray[np.floating]:
    """Columns in the order of the router's pool, NaN for models that the outcomes lack."""
    columns = {name: column for column, name in enumerate(outcomes.models)}
    if not any(name in columns for name in router.models):
        raise DataError(
            f"no model in common: the data observes {', '.join(outcomes.models)}; "
            f"the router's pool is {', '.join(router.models)}"
        )
    table = np.full((len(values), len(router.models)), np.nan, dtype=values.dtype)
    for place, name in enumerate(router.models):
        if name in columns:
            table[:, place] = values[:, columns[name]]
    return table


def _pick(values: NDArray[np.floating], model_ids: NDArray[np.int32]) -> NDArray[np.floating]:
    return np.take_along_axis(values, model_ids[:, None].astype(np.intp), axis=1)[:, 0]


def _row_means(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return observed_means(values.T)


def _oracle(scores: NDArray[np.floating], costs: NDArray[np.floating]) -> Measured:
    best = np.nanmax(np.where(np.isnan(scores), -1.0, scores), axis=1)
    best = np.where(best < 0, np.nan, best)
    cost = np.where(np.isnan(costs) | (scores != best[:, None]), np.inf, costs).min(axis=1)
    return _measured(best, np.where(np.isinf(cost), np.nan, cost))


def _measured(
    scores: NDArray[np.floating], costs: NDArray[np.floating], model: str | None = None
) -> Measured:
    return Measured(_mean(scores), _mean(costs), model)


def _mean(values: NDArray[np.floating]) -> float | None:
    mean = float(observed_means(values[:, None])[0])
    return None if np.isnan(mean) else mean


def _interval(values: NDArray[np.floating]) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean of the known values; the draw is seeded."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return None
    rng = np.random.default_rng(0)
    means = [known[rng.integers(len(known), size=len(known))].mean() for _ in range(N_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
