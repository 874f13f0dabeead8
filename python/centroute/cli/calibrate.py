"""``centroute calibrate``."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from centroute._engine import Engine
from centroute._shown import dollars, share
from centroute.artifact import Artifact
from centroute.calibrate import calibrate
from centroute.cli import screen
from centroute.cli.check_data import show_costs, show_repeats
from centroute.cli.engines import opened_engine
from centroute.cli.output import refuse_unwritable
from centroute.datasets import read
from centroute.datasets.check import calibration_fault, find_repeats
from centroute.datasets.shards import is_sharded
from centroute.embedders import load_embedder
from centroute.errors import ArtifactError, DataError
from centroute.policy import parse_policy
from centroute.pool import Pool, apply_pool, read_pool, requirements_as_names, with_pool


def run_calibrate(
    data: Sequence[Path],
    output: Path,
    *,
    engine: str | None,
    address: str | None,
    n_workers: int | None,
    checkpoint: Path | None,
    **options: Any,
) -> None:
    """Fit to one file in memory, to shards as a stream."""
    for place in data:
        if output.exists() and place.exists() and output.samefile(place):
            raise ArtifactError(f"{output}: cannot be written (it is the data)")
    if engine is None and checkpoint is None and not is_sharded(data):
        if address is not None or n_workers is not None:
            raise click.UsageError("--address and --workers are for --engine ray.")
        run_in_memory(data[0], output, **options)
        return
    if address is not None and checkpoint is None:
        raise click.UsageError("--address needs --checkpoint, a folder that all machines of the cluster see.")
    with opened_engine(engine, address=address, n_workers=n_workers) as workers:
        run_streamed(data, output, checkpoint=checkpoint, engine=workers, **options)


def run_in_memory(
    data: Path,
    output: Path,
    *,
    pool_file: Path | None,
    embedder: str,
    method: str,
    n_clusters: int | None,
    top_p: int | None,
    beta: float | None,
    surface_weight: float | None,
    holdout: float,
    seed: int,
    refit: bool,
    default_policy: str | None,
) -> None:
    """Read outcomes, fit, print the holdout report, write the file."""
    started = time.perf_counter()
    # What can be refused at once is refused before the long work.
    policy = parse_policy(default_policy) if default_policy is not None else None
    refuse_unwritable(output)
    pool = None if pool_file is None else read_pool(pool_file)
    reading = read(data)
    outcomes, cost_sources = apply_pool(reading.outcomes, pool or Pool())
    if fault := calibration_fault(outcomes):
        raise DataError(f"{data}: {fault}")
    # Calibration knows the names only; tags and context lengths join the artifact after it.
    asked = policy if policy is None or pool is None else requirements_as_names(policy, pool, outcomes.models)
    loaded = load_embedder(embedder)
    with screen.progress_bar() as progress:
        artifact = calibrate(
            outcomes,
            embedder=loaded,
            method=method,
            n_clusters=n_clusters,
            top_p=top_p,
            beta=beta,
            surface_weight=surface_weight,
            holdout=holdout,
            refit=refit,
            seed=seed,
            default_policy=asked,
            progress=progress,
        )
    artifact = replace(with_pool(artifact, pool, cost_sources), default_policy=policy)
    artifact.save(output)

    report = artifact.report
    screen.out.print(f"{data}: {outcomes.n_queries} queries, {outcomes.n_models} models")
    _show_left_out(report["n_left_out"])
    for reason, count in reading.left_out.items():
        screen.out.print(f"  left out: {count} {reason}")
    show_repeats(find_repeats(outcomes), indent="  ")
    if pool is not None:
        show_costs(cost_sources, indent="  ")
    _show_settings(artifact)
    where = "holdout" if report["measured_on"] == "holdout" else "the calibration data itself (no holdout)"
    screen.show_evaluation(report["evaluation"], f"Measured on {where}")  # type: ignore[arg-type]
    _show_written(output, started)


def run_streamed(
    data: Sequence[Path],
    output: Path,
    *,
    checkpoint: Path | None,
    engine: Engine,
    pool_file: Path | None,
    default_policy: str | None,
    **options: Any,
) -> None:
    """Fit to shards, print what the holdout showed, write the file, remove the checkpoint."""
    from centroute.calibrate.checkpoint import remove_checkpoint
    from centroute.calibrate.streaming import calibrate_shards

    started = time.perf_counter()
    policy = parse_policy(default_policy) if default_policy is not None else None
    refuse_unwritable(output)
    pool = None if pool_file is None else read_pool(pool_file)
    with screen.progress_bar() as progress:
        artifact = calibrate_shards(
            data,
            default_policy=policy,
            pool=pool,
            checkpoint=checkpoint,
            engine=engine,
            progress=progress,
            **options,
        )
    artifact.save(output)
    if checkpoint is not None:
        remove_checkpoint(checkpoint)

    report: Mapping[str, Any] = artifact.report
    streaming = report["streaming"]
    screen.out.print(
        f"{streaming['n_shards']} shards: {report['n_queries']} queries, {len(artifact.models)} models"
    )
    _show_left_out(report["n_left_out"])
    if pool is not None:
        show_costs(report["cost_sources"], indent="  ")
    _show_settings(artifact)
    measured = streaming["measured"]
    best, oracle = measured["best_single"], measured["oracle"]
    where = "the holdout" if report["measured_on"] == "holdout" else "the calibration data (no holdout)"
    screen.out.print(
        f"all of {where}, {measured['n_queries']} queries: accuracy {share(measured['accuracy'])} at "
        f"{dollars(measured['mean_cost_usd'])} a query; best single ({best['model']}) "
        f"{share(best['accuracy'])} at {dollars(best['mean_cost_usd'])}; oracle {share(oracle['accuracy'])}"
    )
    screen.show_evaluation(report["evaluation"], f"Measured on a sample of {where}")
    _show_written(output, started)


def _show_left_out(n_left_out: object) -> None:
    if n_left_out:
        screen.out.print(f"  left out: {n_left_out} queries that hold nothing the embedder knows")


def _show_settings(artifact: Artifact) -> None:
    settings = artifact.method
    screen.out.print(
        f"method {settings['name']}: {settings['n_clusters']} clusters, top-p {settings['top_p']}, "
        f"beta {screen.plain(settings['beta'])}, shrinkage {screen.plain(settings['shrinkage'])}, "
        f"surface weight {screen.plain(settings['surface_weight'])}"
    )


def _show_written(output: Path, started: float) -> None:
    screen.out.print(
        f"\nwrote {output} ({output.stat().st_size} bytes) in {time.perf_counter() - started:.1f} s"
    )
