r"""Edits of an artifact without a new calibration: a model more, a model less, another price.

Each function takes an artifact and returns another; centroids, settings and the columns of the other models
stay as they are, bit for bit. What the report says of the whole was measured before, and is kept under
``evaluation_before_edits``; ``report["edits"]`` lists what was done.
A model is added by :mod:`centroute.newcomer`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.artifact import Artifact, Json, PoolModel
from centroute.datasets import Outcomes
from centroute.datasets.outcomes import model_name_fault
from centroute.embedders import Embedder
from centroute.errors import ArtifactError, DataError
from centroute.evaluate import evaluate
from centroute.newcomer import PoolColumns, Rows, fit_deviation
from centroute.router import Router

MIN_OUTCOMES = 10
"""Outcomes below which a model is not added: not even its mean would be known to a sixth."""
FEW_OUTCOMES = 30
"""Outcomes below which the caller should be told that a column is mostly the pool's."""
MIN_FRONTIER_QUERIES = 100
"""Queries with the outcomes of the whole pool that a frontier can be measured on."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """A new model's cells ``[n_clusters]``, its mean over the calibration's clusters, errors of the cells."""

    cells: Rows
    mean: float
    errors: Rows


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    """Rows that a column is fitted to.

    Attributes
    ----------
    weights
        Soft assignment ``[n, n_clusters]``.
    values
        What the new model reached ``[n]``.
    pool
        What the others reached on the same queries ``[n, n_others]``, NaN where not observed.
    """

    weights: Rows
    values: Rows
    pool: Rows


def add_model(
    artifact: Artifact,
    name: str,
    outcomes: Outcomes,
    *,
    embedder: Embedder | None = None,
    embeddings: NDArray[np.float32] | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Add a model to the pool, its column fitted to a few outcomes.

    Scores and costs of the pool's models on the same queries sharpen the fit where ``outcomes`` has them.
    Where it has those of the whole pool on `MIN_FRONTIER_QUERIES` queries, the frontier is measured on them
    anew, and is dropped otherwise.

    Parameters
    ----------
    artifact
        The router to extend.
    name
        The new model.
    outcomes
        Scores of the new model, at least `MIN_OUTCOMES`; its cost is unknown where there are no costs.
    embedder
        The router's embedder, where it is at hand; loaded by its name when not.
    embeddings
        Rows to route ``[n_queries, dim]``, surface features included, where they are at hand.
    progress
        Told how far the embedding is.

    Raises
    ------
    ArtifactError
        If the name is taken or unusable, or the default policy does not hold with the new pool.
    DataError
        If the outcomes do not carry the model.
    EmbedderError
        If the embedder is not found, or is not the router's.

    Examples
    --------
    >>> from centroute.calibrate import calibrate
    >>> from centroute.datasets import synthetic_outcomes
    >>> outcomes = synthetic_outcomes(n_queries=400)
    >>> whole = calibrate(outcomes, method="means", n_clusters=8)
    >>> less = drop_model(whole, "crumb-mini")
    >>> [model.name for model in add_model(less, "crumb-mini", outcomes.subset(range(40))).models][-1]
    'crumb-mini'
    """
    if fault := model_name_fault(name):
        raise ArtifactError(fault)
    if name in model_names(artifact):
        raise ArtifactError(f"model {name!r} is in the pool already; drop it first to fit it anew")
    rows, outcomes = _scored_rows(
        artifact, name, outcomes, embedder=embedder, embeddings=embeddings, progress=progress
    )
    weights, nearest = soft_assignment(rows, artifact)
    values, costs = (_by_pool(observed, outcomes, name) for observed in (outcomes.scores, outcomes.costs))
    pool_scores, pool_costs = (
        np.column_stack([_by_pool(observed, outcomes, other) for other in model_names(artifact)])
        for observed in (outcomes.scores, outcomes.costs)
    )
    quality = _fit_quality(artifact, _Observed(weights, values, pool_scores))
    priced = ~np.isnan(costs)
    cost = _fit_cost(artifact, _Observed(weights[priced], costs[priced], pool_costs[priced]))
    # As calibration counts them: by weight where tables are fitted to the blend, else by the nearest cluster.
    by_weight = artifact.method.get("learned") is True
    count = weights.sum(axis=0) if by_weight else np.bincount(nearest, minlength=weights.shape[1])
    edited = replace(
        artifact,
        models=(*artifact.models, PoolModel(name)),
        quality=_with_column(artifact.quality, quality.cells),
        quality_se=None if artifact.quality_se is None else _with_column(artifact.quality_se, quality.errors),
        cost=_with_column(artifact.cost, cost.cells),
        count=_with_column(artifact.count, count),
        prior_quality=np.append(artifact.prior_quality, np.float32(quality.mean)),
        prior_cost=np.append(artifact.prior_cost, np.float32(cost.mean)),
        agreement=None
        if artifact.agreement is None
        else artifact.agreement.with_newcomer(
            name, float(np.clip(quality.mean, 0, 1)), model_names(artifact)
        ),
        frontier=np.zeros((0, 3), dtype=np.float32),
        pairs=None,
    )
    observed_all = np.flatnonzero(
        ~np.isnan(np.column_stack([values, costs, pool_scores, pool_costs])).any(axis=1)
    )
    if len(observed_all) >= MIN_FRONTIER_QUERIES:
        edited = _measure_frontier(edited, outcomes.subset(observed_all), rows[observed_all])
    return recorded(
        edited,
        {
            "edit": "add-model",
            "model": name,
            "n_outcomes": len(values),
            "n_costs": int(priced.sum()),
            "n_frontier_queries": len(observed_all) if len(edited.frontier) else 0,
        },
        n_outcomes=len(values),
    )


