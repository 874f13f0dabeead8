"""Votes: what makes answers equal, who wins, when to stop, and what is refused."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute.errors import DataError
from centroute.voting import Ballot, Vote, choice_letter, exact_text, json_field, number, vote

THREE = Ballot(("a", "b", "c"), (1.0, 0.8, 0.7))


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), (" (b) ", "B"), ("**C**", "C"), ("D.", "D"), ("A. Paris", "A"), ("B) 42", "B"),
        ("The answer is (C).", "C"), ("Answer: d.", "D"), ("the correct option is **f**.", "F"),
        ("First I thought the answer is A, but the answer is E", "E"), (r"So \boxed{\text{G}}", "G"),
        (r"answer is \boxed{H}", "H"), ("I choose (J) because of (A) and (B)", "B"),
        ("The answer is a mystery", None), ("I think so", None), ("A guess", None), ("", None), ("42", None),
    ],
)  # fmt: skip
def test_choice_letters(answer: str, letter: str | None) -> None:
    assert choice_letter(answer) == letter


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("42", "42"), ("It is 3.50 m", "3.5"), ("$1,234.00", "1234"), ("1e3", "1000"), ("−7", "-7"),
        ("-0.0", "0"), ("between 3 and 5", "5"), ("x=.5", "0.5"), ("1e9999", "1E+9999"),
        ("v2", None), ("none", None),
        ("50%", "50"), ("007", "7"),
    ],
)  # fmt: skip
def test_numbers(answer: str, value: str | None) -> None:
    assert number(answer) == value


def test_texts_are_equal_whatever_their_case_and_spaces() -> None:
    assert exact_text(" New\n  York ") == exact_text("new york") == "new york"
    assert exact_text(" \n") is None


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"a": {"b": "Oslo "}}', "oslo"),
        ('```json\n{"a": {"b": 12.0}}\n```', "12.0"),
        ('{oh} {"a": {"b": [1, 2]}}', "[1, 2]"),
        ('{"a": {"b": null}}', None),
        ('{"a": 3}', None),
        ("no object", None),
        ("{" * 5000, None),
    ],
)
def test_json_fields(answer: str, value: str | None) -> None:
    assert json_field("a.b")(answer) == value


def test_a_json_field_may_be_read_further() -> None:
    assert json_field("n", then=number)('{"n": "about 1,000"}') == "1000"


def test_weights_decide_and_support_is_their_share() -> None:
    found = vote({"a": "x", "b": "Y", "c": "y "}, THREE)
    assert (found.winner, found.answer) == ("y", "Y")
    assert found.support == pytest.approx(1.5 / 2.5)
    assert found.counts == pytest.approx({"y": 1.5, "x": 1.0})
    assert list(found.counts) == ["y", "x"]
    assert (found.escalate, found.decided, found.tied, found.unread) == (None, True, (), ())


def test_the_next_model_is_named_until_no_answer_can_change_the_winner() -> None:
    first = vote({"a": "x"}, THREE)
    assert (first.winner, first.escalate, first.decided) == ("x", "b", False)
    assert vote({"a": "x", "b": "x"}, THREE).escalate is None
    assert vote({"a": "x", "b": "y"}, THREE).escalate == "c"


def test_a_lead_as_large_as_what_is_out_could_still_end_in_a_tie() -> None:
    ballot = Ballot(("a", "b"), (1.0, 1.0))
    assert vote({"a": "x"}, ballot).escalate == "b"
    assert vote({"a": "x"}, Ballot(("a", "b"), (1.0, 0.999)), normalise="text").escalate is None


def test_patience_stops_before_the_outcome_is_certain() -> None:
    ballot = Ballot(("a", "b", "c"), (1.0, 0.6, 0.6))
    assert vote({"a": "x"}, ballot, patience=0.8).escalate is None
    assert not vote({"a": "x"}, ballot, patience=0.8).decided
    assert vote({"a": "x"}, ballot, patience=0.9).escalate == "b"


def test_what_cannot_be_read_supports_nobody_and_is_named() -> None:
    found = vote({"a": "A guess", "b": None, "c": "(B)"}, THREE, normalise="choice")
    assert (found.winner, found.unread) == ("B", ("a", "b"))
    assert found.support == pytest.approx(0.7 / 2.5)


def test_nothing_read_so_far_asks_the_next_model() -> None:
    found = vote({"a": "who knows"}, THREE, normalise="number")
    assert (found.winner, found.answer, found.support, found.escalate) == (None, None, 0.0, "b")
    assert found.unread == ("a",)


def test_ties_go_to_the_weightiest_voter_and_are_reported() -> None:
    ballot = Ballot(("a", "b", "c"), (1.0, 0.6, 0.4))
    for answers in ({"a": "x", "b": "y", "c": "y"}, {"c": "y", "b": "y", "a": "x"}):
        found = vote(answers, ballot)
        assert found.winner == "x"
        assert set(found.tied) == {"x", "y"}
    equal = Ballot(("a", "b"), (1.0, 1.0))
    assert vote({"b": "x", "a": "y"}, equal).winner == "y"  # a stands first in the decision


def test_sums_in_another_order_tie_all_the_same() -> None:
    ballot = Ballot(("a", "b", "c", "d"), (0.3, 0.3, 0.2, 0.1))  # 0.2 + 0.1 is not 0.3 in binary
    assert set(vote({"a": "x", "b": None, "c": "y", "d": "y"}, ballot).tied) == {"x", "y"}


def test_samples_of_one_model_share_its_weight() -> None:
    ballot = Ballot(("small@n4", "b"), (1.0, 0.6))
    found = vote({"small@n4": ["x", "x", "y", None], "b": "y"}, ballot)
    assert found.counts == pytest.approx({"y": 0.85, "x": 0.5})
    assert vote({"small@n4": ["x", "x", "x", "y"], "b": "y"}, ballot).winner == "y"
    assert vote({"small@n4": [None, None]}, ballot).unread == ("small@n4",)


def test_a_function_of_ones_own() -> None:
    assert vote({"a": "x1", "b": "y1", "c": "y2"}, THREE, normalise=lambda answer: answer[0]).winner == "y"


@pytest.mark.parametrize(
    ("answers", "options", "says"),
    [
        ({}, {}, "there is no answer"),
        ({"z": "x"}, {}, "'z' is not of this decision, which asks a, b, c"),
        ({"a": 3}, {}, "the answer of 'a' must be a text, None or a list of samples, got 3"),
        ({"a": []}, {}, "the answer of 'a'"),
        ({"a": [1]}, {}, "the answer of 'a'"),
        ({"a": "x", "b": "?", "c": None}, {"normalise": "number"}, "none of the answers can be read (a: 'x'"),
        ({"a": "x"}, {"normalise": "letters"}, "normalise 'letters', wanted one of text, number, choice"),
        ({"a": "x"}, {"patience": 1.5}, "patience 1.5"),
        ({"a": "x"}, {"patience": float("nan")}, "patience nan"),
    ],
)
def test_bad_input_is_one_clear_line(answers: Any, options: Any, says: str) -> None:
    with pytest.raises(DataError, match=re.escape(says)) as refused:
        vote(answers, THREE, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_out_of_range_are_refused(weight: float) -> None:
    with pytest.raises(DataError, match="weight of 'b'"):
        vote({"a": "x"}, Ballot(("a", "b"), (1.0, weight)))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7, 1.0]), st.sampled_from(["x", "y", "z", None])),
        min_size=1,
        max_size=7,
    )
)
def test_stopping_early_never_changes_the_winner(ballots: list[tuple[float, str | None]]) -> None:
    names = tuple(f"m{place}" for place in range(len(ballots)))
    ballot = Ballot(names, tuple(weight for weight, _ in ballots))
    answers = {name: answer for name, (_, answer) in zip(names, ballots, strict=True)}
    if all(answer is None for answer in answers.values()):
        return
    asked: dict[str, str | None] = {}
    following: str | None = names[0]
    found: Vote | None = None
    while following is not None:
        asked[following] = answers[following]
        found = vote(asked, ballot)
        following = found.escalate
    assert found is not None
    assert found.winner == vote(answers, ballot).winner
