"""Finding out what a file of outcomes is, by its suffix and its content, and reading it."""

import os
from pathlib import Path

from centroute._shown import show
from centroute.datasets import avengers_pro, jsonl, routellm, routerbench
from centroute.datasets.builder import OutcomesBuilder, Reading
from centroute.datasets.json_lines import Line, numbered_lines, opened
from centroute.datasets.outcomes import Outcomes
from centroute.datasets.table import CSV_SUFFIXES, PARQUET_SUFFIXES, Table
from centroute.errors import DataError

SUFFIXES = (*avengers_pro.SUFFIXES, *CSV_SUFFIXES, *PARQUET_SUFFIXES)
"""Suffixes of files that are read; letter case does not matter."""

_PICKLE_SUFFIXES = (".pkl", ".pickle")
_PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")


def read_outcomes(path: str | os.PathLike[str]) -> Outcomes:
    """Read outcomes in the form that suffix and content tell.

    Parameters
    ----------
    path
        JSON lines (``.jsonl``, ``.json``) of centroute or Avengers-Pro; a table (``.csv``, ``.parquet``) of
        RouterBench or RouteLLM; all but Parquet also with ``.gz``. Or a folder of CSV tables, of which
        RouteLLM has one a task. The modules of these names say what each form is.

    Raises
    ------
    DataError
        The suffix is none of these, the file cannot be read, or its content is at fault.
    """
    return read(path).outcomes


def read(path: str | os.PathLike[str]) -> Reading:
    """Read as `read_outcomes` does, and say what was read and what was left out.

    Raises
    ------
    DataError
        As `read_outcomes`.
    """
    source = Path(path)
    name = source.name.lower()
    if source.is_dir():
        return _read_tables(source, _tables_in(source))
    if not source.exists():
        raise DataError(f"{source}: no such file")
    if _unpacked(name).endswith(_PICKLE_SUFFIXES):
        written = Path(source.name[: len(_unpacked(name))]).with_suffix(".csv").name
        raise DataError(
            f"{source}: pickle is not read, since opening one can run any code; where you trust it, "
            f"pandas.read_pickle({source.name!r}).to_csv({written!r}, index=False) makes a table of it"
        )
    if not name.endswith(SUFFIXES):
        readable = ", ".join(SUFFIXES)
        raise DataError(f"{source}: unknown suffix {source.suffix!r}; outcomes are read from {readable}")
    if name.endswith((*CSV_SUFFIXES, *PARQUET_SUFFIXES)):
        return _read_tables(source, [source])
    return avengers_pro.read(source) if _is_avengers_pro(source) else jsonl.read(source)


def _is_avengers_pro(source: Path) -> bool:
    with opened(source) as stream:
        for number, raw in numbered_lines(source, stream):
            line = Line(source, number, raw, fields=frozenset())
            return avengers_pro.is_avengers_pro(line.fields)
    return False


def _read_tables(source: Path, files: list[Path]) -> Reading:
    builder = OutcomesBuilder(source)
    forms = dict.fromkeys(_read_table(Table(file), builder) for file in files)
    return builder.finish(
        " and ".join(forms) if len(files) == 1 else f"{' and '.join(forms)}, {len(files)} files"
    )


def _read_table(table: Table, builder: OutcomesBuilder) -> str:
    if routerbench.is_routerbench(table.columns):
        return routerbench.read(table, builder)
    if routellm.is_routellm(table.columns):
        return routellm.read(table, builder)
    raise DataError(
        f"{table.source}: no table of RouterBench or RouteLLM, which have a column 'prompt'; the columns are "
        f"{show(', '.join(table.columns))}; outcomes of your own are read from .jsonl"
    )


def _tables_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.name.lower().endswith(CSV_SUFFIXES))
    if not files:
        raise DataError(f"{folder}: is a directory, and holds no .csv table of outcomes")
    return files


def _unpacked(name: str) -> str:
    return next((name.removesuffix(end) for end in _PACKED_SUFFIXES if name.endswith(end)), name)
