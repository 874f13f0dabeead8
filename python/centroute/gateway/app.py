"""The gateway as an ASGI application: paths to endpoints, faults to errors of OpenAI's shape."""

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from centroute.errors import DataError, EmbedderError, PolicyError
from centroute.gateway.chat import answer_chat
from centroute.gateway.decision import answer_decision
from centroute.gateway.embeddings import answer_embeddings
from centroute.gateway.errors import SERVER_ERROR, GatewayError, invalid
from centroute.gateway.exchange import ClientLeft, Exchange
from centroute.gateway.gateway import AUTO, Gateway

log = logging.getLogger("centroute.gateway")

_CLIENT_LEFT = 499
_PLAIN = (b"content-type", b"text/plain; charset=utf-8")

Answer = Callable[[Gateway, Exchange], Awaitable[None]]


class Endpoint:
    """One path: admits a request, answers it, counts it, and turns every fault into an answer."""

    def __init__(self, gateway: Gateway, name: str, answer: Answer, *, is_open: bool = False) -> None:
        self._gateway = gateway
        self._name = name
        self._answer = answer
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI wants it."""
        exchange, metrics = Exchange(scope, receive, send), self._gateway.metrics
        started = time.perf_counter()
        metrics.n_in_progress += 1
        try:
            if not self._is_open:
                self._gateway.admit(exchange)
            await self._answer(self._gateway, exchange)
        except ClientLeft:
            exchange.status = _CLIENT_LEFT
        except GatewayError as error:
            await exchange.answer_error(error)
        except PolicyError as error:
            await exchange.answer_error(invalid(str(error), param="policy", code="invalid_policy"))
        except DataError as error:
            await exchange.answer_error(invalid(str(error), code="invalid_query"))
        except Exception as error:
            # Its words stay in the log: they may tell more than a client should know.
            log.exception("%s failed", self._name)
            if exchange.status:
                raise
            await exchange.answer_error(_own_fault(error))
        finally:
            metrics.n_in_progress -= 1
            # Without a status it was cancelled before it had one, as when draining takes too long.
            metrics.request(self._name, exchange.status or _CLIENT_LEFT, time.perf_counter() - started)


def build_app(gateway: Gateway) -> Starlette:
    """Make the ASGI application of a gateway, which it opens when it starts and closes when it ends."""

    def endpoint(path: str, answer: Answer, method: str, *, is_open: bool = False) -> Route:
        return Route(path, Endpoint(gateway, path, answer, is_open=is_open), methods=[method])

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with gateway:
            yield

    app = Starlette(
        routes=[
            endpoint("/v1/route", answer_decision, "POST"),
            endpoint("/v1/chat/completions", answer_chat, "POST"),
            endpoint("/v1/embeddings", answer_embeddings, "POST"),
            endpoint("/v1/models", _answer_models, "GET"),
            endpoint("/healthz", _answer_health, "GET", is_open=True),
            endpoint("/readyz", _answer_ready, "GET", is_open=True),
            endpoint("/metrics", _answer_metrics, "GET", is_open=True),
        ],
        exception_handlers={HTTPException: _answer_no_path},
        lifespan=lifespan,
    )
    # A client that was redirected would send its key and its text twice.
    app.router.redirect_slashes = False
    return app


async def _answer_models(gateway: Gateway, exchange: Exchange) -> None:
    names = [AUTO[0], *gateway.router.models]
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "centroute"} for name in names]
    await exchange.answer(200, json.dumps({"object": "list", "data": models}).encode())


async def _answer_health(_: Gateway, exchange: Exchange) -> None:
    await exchange.answer(200, b"alive\n", [_PLAIN])


async def _answer_ready(gateway: Gateway, exchange: Exchange) -> None:
    await exchange.answer(200, b"ready, generation %d\n" % gateway.router.generation, [_PLAIN])


async def _answer_metrics(gateway: Gateway, exchange: Exchange) -> None:
    exposition = gateway.metrics.exposition()
    if exposition is None:
        raise GatewayError(
            HTTPStatus.NOT_IMPLEMENTED,
            "metrics need prometheus_client: pip install 'centroute[prometheus]'",
            kind=SERVER_ERROR,
            code="no_metrics",
        )
    kind, text = exposition
    await exchange.answer(200, text, [(b"content-type", kind)])


def _own_fault(error: Exception) -> GatewayError:
    message = f"the gateway failed ({type(error).__name__}); its log says more"
    if isinstance(error, EmbedderError):
        message = "the embedder cannot be used; the gateway's log says more"
    return GatewayError(HTTPStatus.INTERNAL_SERVER_ERROR, message, kind=SERVER_ERROR)


async def _answer_no_path(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    shown = request.url.path[:80]
    message = f"there is nothing at {request.method} {shown!r}"
    body = GatewayError(status, message, code="not_found" if status == HTTPStatus.NOT_FOUND else None).body()
    return Response(body, status_code=status, headers=headers, media_type="application/json")
