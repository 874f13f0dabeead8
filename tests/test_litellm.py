"""LiteLLM, proxy and Router, choosing through centroute: real processes against an upstream on loopback.

Runs where LiteLLM is importable, or where CENTROUTE_LITELLM_PYTHON names the interpreter of an environment
that has LiteLLM's proxy and centroute.
"""

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from centroute import DataError, Router

PYTHON = os.environ.get("CENTROUTE_LITELLM_PYTHON") or (
    sys.executable if importlib.util.find_spec("litellm") else None
)
needs_litellm = pytest.mark.skipif(
    PYTHON is None, reason="LiteLLM is not installed here, and CENTROUTE_LITELLM_PYTHON names no other place"
)
KEY = f"sk-{secrets.token_hex(32)}"
TEXTS = [
    "What is the capital of France?",
    "Prove that the square root of two is irrational.",
    "Write a haiku about the sea.",
    "def add(a, b): return",
]
HOOK = """
from centroute import Policy
from centroute.integrations.litellm import CentrouteHook

hook = CentrouteHook({file!r}, n_fallbacks=2)
"""
SDK = """
import asyncio, json, sys
import litellm
from centroute import Router
from centroute.integrations.litellm import choose_through

file, upstream, texts = json.loads(sys.argv[1])
router = Router.load(file)


def params(name):
    return {"model": f"openai/{name}", "api_base": upstream, "api_key": "none"}


chat = litellm.Router(
    model_list=[{"model_name": name, "litellm_params": params(name)} for name in router.models],
    num_retries=0,
)
choose_through(chat, router)


async def asked():
    answers = [
        await chat.acompletion(model="auto", messages=[{"role": "user", "content": text}]) for text in texts
    ]
    plain = await chat.acompletion(model=router.models[0], messages=[{"role": "user", "content": "x"}])
    try:
        await chat.acompletion(model="auto", messages=[{"role": "user", "content": " "}])
    except litellm.BadRequestError as error:
        fault = str(error)
    return [answer.choices[0].message.content for answer in [*answers, plain]], fault


found, fault = asyncio.run(asked())
sync = chat.completion(model="auto", messages=[{"role": "user", "content": texts[0]}])
print(json.dumps([found, fault, sync.choices[0].message.content]))
"""


class Upstream(BaseHTTPRequestHandler):
    """Answers with the name of the model that was asked; a model that is down answers 500."""

    protocol_version = "HTTP/1.1"
    down: frozenset[str] = frozenset()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = body["model"]
        status = 500 if model in self.down else 200
        message = {"role": "assistant", "content": model}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        data = json.dumps(answer if status == 200 else {"error": {"message": "down"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    # Nothing is fetched from outside, and nothing of this machine's settings is read.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LITELLM", "OPENAI"))}
    loopback = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return {**kept, **loopback, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}


@pytest.fixture(scope="module")
def proxy(
    upstream: str, router_file: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "centroute_hook.py").write_text(HOOK.format(file=str(router_file)))
    config = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}", "api_base": upstream, "api_key": "-"},
            }
            for name in Router.load(router_file).models
        ],
        "litellm_settings": {"callbacks": "centroute_hook.hook", "telemetry": False},
        "router_settings": {"num_retries": 0},
    }
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            str(PYTHON),
            "-c",
            "from litellm import run_server; run_server()",
            *("--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)),
        ],
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    stop = time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/health/liveliness", timeout=5).close()  # noqa: S310
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < stop, (folder / "log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        log.close()


def ask(url: str, model: str, content: object) -> tuple[int, dict]:
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    request = urllib.request.Request(  # noqa: S310
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def answered(url: str, model: str, content: object) -> str:
    status, answer = ask(url, model, content)
    assert status == 200, answer
    return answer["choices"][0]["message"]["content"]


@needs_litellm
def test_the_proxy_sends_auto_to_the_chosen_model(proxy: str, router_file: Path) -> None:
    router = Router.load(router_file)
    for text in TEXTS:
        assert answered(proxy, "auto", text) == router.route(text).model
        assert answered(proxy, "auto", [{"type": "text", "text": text}]) == router.route(text).model


@needs_litellm
def test_a_model_by_its_name_passes_through_the_proxy(proxy: str, router_file: Path) -> None:
    for model in Router.load(router_file).models:
        assert answered(proxy, model, TEXTS[0]) == model


@needs_litellm
def test_the_proxy_falls_back_down_the_ranking(proxy: str, router_file: Path, monkeypatch) -> None:
    ranking = Router.load(router_file).route(TEXTS[1]).ranking
    monkeypatch.setattr(Upstream, "down", frozenset(ranking[:2]))
    assert answered(proxy, "auto", TEXTS[1]) == ranking[2]


@needs_litellm
def test_a_request_that_cannot_be_routed_is_the_clients_fault(proxy: str) -> None:
    for content in ("   ", []):
        status, answer = ask(proxy, "auto", content)
        assert status == 400, answer
        assert answer["error"]["message"]


@needs_litellm
def test_a_litellm_router_chooses_through_centroute(
    upstream: str, router_file: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "sdk.py"
    script.write_text(SDK)
    done = subprocess.run(
        [str(PYTHON), str(script), json.dumps([str(router_file), upstream, TEXTS])],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, fault, sync = json.loads(done.stdout.splitlines()[-1])
    router = Router.load(router_file)
    chosen = [router.route(text).model for text in TEXTS]
    assert found == [*chosen, router.models[0]]
    assert sync == chosen[0]
    assert "no user message holds text" in fault


@pytest.mark.skipif(importlib.util.find_spec("litellm") is not None, reason="LiteLLM is installed here")
def test_without_litellm_the_package_is_named(router_file: Path) -> None:
    from centroute.integrations.litellm import CentrouteHook, choose_through

    with pytest.raises(DataError, match=r"pip install 'litellm\[proxy\]'"):
        CentrouteHook(router_file)
    with pytest.raises(DataError, match=r"pip install 'litellm\[proxy\]'"):
        choose_through(None, Router.load(router_file))
