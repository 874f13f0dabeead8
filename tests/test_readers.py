"""Outcomes as others publish them: Avengers-Pro, RouterBench and RouteLLM, and what a look at them finds."""

import csv
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centroute.datasets import Outcomes, Reading, read, read_outcomes
from centroute.datasets.avengers_pro import DID_NOT_RUN
from centroute.datasets.check import datasets_of_one_model, find_repeats, find_templates

Write = Callable[..., Path]
Cells = list[list[object]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write JSON values one a line, or text or bytes as they are; return the file."""

    def written(content: list[object] | str | bytes, name: str) -> Path:
        if isinstance(content, list):
            content = "".join(json.dumps(line) + "\n" for line in content)
        raw = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return written


@pytest.fixture
def refused() -> Callable[[Path], str]:
    """The one line in which a file is refused; it begins with the file's name."""

    def message(path: Path) -> str:
        from centroute.errors import DataError

        with pytest.raises(DataError) as raised:
            read_outcomes(path)
        text = str(raised.value)
        assert text.startswith(str(path))
        assert "\n" not in text
        assert len(text) < len(str(path)) + 300
        return text.removeprefix(str(path))

    return message


def table(path: Path, rows: Cells) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


# Avengers-Pro. The first line is that of its README.

README_LINE = {
    "query": "Your query text...",
    "records": {
        "anthropic/claude-opus-4.1": 0.95,
        "google/gemini-2.5-pro": 0.87,
        "openai/gpt-5-chat": 0.92,
    },
    "usages": {
        "anthropic/claude-opus-4.1": {"cost": 0.045},
        "google/gemini-2.5-pro": {"cost": 0.023},
        "openai/gpt-5-chat": {"cost": 0.038},
    },
    "dataset": "arc-agi-v1",
    "index": 0,
}


def record(**changes: Any) -> dict[str, Any]:
    usage = {"cost": 0.5, "prompt_tokens": 100, "completion_tokens": 20}
    line = {"query": "q", "records": {"a": 1.0, "b": 0.0}, "usages": {"a": usage, "b": usage}}
    return line | {"dataset": "d", "index": 3} | changes


@pytest.mark.parametrize("name", ["data.jsonl", "dataset.json", "data.jsonl.gz", "DATA.JSON.GZ"])
def test_avengers_pro_as_in_its_readme(write: Write, name: str) -> None:
    reading = read(write([README_LINE], name if not name.isupper() else name.lower()))
    outcomes = reading.outcomes
    assert reading.form == "Avengers-Pro JSON lines"
    assert reading.left_out == {}
    assert outcomes.models == tuple(README_LINE["records"])  # type: ignore[arg-type]
    assert (outcomes.datasets, outcomes.ids) == (("arc-agi-v1",), ("arc-agi-v1.0",))
    np.testing.assert_array_equal(outcomes.scores, np.float32([[0.95, 0.87, 0.92]]))
    np.testing.assert_array_equal(outcomes.costs, [[0.045, 0.023, 0.038]])


def test_avengers_pro_token_counts_booleans_and_gaps(write: Write) -> None:
    gaps = record(
        records={"a": True, "b": False, "c": None}, usages={"a": None, "b": {}, "c": {"cost": None}}
    )
    outcomes = read_outcomes(write([record(), gaps, record(records={"c": 1}, usages=None)], "data.jsonl"))
    nan = np.nan
    np.testing.assert_array_equal(outcomes.scores, [[1, 0, nan], [1, 0, nan], [nan, nan, 1]])
    np.testing.assert_array_equal(outcomes.costs, [[0.5, 0.5, nan], [nan] * 3, [nan] * 3])
    assert outcomes.tokens is not None
    np.testing.assert_array_equal(outcomes.tokens[0], [[100, 20], [100, 20], [nan, nan]])
    assert np.isnan(outcomes.tokens[1:]).all()


def test_avengers_pro_missing_cost_is_unknown_where_its_code_takes_0(write: Write) -> None:
    outcomes = read_outcomes(write([record(), record(usages={"a": {"cost": 0.0}})], "data.jsonl"))
    np.testing.assert_array_equal(outcomes.costs[1], [0.0, np.nan])


def test_avengers_pro_filled_gaps_are_no_observations(write: Write) -> None:
    nothing = {"cost": 0.0, "prompt_tokens": 0, "completion_tokens": 0}
    usages = record()["usages"]
    filled = record(usages=usages | {"b": nothing})
    free = record(usages=usages | {"b": {"cost": 0.0}})  # a local model that failed
    right = record(records={"a": 1, "b": 1}, usages=usages | {"b": nothing})
    reading = read(write([filled, free, right], "data.jsonl"))
    np.testing.assert_array_equal(reading.outcomes.scores[:, 1], [np.nan, 0, 1])
    np.testing.assert_array_equal(reading.outcomes.costs[:, 1], [np.nan, 0, 0])
    assert reading.left_out == {DID_NOT_RUN: 1}


def test_avengers_pro_lines_without_text_or_score_are_left_out_and_counted(write: Write) -> None:
    lines = [record(), record(query=" "), record(records={"a": None}), record(records={}), record(query="")]
    reading = read(write(lines, "data.jsonl"))  # type: ignore[arg-type]
    assert reading.outcomes.n_queries == 1
    assert reading.left_out == {"lines without a text": 2, "lines without any score": 2}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (record(records={"a": 1.5}), ", line 2, records['a']: 1.5 is outside 0..1"),
        (record(records={"a": float("nan")}), ", line 2, records['a']: nan is outside 0..1"),
        (record(records={"a": "1"}), ", line 2, records['a']: must be a number, got the string '1'"),
        (record(records=[1]), ", line 2, records: must be an object of model and number, got a list of 1"),
        ({"query": "q", "usages": {}}, ", line 2, records: is missing; the line has 'query, usages'"),
        ({"records": {"a": 1}}, ", line 2, query: is missing; the line has 'records'"),
        (record(usages=5), ", line 2, usages: must be an object of model and usage, got the number 5"),
        (record(usages={"a": 5}), ", line 2, usages['a']: must be an object, got the number 5"),
        (
            record(usages={"a": {"cost": -1}}),
            ", line 2, usages['a'].cost: -1.0 is not a finite USD amount of 0 or more",
        ),
        (
            record(usages={"a": {"cost": "free"}}),
            ", line 2, usages['a'].cost: must be a number, got the string",
        ),
        (
            record(usages={"a": {"prompt_tokens": float("inf")}}),
            ", line 2, usages['a'].prompt_tokens: inf is not a finite number of tokens of 0 or more",
        ),
        (record(index=1.5), ", line 2, index: must be a string, got the number 1.5"),
        (
            record(usages={"ghost": {"cost": 1}}),
            ": no score was observed for 'ghost'; leave it out of the pool",
        ),
    ],
)
def test_avengers_pro_refuses(
    line: object, message: str, write: Write, refused: Callable[[Path], str]
) -> None:
    assert message in refused(write([record(), line], "data.jsonl"))


