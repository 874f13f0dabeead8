"""Outcomes, their JSONL form with every bad input by name, and the split by text."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute.datasets import Outcomes, read_jsonl, read_outcomes, split_by_text, text_key, write_jsonl
from centroute.datasets.jsonl import MAX_MODELS
from centroute.errors import DataError

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

GOOD = {"query": "What is 2 + 2?", "scores": {"large": 1, "small": 0.5}, "costs": {"large": 0.002}}


def made(**changes: Any) -> Outcomes:
    """Three queries and two models, with changes to any field."""
    fields: dict[str, Any] = {
        "queries": ("one", "two", "three"),
        "models": ("large", "small"),
        "scores": np.array([[1, 0], [0.7, np.nan], [1, 0.25]], dtype=np.float32),
        "costs": np.array([[0.002, np.nan], [0.0, np.nan], [np.nan, np.nan]]),
        "datasets": ("a", "", "b"),
        "ids": ("1", "2", "3"),
    }
    return Outcomes(**(fields | changes))


def assert_same(left: Outcomes, right: Outcomes) -> None:
    for field in ("queries", "models", "datasets", "ids"):
        assert getattr(left, field) == getattr(right, field)
    np.testing.assert_array_equal(left.scores, right.scores)
    np.testing.assert_array_equal(left.costs, right.costs)
    assert (left.tokens is None) == (right.tokens is None)
    if left.tokens is not None:
        np.testing.assert_array_equal(left.tokens, right.tokens)


# Outcomes themselves.


def test_outcomes_hold_read_only_copies_of_the_wanted_types() -> None:
    scores = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float64)
    outcomes = made(scores=scores)
    assert outcomes.scores.dtype == np.float32
    assert outcomes.costs.dtype == np.float64
    scores[0, 0] = 0.5
    assert outcomes.scores[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        outcomes.scores[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        outcomes.costs[0, 0] = 0


def test_counts_and_has_costs() -> None:
    outcomes = made()
    assert (outcomes.n_queries, outcomes.n_models) == (3, 2)
    assert outcomes.has_costs.dtype == np.bool_
    assert outcomes.has_costs.tolist() == [True, False]


def test_an_unknown_cost_stays_unknown_and_zero_stays_zero() -> None:
    assert made().costs[1, 0] == 0
    assert np.isnan(made().costs[1, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": (), "datasets": (), "ids": ()}, "at least one query"),
        ({"models": ()}, "at least one model"),
        ({"queries": "one"}, "queries must be a sequence of texts"),
        ({"queries": ("one", 2, "three")}, r"queries\[1\] must be text, got 2"),
        ({"queries": ("one", " \n", "three")}, r"query 1 is empty: ' \\n'"),
        ({"models": ("large", "large")}, "'large' is in the pool twice"),
        ({"models": ("large", "")}, "model name is empty"),
        ({"models": ("large", "sm\tall")}, "control character"),
        ({"models": ("large", " small")}, "begins or ends with white space"),
        ({"models": ("large", "\ud800")}, "control character"),
        ({"datasets": ("a",)}, "datasets has 1 entries for 3 queries"),
        ({"ids": ("a", "b")}, "ids has 2 entries for 3 queries"),
        ({"scores": np.ones((2, 2))}, r"scores has shape \(2, 2\), wanted \(3, 2\)"),
        ({"costs": np.ones((3, 3))}, r"costs has shape \(3, 3\), wanted \(3, 2\)"),
        ({"scores": np.full((3, 2), "1")}, "scores must be an array of real numbers"),
        ({"scores": [[1, 0], [1.5, 0], [1, 1]]}, r"score 1\.5 of model 'large' on query 1 \(id '2'\)"),
        ({"scores": [[1, 0], [0, -0.1], [1, 1]]}, r"score -0\.1 of model 'small' on query 1"),
        ({"scores": [[1, 0], [0, np.inf], [1, 1]]}, "score inf of model 'small' on query 1"),
        ({"scores": [[1, 0], [np.nan, np.nan], [1, 1]]}, r"query 1 \(id '2'\) has no observed score"),
        ({"scores": [[1, np.nan]] * 3}, "no score was observed for 'small'"),
        ({"costs": [[0, 0], [0, 0], [-1e-9, 0]]}, r"cost -1e-09 of model 'large' on query 2 \(id '3'\)"),
        ({"costs": [[0, 0], [0, np.inf], [0, 0]]}, "cost inf of model 'small' on query 1"),
        ({"tokens": np.ones((3, 2))}, r"tokens has shape \(3, 2\), wanted \(3, 2, 2\)"),
        ({"tokens": np.full((3, 2, 2), -1)}, "input token count -1.0 of model 'large' on query 0"),
        ({"tokens": np.full((3, 2, 2), np.inf)}, "input token count inf of model 'large' on query 0"),
    ],
)
def test_outcomes_refuse(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(**changes)


def test_subset_keeps_the_pool_and_the_given_order() -> None:
    part = made().subset([2, 0])
    assert part.queries == ("three", "one")
    assert part.ids == ("3", "1")
    assert part.models == made().models
    np.testing.assert_array_equal(part.scores, made().scores[[2, 0]])
    np.testing.assert_array_equal(part.costs, made().costs[[2, 0]])


def test_subset_keeps_token_counts() -> None:
    tokens = np.arange(12.0).reshape(3, 2, 2)
    part = made(tokens=tokens).subset([2, 0])
    assert part.tokens is not None
    np.testing.assert_array_equal(part.tokens, tokens[[2, 0]])
    assert made().subset([0]).tokens is None


def test_subset_keeps_a_model_that_it_does_not_observe() -> None:
    part = made().subset([1])
    assert part.models == ("large", "small")
    assert np.isnan(part.scores[0, 1])


def test_subset_takes_a_mask() -> None:
    assert made().subset(np.array([True, False, True])).ids == ("1", "3")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([3], r"row 3 is outside 0\.\.2"),
        ([-1], r"row -1 is outside 0\.\.2"),
        ([0.5], "whole numbers"),
        ([[0]], "one-dimensional"),
        ([True], "mask has 1 entries for 3 queries"),
        ([False, False, False], "at least one row"),
    ],
)
def test_subset_refuses(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made().subset(rows)


# Reading JSONL.

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Write lines, given as JSON values, text or bytes, and return the file's path."""

    def written(*lines: Any, name: str = "data.jsonl", end: bytes = b"\n") -> Path:
        raw = end.join(
            line
            if isinstance(line, bytes)
            else line.encode()
            if isinstance(line, str)
            else json.dumps(line).encode()
            for line in lines
        )
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw + end) if name.endswith(".gz") else raw + end)
        return path

    return written


