"""The gateway in this process: what goes to upstreams, what comes back, and every kind of bad input."""

import asyncio
import base64
import json
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gateway_upstream import STREAM, TOOL_CALLS, FakeUpstream

from centroute import Artifact, Policy, Router
from centroute.decision_json import decision_to_json
from centroute.gateway.app import build_app
from centroute.gateway.body import read_members
from centroute.gateway.config import GatewayConfig, Limits, LogConfig, ModelConfig, UpstreamConfig
from centroute.gateway.gateway import Gateway
from centroute.session import Session

KEY = "sk-secret-0123456789"
TEXT = "Write a Python function that returns the third item of a list"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
CHAT = "/v1/chat/completions"

Scenario = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture(scope="module")
def listening() -> Iterator[FakeUpstream]:
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(listening: FakeUpstream) -> FakeUpstream:
    listening.reset()
    return listening


@pytest.fixture(scope="module")
def router(artifact: Artifact, embedder: Any) -> Router:
    """Prices are known of all models but the first."""
    priced = [
        replace(model, input_usd_per_million=2.0, output_usd_per_million=10.0)
        for model in artifact.models[1:]
    ]
    return Router.from_artifact(replace(artifact, models=(artifact.models[0], *priced)), embedder=embedder)


@pytest.fixture
def config(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> GatewayConfig:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    return GatewayConfig(
        {
            "default": UpstreamConfig(
                upstream.base_url,
                api_key_env="UPSTREAM_KEY",
                first_byte_seconds=0.25,
                read_seconds=0.25,
                retries=0,
                retry_seconds=0.001,
            )
        }
    )


@pytest.fixture
def run(router: Router) -> Callable[[GatewayConfig, Scenario], None]:
    """Run a scenario against a gateway with that config."""

    def run(config: GatewayConfig, scenario: Scenario) -> None:
        async def whole() -> None:
            gateway = Gateway(router, config)
            transport = httpx.ASGITransport(build_app(gateway))
            async with gateway, httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                await asyncio.wait_for(scenario(client), 20)

        asyncio.run(whole())

    return run


@pytest.fixture
def post(
    run: Callable[[GatewayConfig, Scenario], None], config: GatewayConfig
) -> Callable[..., httpx.Response]:
    """Send one request to a gateway of its own."""

    def post(
        content: Any,
        *,
        path: str = CHAT,
        headers: Any = None,
        config: GatewayConfig = config,
        method: str = "POST",
    ) -> httpx.Response:
        responses: list[httpx.Response] = []
        body = content if isinstance(content, bytes) else json.dumps(content).encode()

        async def scenario(client: httpx.AsyncClient) -> None:
            responses.append(await client.request(method, path, content=body, headers=headers))

        run(config, scenario)
        return responses[0]

    return post


Post = Callable[..., httpx.Response]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": MESSAGES, **more}


def assert_error(response: httpx.Response, status: int, *named: str, code: str | None = None) -> None:
    """An error of OpenAI's shape whose message names all of ``named``."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    for name in named:
        assert name in error["message"], error
    if code is not None:
        assert error["code"] == code
    assert KEY not in response.text


def with_upstream(config: GatewayConfig, **changes: Any) -> GatewayConfig:
    return replace(config, upstreams={"default": replace(config.upstreams["default"], **changes)})


# What goes to the upstream.


def test_only_the_model_is_replaced(post: Post, upstream: FakeUpstream, router: Router) -> None:
    body = (
        b' {"temperature" : 1.0,  "model":"auto", "messages": '
        b'[{"role":"user","content":"caf\\u00e9 \xe2\x82\xac"}],\n'
        b'  "tools":[{"type":"function"}], "not_known": {"model": "auto", "n": 1e400}} '
    )
    assert post(body).status_code == 200
    (request,) = upstream.requests
    chosen = router.route("café €").model
    assert request.body == body.replace(b'"model":"auto", "m', f'"model":"{chosen}", "m'.encode())
    assert request.path == "/v1/chat/completions"


def test_alias_and_upstream_of_a_model(
    post: Post, upstream: FakeUpstream, router: Router, config: GatewayConfig
) -> None:
    config = replace(
        config,
        upstreams={"one": config.upstreams["default"], "two": UpstreamConfig("http://127.0.0.1:9")},
        models={name: ModelConfig("two", name) for name in router.models}
        | {router.models[1]: ModelConfig("one", "vendor/other-name")},
    )
    response = post(chat(model=router.models[1]), config=config)
    assert response.status_code == 200
    assert upstream.models == ["vendor/other-name"]
    assert response.headers["x-centroute-model"] == router.models[1]


def test_headers_that_pass_and_that_do_not(post: Post, upstream: FakeUpstream) -> None:
    sent = {
        "authorization": "Bearer of-the-client", "api-key": "of-the-client", "cookie": "a=b", "te": "gzip",
        "connection": "x-mine, keep-alive", "x-mine": "1", "x-centroute-policy": "alpha=0.5",
        "openai-beta": "assistants=v2", "accept-encoding": "gzip", "x-forwarded-for": "10.0.0.1",
    }  # fmt: skip
    assert post(chat(), headers=sent).status_code == 200
    (request,) = upstream.requests
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("openai-beta") == "assistants=v2"
    assert request.header("host") == f"127.0.0.1:{upstream.port}"
    assert request.header("accept-encoding") == "identity"
    for name in ("api-key", "cookie", "te", "x-mine", "x-centroute-policy", "x-forwarded-for"):
        assert request.header(name) is None
    assert len({name for name, _ in request.headers}) == len(request.headers)


def test_without_a_key_the_clients_own_passes(
    post: Post, upstream: FakeUpstream, config: GatewayConfig
) -> None:
    config = with_upstream(config, api_key_env=None)
    assert post(chat(), config=config, headers={"authorization": "Bearer of-the-client"}).status_code == 200
    assert upstream.requests[0].header("authorization") == "Bearer of-the-client"


def test_a_key_for_the_gateway_goes_no_further(
    post: Post, upstream: FakeUpstream, config: GatewayConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_KEYS", "first-key,second-key")
    config = replace(with_upstream(config, api_key_env=None), api_keys_env="CLIENT_KEYS")
    assert post(chat(), config=config, headers={"authorization": "Bearer second-key"}).status_code == 200
    assert upstream.requests[0].header("authorization") is None
    for shown in ({}, {"authorization": "Bearer second-ke"}, {"authorization": "Basic second-key"}):
        assert_error(post(chat(), config=config, headers=shown), 401, "Bearer", code="invalid_api_key")
    assert post(b"", config=config, path="/healthz", method="GET").status_code == 200
    assert len(upstream.requests) == 1


def test_proxy_of_the_environment(
    post: Post, upstream: FakeUpstream, config: GatewayConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{upstream.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert post(chat()).status_code == 200
    assert post(chat(), config=with_upstream(config, base_url="http://llm.invalid/v1")).status_code == 200
    direct, through = upstream.requests
    assert direct.path == "/v1/chat/completions"
    assert through.path == "http://llm.invalid/v1/chat/completions"
    assert through.header("host") == "llm.invalid"


# What comes back.


def test_answer_is_passed_on_unchanged(post: Post, upstream: FakeUpstream, router: Router) -> None:
    response = post(chat())
    assert response.status_code == 200
    assert response.content.startswith(b'{\n   "id": "c1"')
    assert response.json()["unknown"] == {"kept": True}
    decision = router.route(TEXT)
    assert response.headers["x-centroute-model"] == decision.model == upstream.models[0]
    assert response.headers["x-centroute-generation"] == "1"
    assert response.headers["x-centroute-attempts"] == "1"
    assert response.headers["x-centroute-in-distribution"] == str(decision.in_distribution).lower()
    assert float(response.headers["x-centroute-quality"]) == pytest.approx(decision.quality, rel=1e-5)
    assert float(response.headers["x-centroute-predicted-cost-usd"]) == pytest.approx(decision.cost, rel=1e-5)
    assert len(response.headers["x-centroute-decision-id"]) >= 16
    assert response.headers["x-centroute-prompt-tokens"] == "1000"
    assert response.headers["x-centroute-completion-tokens"] == "500"


def test_cost_is_told_where_prices_are_known(post: Post, router: Router) -> None:
    known = post(chat(model=router.models[1])).headers
    assert float(known["x-centroute-cost-usd"]) == pytest.approx((1000 * 2 + 500 * 10) / 1e6)
    unknown = post(chat(model=router.models[0])).headers
    assert "x-centroute-cost-usd" not in unknown
    assert unknown["x-centroute-prompt-tokens"] == "1000"


def test_tool_calls_are_untouched(post: Post, upstream: FakeUpstream, router: Router) -> None:
    upstream.behaviours[router.models[0]] = "tools"
    response = post(chat(model=router.models[0], tools=[{"type": "function"}]))
    assert response.json()["choices"][0]["message"]["tool_calls"] == TOOL_CALLS


def test_stream_is_passed_on_byte_for_byte(post: Post, upstream: FakeUpstream, router: Router) -> None:
    response = post(chat(stream=True))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-centroute-model"] == router.route(TEXT).model
    assert response.content == STREAM


def test_headers_of_the_upstream(post: Post, upstream: FakeUpstream, router: Router) -> None:
    upstream.behaviours[router.models[0]] = "talkative"
    headers = post(chat(model=router.models[0])).headers
    assert headers["x-request-id"] == "r-1"
    assert headers.get_list("x-centroute-model") == [router.models[0]]
    for name in ("set-cookie", "keep-alive", "x-hop", "connection"):
        assert name not in headers


def test_an_answer_that_is_compressed_nevertheless(
    post: Post, upstream: FakeUpstream, router: Router
) -> None:
    upstream.behaviours[router.models[1]] = "compressed"
    response = post(chat(model=router.models[1]))
    assert response.headers["content-encoding"] == "gzip"
    assert response.json()["choices"][0]["message"]["content"] == "Hi"
    assert "x-centroute-cost-usd" not in response.headers


def test_a_stream_that_nobody_takes_is_closed(
    upstream: FakeUpstream, router: Router, config: GatewayConfig
) -> None:
    """The client may leave in the very moment in which the answer begins."""
    upstream.behaviours[router.models[0]] = "endless_stream"
    gateway = Gateway(router, with_upstream(config, max_connections=1, connect_seconds=0.5))

    async def ask(model: str) -> Any:
        request = read_members(json.dumps(chat(model=model, stream=True)).encode())
        return (await gateway.ask([model], request, [], stream=True)).answer

    async def scenario() -> None:
        async with gateway:
            rest = (await ask(router.models[0])).rest
            assert rest is not None
            await rest.aclose()
            assert (await ask(router.models[1])).body

    asyncio.run(asyncio.wait_for(scenario(), 10))


# Which model is asked.


@pytest.mark.parametrize(
    ("model", "headers"),
    [
        ("auto:deny={first}", {}),
        ("centroute:deny={first}", {}),
        ("auto", {"x-centroute-policy": "deny={first}"}),
        ("auto:deny={first}", {"x-centroute-policy": "deny={second}"}),
    ],
)
def test_policy_by_suffix_and_header(
    post: Post, upstream: FakeUpstream, router: Router, model: str, headers: dict[str, str]
) -> None:
    first, second = router.route(TEXT).ranking[:2]
    named = {"first": first, "second": second}
    headers = {name: value.format(**named) for name, value in headers.items()}
    assert post(chat(model=model.format(**named)), headers=headers).status_code == 200
    assert upstream.models == [second]


def test_policy_of_the_config_and_over_it(
    post: Post, upstream: FakeUpstream, router: Router, config: GatewayConfig
) -> None:
    cheap = router.route(TEXT, policy=Policy(alpha=0.0)).model
    best = router.route(TEXT, policy=Policy(alpha=1.0)).model
    assert cheap != best
    config = replace(config, policy=Policy(alpha=0.0))
    post(chat(), config=config)
    post(chat(model="auto:alpha=1"), config=config)
    assert upstream.models == [cheap, best]


def test_a_conversation_keeps_its_model_while_a_switch_is_not_worth_it(
    post: Post, upstream: FakeUpstream, router: Router, config: GatewayConfig
) -> None:
    best, second = router.route(TEXT).ranking[:2]
    headers = {"x-centroute-session-model": second}
    dear = replace(config, session=Session(switch_cost_usd=9.0, switch_quality=1.0))
    kept = post(chat(), config=dear, headers=headers)
    assert kept.headers["x-centroute-model"] == second
    assert "x-centroute-instead-of" not in kept.headers
    decided = post({"input": TEXT}, path="/v1/route", config=dear, headers=headers).json()
    assert decided["model"] == decided["ranking"][0] == second
    post(chat(), headers=headers)
    post(chat(), config=dear, headers={"x-centroute-session-model": "nobody"})
    assert upstream.models == [second, best, best]
    assert upstream.requests[0].header("x-centroute-session-model") is None


def test_conversations_are_routed_on_the_last_user_message(
    post: Post, upstream: FakeUpstream, router: Router
) -> None:
    messages = [
        {"role": "user", "content": "Translate this poem"},
        {"role": "assistant", "content": "Gladly"},
        {"role": "user", "content": [{"type": "text", "text": TEXT}]},
    ]
    shown = post({"messages": messages}, path="/v1/route").json()
    assert shown == json.loads(json.dumps(decision_to_json(router.route(TEXT))))


def test_models_are_listed(post: Post, router: Router) -> None:
    listed = post(b"", path="/v1/models", method="GET").json()
    assert [model["id"] for model in listed["data"]] == ["auto", *router.models]


# When upstreams fail.

FAILURES = [
    "limited",
    "failing",
    "failing_page",
    "reset",
    "hang",
    "garbage",
    "page",
    "half_body",
    "moved",
    "refused",
]


@pytest.mark.parametrize("behaviour", FAILURES)
def test_next_model_of_the_ranking_answers(
    post: Post, upstream: FakeUpstream, router: Router, behaviour: str
) -> None:
    first, second = router.route(TEXT).ranking[:2]
    upstream.behaviours[first] = behaviour
    response = post(chat())
    assert response.status_code == 200, response.text
    assert upstream.models == [first, second]
    assert response.headers["x-centroute-model"] == second
    assert response.headers["x-centroute-instead-of"] == first
    assert response.headers["x-centroute-attempts"] == "2"
    assert "x-centroute-quality" not in response.headers


@pytest.mark.parametrize("behaviour", ["limited", "failing", "reset", "hang", "garbage", "page"])
def test_next_model_streams(post: Post, upstream: FakeUpstream, router: Router, behaviour: str) -> None:
    first, second = router.route(TEXT).ranking[:2]
    upstream.behaviours[first] = behaviour
    response = post(chat(stream=True))
    assert response.content == STREAM
    assert upstream.models == [first, second]


def test_no_more_models_are_asked_than_allowed(
    post: Post, upstream: FakeUpstream, router: Router, config: GatewayConfig
) -> None:
    upstream.behaviours.update(dict.fromkeys(router.models, "failing"))
    config = replace(config, limits=Limits(max_fallbacks=1))
    response = post(chat(), config=config)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "out of order"
    assert upstream.models == list(router.route(TEXT).ranking[:2])
    assert response.headers["x-centroute-attempts"] == "2"


def test_same_model_is_tried_again(
    post: Post, upstream: FakeUpstream, router: Router, config: GatewayConfig
) -> None:
    first = router.route(TEXT).model
    upstream.behaviours[first] = "reset failing plain"
    response = post(chat(), config=with_upstream(config, retries=2))
    assert response.status_code == 200
    assert upstream.models == [first] * 3
    assert response.headers["x-centroute-attempts"] == "3"


def test_a_limit_is_not_hammered(
    post: Post, upstream: FakeUpstream, router: Router, config: GatewayConfig
) -> None:
    upstream.behaviours[router.models[0]] = "limited"
    response = post(chat(model=router.models[0]), config=with_upstream(config, retries=2))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        *(("limited", 429), ("failing", 500), ("failing_page", 502), ("hang", 504), ("reset", 502)),
        *(("garbage", 502), ("page", 502), ("half_body", 502), ("moved", 502), ("refused", 502)),
    ],
)
def test_a_model_that_was_named_is_not_replaced(
    post: Post, upstream: FakeUpstream, router: Router, behaviour: str, status: int
) -> None:
    upstream.behaviours[router.models[2]] = behaviour
    response = post(chat(model=router.models[2]))
    assert_error(response, status)
    assert upstream.models == [router.models[2]]


def test_faults_of_the_client_are_its_own_to_see(post: Post, upstream: FakeUpstream, router: Router) -> None:
    upstream.behaviours.update(dict.fromkeys(router.models, "bad_request"))
    response = post(chat(temperature=9))
    assert_error(response, 400, "temperature is too high", "***", code="upstream_code")
    assert len(upstream.requests) == 1


def test_an_upstream_that_is_not_there(
    post: Post, router: Router, config: GatewayConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = with_upstream(config, base_url=f"http://127.0.0.1:{port}/v1")
    response = post(chat(), config=config)
    assert_error(response, 502, "cannot be reached", router.route(TEXT).model, code="upstream_failed")
    # All models are there, so that asking for another one would be of no use.
    assert len(caplog.records) == 1


def test_circuit_breaker(
    run: Callable[[GatewayConfig, Scenario], None],
    upstream: FakeUpstream,
    router: Router,
    config: GatewayConfig,
) -> None:
    model = router.models[0]
    config = with_upstream(config, breaker_failures=2, breaker_seconds=0.2)

    async def scenario(client: httpx.AsyncClient) -> None:
        upstream.behaviours[model] = "failing failing plain"
        for _ in range(2):
            assert (await client.post(CHAT, json=chat(model=model))).status_code == 500
        left_alone = await client.post(CHAT, json=chat(model=model))
        assert_error(left_alone, 503, "left alone", code="no_upstream")
        assert left_alone.headers["retry-after"]
        assert len(upstream.requests) == 2
        shown = (await client.get("/metrics")).text
        assert 'centroute_gateway_circuit_open{upstream="default"} 1.0' in shown
        await asyncio.sleep(0.25)
        assert (await client.post(CHAT, json=chat(model=model))).status_code == 200
        assert (await client.post(CHAT, json=chat(model=model))).status_code == 200

    run(config, scenario)


def test_secrets_stay_out_of_logs_and_metrics(
    run: Callable[[GatewayConfig, Scenario], None],
    upstream: FakeUpstream,
    router: Router,
    config: GatewayConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    async def scenario(client: httpx.AsyncClient) -> None:
        for behaviour in FAILURES:
            upstream.behaviours.update(dict.fromkeys(router.models, behaviour))
            response = await client.post(CHAT, json=chat(), headers={"authorization": "Bearer of-the-client"})
            texts.append(f"{response.headers} {response.text}")
        texts.append((await client.get("/metrics")).text)

    run(with_upstream(config, breaker_failures=100), scenario)
    logged = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    assert "centroute.gateway" in {record.name for record in caplog.records}
    for secret in (KEY, "of-the-client", "third item"):
        assert secret not in logged
        assert secret not in "\n".join(texts)


# Bad input.


@pytest.mark.parametrize("path", [CHAT, "/v1/route", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "not valid JSON"),
        (b'{"model": "auto"', "not valid JSON"),
        (b'{"model": "auto",}', "not valid JSON"),
        (b'{"model" "auto"}', "not valid JSON"),
        (b'{"model": }', "not valid JSON"),
        (b'{"model": "auto"} x', "not valid JSON"),
        (b'{"model": "a\nb"}', "not valid JSON"),
        (b'{"model": NaN}', "NaN"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[1]", "JSON object"),
        (b'"auto"', "JSON object"),
        (b'{"messages":' + b"[" * 100_000, "nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_bodies_that_are_no_json_object(
    post: Post, upstream: FakeUpstream, path: str, body: bytes, named: str
) -> None:
    assert_error(post(body, path=path), 400, named)
    assert not upstream.requests


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"messages": MESSAGES}, "model"),
        (chat(model=7), "model"),
        (chat(model=""), "model"),
        ({"model": "auto"}, "messages"),
        (chat(messages="hello"), "messages"),
        (chat(messages=[]), "no user message"),
        (chat(messages=["hello"]), "messages[0]"),
        (chat(messages=[{"role": "system", "content": "x"}]), "no user message"),
        (chat(messages=[{"role": "wizard", "content": "x"}]), "wizard"),
        (chat(messages=[{"content": "x"}]), "role"),
        (chat(messages=[{"role": "user", "content": 7}]), "messages[0]"),
        (chat(messages=[{"role": "user", "content": None}]), "messages[0]"),
        (chat(messages=[{"role": "user", "content": " "}]), "no user message holds text"),
        (chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "no user message holds text"),
        (chat(stream="yes"), "stream"),
        (chat(model="auto:alpha=7"), "alpha"),
        (chat(model="auto:alpha=x"), "alpha"),
        (chat(model="auto:nonsense"), "nonsense"),
        (chat(model="auto:deny=nobody"), "nobody"),
        (chat(model="auto:alpha=0.5;min-quality=0.5"), "alpha"),
        (chat(model="auto:require=vision"), "vision"),
        (chat(model=f"auto:deny={'x' * 10_000}"), "longer"),
    ],
)
def test_chats_that_cannot_be_routed(post: Post, upstream: FakeUpstream, body: Any, named: str) -> None:
    assert_error(post(body), 400, named)
    assert not upstream.requests


def test_two_models_in_one_body(post: Post, upstream: FakeUpstream) -> None:
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "hello"}], "model": "other"}'
    assert_error(post(body), 400, "'model' twice")
    assert not upstream.requests


@pytest.mark.parametrize("model", ["gpt-99", "automatic", "AUTO", "nobody:alpha=1", "\ud800"])
def test_unknown_model(post: Post, upstream: FakeUpstream, model: str) -> None:
    assert_error(post(chat(model=model)), 404, "/v1/models", code="model_not_found")
    assert not upstream.requests


@pytest.mark.parametrize(
    "value",
    ["alpha=1.5", "alpha=nan", "willingness_to_pay=-1", "alpha", "nope=1", "min_quality=1e999", "max-cost=x"],
)
def test_policy_header_out_of_range(post: Post, upstream: FakeUpstream, value: str) -> None:
    assert_error(post(chat(), headers={"x-centroute-policy": value}), 400, code="invalid_policy")
    assert not upstream.requests


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-centroute-policy", b"alpha=1\r\nx-evil: 1")],
        [(b"x-centroute-policy", b"alpha=1\x00")],
        [(b"x-centroute-policy", "fallback=n\u00e4he".encode())],
        [(b"x-centroute-policy", b"alpha=1"), (b"x-centroute-policy", b"alpha=0")],
    ],
)
def test_header_injection(post: Post, upstream: FakeUpstream, headers: Any) -> None:
    assert_error(post(chat(), headers=headers), 400, "x-centroute-policy", code="invalid_header")
    assert not upstream.requests


def test_model_names_cannot_break_headers(
    artifact: Artifact, embedder: Any, config: GatewayConfig, upstream: FakeUpstream
) -> None:
    """A pool may hold names that no header can."""
    odd = "näme % €"
    models = (replace(artifact.models[0], name=odd), *artifact.models[1:])
    gateway = Gateway(Router.from_artifact(replace(artifact, models=models), embedder=embedder), config)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(gateway))
        async with gateway, httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post(CHAT, json=chat(model=odd))

    response = asyncio.run(ask())
    assert response.headers["x-centroute-model"] == "n%C3%A4me %25 %E2%82%AC"
    assert upstream.models == [odd]


def test_too_long_a_body(post: Post, upstream: FakeUpstream, config: GatewayConfig) -> None:
    config = replace(config, limits=Limits(max_body_bytes=1000))
    long = chat(messages=[{"role": "user", "content": "x" * 1000}])
    for path in (CHAT, "/v1/route", "/v1/embeddings"):
        assert_error(post(long, config=config, path=path), 413, "1000 bytes", code="body_too_large")
    assert post(chat(), config=config).status_code == 200
    assert len(upstream.requests) == 1


def test_too_long_a_body_of_unknown_length(
    run: Callable[[GatewayConfig, Scenario], None], config: GatewayConfig
) -> None:
    async def parts() -> Any:
        for _ in range(20):
            yield b"x" * 100

    async def scenario(client: httpx.AsyncClient) -> None:
        assert_error(await client.post(CHAT, content=parts()), 413, "1000 bytes", code="body_too_large")

    run(replace(config, limits=Limits(max_body_bytes=1000)), scenario)


def test_a_body_that_does_not_come(
    run: Callable[[GatewayConfig, Scenario], None], config: GatewayConfig
) -> None:
    async def parts() -> Any:
        yield b"{"
        await asyncio.sleep(5)

    async def scenario(client: httpx.AsyncClient) -> None:
        assert_error(await client.post(CHAT, content=parts()), 408, "0.05 s", code="body_timeout")

    run(replace(config, limits=Limits(body_seconds=0.05)), scenario)


def test_more_requests_than_allowed(
    run: Callable[[GatewayConfig, Scenario], None],
    upstream: FakeUpstream,
    router: Router,
    config: GatewayConfig,
) -> None:
    upstream.behaviours[router.models[0]] = "held"
    config = replace(with_upstream(config, first_byte_seconds=10.0), limits=Limits(max_concurrent=2))

    async def scenario(client: httpx.AsyncClient) -> None:
        held = [asyncio.create_task(client.post(CHAT, json=chat(model=router.models[0]))) for _ in range(2)]
        await asyncio.to_thread(upstream.wait_for_requests, 2)
        assert_error(await client.post(CHAT, json=chat()), 503, "2 requests", code="overloaded")
        upstream.release.set()
        assert [(await task).status_code for task in held] == [200, 200]
        assert (await client.post(CHAT, json=chat())).status_code == 200

    run(config, scenario)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/v1/completions", 404), ("GET", CHAT, 405), ("GET", "/v1/route/", 404)],
)
def test_paths_that_are_not_there(post: Post, method: str, path: str, status: int) -> None:
    assert_error(post(b"", method=method, path=path), status, path)


# Decisions alone.


def test_route_has_the_keys_of_the_command_line(post: Post, router: Router) -> None:
    response = post({"input": TEXT}, path="/v1/route")
    assert response.json() == json.loads(json.dumps(decision_to_json(router.route(TEXT))))
    assert response.headers["x-centroute-generation"] == "1"
    assert response.headers["x-centroute-decision-id"]


def test_route_takes_a_policy(post: Post, router: Router) -> None:
    best = router.route(TEXT).model
    wanted = router.route(TEXT, policy=Policy(alpha=0.4, deny={best})).model
    as_object = post({"input": TEXT, "policy": {"alpha": 0.4, "deny": [best]}}, path="/v1/route")
    as_suffix = post({"input": TEXT, "model": f"auto:alpha=0.4;deny={best}"}, path="/v1/route")
    mixed = post(
        {"input": TEXT, "policy": {"deny": [best]}},
        path="/v1/route",
        headers={"x-centroute-policy": "alpha=0.4"},
    )
    assert [answer.json()["model"] for answer in (as_object, as_suffix, mixed)] == [wanted] * 3


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "input"),
        ({"input": TEXT, "messages": MESSAGES}, "either"),
        ({"input": 7}, "input"),
        ({"input": ["a", "b"]}, "input"),
        ({"input": ""}, "nothing"),
        ({"input": " \u3000"}, "nothing"),
        ({"messages": {}}, "messages"),
        ({"input": TEXT, "policy": 7}, "policy"),
        ({"input": TEXT, "policy": {"alhpa": 1}}, "alhpa"),
        ({"input": TEXT, "policy": {"alpha": True}}, "alpha"),
        ({"input": TEXT, "policy": {"alpha": "1"}}, "alpha"),
        ({"input": TEXT, "policy": {"alpha": 10**400}}, "alpha"),
        ({"input": TEXT, "policy": {"deny": "x"}}, "deny"),
        ({"input": TEXT, "policy": {"fallback": 1}}, "fallback"),
        ({"input": TEXT, "policy": {"max_cost": 1, "max-cost": 1}}, "twice"),
        ({"input": TEXT, "model": 7}, "model"),
        ({"input": TEXT, "model": "oakhollow-grand"}, "model must be"),
    ],
)
def test_decisions_that_cannot_be_made(post: Post, body: Any, named: str) -> None:
    assert_error(post(body, path="/v1/route"), 400, named)


# Embeddings.


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings(post: Post, embedder: Any, encoding: str | None) -> None:
    texts = ["What is a prime number?", "naïve 🙂"]
    wanted = embedder.embed(texts)
    body = {"model": "static-256", "input": texts} | ({"encoding_format": encoding} if encoding else {})
    answer = post(body, path="/v1/embeddings").json()
    rows = [item["embedding"] for item in answer["data"]]
    if encoding == "base64":
        rows = [np.frombuffer(base64.b64decode(row), dtype="<f4") for row in rows]
    assert np.array_equal(np.array(rows, dtype=np.float32), wanted)
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["object"] == "list"
    assert answer["model"] == "static-256"
    n_tokens = sum(len(embedder.tokenize(text)) for text in texts)
    assert answer["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}


def test_one_text_to_embed(post: Post, embedder: Any) -> None:
    answer = post({"model": "auto", "input": TEXT, "dimensions": 256}, path="/v1/embeddings").json()
    assert np.array_equal(np.array(answer["data"][0]["embedding"], np.float32), embedder.embed([TEXT])[0])


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"input": TEXT}, 400, "model"),
        ({"model": "text-embedding-3-small", "input": TEXT}, 404, "static-256"),
        ({"model": "auto"}, 400, "input"),
        ({"model": "auto", "input": []}, 400, "input"),
        ({"model": "auto", "input": [1, 2]}, 400, "tokens"),
        ({"model": "auto", "input": [TEXT, ""]}, 400, "input 1"),
        ({"model": "auto", "input": ["x"] * 2049}, 400, "2048"),
        ({"model": "auto", "input": TEXT, "encoding_format": "hex"}, 400, "encoding_format"),
        ({"model": "auto", "input": TEXT, "dimensions": 64}, 400, "dimensions"),
    ],
)
def test_embeddings_that_cannot_be_made(post: Post, body: Any, status: int, named: str) -> None:
    assert_error(post(body, path="/v1/embeddings"), status, named)


# Watching.


def test_health_and_readiness(post: Post) -> None:
    assert post(b"", path="/healthz", method="GET").text == "alive\n"
    assert post(b"", path="/readyz", method="GET").text == "ready, generation 1\n"


def test_metrics(
    run: Callable[[GatewayConfig, Scenario], None],
    upstream: FakeUpstream,
    router: Router,
    config: GatewayConfig,
) -> None:
    first, second = router.route(TEXT).ranking[:2]
    upstream.behaviours[first] = "failing"

    async def scenario(client: httpx.AsyncClient) -> None:
        await client.post(CHAT, json=chat())
        await client.post(CHAT, json=chat(model=router.models[1], stream=True))
        await client.post(CHAT, json=chat(model=router.models[0]))
        await client.post(CHAT, json=chat(model="a-clients-own-words"))
        shown = (await client.get("/metrics")).text
        for line in (
            'requests_total{endpoint="/v1/chat/completions",status="404"} 1.0',
            'attempts_total{outcome="status",upstream="default"}',
            'attempts_total{outcome="answered",upstream="default"}',
            f'model_fallbacks_total{{model="{second}"}} 1.0',
            "requests_in_progress 1.0",
        ):
            assert f"centroute_gateway_{line}" in shown, line
        assert "a-clients-own-words" not in shown

    run(config, scenario)


def test_metrics_of_the_router(
    run: Callable[[GatewayConfig, Scenario], None], router: Router, config: GatewayConfig
) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        model = (await client.post("/v1/route", json={"input": TEXT})).json()["model"]
        shown = (await client.get("/metrics")).text
        assert f'centroute_decisions_total{{model="{model}"}}' in shown
        assert "centroute_generation 1.0" in shown

    run(config, scenario)


def test_tokens_and_cost_are_counted(
    run: Callable[[GatewayConfig, Scenario], None], router: Router, config: GatewayConfig
) -> None:
    unpriced, priced = router.models[:2]

    async def scenario(client: httpx.AsyncClient) -> None:
        await client.post(CHAT, json=chat(model=priced))
        await client.post(CHAT, json=chat(model=priced, stream=True))
        await client.post(CHAT, json=chat(model=unpriced))
        shown = (await client.get("/metrics")).text
        assert f'centroute_gateway_tokens_total{{kind="prompt",model="{priced}"}} 1009.0' in shown
        assert f'centroute_gateway_tokens_total{{kind="completion",model="{priced}"}} 502.0' in shown
        cost = (1009 * 2 + 502 * 10) / 1e6
        (line,) = [line for line in shown.splitlines() if line.startswith("centroute_gateway_cost_usd_total")]
        assert priced in line
        assert float(line.split()[-1]) == pytest.approx(cost)
        assert f'centroute_gateway_answers_of_unknown_cost_total{{model="{unpriced}"}} 1.0' in shown

    run(config, scenario)


def test_metrics_without_the_client_of_prometheus(monkeypatch: pytest.MonkeyPatch, post: Post) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert post(chat()).status_code == 200
    response = post(b"", path="/metrics", method="GET")
    assert_error(response, 501, "pip install 'centroute[prometheus]'", code="no_metrics")


def test_a_fault_of_our_own_tells_nothing(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr("centroute.gateway.decision.decide", fail)
    response = post({"input": TEXT}, path="/v1/route")
    assert_error(response, 500, "RuntimeError")
    assert "secret path" not in response.text
    assert "a secret path" in caplog.text


def test_decisions_are_written_down(
    post: Post, config: GatewayConfig, router_file: Path, tmp_path: Path
) -> None:
    config = replace(config, log=LogConfig(tmp_path / "decisions.jsonl", with_text=True))
    response = post(chat(), config=config)
    (line,) = (tmp_path / "decisions.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == response.headers["x-centroute-decision-id"]
    assert json.loads(line)["text"] == TEXT