def test_a_file_of_nothing_but_left_out_lines_says_so(write: Write, refused: Callable[[Path], str]) -> None:
    path = write([record(records={"a": None})], "data.jsonl")
    assert refused(path) == ": the file holds no query (left out: 1 lines without any score)"


def test_the_fields_decide_which_json_lines(write: Write) -> None:
    plain = {"query": "q", "scores": {"a": 1}, "records": "ignored"}
    assert read(write([plain], "data.json")).form == "JSON lines"


# RouterBench.

MESSAGE = "Who wrote 'Faust'?\nA) Goethe"
ROUTERBENCH: Cells = [
    [
        *("", "sample_id", "prompt", "eval_name", "gpt-4", "org/tiny", "gpt-4|model_response"),
        *("org/tiny|model_response", "gpt-4|total_cost", "org/tiny|total_cost", "oracle_model_to_route_to"),
    ],
    [0, "arc.test.7", repr([MESSAGE]), "arc", 1.0, 0.25, "['A']", "['no,\nno']", 0.00074, 1.46e-05, "gpt-4"],
    [1, "mt.2", repr(["One.", 'Two "2".']), "mt", 0.9, "", "['x']", "", 0.01, "", "gpt-4"],
    [2, "gsm.3", "not a list", "gsm", 0.0, 1, "['x']", "['y']", "nan", 0, "org/tiny"],
]


def check_routerbench(reading: Reading) -> None:
    outcomes, nan = reading.outcomes, np.nan
    assert reading.form == "RouterBench table"
    assert reading.left_out == {"columns that are neither scores nor costs": 3}
    assert outcomes.queries == (MESSAGE, 'One.\nTwo "2".', "not a list")
    assert outcomes.models == ("gpt-4", "org/tiny")
    assert outcomes.ids == ("arc.test.7", "mt.2", "gsm.3")
    assert outcomes.datasets == ("arc", "mt", "gsm")
    np.testing.assert_array_equal(outcomes.scores, np.float32([[1, 0.25], [0.9, nan], [0, 1]]))
    np.testing.assert_array_equal(outcomes.costs, [[0.00074, 1.46e-05], [0.01, nan], [nan, 0]])