def changed(**changes: Any) -> dict[str, Any]:
    return GOOD | changes


def test_reads_every_field(write: Writer) -> None:
    outcomes = read_jsonl(
        write(changed(dataset="sums", id="q7"), changed(query="Again?", scores={"tiny": 0}))
    )
    assert outcomes.queries == ("What is 2 + 2?", "Again?")
    assert outcomes.models == ("large", "small", "tiny")
    assert outcomes.datasets == ("sums", "")
    assert outcomes.ids == ("q7", "2")
    nan = np.nan
    np.testing.assert_array_equal(outcomes.scores, np.float32([[1, 0.5, nan], [nan, nan, 0]]))
    np.testing.assert_array_equal(outcomes.costs, [[0.002, nan, nan], [0.002, nan, nan]])


def test_other_keys_are_ignored_whatever_they_hold(write: Writer) -> None:
    assert read_jsonl(write(changed(split="train", extra={"a": [1, None]}))).n_queries == 1


def test_missing_and_null_costs_are_unknown(write: Writer) -> None:
    without = {key: value for key, value in GOOD.items() if key != "costs"}
    outcomes = read_jsonl(write(without, changed(costs=None), changed(costs={"large": None, "small": 0})))
    np.testing.assert_array_equal(outcomes.costs, [[np.nan, np.nan], [np.nan, np.nan], [np.nan, 0]])


def test_a_null_score_is_not_observed(write: Writer) -> None:
    outcomes = read_jsonl(write(GOOD, changed(scores={"large": None, "small": 1})))
    assert np.isnan(outcomes.scores[1, 0])


