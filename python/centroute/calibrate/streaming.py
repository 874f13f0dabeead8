"""``calibrate_shards``: a router from more outcomes than memory holds.

Shards are embedded once to disk, and every step after it is a pass over them: partial sums of each shard,
added up (:mod:`centroute.calibrate.partials`). What needs rows side by side is done on a uniform sample of at
most `SAMPLE_ROWS` rows by the code that calibrates in memory: settings left open are chosen there, k-means
starts from the clusters of the sample, and thresholds of pairs, agreement, roles and the evaluation with all
its figures are the sample's. Centroids, tables, standard errors, frontier, the threshold for what is out of
distribution and the holdout's own figures in ``report["streaming"]`` are of all rows.

A text's side, and its fold of the cross-fitting, are drawn by its hash, so that equal texts stay together in
whatever shards they are. Tables of the other folds share the centroids of all rows: these know no score.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from centroute._engine import Engine, LocalEngine
from centroute._kernel import Policy, __version__
from centroute.artifact import Artifact, EmbedderId, Json, PoolModel
from centroute.calibrate.agreement import estimate_agreement
from centroute.calibrate.assignment import blend, nearest_clusters, softmax_weights
from centroute.calibrate.checkpoint import Checkpoint, opened_checkpoint
from centroute.calibrate.fitting import Part
from centroute.calibrate.frontier import N_FOLDS, level, willingness_amounts
from centroute.calibrate.kmeans import MAX_ITERATIONS, TOLERANCE, spherical_kmeans
from centroute.calibrate.pairs import pair_curves
from centroute.calibrate.partials import (
    ClusterSums,
    Partial,
    Reader,
    RowSums,
    SumClusters,
    SumRows,
    added,
)
from centroute.calibrate.partials_holdout import HoldoutSums, SumHoldout
from centroute.calibrate.partials_tables import CellSums, FitSums, SumCells, SumFit, unseen_predictions
from centroute.calibrate.pipeline import (
    MIN_MODELS,
    MIN_OUTCOMES,
    OOD_QUANTILE,
    Progress,
    check_numbers,
    choose_settings,
    method_record,
)
from centroute.calibrate.roles import check_roles, estimate_roles
from centroute.calibrate.settings import AVENGERS_PRO, Asked, Settings
from centroute.calibrate.shards import (
    EmbeddedShard,
    Embedding,
    Rows,
    add_sources,
    loaded_embedder,
    located_embedder,
)
from centroute.calibrate.streaming_sample import Sample, TakeSample
from centroute.calibrate.uncertainty import standard_errors
from centroute.datasets import Outcomes
from centroute.datasets.shards import Shard, check_schemas, find_shards, shard_models
from centroute.embedders import Embedder
from centroute.errors import DataError
from centroute.evaluate import evaluate
from centroute.evaluate.baselines import best_single_id
from centroute.pool import CostSources, Pool, requirements_as_names, with_pool
from centroute.router import Router
from centroute.surface import SurfaceFeatures, routed_identity

STREAMED_METHODS = ("auto", "learned", "means", *AVENGERS_PRO)
SAMPLE_ROWS = 40_000
"""Rows of the sample; their number varies by some hundred, since each is drawn for itself."""
SAMPLE_ROWS_PER_CLUSTER = 20

P = TypeVar("P", bound=Partial)


def calibrate_shards(
    places: Iterable[str | os.PathLike[str]],
    *,
    embedder: str = "static-256",
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
    pool: Pool | None = None,
    initial_centroids: NDArray[np.float32] | None = None,
    sample_rows: int = SAMPLE_ROWS,
    checkpoint: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Fit a router to shards of outcomes, which need not fit into memory.

    Parameters
    ----------
    places
        Folders, patterns and files, as :func:`centroute.datasets.shards.find_shards` takes them.
    embedder
        Name or folder of the embedder.
    method, n_clusters, top_p, beta, shrinkage, surface_weight, holdout, refit, seed
        As of :func:`centroute.calibrate.calibrate`. What is left ``None`` is chosen on the sample.
    default_policy
        Stored in the artifact.
    pool
        Prices, tags and lengths, for costs that the shards lack.
    initial_centroids
        Unit rows ``[n_clusters, width]`` that k-means starts from; clusters of the sample when not given.
    sample_rows
        Rows of the sample at most, but for chance, and at least `SAMPLE_ROWS_PER_CLUSTER` a cluster asked
        for.
    checkpoint
        Folder of what is done so far: a run that was stopped goes on there. It holds the embedded shards,
        some 1.2 kB a query with 256 numbers, stays when the run is done, and may be removed then. In a
        temporary folder, without going on, when not given.
    engine
        What runs the work; this process when not given.
    progress
        Told how far the work is.

    Raises
    ------
    DataError
        A shard or the checkpoint is at fault, or the outcomes do not carry a calibration; names it.
    EmbedderError
        If the embedder cannot be loaded.
    PolicyError
        If the default policy does not fit the pool.
    """
    if method not in STREAMED_METHODS:
        raise DataError(f"method {method!r}: shards are calibrated by one of {', '.join(STREAMED_METHODS)}")
    asked = Asked(n_clusters, top_p, beta, shrinkage, surface_weight)
    check_numbers(asked, holdout=holdout, seed=seed)
    shards = find_shards(places)
    models = shard_models(shards[0])
    if len(models) < MIN_MODELS:
        raise DataError(f"there is one model, {models[0]!r}, and so nothing to choose between")
    check_schemas(shards, models)
    prices = pool or Pool()
    prices.check_names(models)
    workers = engine or LocalEngine()
    located = located_embedder(embedder)
    loaded = loaded_embedder(located, workers.threads)
    if asked.surface_weight is None and (method in AVENGERS_PRO or loaded.fingerprint is None):
        asked = replace(asked, surface_weight=0.0)
    run: dict[str, Json] = {
        "package version": __version__,
        "set of shards": [[shard.path.name, shard.n_bytes, shard.changed_ns] for shard in shards],
        "embedder": [loaded.name, loaded.fingerprint],
        "pool file": json.dumps(asdict(prices) | {"source": ""}, default=sorted, sort_keys=True),
        "seed": seed,
        "holdout": holdout,
        "set of settings": [method, asdict(asked), refit, sample_rows, _digest(initial_centroids)],
    }
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="centroute-"))
            if checkpoint is None
            else checkpoint
        )
        kept = stack.enter_context(opened_checkpoint(folder.absolute(), run))
        stream = _Stream(
            engine=workers,
            kept=kept,
            tell=progress or (lambda *_: None),
            embedder=loaded,
            models=models,
            holdout=holdout,
            seed=seed,
        )
        stream.embed(
            shards, Embedding(kept.embedded, located, models, shards[0], prices, seed, workers.threads)
        )
        return _calibrated(
            stream,
            method=method,
            asked=asked,
            refit=refit,
            sample_rows=max(sample_rows, SAMPLE_ROWS_PER_CLUSTER * (asked.n_clusters or 0)),
            initial_centroids=initial_centroids,
            default_policy=default_policy,
            pool=pool,
        )