def test_routerbench_csv(tmp_path: Path) -> None:
    check_routerbench(read(table(tmp_path / "data.csv", ROUTERBENCH)))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_routerbench_csv_packed_with_byte_order_mark_and_line_ends(
    tmp_path: Path, write: Write, mark: bytes
) -> None:
    raw = mark + table(tmp_path / "plain.csv", ROUTERBENCH).read_bytes()
    assert b"\r\n" in raw
    check_routerbench(read(write(raw, "data.csv.gz")))
    check_routerbench(read(write(raw.replace(b"\r\n", b"\n"), "unix.csv")))


def test_routerbench_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    header, *rows = ROUTERBENCH
    columns: dict[str, list[object]] = {}
    for position, name in enumerate(header):
        cells = [row[position] for row in rows]
        is_number = position in (4, 5, 8, 9)
        columns[str(name)] = [
            (None if cell in ("", "nan") else float(cell)) if is_number else str(cell)  # type: ignore[arg-type]
            for cell in cells
        ]
    parquet.write_table(pyarrow.table(columns), tmp_path / "data.parquet", row_group_size=1)
    check_routerbench(read(tmp_path / "data.parquet"))


def test_parquet_with_lists_of_messages_and_truth_values(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"prompt": [["a", "b"], ["c"]], "m": [True, None], "n": [False, True], "m|total_cost": [1, 0]}
    parquet.write_table(pyarrow.table(columns | {"n|total_cost": [None, 2.5]}), tmp_path / "data.parquet")
    outcomes = read_outcomes(tmp_path / "data.parquet")
    assert outcomes.queries == ("a\nb", "c")
    np.testing.assert_array_equal(outcomes.scores, [[1, 0], [np.nan, 1]])
    np.testing.assert_array_equal(outcomes.costs, [[1, np.nan], [0, 2.5]])


def test_parquet_of_another_schema(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"price": [1.0], "name": ["x"]}), path)
    assert ": no table of RouterBench or RouteLLM" in (text := refused(path))
    assert "'price, name'" in text
    parquet.write_table(pyarrow.table({"prompt": ["q"], "m": [1], "m|total_cost": ["cheap"]}), path)
    assert refused(path) == ", row 1, column 'm|total_cost': must be a cost in USD, got 'cheap'"
    parquet.write_table(pyarrow.table({"prompt": ["q"], "m": [[1]], "m|total_cost": [1]}), path)
    assert refused(path) == ", row 1, column 'm': must be a score (a number, True or False), got [1]"
    parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], pyarrow.string()), "m": []}), path)
    assert refused(path) == ": the file holds no query"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"this is no parquet file at all", b"PAR1" * 9])
def test_damaged_parquet(content: bytes, write: Write, refused: Callable[[Path], str]) -> None:
    pytest.importorskip("pyarrow")
    assert refused(write(content, "data.parquet")).startswith(": is no readable Parquet file: ")