def drop_model(artifact: Artifact, name: str) -> Artifact:
    """Take a model out of the pool.

    Nothing else of the tables changes. The frontier is dropped, since it was measured with the model. Of the
    default policy, ``allow`` and ``deny`` lose the name.

    Raises
    ------
    ArtifactError
        If the pool lacks the model or has no other, or the default policy does not hold without it.
    """
    column = _column(artifact, name)
    if len(artifact.models) == 1:
        raise ArtifactError(f"model {name!r} is the only one of the pool")
    left = np.arange(len(artifact.models)) != column
    edited = replace(
        artifact,
        models=tuple(model for model in artifact.models if model.name != name),
        quality=np.ascontiguousarray(artifact.quality[:, left]),
        quality_se=None
        if artifact.quality_se is None
        else np.ascontiguousarray(artifact.quality_se[:, left]),
        cost=np.ascontiguousarray(artifact.cost[:, left]),
        count=np.ascontiguousarray(artifact.count[:, left]),
        prior_quality=artifact.prior_quality[left],
        prior_cost=artifact.prior_cost[left],
        agreement=None if artifact.agreement is None else artifact.agreement.without(column),
        frontier=np.zeros((0, 3), dtype=np.float32),
        pairs=None,
        default_policy=_without(artifact.default_policy, name),
    )
    return recorded(edited, {"edit": "drop-model", "model": name})


