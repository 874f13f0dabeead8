"""``centroute calibrate``."""

import time
from dataclasses import replace
from pathlib import Path

from centroute.calibrate import calibrate
from centroute.cli import screen
from centroute.cli.check_data import show_costs, show_repeats
from centroute.cli.output import refuse_unwritable
from centroute.datasets import read
from centroute.datasets.check import calibration_fault, find_repeats
from centroute.embedders import load_embedder
from centroute.errors import ArtifactError, DataError
from centroute.policy import parse_policy
from centroute.pool import Pool, apply_pool, read_pool, requirements_as_names, with_pool


def run_calibrate(
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
    if output.exists() and data.exists() and output.samefile(data):
        raise ArtifactError(f"{output}: cannot be written (it is the data)")
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

    report, settings = artifact.report, artifact.method
    screen.out.print(f"{data}: {outcomes.n_queries} queries, {outcomes.n_models} models")
    if report["n_left_out"]:
        screen.out.print(f"  left out: {report['n_left_out']} queries that hold nothing the embedder knows")
    for reason, count in reading.left_out.items():
        screen.out.print(f"  left out: {count} {reason}")
    show_repeats(find_repeats(outcomes), indent="  ")
    if pool is not None:
        show_costs(cost_sources, indent="  ")
    screen.out.print(
        f"method {settings['name']}: {settings['n_clusters']} clusters, top-p {settings['top_p']}, "
        f"beta {screen.plain(settings['beta'])}, shrinkage {screen.plain(settings['shrinkage'])}, "
        f"surface weight {screen.plain(settings['surface_weight'])}"
    )
    where = "holdout" if report["measured_on"] == "holdout" else "the calibration data itself (no holdout)"
    screen.show_evaluation(report["evaluation"], f"Measured on {where}")  # type: ignore[arg-type]
    screen.out.print(
        f"\nwrote {output} ({output.stat().st_size} bytes) in {time.perf_counter() - started:.1f} s"
    )