def test_parquet_without_pyarrow(
    write: Write, refused: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    text = refused(write(b"PAR1", "data.parquet"))
    assert text.endswith("which is not installed; pip install 'centroute[parquet]'")


@pytest.mark.parametrize("name", ["routerbench_0shot.pkl", "data.pickle", "DATA.PKL.GZ"])
def test_pickle_is_not_read(name: str, write: Write, refused: Callable[[Path], str]) -> None:
    text = refused(write(b"\x80\x04N.", name))
    assert "pickle is not read" in text
    assert "to_csv(" in text
    assert ".csv'" in text


def test_what_only_looks_like_a_list_stays_as_it_is(tmp_path: Path) -> None:
    prompts = ["['a', 1]", "['\\d']", "[1, 2]", "['open", "[]", "['" + "[" * 200_000 + "']", "('a',)"]
    rows: Cells = [["prompt", "m", "m|total_cost"], *([prompt, 1, 1] for prompt in prompts)]
    outcomes = read_outcomes(table(tmp_path / "data.csv", rows))
    assert outcomes.queries[0] == "['a', 1]"
    assert outcomes.queries[1] == "\\d"
    assert outcomes.queries[2:5] == ("[1, 2]", "['open", "[]")
    assert outcomes.queries[5] == "[" * 200_000
    assert outcomes.queries[6] == "('a',)"


# RouteLLM: the first lines of its files for MMLU and GSM8K.

MMLU = """prompt,mistralai/Mixtral-8x7B-Instruct-v0.1,gpt-4-1106-preview
"Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.
A. 0
B. 4
Answer:",True,True
"The set of integers Z with the binary operation ""*"" is a group.
Answer:",False,True
"""


def test_routellm_csv(write: Write) -> None:
    reading = read(write(MMLU, "mmlu_abstract_algebra.csv"))
    outcomes = reading.outcomes
    assert (reading.form, reading.left_out) == ("RouteLLM table", {})
    assert outcomes.models == ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")
    assert outcomes.queries[1] == 'The set of integers Z with the binary operation "*" is a group.\nAnswer:'
    assert outcomes.datasets == ("mmlu_abstract_algebra",) * 2
    assert outcomes.ids == ("mmlu_abstract_algebra.0", "mmlu_abstract_algebra.1")
    np.testing.assert_array_equal(outcomes.scores, [[1, 1], [0, 1]])
    assert np.isnan(outcomes.costs).all()


def test_routellm_answers_are_left_out_and_counted(write: Write) -> None:
    text = (
        'prompt,mix,gpt,mix_response,gpt_response\nHow many?,True,False," 18, or\n#### 18",x\n,True,True,,\n'
    )
    reading = read(write(text, "gsm8k_responses.csv"))
    assert reading.outcomes.models == ("mix", "gpt")
    assert reading.left_out == {"columns that are neither scores nor costs": 2, "rows without a text": 1}


def test_a_folder_of_tables_is_read_as_one(write: Write, tmp_path: Path) -> None:
    write(MMLU, "mmlu_b.csv")
    write("prompt,gpt-4-1106-preview,other\nWhy?,1,0.5\n", "mmlu_a.csv.gz")
    write("not read", "notes.txt")
    reading = read(tmp_path)
    assert reading.form == "RouteLLM table, 2 files"
    assert reading.outcomes.datasets == ("mmlu_a", "mmlu_b", "mmlu_b")
    assert reading.outcomes.models[:2] == ("gpt-4-1106-preview", "other")
    assert np.isnan(reading.outcomes.scores[0, 2])


def test_tables_name_the_line_in_which_a_row_begins(write: Write, refused: Callable[[Path], str]) -> None:
    # Two rows of four and two lines stand before it.
    path = write(MMLU + '\n"one\ntwo",True,maybe\n', "data.csv")
    assert refused(path) == (
        ", line 9, column 'gpt-4-1106-preview': must be a score (a number, True or False), got 'maybe'"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": the file holds no query"),
        ("\n\n", ": the file holds no query"),
        ("prompt,m\n", ": the file holds no query"),
        ("prompt,m\n  \n", ": the file holds no query"),
        ("prompt,m\nq,\n", ": the file holds no query (left out: 1 rows without any score)"),
        ("prompt\nq\n", ": beside 'prompt' there is no column with the scores of a model"),
        (
            "a,b\n1,2\n",
            ": no table of RouterBench or RouteLLM, which have a column 'prompt'; the columns are 'a, b'",
        ),
        ("prompt,m,m\nq,1,0\n", ": the column 'm' stands twice, as column 2 and as column 3"),
        ("prompt,prompt,m\nq,q,1\n", ": the column 'prompt' stands twice, as column 1 and as column 2"),
        ("prompt,m\nq,1,2\n", ", line 2: has 3 fields, the header has 2"),
        ("prompt,m\nq\n", ", line 2: has 1 fields, the header has 2"),
        ("prompt,m\nq,2\n", ", line 2, column 'm': 2.0 is outside 0..1"),
        ("prompt,m\nq,-0.5\n", ", line 2, column 'm': -0.5 is outside 0..1"),
        ("prompt,m\nq,inf\n", ", line 2, column 'm': inf is outside 0..1"),
        ("prompt,m\nq,yes\n", ", line 2, column 'm': must be a score (a number, True or False), got 'yes'"),
        ("prompt,m,n\nq,1,\n", ": no score was observed for 'n'; leave it out of the pool"),
        ("prompt, m\nq,1\n", ": the model name ' m' begins or ends with white space"),
        ('prompt,m\n"q,1\n', ", line 2: not valid CSV: unexpected end of data"),
        ('prompt,m\n"q"x,1\n', ", line 2: not valid CSV: ',' expected after '\"'"),
        ("prompt,m|total_cost\nq,1\n", ": the column 'm|total_cost' has no column 'm' of scores beside it"),
        (
            "prompt,m,m|total_cost\nq,1,-1\n",
            ", line 2, column 'm|total_cost': -1.0 is not a finite USD amount",
        ),
        (
            "prompt,m,m|total_cost\nq,1,inf\n",
            ", line 2, column 'm|total_cost': inf is not a finite USD amount",
        ),
        (
            "prompt,m,m|total_cost\nq,1,$1\n",
            ", line 2, column 'm|total_cost': must be a cost in USD, got '$1'",
        ),
        (b"prompt,m\nq,1\ncaf\xe9,1\n", ", line 3: not UTF-8: byte 0xe9 at position 4"),
        (gzip.compress(b"prompt,m\n", mtime=0), ": the file is compressed with gzip; name it .csv.gz"),
    ],
)
def test_tables_refuse(text: str | bytes, message: str, write: Write, refused: Callable[[Path], str]) -> None:
    assert refused(write(text, "data.csv")).startswith(message)


