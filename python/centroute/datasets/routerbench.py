"""Outcomes as RouterBench publishes them: one wide table, a row a query.

Columns ``sample_id``, ``prompt``, ``eval_name``; ``<model>`` with the score, ``<model>|total_cost`` in USD a
query, ``<model>|model_response`` with the answer; and ``oracle_model_to_route_to``. Sources:
``convertors/common.py``, ``convertors/martian_evals_convertor.py`` and ``utils.py`` (``get_models_to_route``)
of github.com/withmartian/routerbench, arXiv 2403.12031. A ``prompt`` there is the text of a Python list of
messages, ``"['Who wrote Faust?']"``; the messages are joined with line feeds.

The data set is published as pickle, which is never read here, since opening one can run any code. Where it is
trusted, ``pandas.read_pickle("data.pkl").to_csv("data.csv", index=False)`` makes a table of it.
"""

import ast
import re
import warnings
from collections.abc import Mapping, Sequence

from centroute._shown import show
from centroute.datasets.builder import MAX_MODELS, OutcomesBuilder
from centroute.datasets.outcomes import model_name_fault
from centroute.datasets.table import INDEX_COLUMNS, Table
from centroute.errors import DataError

COST, RESPONSE = "|total_cost", "|model_response"
NO_TEXT = "rows without a text"
NO_SCORE = "rows without any score"
OTHER_COLUMN = "columns that are neither scores nor costs"

_PROMPT, _DATASET, _ID = "prompt", "eval_name", "sample_id"

# What str() makes of a list of texts; nothing nested reaches the parser.
_TEXT = r"""(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")"""
_LIST_OF_TEXTS = re.compile(rf"\[{_TEXT}(?:, {_TEXT})*+\]", re.DOTALL)


def is_routerbench(columns: Sequence[str]) -> bool:
    """Tell by a table's columns whether it is of this format."""
    return _PROMPT in columns and any(column.endswith((COST, RESPONSE)) for column in columns)


def read(table: Table, builder: OutcomesBuilder) -> str:
    """Add a table's rows; return the format's name. Answers are not loaded but counted as left out.

    Raises
    ------
    DataError
        A model has costs or answers and no scores, a name cannot be used, or a cell is at fault.
    """
    known = set(table.columns)
    models = list(
        dict.fromkeys(_model(column) for column in table.columns if column.endswith((COST, RESPONSE)))
    )
    for model in models:
        if model not in known:
            beside = next(model + suffix for suffix in (COST, RESPONSE) if model + suffix in known)
            raise DataError(
                f"{table.source}: the column {show(beside)} has no column {show(model)} of scores beside it"
            )
    check_models(table, models)
    costs = [model + COST for model in models if model + COST in known]
    labels = [column for column in (_DATASET, _ID) if column in known]
    used = {_PROMPT, *models, *costs, *labels}
    if n_other := sum(column not in used and column not in INDEX_COLUMNS for column in table.columns):
        builder.leave_out(OTHER_COLUMN, n_other)

    with table.rows([_PROMPT, *labels, *models, *costs]) as rows:
        for number, row in enumerate(rows):
            query = _messages(row.cells[_PROMPT]) or row.text(_PROMPT)
            scores = {model: row.score(model) for model in models}
            if has_outcome(query, scores, builder):
                builder.add(
                    query,
                    scores=scores,
                    costs={_model(column): row.cost(column) for column in costs},
                    tokens={},
                    dataset=row.text(_DATASET),
                    row_id=row.text(_ID) or str(number),
                )
    return "RouterBench table"


def has_outcome(query: str, scores: Mapping[str, float | None], builder: OutcomesBuilder) -> bool:
    """Whether a row has a text and a score; one without is left out and counted."""
    if not query.strip():
        builder.leave_out(NO_TEXT)
        return False
    if all(score is None for score in scores.values()):
        builder.leave_out(NO_SCORE)
        return False
    return True


def check_models(table: Table, models: Sequence[str]) -> None:
    """Refuse names of models that cannot be used, and more of them than any pool has.

    Raises
    ------
    DataError
        Names the column at fault.
    """
    for model in models:
        if fault := model_name_fault(model):
            raise DataError(f"{table.source}: {fault}")
    if len(models) > MAX_MODELS:
        raise DataError(f"{table.source}: the file names more than {MAX_MODELS} models")


def _model(column: str) -> str:
    return column.removesuffix(COST).removesuffix(RESPONSE)


def _messages(prompt: object) -> str:
    """Join a list of messages, or the text of one; ``""`` for anything else."""
    if isinstance(prompt, str):
        if not _LIST_OF_TEXTS.fullmatch(prompt.strip()):
            return ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a backslash in what only looks like a list
                prompt = ast.literal_eval(prompt.strip())
        except (ValueError, SyntaxError):
            return ""
    if isinstance(prompt, list) and all(isinstance(message, str) for message in prompt):
        return "\n".join(prompt)
    return ""