@dataclass(kw_only=True)
class _Stream:
    """The embedded shards of a run, and passes over them."""

    engine: Engine
    kept: Checkpoint
    tell: Progress
    embedder: Embedder
    models: tuple[str, ...]
    holdout: float
    seed: int
    shards: list[EmbeddedShard] = field(default_factory=list)
    n_left_out: int = 0
    cost_sources: CostSources = field(default_factory=dict)
    data_sha256: str = ""

    def embed(self, shards: Sequence[Shard], embedding: Embedding) -> None:
        """Embed the shards that are not embedded yet."""
        found = {
            number: EmbeddedShard.open(embedding.place(number), number)
            for number in range(len(shards))
            if embedding.place(number).exists()
        }
        for _ in self.engine.map(EmbeddedShard.verify, list(found.values())):
            pass
        missing = [(number, shard) for number, shard in enumerate(shards) if number not in found]
        self.tell("embed", len(found), len(shards))
        is_graph = self.embedder.runtime != "centroute"
        for done in self.engine.scatter(embedding, missing, is_graph=is_graph):
            found[done.number] = done
            self.tell("embed", len(found), len(shards))
        self.shards = [found[number] for number in range(len(shards))]
        hasher = hashlib.sha256("\n".join(self.models).encode())
        for shard in self.shards:
            description = shard.description
            self.n_left_out += int(description["n_left_out"])
            self.cost_sources = add_sources(self.cost_sources, description["cost_sources"])
            hasher.update(bytes.fromhex(description["sha256"]))
        self.data_sha256 = hasher.hexdigest()

    def reader(self, rows: Rows, surface: SurfaceFeatures | None = None) -> Reader:
        """How passes read the rows of a side."""
        return Reader(rows, self.holdout, surface)

    def add_up(self, job: Callable[[EmbeddedShard], P], step: str) -> P:
        """One pass: the parts of all shards, added up."""

        def counted(parts: Iterable[P]) -> Iterable[P]:
            for done, part in enumerate(parts):
                self.tell(step, done, len(self.shards))
                yield part
            self.tell(step, len(self.shards), len(self.shards))

        total = added(counted(self.engine.map(job, self.shards)))
        assert total is not None  # noqa: S101, there is at least one shard
        return total

    def cluster(
        self, step: str, reader: Reader, start: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], int]:
        """Centroids by k-means over all rows of the reader, largest cluster first, and passes made."""
        centroids, before, n_iterations = start, -np.inf, 0
        if (state := self.kept.load(step)) is not None:
            centroids, before = state["centroids"], float(state["before"])
            n_iterations = int(state["n_iterations"])
            if bool(state["is_done"]):
                return centroids, n_iterations
        while True:
            sums: ClusterSums = self.add_up(
                SumClusters(reader, centroids), f"clusters, pass {n_iterations + 1}"
            )
            mean, has_empty = sums.mean_similarity, bool((sums.counts == 0).any())
            is_done = n_iterations == MAX_ITERATIONS or (mean - before < TOLERANCE and not has_empty)
            if is_done:
                centroids = centroids[np.argsort(-sums.counts, kind="stable")]
            else:
                centroids = sums.step(centroids)
            before, n_iterations = mean, n_iterations + (not is_done)
            self.kept.save(
                step,
                centroids=centroids,
                before=np.array(before),
                n_iterations=np.array(n_iterations),
                is_done=np.array(is_done),
            )
            if is_done:
                return np.ascontiguousarray(centroids), n_iterations


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """An artifact without threshold and report, and what it was fitted by."""

    artifact: Artifact
    reader: Reader
    n_iterations: int


