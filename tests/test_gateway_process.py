"""``centroute serve`` as a process: the official client, two upstreams, clients that leave, reload."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from gateway_upstream import STREAM, TOOL_CALLS, FakeUpstream

from centroute import Artifact, Router
from centroute._atomic import write_atomic

KEY = "sk-secret-0123456789"
TEXT = "Write a Python function that returns the third item of a list"
MESSAGES: Any = [{"role": "user", "content": TEXT}]
SECONDS = 20.0


@dataclass
class Served:
    """A running gateway."""

    process: subprocess.Popen[str]
    port: int
    log_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key="of-the-client", max_retries=0, timeout=SECONDS)

    def end(self) -> int:
        """Tell it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextmanager
def serving(
    command: str, environment: dict[str, str], router_file: Path, folder: Path, config: str
) -> Iterator[Served]:
    config_file, log_file = folder / "gateway.toml", folder / "log.txt"
    config_file.write_text(config)
    with ExitStack() as stack:
        process = subprocess.Popen(
            [command, "serve", str(router_file), "--config", str(config_file)],
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(log_file.open("w")),
            env={**environment, "UPSTREAM_KEY": KEY},
            text=True,
        )
        stack.enter_context(process)
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], SECONDS)[0], "it did not start"
            line = process.stdout.readline()
            found = re.fullmatch(r"centroute: serving \d+ models on http://127\.0\.0\.1:(\d+)\n", line)
            assert found, (line, log_file.read_text())
            yield Served(process, int(found[1]), log_file)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[FakeUpstream]]:
    with FakeUpstream() as one, FakeUpstream() as two:
        yield [one, two]


@pytest.fixture(scope="module")
def router(router_file: Path) -> Router:
    return Router.load(router_file)