def test_a_cost_without_a_score_is_kept(write: Writer) -> None:
    outcomes = read_jsonl(write(changed(scores={"small": 1}), GOOD))
    assert outcomes.models == ("small", "large")
    assert np.isnan(outcomes.scores[0, 1])
    assert outcomes.costs[0, 1] == 0.002


def test_reads_token_counts(write: Writer) -> None:
    outcomes = read_jsonl(
        write(
            changed(tokens={"large": [12, 300], "small": [12, None]}),
            changed(tokens=None),
            changed(tokens={"small": None}),
        )
    )
    nan = np.nan
    unknown = [[nan, nan], [nan, nan]]
    np.testing.assert_array_equal(outcomes.tokens, [[[12, 300], [12, nan]], unknown, unknown])


def test_without_token_counts_there_are_none(write: Writer) -> None:
    assert read_jsonl(write(GOOD)).tokens is None


def test_blank_lines_are_skipped_but_counted(write: Writer) -> None:
    outcomes = read_jsonl(write("", GOOD, "  \t", GOOD, ""))
    assert outcomes.ids == ("2", "4")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_mark_and_line_ends(write: Writer, end: bytes) -> None:
    assert read_jsonl(write(b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), GOOD, end=end)).n_queries == 2


def test_last_line_without_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(GOOD))
    assert read_jsonl(path).n_queries == 1


def test_unicode_line_separators_do_not_end_a_line(write: Writer) -> None:
    line = json.dumps(changed(query="a\u2028b\u0085c"), ensure_ascii=False)
    assert read_jsonl(write(line)).queries == ("a\u2028b\u0085c",)


def test_a_lone_surrogate_in_the_text_is_accepted(write: Writer) -> None:
    line = '{"query": "half \\ud800 pair", "scores": {"large": 1}}'
    assert read_jsonl(write(line)).queries == ("half \ud800 pair",)


def test_a_whole_number_is_taken_as_an_id(write: Writer) -> None:
    assert read_jsonl(write(changed(id=17))).ids == ("17",)


def test_a_null_id_is_the_line_number(write: Writer) -> None:
    assert read_jsonl(write(changed(id=None, dataset=None))).ids == ("1",)


# Refusing what cannot be used.

