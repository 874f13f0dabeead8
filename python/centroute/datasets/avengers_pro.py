"""Outcomes as Avengers-Pro publishes them: JSON lines with ``records`` and ``usages``.

A line is ``{"query": str, "records": {model: score}, "usages": {model: {"cost": USD, "prompt_tokens": int,
"completion_tokens": int}}, "dataset": str, "index": int}``; ``usages`` and what stands in it may be missing.
A score is a number, true or false. Sources: the README of github.com/ZhangYiqun018/AvengersPro ("Data
Format"), and ``baselines/adaptors/avengerspro_adaptor.py`` of github.com/ynulihao/LLMRouterBench.

Two things are read otherwise than there. A missing or null score is not observed, and a missing cost unknown;
their code takes both as 0. And a model that did not run has score 0, cost 0 and no tokens in files of that
adaptor, which fills gaps so; such cells are left out and counted.
"""

from collections.abc import Mapping
from pathlib import Path

from centroute._shown import show
from centroute.datasets.builder import OutcomesBuilder, Reading, Value
from centroute.datasets.json_lines import Line, numbered_lines, opened

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
"""The commands of its README name JSON lines ``dataset.json``."""

NO_TEXT = "lines without a text"
NO_SCORE = "lines without any score"
DID_NOT_RUN = "scores of 0 with no tokens and no cost, which stand for a model that did not run"

_FIELDS = frozenset({"query", "records", "usages", "dataset", "index"})


def is_avengers_pro(fields: Mapping[str, object]) -> bool:
    """Tell by the fields of a line whether it is of this format."""
    return "records" in fields and "scores" not in fields


def read(source: Path) -> Reading:
    """Read a file of Avengers-Pro outcomes, UTF-8 with or without a byte order mark; ``.gz`` is unpacked.

    Lines without text or without any score are left out and counted. A query's id is its ``dataset`` and
    ``index``, or its line number.

    Raises
    ------
    DataError
        The file cannot be read, holds no query, or a line is at fault; names line, field and value.
    """
    builder = OutcomesBuilder(source)
    with opened(source) as stream:
        for number, raw in numbered_lines(source, stream):
            _add(builder, Line(source, number, raw, fields=_FIELDS), number)
    return builder.finish("Avengers-Pro JSON lines")


def _add(builder: OutcomesBuilder, line: Line, number: int) -> None:
    query, scores = line.query(may_be_empty=True), line.scores("records", booleans=True)
    costs, tokens = _usages(line)
    for model, score in scores.items():
        if score == 0 and costs.get(model) == 0 and tokens.get(model) == (0, 0):
            builder.leave_out(DID_NOT_RUN)
            scores[model] = costs[model] = None
            tokens[model] = (None, None)
    if not query.strip():
        builder.leave_out(NO_TEXT)
        return
    if all(score is None for score in scores.values()):
        builder.leave_out(NO_SCORE)
        return
    dataset, index = line.text("dataset", ""), line.text("index", "")
    row_id = ".".join(part for part in (dataset, index) if part) if index else str(number)
    builder.add(query, scores=scores, costs=costs, tokens=tokens, dataset=dataset, row_id=row_id)
    line.check_pool("records", builder)


def _usages(line: Line) -> tuple[dict[str, Value], dict[str, tuple[Value, Value]]]:
    """Return costs and token counts by model."""
    costs: dict[str, Value] = {}
    tokens: dict[str, tuple[Value, Value]] = {}
    given = line.fields.get("usages")
    if given is None:
        return costs, tokens
    for model, usage in line.by_model("usages", given, "usage").items():
        place = f"usages[{show(model)}]"
        if usage is None:
            continue
        stated = line.mapping(place, usage)
        costs[model] = line.amount(f"{place}.cost", stated.get("cost"), "USD amount")
        n_input, n_output = (
            line.amount(f"{place}.{name}", stated.get(name), "number of tokens")
            for name in ("prompt_tokens", "completion_tokens")
        )
        tokens[model] = (n_input, n_output)
    return costs, tokens
