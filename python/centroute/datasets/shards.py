"""Shards: outcomes in many files, read in blocks of rows, so that neither one nor all of them fill memory.

A shard is JSON lines as :mod:`centroute.datasets.jsonl` describes them, or Parquet with the same fields as
columns: ``query`` (text), ``scores`` (a struct with one number a model), and where they are known ``costs``
(likewise, USD), ``dataset``, ``id`` and ``role``. All shards name the same models; in JSON lines it is enough
that one line of a shard does, with ``null`` for what was not observed.
"""

import glob
import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centroute._shown import show
from centroute.datasets import jsonl
from centroute.datasets.builder import OutcomesBuilder
from centroute.datasets.json_lines import Line, numbered_lines, opened
from centroute.datasets.outcomes import Outcomes, model_name_fault
from centroute.datasets.table import PARQUET_SUFFIXES, opened_parquet
from centroute.errors import DataError

SUFFIXES = (*jsonl.SUFFIXES, *PARQUET_SUFFIXES)
"""Suffixes of shards; letter case does not matter."""
BLOCK_ROWS = 8192
"""Rows that are in memory at a time."""
BLOCK_BYTES = 1 << 26
"""Bytes of JSON lines that are in memory at a time, but for the last line: texts can be long."""

_COLUMNS = ("query", "scores", "costs", "dataset", "id", "role")
_TEXT_COLUMNS = ("query", "dataset", "id", "role")


