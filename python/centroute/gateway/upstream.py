"""One upstream: a request out, an answer back whose first byte has come, or a failure that says why not."""

import asyncio
import json
import logging
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from types import TracebackType
from typing import Literal, Self
from urllib.request import getproxies, proxy_bypass

import httpx

from centroute._kernel import __version__
from centroute.gateway.breaker import CircuitBreaker
from centroute.gateway.config import UpstreamConfig
from centroute.gateway.headers import Header, Headers, to_client, to_upstream

log = logging.getLogger("centroute.gateway")

MAX_ANSWER_BYTES = 64_000_000
"""Longest answer that is read as a whole; streams have no limit."""

Kind = Literal["connect", "timeout", "broken", "status", "key", "garbage", "open", "busy"]

_FAILED_STATUS = frozenset({408, 429})
_KEY_STATUS = frozenset({401, 403})
_JSON = (b"content-type", b"application/json")
_SSE_FIELDS = (b"data", b"event", b"id", b"retry", b":", b"\xef\xbb\xbf")


class UpstreamFailure(Exception):  # noqa: N818 - the gateway goes on after it
    """An upstream that gave no answer to pass on.

    Attributes
    ----------
    kind
        What happened, for metrics and messages.
    status
        Status of the upstream's answer; ``None`` without one.
    answer
        The upstream's own answer with that status, where it is one to pass on.
    """

    def __init__(
        self, kind: Kind, detail: str, *, status: int | None = None, answer: "Answer | None" = None
    ) -> None:
        super().__init__(detail)
        self.kind: Kind = kind
        self.status = status
        self.answer = answer

    @property
    def is_worth_repeating(self) -> bool:
        """Whether the same request may go well the next moment."""
        return self.kind in ("connect", "broken", "garbage") or (
            self.kind == "status"
            and self.status is not None
            and self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        )

    @property
    def is_upstreams_fault(self) -> bool:
        """Whether it speaks against the upstream as a whole: one that limits its clients is well."""
        return self.kind not in ("key", "busy") and self.status not in _FAILED_STATUS


@dataclass(slots=True)
class Answer:
    """An upstream's answer.

    Attributes
    ----------
    status
        Its status.
    headers
        Those that pass on to the client.
    body
        All of it, or what has come of a stream.
    content
        The body decoded, where it is a JSON object and whole.
    rest
        The rest of a stream, to be closed by whoever takes it; ``None`` where the body is whole.
    """

    status: int
    headers: Headers
    body: bytes
    content: dict[str, object] | None = None
    rest: "Rest | None" = None


