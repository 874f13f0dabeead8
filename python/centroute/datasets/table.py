"""Tables of outcomes, CSV or Parquet: a header, and cells that are told with their row and column.

Only the columns that a reader asks for are kept, so that the long answers in such files cost no memory.
"""

import csv
import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

from centroute._shown import show
from centroute.datasets.builder import Value
from centroute.datasets.json_lines import (
    GZIP_MAGIC,
    MAX_LINE_BYTES,
    LineCounter,
    bounded_lines,
    opened,
    told_as_data_error,
)
from centroute.errors import DataError

CSV_SUFFIXES = (".csv", ".csv.gz")
PARQUET_SUFFIXES = (".parquet",)

INDEX_COLUMNS = frozenset({"", "Unnamed: 0", "__index_level_0__"})
"""What pandas calls the column of its row numbers."""

_UNKNOWN = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})
_TRUE_FALSE = {"true": 1.0, "false": 0.0}
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """Some cells of a row.

    Attributes
    ----------
    place
        File and line or row, for messages.
    cells
        Value by name of the column: text, number, truth value, list or ``None``.
    """

    place: str
    cells: dict[str, object]

    def fail(self, column: str, fault: str) -> NoReturn:
        """Raise a `DataError` that names file, row and column."""
        raise DataError(f"{self.place}, column {show(column)}: {fault}") from None

    def text(self, column: str) -> str:
        """Return a cell as text, ``""`` where it is empty."""
        value = self.cells.get(column)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        return value if isinstance(value, str) else str(value)

    def score(self, column: str) -> Value:
        """Return a score in 0..1, ``None`` where it is unknown.

        Raises
        ------
        DataError
            The cell is neither a number in 0..1 nor true or false, or it is no single value.
        """
        value = self.cells[column]
        if isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and (truth := _TRUE_FALSE.get(value.strip().lower())) is not None:
            return truth
        score = self._number(column, "a score (a number, True or False)")
        if score is not None and not 0.0 <= score <= 1.0:
            self.fail(column, f"{score} is outside 0..1")
        return score

    def cost(self, column: str) -> Value:
        """Return a cost in USD, ``None`` where it is unknown.

        Raises
        ------
        DataError
            The cell is no finite number of 0 or more.
        """
        if isinstance(self.cells[column], bool):
            self.fail(column, f"must be a cost in USD, got {self.cells[column]}")
        cost = self._number(column, "a cost in USD")
        if cost is not None and not 0.0 <= cost < math.inf:
            self.fail(column, f"{cost} is not a finite USD amount of 0 or more")
        return cost

    def _number(self, column: str, what: str) -> Value:
        value = self.cells[column]
        if value is None or (isinstance(value, str) and value.strip().lower() in _UNKNOWN):
            return None
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            self.fail(column, f"must be {what}, got {show(value)}")
        return None if math.isnan(number) else number


