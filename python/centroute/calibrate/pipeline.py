"""``calibrate``: outcomes in, a validated artifact with its holdout report out."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy, surface_features
from centroute.artifact import Artifact, Json
from centroute.calibrate import knn, selection
from centroute.calibrate.agreement import estimate_agreement
from centroute.calibrate.assignment import nearest_clusters, softmax_weights
from centroute.calibrate.fitting import Part, fit
from centroute.calibrate.frontier import cross_fitted, fitted_frontier, predict
from centroute.calibrate.index import build_index
from centroute.calibrate.kmeans import count_distinct
from centroute.calibrate.pairs import pair_curves
from centroute.calibrate.roles import check_roles, estimate_roles
from centroute.calibrate.settings import (
    AVENGERS_PRO,
    AVENGERS_PRO_BETA,
    AVENGERS_PRO_CLUSTERS,
    AVENGERS_PRO_TOP_P,
    METHODS,
    Asked,
    Settings,
)
from centroute.datasets import Outcomes, split_by_text
from centroute.embedders import Embedder, load_embedder
from centroute.errors import DataError
from centroute.evaluate import evaluate
from centroute.router import Router
from centroute.surface import check_weight

MIN_OUTCOMES = 2
"""Outcomes below which a model cannot be calibrated: one would have to stand on both sides of the split."""
MIN_MODELS = 2
OOD_QUANTILE = 0.01
"""Share of held-out queries that may look out of distribution."""

Progress = Callable[[str, int, int], None]
"""Called with the step's name, how much of it is done and how much there is."""


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
        cross-validation. ``"knn"``: every query is a centroid (:mod:`centroute.calibrate.knn`), and an index
        over them is built where they are many.
        ``"avengers-pro"``: plain per-cluster means with the paper's K = 60, top-p = 4,
        beta = 9 (arXiv 2508.12631), for ``Policy(alpha=…)``, which normalises quality by min-max and cost by
        its maximum as the code published with the paper does. Its variants: ``"avengers-pro-min-max"``
        normalises both by min-max as the paper writes it, ``"avengers-pro-rank"`` blends one over the
        model's rank in the cluster as that code does.
    n_clusters, top_p, beta, shrinkage, surface_weight
        Fix a setting; what is left ``None`` is chosen by cross-validation inside the calibration part. A
        surface weight of 0 leaves the features of :mod:`centroute.surface` out, as Avengers-Pro and
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
    check_numbers(asked, holdout=holdout, seed=seed)
    _check_counts(outcomes)
    check_roles(outcomes)
    tell = progress or (lambda *_: None)
    loaded = load_embedder(embedder) if isinstance(embedder, str) else embedder
    if embeddings is None:
        embeddings = embed_outcomes(loaded, outcomes, tell)
    routable = np.asarray(embeddings.any(axis=1))
    if not routable.any():
        raise DataError(f"none of the {len(routable)} queries holds anything that {loaded.name} knows")
    n_left_out = int((~routable).sum())
    whole = Part(embeddings, surface_features(outcomes.queries), outcomes)
    if n_left_out:
        whole = whole.subset(routable)

    if holdout > 0:
        calibration_rows, holdout_rows = split_by_text(whole.outcomes, holdout=holdout, seed=seed)
    else:
        calibration_rows, holdout_rows = np.arange(whole.outcomes.n_queries), np.arange(0)
    part = whole.subset(calibration_rows)
    if asked.surface_weight is None and (method in AVENGERS_PRO or loaded.fingerprint is None):
        asked = replace(asked, surface_weight=0.0)
    settings, tried = choose_settings(method, part, asked, seed=seed, tell=tell)

    tell("fit", 0, 3)
    # Without a holdout the figures are those of the rows that were fitted, and the report says so.
    measured_on = whole.subset(holdout_rows if len(holdout_rows) else calibration_rows)

    def fit_to(rows: Part, *, is_written: bool) -> Artifact:
        fitted = fit(rows, settings, seed=seed, embedder=loaded)
        routed = rows.routed(fitted.embedder.surface)
        if settings.knn:
            own = knn.predict_by_others(routed, fitted, settings)
        else:
            own = predict(routed, fitted.centroids, fitted, settings)
        # As much work as five fits, for figures that are read off the written file alone.
        unseen = cross_fitted(rows, settings, seed=seed) if is_written else own
        scores, costs = rows.outcomes.scores, rows.outcomes.costs
        return replace(
            fitted,
            frontier=fitted_frontier(own, unseen, scores, costs),
            pairs=pair_curves(own, unseen, scores, costs, fitted.prior_quality),
            agreement=estimate_agreement(rows.outcomes, predicted=unseen[0]) if is_written else None,
            roles=estimate_roles(rows.outcomes, predicted=unseen) if is_written else None,
            alpha_score=AVENGERS_PRO.get(method, "cost-by-maximum"),
            default_policy=default_policy,
            method=method_record(method, settings),
            index=build_index(fitted.centroids, seed=seed, top_p=fitted.top_p) if settings.knn else None,
        )

    is_refitted = refit and len(holdout_rows) > 0
    fitted = fit_to(part, is_written=not is_refitted)
    tell("fit", 1, 3)
    routed_rows = measured_on.routed(fitted.embedder.surface)
    evaluation = evaluate(Router.from_artifact(fitted), measured_on.outcomes, embeddings=routed_rows)
    tell("fit", 2, 3)
    final = fit_to(whole, is_written=True) if is_refitted else fitted
    tell("fit", 3, 3)
    _, similarities = nearest_clusters(routed_rows, fitted.centroids, 1)
    return replace(
        final,
        # The paper's router knows no out-of-distribution queries, and stays as published.
        ood_threshold=None if method in AVENGERS_PRO else _ood_threshold(similarities[:, 0]),
        report={
            "seed": seed,
            "holdout": holdout,
            "refit": is_refitted,
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
            # What a log of decisions is compared with to see whether the queries have changed.
            "similarity_quantiles": np.quantile(similarities[:, 0], np.linspace(0, 1, 11)).round(6).tolist(),
            "cluster_shares": _cluster_shares(routed_rows, final),
            "evaluation": evaluation.to_json(),  # type: ignore[dict-item]
        },
    )