def test_damaged_packed_table(write: Write, refused: Callable[[Path], str]) -> None:
    path = write(MMLU, "data.csv.gz")
    path.write_bytes(path.read_bytes()[:-9])
    assert "damaged or truncated gzip" in refused(path)


def test_more_columns_than_any_pool_has_models(write: Write, refused: Callable[[Path], str]) -> None:
    columns = ["prompt", *(f"m{number}" for number in range(5000))]
    assert "names more than 4096 models" in refused(write(",".join(columns) + "\n", "data.csv"))


def test_a_field_of_a_megabyte(write: Write) -> None:
    outcomes = read_outcomes(write('prompt,m\n"' + "long,\n" * 200_000 + '",1\n', "data.csv"))
    assert len(outcomes.queries[0]) == 1_200_000


# A look at the data.


def observed(queries: list[str], scores: list[list[float]], datasets: list[str] | None = None) -> Outcomes:
    n_models = len(scores[0])
    return Outcomes(
        queries=tuple(queries),
        models=tuple("abcdef"[:n_models]),
        scores=np.array(scores, dtype=np.float32),
        costs=np.full((len(queries), n_models), np.nan),
        datasets=tuple(datasets or [""] * len(queries)),
        ids=tuple(str(row) for row in range(len(queries))),
    )


def test_repeats_and_contradictions() -> None:
    nan = np.nan
    repeats = find_repeats(
        observed(
            ["What?", "Who?", " WHAT? ", "When?", "who?", "what?"],
            [[1, nan], [0, 1], [1, 0.5], [1, 1], [0, nan], [0.25, 0.5]],
        )
    )
    assert (repeats.n_texts, repeats.n_repeated_texts, repeats.n_repeated_rows) == (3, 2, 5)
    assert (repeats.n_conflicts, repeats.n_conflicting_texts) == (1, 1)
    assert repeats.example is not None
    assert (repeats.example.model, repeats.example.ids) == ("a", ("5", "0"))
    assert repeats.example.scores == (0.25, 1)


def test_no_repeats() -> None:
    repeats = find_repeats(observed(["one", "two"], [[1], [0]]))
    assert (repeats.n_texts, repeats.n_repeated_rows, repeats.example) == (2, 0, None)


def test_templates_at_both_ends_most_texts_first() -> None:
    begin = "You are given a question with four choices. "
    end = "\nPrint only a single choice from A, B, C or D."
    texts = [f"{begin}Question {n}?{end}" for n in range(6)] + [f"{n} + {n} is what?{end}" for n in range(9)]
    found = [(template.place, template.text, template.n_texts) for template in find_templates(texts * 2)]
    # The texts with numbers 0 to 8 share more of their ends than the template alone.
    assert found[0] == ("end", "?" + end, 15)
    assert found[1] == ("begin", begin + "Question ", 6)
    assert find_templates(texts, largest=1)[0].place == "end"
    assert find_templates([f"{n} is short" for n in range(50)]) == []


def test_datasets_of_one_model() -> None:
    nan = np.nan
    scores = [[1, nan], [1, 0], [0, nan], [nan, 1]]
    outcomes = observed(["one", "two", "three", "four"], scores, ["x", "y", "x", "z"])
    assert datasets_of_one_model(outcomes) == {"x": 2, "z": 1}


# On the command line.


