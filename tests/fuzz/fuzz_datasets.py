"""Readers of outcomes: JSON lines, Avengers-Pro, RouterBench and RouteLLM tables, plain, packed and Parquet.

An input is the name of a file, a line feed, and its content.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import math
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import main, mutated_bytes, mutated_json, tried

from centroute.datasets import read, read_jsonl, write_jsonl

LINES: dict[str, list[dict[str, Any]]] = {
    "jsonl": [
        {"query": "Who wrote Faust?", "scores": {"large": 1, "small": 0.5},
         "costs": {"large": 0.004, "small": 2e-4},
         "dataset": "books", "id": "a1", "tokens": {"large": [10, 20], "small": [10, None]}},
        {"query": "2 + 2?", "scores": {"large": 1, "small": None}, "costs": {"large": None}},
    ],
    "avengers": [
        {"query": "Who?", "records": {"a": 1, "b": True}, "dataset": "d", "index": 3,
         "usages": {"a": {"cost": 0.1, "prompt_tokens": 5, "completion_tokens": 7}, "b": None}},
        {"query": "When?", "records": {"a": 0, "b": 0.25}, "usages": {"a": {"cost": 0}}},
    ],
}  # fmt: skip
TABLES: list[list[list[object]]] = [
    [["sample_id", "prompt", "eval_name", "a", "a|total_cost", "a|model_response", "b", "b|total_cost"],
     ["m.1", "['Who wrote Faust?']", "mmlu", 1.0, 0.01, "Goethe", 0.0, 0.001],
     ["m.2", "plain, text", "mmlu", 0.5, "", "x", "nan", 1e-9]],
    [["prompt", "a", "b", "a_response"], ["Who?", "True", "False", "he"], ["When?", 0.5, "", "then"]],
]  # fmt: skip
CELLS = [
    "", "nan", "True", "1e309", "-1", "1_0",
    "0x1", "['a', 'b']", "['\\ud800']", "['\\N{DASH}']", "[" * 500, "'",
    '"',
    "a\x00b", "\u2028", "=1", "1" * 5000, None, 2, 1e-320, b"\xff\xfe",
]  # fmt: skip


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-datasets-"))


def make(chance: random.Random) -> bytes:
    """Return one input."""
    kind = chance.choice(("lines", "lines", "table", "table", "parquet"))
    if kind == "lines":
        rows = chance.choice(list(LINES.values())) * chance.choice((1, 1, 1, 40))
        content = "\n".join(
            mutated_json(chance, row, n_changes=0 if chance.random() < 0.5 else None) for row in rows
        ).encode()
        name = chance.choice(("x.jsonl", "x.json"))
    elif kind == "table":
        content, name = _csv(chance), "x.csv"
    else:
        content, name = _parquet(chance), "x.parquet"
    if chance.random() < 0.35:
        content = mutated_bytes(chance, content)
    if kind != "parquet" and chance.random() < 0.25:
        content, name = gzip.compress(content, mtime=0), name + ".gz"
        if chance.random() < 0.5:
            content = mutated_bytes(chance, content)
    return name.encode() + b"\n" + content


def _mutated_table(chance: random.Random) -> list[list[object]]:
    table = [list(row) for row in chance.choice(TABLES)]
    for _ in range(chance.choice((0, 1, 1, 3))):
        row = chance.choice(table)
        kind = chance.random()
        if kind < 0.1:
            row.append("more")
        elif kind < 0.2 and row:
            row.pop()
        elif row:
            row[chance.randrange(len(row))] = chance.choice(CELLS)
    return table


def _csv(chance: random.Random) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=chance.choice(("\n", "\r\n", "\r")))
    for row in _mutated_table(chance):
        writer.writerow("" if cell is None else cell for cell in row)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _parquet(chance: random.Random) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    header, *rows = _mutated_table(chance)
    columns: dict[str, Any] = {}
    for place, name in enumerate(header):
        cells = [row[place] if place < len(row) else None for row in rows]
        if chance.random() < 0.2:
            cells = [chance.choice(([cell], {"x": cell}, [[cell]])) for cell in cells]
        try:
            columns[str(name)] = pa.array(cells)
        except (pa.ArrowException, UnicodeEncodeError):
            columns[str(name)] = pa.array([None if cell is None else repr(cell) for cell in cells])
    if chance.random() < 0.1:
        columns["prompt"] = pa.array([b"\xff\xfe" for _ in rows]).cast(pa.binary())
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def check(data: bytes) -> None:
    """Whatever is read is in range, and comes back the same when it is written."""
    name, _, content = data.partition(b"\n")
    path = _folder() / Path(name.decode()).name
    path.write_bytes(content)
    reading = tried(lambda: read(path))
    if reading is None:
        return
    outcomes = reading.outcomes
    assert outcomes.n_queries > 0
    assert all(query.strip() for query in outcomes.queries)
    for matrix, most in ((outcomes.scores, 1.0), (outcomes.costs, math.inf)):
        known = matrix[matrix == matrix]
        assert (known >= 0).all()
        assert (known <= most).all()
    if path.name == "x.jsonl":
        again = _folder() / "again.jsonl"
        write_jsonl(outcomes, again)
        other = read_jsonl(again)
        assert other.queries == outcomes.queries
        assert set(other.models) == set(outcomes.models)
        for model in outcomes.models:
            one, two = outcomes.models.index(model), other.models.index(model)
            assert json.dumps(other.scores[:, two].tolist()) == json.dumps(outcomes.scores[:, one].tolist())
            assert json.dumps(other.costs[:, two].tolist()) == json.dumps(outcomes.costs[:, one].tolist())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main("datasets", make, check)