class Rest:
    """What is still to come of a stream. Closing it ends the request, begun or not."""

    def __init__(self, upstream: "Upstream", response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
        self._upstream = upstream
        self._response = response
        self._chunks = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """What came next.

        Raises
        ------
        UpstreamFailure
            If the upstream broke off.
        """
        try:
            if chunk := await self._upstream.next_chunk(self._chunks):
                return chunk
        except TimeoutError:
            self._upstream.note_failure()
            raise UpstreamFailure("timeout", "the stream stopped") from None
        except httpx.HTTPError as error:
            self._upstream.note_failure()
            raise _failure_of(error) from None
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the request."""
        await self._response.aclose()


class Upstream:
    """A server that speaks OpenAI's API, asked over kept connections. Belongs to one event loop.

    Parameters
    ----------
    name
        As the config names it.
    config
        Where it is, and its limits.
    key
        What to authorise with; without one the client's own authorisation passes on.
    pass_authorisation
        Whether the client's own may pass on where there is no key.
    """

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        *,
        key: str | None = None,
        pass_authorisation: bool = True,
    ) -> None:
        self.name = name
        self.config = config
        self.breaker = CircuitBreaker(n_failures=config.breaker_failures, open_seconds=config.breaker_seconds)
        self._url = httpx.URL(f"{config.base_url}/chat/completions")
        self._key = None if key is None else key.encode()
        self._passes_secrets = key is None and pass_authorisation
        self._own_headers: Headers = [(b"accept-encoding", b"identity"), (b"host", self._url.netloc), _JSON]
        if key is not None:
            self._own_headers.append((b"authorization", f"Bearer {key}".encode()))
        # Reading is timed here and not there: first byte and pauses have their own limits.
        self._timeouts = {
            "connect": config.connect_seconds,
            "pool": config.connect_seconds,
            "write": config.read_seconds,
            "read": None,
        }
        # Without a client around it: cookies, redirects and hooks take time, and none of them is wanted here.
        self._transport = httpx.AsyncHTTPTransport(
            limits=httpx.Limits(
                max_connections=config.max_connections, max_keepalive_connections=config.max_connections
            ),
            proxy=_proxy(self._url),
            verify=_ssl_context(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def ask(self, body: bytes, headers: Sequence[Header], *, stream: bool) -> Answer:
        """Send one request, once, and wait for the first byte of a stream or the whole of another answer.

        Raises
        ------
        UpstreamFailure
            If there is no answer that the client should see.
        """
        if not self.breaker.admits():
            raise UpstreamFailure("open", "left alone after failures in a row")
        is_settled = False
        try:
            answer = await self._ask(body, headers, stream=stream)
        except UpstreamFailure as failure:
            is_settled = True
            if failure.is_upstreams_fault:
                self.note_failure()
            else:
                self.breaker.succeeded()
            raise
        else:
            is_settled = True
            if self.breaker.is_open:
                log.warning("upstream %s: answers again", self.name)
            self.breaker.succeeded()
            return answer
        finally:
            if not is_settled:
                self.breaker.abandoned()

    def note_failure(self) -> None:
        """Count a failure that speaks against this upstream."""
        was_open = self.breaker.is_open
        self.breaker.failed()
        if self.breaker.is_open and not was_open:
            log.warning("upstream %s: left alone for %g s", self.name, self.config.breaker_seconds)

    async def pause_before_retry(self, n_tried: int) -> None:
        """Wait a random while, longer with each try: what failed together shall not return together."""
        longest = self.config.retry_seconds * 2 ** (n_tried - 1)
        await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - spreads load, guards nothing

    async def _ask(self, body: bytes, headers: Sequence[Header], *, stream: bool) -> Answer:
        passed = to_upstream(headers, with_secrets=self._passes_secrets)
        if not any(name == b"user-agent" for name, _ in passed):
            passed.append((b"user-agent", b"centroute/" + __version__.encode()))
        request = httpx.Request(
            "POST",
            self._url,
            headers=[*self._own_headers, *passed],
            content=body,
            extensions={"timeout": self._timeouts},
        )
        response: httpx.Response | None = None
        hands_over = False
        try:
            async with asyncio.timeout(self.config.first_byte_seconds):
                response = await self._transport.handle_async_request(request)
                chunks = response.aiter_raw()
                first = await anext(chunks, b"")
            answer = Answer(response.status_code, to_client(response.headers.raw), first)
            # Asked not to, an upstream may compress nevertheless: then nothing can be said of what it sent.
            is_readable = response.headers.get("content-encoding", "identity") == "identity"
            if stream and response.is_success:
                if is_readable:
                    _check_stream(answer)
                answer.rest = Rest(self, response, chunks)
                hands_over = True
                return answer
            answer.body += await self._read_rest(chunks, len(first))
            return self._checked(answer, is_readable=is_readable)
        except TimeoutError:
            raise UpstreamFailure("timeout", "no answer in time") from None
        except httpx.HTTPError as error:
            raise _failure_of(error) from None
        finally:
            if response is not None and not hands_over:
                await response.aclose()

    async def _read_rest(self, chunks: AsyncIterator[bytes], n_bytes: int) -> bytes:
        parts = []
        while chunk := await self.next_chunk(chunks):
            parts.append(chunk)
            n_bytes += len(chunk)
            if n_bytes > MAX_ANSWER_BYTES:
                raise UpstreamFailure("garbage", f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return b"".join(parts)

    async def next_chunk(self, chunks: AsyncIterator[bytes]) -> bytes:
        """What comes next of an answer that has begun, never empty before the end."""
        async with asyncio.timeout(self.config.read_seconds):
            return await anext(chunks, b"")

    def _checked(self, answer: Answer, *, is_readable: bool) -> Answer:
        """Pass on what the client should see; its own faults (status 4xx) are the client's to see."""
        status = answer.status
        if self._key is not None and status >= HTTPStatus.BAD_REQUEST:
            # Some servers repeat the key that they refuse.
            answer.body = answer.body.replace(self._key, b"***")
        if status in _KEY_STATUS and not self._passes_secrets:
            raise UpstreamFailure("key", f"refused the gateway's key with status {status}", status=status)
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            raise UpstreamFailure("garbage", f"unexpected status {status}", status=status)
        answer.content = _json_object(answer.body)
        if status in _FAILED_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            shown = answer if answer.content is not None or not is_readable else None
            raise UpstreamFailure("status", f"status {status}", status=status, answer=shown)
        if status < HTTPStatus.MULTIPLE_CHOICES and answer.content is None and is_readable:
            raise UpstreamFailure("garbage", "an answer that is no JSON object")
        return answer


@cache
def _ssl_context() -> ssl.SSLContext:
    """One for all upstreams: reading the certificates takes longer than all else at the start."""
    return httpx.create_ssl_context()


def _proxy(url: httpx.URL) -> str | None:
    """The proxy that the environment names for an address."""
    if proxy_bypass(url.netloc.decode()):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _check_stream(answer: Answer) -> None:
    start = answer.body.lstrip()[:8]
    if not start or not any(start.startswith(name[: len(start)]) for name in _SSE_FIELDS):
        raise UpstreamFailure(
            "garbage", "an answer that is no stream of events" if start else "an empty stream"
        )


def _json_object(body: bytes) -> dict[str, object] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _failure_of(error: httpx.HTTPError) -> UpstreamFailure:
    # Never the library's own words: they may hold headers or addresses with secrets.
    if isinstance(error, httpx.PoolTimeout):
        return UpstreamFailure("busy", "has no free connection")
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return UpstreamFailure("connect", "cannot be reached")
    if isinstance(error, httpx.TimeoutException):
        return UpstreamFailure("timeout", "takes no request in time")
    return UpstreamFailure("broken", "broke off the connection")
