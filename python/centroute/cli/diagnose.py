"""``centroute diagnose``."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from centroute._atomic import write_atomic
from centroute._shown import dollars, share
from centroute.cli import screen
from centroute.cli.output import refuse_unwritable, write_json
from centroute.datasets import read
from centroute.diagnose import Diagnosis, diagnose
from centroute.diagnose.draws import Estimate
from centroute.diagnose.figures import EmbedderDiagnosis, Reached
from centroute.errors import DataError
from centroute.pool import Pool, apply_pool, read_pool

_TABLE_WIDTH = 400
_NAMED = 4

Rows = Sequence[Sequence[str]]


def run_diagnose(
    data: Path,
    *,
    embedders: Sequence[str],
    pool_file: Path | None,
    willingness_to_pay: float | None,
    n_clusters: int | None,
    n_folds: int,
    n_splits: int,
    max_rows: int,
    seed: int,
    json_file: Path | None,
    markdown: Path | None,
) -> None:
    """Read outcomes, diagnose, print tables and advice, write JSON and Markdown."""
    started = time.perf_counter()
    # What can be refused at once is refused before the long work.
    to_stdout = json_file is not None and str(json_file) == "-"
    for output in (None if to_stdout else json_file, markdown):
        if output is not None:
            refuse_unwritable(output)
            if output.exists() and data.exists() and output.samefile(data):
                raise DataError(f"{output}: cannot be written (it is the data)")
    outcomes, _ = apply_pool(read(data).outcomes, Pool() if pool_file is None else read_pool(pool_file))
    with screen.progress_bar() as progress:
        found = diagnose(
            outcomes,
            embedders=tuple(name for given in embedders for name in given.split(",") if name),
            willingness_to_pay=willingness_to_pay,
            n_clusters=n_clusters,
            n_folds=n_folds,
            n_splits=n_splits,
            max_rows=max_rows,
            seed=seed,
            progress=progress,
        )
    if json_file is not None:
        write_json(json_file, found.to_json())
    if markdown is not None:
        _write(markdown, _markdown(found, data))
    if to_stdout:
        return
    screen.out.print(_heading(found, data))
    for title, heads, rows in _tables(found):
        screen.out.print()
        screen.out.print(title, style="italic")
        # As wide as the names ask for: a terminal may break the lines, but no name is cut.
        Console(width=_TABLE_WIDTH, highlight=False, markup=False, emoji=False).print(_table(heads, rows))
    screen.out.print()
    for note in _notes(found):
        screen.out.print(note)
    screen.out.print()
    screen.out.print(f"Advice: {found.advice.verdict}", style="bold")
    screen.out.print(found.advice.reason)
    screen.out.print(f"\n{time.perf_counter() - started:.0f} s")


def _heading(found: Diagnosis, data: Path) -> str:
    repeated = "" if found.n_texts == found.n_queries else f" ({found.n_texts} distinct texts)"
    parts = [
        f"{found.n_queries} queries{repeated}",
        f"{found.n_models} models",
        f"{found.n_datasets} datasets" if found.n_datasets else "no dataset labels",
        f"{found.n_folds} folds, {found.n_splits} split{'' if found.n_splits == 1 else 's'}",
    ]
    line = f"{data}: {', '.join(parts)}"
    if found.n_left_out:
        line += f"\n  left out: {found.n_left_out} queries that hold nothing an embedder knows"
    if found.n_not_drawn:
        line += f"\n  left out: {found.n_not_drawn} queries beyond --max-rows, at random"
    return line


def _tables(found: Diagnosis) -> list[tuple[str, tuple[str, ...], Rows]]:
    """Title, headings and rows of each table."""
    tables = []
    for one in found.embedders:
        tables += [
            (f"What is reached with {one.name}", _reached_heads(found), _reached(found, one)),
            (
                f"Where the rest of the oracle's lead is, {_lead(found, one)} points",
                ("", "points", "95 %", ""),
                _parts(found, one),
            ),
            (
                "Learning curve of the router: points over the best single model",
                ("queries", "points", "95 %", ""),
                _curve(one),
            ),
        ]
    if found.others:
        first = found.embedders[0].name
        rows = [
            (one.name, what, *_points(added))
            for one in found.others
            for what, added in (("router", one.router), ("probes together", one.together))
        ]
        tables.append((f"Another embedder, over {first}", ("", "", "points", "95 %"), rows))
    return tables


def _reached_heads(found: Diagnosis) -> tuple[str, ...]:
    worth = "score" if found.willingness_to_pay is None else "score less cost"
    return ("", worth, "over the best single", "95 %")


def _reached(found: Diagnosis, one: EmbedderDiagnosis) -> Rows:
    ways: list[tuple[str, Reached | None]] = [
        ("calibrated router", one.router),
        ("kNN", one.knn),
        ("linear", one.linear),
        ("trees", one.trees),
        ("these probes together", one.together),
        ("best by dataset label", found.dataset_labels),
        ("oracle", found.oracle),
    ]
    return [
        (f"best single ({found.best_single_model})", share(found.best_single), "", ""),
        *(
            (name, share(reached.value), *_points(reached.gain))
            for name, reached in ways
            if reached is not None
        ),
    ]


def _lead(found: Diagnosis, one: EmbedderDiagnosis) -> str:
    return f"{100 * (found.oracle.value - one.router.value):.1f}"


def _parts(found: Diagnosis, one: EmbedderDiagnosis) -> Rows:
    by_model = found.noise.basis == "model"
    unseen = "beyond chance, found by no probe" if by_model else "told by the text, found by no probe"
    rows = [
        (
            "outcome noise, at most",
            *_plain(one.noise),
            f"by {'a model' if by_model else 'repeats'}, see below",
        ),
        (unseen, *_plain(one.not_in_embedding), ""),
        ("found by the probes, lost by the tables", *_plain(one.tables), ""),
    ]
    if one.labels is not None:
        rows.append(("dataset labels would add to the probes", *_plain(one.labels), "not part of the sum"))
    return rows


def _curve(one: EmbedderDiagnosis) -> Rows:
    curve = one.learning_curve
    return [
        *((str(point.n_queries), *_points(point.gain), "") for point in curve.points),
        (str(curve.doubled.n_queries), *_points(curve.doubled.gain), "extrapolated by a - b / n^c"),
    ]


def _notes(found: Diagnosis) -> list[str]:
    """What is needed to read the tables."""
    first = found.embedders[0]
    tells = max(first.apart_z, key=lambda name: first.apart_z[name])
    by = tells.replace("_", " ")
    apart = f"Models are told apart with z = {first.apart_z[tells]:.1f} ({by})"
    notes = [
        _noise_by_model(found) if found.noise.kept_share is None else _noise_by_repeats(found),
        f"{apart}, hard queries from easy ones with z = {first.difficulty_z:.1f}.",
    ]
    if found.dataset_labels is None:
        notes.append("Dataset labels: not available, the data name fewer than two datasets.")
    if found.willingness_to_pay is not None:
        worth = dollars(found.willingness_to_pay)
        notes.append(f"Scores count less their cost, of which {worth} weigh one unit of score.")
    return notes


def _noise_by_repeats(found: Diagnosis) -> str:
    noise = found.noise
    named = [f"{name} {count}" for name, count in noise.datasets.items()]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    of_datasets = f" Their rows are of {', '.join(named[:_NAMED])}{more}." if named else ""
    shares = "unknown"
    if noise.kept_share is not None:
        low, high = noise.kept_share.interval_95
        shares = f"{share(noise.kept_share.value)} ({share(low)} to {share(high)})"
    return (
        f"Noise by repeats: {noise.n_repeated_texts} texts stand in several rows, "
        f"{noise.n_conflicting_texts} of them with scores that differ. The best model of one row keeps "
        f"{shares} of the oracle's lead in another row of its text.{of_datasets}"
    )


def _noise_by_model(found: Diagnosis) -> str:
    n_repeated = found.noise.n_repeated_texts
    few = f"only {n_repeated} texts repeat" if n_repeated else "no text repeats"
    return (
        f"Noise by a model, since {few}: were outcomes independent given the fitted probabilities, an "
        f"oracle would get {share(found.noise.chance_oracle)} by chance. Noise and what no probe has found "
        "cannot be told apart without repeats."
    )


def _points(estimate: Estimate) -> tuple[str, str]:
    """A gain in points, and its interval, with their signs."""
    low, high = estimate.interval_95
    return _shown(estimate.value, "+"), f"{_shown(low, '+')} to {_shown(high, '+')}"


def _plain(estimate: Estimate) -> tuple[str, str]:
    """A part in points, and its interval."""
    low, high = estimate.interval_95
    return _shown(estimate.value, "-"), f"{_shown(low, '-')} to {_shown(high, '-')}"


def _shown(value: float, sign: str) -> str:
    text = f"{100 * value:{sign}.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def _table(heads: Sequence[str], rows: Rows) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for head in heads:
        is_number = head in {"points", "95 %", "queries", "score", "score less cost", "over the best single"}
        table.add_column(head, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(found: Diagnosis, data: Path) -> str:
    lines = [f"# Diagnosis of {data.name}", "", _heading(found, Path(data.name)), ""]
    for title, heads, rows in _tables(found):
        lines += [f"## {title}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        lines += [f"| {' | '.join(row)} |" for row in escaped]
        lines.append("")
    for note in _notes(found):
        lines += [note, ""]
    return "\n".join([*lines, f"**Advice: {found.advice.verdict}.** {found.advice.reason}", ""])


def _write(output: Path, text: str) -> None:
    try:
        write_atomic(output, text.encode())
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error})") from error
