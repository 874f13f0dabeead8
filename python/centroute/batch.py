"""Batch routing: shards of queries in, shards of the same names with a decision on every row out.

A shard is JSON lines with ``query``, or Parquet with a column of that name; other fields and columns are
taken over. The decision stands in the field or the column of structs ``decision``: ``{model, quality,
cost_usd, margin, similarity, in_distribution}``, null where a text holds nothing to route on. Rows go through
in blocks.

An output shard appears whole or not at all, and is not made again when a stopped run goes on. Which run the
folder is of is kept in its folder ``.centroute-run``.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from centroute._atomic import atomic_file
from centroute._engine import Engine, LocalEngine
from centroute._kernel import DecisionBatch, Policy
from centroute.artifact import policy_to_json
from centroute.calibrate.checkpoint import opened_checkpoint
from centroute.calibrate.shards import located_embedder
from centroute.datasets.json_lines import Line, numbered_lines, opened
from centroute.datasets.shards import BLOCK_BYTES, BLOCK_ROWS, Shard, find_shards, is_parquet
from centroute.datasets.table import opened_parquet
from centroute.errors import DataError
from centroute.router import Router

DECISION = "decision"
"""Field or column of the decision."""

_RUN = ".centroute-run"
_FIELDS = frozenset({"query", DECISION})


@dataclass(frozen=True, slots=True)
class RoutedShard:
    """What became of one shard.

    Attributes
    ----------
    number
        Which shard it is.
    n_queries, n_unroutable
        Its rows, and those whose text holds nothing to route on.
    """

    number: int
    n_queries: int
    n_unroutable: int


@dataclass(frozen=True, slots=True)
class Routed:
    """What became of all shards.

    Attributes
    ----------
    n_shards, n_kept
        All of them, and those that were there from an earlier run.
    n_queries, n_unroutable
        Rows of the others, and those whose text holds nothing to route on.
    """

    n_shards: int
    n_kept: int
    n_queries: int
    n_unroutable: int


@dataclass(frozen=True, slots=True)
class RouteShard:
    """The work on one shard: all that a worker needs to know.

    Attributes
    ----------
    router
        Router file or bundle.
    embedder
        Name or folder of the embedder, None for the router's own.
    policy
        What is asked of the router.
    output
        Folder of the output shards; workers on other machines must see it under this name.
    threads
        Threads that embed and decide.
    """

    router: Path
    embedder: str | None
    policy: Policy
    output: Path
    threads: int

    def __call__(self, numbered: tuple[int, Shard]) -> RoutedShard:
        """Route a shard, given with its number.

        Raises
        ------
        DataError
            The shard is at fault or the output cannot be written; names it.
        PolicyError
            As :meth:`Router.route_batch`.
        """
        number, shard = numbered
        shard.check()
        router = _router(str(self.router), self.embedder)
        target = self.output / shard.path.name
        write = self._parquet if is_parquet(shard) else self._json_lines
        try:
            with atomic_file(target) as file:
                n_queries, n_unroutable = write(shard, router, file)
        except OSError as error:
            raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
        return RoutedShard(number, n_queries, n_unroutable)

    def _json_lines(self, shard: Shard, router: Router, file: BinaryIO) -> tuple[int, int]:
        n_queries = n_unroutable = 0
        with _maybe_packed(shard.path, file) as out:
            for lines in _line_blocks(shard.path):
                texts = [line["query"] for line in lines]
                decisions, n_without = decisions_of(router, texts, self.policy, threads=self.threads)
                for line, decision in zip(lines, decisions, strict=True):
                    out.write(json.dumps({**line, DECISION: decision}, allow_nan=True).encode() + b"\n")
                n_queries += len(lines)
                n_unroutable += n_without
        if not n_queries:
            raise DataError(f"{shard.path}: the shard holds no query")
        return n_queries, n_unroutable

    def _parquet(self, shard: Shard, router: Router, file: BinaryIO) -> tuple[int, int]:
        import importlib

        n_queries = n_unroutable = 0
        with opened_parquet(shard.path) as source:
            arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
            schema = _output_schema(shard, source.schema_arrow, arrow)
            with parquet.ParquetWriter(file, schema) as writer:
                for batch in source.iter_batches(batch_size=BLOCK_ROWS):
                    texts = ["" if text is None else str(text) for text in batch.column("query").to_pylist()]
                    decisions, n_without = decisions_of(router, texts, self.policy, threads=self.threads)
                    column = arrow.array(decisions, type=schema.field(DECISION).type)
                    writer.write_batch(arrow.record_batch([*batch.columns, column], schema=schema))
                    n_queries += len(texts)
                    n_unroutable += n_without
        if not n_queries:
            raise DataError(f"{shard.path}: the shard holds no query")
        return n_queries, n_unroutable


def decisions_of(
    router: Router, texts: Sequence[str], policy: Policy, *, threads: int
) -> tuple[list[dict[str, Any] | None], int]:
    """Decision of each text, None where there is nothing to route on, and how many these are."""
    rows = router.embed(texts, allow_zero_rows=True)
    routable = rows.any(axis=1)
    decisions: list[dict[str, Any] | None] = [None] * len(texts)
    if routable.any():
        batch = router.route_embeddings(np.ascontiguousarray(rows[routable]), policy=policy, threads=threads)
        for place, decision in zip(np.flatnonzero(routable).tolist(), _as_json(batch), strict=True):
            decisions[place] = decision
    return decisions, int(len(texts) - routable.sum())


def route_shards(
    router: str | os.PathLike[str],
    places: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    policy: Policy | None = None,
    embedder: str | None = None,
    engine: Engine | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Routed:
    """Decide every row of shards that need not fit into memory.

    Parameters
    ----------
    router
        Router file or bundle.
    places
        Folders, patterns and files, as :func:`centroute.datasets.shards.find_shards` takes them.
    output
        Folder of the output shards, a new one or that of a run that was stopped.
    policy
        What is asked of the router; its own default when not given.
    embedder
        Name or folder of the embedder, where the router's own is elsewhere.
    engine
        What runs the work; this process when not given.
    progress
        Told how many shards are done.

    Raises
    ------
    ArtifactError, EmbedderError
        As :meth:`Router.load`.
    DataError
        A shard is at fault, two have one name, or the folder is of another run or of something else.
    PolicyError
        As :meth:`Router.route_batch`.
    """
    tell = progress or (lambda *_: None)
    shards = find_shards(places)
    _check_names(shards)
    asked = policy or Policy()
    loaded = _router(os.fspath(router), embedder)
    target = Path(output).absolute()
    if target.is_dir() and not (target / _RUN).exists() and any(target.iterdir()):
        raise DataError(f"{target}: holds other files; name a new folder for the decisions")
    run: dict[str, Any] = {
        "router": hashlib.sha256(loaded.artifact.to_bytes()).hexdigest(),
        "policy": policy_to_json(asked),
        "embedder": loaded.embedder.fingerprint,
    }
    with opened_checkpoint(target / _RUN, run):
        left = [
            (number, shard) for number, shard in enumerate(shards) if not (target / shard.path.name).exists()
        ]
        workers = engine or LocalEngine()
        is_graph = loaded.embedder.runtime != "centroute"
        located = None if embedder is None else located_embedder(embedder)
        work = RouteShard(Path(router).absolute(), located, asked, target, workers.threads)
        n_kept = len(shards) - len(left)
        tell("route", n_kept, len(shards))
        n_queries = n_unroutable = 0
        for done, routed in enumerate(workers.scatter(work, left, is_graph=is_graph), start=n_kept + 1):
            n_queries += routed.n_queries
            n_unroutable += routed.n_unroutable
            tell("route", done, len(shards))
    return Routed(len(shards), n_kept, n_queries, n_unroutable)


@lru_cache(maxsize=2)
def _router(path: str, embedder: str | None) -> Router:
    """The router of this process: loaded once, however many shards it routes."""
    return Router.load(path, embedder=embedder)


def _check_names(shards: Sequence[Shard]) -> None:
    names: dict[str, Path] = {}
    for shard in shards:
        if (other := names.setdefault(shard.path.name, shard.path)) is not shard.path:
            raise DataError(f"{shard.path}: has the name of {other}, and so would its decisions")


def _line_blocks(path: Path) -> Iterator[list[dict[str, Any]]]:
    held: list[dict[str, Any]] = []
    n_bytes = 0
    with opened(path) as stream:
        for number, raw in numbered_lines(path, stream):
            line = Line(path, number, raw, fields=_FIELDS)
            line.query(may_be_empty=True)
            if DECISION in line.fields:
                line.fail(DECISION, "is there already; these are the decisions of another run")
            held.append(line.fields)
            n_bytes += len(raw)
            if len(held) == BLOCK_ROWS or n_bytes >= BLOCK_BYTES:
                yield held
                held, n_bytes = [], 0
    if held:
        yield held


def _as_json(batch: DecisionBatch) -> Iterator[dict[str, Any]]:
    """Decisions one by one; what is not known is None."""
    columns = {
        "model": batch.models,
        "quality": batch.quality.tolist(),
        "cost_usd": _without_nan(batch.cost),
        "margin": _without_nan(batch.margin),
        "similarity": batch.similarity.tolist(),
        "in_distribution": batch.in_distribution.tolist(),
    }
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _without_nan(values: Any) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124, NaN


@contextmanager
def _maybe_packed(path: Path, file: BinaryIO) -> Iterator[BinaryIO]:
    if not path.name.lower().endswith(".gz"):
        yield file
        return
    # No name and no time in the header: equal decisions, equal bytes.
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        yield cast("BinaryIO", packed)


def _output_schema(shard: Shard, schema: Any, arrow: Any) -> Any:
    if "query" not in schema.names:
        raise DataError(f"{shard.path}: has no column 'query'; the columns are {', '.join(schema.names)}")
    if DECISION in schema.names:
        raise DataError(
            f"{shard.path}: has a column {DECISION!r} already; these are the decisions of another run"
        )
    kinds: Mapping[str, Any] = {
        "model": arrow.string(),
        "quality": arrow.float32(),
        "cost_usd": arrow.float32(),
        "margin": arrow.float32(),
        "similarity": arrow.float32(),
        "in_distribution": arrow.bool_(),
    }
    return arrow.schema([*schema, (DECISION, arrow.struct(list(kinds.items())))])
