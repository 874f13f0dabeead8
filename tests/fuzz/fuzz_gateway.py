"""The gateway in this process: bodies, headers and policies of requests. Its upstream is a function.

An input is JSON: path, headers and, as base64, the body.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import logging
import random
import socket
from typing import Any, NoReturn
from unittest import mock

import httpx
from fuzz_artifact import valid
from harness import main, mutated_bytes, mutated_json

from centroute import Router
from centroute._kernel import Kernel
from centroute.artifact import Artifact
from centroute.embedders import load_embedder
from centroute.gateway.app import build_app
from centroute.gateway.config import GatewayConfig, Limits, UpstreamConfig
from centroute.gateway.gateway import Gateway

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "What is a prime number?"}, {"type": "image_url", "x": 1}],
    },
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    {"role": "user", "content": "Name a river in France."},
]
BODIES: dict[str, list[Any]] = {
    "/v1/route": [
        {"input": "Name a river.", "policy": {"willingness_to_pay": 0.01, "deny": ["x"], "fallback": None}},
        {"messages": MESSAGES, "model": "auto:alpha=0.5"},
    ],
    "/v1/chat/completions": [
        {
            "model": "auto",
            "messages": MESSAGES,
            "stream": False,
            "temperature": 1.0,
            "tools": [{"type": "function"}],
        },
        {"model": "auto:min-quality=0.5; deny=large", "messages": MESSAGES, "stream": True},
    ],
    "/v1/embeddings": [
        {"input": ["a river", "a prime"], "model": "auto", "encoding_format": "base64", "dimensions": None},
        {"input": "text", "model": "static-256"},
    ],
}
HEADERS = {
    "x-centroute-policy": [
        "alpha=0.5",
        "deny=x",
        "alpha=2",
        ";;;",
        "max-cost=1e400",
        "x" * 5000,
        "alpha=\xff",
    ],
    "x-centroute-session-model": ["large", "nobody", "\xe9", ""],
    "content-length": ["5", "-1", "x", "99999999999999999999"],
    "content-type": ["application/json", "text/plain; charset=utf-16"],
    "authorization": ["Bearer x", ""],
}
ANSWER = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode()

STREAM = b'data: {"choices": []}\n\ndata: [DONE]\n\n'


def make(chance: random.Random) -> bytes:
    """Return one request."""
    path = chance.choice(list(BODIES))
    body = mutated_json(chance, chance.choice(BODIES[path])).encode("utf-8", "surrogatepass")
    if chance.random() < 0.25:
        body = mutated_bytes(chance, body)
    headers = {name: chance.choice(values) for name, values in HEADERS.items() if chance.random() < 0.15}
    return json.dumps({"path": path, "headers": headers, "body": base64.b64encode(body).decode()}).encode()


class Loop:
    """A gateway and the loop that it lives on."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.asked: list[bytes] = []
        self.loop = asyncio.new_event_loop()
        config = GatewayConfig(
            {"default": UpstreamConfig("http://upstream/v1", retries=0)},
            limits=Limits(max_body_bytes=400_000),
        )
        self.gateway = Gateway(router(), config)
        self.client = self.loop.run_until_complete(self._open())

    async def _open(self) -> httpx.AsyncClient:
        await self.gateway.__aenter__()
        for upstream in self.gateway._upstreams.values():
            await upstream._transport.aclose()
            upstream._transport = httpx.MockTransport(self._answer)
        handler = logging.Handler()
        handler.emit = lambda record: self.faults.append(  # type: ignore[method-assign]
            f"{record.getMessage()}: {record.exc_info[1]!r}" if record.exc_info else record.getMessage()
        )
        handler.setLevel(logging.ERROR)
        logger = logging.getLogger("centroute.gateway")
        logger.addHandler(handler)
        if __name__ == "__main__":
            logger.propagate = False
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(build_app(self.gateway)), base_url="http://gateway"
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.content)
        if b'"stream": true' in request.content:
            return httpx.Response(
                200, stream=httpx.ByteStream(STREAM), headers={"content-type": "text/event-stream"}
            )
        return httpx.Response(
            200, stream=httpx.ByteStream(ANSWER), headers={"content-type": "application/json"}
        )

    def post(self, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        """Answer one request."""
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        request = self.client.build_request("POST", path, content=body, headers=encoded)
        return self.loop.run_until_complete(asyncio.wait_for(self.client.send(request), 15))


@functools.cache
def router() -> Router:
    """Two models, with prices of one."""
    from dataclasses import replace

    import numpy as np

    from centroute.artifact import EmbedderId

    embedder = load_embedder("static-256")
    artifact = Artifact.from_kernel(Kernel(valid(0)))
    rows = embedder.embed(["a river in France", "a prime number", "write code"])
    return Router.from_artifact(
        replace(
            artifact,
            centroids=np.ascontiguousarray(rows),
            embedder=EmbedderId("static-256", embedder.dim, embedder.fingerprint),
        ),
        embedder=embedder,
    )


@functools.cache
def running() -> Loop:
    """The one gateway of this process."""

    return Loop()


def _refuse(*_: object) -> NoReturn:
    raise AssertionError("a socket was connected")


def check(data: bytes) -> None:
    """Every answer has OpenAI's shape, no fault is the gateway's own, bodies differ in ``model`` alone."""
    given = json.loads(data)
    body = base64.b64decode(given["body"])
    gateway = running()
    gateway.faults.clear()
    gateway.asked.clear()
    with mock.patch.object(socket.socket, "connect", _refuse):
        response = gateway.post(given["path"], given["headers"], body)
    assert not gateway.faults, gateway.faults
    assert response.status_code in (200, 400, 404, 408, 413, 422, 503), (
        response.status_code,
        response.text[:300],
    )
    for value in response.headers.values():
        assert value.isprintable(), value
    if response.status_code != 200:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert len(error["message"]) < 2500, len(error["message"])
        return
    if gateway.asked:
        try:
            before, after = json.loads(body), json.loads(gateway.asked[0])
        except RecursionError:  # the stack of this check is deeper than the gateway's
            return
        assert after["model"] in ("large", "small")
        before.pop("model"), after.pop("model")
        assert repr(before) == repr(after)
        assert response.content in (ANSWER, STREAM)
    elif given["path"] == "/v1/route":
        assert response.json()["model"] in ("large", "small")


if __name__ == "__main__":
    main("gateway", make, check)
