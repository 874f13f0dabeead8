"""One request and its answer over ASGI: body within a limit, one answer, and a client that may leave."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from starlette.types import Message, Receive, Scope, Send

from centroute.gateway.config import Limits
from centroute.gateway.errors import GatewayError, invalid
from centroute.gateway.headers import Header, Headers

JSON: Header = (b"content-type", b"application/json")
_LINGER_SECONDS = 1.0


class ClientLeft(Exception):  # noqa: N818 - it is no error: there is nobody left to tell
    """The client closed its connection before it had the whole answer."""


class Exchange:
    """One request and its answer."""

    __slots__ = ("_receive", "_send", "body_ended", "headers", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers: Sequence[Header] = scope["headers"]
        self.status = 0
        """Status of the answer; 0 before it began."""
        self.body_ended = False
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str:
        """The value of a header, empty where it is not there.

        Raises
        ------
        GatewayError
            400 if it stands there twice, or holds anything but printable ASCII.
        """
        values = [value for own, value in self.headers if own == name]
        if not values:
            return ""
        text = values[0].decode("latin-1")
        if len(values) > 1 or not (text.isascii() and text.isprintable()):
            fault = "is there twice" if len(values) > 1 else "holds other than printable ASCII characters"
            raise invalid(f"the header {name.decode()} {fault}", param=name.decode(), code="invalid_header")
        return text.strip()

    async def read_body(self, limits: Limits) -> bytes:
        """The body of the request.

        Raises
        ------
        GatewayError
            413 if it is too long, told before it is read where the client states its length; 408 if it does
            not come in time.
        ClientLeft
            If the connection was closed before its end.
        """
        max_bytes = limits.max_body_bytes
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
                raise _too_long(max_bytes)
        parts: list[bytes] = []
        n_bytes = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                while not self.body_ended:
                    message = await self._next()
                    parts.append(message.get("body", b""))
                    n_bytes += len(parts[-1])
                    if n_bytes > max_bytes:
                        raise _too_long(max_bytes)
        except TimeoutError:
            raise GatewayError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body did not come within {limits.body_seconds:g} s",
                code="body_timeout",
            ) from None
        return b"".join(parts)

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        self.body_ended = not message.get("more_body")
        return message

    async def answer(self, status: int, body: bytes, headers: Sequence[Header] = (JSON,)) -> None:
        """Send a whole answer."""
        await self.begin(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": body})

    async def answer_error(self, error: GatewayError) -> None:
        """Send an error; what is left of the request's body is let go by, for a moment."""
        if self.body_ended:
            await self.answer(error.status, error.body(), (JSON, *error.headers))
            return
        # Closing at once would reset the connection, and a client that is still sending lose the answer.
        body = error.body()
        length = (b"content-length", b"%d" % len(body))
        await self.begin(error.status, [JSON, *error.headers, length, (b"connection", b"close")])
        await self.pass_on(body)
        with suppress(TimeoutError, ClientLeft):
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self.body_ended:
                    await self._next()
        await self.end()

    async def begin(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        self.status = status
        await self._send({"type": "http.response.start", "status": int(status), "headers": headers})

    async def pass_on(self, chunk: bytes) -> None:
        """Send a part of the body; waits while the client takes its time."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        """Send the end of the body."""
        await self._send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def cancelled_when_client_leaves(self) -> AsyncIterator[None]:
        """Cancel what is awaited inside as soon as the client closes its connection.

        Raises
        ------
        ClientLeft
            When it did.
        """
        task = asyncio.current_task()
        has_left = False

        async def watch() -> None:
            nonlocal has_left
            while (await self._receive())["type"] != "http.disconnect":
                pass
            has_left = True
            if task is not None:
                task.cancel()

        watching = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            # Somebody else may have cancelled besides: the server that ends, a timeout around.
            if has_left and task is not None and task.uncancel() == 0:
                raise ClientLeft from None
            raise
        finally:
            watching.cancel()


def _too_long(max_bytes: int) -> GatewayError:
    return GatewayError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is longer than {max_bytes} bytes",
        code="body_too_large",
    )