def set_price(
    artifact: Artifact,
    name: str,
    *,
    input_usd_per_million: float | None = None,
    output_usd_per_million: float | None = None,
    cost_usd: float | None = None,
    keep_costs: bool = False,
) -> Artifact:
    """Set the prices of a model, and its costs with them.

    Tables hold costs of queries, not of tokens. They follow new prices where both the old and the new ones
    are known and rise or fall by one factor; else the new mean cost has to be told, and the column is scaled
    to it. Unknown costs stay unknown, and become the same on every query where a mean is told. Costs that
    change drop the frontier.

    Parameters
    ----------
    artifact, name
        The router and its model.
    input_usd_per_million, output_usd_per_million
        New prices per million tokens; one that is ``None`` stays as it is.
    cost_usd
        New mean cost in USD a query.
    keep_costs
        Store the prices alone.

    Raises
    ------
    ArtifactError
        If the pool lacks the model, nothing tells its new costs, or the default policy needs the frontier.
    DataError
        If a price is negative or not finite, or none is given.
    """
    column = _column(artifact, name)
    given = {
        "input_usd_per_million": input_usd_per_million,
        "output_usd_per_million": output_usd_per_million,
        "cost_usd": cost_usd,
    }
    prices = {field: float(value) for field, value in given.items() if value is not None}
    if not prices:
        raise DataError("no price: give that of input or output tokens, or a mean cost")
    for field, value in prices.items():
        if not 0 <= value <= float(np.finfo(np.float32).max):
            raise DataError(f"{field} {value}: wanted a finite number of USD, 0 or more")
    if keep_costs and cost_usd is not None:
        raise DataError(f"cost-usd {cost_usd:g} and keep-costs: the costs cannot be changed and kept")
    old = artifact.models[column]
    entry: dict[str, Json] = {"edit": "set-price", "model": name, **prices}
    prices.pop("cost_usd", None)
    new = replace(old, **prices)  # type: ignore[arg-type]
    models = tuple(new if model is old else model for model in artifact.models)
    edited = replace(artifact, models=models)
    before = float(artifact.prior_cost[column])
    if keep_costs or (cost_usd is None and np.isnan(before)):
        return recorded(edited, entry, measured=True)
    old_costs = artifact.cost[:, column].astype(np.float64)
    if cost_usd is None:
        factor = _price_factor(old, new)
        scaled, prior = old_costs * factor, before * factor
    elif before > 0:
        scaled, prior = old_costs * (cost_usd / before), cost_usd
    else:
        scaled, prior = np.full(len(artifact.cost), cost_usd), cost_usd
    if max(float(scaled.max()), prior) > float(np.finfo(np.float32).max):
        raise DataError(f"cost_usd {prior:g}: the costs of {name!r} would no longer be finite")
    cost, prior_cost = artifact.cost.copy(), artifact.prior_cost.copy()
    cost[:, column], prior_cost[column] = scaled, prior
    if np.array_equal(cost, artifact.cost, equal_nan=True):
        return recorded(edited, entry, measured=True)
    edited = replace(
        edited, cost=cost, prior_cost=prior_cost, frontier=np.zeros((0, 3), dtype=np.float32), pairs=None
    )
    before_usd = None if np.isnan(before) else before
    return recorded(edited, {**entry, "mean_cost_usd_before": before_usd, "mean_cost_usd": float(prior)})


def soft_assignment(rows: NDArray[np.float32], artifact: Artifact) -> tuple[Rows, NDArray[np.intp]]:
    """Weights ``[n, n_clusters]`` with which the router blends its clusters, and the nearest one ``[n]``."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarities = (unit @ artifact.centroids.T).astype(np.float64)
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, : artifact.top_p]
    near = np.take_along_axis(similarities, nearest, axis=1)
    soft = np.exp(artifact.beta * (near - near[:, :1]))
    weights = np.zeros_like(similarities)
    np.put_along_axis(weights, nearest, soft / soft.sum(axis=1, keepdims=True), axis=1)
    return weights, nearest[:, 0]


def _fit_quality(artifact: Artifact, observed: _Observed) -> _Column:
    """Fit the new model's quality."""
    table, prior = artifact.quality.astype(np.float64), artifact.prior_quality.astype(np.float64)
    pool = PoolColumns(table, prior, _counts(artifact), _similarities(artifact))
    deviation, error = fit_deviation(observed.weights, observed.values - _pool_means(observed, table), pool)
    mean = prior.mean() + _cluster_shares(artifact) @ deviation
    return _Column(np.clip(table.mean(axis=1) + deviation, 0, 1), float(np.clip(mean, 0, 1)), error)


def _fit_cost(artifact: Artifact, observed: _Observed) -> _Column:
    """Fit the new model's cost; NaN without costs."""
    n_clusters = len(artifact.centroids)
    unknown = np.full(n_clusters, np.nan)
    if len(observed.values) == 0:
        return _Column(unknown, float("nan"), unknown)
    mean = float(observed.values.mean())
    if mean <= 0:
        return _Column(np.zeros(n_clusters), 0.0, unknown)
    # What others cost on a query tells what this one does; without any, that it is one query.
    usable = np.nan_to_num(artifact.prior_cost) > 0
    priors = artifact.prior_cost[usable].astype(np.float64)
    table, observed_pool = artifact.cost[:, usable] / priors, observed.pool[:, usable] / priors
    if not usable.any():
        table, observed_pool = np.ones((n_clusters, 1)), np.ones((len(observed.values), 1))
    relative = _Observed(observed.weights, observed.values / mean, observed_pool)
    pool = PoolColumns(table, np.ones(table.shape[1]), _counts(artifact), _similarities(artifact))
    deviation, _ = fit_deviation(relative.weights, relative.values - _pool_means(relative, table), pool)
    lowest, highest = observed.values.min(), observed.values.max()
    prior = mean * (1 + _cluster_shares(artifact) @ deviation)
    return _Column(
        np.clip(mean * (table.mean(axis=1) + deviation), lowest, highest),
        float(np.clip(prior, lowest, highest)),
        unknown,
    )


