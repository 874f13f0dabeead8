"""Parts of the gateway alone: bodies, policies, headers, the breaker, usage."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from gateway_upstream import STREAM
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute import Policy, PolicyError
from centroute.gateway.accounting import StreamTail, Usage, read_usage
from centroute.gateway.body import read_members, read_object
from centroute.gateway.breaker import CircuitBreaker
from centroute.gateway.errors import GatewayError
from centroute.gateway.headers import safe_value, to_upstream
from centroute.gateway.policies import PolicyBook, over, policy_from_fields

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(max_examples=60)
@given(
    content=st.dictionaries(st.text(), JSON_VALUES).map(lambda members: {**members, "model": "auto"}),
    name=st.text(),
    indent=st.none() | st.integers(0, 3),
    ascii_only=st.booleans(),
)
def test_replacing_a_member_leaves_the_others(
    content: dict[str, Any], name: str, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    body = text.encode("utf-8", "replace")
    request = read_members(body)
    assert request.members == read_object(body) == json.loads(body)
    replaced = request.with_text("model", name)
    assert json.loads(replaced) == {**json.loads(body), "model": name}
    start, end = request.spans["model"]
    assert replaced.startswith(request.text[:start].encode())
    assert replaced.endswith(request.text[end:].encode())


@given(
    st.binary() | st.text().map(str.encode) | JSON_VALUES.map(lambda value: json.dumps(value).encode()[:-1])
)
def test_both_readers_refuse_the_same(body: bytes) -> None:
    assert _refusal(read_object, body) == _refusal(read_members, body)


def _refusal(read: Callable[[bytes], object], body: bytes) -> int | None:
    try:
        read(body)
    except GatewayError as error:
        return error.status
    return None


def test_policies_are_remembered_and_forgotten() -> None:
    book = PolicyBook(Policy(min_quality=0.8, deny={"x"}))
    assert book.find() is book.default
    first = book.find(suffix="alpha=0.5")
    assert first == Policy(alpha=0.5, deny={"x"})
    assert book.find(suffix="alpha=0.5") is first
    for number in range(2000):
        book.find(header=f"max-cost={number}")
    assert book.find(suffix="alpha=0.5") is not first
    assert book.find(suffix="max_cost=1", header="alpha=1; max_cost=2") == Policy(
        alpha=1.0, max_cost=1.0, deny={"x"}
    )
    with pytest.raises(PolicyError, match="alpha"):
        book.find(header="alpha=2")


def test_a_policy_over_another() -> None:
    default = Policy(willingness_to_pay=1.0, max_cost=2.0, allow={"a"}, fallback="a")
    assert over(Policy(), default) == default
    assert over(default, Policy(alpha=0.1, max_cost=9.0)) == default
    assert over(Policy(min_quality=0.5, allow={"b"}), default) == Policy(
        min_quality=0.5, max_cost=2.0, allow={"b"}, fallback="a"
    )
    assert policy_from_fields({"alpha": None, "max-cost": 1}) == Policy(max_cost=1.0)


@given(st.text())
def test_header_values_are_printable_ascii(text: str) -> None:
    value = safe_value(text)
    assert all(0x20 <= byte < 0x7F for byte in value)


def test_names_of_headers_are_compared_in_lower_case() -> None:
    sent = [(b"X-Keep", b"1"), (b"AUTHORIZATION", b"Bearer x"), (b"Connection", b"X-Drop"), (b"x-drop", b"1")]
    assert to_upstream(sent, with_secrets=False) == [(b"x-keep", b"1")]
    assert to_upstream(sent, with_secrets=True) == [(b"x-keep", b"1"), (b"authorization", b"Bearer x")]


def test_breaker() -> None:
    now = 0.0
    breaker = CircuitBreaker(n_failures=2, open_seconds=10, clock=lambda: now)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.admits()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.admits()
    now = 10.0
    assert breaker.admits()
    # One tries it, the others wait for what it tells.
    assert not breaker.admits()
    breaker.abandoned()
    assert breaker.admits()
    breaker.failed()
    now = 19.9
    assert not breaker.admits()
    now = 20.0
    assert breaker.admits()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.admits()
    assert breaker.admits()


@pytest.mark.parametrize(
    "usage",
    [
        *(None, 7, {}, {"prompt_tokens": 1}, {"prompt_tokens": "1", "completion_tokens": 2}),
        *({"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": True, "completion_tokens": 2}),
    ],
)
def test_usage_that_is_not_known(usage: Any) -> None:
    assert read_usage({"usage": usage}) is None
    assert read_usage(None) is None


def test_usage_of_a_stream_however_it_is_cut() -> None:
    for width in (1, 7, 100, 10_000):
        tail = StreamTail(STREAM[:width])
        for place in range(width, len(STREAM), width):
            tail.add(STREAM[place : place + width])
        assert tail.usage() == Usage(9, 2)
        assert tail.ends_an_event
    assert not StreamTail(STREAM[:-1]).ends_an_event
    assert StreamTail(b'data: {"usage": \n\n').usage() is None
    assert StreamTail(b"data: [DONE]\n\n").usage() is None
