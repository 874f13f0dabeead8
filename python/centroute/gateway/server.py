"""``serve``: a router file and a config in, a process that listens until it is told to stop."""

import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from centroute import Router
from centroute.conversation import Conversation
from centroute.errors import DataError, PolicyError
from centroute.gateway.app import build_app
from centroute.gateway.config import GatewayConfig
from centroute.gateway.gateway import Gateway

_BACKLOG = 2048
# Every amount is below it, so that only what holds for all texts is checked.
_NO_MAX_COST_USD = 1e30


@dataclass(frozen=True, slots=True)
class RouterSource:
    """Where a router comes from, for each process to load its own.

    Attributes
    ----------
    path
        The router file.
    embedder
        Name or folder of its embedder, where that is elsewhere.
    conversation
        Which part of a conversation is routed on.
    """

    path: Path
    embedder: str | None = None
    conversation: Conversation | None = None

    def load(self) -> Router:
        """Load it, embedder included, so that the first request does not wait for it."""
        router = Router.load(self.path, embedder=self.embedder, conversation=self.conversation)
        _ = router.embedder
        return router


def serve(source: RouterSource, config: GatewayConfig) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in work.

    Raises
    ------
    ArtifactError, EmbedderError
        If the router or its embedder cannot be loaded.
    DataError
        If config and router do not fit, a key is missing, or the port cannot be had.
    """
    _log_to_stderr()
    router = source.load()
    gateway = Gateway(router, config)
    _check_policy(router, config)
    with _listen(config) as listener:
        runner = _runner(source, config, gateway, listener)
        host, port = listener.getsockname()[:2]
        place = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        # Whoever connects from here on is waited for, not refused.
        sys.stdout.write(f"centroute: serving {len(router.models)} models on {place}\n")
        sys.stdout.flush()
        runner()


def _runner(
    source: RouterSource, config: GatewayConfig, gateway: Gateway, listener: socket.socket
) -> Callable[[], None]:
    """What serves until a signal comes; from here on one ends the process with exit code 0."""
    if config.workers > 1:
        # Each process builds all of it anew: nothing of this one would survive the way there.
        build = partial(_build_worker_app, source, config)
        return _Workers(_server_config(build, config, is_factory=True), sockets=[listener]).run
    server = uvicorn.Server(_server_config(build_app(gateway), config))

    def end(_number: int, _frame: FrameType | None) -> None:
        # The server takes the signals over while it runs. Before, this is remembered; it raises them once
        # more when all is done, which is then nothing to die of.
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return partial(server.run, sockets=[listener])


class _Workers(Multiprocess):
    """Several processes on one socket."""

    def terminate_all(self) -> None:
        """Tell them to finish, and take no more connections, which nobody would answer."""
        super().terminate_all()
        for listener in self.sockets:
            listener.close()


def _build_worker_app(source: RouterSource, config: GatewayConfig) -> Starlette:
    _log_to_stderr()
    return build_app(Gateway(source.load(), config))


def _server_config(app: object, config: GatewayConfig, *, is_factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=is_factory,
        workers=config.workers,
        loop="auto",
        http="auto",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=config.limits.drain_seconds,
    )


def _listen(config: GatewayConfig) -> socket.socket:
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((config.host, config.port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        place = f"{config.host}:{config.port}"
        raise DataError(f"{place}: cannot listen there ({(error.strerror or str(error)).lower()})") from None
    return listener


def _check_policy(router: Router, config: GatewayConfig) -> None:
    """Refuse a policy of the config that names what the router does not have."""
    policy = config.policy
    if policy.max_cost is not None:
        policy = policy.replace(max_cost=_NO_MAX_COST_USD)
    row = np.full(router.dim, router.dim**-0.5, dtype=np.float32)
    try:
        router.route_embedding(row, policy=policy)
    except PolicyError as error:
        raise DataError(f"{config.source}, policy: {error}") from None


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Tells of reloads too.
    logging.getLogger("centroute").setLevel(logging.INFO)