class Table:
    """A file's columns, and its rows one after the other.

    Parameters
    ----------
    source
        A CSV file (UTF-8, comma, quotes doubled within quotes; ``.csv`` or ``.csv.gz``) or a Parquet file.

    Attributes
    ----------
    source, columns
        The file and the names of its columns in their order.

    Raises
    ------
    DataError
        The file cannot be read, has no header, names a column twice, or is Parquet and pyarrow is missing.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self._is_parquet = source.name.lower().endswith(PARQUET_SUFFIXES)
        if self._is_parquet:
            with opened_parquet(source) as file:
                self.columns: tuple[str, ...] = tuple(file.schema_arrow.names)
        else:
            with _csv(source) as records:
                self.columns = tuple(next(records, (0, []))[1])
        if not self.columns or self.columns == ("",):
            raise DataError(f"{source}: the file holds no query")
        for position, column in enumerate(self.columns):
            first = self.columns.index(column)
            if first != position and column not in INDEX_COLUMNS:
                places = f"as column {first + 1} and as column {position + 1}"
                raise DataError(f"{source}: the column {show(column)} stands twice, {places}")

    @contextmanager
    def rows(self, columns: Sequence[str]) -> Iterator[Iterator[Row]]:
        """Open the rows with the given columns: ``with table.rows(columns) as rows:``.

        Raises
        ------
        DataError
            The file is damaged, no UTF-8, or a row has more or fewer fields than the header.
        """
        if self._is_parquet:
            with opened_parquet(self.source) as file:
                yield self._parquet_rows(file, list(columns))
        else:
            with _csv(self.source) as records:
                yield self._csv_rows(records, columns)

    def _csv_rows(self, records: Iterator[tuple[int, list[str]]], columns: Sequence[str]) -> Iterator[Row]:
        positions = {column: self.columns.index(column) for column in columns}
        next(records, None)  # the header
        for number, fields in records:
            place = f"{self.source}, line {number}"
            if len(fields) != len(self.columns):
                raise DataError(f"{place}: has {len(fields)} fields, the header has {len(self.columns)}")
            yield Row(place, {column: fields[position] for column, position in positions.items()})

    def _parquet_rows(self, file: Any, columns: list[str]) -> Iterator[Row]:
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            values = [batch.column(column).to_pylist() for column in columns]
            for cells in zip(*values, strict=True):
                number += 1
                yield Row(f"{self.source}, row {number}", dict(zip(columns, cells, strict=True)))


@contextmanager
def _csv(source: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """Records of a CSV file, each with the line in which it begins; blank lines are skipped."""
    counter = LineCounter()
    with opened(source) as stream, told_as_data_error(source, counter):
        yield _records(source, _DecodedLines(source, stream), counter)


def _records(source: Path, lines: "_DecodedLines", counter: LineCounter) -> Iterator[tuple[int, list[str]]]:
    # The limit is one for all of the process, 131,072 characters at first; an answer may be longer.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    reader = csv.reader(lines, strict=True)
    while True:
        begins = counter.number + 1
        lines.n_bytes_of_row = 0
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{source}, line {begins}: not valid CSV: {error}") from None
        counter.number = reader.line_num
        if len(fields) > 1 or (fields and fields[0].strip()):
            yield begins, fields


class _DecodedLines:
    """Lines as text; a row that goes on over too many of them is refused."""

    __slots__ = ("_lines", "_number", "_source", "n_bytes_of_row")

    def __init__(self, source: Path, stream: BinaryIO) -> None:
        self._source = source
        self._lines = bounded_lines(source, stream)
        self._number = 0
        self.n_bytes_of_row = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        raw = next(self._lines)
        self._number += 1
        self.n_bytes_of_row += len(raw)
        if self.n_bytes_of_row > MAX_LINE_BYTES:
            raise DataError(
                f"{self._source}, line {self._number}: the row has more than {MAX_LINE_BYTES} bytes so far; "
                "is a quote not closed?"
            )
        try:
            return raw.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            if self._number == 1 and raw.startswith(GZIP_MAGIC):
                gz = f"the file is compressed with gzip; name it {self._source.suffix}.gz"
                raise DataError(f"{self._source}: {gz}") from None
            fault = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
            raise DataError(f"{self._source}, line {self._number}: not UTF-8: {fault}") from None


@contextmanager
def opened_parquet(source: Path) -> Iterator[Any]:
    """Open a Parquet file by pyarrow, which is loaded here only.

    Raises
    ------
    DataError
        The file cannot be read or is damaged, or pyarrow is missing.
    """
    with opened(source):  # for the messages of a file that is not there
        pass
    try:
        pyarrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise DataError(
            f"{source}: Parquet is read by pyarrow, which is not installed; pip install 'centroute[parquet]'"
        ) from None
    except (ImportError, OSError) as error:  # a shared library is missing, or of another machine
        raise DataError(f"{source}: pyarrow is installed and cannot be loaded: {error}") from error
    try:
        with parquet.ParquetFile(source) as file:
            yield file
    except UnicodeDecodeError as error:
        fault = f"byte 0x{error.object[error.start]:02x} in a text"
        raise DataError(f"{source}: not UTF-8: {fault}") from None
    except (pyarrow.ArrowException, OSError) as error:
        fault = " ".join(str(error).split())
        raise DataError(f"{source}: is no readable Parquet file: {fault}") from None
