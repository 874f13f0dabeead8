"""``centroute edit``: a router file in, the edited one in its place or under another name."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from centroute._router_file import load_kernel, read_metadata
from centroute._shown import dollars
from centroute.artifact import Artifact
from centroute.cli import screen
from centroute.cli.output import refuse_unwritable
from centroute.datasets import read_outcomes
from centroute.edit import FEW_OUTCOMES, add_model, drop_model, set_price
from centroute.embedders import load_embedder
from centroute.errors import ArtifactError, DataError
from centroute.feedback import absorb
from centroute.logged_decisions import read_decisions, read_feedback
from centroute.pool import Pool, apply_pool, read_pool


def run_add_model(
    router: Path,
    name: str,
    *,
    data: Path,
    pool_file: Path | None,
    embedder: str | None,
    output: Path | None,
) -> None:
    """Fit the new model's column and write the router."""
    target = _target(router, output)
    if target.exists() and data.exists() and target.samefile(data):
        raise ArtifactError(f"{target}: cannot be written (it is the data)")
    artifact = Artifact.load(router)
    pool = Pool() if pool_file is None else read_pool(pool_file)
    others = (name, *(model.name for model in artifact.models))
    outcomes, _ = apply_pool(read_outcomes(data), pool, others=others)
    loaded = None if embedder is None else load_embedder(embedder)
    try:
        with screen.progress_bar() as progress:
            edited = add_model(artifact, name, outcomes, embedder=loaded, progress=progress)
    except ArtifactError as error:
        raise ArtifactError(f"{router}: {error}") from error
    except DataError as error:
        raise DataError(f"{data}: {error}") from error
    edited = replace(edited, models=(*edited.models[:-1], pool.model(name)))
    edited.save(target)
    edit = _last_edit(edited)
    if edit["n_outcomes"] < FEW_OUTCOMES:
        screen.warn(f"{edit['n_outcomes']} outcomes are few: what {name} is predicted is mostly the pool's")
    screen.out.print(
        f"added {name}: {edit['n_outcomes']} outcomes, mean quality {edited.prior_quality[-1]:.3f}, "
        f"mean cost {dollars(float(edited.prior_cost[-1]))}"
    )
    if edit["n_frontier_queries"]:
        screen.out.print(f"frontier: measured anew on {edit['n_frontier_queries']} queries of {data}")
    _tell(artifact, edited, target)


def run_drop_model(router: Path, name: str, *, output: Path | None) -> None:
    """Take the model out and write the router."""
    target = _target(router, output)
    artifact = Artifact.load(router)
    try:
        edited = drop_model(artifact, name)
    except ArtifactError as error:
        raise ArtifactError(f"{router}: {error}") from error
    edited.save(target)
    screen.out.print(f"dropped {name}; the pool is {', '.join(model.name for model in edited.models)}")
    _tell(artifact, edited, target)


def run_set_price(router: Path, name: str, *, output: Path | None, **prices: Any) -> None:
    """Set prices, costs with them, and write the router."""
    target = _target(router, output)
    artifact = Artifact.load(router)
    try:
        edited = set_price(artifact, name, **prices)
    except ArtifactError as error:
        raise ArtifactError(f"{router}: {error}") from error
    edited.save(target)
    edit = _last_edit(edited)
    if "mean_cost_usd" in edit:
        before, after = (dollars(edit[key]) for key in ("mean_cost_usd_before", "mean_cost_usd"))
        screen.out.print(f"priced {name}: mean cost {before} before, {after} now")
    else:
        column = [model.name for model in edited.models].index(name)
        cost = dollars(float(edited.prior_cost[column]))
        screen.out.print(f"priced {name}: its mean cost, {cost}, is as before")
    _tell(artifact, edited, target)


def run_absorb(router: Path, log: Path, *, feedback: Path | None, output: Path | None) -> None:
    """Fold feedback on logged decisions into the tables and write the router."""
    target = _target(router, output)
    for source in (log, feedback):
        if source is not None and target.exists() and source.exists() and target.samefile(source):
            raise ArtifactError(f"{target}: cannot be written (it is the log)")
    kernel = load_kernel(router)
    artifact = Artifact.from_kernel(kernel, source=router)
    sources = [log] if feedback is None else [log, feedback]
    try:
        absorbed = absorb(
            artifact,
            read_decisions(log),
            chain.from_iterable(map(read_feedback, sources)),
            sha256=read_metadata(kernel)["sha256"],
        )
    except ArtifactError as error:
        raise ArtifactError(f"{router}: {error}") from error
    except DataError as error:
        named = str(error).startswith(tuple(map(str, sources)))
        raise DataError(str(error) if named else f"{log}: {error}") from error
    edited = absorbed.artifact
    edited.save(target)
    for name, model in _last_edit(edited)["models"].items():
        before, after = (dollars(model[key]) for key in ("mean_cost_usd_before", "mean_cost_usd"))
        screen.out.print(
            f"{name}: {model['n_outcomes']} scores, {model['n_costs']} costs; mean quality "
            f"{model['mean_quality_before']:.3f} before, {model['mean_quality']:.3f} now; "
            f"mean cost {before} before, {after} now"
        )
    for number, what in (
        (absorbed.n_repeated, "on a decision that had some already; the last counts"),
        (absorbed.n_unmatched, f"on decisions that {log} does not have of this router file"),
        (absorbed.n_without_cost, "with the cost of a model whose cost is unknown; the costs are left out"),
    ):
        if number:
            screen.warn(f"{number} of feedback {what}")
    if len(edited.frontier):
        screen.out.print(f"frontier: predicted anew on {_last_edit(edited)['n_frontier_queries']} decisions")
    _tell(artifact, edited, target)


def _target(router: Path, output: Path | None) -> Path:
    target = router if output is None else output
    refuse_unwritable(target)
    return target


def _last_edit(artifact: Artifact) -> dict[str, Any]:
    return artifact.report["edits"][-1]  # type: ignore[index, return-value]


def _tell(before: Artifact, after: Artifact, target: Path) -> None:
    """What an edit took away besides, and where the router went."""
    if len(before.frontier) and not len(after.frontier):
        screen.out.print("frontier: dropped, it was measured before the edit; max-mean-cost needs a new one")
    if before.default_policy != after.default_policy:
        screen.out.print(f"default policy: {after.default_policy}")
    screen.out.print(f"wrote {target} ({target.stat().st_size} bytes)")
