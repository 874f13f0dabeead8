"""Calibration data as JSON lines: one query a line, read as a stream and written atomically.

A line is ``{"query": str, "scores": {model: 0..1}, "costs": {model: USD}, "tokens": {model: [input, output]},
"dataset": str, "id": str}``. ``scores`` may lack models; ``costs`` and ``tokens`` (how many the model read
and wrote) may be missing; ``null`` says not observed or unknown. For votes a line may hold ``"answers":
{model: str}`` in the form in which equal answers are equal, ``null`` where one could not be read, and
``"answer"``, the right one; for plans ``"role": str``, in which the models answered. Other keys are ignored.
Every fault is one `DataError` that names file, line, field and value.
"""

import gzip
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from centroute._atomic import atomic_file
from centroute._shown import show
from centroute.datasets.answers import NOT_OBSERVED, UNREAD, Answers
from centroute.datasets.builder import MAX_MODELS, OutcomesBuilder, Reading, Value
from centroute.datasets.json_lines import Line, numbered_lines, opened
from centroute.datasets.outcomes import Outcomes
from centroute.errors import DataError

__all__ = ["MAX_MODELS", "SUFFIXES", "read", "read_jsonl", "write_jsonl"]

SUFFIXES = (".jsonl", ".jsonl.gz")

FIELDS = frozenset({"query", "scores", "costs", "tokens", "dataset", "id", "answers", "answer", "role"})
"""Fields of a line; others are ignored."""


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
    return read(Path(path)).outcomes


def read(source: Path) -> Reading:
    """Read as `read_jsonl` does, and say what was read. Nothing is left out: what cannot be used is refused.

    Raises
    ------
    DataError
        As `read_jsonl`.
    """
    builder = OutcomesBuilder(source)
    with opened(source) as stream:
        for number, raw in numbered_lines(source, stream):
            line = Line(source, number, raw, fields=FIELDS)
            add_line(line, number, builder)
            line.check_pool("scores", builder)
    return builder.finish("JSON lines")


def add_line(line: Line, number: int, builder: OutcomesBuilder) -> Mapping[str, Value]:
    """Add the row that a line holds, and return its scores by model.

    Raises
    ------
    DataError
        Names line and field at fault.
    """
    query, scores = line.query(), line.scores("scores")
    if all(score is None for score in scores.values()):
        line.fail("scores", "holds no score")
    builder.add(
        query,
        scores=scores,
        costs=_costs(line),
        tokens=_tokens(line),
        dataset=line.text("dataset", ""),
        row_id=line.text("id", str(number)),
        answers=_answers(line, scores),
        # Without answers it is a field that others use for something else.
        answer=_answer(line, "answer", line.fields.get("answer")) if "answers" in line.fields else None,
        role=line.text("role", ""),
    )
    return scores


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


def _costs(line: Line) -> Mapping[str, Value]:
    given = line.fields.get("costs")
    if given is None:
        return {}
    return {
        model: line.amount(f"costs[{show(model)}]", cost, "USD amount")
        for model, cost in line.by_model("costs", given, "number").items()
    }


def _answers(line: Line, scores: Mapping[str, Value]) -> Mapping[str, str | None]:
    given = line.fields.get("answers")
    if given is None:
        return {}
    answers: dict[str, str | None] = {}
    for model, answer in line.by_model("answers", given, "answer").items():
        place = f"answers[{show(model)}]"
        if model not in scores:
            line.fail(place, "is of a model that has no score on this line")
        answers[model] = _answer(line, place, answer)
    return answers


def _answer(line: Line, place: str, answer: object) -> str | None:
    """One answer without white space at its ends; an empty one cannot be read."""
    if answer is None:
        return None
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return json.dumps(answer)
    if not isinstance(answer, str):
        line.fail(place, f"must be a string, a number or null, got a value of type {type(answer).__name__}")
    return answer.strip() or None


def _tokens(line: Line) -> Mapping[str, tuple[Value, Value]]:
    given = line.fields.get("tokens")
    if given is None:
        return {}
    tokens: dict[str, tuple[Value, Value]] = {}
    for model, counts in line.by_model("tokens", given, "[input, output]").items():
        place = f"tokens[{show(model)}]"
        n_input, n_output = (None, None) if counts is None else line.pair(place, counts)
        tokens[model] = (
            line.amount(place, n_input, "number of tokens"),
            line.amount(place, n_output, "number of tokens"),
        )
    return tokens


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
        if outcomes.tokens is not None:
            fields["tokens"] = {
                model: [_count(n_tokens) for n_tokens in counts]
                for model, counts in zip(outcomes.models, outcomes.tokens[row], strict=True)
                if not np.isnan(counts).all()
            }
        if outcomes.answers is not None:
            fields.update(_answer_fields(outcomes.models, outcomes.answers, row))
        if outcomes.roles is not None:
            fields["role"] = outcomes.roles[row]
        for optional in ("dataset", "costs", "tokens", "answers", "role"):
            if not fields.get(optional, True):
                del fields[optional]
        yield _encoded(fields)


def _answer_fields(models: Iterable[str], answers: Answers, row: int) -> dict[str, object]:
    right = int(answers.right[row])
    return {
        "answers": {
            model: None if number == UNREAD else answers.texts[number]
            for model, number in zip(models, answers.given[row].tolist(), strict=True)
            if number != NOT_OBSERVED
        },
        "answer": None if right == NOT_OBSERVED else answers.texts[right],
    }


def _count(n_tokens: float) -> float | None:
    if np.isnan(n_tokens):
        return None
    return int(n_tokens) if float(n_tokens).is_integer() else float(n_tokens)


def _encoded(fields: dict[str, object]) -> bytes:
    try:
        return (json.dumps(fields, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate exists only as an escape
        return (json.dumps(fields) + "\n").encode("ascii")
