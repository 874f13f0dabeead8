"""Calibration data as JSON lines: one query a line, read as a stream and written atomically.

A line is ``{"query": str, "scores": {model: 0..1}, "costs": {model: USD}, "dataset": str, "id": str}``.
``scores`` may lack models and ``costs`` may be missing; ``null`` says not observed or unknown. Other keys
are ignored. Every fault is one `DataError` that names file, line, field and value.
"""

import gzip
import json
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from centroute._atomic import atomic_file
from centroute.datasets.outcomes import Outcomes, model_name_fault, show
from centroute.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz")

# Scores are kept as a dense [n_queries, n_models] matrix. A file that names thousands of models has
# something else in the place of the names, and would ask for memory far beyond its own size.
MAX_MODELS = 4096

_FIELDS = frozenset({"query", "scores", "costs", "dataset", "id"})
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


class _RepeatedKeys(dict[str, object]):
    """A JSON object in which a key was given more than once."""

    __slots__ = ("repeated",)
    repeated: tuple[str, ...]


class _Cells:
    """Sparse (row, model, value) triples; memory grows with the values read, not with the matrix."""

    __slots__ = ("columns", "rows", "values")

    def __init__(self) -> None:
        self.rows = array("q")
        self.columns = array("q")
        self.values = array("d")

    def add(self, row: int, column: int, value: float) -> None:
        self.rows.append(row)
        self.columns.append(column)
        self.values.append(value)

    def matrix(self, n_queries: int, n_models: int) -> NDArray[np.float64]:
        dense = np.full((n_queries, n_models), np.nan)
        dense[np.frombuffer(self.rows, np.int64), np.frombuffer(self.columns, np.int64)] = self.values
        return dense


def read_jsonl(path: str | os.PathLike[str]) -> Outcomes:
    """Read a ``.jsonl`` or ``.jsonl.gz`` file of outcomes.

    Parameters
    ----------
    path
        The file, UTF-8 with or without a byte order mark. Blank lines are skipped. A line without ``id``
        gets its line number, counted from 1.

    Returns
    -------
    Outcomes
        The queries in file order; the models in the order in which the file first names them.

    Raises
    ------
    DataError
        The file cannot be read, holds no query, or a line is at fault; the message names the line.
    """
    source = Path(path)
    pool: dict[str, int] = {}
    queries: list[str] = []
    datasets: list[str] = []
    ids: list[str] = []
    scores, costs = _Cells(), _Cells()
    with _opened(source) as stream:
        for number, raw in _numbered_lines(source, stream):
            line = _Line(source, number, raw)
            row = len(queries)
            queries.append(line.query())
            for cells, values in ((scores, line.scores()), (costs, line.costs())):
                for model, value in values.items():
                    column = pool.setdefault(model, len(pool))
                    if value is not None:
                        cells.add(row, column, value)
            if len(pool) > MAX_MODELS:
                last = show(next(reversed(pool)))
                line.fail("scores", f"the file names more than {MAX_MODELS} models; the last is {last}")
            datasets.append(line.text("dataset", ""))
            ids.append(line.text("id", str(number)))
    if not queries:
        raise DataError(f"{source}: the file holds no query")
    try:
        return Outcomes(
            queries=tuple(queries),
            models=tuple(pool),
            scores=cast("NDArray[np.float32]", scores.matrix(len(queries), len(pool))),
            costs=costs.matrix(len(queries), len(pool)),
            datasets=tuple(datasets),
            ids=tuple(ids),
        )
    except DataError as error:  # what only the whole file can show: a model without any score
        raise DataError(f"{source}: {error}") from error


def write_jsonl(outcomes: Outcomes, path: str | os.PathLike[str]) -> None:
    """Write outcomes so that `read_jsonl` returns exactly the same ones.

    The file appears whole or not at all: it is written beside its place and then renamed. Equal outcomes
    give equal bytes, gzip included.

    Parameters
    ----------
    outcomes
        What to write. A model without any observed score (possible in a subset) is written, but
        `read_jsonl` will refuse the file and name it.
    path
        Target, ``.jsonl`` or ``.jsonl.gz``. An existing file is replaced.

    Raises
    ------
    DataError
        Another suffix, or the place cannot be written.
    """
    target = Path(path)
    if not target.name.lower().endswith(SUFFIXES):
        raise DataError(f"{target}: outcomes are written to {' or '.join(SUFFIXES)}")
    try:
        with atomic_file(target) as file:
            if target.name.lower().endswith(".gz"):
                # No name and no time in the header: equal outcomes, equal bytes.
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                    packed.writelines(_encoded_lines(outcomes))
            else:
                file.writelines(_encoded_lines(outcomes))
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error