def _pool_means(observed: _Observed, table: Rows) -> Rows:
    """Mean of the pool on each query ``[n]``: observed where it was, predicted elsewhere."""
    predicted = observed.weights @ table
    return np.asarray(np.where(np.isnan(observed.pool), predicted, observed.pool).mean(axis=1))


def _similarities(artifact: Artifact) -> Rows:
    centroids = artifact.centroids.astype(np.float64)
    return np.asarray(centroids @ centroids.T)


def _counts(artifact: Artifact) -> Rows:
    """Outcomes of a model behind each cluster ``[n_clusters]``."""
    return np.asarray(artifact.count.mean(axis=1, dtype=np.float64))


def _cluster_shares(artifact: Artifact) -> Rows:
    """Share of the calibration's outcomes in each cluster ``[n_clusters]``."""
    count = _counts(artifact)
    total = count.sum()
    return np.asarray(count / total) if total > 0 else np.full(len(count), 1 / len(count))


def _scored_rows(
    artifact: Artifact,
    name: str,
    outcomes: Outcomes,
    *,
    embedder: Embedder | None,
    embeddings: NDArray[np.float32] | None,
    progress: Progress | None,
) -> tuple[NDArray[np.float32], Outcomes]:
    """Rows to route ``[n, dim]`` and outcomes of the queries that the new model was scored on."""
    if name not in outcomes.models:
        raise DataError(f"the data has no score of {name!r}; it has {', '.join(outcomes.models)}")
    scored = np.flatnonzero(~np.isnan(_by_pool(outcomes.scores, outcomes, name)))
    _check_count(name, len(scored), "outcome")
    if embeddings is None:
        outcomes = outcomes.subset(scored)
        embeddings = _embed(Router.from_artifact(artifact, embedder=embedder), outcomes.queries, progress)
    else:
        wanted = (outcomes.n_queries, artifact.centroids.shape[1])
        if embeddings.shape != wanted:
            raise DataError(f"embeddings {list(embeddings.shape)}: wanted {list(wanted)}")
        outcomes, embeddings = outcomes.subset(scored), embeddings[scored]
    routable = embeddings.any(axis=1)
    _check_count(name, int(routable.sum()), "outcome that the embedder knows the text of")
    return np.ascontiguousarray(embeddings[routable], dtype=np.float32), outcomes.subset(routable)


def _check_count(name: str, count: int, what: str) -> None:
    if count < MIN_OUTCOMES:
        noun, _, rest = what.partition(" ")
        counted = f"{count} {noun}{'' if count == 1 else 's'} {rest}".rstrip()
        raise DataError(f"model {name!r} has {counted}; at least {MIN_OUTCOMES} are needed to add it")


def _embed(router: Router, texts: tuple[str, ...], progress: Progress | None) -> NDArray[np.float32]:
    tell = progress or (lambda *_: None)
    rows = np.empty((len(texts), router.dim), dtype=np.float32)
    step = 256
    for start in range(0, len(texts), step):
        tell("embed", start, len(texts))
        rows[start : start + step] = router.embed(texts[start : start + step], allow_zero_rows=True)
    tell("embed", len(texts), len(texts))
    return rows


def _by_pool(observed: NDArray[np.floating], outcomes: Outcomes, name: str) -> Rows:
    """A model's column ``[n_queries]``, NaN throughout where the data lacks it."""
    if name not in outcomes.models:
        return np.full(outcomes.n_queries, np.nan)
    return observed[:, outcomes.models.index(name)].astype(np.float64)