BAD_LINES: dict[str, tuple[Any, str]] = {
    "broken_json": ('{"query": "x", ', r": not valid JSON: .* at column \d+ of '{\"query\": \"x\","),
    "truncated_line": ('{"query": "x', ": not valid JSON: Unterminated string"),
    "two_objects": ("{} {}", ": not valid JSON: Extra data at column 4"),
    "endless_nesting": ("[" * 100_000, ": not valid JSON"),
    "number_of_5000_digits": ('{"query": "x", "scores": {"large": ' + "9" * 5000 + "}}", ": not valid JSON"),
    "list_instead_of_object": ([1, 2], ": must be a JSON object, got a list of 2"),
    "string_instead_of_object": ('"x"', ": must be a JSON object, got the string 'x'"),
    "null_instead_of_object": ("null", ": must be a JSON object, got null"),
    "missing_query": ({"scores": {"large": 1}}, ", query: is missing; the line has 'scores'"),
    "missing_scores": ({"query": "x"}, ", scores: is missing; the line has 'query'"),
    "no_fields": ({}, ", query: is missing; the line has no fields"),
    "query_is_a_number": (changed(query=5), ", query: must be a string, got the number 5"),
    "query_is_null": (changed(query=None), ", query: must be a string, got null"),
    "empty_query": (changed(query=""), ", query: is empty: ''"),
    "white_space_query": (changed(query=" \t\u3000"), ", query: is empty"),
    "scores_is_a_list": (changed(scores=[1]), ", scores: must be an object of model and number, got a list"),
    "scores_is_null": (changed(scores=None), ", scores: must be an object of model and number, got null"),
    "scores_is_empty": (changed(scores={}), ", scores: holds no score"),
    "scores_are_all_null": (changed(scores={"large": None}), ", scores: holds no score"),
    "score_is_a_string": (
        changed(scores={"large": "1"}),
        r", scores\['large'\]: must be a number, got the string '1'",
    ),
    "score_is_true": (changed(scores={"large": True}), r", scores\['large'\]: must be a number, got true"),
    "score_is_false": (changed(scores={"large": False}), r", scores\['large'\]: must be a number, got false"),
    "score_is_an_object": (changed(scores={"large": {}}), r", scores\['large'\]: must be a number, got an"),
    "score_above_1": (changed(scores={"large": 1.01}), r", scores\['large'\]: 1\.01 is outside 0\.\.1"),
    "score_in_percent": (changed(scores={"large": 87}), r", scores\['large'\]: 87\.0 is outside 0\.\.1"),
    "negative_score": (changed(scores={"large": -1}), r", scores\['large'\]: -1\.0 is outside 0\.\.1"),
    "score_nan": (changed(scores={"large": float("nan")}), r", scores\['large'\]: nan is outside 0\.\.1"),
    "score_infinite": (
        changed(scores={"large": float("inf")}),
        r", scores\['large'\]: inf is outside 0\.\.1",
    ),
    "score_beyond_float64": (
        '{"query": "x", "scores": {"large": 1' + "0" * 400 + "}}",
        r", scores\['large'\]: inf is outside 0\.\.1",
    ),
    "negative_cost": (
        changed(costs={"large": -0.5}),
        r", costs\['large'\]: -0\.5 is not a finite USD amount",
    ),
    "cost_nan": (
        changed(costs={"large": float("nan")}),
        r", costs\['large'\]: nan is not a finite USD amount",
    ),
    "cost_infinite": (
        '{"query": "x", "scores": {"large": 1}, "costs": {"large": 1e999}}',
        r", costs\['large'\]: inf is not",
    ),
    "cost_is_a_string": (
        changed(costs={"large": "$1"}),
        r", costs\['large'\]: must be a number, got the str",
    ),
    "cost_is_true": (changed(costs={"large": True}), r", costs\['large'\]: must be a number, got true"),
    "costs_is_a_number": (
        changed(costs=0.1),
        ", costs: must be an object of model and number, got the number",
    ),
    "repeated_model_in_scores": (
        '{"query": "x", "scores": {"large": 1, "small": 0, "large": 0}}',
        r", scores\['large'\]: is given more than once",
    ),
    "repeated_model_in_costs": (
        '{"query": "x", "scores": {"large": 1}, "costs": {"large": 1, "large": 2}}',
        r", costs\['large'\]: is given more than once",
    ),
    "repeated_query": ('{"query": "x", "query": "y", "scores": {"large": 1}}', ", query: is given more than"),
    "empty_model_name": (changed(scores={"": 1}), ", scores: a model name is empty: ''"),
    "control_character_in_model_name": (
        changed(scores={"lar\x00ge": 1}),
        r", scores: the model name 'lar\\x00ge' holds a control character",
    ),
    "control_character_in_costs": (
        changed(costs={"a\nb": 1}),
        ", costs: the model name .* control character",
    ),
    "dataset_is_a_list": (changed(dataset=["a"]), ", dataset: must be a string, got a list of 1"),
    "id_is_true": (changed(id=True), ", id: must be a string, got true"),
    "id_is_a_fraction": (changed(id=1.5), ", id: must be a string, got the number 1.5"),
    "tokens_is_a_list": (
        changed(tokens=[1, 2]),
        ", tokens: must be an object of model and .*, got a list of 2",
    ),
    "tokens_is_one_number": (
        changed(tokens={"large": 12}),
        r", tokens\['large'\]: must be \[input tokens, output tokens\], got the number 12",
    ),
    "tokens_are_three": (
        changed(tokens={"large": [1, 2, 3]}),
        r", tokens\['large'\]: must be \[input tokens, output tokens\], got a list of 3",
    ),
    "negative_tokens": (
        changed(tokens={"large": [1, -2]}),
        r", tokens\['large'\]: -2\.0 is not a finite number of tokens",
    ),
    "tokens_are_true": (
        changed(tokens={"large": [True, 2]}),
        r", tokens\['large'\]: must be a number, got true",
    ),
    "invalid_utf8": (b'{"query": "caf\xe9"}', ": not UTF-8: byte 0xe9 at position 15"),
    "utf8_encoded_surrogate": (b'{"query": "\xed\xa0\x80"}', ": not UTF-8: byte 0xed"),
}


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
@pytest.mark.parametrize("fault", BAD_LINES)
def test_refuses_a_line_with(fault: str, name: str, write: Writer) -> None:
    line, message = BAD_LINES[fault]
    path = write(GOOD, "", line, GOOD, name=name)
    with pytest.raises(DataError, match=f"line 3{message}") as raised:
        read_jsonl(path)
    text = str(raised.value)
    assert text.startswith(f"{path}, line 3")
    assert len(text) < len(str(path)) + 250
    assert "\n" not in text
    text.encode()  # can be printed