def _calibrated(
    stream: _Stream,
    *,
    method: str,
    asked: Asked,
    refit: bool,
    sample_rows: int,
    initial_centroids: NDArray[np.float32] | None,
    default_policy: Policy | None,
    pool: Pool | None,
) -> Artifact:
    every: RowSums = stream.add_up(SumRows(stream.reader("all")), "counting")
    inside = stream.add_up(SumRows(stream.reader("calibration")), "counting") if stream.holdout else every
    _check_counts(stream, every, inside)
    n_holdout = every.count - inside.count
    sample = _sample(stream, every.count, sample_rows)
    settings, tried = _settings(stream, method, sample.part("calibration", stream.holdout), asked)
    policy = default_policy
    if policy is not None and pool is not None:
        policy = requirements_as_names(policy, pool, stream.models)

    def fit_to(rows: Rows, sums: RowSums, start: NDArray[np.float32] | None, *, is_written: bool) -> _Fitted:
        part = sample.part(rows, stream.holdout)
        fitted = _fit(
            stream, rows, sums=sums, part=part, settings=settings, start=start, is_written=is_written
        )
        artifact = replace(
            fitted.artifact,
            alpha_score=AVENGERS_PRO.get(method, "cost-by-maximum"),
            default_policy=policy,
            method=method_record(method, settings),
        )
        return replace(fitted, artifact=artifact)

    is_refitted = refit and n_holdout > 0
    first = fit_to("calibration", inside, initial_centroids, is_written=not is_refitted)
    measured_rows: Rows = "holdout" if n_holdout else "calibration"
    job = SumHoldout(replace(first.reader, rows=measured_rows), first.artifact.to_bytes())
    measured: HoldoutSums = stream.add_up(job, "measuring")
    held_out = sample.part(measured_rows, stream.holdout)
    evaluation = evaluate(
        Router.from_artifact(first.artifact),
        held_out.outcomes,
        embeddings=held_out.routed(first.artifact.embedder.surface),
    )
    final, shares = first, measured.weights
    if is_refitted:
        # All rows may ask for another set of surface features than those of the calibration side.
        surfaces = (every.surface(settings.surface_weight), inside.surface(settings.surface_weight))
        is_same_set = len({surface and surface.name for surface in surfaces}) == 1
        start = first.artifact.centroids if is_same_set else None
        final = fit_to("all", every, start, is_written=True)
        job = SumHoldout(replace(final.reader, rows=measured_rows), final.artifact.to_bytes())
        shares = stream.add_up(job, "measuring").weights
    ood_threshold = None
    if method not in AVENGERS_PRO:
        ood_threshold = float(np.clip(measured.similarity_quantiles([OOD_QUANTILE])[0], -1.0, 1.0))
    artifact = replace(
        final.artifact,
        default_policy=default_policy,
        ood_threshold=ood_threshold,
        report={
            "seed": stream.seed,
            "holdout": stream.holdout,
            "refit": is_refitted,
            "n_queries": every.count,
            "n_left_out": stream.n_left_out,
            "n_calibration": inside.count,
            "n_holdout": n_holdout,
            "outcomes_per_model": {
                name: int(count) for name, count in zip(stream.models, every.n_scores, strict=True)
            },
            "data_sha256": stream.data_sha256,
            "tried": tried,
            "measured_on": measured_rows,
            "similarity_quantiles": measured.similarity_quantiles(np.linspace(0, 1, 11)).round(6).tolist(),
            "cluster_shares": (shares / measured.n_queries).round(6).tolist(),
            "evaluation": evaluation.to_json(),  # type: ignore[dict-item]
            "streaming": {
                "n_shards": len(stream.shards),
                "n_sampled": len(sample.keys),
                "of_the_sample": ["settings", "evaluation", "pairs", "agreement", "roles"],
                "iterations": [first.n_iterations, *([final.n_iterations] if is_refitted else [])],
                "measured": _measured_json(measured, first.artifact),
            },
        },
    )
    return with_pool(artifact, pool, stream.cost_sources)