@pytest.fixture(scope="module")
def module_served(
    command: str,
    plain_environment: dict[str, str],
    router: Router,
    router_file: Path,
    upstreams: list[FakeUpstream],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """The model that is chosen for TEXT is at an upstream of its own."""
    limits = 'api_key_env = "UPSTREAM_KEY"\nfirst_byte_seconds = 1\nread_seconds = 1\nretries = 0\n'
    config = (
        f'port = 0\n[upstreams.one]\nbase_url = "{upstreams[0].base_url}"\nmax_connections = 2\n{limits}'
        f'[upstreams.default]\nbase_url = "{upstreams[1].base_url}"\n{limits}'
        f'[models."{router.route(TEXT).model}"]\nupstream = "one"\nas = "vendor/big"\n'
    )
    with serving(
        command, plain_environment, router_file, tmp_path_factory.mktemp("gateway"), config
    ) as served:
        yield served
        assert served.end() == 0
        log = served.log_file.read_text()
        assert KEY not in log
        assert "of-the-client" not in log
        assert "Traceback" not in log


@pytest.fixture
def served(module_served: Served, upstreams: list[FakeUpstream]) -> Served:
    for upstream in upstreams:
        upstream.reset()
    return module_served


@pytest.fixture
def one(upstreams: list[FakeUpstream]) -> FakeUpstream:
    return upstreams[0]


@pytest.fixture
def two(upstreams: list[FakeUpstream]) -> FakeUpstream:
    return upstreams[1]


# The official client.


def test_plain(served: Served, one: FakeUpstream, router: Router) -> None:
    raw = served.client.chat.completions.with_raw_response.create(model="auto", messages=MESSAGES)
    assert raw.headers["x-centroute-model"] == router.route(TEXT).model
    assert raw.parse().choices[0].message.content == "Hello"
    (request,) = one.requests
    assert request.json == {"model": "vendor/big", "messages": MESSAGES}
    assert request.header("authorization") == f"Bearer {KEY}"


def test_streaming(served: Served) -> None:
    chunks = list(served.client.chat.completions.create(model="auto", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 11


def test_tool_calls(served: Served, one: FakeUpstream) -> None:
    one.behaviours["vendor/big"] = "tools"
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    answer = served.client.chat.completions.create(model="auto", messages=MESSAGES, tools=tools)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [call.model_dump() for call in calls] == TOOL_CALLS
    assert one.requests[0].json["tools"] == tools


def test_concrete_model(served: Served, two: FakeUpstream, router: Router) -> None:
    named = router.route(TEXT).ranking[2]
    assert served.client.chat.completions.create(model=named, messages=MESSAGES).model == named
    assert two.models == [named]


@pytest.mark.parametrize("behaviour", ["limited", "failing", "reset", "hang"])
@pytest.mark.parametrize("stream", [False, True])
def test_another_model_answers(
    served: Served, one: FakeUpstream, two: FakeUpstream, router: Router, behaviour: str, stream: bool
) -> None:
    one.behaviours["vendor/big"] = behaviour
    raw = served.client.chat.completions.with_raw_response.create(
        model="auto", messages=MESSAGES, stream=stream
    )
    second = router.route(TEXT).ranking[1]
    assert raw.headers["x-centroute-model"] == second
    assert raw.headers["x-centroute-instead-of"] == router.route(TEXT).model
    assert (raw.http_response.read() == STREAM) is stream
    assert (one.models, two.models) == (["vendor/big"], [second])
    # So that the next test finds the circuit closed.
    one.behaviours.clear()
    served.client.chat.completions.create(model="auto", messages=MESSAGES)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [("limited", openai.RateLimitError), ("failing", openai.InternalServerError)],
)
def test_when_all_fail(
    served: Served,
    one: FakeUpstream,
    two: FakeUpstream,
    router: Router,
    behaviour: str,
    error: type[openai.APIStatusError],
) -> None:
    one.behaviours["vendor/big"] = behaviour
    two.behaviours.update(dict.fromkeys(router.models, behaviour))
    with pytest.raises(error) as raised:
        served.client.chat.completions.create(model="auto", messages=MESSAGES)
    assert raised.value.code == "upstream_code"
    one.reset()
    two.reset()
    for model in router.models:
        served.client.chat.completions.create(model=model, messages=MESSAGES)


def test_half_a_stream(served: Served, one: FakeUpstream) -> None:
    one.behaviours["vendor/big"] = "half_stream"
    chunks = iter(served.client.chat.completions.create(model="auto", messages=MESSAGES, stream=True))
    assert next(chunks).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIError, match="broke off"):
        next(chunks)
    # Others would begin again where something has been said already.
    assert len(one.requests) == 1


def test_half_a_stream_has_no_proper_end(served: Served, one: FakeUpstream) -> None:
    one.behaviours["vendor/big"] = "half_stream"
    body = {"model": "auto", "messages": MESSAGES, "stream": True}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{served.url}/chat/completions", json=body, timeout=SECONDS)


def test_errors(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="see /v1/models"):
        served.client.chat.completions.create(model="gpt-99", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="alpha"):
        served.client.chat.completions.create(model="auto:alpha=2", messages=MESSAGES)


def test_models_and_embeddings(served: Served, router: Router, embedder: Any) -> None:
    assert [model.id for model in served.client.models.list()] == ["auto", *router.models]
    answer = served.client.embeddings.create(model="static-256", input=[TEXT, "hello"])
    assert [item.embedding for item in answer.data] == embedder.embed([TEXT, "hello"]).tolist()


# Clients that leave.


def test_client_leaves_a_stream(served: Served, one: FakeUpstream) -> None:
    one.behaviours["vendor/big"] = "endless_stream"
    stream = served.client.chat.completions.create(model="auto", messages=MESSAGES, stream=True)
    assert next(iter(stream)).choices[0].delta.content == "Hel"
    assert not one.left.is_set()
    stream.close()
    assert one.left.wait(SECONDS)


def test_client_leaves_before_the_answer(served: Served, one: FakeUpstream, two: FakeUpstream) -> None:
    one.behaviours["vendor/big"] = "hang hang hang plain"
    for _ in range(3):
        with pytest.raises(openai.APITimeoutError):
            served.client.with_options(timeout=0.2).chat.completions.create(model="auto", messages=MESSAGES)
        # Sooner than the gateway's own limit of a second.
        assert one.left.wait(0.7)
        one.left.clear()
    # Nobody else was asked, and the two connections that this upstream may have are free again.
    served.client.chat.completions.create(model="auto", messages=MESSAGES)
    assert len(one.requests) == 4
    assert not two.requests


# Bodies and headers.


def test_fifty_megabytes_are_refused_before_they_are_sent(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=SECONDS) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n{"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_fifty_megabytes_are_refused_while_they_are_sent(served: Served, one: FakeUpstream) -> None:
    long = [{"role": "user", "content": "x" * 50_000_000}]
    with pytest.raises(openai.APIStatusError, match="longer than 10000000 bytes") as raised:
        served.client.chat.completions.create(model="auto", messages=long)  # type: ignore[arg-type]
    assert raised.value.status_code == 413
    assert not one.requests


@pytest.mark.parametrize(
    "lines",
    [
        b"x-centroute-policy: alpha=1\r x-evil: 1\r\ncontent-length: 2",
        b"x-centroute-policy: alpha=1\n x-evil: 1\r\ncontent-length: 2",
        b"x-centroute-policy: alpha=1\x00\r\ncontent-length: 2",
        b"x-centroute-policy: alpha=\xe4\r\ncontent-length: 2",
        b"content-length: 2\r\ntransfer-encoding: chunked",
        b"content-length: 2\r\ncontent-length: 3",
        b"content-length: -2",
    ],
)
def test_headers_that_two_readers_could_read_in_two_ways(
    served: Served, one: FakeUpstream, two: FakeUpstream, lines: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=SECONDS) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + lines + b"\r\n\r\n{}")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert not one.requests
    assert not two.requests


def test_long_text(served: Served, one: FakeUpstream) -> None:
    long: Any = [{"role": "user", "content": f"{TEXT} " * 50_000}]
    assert served.client.chat.completions.create(model="auto", messages=long).choices[0]
    assert one.requests[0].json["messages"] == long


# Load.


def test_concurrent_decisions(served: Served, router: Router) -> None:
    texts = [*(f"{TEXT}, number {number}" for number in range(64)), "Translate a poem", "Who was Faust?"]

    def ask(text: str) -> None:
        for decided in decisions(served.port, text, n_decisions=10):
            assert _numbers(decided) == _numbers(router.route(text))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, texts))