def test_long_values_are_cut(write: Writer) -> None:
    path = write(changed(scores={"large": "y" * 10_000}))
    with pytest.raises(DataError, match=r"got the string 'y{79}…$"):
        read_jsonl(path)


def test_refuses_a_model_that_has_only_costs(write: Writer) -> None:
    path = write(changed(costs={"dear": 1}))
    with pytest.raises(DataError, match="no score was observed for 'dear'") as raised:
        read_jsonl(path)
    assert str(path) in str(raised.value)


def test_refuses_more_models_than_any_pool_has(write: Writer) -> None:
    path = write(GOOD, changed(scores={f"model {number}": 1 for number in range(MAX_MODELS)}))
    with pytest.raises(DataError, match=f"line 2, scores: the file names more than {MAX_MODELS} models"):
        read_jsonl(path)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"], ids=["nothing", "blank", "mark_only"])
@pytest.mark.parametrize("packed", [False, True])
def test_refuses_a_file_without_a_query(tmp_path: Path, content: bytes, *, packed: bool) -> None:
    path = tmp_path / ("data.jsonl.gz" if packed else "data.jsonl")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=r"data\.jsonl(\.gz)?: the file holds no query"):
        read_jsonl(path)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: cannot be read: No such file"):
        read_jsonl(tmp_path / "absent.jsonl")


def test_refuses_a_directory(tmp_path: Path) -> None:
    for read in (read_jsonl, read_outcomes):
        with pytest.raises(DataError, match="is a directory"):
            read(tmp_path)


def test_refuses_a_path_with_a_null_byte() -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_jsonl("a\x00b.jsonl")


def test_refuses_a_gz_file_that_is_not_gzip(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match="after line 0: damaged or truncated gzip"):
        read_jsonl(path)


def test_refuses_a_gzip_file_that_is_not_named_so(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    with pytest.raises(DataError, match=r"line 1: the file is compressed with gzip; name it \.jsonl\.gz"):
        read_jsonl(path)


@pytest.mark.parametrize("kept", [5, 12, 0.5, 0.9, -4, -1])
def test_refuses_truncated_gzip(write: Writer, kept: float) -> None:
    path = write(*(changed(query=f"query {number * 7919}") for number in range(500)), name="data.jsonl.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"data\.jsonl\.gz, after line \d+: damaged or truncated gzip"):
        read_jsonl(path)


def test_refuses_damaged_gzip(write: Writer) -> None:
    path = write(*(changed(query=f"query {number * 7919}") for number in range(500)), name="data.jsonl.gz")
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 40] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(DataError):  # zlib, the checksum or the JSON of a line notices, by where it hits
        read_jsonl(path)


# The suffix decides.


def test_read_outcomes_reads_jsonl(write: Writer) -> None:
    assert read_outcomes(write(GOOD)).n_queries == 1
    assert read_outcomes(str(write(GOOD, name="data.JSONL.gz"))).n_queries == 1


@pytest.mark.parametrize("name", ["data.tsv", "data", "data.jsonl.bz2", "data.gz"])
def test_read_outcomes_refuses_an_unknown_suffix_and_lists_the_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"unknown suffix .* read from \.jsonl, \.jsonl\.gz"):
        read_outcomes(tmp_path / name)


# Writing.

