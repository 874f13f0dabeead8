"""Reading the log that :mod:`centroute.decision_log` writes. Apart from it, as this needs NumPy.

NumPy comes with the readers of outcomes, whose complaints about lines are shared.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from centroute.datasets.json_lines import Line, numbered_lines, opened

_FIELDS: Final = frozenset(
    {"id", "model", "similarity", "in_distribution", "clusters", "sha256", "score", "cost_usd"}
)


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """One line of a log, as far as it is read.

    Attributes
    ----------
    line
        Its number, from 1.
    decision_id
        Under which feedback is given.
    sha256
        Digest of the router file that decided.
    model
        The chosen model.
    similarity
        To the nearest cluster.
    in_distribution
        Whether the query resembled the calibration data.
    clusters
        Pairs of cluster id and weight.
    """

    line: int
    decision_id: str
    sha256: str
    model: str
    similarity: float
    in_distribution: bool
    clusters: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What came of a decision.

    Attributes
    ----------
    line
        Its number, from 1.
    decision_id
        Which decision.
    score
        How good the answer was, 0 to 1; ``None`` where not known.
    cost_usd
        What it cost; ``None`` where not known.
    """

    line: int
    decision_id: str
    score: float | None
    cost_usd: float | None


def read_feedback(path: str | os.PathLike[str]) -> Iterator[Feedback]:
    """Read feedback, on its own or out of a log, ``.gz`` or plain, line by line.

    Raises
    ------
    DataError
        If the file cannot be read or a line is at fault; names file, line and field.
    """
    for number, line in _lines(path):
        if _is_feedback(line):
            score, cost = line.fields.get("score"), line.fields.get("cost_usd")
            if score is None and cost is None:
                line.fail(None, "has neither a score nor a cost_usd")
            yield Feedback(
                line=number,
                decision_id=_text(line, "id"),
                score=line.score("score", score, booleans=True),
                cost_usd=line.amount("cost_usd", cost, "number of USD"),
            )


def read_decisions(path: str | os.PathLike[str]) -> Iterator[LoggedDecision]:
    """Read the decisions of a log, ``.gz`` or plain, line by line.

    A line without its end is left out: it is being written, or its writer was stopped in the middle.

    Raises
    ------
    DataError
        If the file cannot be read or a line is at fault; names file, line and field.
    """
    for number, line in _lines(path):
        if not _is_feedback(line):
            yield _decision(line, number)


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, Line]]:
    source = Path(path)
    with opened(source) as stream:
        for number, raw in numbered_lines(source, stream):
            if raw.rstrip().endswith(b"}"):
                yield number, Line(source, number, raw, fields=_FIELDS)


def _is_feedback(line: Line) -> bool:
    return "model" not in line.fields and not line.fields.keys().isdisjoint({"score", "cost_usd"})


def _text(line: Line, field: str) -> str:
    value = line.required(field)
    if not isinstance(value, str):
        line.fail(field, "must be a string")
    return value


def _decision(line: Line, number: int) -> LoggedDecision:
    decision_id, sha256, model = (_text(line, field) for field in ("id", "sha256", "model"))
    similarity = line.number("similarity", line.required("similarity"))
    if similarity is None or not -1.001 <= similarity <= 1.001:
        line.fail("similarity", f"{similarity} is no cosine")
    in_distribution = line.required("in_distribution")
    if not isinstance(in_distribution, bool):
        line.fail("in_distribution", "must be true or false")
    return LoggedDecision(
        line=number,
        decision_id=decision_id,
        sha256=sha256,
        model=model,
        similarity=similarity,
        in_distribution=in_distribution,
        clusters=_clusters(line),
    )


def _clusters(line: Line) -> tuple[tuple[int, float], ...]:
    given = line.required("clusters")
    if not isinstance(given, list) or not given:
        line.fail("clusters", "must be a list of {id, weight}")
    clusters = []
    for entry in given:
        cluster = entry.get("id") if isinstance(entry, dict) else None
        weight = entry.get("weight") if isinstance(entry, dict) else None
        if not isinstance(cluster, int) or isinstance(cluster, bool) or cluster < 0:
            line.fail("clusters", "each must have the number of a cluster as id")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1.001:
            line.fail("clusters", "each must have a weight from 0 to 1")
        clusters.append((cluster, float(weight)))
    return tuple(clusters)
