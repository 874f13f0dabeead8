"""Measuring a router on outcomes: accuracy, cost, baselines, metrics and the frontier."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.datasets import Outcomes, text_key
from centroute.datasets.observed import observed_means
from centroute.errors import DataError, PolicyError
from centroute.evaluate import baselines, metrics
from centroute.evaluate.axes import measure_axes
from centroute.evaluate.choice import Choice, Values, mean, pick
from centroute.evaluate.figures import (
    Baseline,
    BudgetPoint,
    CalibrationUsed,
    DatasetMeasured,
    Evaluation,
    FrontierPoint,
    Measured,
    Metrics,
    ModelMeasured,
    PairedGain,
)
from centroute.evaluate.frontier import willingness_grid
from centroute.evaluate.resampling import Interval, mean_interval, mean_intervals, paired_p_value
from centroute.router import Router

N_BUDGETS = 5
N_ALPHAS = 21
"""Values of alpha, from 0 to 1, along the trade-off of Avengers-Pro."""


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Routable rows of outcomes: embeddings ``[n, dim]``, scores and costs ``[n, n_models]`` of the pool."""

    queries: tuple[str, ...]
    datasets: tuple[str, ...]
    rows: NDArray[np.float32]
    scores: Values
    costs: Values
    n_left_out: int

    def plain_rows(self, router: Router) -> NDArray[np.float32]:
        """The embeddings without the router's surface features, which published routers do not have."""
        surface = router.artifact.embedder.surface
        plain = self.rows if surface is None else self.rows[:, : -len(surface.mean)]
        return np.ascontiguousarray(plain)

    def measure(self, choice: Choice) -> Measured:
        return Measured(mean(pick(self.scores, choice)), mean(pick(self.costs, choice)))

    def measure_95(self, choice: Choice) -> Measured:
        return _measured_95(pick(self.scores, choice), pick(self.costs, choice))