def data_digest(outcomes: Outcomes) -> str:
    """SHA-256 over queries, pool, scores, costs, answers and roles: which data an artifact was made of."""
    hasher = hashlib.sha256()
    answers = outcomes.answers
    for text in (*outcomes.models, *outcomes.queries, *(() if answers is None else answers.texts)):
        encoded = text.encode("utf-8", "surrogatepass")
        hasher.update(len(encoded).to_bytes(8, "little") + encoded)
    # NaN has many bit patterns; the canonical one is put in its place.
    for values in (outcomes.scores, outcomes.costs):
        hasher.update(np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes())
    if answers is not None:
        for numbers in (answers.given, answers.right):
            hasher.update(numbers.astype("<i4").tobytes())
    for role in outcomes.roles or ():
        encoded = role.encode("utf-8", "surrogatepass")
        hasher.update(len(encoded).to_bytes(8, "little") + encoded)
    return hasher.hexdigest()


def check_numbers(asked: Asked, *, holdout: float, seed: int) -> None:
    """Refuse settings that are out of range."""
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
    if outcomes.n_models < MIN_MODELS:
        raise DataError(f"there is one model, {outcomes.models[0]!r}, and so nothing to choose between")
    check_each_model(outcomes.models, outcomes.scores)


def check_each_model(
    models: Sequence[str], values: NDArray[np.floating], *, least: int = MIN_OUTCOMES
) -> None:
    """Refuse a model with too few known values in ``[n, n_models]``."""
    counts = (~np.isnan(values)).sum(axis=0)
    for name, count in zip(models, counts.tolist(), strict=True):
        if count < least:
            raise DataError(
                f"model {name!r} has {count} outcome{'' if count == 1 else 's'}, at least {least} are "
                "needed; add outcomes or leave it out"
            )


def embed_outcomes(
    embedder: Embedder, outcomes: Outcomes, tell: Progress, *, step_name: str = "embed"
) -> NDArray[np.float32]:
    """Rows of all queries, ``[n, dim]``; tells how far it is."""
    rows = np.empty((outcomes.n_queries, embedder.dim), dtype=np.float32)
    step = 256
    for start in range(0, outcomes.n_queries, step):
        tell(step_name, start, outcomes.n_queries)
        rows[start : start + step] = embedder.embed(outcomes.queries[start : start + step])
    tell(step_name, outcomes.n_queries, outcomes.n_queries)
    return rows


def choose_settings(
    method: str, part: Part, asked: Asked, *, seed: int, tell: Progress
) -> tuple[Settings, list[Json]]:
    """The settings of the fit, and what was tried to find them."""
    n_distinct = count_distinct(part.embeddings)
    paper = method in AVENGERS_PRO
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
    if method == "knn":
        if asked.n_clusters is not None:
            raise DataError(f"{asked.n_clusters} clusters: method knn takes every query as one; ask for none")
        nearest = knn.candidates(n_distinct, asked)
        if len(nearest) == 1 or n_distinct < selection.N_FOLDS:
            return nearest[0], []
        trials = knn.cross_validate(
            part, nearest, seed=seed, progress=lambda done, total: tell("select", done, total)
        )
        return knn.select(trials), _tried(trials)
    choices = selection.candidates(method, n_distinct, asked)
    if len(choices) == 1 or n_distinct < selection.N_FOLDS:
        return choices[0], []
    trials = selection.cross_validate(
        {weight: part.routed(part.surface(weight)) for weight in {c.surface_weight for c in choices}},
        part.outcomes.scores,
        part.outcomes.costs,
        part.folds(selection.N_FOLDS, seed=seed),
        choices,
        seed=seed,
        progress=lambda done, total: tell("select", done, total),
    )
    return selection.select(trials), _tried(trials)


def _tried(trials: list[selection.Trial]) -> list[Json]:
    """What the artifact says of the candidates."""
    return [
        {
            **_numbers(trial.settings),
            "value": round(trial.value, 6),
            "behind": round(trial.behind, 6),
            "standard_error": round(trial.standard_error, 6),
        }
        for trial in trials
    ]


def _numbers(settings: Settings) -> dict[str, Json]:
    """Settings as the artifact writes them: what says only of one method that it is another is left out."""
    numbers: dict[str, Json] = asdict(settings)
    if not settings.knn:
        del numbers["knn"]
    return numbers


def method_record(requested: str, settings: Settings) -> dict[str, Json]:
    """What the artifact says of its method."""
    chosen = "learned" if settings.learned else "means"
    numbers: dict[str, Json] = asdict(settings)
    del numbers["learned"], numbers["knn"]
    return {"name": chosen if requested == "auto" else requested, "requested": requested, **numbers}


def _ood_threshold(similarities: NDArray[np.float32]) -> float:
    return float(np.clip(np.quantile(similarities, OOD_QUANTILE), -1.0, 1.0))


def _cluster_shares(rows: NDArray[np.float32], artifact: Artifact) -> list[Json]:
    """Mean weight of each cluster over rows, ``[n_clusters]``."""
    ids, similarities = nearest_clusters(rows, artifact.centroids, artifact.top_p)
    weights = softmax_weights(similarities, artifact.beta)
    total = np.bincount(ids.ravel(), weights.ravel(), minlength=len(artifact.centroids))
    return [round(float(share), 6) for share in total / len(rows)]
