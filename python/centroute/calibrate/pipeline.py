"""``calibrate``: outcomes in, a validated artifact with its holdout report out."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute.artifact import Artifact, EmbedderId, Json, PoolModel
from centroute.calibrate import selection
from centroute.calibrate.assignment import nearest_clusters, softmax_weights
from centroute.calibrate.frontier import willingness_amounts
from centroute.calibrate.kmeans import count_distinct, spherical_kmeans
from centroute.calibrate.ridge import learned_tables
from centroute.calibrate.settings import (
    AVENGERS_PRO_BETA,
    AVENGERS_PRO_CLUSTERS,
    AVENGERS_PRO_TOP_P,
    METHODS,
    Asked,
    Settings,
)
from centroute.calibrate.tables import ScoreTables, mean_tables
from centroute.calibrate.uncertainty import quality_errors
from centroute.datasets import Outcomes, split_by_text, text_key
from centroute.embedders import Embedder, load_embedder
from centroute.errors import DataError
from centroute.evaluate import Evaluation, evaluate
from centroute.router import Router
from centroute.surface import SurfaceFeatures, check_weight, routed_identity, surface_features

MIN_OUTCOMES = 2
"""Outcomes below which a model cannot be calibrated: one would have to stand on both sides of the split."""
OOD_QUANTILE = 0.01
"""Share of held-out queries that may look out of distribution."""

Progress = Callable[[str, int, int], None]
"""Called with the step's name, how much of it is done and how much there is."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Rows of the outcomes with what calibration needs of them; all arrays have one row a query."""

    embeddings: NDArray[np.float32]
    features: NDArray[np.float32]
    outcomes: Outcomes

    def subset(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "_Part":
        """Keep some rows: their indices or a mask."""
        return _Part(
            np.ascontiguousarray(self.embeddings[rows]), self.features[rows], self.outcomes.subset(rows)
        )

    def surface(self, weight: float) -> SurfaceFeatures | None:
        """Surface features with the statistics of these rows."""
        return SurfaceFeatures.fit(self.features, weight) if weight else None

    def routed(self, surface: SurfaceFeatures | None) -> NDArray[np.float32]:
        """Rows to route ``[n, width]``."""
        return self.embeddings if surface is None else surface.append(self.embeddings, self.features)


def calibrate(
    outcomes: Outcomes,
    *,
    embedder: Embedder | str = "static-256",
    method: str = "auto",
    n_clusters: int | None = None,
    top_p: int | None = None,
    beta: float | None = None,
    shrinkage: float | None = None,
    surface_weight: float | None = None,
    holdout: float = 0.3,
    refit: bool = True,
    seed: int = 0,
    default_policy: Policy | None = None,
    embeddings: NDArray[np.float32] | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Fit a router.

    Fits on the part that ``holdout`` leaves (split by text), measures on the holdout, then fits again on
    all rows with the same settings.

    Parameters
    ----------
    outcomes
        Observed scores and costs.
    embedder
        An embedder, its name or its folder.
    method
        ``"means"``: per-cluster means drawn to the model's mean. ``"learned"``: tables fitted to the blend by
        least squares (:mod:`centroute.calibrate.ridge`). ``"auto"``: whichever of the two is worth more in
        cross-validation. ``"avengers-pro"``: plain per-cluster means with the paper's K = 60, top-p = 4,
        beta = 9 (arXiv 2508.12631).
    n_clusters, top_p, beta, shrinkage, surface_weight
        Fix a setting; what is left ``None`` is chosen by cross-validation inside the calibration part. A
        surface weight of 0 leaves the features of :mod:`centroute.surface` out, as ``"avengers-pro"`` and
        embeddings without a fingerprint do where none is asked for.
    holdout
        Share of distinct texts to measure on, 0 for none.
    refit
        Whether the artifact is fitted on all rows in the end.
    seed
        The same outcomes, settings and seed give the same artifact, byte for byte.
    default_policy
        Stored in the artifact: what holds for requests that leave something open.
    embeddings
        Unit rows ``[n_queries, dim]`` of the embedder, without surface features, when they are at hand.
    progress
        Told how far the work is.

    Raises
    ------
    DataError
        If the outcomes do not carry a calibration; names the model or number at fault.
    EmbedderError
        If the embedder cannot be loaded.
    PolicyError
        If the default policy does not fit the pool.

    Examples
    --------
    >>> from centroute.datasets import synthetic_outcomes
    >>> artifact = calibrate(synthetic_outcomes(n_queries=400), method="avengers-pro", n_clusters=8)
    >>> artifact.centroids.shape
    (8, 256)
    """
    if method not in METHODS:
        raise DataError(f"method {method!r}: wanted one of {', '.join(METHODS)}")
    asked = Asked(n_clusters, top_p, beta, shrinkage, surface_weight)
    _check_numbers(asked, holdout=holdout, seed=seed)
    _check_counts(outcomes)
    tell = progress or (lambda *_: None)
    loaded = load_embedder(embedder) if isinstance(embedder, str) else embedder
    if embeddings is None:
        embeddings = _embed(loaded, outcomes, tell)
    routable = np.asarray(embeddings.any(axis=1))
    if not routable.any():
        raise DataError(f"none of the {len(routable)} queries holds anything that {loaded.name} knows")
    n_left_out = int((~routable).sum())
    whole = _Part(embeddings, surface_features(outcomes.queries), outcomes)
    if n_left_out:
        whole = whole.subset(routable)

    if holdout > 0:
        calibration_rows, holdout_rows = split_by_text(whole.outcomes, holdout=holdout, seed=seed)
    else:
        calibration_rows, holdout_rows = np.arange(whole.outcomes.n_queries), np.arange(0)
    part = whole.subset(calibration_rows)
    if asked.surface_weight is None and (method == "avengers-pro" or loaded.fingerprint is None):
        asked = replace(asked, surface_weight=0.0)
    settings, tried = _settings(method, part, asked, seed=seed, tell=tell)

    tell("fit", 0, 2)
    # A mean cost is read off the frontier, which has to be measured first.
    first_policy = default_policy and default_policy.replace(max_mean_cost=None)
    fitted = _fit(part, settings, seed=seed, embedder=loaded, default_policy=first_policy)
    # Without a holdout the figures are those of the rows that were fitted, and the report says so.
    measured_rows = holdout_rows if len(holdout_rows) else calibration_rows
    measured_on = whole.subset(measured_rows)
    routed_rows = measured_on.routed(fitted.embedder.surface)
    fitted = replace(fitted, frontier=_predicted_frontier(fitted, part))
    tell("fit", 1, 2)
    evaluation = evaluate(Router.from_artifact(fitted), measured_on.outcomes, embeddings=routed_rows)
    if first_policy != default_policy:
        fitted = replace(fitted, frontier=_frontier_table(evaluation), default_policy=default_policy)
        evaluation = evaluate(Router.from_artifact(fitted), measured_on.outcomes, embeddings=routed_rows)
    final = fitted
    if refit and len(holdout_rows):
        final = _fit(whole, settings, seed=seed, embedder=loaded, default_policy=default_policy)
    tell("fit", 2, 2)
    return replace(
        final,
        frontier=_frontier_table(evaluation),
        # The paper's router knows no out-of-distribution queries, and stays as published.
        ood_threshold=None if method == "avengers-pro" else _ood_threshold(routed_rows, fitted.centroids),
        method=_method(method, settings),
        report={
            "seed": seed,
            "holdout": holdout,
            "refit": refit and len(holdout_rows) > 0,
            "n_queries": whole.outcomes.n_queries,
            "n_left_out": n_left_out,
            "n_calibration": len(calibration_rows),
            "n_holdout": len(holdout_rows),
            "outcomes_per_model": {
                name: int(count)
                for name, count in zip(
                    outcomes.models, (~np.isnan(whole.outcomes.scores)).sum(axis=0), strict=True
                )
            },
            "data_sha256": data_digest(outcomes),
            "tried": tried,
            "measured_on": "holdout" if len(holdout_rows) else "calibration",
            "evaluation": evaluation.to_json(),  # type: ignore[dict-item]
        },
    )


def data_digest(outcomes: Outcomes) -> str:
    """SHA-256 over queries, pool, scores and costs: which data an artifact was made of."""
    hasher = hashlib.sha256()
    for text in (*outcomes.models, *outcomes.queries):
        encoded = text.encode("utf-8", "surrogatepass")
        hasher.update(len(encoded).to_bytes(8, "little") + encoded)
    # NaN has many bit patterns; the canonical one is put in its place.
    for values in (outcomes.scores, outcomes.costs):
        hasher.update(np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes())
    return hasher.hexdigest()


def _check_numbers(asked: Asked, *, holdout: float, seed: int) -> None:
    if not 0 <= holdout < 1:
        raise DataError(f"holdout {holdout}: wanted a share from 0 up to, not including, 1")
    if seed < 0:
        raise DataError(f"seed {seed}: wanted 0 or more")
    for name, value in (("beta", asked.beta), ("shrinkage", asked.shrinkage)):
        if value is not None and not 0 <= value <= float(np.finfo(np.float32).max):
            raise DataError(f"{name} {value}: wanted a finite number, 0 or more")
    if asked.surface_weight:
        check_weight(asked.surface_weight)


def _check_counts(outcomes: Outcomes) -> None:
    counts = (~np.isnan(outcomes.scores)).sum(axis=0)
    for name, count in zip(outcomes.models, counts, strict=True):
        if count < MIN_OUTCOMES:
            raise DataError(
                f"model {name!r} has {count} outcome{'' if count == 1 else 's'}, at least {MIN_OUTCOMES} are "
                "needed; add outcomes or leave it out"
            )


def _embed(embedder: Embedder, outcomes: Outcomes, tell: Progress) -> NDArray[np.float32]:
    rows = np.empty((outcomes.n_queries, embedder.dim), dtype=np.float32)
    step = 256
    for start in range(0, outcomes.n_queries, step):
        tell("embed", start, outcomes.n_queries)
        rows[start : start + step] = embedder.embed(outcomes.queries[start : start + step])
    tell("embed", outcomes.n_queries, outcomes.n_queries)
    return rows


def _settings(
    method: str, part: _Part, asked: Asked, *, seed: int, tell: Progress
) -> tuple[Settings, list[Json]]:
    """The settings of the fit, and what was tried to find them."""
    n_distinct = count_distinct(part.embeddings)
    paper = method == "avengers-pro"
    n_clusters = asked.n_clusters or (AVENGERS_PRO_CLUSTERS if paper else None)
    if n_clusters is not None and not 1 <= n_clusters <= n_distinct:
        raise DataError(
            f"{n_clusters} clusters cannot be made of the {n_distinct} different queries to calibrate on; "
            "ask for fewer"
        )
    if asked.top_p is not None and asked.top_p < 1:
        raise DataError(f"top-p {asked.top_p}: wanted 1 or more")
    if paper:
        top_p = min(asked.top_p or AVENGERS_PRO_TOP_P, n_clusters or 1)
        beta = AVENGERS_PRO_BETA if asked.beta is None else asked.beta
        return Settings(n_clusters or 1, top_p, beta, 0.0, asked.surface_weight or 0.0), []
    choices = selection.candidates(method, n_distinct, asked)
    if len(choices) == 1 or n_distinct < selection.N_FOLDS:
        return choices[0], []
    numbers: dict[str, int] = {}
    text_ids = np.array([numbers.setdefault(text_key(text), len(numbers)) for text in part.outcomes.queries])
    trials = selection.cross_validate(
        {weight: part.routed(part.surface(weight)) for weight in {c.surface_weight for c in choices}},
        part.outcomes.scores,
        part.outcomes.costs,
        text_ids,
        choices,
        seed=seed,
        progress=lambda done, total: tell("select", done, total),
    )
    tried: list[Json] = [
        {
            **asdict(trial.settings),
            "value": round(trial.value, 6),
            "behind": round(trial.behind, 6),
            "standard_error": round(trial.standard_error, 6),
        }
        for trial in trials
    ]
    return selection.select(trials), tried


def _method(requested: str, settings: Settings) -> dict[str, Json]:
    """What the artifact says of its method."""
    chosen = "learned" if settings.learned else "means"
    numbers: dict[str, Json] = asdict(settings)
    del numbers["learned"]
    return {"name": chosen if requested == "auto" else requested, "requested": requested, **numbers}


def _fit(
    part: _Part, settings: Settings, *, seed: int, embedder: Embedder, default_policy: Policy | None
) -> Artifact:
    surface = part.surface(settings.surface_weight)
    rows = part.routed(surface)
    centroids, tables = _tables(rows, part.outcomes, settings, seed=seed)
    unscored = np.isnan(tables.prior_quality)
    if unscored.any():
        name = part.outcomes.models[int(np.argmax(unscored))]
        raise DataError(
            f"model {name!r} has no outcome in the calibration part; add outcomes or take another seed"
        )
    dim, fingerprint = routed_identity(embedder, surface)
    single = {
        name: getattr(tables, name).astype(np.float32)
        for name in ("quality", "cost", "count", "prior_quality", "prior_cost")
    }
    ids, similarities = nearest_clusters(rows, centroids, settings.top_p)
    errors = quality_errors(
        ids,
        softmax_weights(similarities, settings.beta),
        part.outcomes.scores,
        tables.quality,
        shrinkage=settings.shrinkage,
    )
    return Artifact(
        models=tuple(PoolModel(name) for name in part.outcomes.models),
        embedder=EmbedderId(embedder.name, dim, fingerprint, surface),
        centroids=centroids,
        frontier=np.zeros((0, 3), dtype=np.float32),
        top_p=settings.top_p,
        beta=settings.beta,
        method={},
        default_policy=default_policy,
        quality_se=errors.astype(np.float32),
        **single,
    )


def _tables(
    rows: NDArray[np.float32], outcomes: Outcomes, settings: Settings, *, seed: int
) -> tuple[NDArray[np.float32], ScoreTables]:
    """Centroids of all resolutions and their tables."""
    clusterings = [spherical_kmeans(rows, n_clusters=number, seed=seed) for number in settings.resolutions]
    centroids = np.concatenate([clustering.centroids for clustering in clusterings])
    observed = (outcomes.scores, outcomes.costs)
    if settings.learned:
        ids, similarities = nearest_clusters(rows, centroids, settings.top_p)
        weights = softmax_weights(similarities, settings.beta)
        return centroids, learned_tables(
            ids, weights, *observed, n_clusters=len(centroids), shrinkage=settings.shrinkage
        )
    return centroids, mean_tables(
        clusterings[0].labels, *observed, n_clusters=len(centroids), shrinkage=settings.shrinkage
    )


def _predicted_frontier(artifact: Artifact, part: _Part) -> NDArray[np.float32]:
    """Rows (willingness to pay, mean quality, mean cost) as predicted; empty where a cost is unknown."""
    if np.isnan(artifact.prior_cost).any():
        return np.zeros((0, 3), dtype=np.float32)
    predicted = Router.from_artifact(artifact).predict(part.routed(artifact.embedder.surface))
    quality, cost = (table.astype(np.float64) for table in predicted)
    rows = np.arange(len(quality))
    points = []
    for amount in willingness_amounts(quality, cost):
        chosen = (amount * quality - cost).argmax(axis=1)
        points.append((amount, quality[rows, chosen].mean(), cost[rows, chosen].mean()))
    table = np.array(points, dtype=np.float32)
    table[:, 2] = np.maximum.accumulate(table[:, 2])
    return table


def _frontier_table(evaluation: Evaluation) -> NDArray[np.float32]:
    """Measured frontier as rows (willingness to pay, accuracy, mean cost), mean cost made ascending."""
    points = [
        (point.willingness_to_pay, point.accuracy, point.mean_cost_usd)
        for point in evaluation.frontier
        if point.accuracy is not None and point.mean_cost_usd is not None
    ]
    table = np.array(points, dtype=np.float64).reshape(-1, 3)
    if len(table):
        # Predicted mean cost can only rise with the willingness; measured noise is levelled from both sides.
        rising = np.maximum.accumulate(table[:, 2])
        falling = np.minimum.accumulate(table[::-1, 2])[::-1]
        table[:, 2] = (rising + falling) / 2
    return table.astype(np.float32)


def _ood_threshold(embeddings: NDArray[np.float32], centroids: NDArray[np.float32]) -> float:
    similarities = (embeddings @ centroids.T).max(axis=1)
    return float(np.clip(np.quantile(similarities, OOD_QUANTILE), -1.0, 1.0))
