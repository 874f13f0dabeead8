"""Lines of JSON: read as a stream, each an object whose faults are told with file, line, field and value."""

import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

from centroute._shown import show
from centroute.datasets.builder import MAX_MODELS, OutcomesBuilder, Value
from centroute.datasets.outcomes import model_name_fault
from centroute.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE_BYTES = 1 << 24
"""A longer line, or row of a table, is refused as it is read."""
MAX_UNPACKED = 100
"""Times its own size that a packed file may have unpacked; text has three to twenty."""
_MAX_UNPACKED_OF_A_SMALL_FILE = 1 << 26


class _RepeatedKeys(dict[str, object]):
    """A JSON object in which a key was given more than once."""

    __slots__ = ("repeated",)
    repeated: tuple[str, ...]


class Line:
    """One parsed line and where it stands, so that every complaint can name both.

    Parameters
    ----------
    source, number, raw
        The file, the line's number from 1, and its bytes.
    fields
        Names that may not be given twice.

    Raises
    ------
    DataError
        The line is no UTF-8, no JSON or no object, or gives one of ``fields`` twice. All methods raise it
        for the field they read.
    """

    __slots__ = ("_number", "_source", "fields")

    def __init__(self, source: Path, number: int, raw: bytes, *, fields: frozenset[str]) -> None:
        self._source = source
        self._number = number
        try:
            text = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            if number == 1 and raw.startswith(GZIP_MAGIC):
                self.fail(None, f"the file is compressed with gzip; name it {source.suffix}.gz")
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
                if key in fields:
                    self.fail(key, "is given more than once")
        self.fields: dict[str, object] = parsed

    def fail(self, field: str | None, fault: str) -> NoReturn:
        """Raise a `DataError` that names file, line and field."""
        place = f"{self._source}, line {self._number}"
        raise DataError(f"{place}: {fault}" if field is None else f"{place}, {field}: {fault}") from None

    def required(self, field: str) -> object:
        """Return a field that has to be there."""
        if field not in self.fields:
            self.fail(field, f"is missing; the line has {_names(self.fields)}")
        return self.fields[field]

    def query(self, *, may_be_empty: bool = False) -> str:
        """Return the text."""
        query = self.required("query")
        if not isinstance(query, str):
            self.fail("query", f"must be a string, got {_json(query)}")
        if not may_be_empty and not query.strip():
            self.fail("query", f"is empty: {show(query)}")
        return query

    def scores(self, field: str, *, booleans: bool = False) -> dict[str, Value]:
        """Return the scores by model, each in 0..1 or ``None``; with ``booleans``, true is 1 and false 0."""
        given = self.required(field)
        return {
            model: self.score(f"{field}[{show(model)}]", value, booleans=booleans)
            for model, value in self.by_model(field, given, "number").items()
        }

    def score(self, place: str, value: object, *, booleans: bool) -> Value:
        """Return one score, in 0..1 or ``None``."""
        if booleans and isinstance(value, bool):
            return float(value)
        score = self.number(place, value)
        if score is not None and not 0.0 <= score <= 1.0:
            self.fail(place, f"{score} is outside 0..1")
        return score

    def amount(self, place: str, value: object, unit: str) -> Value:
        """Return a finite number of 0 or more, or ``None``; ``unit`` says of what."""
        amount = self.number(place, value)
        if amount is not None and not 0.0 <= amount < float("inf"):
            self.fail(place, f"{amount} is not a finite {unit} of 0 or more")
        return amount

    def text(self, field: str, default: str) -> str:
        """Return a text field, ``default`` when it is missing or null; a whole number is taken as text."""
        value = self.fields.get(field)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            self.fail(field, f"must be a string, got {_json(value)}")
        return value

    def by_model(self, field: str, given: object, what: str) -> Mapping[str, object]:
        """Return an object whose keys are names of models, checked; ``what`` says what they stand before."""
        checked = self.mapping(field, given, f"an object of model and {what}")
        for model in checked:
            if fault := model_name_fault(model):
                self.fail(field, fault)
        return checked

    def mapping(self, place: str, value: object, what: str = "an object") -> Mapping[str, object]:
        """Return an object in which no key is given twice; ``what`` says what was wanted."""
        if not isinstance(value, dict):
            self.fail(place, f"must be {what}, got {_json(value)}")
        if isinstance(value, _RepeatedKeys):
            self.fail(f"{place}[{show(value.repeated[0])}]", "is given more than once")
        return value

    def number(self, place: str, value: object) -> Value:
        """Return a number, or ``None`` for null."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(place, f"must be a number, got {_json(value)}")
        try:
            return float(value)
        except OverflowError:  # a whole number beyond float64
            return float("inf") if value > 0 else float("-inf")

    def pair(self, place: str, value: object) -> tuple[object, object]:
        """Return the two members of a list of two."""
        if not isinstance(value, list) or len(value) != 2:
            self.fail(place, f"must be [input tokens, output tokens], got {_json(value)}")
        return value[0], value[1]

    def check_pool(self, field: str, builder: OutcomesBuilder) -> None:
        """Refuse a file that names more models than any pool has."""
        if builder.n_models > MAX_MODELS:
            last = show(builder.last_model)
            self.fail(field, f"the file names more than {MAX_MODELS} models; the last is {last}")


@contextmanager
def opened(source: Path) -> Iterator[BinaryIO]:
    """Open for reading, through gzip when the name ends in ``.gz``.

    Raises
    ------
    DataError
        The file is a directory or cannot be opened.
    """
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
                yield cast("BinaryIO", unpacked)
        else:
            yield file


@contextmanager
def told_as_data_error(source: Path, after_line: "LineCounter") -> Iterator[None]:
    """Tell damaged gzip and failing reads as a `DataError` with the last line that was whole."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        place = f"{source}, after line {after_line.number}"
        raise DataError(f"{place}: damaged or truncated gzip: {error}") from error
    except OSError as error:
        place = f"{source}, after line {after_line.number}"
        raise DataError(f"{place}: cannot be read: {error.strerror or error}") from error


class LineCounter:
    """The number of the line that was read last."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


def bounded_lines(source: Path, stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a stream, none of them endless, and no more than such a file can mean.

    Raises
    ------
    DataError
        A line has more than `MAX_LINE_BYTES`, or a packed file unpacks to far more than data do.
    """
    n_left = math.inf
    if source.name.lower().endswith(".gz"):
        n_left = max(_MAX_UNPACKED_OF_A_SMALL_FILE, MAX_UNPACKED * source.stat().st_size)
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        n_left -= len(raw)
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(f"{source}, line {number}: has more than {MAX_LINE_BYTES} bytes")
        if n_left < 0:
            raise DataError(
                f"{source}, line {number}: the file unpacks to more than {MAX_UNPACKED} times its size, "
                "which no outcomes do"
            )
        yield raw


def numbered_lines(source: Path, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, bytes) of every line that is not blank, without the byte order mark.

    Lines end at a line feed alone: other separators, such as U+2028, may stand inside a JSON string.

    Raises
    ------
    DataError
        The stream is damaged or cannot be read to its end.
    """
    counter = LineCounter()
    with told_as_data_error(source, counter):
        for number, raw in enumerate(bounded_lines(source, stream), start=1):
            counter.number = number
            line = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
            if line.strip():
                yield number, line


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build a JSON object and remember repeated keys, of which ``json`` would silently keep the last."""
    built = dict(pairs)
    if len(built) == len(pairs):
        return built
    counts = Counter(key for key, _ in pairs)
    marked = _RepeatedKeys(built)
    marked.repeated = tuple(key for key in built if counts[key] > 1)
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
