"""An upstream for the tests: just enough HTTP on loopback to answer well, badly or not at all."""

import asyncio
import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

ARGUMENTS = '{"city": "Łódź", "n": 1.0}'
TOOL_CALLS = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}]
_CHUNK = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
EVENTS = [
    _CHUNK + b'[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]}\n\n',
    b": a comment\n\n",
    _CHUNK + b'[{"index":0, "delta":{"content":"lo"},"finish_reason":"stop"}],  "unknown": true}\r\n\r\n',
    _CHUNK + b'[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}\n\n',
    b"data: [DONE]\n\n",
]
STREAM = b"".join(EVENTS)


@dataclass(frozen=True, slots=True)
class Request:
    """What the upstream was sent."""

    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content

    def header(self, name: str) -> str | None:
        return next((value for own, value in self.headers if own == name), None)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the connection to answer it on."""

    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass
class FakeUpstream:
    """Runs on a thread of its own, on a free port; what it does is set by model."""

    behaviours: dict[str, str] = field(default_factory=dict)
    """By model, as the upstream is asked for it: the name of a behaviour, ``plain`` when not set. With spaces
    between them several follow each other, and the last one stays."""
    requests: list[Request] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a client closed its connection before it had its answer."""
    release: threading.Event = field(default_factory=threading.Event)
    """Lets the behaviours ``held`` and ``held_stream`` go on."""
    port: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def models(self) -> list[str]:
        """The models that were asked, in turn."""
        return [request.json["model"] for request in self.requests]

    def reset(self) -> None:
        self.behaviours.clear()
        self.requests.clear()
        self.left.clear()
        self.release.clear()

    def wait_for_requests(self, n_requests: int = 1) -> None:
        until = time.monotonic() + 10
        while len(self.requests) < n_requests:
            assert time.monotonic() < until, f"{len(self.requests)} requests came"
            time.sleep(0.005)

    def __enter__(self) -> Self:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            self._end = asyncio.Event()
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await self._end.wait()
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),))
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        headers = [
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        ]
        length = int(dict(headers).get("content-length", "0"))
        request = Request(first.split(" ")[1], headers, await reader.readexactly(length))
        self.requests.append(request)
        model = request.json["model"]
        behaviour, _, rest = self.behaviours.get(model, "plain").partition(" ")
        if rest:
            self.behaviours[model] = rest
        behave: Behaviour = getattr(self, f"_{behaviour}")
        await behave(Asked(request, reader, writer))
        await writer.drain()
        return behaviour not in {"hang", "reset", "half_stream", "half_body", "endless_stream", "garbage"}

    async def _plain(self, asked: Asked) -> None:
        if asked.request.json.get("stream"):
            for part in streamed(EVENTS):
                asked.writer.write(part)
                await asked.writer.drain()
            return
        asked.writer.write(
            answer(200, completion({"role": "assistant", "content": "Hello"}, asked.request.json["model"]))
        )

    async def _tools(self, asked: Asked) -> None:
        message = {"role": "assistant", "content": None, "tool_calls": TOOL_CALLS}
        asked.writer.write(answer(200, completion(message, asked.request.json["model"])))

    async def _limited(self, asked: Asked) -> None:
        asked.writer.write(answer(429, error("too many requests"), "retry-after: 7\r\n"))

    async def _failing(self, asked: Asked) -> None:
        asked.writer.write(answer(500, error("out of order")))

    async def _refused(self, asked: Asked) -> None:
        """Refuses the key, and repeats it."""
        asked.writer.write(answer(401, error(f"wrong key: {asked.request.header('authorization')}")))

    async def _bad_request(self, asked: Asked) -> None:
        message = f"temperature is too high; you sent {asked.request.header('authorization')}"
        asked.writer.write(answer(400, error(message)))

    async def _hang(self, asked: Asked) -> None:
        """Says nothing until the client goes away."""
        await asked.reader.read(1)
        self.left.set()

    async def _reset(self, asked: Asked) -> None:
        connection: socket.socket = asked.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _half_stream(self, asked: Asked) -> None:
        for part in streamed(EVENTS)[:2]:
            asked.writer.write(part)
        await asked.writer.drain()

    async def _half_body(self, asked: Asked) -> None:
        whole = answer(200, completion({"role": "assistant", "content": "Hello"}, "m"))
        asked.writer.write(whole[:-20])
        await asked.writer.drain()

    async def _endless_stream(self, asked: Asked) -> None:
        """Goes on until the client goes away."""
        for part in streamed(EVENTS)[:2]:
            asked.writer.write(part)
        await self._hang(asked)

    async def _held_stream(self, asked: Asked) -> None:
        parts = streamed(EVENTS)
        asked.writer.write(b"".join(parts[:2]))
        await asked.writer.drain()
        await self._released()
        asked.writer.write(b"".join(parts[2:]))

    async def _held(self, asked: Asked) -> None:
        await self._released()
        await self._plain(asked)

    async def _released(self) -> None:
        await asyncio.to_thread(self.release.wait, 10)

    async def _garbage(self, asked: Asked) -> None:
        asked.writer.write(b"\x00\xffthis is no HTTP\r\n\r\n")

    async def _page(self, asked: Asked) -> None:
        asked.writer.write(answer(200, b"<html>Welcome to nginx</html>", kind="text/html"))

    async def _failing_page(self, asked: Asked) -> None:
        asked.writer.write(answer(503, b"<html>Bad gateway</html>", kind="text/html"))

    async def _moved(self, asked: Asked) -> None:
        asked.writer.write(answer(307, b"", "location: http://127.0.0.1:9/v1/chat/completions\r\n"))

    async def _compressed(self, asked: Asked) -> None:
        """Compresses though it was asked not to."""
        body = gzip.compress(completion({"role": "assistant", "content": "Hi"}, "m"))
        asked.writer.write(answer(200, body, "content-encoding: gzip\r\n"))

    async def _talkative(self, asked: Asked) -> None:
        """Sends headers that are not for the client, beside one that is."""
        more = (
            "set-cookie: id=1\r\nkeep-alive: timeout=5\r\nx-request-id: r-1\r\nconnection: x-hop, close\r\n"
            "x-hop: 1\r\nx-centroute-model: forged\r\n"
        )
        asked.writer.write(answer(200, completion({"role": "assistant", "content": "Hi"}, "m"), more))


Behaviour = Callable[[Asked], Coroutine[Any, Any, None]]


def answer(status: int, body: bytes, more: str = "", *, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def streamed(events: list[bytes]) -> list[bytes]:
    """An answer of events in chunks: its head, each of them, its end."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%s\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


def completion(message: dict[str, Any], model: str) -> bytes:
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    content = {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": choices}
    # Odd spacing, as the gateway has to keep it.
    return json.dumps({**content, "usage": usage, "unknown": {"kept": True}}, indent=3).encode()


def error(message: str) -> bytes:
    return json.dumps(
        {"error": {"message": message, "type": "x", "param": None, "code": "upstream_code"}}
    ).encode()
