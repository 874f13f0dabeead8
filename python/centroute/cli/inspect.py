"""``centroute inspect``."""

import json
import sys
from pathlib import Path

import numpy as np
from rich.table import Table

from centroute._router_file import find_embedder, load_kernel, read_metadata
from centroute._shown import dollars
from centroute.artifact import Artifact
from centroute.bundle import ROUTER_FILE
from centroute.cli import screen
from centroute.embedders import load_embedder
from centroute.errors import EmbedderError


def run_inspect(router_file: Path, *, as_json: bool) -> None:
    """Show what a router file holds and how it was made."""
    kernel = load_kernel(router_file)
    artifact = Artifact.from_kernel(kernel, source=router_file)
    metadata = read_metadata(kernel)
    size = (router_file / ROUTER_FILE if router_file.is_dir() else router_file).stat().st_size
    runs_on = _runs_on(find_embedder(router_file, kernel))
    if as_json:
        tensors = {name: list(values.shape) for name, values in kernel.tensors().items()}
        described = {
            "file": str(router_file),
            "bytes": size,
            **metadata,
            "tensors": tensors,
            "runs_on": runs_on,
        }
        sys.stdout.write(json.dumps(described, indent=1) + "\n")
        return
    screen.out.print(f"{router_file} ({size} bytes, format version {metadata['format_version']})")
    facts = {
        "written by": f"centroute {metadata.get('centroute_version', 'unknown')}",
        "embedder": f"{artifact.embedder.name}, dim {artifact.embedder.dim}, "
        f"fingerprint {(artifact.embedder.fingerprint or 'none')[:16]}",
        "embedder runs on": runs_on or "not here: there is none of that name",
        "clusters": f"{kernel.n_clusters}, top-p {artifact.top_p}, beta {artifact.beta:g}",
        "method": ", ".join(f"{name} {screen.plain(value)}" for name, value in artifact.method.items()),
        "out of distribution": "never"
        if artifact.ood_threshold is None
        else f"below similarity {artifact.ood_threshold:.3f}",
        "default policy": str(artifact.default_policy)
        if artifact.default_policy
        else "quality first, ties by cost",
        "sha256": metadata["sha256"],
    }
    for name, fact in facts.items():
        screen.out.print(f"  {name:20} {fact}")
    screen.out.print()
    screen.out.print(_pool_table(artifact), soft_wrap=False)
    evaluation = artifact.report.get("evaluation")
    if isinstance(evaluation, dict) and evaluation.keys() >= screen.TABLE_KEYS:
        where = artifact.report.get("measured_on", "unknown data")
        title = f"Measured on {where}, {evaluation['n_queries']} queries"
        screen.out.print()
        screen.out.print(title, style="italic")
        screen.out.print(screen.evaluation_table(evaluation), soft_wrap=False)


def _runs_on(name: str | Path) -> str | None:
    """What runs the embedder on this machine, and where; ``None`` where it is not found."""
    try:
        embedder = load_embedder(name)
    except EmbedderError:
        return None
    return f"{embedder.device}, by {embedder.runtime}"


def _pool_table(artifact: Artifact) -> Table:
    table = Table(title="Pool", title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("model")
    for heading in ("mean quality", "mean cost", "outcomes", "best in clusters"):
        table.add_column(heading, justify="right")
    best = np.bincount(artifact.quality.argmax(axis=1), minlength=len(artifact.models))
    for column, model in enumerate(artifact.models):
        table.add_row(
            model.name,
            f"{artifact.prior_quality[column]:.3f}",
            dollars(float(artifact.prior_cost[column])),
            f"{artifact.count[:, column].sum():.0f}",
            str(best[column]),
        )
    return table