def test_check_prints_what_was_read_and_writes_nothing(cli: Any, tmp_path: Path, unchanged: Any) -> None:
    again = ["", "again", "NOT a list", "gsm", 1, 1, "", "", 1, 1, ""]
    path = table(tmp_path / "data.csv", [*ROUTERBENCH, again])
    with unchanged(tmp_path):
        finished = cli("calibrate", path, "--check")
    assert (finished.code, finished.err) == (0, "")
    for line in (
        f"{path}: RouterBench table, 4 queries (3 distinct texts), 2 models, 3 datasets",
        "missing: 1 of 8 scores (12.5 %)",
        "costs from the data: gpt-4 (3 queries), org/tiny; unknown: gpt-4 (1 queries)",
        "one model only was scored on dataset 'mt', 1 queries",
        "left out: 3 columns that are neither scores nor costs",
    ):
        assert line in finished.out.splitlines()
    repeated = (
        "1 of them with scores that differ, as of gpt-4 0 on 'gsm.3' and 1 on 'again'; every row counts"
    )
    assert f"repeated: 1 texts stand in 2 rows; {repeated}" in finished.out.splitlines()


def test_check_says_what_the_embedder_does_not_know(cli: Any, write: Write) -> None:
    path = write("prompt,a,b\nWhy?,1,0\n\U0001f642,1,0\n", "data.csv")
    finished = cli("calibrate", path, "--check")
    assert "left out: 1 queries that hold nothing the embedder knows" in finished.out.splitlines()


def test_one_model_is_refused(cli: Any, write: Write, tmp_path: Path, unchanged: Any) -> None:
    path = write("prompt,only\nWhy?,1\nWho?,0\n", "data.csv")
    with unchanged(tmp_path):
        finished = cli("calibrate", path, "-o", tmp_path / "router.safetensors")
        checked = cli("calibrate", path, "--check")
    finished.assert_refused(str(path), "there is one model, 'only', and so nothing to choose between")
    checked.assert_refused("nothing to choose between")
    assert "only" in checked.out


def test_output_is_needed_unless_the_data_are_only_checked(cli: Any, write: Write) -> None:
    path = write("prompt,a,b\nWhy?,1,0\n", "data.csv")
    cli("calibrate", path).assert_wrong_usage("--output")


def test_calibrates_on_what_others_publish(cli: Any, tmp_path: Path, outcomes: Outcomes) -> None:
    lines = [
        {
            "query": query,
            "records": {model: float(score) for model, score in zip(outcomes.models, row, strict=True)},
        }
        for query, row in zip(outcomes.queries, outcomes.scores, strict=True)
    ]
    path = tmp_path / "dataset.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    finished = cli(
        "calibrate", path, "-o", tmp_path / "r.safetensors", "--clusters", 2, "--method", "avengers-pro"
    )
    assert (finished.code, finished.err) == (0, "")


# Real outcomes in the form in which they were published.

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def real(name: str) -> Outcomes:
    path = REAL_DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return read_outcomes(path)


def test_real_routerbench_outcomes_as_a_table(tmp_path: Path) -> None:
    expected = real("routerbench3")
    header = [
        "sample_id",
        "prompt",
        "eval_name",
        *expected.models,
        *(f"{m}|total_cost" for m in expected.models),
    ]
    rows: Cells = [
        [row_id, str([query]), dataset, *map(str, scores), *map(float, costs)]
        for row_id, query, dataset, scores, costs in zip(
            expected.ids, expected.queries, expected.datasets, expected.scores, expected.costs, strict=True
        )
    ]
    outcomes = read_outcomes(table(tmp_path / "data.csv", [list(header), *rows]))
    assert outcomes.queries == expected.queries
    assert (outcomes.models, outcomes.ids) == (expected.models, expected.ids)
    np.testing.assert_array_equal(outcomes.scores, expected.scores)
    np.testing.assert_array_equal(outcomes.costs, expected.costs)


def test_real_routellm_outcomes_as_files_of_a_folder(tmp_path: Path) -> None:
    expected = real("routellm2")
    files: dict[str, Cells] = {}
    for query, dataset, scores in zip(expected.queries, expected.datasets, expected.scores, strict=True):
        header: list[object] = ["prompt", *expected.models]
        files.setdefault(dataset, [header]).append([query, *(bool(score) for score in scores)])
    for dataset, rows in files.items():
        table(tmp_path / f"{dataset}.csv", rows)
    outcomes = read_outcomes(tmp_path)
    by_text, wanted = (
        {
            (dataset, query, *map(float, scores))
            for dataset, query, scores in zip(made.datasets, made.queries, made.scores, strict=True)
        }
        for made in (outcomes, expected)
    )
    assert by_text == wanted
    assert outcomes.n_queries == expected.n_queries
