"""Outcomes as RouteLLM publishes them: a CSV file a task, a column a model.

Columns ``prompt``; ``<model>`` with ``True``, ``False`` or a score in 0..1; and ``<model>_response`` with the
answer. Sources: ``routellm/evals/mmlu/responses/*.csv`` and ``routellm/evals/gsm8k/gsm8k_responses.csv``
of github.com/lm-sys/RouteLLM, arXiv 2406.18665. The task is the name of the file. Columns ``sample_id`` and
``eval_name`` are taken where a table has them.
"""

from collections.abc import Sequence

from centroute._shown import show
from centroute.datasets.builder import OutcomesBuilder
from centroute.datasets.routerbench import OTHER_COLUMN, check_models, has_outcome
from centroute.datasets.table import INDEX_COLUMNS, Table
from centroute.errors import DataError

RESPONSE = "_response"

_PROMPT, _DATASET, _ID = "prompt", "eval_name", "sample_id"


def is_routellm(columns: Sequence[str]) -> bool:
    """Tell by a table's columns whether it can be of this format."""
    return _PROMPT in columns


def read(table: Table, builder: OutcomesBuilder) -> str:
    """Add a table's rows; return the format's name. Answers are not loaded but counted as left out.

    Raises
    ------
    DataError
        There is no column of scores, a name cannot be used, or a cell is at fault.
    """
    known = set(table.columns)
    answers = {column for column in known if column.removesuffix(RESPONSE) in known - {column}}
    other = {_PROMPT, _DATASET, _ID, *INDEX_COLUMNS, *answers}
    models = [column for column in table.columns if column not in other]
    if not models:
        raise DataError(
            f"{table.source}: beside {show(_PROMPT)} there is no column with the scores of a model"
        )
    check_models(table, models)
    if answers:
        builder.leave_out(OTHER_COLUMN, len(answers))
    labels = [column for column in (_DATASET, _ID) if column in known]
    task = table.source.name.removesuffix(".gz").rpartition(".")[0]
    with table.rows([_PROMPT, *labels, *models]) as rows:
        for number, row in enumerate(rows):
            query = row.text(_PROMPT)
            scores = {model: row.score(model) for model in models}
            if has_outcome(query, scores, builder):
                builder.add(
                    query,
                    scores=scores,
                    costs={},
                    tokens={},
                    dataset=row.text(_DATASET) or task,
                    row_id=row.text(_ID) or f"{task}.{number}",
                )
    return "RouteLLM table"
