"""``centroute export``: a router and its embedder as a bundle, for places where no Python runs."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from centroute import Router
from centroute._router_file import Precision, load_kernel
from centroute._shown import dollars, share
from centroute.artifact import Artifact, Json
from centroute.bundle import (
    EMBEDDER_FOLDER,
    MANIFEST_FILE,
    check_output,
    pack_bundle,
    read_bundle,
    write_bundle,
    write_bundle_tar,
)
from centroute.cli import screen
from centroute.cli.output import refuse_unwritable
from centroute.datasets import Outcomes, read_outcomes
from centroute.embedders import find_folder, load_embedder, read_folder
from centroute.errors import DataError, EmbedderError


def run_export(
    router_file: Path,
    *,
    output: Path,
    precision: Precision | None,
    check: Path | None,
    as_tar: bool,
    embedder: str | None,
) -> None:
    """Write the bundle, and print what it holds and how far it agrees with the full precision."""
    if output.exists() and router_file.exists() and output.samefile(router_file):
        raise DataError(f"{output}: cannot be written (it is an input)")
    if as_tar:
        refuse_unwritable(output)
    else:
        check_output(output)
    bundle = read_bundle(router_file) if router_file.is_dir() else None
    source = router_file if bundle is None else bundle.router
    kernel = load_kernel(source)
    artifact = Artifact.from_kernel(kernel, source=source)
    default: str | Path = artifact.embedder.name if bundle is None else bundle.embedder
    folder = embedder_folder(embedder or default)
    # A file that stays as it is keeps its bytes and its digest.
    same = precision is None or precision == artifact.precision
    exported = artifact if same else replace(artifact, precision=precision or artifact.precision)
    data = source.read_bytes() if same else exported.to_bytes()
    full = Router.from_artifact(artifact, embedder=load_embedder(folder), precision="f32")
    agreement = None if check is None else compare(full, Router.from_artifact(exported), check)
    contents = pack_bundle(data, embedder=folder, agreement=agreement)
    if as_tar:
        write_bundle_tar(contents, output)
    else:
        write_bundle(contents, output)
    size = sum(len(content) for content in contents.values())
    screen.out.print(
        f"wrote {output} ({size / 1e6:.1f} MB): {kernel.n_clusters} clusters in {exported.precision}, "
        f"{len(kernel.models)} models, embedder {folder.name}"
    )
    for name, content in contents.items():
        if name != MANIFEST_FILE:
            digest = hashlib.sha256(content).hexdigest()
            screen.out.print(f"  {name:30} {len(content):>10} bytes  {digest[:16]}…")
    if agreement is not None:
        show_agreement(agreement, exported.precision)


def embedder_folder(name_or_dir: str | Path) -> Path:
    """Folder of an embedder that can be bundled.

    Raises
    ------
    EmbedderError
        If it is not found, damaged, or laid out by another tool.
    """
    folder = read_folder(find_folder(name_or_dir))
    if folder.layout != "centroute":
        raise EmbedderError(
            f"{folder.path}: is laid out as {folder.layout}; a bundle takes folders with model.onnx, "
            f"tokenizer.json and embedder.json (found as {EMBEDDER_FOLDER}/ in it)"
        )
    return folder.path


def compare(full: Router, exported: Router, data: Path) -> dict[str, Json]:
    """What the exported precision changes on outcomes, under the router's default policy.

    Raises
    ------
    DataError
        If the data cannot be read, hold nothing routable, or none of the pool's models.
    """
    outcomes = read_outcomes(data)
    if not set(outcomes.models) & set(full.models):
        raise DataError(f"{data}: has no score of any model of the router")
    rows = full.embed(outcomes.queries, allow_zero_rows=True)
    known = np.flatnonzero(rows.any(axis=1))
    if not len(known):
        raise DataError(f"{data}: no text holds anything that the embedder knows")
    rows = np.ascontiguousarray(rows[known])
    chosen = {}
    for name, router in (("full", full), ("exported", exported)):
        # One query at a time searches in the precision of the file; a batch would search in f32.
        chosen[name] = np.array([router.route_embedding(row).model_id for row in rows])
    return {
        "n_queries": len(known),
        "n_left_out": outcomes.n_queries - len(known),
        "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest() if data.is_file() else None,
        "equal_decisions": round(float(np.mean(chosen["full"] == chosen["exported"])), 6),
        **{name: _measured(outcomes, full.models, known, ids) for name, ids in chosen.items()},
    }


def _measured(
    outcomes: Outcomes, models: tuple[str, ...], rows: np.ndarray, model_ids: np.ndarray
) -> dict[str, Json]:
    """Mean observed score and cost of what was chosen; None where nothing of it is known."""
    columns = {name: column for column, name in enumerate(outcomes.models)}
    column_of = np.array([columns.get(name, -1) for name in models])[model_ids]
    measured: dict[str, Json] = {}
    for name, table in (("accuracy", outcomes.scores), ("mean_cost_usd", outcomes.costs)):
        observed = np.where(column_of >= 0, table[rows, column_of], np.nan).astype(np.float64)
        is_known = ~np.isnan(observed)
        measured[name] = float(observed[is_known].mean()) if is_known.any() else None
        measured[f"n_with_{name}"] = int(is_known.sum())
    return measured


def show_agreement(agreement: dict[str, Any], precision: str) -> None:
    """Print the comparison in three lines."""
    equal = 100 * agreement["equal_decisions"]
    screen.out.print(f"{equal:.2f} % of {agreement['n_queries']} decisions are those of f32")
    for key, name, show in (
        ("accuracy", "accuracy", share),
        ("mean_cost_usd", "mean cost", dollars),
    ):
        full, exported = (agreement[side][key] for side in ("full", "exported"))
        if full is None or exported is None:
            screen.out.print(f"  {name:10} unknown")
        else:
            screen.out.print(f"  {name:10} f32 {show(full)}, {precision} {show(exported)}")