def _check_counts(stream: _Stream, every: RowSums, inside: RowSums) -> None:
    if not every.count:
        raise DataError(
            f"none of the {stream.n_left_out} queries holds anything that {stream.embedder.name} knows"
        )
    for side, count in (("calibration", inside.count), ("holdout", every.count - inside.count)):
        if not count and (side == "calibration" or stream.holdout):
            raise DataError(
                f"a holdout of {stream.holdout} of {every.count} queries leaves none for {side}; give more "
                "queries or another share"
            )
    for name, n_scores, n_inside in zip(stream.models, every.n_scores, inside.n_scores, strict=True):
        if n_scores < MIN_OUTCOMES or not n_inside:
            where = "" if n_scores < MIN_OUTCOMES else " in the calibration part"
            raise DataError(
                f"model {name!r} has {int(n_inside if where else n_scores)} outcomes{where}, at least "
                f"{1 if where else MIN_OUTCOMES} are needed; add outcomes or leave it out"
            )


def _sample(stream: _Stream, n_queries: int, sample_rows: int) -> Sample:
    share = min(1.0, sample_rows / n_queries)
    taken = list(stream.engine.map(TakeSample(share, stream.seed), stream.shards))
    sample = Sample.joined(taken, stream.models)
    check_roles(sample.outcomes)
    return sample


def _settings(stream: _Stream, method: str, part: Part, asked: Asked) -> tuple[Settings, list[Json]]:
    """The settings, chosen on the sample unless an earlier run did."""
    if (kept := stream.kept.load("settings")) is not None:
        found = json.loads(kept["json"].tobytes())
        return Settings(**found["settings"]), found["tried"]
    settings, tried = choose_settings(method, part, asked, seed=stream.seed, tell=stream.tell)
    packed = json.dumps({"settings": asdict(settings), "tried": tried}).encode()
    stream.kept.save("settings", json=np.frombuffer(packed, dtype=np.uint8))
    return settings, tried