class _Line:
    """One parsed line and where it stands, so that every complaint can name both."""

    __slots__ = ("_fields", "_number", "_source")

    def __init__(self, source: Path, number: int, raw: bytes) -> None:
        self._source = source
        self._number = number
        try:
            text = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            if number == 1 and raw.startswith(_GZIP_MAGIC):
                self.fail(None, "the file is compressed with gzip; name it .jsonl.gz")
            self.fail(None, f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}")
        try:
            parsed = json.loads(text, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            fault = error.msg.removesuffix(" at")
            self.fail(None, f"not valid JSON: {fault} at column {error.colno} of {show(text)}")
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; endless nesting
            self.fail(None, f"not valid JSON: {error}")
        if not isinstance(parsed, dict):
            self.fail(None, f"must be a JSON object, got {_json(parsed)}")
        if isinstance(parsed, _RepeatedKeys):
            for key in parsed.repeated:
                if key in _FIELDS:
                    self.fail(key, "is given more than once")
        self._fields: dict[str, object] = parsed

    def fail(self, field: str | None, fault: str) -> NoReturn:
        place = f"{self._source}, line {self._number}"
        raise DataError(f"{place}: {fault}" if field is None else f"{place}, {field}: {fault}") from None

    def query(self) -> str:
        if "query" not in self._fields:
            self.fail("query", f"is missing; the line has {_names(self._fields)}")
        query = self._fields["query"]
        if not isinstance(query, str):
            self.fail("query", f"must be a string, got {_json(query)}")
        if not query.strip():
            self.fail("query", f"is empty: {show(query)}")
        return query

    def scores(self) -> dict[str, float | None]:
        if "scores" not in self._fields:
            self.fail("scores", f"is missing; the line has {_names(self._fields)}")
        scores = self._numbers("scores", self._fields["scores"])
        for model, score in scores.items():
            if score is not None and not 0.0 <= score <= 1.0:
                self.fail(f"scores[{show(model)}]", f"{score} is outside 0..1")
        if all(score is None for score in scores.values()):
            self.fail("scores", "holds no score")
        return scores

    def costs(self) -> dict[str, float | None]:
        given = self._fields.get("costs")
        costs = {} if given is None else self._numbers("costs", given)
        for model, cost in costs.items():
            if cost is not None and not 0.0 <= cost < float("inf"):
                self.fail(f"costs[{show(model)}]", f"{cost} is not a finite USD amount of 0 or more")
        return costs

    def text(self, field: str, default: str) -> str:
        """Return a text field, ``default`` when it is missing or null; a whole number is taken as text."""
        value = self._fields.get(field)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            self.fail(field, f"must be a string, got {_json(value)}")
        return value

    def _numbers(self, field: str, given: object) -> dict[str, float | None]:
        """Return a ``{model: number or null}`` object with its names and types checked."""
        if not isinstance(given, dict):
            self.fail(field, f"must be an object of model and number, got {_json(given)}")
        if isinstance(given, _RepeatedKeys):
            self.fail(f"{field}[{show(given.repeated[0])}]", "is given more than once")
        numbers: dict[str, float | None] = {}
        for model, value in given.items():
            if fault := model_name_fault(model):
                self.fail(field, fault)
            if value is None:
                numbers[model] = None
            elif isinstance(value, bool) or not isinstance(value, int | float):
                self.fail(f"{field}[{show(model)}]", f"must be a number, got {_json(value)}")
            else:
                try:
                    numbers[model] = float(value)
                except OverflowError:  # a whole number beyond float64
                    numbers[model] = float("inf") if value > 0 else float("-inf")
        return numbers


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build a JSON object and remember repeated keys, of which ``json`` would silently keep the last."""
    built = dict(pairs)
    if len(built) == len(pairs):
        return built
    keys = [key for key, _ in pairs]
    marked = _RepeatedKeys(built)
    marked.repeated = tuple(key for key in built if keys.count(key) > 1)
    return marked


def _json(value: object) -> str:
    """Name a JSON value by its JSON word; containers by kind and size only, they may be huge."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return f"the string {show(value)}" if isinstance(value, str) else f"the number {show(value)}"


def _names(fields: dict[str, object]) -> str:
    return show(", ".join(fields)) if fields else "no fields"


@contextmanager
def _opened(source: Path) -> Iterator[Iterable[bytes]]:
    """Open for reading, through gzip when the name ends in ``.gz``."""
    if source.is_dir():
        raise DataError(f"{source}: is a directory, not a file of outcomes")
    try:
        file = source.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{source}: cannot be read: {reason}") from error
    with file:
        if source.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        else:
            yield file


def _numbered_lines(source: Path, stream: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, bytes) of every line that is not blank, without the byte order mark.

    Lines end at a line feed alone: other separators, such as U+2028, may stand inside a JSON string.
    """
    number = 0
    try:
        for number, raw in enumerate(stream, start=1):
            line = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
            if line.strip():
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source}, after line {number}: damaged or truncated gzip: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{source}, after line {number}: cannot be read: {reason}") from error


def _encoded_lines(outcomes: Outcomes) -> Iterable[bytes]:
    for row in range(outcomes.n_queries):
        # The first line names the whole pool, null where nothing is known, and so fixes its order.
        fields: dict[str, object] = {
            "id": outcomes.ids[row],
            "dataset": outcomes.datasets[row],
            "query": outcomes.queries[row],
            # str of a float32 is its shortest decimal: 0.7, where float() would give 0.699999988079071.
            "scores": {
                model: None if np.isnan(score) else float(str(score))
                for model, score in zip(outcomes.models, outcomes.scores[row], strict=True)
                if row == 0 or not np.isnan(score)
            },
            "costs": {
                model: float(cost)
                for model, cost in zip(outcomes.models, outcomes.costs[row], strict=True)
                if not np.isnan(cost)
            },
        }
        for optional in ("dataset", "costs"):
            if not fields[optional]:
                del fields[optional]
        yield _encoded(fields)


def _encoded(fields: dict[str, object]) -> bytes:
    try:
        return (json.dumps(fields, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate exists only as an escape
        return (json.dumps(fields) + "\n").encode("ascii")