texts = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
scores_and_costs = st.tuples(
    st.one_of(st.just(float("nan")), st.floats(0, 1, width=32)),
    st.one_of(st.just(float("nan")), st.floats(0, 1e6)),
)


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(texts, st.lists(scores_and_costs, min_size=3, max_size=3), st.text(max_size=5)),
        min_size=1,
        max_size=6,
    )
)
def test_round_trip_is_exact(
    rows: list[tuple[str, list[tuple[float, float]], str]],
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    scores = np.array([[score for score, _ in cells] for _, cells, _ in rows], dtype=np.float32)
    scores[0] = np.where(np.isnan(scores[0]), 1, scores[0])
    scores[:, 1] = np.where(np.isnan(scores[:, 1]), 0, scores[:, 1])
    outcomes = Outcomes(
        queries=tuple(query for query, _, _ in rows),
        models=("large", "small", "org/tiny@high"),
        scores=scores,
        costs=np.array([[cost for _, cost in cells] for _, cells, _ in rows]),
        datasets=tuple(label for _, _, label in rows),
        ids=tuple(label for _, _, label in rows),
    )
    path = tmp_path_factory.mktemp("round") / name
    write_jsonl(outcomes, path)
    assert_same(read_jsonl(path), outcomes)


def test_round_trip_keeps_a_pool_order_that_is_not_the_order_of_appearance(tmp_path: Path) -> None:
    outcomes = made(scores=np.array([[np.nan, 1], [1, 1], [1, 1]], dtype=np.float32))
    write_jsonl(outcomes, tmp_path / "data.jsonl")
    assert_same(read_jsonl(tmp_path / "data.jsonl"), outcomes)


def test_round_trip_of_token_counts(tmp_path: Path) -> None:
    tokens = np.full((3, 2, 2), np.nan)
    tokens[0, 0] = 12, 340
    tokens[1, 1, 0] = 7.5
    outcomes = made(tokens=tokens)
    write_jsonl(outcomes, tmp_path / "data.jsonl")
    assert '"tokens": {"large": [12, 340]}' in (tmp_path / "data.jsonl").read_text()
    assert_same(read_jsonl(tmp_path / "data.jsonl"), outcomes)


def test_round_trip_of_a_lone_surrogate(tmp_path: Path) -> None:
    outcomes = made(queries=("half \ud800", "ünï", "\U0001f600"))
    write_jsonl(outcomes, tmp_path / "data.jsonl")
    assert_same(read_jsonl(tmp_path / "data.jsonl"), outcomes)


def test_scores_are_written_short(tmp_path: Path) -> None:
    write_jsonl(made(), tmp_path / "data.jsonl")
    assert '"scores": {"large": 0.7}' in (tmp_path / "data.jsonl").read_text()


def test_equal_outcomes_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_jsonl(made(), tmp_path / name)
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


def test_writing_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("old")
    write_jsonl(made(), path)
    assert read_jsonl(path).n_queries == 3
    assert list(tmp_path.iterdir()) == [path]


def test_failed_writing_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="cannot be written: No space left"):
        write_jsonl(made(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_refuses_another_suffix_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"written to \.jsonl or \.jsonl\.gz"):
        write_jsonl(made(), tmp_path / "data.csv")
    with pytest.raises(DataError, match="cannot be written: No such file"):
        write_jsonl(made(), tmp_path / "absent" / "data.jsonl")


# The split by text.


def of_texts(queries: list[str]) -> Outcomes:
    n_queries = len(queries)
    return Outcomes(
        queries=tuple(queries),
        models=("large",),
        scores=np.ones((n_queries, 1), dtype=np.float32),
        costs=np.full((n_queries, 1), np.nan),
        datasets=("",) * n_queries,
        ids=tuple(str(row) for row in range(n_queries)),
    )


@settings(max_examples=100, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 30), min_size=2, max_size=80).filter(
        lambda numbers: len(set(numbers)) > 1
    ),
    holdout=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32),
)
def test_split_properties(numbers: list[int], holdout: float, seed: int) -> None:
    outcomes = of_texts([f"query {number}" for number in numbers])
    n_texts = len(set(numbers))
    n_holdout = int(np.floor(holdout * n_texts + 0.5))
    if n_holdout in (0, n_texts):
        with pytest.raises(DataError, match=f"of {n_texts} distinct texts leaves no query"):
            split_by_text(outcomes, holdout=holdout, seed=seed)
        return
    calibration, held_out = split_by_text(outcomes, holdout=holdout, seed=seed)
    assert calibration.dtype == held_out.dtype == np.intp
    np.testing.assert_array_equal(np.sort(np.concatenate([calibration, held_out])), np.arange(len(numbers)))
    assert (np.diff(calibration) > 0).all()
    assert (np.diff(held_out) > 0).all()
    texts_left = {numbers[row] for row in calibration}
    texts_held = {numbers[row] for row in held_out}
    assert not texts_left & texts_held
    assert len(texts_held) == n_holdout
    again = split_by_text(outcomes, holdout=holdout, seed=seed)
    np.testing.assert_array_equal(again[0], calibration)
    np.testing.assert_array_equal(again[1], held_out)