@dataclass(frozen=True, slots=True)
class Shard:
    """One file, as it was when it was found.

    Attributes
    ----------
    path
        The file.
    n_bytes, changed_ns
        Its size and the time of its last change, by which another content is noticed.
    """

    path: Path
    n_bytes: int
    changed_ns: int

    def check(self) -> None:
        """Refuse a file that is gone, or another one by now.

        Raises
        ------
        DataError
            Names the shard.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            raise DataError(
                f"{self.path}: the shard was there when the run began and cannot be read now: "
                f"{error.strerror or error}"
            ) from error
        if (found.st_size, found.st_mtime_ns) != (self.n_bytes, self.changed_ns):
            raise DataError(f"{self.path}: the shard has changed since the run began")


def is_sharded(places: Sequence[Path]) -> bool:
    """Whether places are what `find_shards` is for: several, a pattern, or a folder of shards."""
    if len(places) != 1:
        return True
    return _is_pattern(places[0]) or (places[0].is_dir() and bool(_shards_in(places[0])))


def find_shards(places: Iterable[str | os.PathLike[str]]) -> list[Shard]:
    """Find the shards of folders, patterns and files, the files of each folder and pattern by name.

    Parameters
    ----------
    places
        Folders, patterns such as ``logs/2026-*.jsonl.gz``, and files.

    Raises
    ------
    DataError
        A place holds no shard or is none, or a file is given twice; names it.
    """
    shards: dict[Path, Shard] = {}
    for place in map(Path, places):
        for path in _files_of(place):
            if not path.name.lower().endswith(SUFFIXES):
                raise DataError(
                    f"{path}: unknown suffix {path.suffix!r}; shards are read from {', '.join(SUFFIXES)}"
                )
            try:
                found, key = path.stat(), path.resolve()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
            if key in shards:
                raise DataError(f"{path}: the shard is given twice")
            # Workers have folders of their own to begin in.
            shards[key] = Shard(path.absolute(), found.st_size, found.st_mtime_ns)
    return list(shards.values())


def check_schemas(shards: Sequence[Shard], models: Sequence[str]) -> None:
    """Refuse Parquet shards of other columns or models, by their headers alone.

    JSON lines are looked at while they are read.

    Raises
    ------
    DataError
        Names the shard and the column or model.
    """
    first: tuple[Shard, set[str]] | None = None
    for shard in shards:
        if not is_parquet(shard):
            continue
        shard.check()
        with opened_parquet(shard.path) as file:
            columns = set(file.schema_arrow.names) & set(_COLUMNS)
            _check_models(shard, _struct_names(shard, file, "scores"), models, shards[0])
        if first is None:
            first = shard, columns
        for column in _COLUMNS:
            if (column in columns) != (column in first[1]):
                has, lacks = (shard, first[0]) if column in columns else (first[0], shard)
                raise DataError(
                    f"{shard.path}: another schema than {first[0].path}: {has.path.name} has the column "
                    f"{column!r}, {lacks.path.name} has not"
                )


def shard_models(shard: Shard) -> tuple[str, ...]:
    """Names of the models of a shard, in the order in which it first names them.

    Raises
    ------
    DataError
        The shard cannot be read, names none, or holds what is no name.
    """
    shard.check()
    if is_parquet(shard):
        with opened_parquet(shard.path) as file:
            names = dict.fromkeys(_struct_names(shard, file, "scores"))
    else:
        names = {}
        with opened(shard.path) as stream:
            for number, raw in numbered_lines(shard.path, stream):
                line = Line(shard.path, number, raw, fields=jsonl.FIELDS)
                names.update(dict.fromkeys(line.by_model("scores", line.required("scores"), "number")))
                if len(names) > jsonl.MAX_MODELS:
                    line.fail("scores", f"the shard names more than {jsonl.MAX_MODELS} models")
    if not names:
        raise DataError(f"{shard.path}: the shard holds no query")
    return tuple(names)


def read_blocks(
    shard: Shard, models: Sequence[str], *, first: Shard, n_rows: int = BLOCK_ROWS
) -> Iterator[Outcomes]:
    """Read a shard block by block.

    Parameters
    ----------
    shard
        The file.
    models
        The pool, which every block has as its columns.
    first
        The shard that the pool is of, for messages.
    n_rows
        Rows of a block at most.

    Raises
    ------
    DataError
        The shard is gone, changed, empty or damaged, names a model that the pool lacks or none of a model of
        the pool, or a row is at fault; names shard, line or row, and field.
    """
    shard.check()
    blocks = _parquet_blocks if is_parquet(shard) else _json_blocks
    is_empty = True
    for block in blocks(shard, models, first, n_rows):
        is_empty = False
        yield block
    if is_empty:
        raise DataError(f"{shard.path}: the shard holds no query")


def _json_blocks(shard: Shard, models: Sequence[str], first: Shard, n_rows: int) -> Iterator[Outcomes]:
    named: set[str] = set()
    builder, n_held, n_bytes = OutcomesBuilder(shard.path, pool=models), 0, 0
    with opened(shard.path) as stream:
        for number, raw in numbered_lines(shard.path, stream):
            line = Line(shard.path, number, raw, fields=jsonl.FIELDS)
            named.update(jsonl.add_line(line, number, builder))
            if builder.n_models > len(models):
                line.fail("scores", f"names the model {show(builder.last_model)}, which {first.path} has not")
            n_held, n_bytes = n_held + 1, n_bytes + len(raw)
            if n_held == n_rows or n_bytes >= BLOCK_BYTES:
                yield builder.finish("JSON lines").outcomes
                builder, n_held, n_bytes = OutcomesBuilder(shard.path, pool=models), 0, 0
        if n_held:
            yield builder.finish("JSON lines").outcomes
    if named:
        _check_models(shard, named, models, first)


def _check_models(shard: Shard, named: Iterable[str], models: Sequence[str], first: Shard) -> None:
    named = set(named)
    for more, fewer, owner in ((models, named, first), (sorted(named), set(models), shard)):
        for model in more:
            if model not in fewer:
                lacking = shard if owner is first else first
                raise DataError(
                    f"{shard.path}: another schema than {first.path}: {owner.path.name} names the model "
                    f"{show(model)}, {lacking.path.name} does not"
                )


def _parquet_blocks(shard: Shard, models: Sequence[str], first: Shard, n_rows: int) -> Iterator[Outcomes]:
    with opened_parquet(shard.path) as file:
        there = set(file.schema_arrow.names)
        names = {
            column: _struct_names(shard, file, column) for column in ("scores", "costs") if column in there
        }
        _check_models(shard, _struct_names(shard, file, "scores"), models, first)
        if unknown := sorted(set(names.get("costs", ())) - set(models)):
            raise DataError(f"{shard.path}, costs: names the model {show(unknown[0])}, which has no scores")
        columns = [column for column in _COLUMNS if column in there]
        n_before = 0
        for batch in file.iter_batches(batch_size=n_rows, columns=columns):
            yield _block(shard, batch, names, models, n_before)
            n_before += len(batch)


def _block(
    shard: Shard, batch: Any, names: dict[str, list[str]], models: Sequence[str], n_before: int
) -> Outcomes:
    texts = {
        column: tuple("" if text is None else str(text) for text in batch.column(column).to_pylist())
        if column in batch.schema.names
        else ("",) * len(batch)
        for column in _TEXT_COLUMNS
    }
    for row, text in enumerate(texts["query"]):
        if not text.strip():
            raise DataError(f"{shard.path}, row {n_before + row + 1}, query: is empty: {show(text)}")
    scores = _numbers(shard, batch, "scores", names, models)
    costs = _numbers(shard, batch, "costs", names, models)
    wrong = (
        ("scores", scores, (scores < 0) | (scores > 1), "is outside 0..1"),
        ("costs", costs, (costs < 0) | np.isinf(costs), "is not a finite USD amount of 0 or more"),
    )
    for column, values, is_wrong, fault in wrong:
        if is_wrong.any():
            row, place = (int(index) for index in np.argwhere(is_wrong)[0])
            raise DataError(
                f"{shard.path}, row {n_before + row + 1}, {column}[{show(models[place])}]: "
                f"{float(values[row, place])} {fault}"
            )
    unscored = np.isnan(scores).all(axis=1)
    if unscored.any():
        raise DataError(f"{shard.path}, row {n_before + int(unscored.argmax()) + 1}, scores: holds no score")
    return Outcomes(
        queries=texts["query"],
        models=tuple(models),
        scores=scores,  # type: ignore[arg-type]
        costs=costs,
        datasets=texts["dataset"],
        ids=tuple(text or str(n_before + row + 1) for row, text in enumerate(texts["id"])),
        roles=texts["role"] if any(texts["role"]) else None,
        allow_unobserved=True,
    )


def _numbers(
    shard: Shard, batch: Any, column: str, names: dict[str, list[str]], models: Sequence[str]
) -> NDArray[np.float64]:
    """Values of a struct by model ``[n, n_models]``, NaN where null."""
    values = np.full((len(batch), len(models)), np.nan)
    if column in names:
        for name, child in zip(names[column], batch.column(column).flatten(), strict=True):
            try:
                numbers = child.cast("float64").to_numpy(zero_copy_only=False)
            except ValueError as error:
                raise DataError(f"{shard.path}, {column}[{show(name)}]: {error}") from error
            values[:, models.index(name)] = numbers
    return values


def _struct_names(shard: Shard, file: Any, column: str) -> list[str]:
    """Models of a column of structs, checked."""
    kinds = importlib.import_module("pyarrow.types")
    schema = file.schema_arrow
    for needed, is_kind, wanted in (
        ("query", lambda kind: kinds.is_string(kind) or kinds.is_large_string(kind), "of text"),
        (column, kinds.is_struct, "of structs, a number a model"),
    ):
        if needed not in schema.names:
            raise DataError(
                f"{shard.path}: has no column {needed!r}; the columns are {show(', '.join(schema.names))}"
            )
        if not is_kind(kind := schema.field(needed).type):
            raise DataError(f"{shard.path}: the column {needed!r} is of {kind}, wanted one {wanted}")
    fields = list(schema.field(column).type)
    for field in fields:
        if fault := model_name_fault(field.name):
            raise DataError(f"{shard.path}, {column}: {fault}")
        kind = field.type
        if not (
            kinds.is_floating(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)
        ):
            raise DataError(
                f"{shard.path}: the column {column + '.' + field.name!r} is of {kind}, wanted numbers"
            )
    return [field.name for field in fields]


def _files_of(place: Path) -> list[Path]:
    if place.is_dir():
        if files := _shards_in(place):
            return files
        raise DataError(f"{place}: the folder holds no shard ({', '.join(SUFFIXES)})")
    if place.exists() or not _is_pattern(place):
        return [place]
    if files := [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]:  # noqa: PTH207, of any root
        return files
    raise DataError(f"{place}: no file matches the pattern")


def _shards_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()
    )


def _is_pattern(place: Path) -> bool:
    return not place.exists() and glob.has_magic(str(place))


def is_parquet(shard: Shard) -> bool:
    """Whether a shard is Parquet, by its suffix."""
    return shard.path.name.lower().endswith(PARQUET_SUFFIXES)