def _fit(
    stream: _Stream,
    rows: Rows,
    *,
    sums: RowSums,
    part: Part,
    settings: Settings,
    start: NDArray[np.float32] | None,
    is_written: bool,
) -> _Fitted:
    """Fit to the rows of one side; ``part`` is the sample's share of them."""
    surface = sums.surface(settings.surface_weight)
    reader = stream.reader(rows, surface)
    sampled = part.routed(surface)
    if start is None:
        start = spherical_kmeans(sampled, n_clusters=settings.n_clusters, seed=stream.seed).centroids
    elif start.shape != (settings.n_clusters, sampled.shape[1]):
        wanted = [settings.n_clusters, sampled.shape[1]]
        raise DataError(f"initial centroids {list(start.shape)}: wanted {wanted}")
    centroids, n_iterations = stream.cluster(f"clusters-{rows}", reader, start)
    cells: CellSums = stream.add_up(SumCells(reader, centroids, settings), "fitting tables")
    everything = np.ones(N_FOLDS, dtype=np.bool_)
    tables = cells.tables(settings, everything)
    of_others = [cells.tables(settings, np.arange(N_FOLDS) != fold) for fold in range(N_FOLDS)]
    others = (np.stack([found.quality for found in of_others]), np.stack([found.cost for found in of_others]))
    ids, similarities = nearest_clusters(sampled, centroids, min(settings.top_p, len(centroids)))
    weights = softmax_weights(similarities, settings.beta)
    own = blend(ids, weights, tables.quality), blend(ids, weights, tables.cost)
    unseen = unseen_predictions(ids, weights, _folds(part.outcomes), others)
    amounts = np.zeros(0) if np.isnan(own[1]).any() else willingness_amounts(*own).astype(np.float64)
    fit: FitSums = stream.add_up(
        SumFit(reader, centroids, settings, tables.quality, tables.cost, others, amounts), "fitting tables"
    )
    errors = standard_errors(
        fit.squares, fit.counts, fit.pooled / np.maximum(fit.n_scores, 1), shrinkage=settings.shrinkage
    )
    outcomes = part.outcomes
    dim, fingerprint = routed_identity(stream.embedder, surface)
    artifact = Artifact(
        models=tuple(PoolModel(name) for name in stream.models),
        embedder=EmbedderId(stream.embedder.name, dim, fingerprint, surface),
        centroids=centroids,
        quality=tables.quality.astype(np.float32),
        cost=tables.cost.astype(np.float32),
        count=tables.count.astype(np.float32),
        prior_quality=tables.prior_quality.astype(np.float32),
        prior_cost=tables.prior_cost.astype(np.float32),
        frontier=level(np.column_stack([amounts, _means(fit.reached), _means(fit.spent)])),
        top_p=settings.top_p,
        beta=settings.beta,
        method={},
        quality_se=errors.astype(np.float32),
        pairs=pair_curves(own, unseen, outcomes.scores, outcomes.costs, tables.prior_quality),
        agreement=estimate_agreement(outcomes, predicted=unseen[0]) if is_written else None,
        roles=estimate_roles(outcomes, predicted=unseen) if is_written else None,
    )
    return _Fitted(artifact, reader, n_iterations)


def _folds(outcomes: Outcomes) -> NDArray[np.intp]:
    """Folds of a sample's rows, whose texts are their keys."""
    return np.array([int(key, 16) & 0xFFFF_FFFF for key in outcomes.queries], dtype=np.intp) % N_FOLDS


def _means(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means from sums and numbers ``[n, 2]``; NaN where nothing was observed."""
    return np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1.0), np.nan)


def _measured_json(measured: HoldoutSums, artifact: Artifact) -> dict[str, Json]:
    """Figures over all measured rows."""

    def figures(sums: NDArray[np.float64]) -> dict[str, Json]:
        accuracy, cost = (None if np.isnan(mean) else float(mean) for mean in _means(sums.reshape(2, 2)))
        return {"accuracy": accuracy, "mean_cost_usd": cost}

    best = best_single_id(artifact.prior_quality, artifact.prior_cost)
    return {
        "n_queries": measured.n_queries,
        **figures(measured.chosen),
        "best_single": {"model": artifact.models[best].name, **figures(measured.models[best])},
        "oracle": figures(measured.oracle),
        "random": figures(measured.random),
        "models": [
            {"name": model.name, **figures(sums), "share": float(share / measured.n_queries)}
            for model, sums, share in zip(artifact.models, measured.models, measured.shares, strict=True)
        ],
    }


def _digest(centroids: NDArray[np.float32] | None) -> str | None:
    return None if centroids is None else hashlib.sha256(centroids.tobytes()).hexdigest()