def evaluate(
    router: Router,
    outcomes: Outcomes,
    *,
    policy: Policy | None = None,
    embeddings: NDArray[np.float32] | None = None,
    frontier_points: int = 40,
    calibration: Outcomes | None = None,
    calibration_embeddings: NDArray[np.float32] | None = None,
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
        Rows ``[n_queries, dim]`` of the queries, as `Router.embed` gives them, when they are at hand already.
    frontier_points
        Amounts of willingness to pay to measure, 0 for none.
    calibration
        Outcomes to fit the baselines ``knn`` and ``avengers_pro`` to and to choose the best model per dataset
        by; without them the first two are ``None``. Best those that the router was calibrated on.
    calibration_embeddings
        Rows ``[calibration.n_queries, dim]``, likewise.

    Raises
    ------
    DataError
        If the outcomes share no model with the pool, or no query can be routed.
    PolicyError
        As :meth:`Router.route`.
    """
    table = _table(router, outcomes, embeddings)
    seen = None if calibration is None else _calibration_table(router, calibration, calibration_embeddings)
    artifact = router.artifact
    scores, costs = table.scores, table.costs

    chosen = router.route_embeddings(table.rows, policy=policy).model_ids
    best_id = baselines.best_single_id(artifact.prior_quality, artifact.prior_cost)
    best = _measured_95(scores[:, best_id], costs[:, best_id], model=router.models[best_id])
    oracle_scores, oracle_costs = baselines.oracle(scores, costs)
    oracle = _measured_95(oracle_scores, oracle_costs)
    shares = np.bincount(chosen, minlength=len(router.models)) / len(table.rows)
    models = tuple(
        ModelMeasured(name, mean(scores[:, column]), mean(costs[:, column]), float(shares[column]))
        for column, name in enumerate(router.models)
    )
    amounts, along = _along_frontier(router, table, artifact.frontier[:, 0], policy, frontier_points)
    gain = pick(scores, chosen) - scores[:, best_id]
    intervals = mean_intervals(
        np.column_stack(
            [pick(scores, chosen), pick(costs, chosen), gain, *(pick(scores, choice) for choice in along)]
        )
    )
    routed = Measured(mean(pick(scores, chosen)), mean(pick(costs, chosen)), accuracy_95=intervals[0])
    frontier = tuple(
        _frontier_point(table, amount, choice, interval, n_models=len(models))
        for amount, choice, interval in zip(amounts, along, intervals[3:], strict=True)
    )
    by, known = ("data", table) if seen is None else ("calibration", seen)
    per_dataset = None
    if any(table.datasets):
        per_dataset = table.measure_95(
            baselines.best_per_dataset(
                table.datasets, (known.datasets, known.scores, known.costs), otherwise=best_id
            )
        )
    datasets = _datasets(router, table, chosen, best_id, oracle_scores) if any(table.datasets) else ()
    weak_id = baselines.cheapest_id(artifact.prior_quality, artifact.prior_cost)
    cost_range = _cost_range(models)
    return Evaluation(
        n_queries=len(table.rows),
        n_left_out=table.n_left_out,
        router=routed,
        best_single=best,
        oracle=oracle,
        random=_measured_95(observed_means(scores.T), observed_means(costs.T)),
        headroom_captured=metrics.headroom_captured(routed.accuracy, best.accuracy, oracle.accuracy),
        models=models,
        frontier=frontier,
        budgets=_budgets(router, table, artifact.frontier[:, 2], policy),
        interval_95={"accuracy": intervals[0], "mean_cost_usd": intervals[1]},
        metrics=_metrics(routed, models, frontier, best_id=best_id, weak_id=weak_id),
        gain=PairedGain(mean(gain), intervals[2], paired_p_value(gain)),
        macro_accuracy=metrics.macro({dataset.name: dataset.accuracy for dataset in datasets}),
        datasets=datasets,
        best_per_dataset=per_dataset,
        best_per_dataset_by=by,
        alpha_rule=_alpha_rule(router, table, policy, cost_range),
        knn=None if seen is None else _knn(router, table, seen, cost_range, n_points=frontier_points),
        avengers_pro=None if seen is None else _avengers_pro(router, table, seen, cost_range),
        calibration=None if seen is None else _shared_texts(table, seen),
        axes=measure_axes(router, table.rows, scores, costs, amounts=amounts, policy=policy),
    )


def _measured_95(scores: Values, costs: Values, model: str | None = None) -> Measured:
    return Measured(mean(scores), mean(costs), model, mean_interval(scores))


def by_pool(values: Values, outcomes: Outcomes, router: Router) -> Values:
    """Columns in the order of the router's pool, NaN for models that the outcomes lack.

    Raises
    ------
    DataError
        If no model is in both.
    """
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


def _table(router: Router, outcomes: Outcomes, embeddings: NDArray[np.float32] | None) -> _Table:
    scores, costs = by_pool(outcomes.scores, outcomes, router), by_pool(outcomes.costs, outcomes, router)
    if embeddings is None:
        embeddings = router.embed(outcomes.queries, allow_zero_rows=True)
    routable = np.asarray(embeddings.any(axis=1))
    if not routable.any():
        raise DataError(f"none of the {len(routable)} queries holds anything that the embedder knows")
    kept = np.flatnonzero(routable)
    return _Table(
        queries=tuple(outcomes.queries[row] for row in kept),
        datasets=tuple(outcomes.datasets[row] for row in kept),
        rows=np.ascontiguousarray(embeddings[kept], dtype=np.float32),
        scores=scores[kept],
        costs=costs[kept],
        n_left_out=len(routable) - len(kept),
    )


def _calibration_table(
    router: Router, calibration: Outcomes, embeddings: NDArray[np.float32] | None
) -> _Table:
    try:
        table = _table(router, calibration, embeddings)
    except DataError as error:
        raise DataError(f"calibration data: {error}") from error
    if np.isnan(table.scores).all():
        raise DataError("calibration data: no score of any model of the router's pool")
    return table


def _along_frontier(
    router: Router, table: _Table, grid: NDArray[np.float32], policy: Policy | None, n_points: int
) -> tuple[list[float], list[Choice]]:
    """Amounts of willingness to pay, and what each chooses within the limits of ``policy``.

    The amounts are those of ``grid``, and where it is empty a new one over the predictions. None when
    ``n_points`` is 0, a candidate's cost is unknown, or no cost was observed.
    """
    if n_points == 0 or np.isnan(table.costs).all():
        return [], []
    if len(grid) == 0:
        quality, cost = router.predict(table.rows)
        known = ~np.isnan(cost).any(axis=0)
        grid = willingness_grid(quality[:, known], cost[:, known], n_points=n_points)
    limits = (policy or Policy()).replace(alpha=None, max_mean_cost=None, min_quality=None)
    choices = []
    for amount in grid.tolist():
        try:
            batch = router.route_embeddings(table.rows, policy=limits.replace(willingness_to_pay=amount))
        except PolicyError:
            return [], []
        choices.append(batch.model_ids)
    return grid.tolist(), choices


def _frontier_point(
    table: _Table, amount: float, choice: Choice, interval: Interval | None, *, n_models: int
) -> FrontierPoint:
    measured = table.measure(choice)
    shares = np.bincount(choice, minlength=n_models) / len(choice)
    return FrontierPoint(amount, measured.accuracy, measured.mean_cost_usd, tuple(shares.tolist()), interval)


def _budgets(
    router: Router, table: _Table, costs: NDArray[np.float32], policy: Policy | None
) -> tuple[BudgetPoint, ...]:
    """Budgets in equal ratios between the ends of the frontier's mean costs, and what they spend here."""
    if len(costs) == 0 or not 0 < costs[0] < costs[-1] or np.isnan(table.costs).all():
        return ()
    limits = (policy or Policy()).replace(alpha=None, willingness_to_pay=None, min_quality=None)
    points = []
    for budget in np.geomspace(costs[0], costs[-1], N_BUDGETS + 2)[1:-1].tolist():
        try:
            batch = router.route_embeddings(table.rows, policy=limits.replace(max_mean_cost=budget))
        except PolicyError:
            return ()
        spent = pick(table.costs, batch.model_ids)
        measured = table.measure(batch.model_ids)
        points.append(BudgetPoint(budget, measured.mean_cost_usd, measured.accuracy, mean_interval(spent)))
    return tuple(points)


def _datasets(
    router: Router, table: _Table, chosen: Choice, best_id: int, oracle_scores: Values
) -> tuple[DatasetMeasured, ...]:
    names = np.array(table.datasets, dtype=object)
    chosen_scores, chosen_costs = pick(table.scores, chosen), pick(table.costs, chosen)
    found = []
    for name in set(table.datasets):
        rows = np.flatnonzero(names == name)
        quality = observed_means(table.scores[rows])
        top = baselines.best_single_id(quality, observed_means(table.costs[rows]))
        top_accuracy = mean(table.scores[rows, top])
        found.append(
            DatasetMeasured(
                name=name,
                n_queries=len(rows),
                accuracy=mean(chosen_scores[rows]),
                accuracy_95=mean_interval(chosen_scores[rows]),
                mean_cost_usd=mean(chosen_costs[rows]),
                best_single_accuracy=mean(table.scores[rows, best_id]),
                best_model=Measured(
                    top_accuracy,
                    mean(table.costs[rows, top]),
                    None if top_accuracy is None else router.models[top],
                ),
                oracle_accuracy=mean(oracle_scores[rows]),
            )
        )
    return tuple(sorted(found, key=lambda dataset: (-dataset.n_queries, dataset.name)))


def _metrics(
    routed: Measured,
    models: tuple[ModelMeasured, ...],
    frontier: tuple[FrontierPoint, ...],
    *,
    best_id: int,
    weak_id: int | None,
) -> Metrics:
    points = _known([(point.mean_cost_usd, point.accuracy) for point in frontier])
    best = models[best_id]
    reached = [accuracy for _, accuracy in points]
    if routed.accuracy is not None:
        reached.append(routed.accuracy)
    weak = None if weak_id is None or weak_id == best_id else models[weak_id].accuracy
    curve = [] if weak_id is None else _strong_shares(models, frontier, best_id=best_id, weak_id=weak_id)
    return Metrics(
        aiq=metrics.aiq(points, _cost_range(models)),
        apgr=metrics.apgr(curve, weak=weak, strong=best.accuracy),
        cpt_50=metrics.cpt(curve, 0.5, weak=weak, strong=best.accuracy),
        cpt_80=metrics.cpt(curve, 0.8, weak=weak, strong=best.accuracy),
        perf_gain=metrics.perf_gain(reached, best.accuracy),
        cost_save=metrics.cost_save(points, accuracy=best.accuracy, mean_cost_usd=best.mean_cost_usd),
        pareto_dist=metrics.pareto_dist(points, _known([(m.mean_cost_usd, m.accuracy) for m in models])),
        arena=metrics.arena(routed.accuracy, routed.mean_cost_usd),
    )


def _strong_shares(
    models: tuple[ModelMeasured, ...], frontier: tuple[FrontierPoint, ...], *, best_id: int, weak_id: int
) -> list[tuple[float, float]]:
    """Share of the strong model and accuracy along the frontier, as `metrics.apgr` wants them.

    RouteLLM routes between two models, and with two the share is that of the queries. With more it is the
    share of the spending between the two, ``(cost - weak) / (strong - weak)``: the same number where a call
    of either model costs the same on every query.
    """
    if len(models) == 2:
        return _known([(point.shares[best_id], point.accuracy) for point in frontier])
    low, high = models[weak_id].mean_cost_usd, models[best_id].mean_cost_usd
    if low is None or high is None or high <= low:
        return []
    points = _known([(point.mean_cost_usd, point.accuracy) for point in frontier])
    return [((cost - low) / (high - low), accuracy) for cost, accuracy in points]


def _alpha_rule(
    router: Router, table: _Table, policy: Policy | None, cost_range: tuple[float, float] | None
) -> Baseline | None:
    limits = policy or Policy()

    def choose(alpha: float) -> Choice | None:
        try:
            return baselines.by_alpha(router, table.rows, limits, alpha)
        except PolicyError:
            return None

    first = choose(1.0)
    if first is None:
        return None
    return _baseline(table, first, [(alpha, choose(alpha)) for alpha in _alphas()], "alpha", cost_range)


def _avengers_pro(
    router: Router, table: _Table, seen: _Table, cost_range: tuple[float, float] | None
) -> Baseline:
    other, model_ids = baselines.avengers_pro(seen.plain_rows(router), seen.scores, seen.costs)
    rows = table.plain_rows(router)

    def choose(alpha: float) -> Choice | None:
        try:
            chosen = baselines.by_alpha(other, rows, Policy(), alpha)
        except PolicyError:
            return None
        return model_ids[chosen].astype(np.int32)

    first = choose(1.0)
    assert first is not None  # noqa: S101, quality alone needs no cost
    return _baseline(table, first, [(alpha, choose(alpha)) for alpha in _alphas()], "alpha", cost_range)


def _knn(
    router: Router,
    table: _Table,
    seen: _Table,
    cost_range: tuple[float, float] | None,
    *,
    n_points: int,
) -> Baseline:
    neighbors = baselines.NearestNeighbors(seen.plain_rows(router), seen.scores, seen.costs)
    quality, cost = neighbors.predict(table.plain_rows(router))
    first = baselines.choose(quality, cost, None)
    along: list[tuple[float, Choice | None]] = []
    known = ~np.isnan(cost).any(axis=0) & ~np.isnan(quality).any(axis=0)
    if n_points and known.any():
        grid = willingness_grid(
            quality[:, known].astype(np.float32), cost[:, known].astype(np.float32), n_points=n_points
        )
        along = [(amount, baselines.choose(quality, cost, amount)) for amount in grid.tolist()]
    return _baseline(table, first, along, "willingness_to_pay", cost_range)


def _baseline(
    table: _Table,
    first: Choice,
    along: list[tuple[float, Choice | None]],
    trade_off: str,
    cost_range: tuple[float, float] | None,
) -> Baseline:
    """Figures of a baseline from its choices: quality first, and along its trade-off (``None``: refused)."""
    measured = table.measure_95(first)
    points: list[tuple[float, float | None, float | None]] = []
    if not np.isnan(table.costs).all() and all(choice is not None for _, choice in along):
        for number, choice in along:
            if choice is not None:
                point = table.measure(choice)
                points.append((number, point.accuracy, point.mean_cost_usd))
    return Baseline(
        accuracy=measured.accuracy,
        mean_cost_usd=measured.mean_cost_usd,
        accuracy_95=measured.accuracy_95,
        aiq=metrics.aiq(_known([(cost, accuracy) for _, accuracy, cost in points]), cost_range),
        trade_off=trade_off,
        points=tuple(points),
    )


def _shared_texts(table: _Table, seen: _Table) -> CalibrationUsed:
    texts = {text_key(query) for query in seen.queries}
    return CalibrationUsed(len(seen.rows), sum(text_key(query) in texts for query in table.queries))


def _cost_range(models: tuple[ModelMeasured, ...]) -> tuple[float, float] | None:
    costs = [model.mean_cost_usd for model in models if model.mean_cost_usd is not None]
    return (min(costs), max(costs)) if costs else None


def _known(points: list[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    return [(first, second) for first, second in points if first is not None and second is not None]


def _alphas() -> list[float]:
    return [float(alpha) for alpha in np.linspace(0, 1, N_ALPHAS)]
