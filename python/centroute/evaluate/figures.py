"""What an evaluation finds: immutable figures, and their JSON form."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from centroute.evaluate.axes import Axes
from centroute.evaluate.resampling import Interval


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
    accuracy_95
        Bootstrap interval of the accuracy, where it was taken.
    """

    accuracy: float | None
    mean_cost_usd: float | None
    model: str | None = None
    accuracy_95: Interval | None = None


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """What one willingness to pay (USD for one unit of quality) scores and costs.

    ``shares`` are those of the queries that each model of the pool gets, ``accuracy_95`` is the bootstrap
    interval of the accuracy.
    """

    willingness_to_pay: float
    accuracy: float | None
    mean_cost_usd: float | None
    shares: tuple[float, ...] = ()
    accuracy_95: Interval | None = None


@dataclass(frozen=True, slots=True)
class BudgetPoint:
    """What ``Policy(max_mean_cost=…)`` spends and scores.

    Attributes
    ----------
    max_mean_cost
        The budget, USD a query.
    mean_cost_usd, accuracy
        Measured, as of :class:`Measured`.
    mean_cost_95
        Bootstrap interval of the mean cost.
    """

    max_mean_cost: float
    mean_cost_usd: float | None
    accuracy: float | None
    mean_cost_95: Interval | None = None


@dataclass(frozen=True, slots=True)
class ModelMeasured:
    """What one model scores and costs alone, and the share of queries that the router gave it."""

    name: str
    accuracy: float | None
    mean_cost_usd: float | None
    share: float


@dataclass(frozen=True, slots=True)
class DatasetMeasured:
    """What the router and its bounds score on the queries of one dataset.

    ``best_model`` is the model that was best on these queries, measured on them: a bound, not a forecast.
    """

    name: str
    n_queries: int
    accuracy: float | None
    accuracy_95: Interval | None
    mean_cost_usd: float | None
    best_single_accuracy: float | None
    best_model: Measured
    oracle_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """Another way to route, quality first, and its own trade-off between accuracy and cost.

    Attributes
    ----------
    accuracy, mean_cost_usd
        As of :class:`Measured`, quality first.
    accuracy_95
        Bootstrap interval of the accuracy.
    aiq
        See :func:`centroute.evaluate.metrics.aiq`.
    trade_off
        Which number was varied along the points: ``"alpha"`` or ``"willingness_to_pay"``.
    points
        ``(number, accuracy, mean cost)``, by ascending number; empty without costs.
    """

    accuracy: float | None
    mean_cost_usd: float | None
    accuracy_95: Interval | None
    aiq: float | None
    trade_off: str
    points: tuple[tuple[float, float | None, float | None], ...]

    def to_json(self) -> dict[str, object]:
        """Figures by name."""
        return {
            "accuracy": self.accuracy,
            "mean_cost_usd": self.mean_cost_usd,
            "accuracy_95": self.accuracy_95 and list(self.accuracy_95),
            "aiq": self.aiq,
            "frontier": [
                {self.trade_off: number, "accuracy": accuracy, "mean_cost_usd": cost}
                for number, accuracy, cost in self.points
            ],
        }


@dataclass(frozen=True, slots=True)
class Metrics:
    """Published metrics of the router; formulas and sources stand in :mod:`centroute.evaluate.metrics`.

    ``arena`` is of the policy that was asked for, the others are of the frontier. The weak and the strong
    model of ``apgr`` and ``cpt`` are the cheapest and the best single model of the calibration data.
    """

    aiq: float | None
    apgr: float | None
    cpt_50: float | None
    cpt_80: float | None
    perf_gain: float | None
    cost_save: float | None
    pareto_dist: float | None
    arena: float | None


@dataclass(frozen=True, slots=True)
class PairedGain:
    """Accuracy of the router minus that of the best single model, query by query.

    Attributes
    ----------
    accuracy
        Mean difference over the queries where both scores are known.
    interval_95
        Its bootstrap interval.
    p_value
        See :func:`centroute.evaluate.resampling.paired_p_value`.
    """

    accuracy: float | None
    interval_95: Interval | None
    p_value: float | None


