"""``centroute calibrate --check``: what was read, and what to know of it before calibrating."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from centroute._shown import dollars, share, show
from centroute.cli import screen
from centroute.datasets import Outcomes, Reading, read
from centroute.datasets.check import (
    Repeats,
    calibration_fault,
    datasets_of_one_model,
    find_repeats,
    find_templates,
)
from centroute.embedders import load_embedder
from centroute.errors import DataError
from centroute.pool import CostSources, Pool, apply_pool, read_pool

_NAMED = 5
_BATCH = 256
_TABLE_WIDTH = 400
_SOURCE_TEXTS = {
    "data": "from the data",
    "token_counts": "from prices and token counts",
    "estimate": "estimated from prices, counted input tokens and stated lengths",
    "unknown": "unknown",
}


def run_check(data: Path, *, pool_file: Path | None, embedder: str) -> None:
    """Read and print; nothing is written.

    Raises
    ------
    DataError
        The data cannot be read, or nothing can be calibrated on them.
    """
    reading = read(data)
    outcomes, cost_sources = apply_pool(
        reading.outcomes, Pool() if pool_file is None else read_pool(pool_file)
    )
    repeats = find_repeats(outcomes)
    n_datasets = len(set(outcomes.datasets) - {""})
    screen.out.print(
        f"{data}: {reading.form}, {outcomes.n_queries} queries ({repeats.n_texts} distinct texts), "
        f"{outcomes.n_models} models, {n_datasets} datasets"
    )
    screen.out.print()
    # As wide as the names ask for: a terminal may break the lines, but no name is cut.
    Console(width=_TABLE_WIDTH, highlight=False, markup=False, emoji=False).print(_models_table(outcomes))
    screen.out.print()
    n_missing = int(np.isnan(outcomes.scores).sum())
    screen.out.print(
        f"missing: {n_missing} of {outcomes.scores.size} scores ({share(n_missing / outcomes.scores.size)})"
    )
    show_costs(cost_sources)
    show_repeats(repeats)
    for template in find_templates(outcomes.queries):
        screen.out.print(f"template: {template.n_texts} texts {template.place} with {show(template.text)}")
    for dataset, n_queries in datasets_of_one_model(outcomes).items():
        screen.out.print(f"one model only was scored on dataset {show(dataset)}, {n_queries} queries")
    _show_left_out(reading, embedder)
    if fault := calibration_fault(outcomes):
        raise DataError(f"{data}: {fault}")


def show_costs(cost_sources: CostSources, *, indent: str = "") -> None:
    """One line that says where the costs of which models come from."""
    parts = []
    for source, text in _SOURCE_TEXTS.items():
        names = [
            name if counts[source] == sum(counts.values()) else f"{name} ({counts[source]} queries)"
            for name, counts in cost_sources.items()
            if counts[source]
        ]
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            parts.append(f"{text}: {', '.join(names[:_NAMED])}{more}")
    screen.out.print(f"{indent}costs {'; '.join(parts)}")


def show_repeats(repeats: Repeats, *, indent: str = "") -> None:
    """One line on texts that repeat, where there are any."""
    if not repeats.n_repeated_texts:
        return
    line = f"repeated: {repeats.n_repeated_texts} texts stand in {repeats.n_repeated_rows} rows"
    if repeats.example is not None:
        (low_id, high_id), (low, high) = repeats.example.ids, repeats.example.scores
        line += (
            f"; {repeats.n_conflicting_texts} of them with scores that differ, as of {repeats.example.model} "
            f"{low:g} on {show(low_id)} and {high:g} on {show(high_id)}; every row counts"
        )
    screen.out.print(indent + line)


def _models_table(outcomes: Outcomes) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("model")
    for heading in ("scores", "missing", "mean score", "costs", "mean cost", "token counts"):
        table.add_column(heading, justify="right")
    observed, priced = ~np.isnan(outcomes.scores), ~np.isnan(outcomes.costs)
    for column, name in enumerate(outcomes.models):
        n_scores, n_costs = int(observed[:, column].sum()), int(priced[:, column].sum())
        costs = outcomes.costs[priced[:, column], column]
        n_counted = 0
        if outcomes.tokens is not None:
            n_counted = int((~np.isnan(outcomes.tokens[:, column])).all(axis=1).sum())
        table.add_row(
            name,
            str(n_scores),
            str(outcomes.n_queries - n_scores),
            f"{np.nanmean(outcomes.scores[:, column]):.3f}",
            str(n_costs),
            dollars(float(costs.mean()) if n_costs else None),
            str(n_counted),
        )
    return table


def _show_left_out(reading: Reading, embedder: str) -> None:
    """What the reader left out, and what calibration would: texts that the embedder knows nothing of."""
    left_out = dict(reading.left_out)
    loaded = load_embedder(embedder)
    queries = reading.outcomes.queries
    n_unknown = 0
    with screen.progress_bar() as tell:
        for start in range(0, len(queries), _BATCH):
            tell("embed", start, len(queries))
            n_unknown += int((~loaded.embed(queries[start : start + _BATCH]).any(axis=1)).sum())
    if n_unknown:
        left_out["queries that hold nothing the embedder knows"] = n_unknown
    for reason, count in left_out.items():
        screen.out.print(f"left out: {count} {reason}")