def test_split_levels_white_space_case_and_unicode_form() -> None:
    twins = ["Is café open?", "is  cafe\u0301\topen?", " IS CAFÉ OPEN? \n"]
    assert len({text_key(text) for text in twins}) == 1
    assert text_key("x = 1") != text_key("x = 2")
    for seed in range(20):
        parts = split_by_text(of_texts([*twins, "other", "third"]), holdout=0.4, seed=seed)
        assert any({0, 1, 2} <= set(part.tolist()) for part in parts)


def test_split_takes_lone_surrogates() -> None:
    parts = split_by_text(of_texts(["a\ud800", "b"]), holdout=0.5, seed=0)
    assert [len(part) for part in parts] == [1, 1]


def test_split_depends_on_the_seed() -> None:
    outcomes = of_texts([str(number) for number in range(100)])
    splits = {split_by_text(outcomes, holdout=0.3, seed=seed)[1].tobytes() for seed in range(10)}
    assert len(splits) == 10


def test_split_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from centroute.datasets import split_by_text, synthetic_outcomes\n"
        "sample = synthetic_outcomes(n_queries=60, seed=3)\n"
        "print(split_by_text(sample, holdout=0.3, seed=5)[1].tolist(), sample.queries, sample.scores.sum())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("holdout", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_a_share_outside_0_and_1(holdout: float) -> None:
    with pytest.raises(DataError, match="holdout must be above 0 and below 1"):
        split_by_text(made(), holdout=holdout, seed=0)


def test_split_refuses_an_empty_side() -> None:
    with pytest.raises(DataError, match=r"holdout of 0\.1 of 3 distinct texts leaves no query for holdout"):
        split_by_text(made(), holdout=0.1, seed=0)
    with pytest.raises(DataError, match=r"leaves no query for calibration"):
        split_by_text(of_texts(["same", "same", "same"]), holdout=0.5, seed=0)


def test_split_refuses_a_negative_seed() -> None:
    with pytest.raises(DataError, match="seed must be 0 or more, got -1"):
        split_by_text(made(), holdout=0.5, seed=-1)


# Real data.


@pytest.mark.parametrize(
    ("name", "n_queries", "n_models", "best_single", "oracle", "with_costs"),
    [
        ("llmrouter9", 6108, 9, 0.617, 0.797, False),
        ("routerbench3", 2205, 11, 0.879, 0.976, True),
        ("mmlu_pro", 11963, 28, 0.702, 0.945, False),
        ("routellm2", 15361, 2, 0.810, 0.865, False),
    ],
)
def test_real_data(
    *, name: str, n_queries: int, n_models: int, best_single: float, oracle: float, with_costs: bool
) -> None:
    path = REAL_DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not at hand; it is not part of the repository")
    outcomes = read_outcomes(path)
    assert (outcomes.n_queries, outcomes.n_models) == (n_queries, n_models)
    assert outcomes.scores.mean(axis=0, dtype=np.float64).max() == pytest.approx(best_single, abs=6e-4)
    assert outcomes.scores.max(axis=1).mean(dtype=np.float64) == pytest.approx(oracle, abs=6e-4)
    assert outcomes.has_costs.all() == with_costs
    calibration, held_out = split_by_text(outcomes, holdout=0.3, seed=0)
    keys = [{text_key(outcomes.queries[row]) for row in rows} for rows in (calibration, held_out)]
    assert not keys[0] & keys[1]
    assert len(held_out) / n_queries == pytest.approx(0.3, abs=0.01)