@dataclass(frozen=True, slots=True)
class CalibrationUsed:
    """The calibration data that baselines were fitted to.

    ``n_shared_texts`` counts the evaluated queries whose text is in it too: on them the baselines have seen
    the answer.
    """

    n_queries: int
    n_shared_texts: int


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
    budgets
        Budgets between the cheapest and the dearest point of the artifact's frontier, and what they spend;
        empty where it has none.
    interval_95
        Bootstrap intervals of accuracy and mean cost, ``[low, high]`` or ``None``.
    metrics
        Published metrics.
    gain
        Paired comparison with the best single model.
    macro_accuracy
        Mean of the datasets' accuracies (``router.accuracy`` is the mean over queries); ``None`` where no
        query names its dataset.
    datasets
        Figures by dataset, the largest first; empty where no query names its dataset.
    best_per_dataset
        Each dataset's best model: by the calibration data where it was given, else by these outcomes
        themselves, which is a bound that no router is told. ``None`` where no query names its dataset.
    best_per_dataset_by
        ``"calibration"`` or ``"data"``.
    alpha_rule
        The rule of Avengers-Pro on this router's own clusters and tables.
    knn, avengers_pro
        Baselines fitted to calibration data, ``None`` where none was given.
    calibration
        That data, ``None`` where none was given.
    axes
        Models and efforts against each alone; ``None`` where no model has several entries or there is no
        frontier.
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
    budgets: tuple[BudgetPoint, ...]
    interval_95: Mapping[str, Interval | None]
    metrics: Metrics
    gain: PairedGain
    macro_accuracy: float | None
    datasets: tuple[DatasetMeasured, ...]
    best_per_dataset: Measured | None
    best_per_dataset_by: str
    alpha_rule: Baseline | None
    knn: Baseline | None
    avengers_pro: Baseline | None
    calibration: CalibrationUsed | None
    axes: Axes | None

    def to_json(self) -> dict[str, object]:
        """Keys as ``docs/design.md`` names them; unknown values are ``None``."""

        def mixture(measured: Measured) -> dict[str, object]:
            return {"accuracy": measured.accuracy, "mean_cost_usd": measured.mean_cost_usd}

        per_dataset = self.best_per_dataset
        return {
            "n_queries": self.n_queries,
            "n_left_out": self.n_left_out,
            **mixture(self.router),
            "best_single": {"model": self.best_single.model, **mixture(self.best_single)},
            "oracle": mixture(self.oracle),
            "random": mixture(self.random),
            "headroom_captured": self.headroom_captured,
            "models": [asdict(model) for model in self.models],
            "frontier": [
                {
                    "willingness_to_pay": point.willingness_to_pay,
                    "accuracy": point.accuracy,
                    "mean_cost_usd": point.mean_cost_usd,
                }
                for point in self.frontier
            ],
            "budgets": [
                {
                    "max_mean_cost": budget.max_mean_cost,
                    "mean_cost_usd": budget.mean_cost_usd,
                    "mean_cost_95": _pair(budget.mean_cost_95),
                    "accuracy": budget.accuracy,
                }
                for budget in self.budgets
            ],
            "interval_95": {name: _pair(interval) for name, interval in self.interval_95.items()},
            "metrics": asdict(self.metrics),
            "gain_over_best_single": {
                "accuracy": self.gain.accuracy,
                "interval_95": _pair(self.gain.interval_95),
                "p_value": self.gain.p_value,
            },
            "macro_accuracy": self.macro_accuracy,
            "datasets": [_dataset_json(dataset) for dataset in self.datasets],
            "best_per_dataset": None
            if per_dataset is None
            else {**mixture(per_dataset), "chosen_on": self.best_per_dataset_by},
            "alpha_rule": self.alpha_rule and self.alpha_rule.to_json(),
            "knn": self.knn and self.knn.to_json(),
            "avengers_pro": self.avengers_pro and self.avengers_pro.to_json(),
            "calibration": self.calibration and asdict(self.calibration),
            "axes": self.axes and self.axes.to_json(),
        }


def _dataset_json(dataset: DatasetMeasured) -> dict[str, object]:
    return {
        "name": dataset.name,
        "n_queries": dataset.n_queries,
        "accuracy": dataset.accuracy,
        "accuracy_95": _pair(dataset.accuracy_95),
        "mean_cost_usd": dataset.mean_cost_usd,
        "best_single_accuracy": dataset.best_single_accuracy,
        "best_model": {"model": dataset.best_model.model, "accuracy": dataset.best_model.accuracy},
        "oracle_accuracy": dataset.oracle_accuracy,
    }


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