def test_reload_under_load(
    command: str,
    plain_environment: dict[str, str],
    artifact: Artifact,
    router: Router,
    upstreams: list[FakeUpstream],
    tmp_path: Path,
) -> None:
    """Two workers; every answer is wholly of one file or wholly of the other, and none fails."""
    file = tmp_path / "router.safetensors"
    other = replace(artifact, quality=artifact.quality * 0.5, prior_quality=artifact.prior_quality * 0.5)
    artifact.save(file)
    texts = [TEXT, "Translate a poem", "Who was Faust?"]
    routers = [Router.from_artifact(one, embedder=router.embedder) for one in (artifact, other)]
    wanted = {text: [_numbers(router.route(text)) for router in routers] for text in texts}
    seen: set[float] = set()
    done = threading.Event()
    config = (
        "port = 0\nworkers = 2\nreload_seconds = 0.02\n"
        f'[upstreams.default]\nbase_url = "{upstreams[1].base_url}"\n'
    )

    def ask(text: str) -> int:
        n_answers = 0
        # Connections are made anew, as a kept one stays with its worker.
        while not done.is_set():
            for decided in decisions(served.port, text, n_decisions=20):
                assert _numbers(decided) in wanted[text]
                seen.add(decided.quality)
                n_answers += 1
        return n_answers

    with (
        serving(command, plain_environment, file, tmp_path, config) as served,
        ThreadPoolExecutor(3) as pool,
    ):
        until = time.monotonic() + SECONDS
        while httpx.get(f"http://127.0.0.1:{served.port}/readyz", timeout=SECONDS).status_code != 200:
            assert time.monotonic() < until
        asking = [pool.submit(ask, text) for text in texts]
        try:
            for turn in range(20):
                (other if turn % 2 == 0 else artifact).save(file)
                time.sleep(0.05)
            # What is no router is told once a worker, and changes nothing.
            write_atomic(file, b"no router")
            time.sleep(0.2)
        finally:
            done.set()
        assert all(task.result(SECONDS) > 20 for task in asking)
        assert len(seen) == 2 * len(texts)
        assert served.end() == 0
        assert 1 <= served.log_file.read_text().count("goes on serving") <= 2, served.log_file.read_text()


def decisions(port: int, text: str, *, n_decisions: int) -> Iterator[SimpleNamespace]:
    """Ask for the same decision again and again on one connection."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        for _ in range(n_decisions):
            connection.request("POST", "/v1/route", json.dumps({"input": text}))
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            yield SimpleNamespace(**json.loads(body))
    finally:
        connection.close()


def _numbers(decision: Any) -> tuple[str, float, tuple[str, ...]]:
    return decision.model, decision.quality, tuple(decision.ranking)


# The end.


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_in_work_is_finished(
    workers: int,
    command: str,
    plain_environment: dict[str, str],
    router: Router,
    router_file: Path,
    upstreams: list[FakeUpstream],
    tmp_path: Path,
) -> None:
    _, upstream = upstreams
    upstream.reset()
    streamed, whole = router.models[:2]
    upstream.behaviours.update({streamed: "held_stream", whole: "held"})
    config = f'port = 0\nworkers = {workers}\n[upstreams.default]\nbase_url = "{upstream.base_url}"\n'
    with serving(command, plain_environment, router_file, tmp_path, config) as served:

        def ask(model: str, *, stream: bool) -> bytes:
            body = {"model": model, "messages": MESSAGES, "stream": stream}
            return httpx.post(f"{served.url}/chat/completions", json=body, timeout=SECONDS).content

        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(ask, streamed, stream=True), pool.submit(ask, whole, stream=False)]
            upstream.wait_for_requests(2)
            served.process.send_signal(signal.SIGTERM)
            _wait_until_refused(served.port)
            assert served.process.poll() is None
            upstream.release.set()
            assert held[0].result(SECONDS) == STREAM
            assert json.loads(held[1].result(SECONDS))["model"] == whole
        assert served.process.wait(SECONDS) == 0
        assert served.log_file.read_text() == ""


def _wait_until_refused(port: int) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("it still takes connections")


def test_a_port_that_is_taken(process: Any, router_file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "gateway.toml"
        config.write_text(f'port = {port}\n[upstreams.default]\nbase_url = "http://127.0.0.1:9/v1"\n')
        finished = process("serve", router_file, "--config", config)
    finished.assert_refused(f"127.0.0.1:{port}", "address already in use")
    assert finished.out == ""


def test_interrupt(
    command: str, plain_environment: dict[str, str], router_file: Path, tmp_path: Path
) -> None:
    config = 'port = 0\n[upstreams.default]\nbase_url = "http://127.0.0.1:9/v1"\n'
    with serving(command, plain_environment, router_file, tmp_path, config) as served:
        os.kill(served.process.pid, signal.SIGINT)
        assert served.process.wait(SECONDS) == 0
        assert served.log_file.read_text() == ""