def _measure_frontier(artifact: Artifact, outcomes: Outcomes, rows: NDArray[np.float32]) -> Artifact:
    from centroute.calibrate.frontier import level

    router = Router.from_artifact(replace(artifact, default_policy=None))
    found = evaluate(router, outcomes, embeddings=rows).frontier
    points = [(point.willingness_to_pay, point.accuracy, point.mean_cost_usd) for point in found]
    return replace(artifact, frontier=level(np.array(points, dtype=np.float64)))


def _price_factor(old: PoolModel, new: PoolModel) -> float:
    """The one factor by which the prices change.

    Raises
    ------
    ArtifactError
        If there is no such factor: an old price is not known, or the two change differently.
    """
    way_out = "give a mean cost as well (cost-usd), or keep the costs (keep-costs)"
    factors = []
    for kind in ("input", "output"):
        before, after = (getattr(model, f"{kind}_usd_per_million") for model in (old, new))
        if before is None or after is None:
            raise ArtifactError(
                f"the costs of {old.name!r} come from data and cannot be scaled: its {kind} price so far is "
                f"not known; {way_out}"
            )
        if before != after:
            factors.append(after / before if before > 0 else np.inf)
        elif before > 0:
            factors.append(1.0)
    factor = max(factors, default=1.0)
    if np.isinf(factor) or factor - min(factors, default=1.0) > 1e-9 * factor:
        raise ArtifactError(
            f"the costs of {old.name!r} cannot be scaled: its input and output price change by different "
            f"factors, and the router does not know their shares; {way_out}"
        )
    return float(factor)


def _without(policy: Policy | None, name: str) -> Policy | None:
    """The default policy without the name of a dropped model."""
    if policy is None:
        return None
    if policy.fallback == name:
        raise ArtifactError(f"model {name!r} is the default policy's fallback; it cannot be dropped")
    allow, deny = policy.allow, policy.deny
    if allow is not None and not allow - {name}:
        raise ArtifactError(f"model {name!r} is the only one that the default policy allows")
    if allow is not None:
        policy = policy.replace(allow=allow - {name})
    if deny is not None:
        policy = policy.replace(deny=deny - {name} or None)
    return policy


def recorded(
    artifact: Artifact,
    entry: dict[str, Json],
    *,
    measured: bool = False,
    n_outcomes: int | None = None,
) -> Artifact:
    """The artifact with the edit in its report, valid as a whole.

    ``measured`` says that what was measured before still holds, ``n_outcomes`` how many a new model has.
    """
    report = dict(artifact.report)
    edits = report.get("edits")
    report["edits"] = [*(edits if isinstance(edits, list) else []), entry]
    if not measured and "evaluation" in report:
        report.setdefault("evaluation_before_edits", report["evaluation"])
        del report["evaluation"]
    counts = report.get("outcomes_per_model")
    if isinstance(counts, dict) and n_outcomes is not None:
        report["outcomes_per_model"] = {**counts, str(entry["model"]): n_outcomes}
    pool = model_names(artifact)
    for by_model in ("outcomes_per_model", "cost_sources"):
        counts = report.get(by_model)
        if isinstance(counts, dict):
            report[by_model] = {model: count for model, count in counts.items() if model in pool}
    edited = replace(artifact, report=report)
    try:
        edited.to_bytes()
    except ArtifactError as error:
        raise _explained(edited, error) from error
    return edited


def _explained(artifact: Artifact, error: ArtifactError) -> ArtifactError:
    policy = artifact.default_policy
    if policy is not None and policy.max_mean_cost is not None and len(artifact.frontier) == 0:
        return ArtifactError(
            f"the default policy asks for max_mean_cost={policy.max_mean_cost:g}, which is read off the "
            "frontier, and the edit leaves none; calibrate again"
        )
    return error


def _column(artifact: Artifact, name: str) -> int:
    names = model_names(artifact)
    if name not in names:
        raise ArtifactError(f"model {name!r} is not in the pool; it has {', '.join(names)}")
    return names.index(name)


def model_names(artifact: Artifact) -> tuple[str, ...]:
    """Names of the pool, in the order of the columns."""
    return tuple(model.name for model in artifact.models)


def _with_column(table: NDArray[np.float32], column: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.column_stack([table, column]), dtype=np.float32)
