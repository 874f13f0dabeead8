"""``gateway.toml``: where the gateway listens, whom it asks, and within which limits.

    host = "127.0.0.1"
    port = 8080

    [upstreams.default]                   # every model of the pool goes there under its own name
    base_url = "https://api.openai.com/v1"
    api_key_env = "OPENAI_API_KEY"

``docs/gateway.md`` lists all keys. Unknown ones are refused: a misspelt limit would be none.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from centroute._kernel import Policy
from centroute._shown import show
from centroute._toml import TomlTable, read_toml
from centroute.conversation import Conversation
from centroute.errors import DataError, PolicyError
from centroute.gateway.policies import policy_from_fields
from centroute.session import Session

DEFAULT_UPSTREAM = "default"
_MOST_PORTS = 65_535
_MOST_WORKERS = 1024
_SHOWN = 80
_PRINTABLE = re.compile(r"[\x21-\x7e]+")

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """A server that speaks OpenAI's API.

    Attributes
    ----------
    base_url
        What stands before ``/chat/completions``, usually ending in ``/v1``.
    api_key_env
        Environment variable with the key; without it the client's own authorisation is passed on.
    connect_seconds
        How long connecting may take, waiting for a free connection included.
    first_byte_seconds
        How long the first byte of an answer may take.
    read_seconds
        How long an answer that has begun may pause.
    retries
        Further tries of one model before the next one is asked; never after the first byte.
    retry_seconds
        Longest pause before the first of them, doubled for each further one; drawn from 0 to this.
    max_connections
        Connections kept to this upstream at once.
    breaker_failures
        Failures in a row after which it is left alone.
    breaker_seconds
        How long it is left alone, before one request tries it again.
    """

    base_url: str
    api_key_env: str | None = None
    connect_seconds: float = 5.0
    first_byte_seconds: float = 120.0
    read_seconds: float = 60.0
    retries: int = 1
    retry_seconds: float = 0.2
    max_connections: int = 1024
    breaker_failures: int = 5
    breaker_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Where one model of the pool is asked.

    Attributes
    ----------
    upstream
        Name of the upstream.
    name
        What the upstream calls the model; ``as`` in the file.
    """

    upstream: str
    name: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take.

    Attributes
    ----------
    max_body_bytes
        Longest body of a request.
    body_seconds
        How long it may take to come.
    max_concurrent
        Requests in work at once; more are refused with status 503.
    max_fallbacks
        Further models of the ranking that are asked when one fails.
    drain_seconds
        How long requests in work may take to finish after the signal to stop.
    """

    max_body_bytes: int = 10_000_000
    body_seconds: float = 30.0
    max_concurrent: int = 1024
    max_fallbacks: int = 2
    drain_seconds: int = 30


@dataclass(frozen=True, slots=True)
class LogConfig:
    """A log of decisions, see `centroute.decision_log`.

    Attributes
    ----------
    path
        The file to append to, relative to the config's folder.
    sample
        Share of the decisions that are written.
    with_text
        Whether the texts are written too.
    """

    path: Path
    sample: float = 1.0
    with_text: bool = False


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """A whole ``gateway.toml``.

    Attributes
    ----------
    upstreams
        By name.
    models
        By name in the pool; others go to the upstream ``default`` under their own name.
    policy
        What holds where a request leaves something open.
    limits
        What one request may take.
    host, port
        Where it listens; port 0 takes a free one.
    conversation
        Which part of a conversation is routed on.
    session
        What a switch of the model within a conversation costs.
    log
        Where decisions are written down; ``None`` for nowhere.
    workers
        Processes.
    reload_seconds
        How often the router file is looked at; 0 for never.
    api_keys_env
        Environment variable with the keys of the clients, separated by commas; without it anyone may ask.
    source
        The file, for messages.
    """

    upstreams: Mapping[str, UpstreamConfig]
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    conversation: Conversation = field(default_factory=Conversation)
    session: Session = field(default_factory=Session)
    log: LogConfig | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    reload_seconds: float = 1.0
    api_keys_env: str | None = None
    source: str = "gateway.toml"

    def place(self, model: str) -> ModelConfig | None:
        """Where a model is asked; ``None`` where neither it nor an upstream ``default`` is configured."""
        if (stated := self.models.get(model)) is not None:
            return stated
        return ModelConfig(DEFAULT_UPSTREAM, model) if DEFAULT_UPSTREAM in self.upstreams else None

    def check_models(self, pool: tuple[str, ...]) -> None:
        """Refuse a config that names models outside the pool, or leaves models of the pool without a place.

        Raises
        ------
        DataError
            Names the first such model.
        """
        for model in self.models:
            if model not in pool:
                raise DataError(
                    f"{self.source}, models: {show(model)} is not in the router; there are {_listing(pool)}"
                )
        for model in pool:
            if self.place(model) is None:
                raise DataError(
                    f"{self.source}: nobody to ask for the model {show(model)}; "
                    f"add [upstreams.{DEFAULT_UPSTREAM}] or [models.{_key(model)}]"
                )


def read_config(path: str | os.PathLike[str]) -> GatewayConfig:
    """Read a ``gateway.toml``.

    Parameters
    ----------
    path
        The file, UTF-8.

    Raises
    ------
    DataError
        If the file cannot be read or is no TOML, a key is unknown, or a value is not of its kind; names it.
    """
    source = Path(path)
    content = read_toml(source)
    top = _Table(str(source), "", content)
    top.check_keys("host", "port", "workers", "reload_seconds", "api_keys_env", *_TABLES)
    tables = {name: top.table(name) for name in _TABLES}
    upstreams = {
        name: _read_upstream(tables["upstreams"].table(name)) for name in tables["upstreams"].content
    }
    if not upstreams:
        raise DataError(f"{source}, upstreams: is missing; the smallest is [upstreams.default] with base_url")
    return GatewayConfig(
        upstreams=upstreams,
        models={
            name: _read_model(tables["models"].table(name), name, upstreams)
            for name in tables["models"].content
        },
        policy=_read_policy(tables["policy"]),
        limits=_read_limits(tables["limits"]),
        conversation=_read_conversation(tables["conversation"]),
        session=_read_session(tables["session"]),
        log=_read_log(tables["log"], source.parent) if "log" in content else None,
        host=top.text("host", "127.0.0.1"),
        port=top.whole("port", 8080, most=_MOST_PORTS),
        workers=top.whole("workers", 1, least=1, most=_MOST_WORKERS),
        reload_seconds=top.seconds("reload_seconds", 1.0, least=0),
        api_keys_env=top.optional_text("api_keys_env"),
        source=str(source),
    )


def read_key(config: GatewayConfig, upstream: str) -> str | None:
    """The key of an upstream, from the environment; ``None`` where it has none.

    Raises
    ------
    DataError
        If the variable is not set or holds no key; names the variable, never its value.
    """
    variable = config.upstreams[upstream].api_key_env
    if variable is None:
        return None
    return _from_environment(variable, f"{config.source}, upstreams.{_key(upstream)}.api_key_env")


def read_client_keys(config: GatewayConfig) -> tuple[bytes, ...] | None:
    """The keys that clients may show, from the environment; ``None`` where anyone may ask.

    Raises
    ------
    DataError
        If the variable is not set or holds no key; names the variable, never its value.
    """
    if config.api_keys_env is None:
        return None
    listed = _from_environment(config.api_keys_env, f"{config.source}, api_keys_env")
    keys = tuple(key.encode() for key in listed.split(",") if key)
    if not keys:
        raise DataError(f"{config.source}, api_keys_env: {config.api_keys_env} holds no key")
    return keys


def _from_environment(variable: str, place: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise DataError(f"{place}: the environment variable {variable} is not set")
    # Other characters could end the header that carries the key, and start another.
    if not _PRINTABLE.fullmatch(value):
        raise DataError(
            f"{place}: the environment variable {variable} holds spaces or other signs no key has"
        )
    return value


_TABLES = ("policy", "limits", "conversation", "session", "log", "upstreams", "models")


class _Table(TomlTable):
    """A table of the gateway's config."""

    __slots__ = ()

    def check_keys(self, *known: str) -> None:
        for key in self.content:
            if key not in known:
                self.fail(show(key), f"is not known; there are {', '.join(known)}")

    def table(self, key: str) -> "_Table":
        value = self.content.get(key, {})
        shown = _key(key)
        if not isinstance(value, dict):
            self.fail(shown, f"must be a table, got {show(value)}")
        return _Table(self.source, f"{self.name}.{shown}" if self.name else shown, value)

    def optional_text(self, key: str) -> str | None:
        value = self.content.get(key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            self.fail(key, f"must be a text, got {show(value)}")
        return value if isinstance(value, str) else None

    def text(self, key: str, default: str) -> str:
        return self.optional_text(key) or default

    def whole(self, key: str, default: int, *, least: int = 0, most: int = 2**53) -> int:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fail(key, f"must be a whole number from {least} to {most}, got {show(value)}")
        return value

    def seconds(self, key: str, default: float, *, least: float = 0.001) -> float:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            self.fail(key, f"must be a finite number of seconds, {least:g} or more, got {show(value)}")
        return float(value)

    def share(self, key: str, default: float) -> float:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self.fail(key, f"must be a number from 0 to 1, got {show(value)}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.content.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"must be true or false, got {show(value)}")
        return value


def _read_upstream(table: _Table) -> UpstreamConfig:
    table.check_keys(*(own.name for own in fields(UpstreamConfig)))
    url = table.optional_text("base_url")
    if url is None:
        table.fail("base_url", "is missing")
    default = UpstreamConfig(_check_url(table, url))
    return UpstreamConfig(
        base_url=default.base_url,
        api_key_env=table.optional_text("api_key_env"),
        connect_seconds=table.seconds("connect_seconds", default.connect_seconds),
        first_byte_seconds=table.seconds("first_byte_seconds", default.first_byte_seconds),
        read_seconds=table.seconds("read_seconds", default.read_seconds),
        retries=table.whole("retries", default.retries, most=10),
        retry_seconds=table.seconds("retry_seconds", default.retry_seconds),
        max_connections=table.whole("max_connections", default.max_connections, least=1),
        breaker_failures=table.whole("breaker_failures", default.breaker_failures, least=1),
        breaker_seconds=table.seconds("breaker_seconds", default.breaker_seconds),
    )


def _check_url(table: _Table, url: str) -> str:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        table.fail("base_url", f"is no address, got {show(url)}")
    if "@" in parts.netloc:
        # Not repeated: what stands before the @ is a secret.
        table.fail("base_url", "must hold no user or password; the key comes from api_key_env")
    wanted = parts.scheme in ("http", "https") and parts.hostname and port_is_valid
    if not wanted or parts.query or parts.fragment or not _PRINTABLE.fullmatch(url):
        table.fail("base_url", f"must be http:// or https://, a host and a path, got {show(url)}")
    return url.rstrip("/")


def _read_model(table: _Table, name: str, upstreams: Mapping[str, UpstreamConfig]) -> ModelConfig:
    table.check_keys("upstream", "as")
    upstream = table.text("upstream", DEFAULT_UPSTREAM)
    if upstream not in upstreams:
        there_are = _listing(tuple(_key(name) for name in upstreams))
        table.fail("upstream", f"there is no [upstreams.{_key(upstream)}]; there are {there_are}")
    return ModelConfig(upstream, table.text("as", name))


def _read_policy(table: _Table) -> Policy:
    try:
        return policy_from_fields(table.content)
    except PolicyError as error:
        raise DataError(f"{table.source}, policy: {str(error).removeprefix('policy ')}") from None


def _read_limits(table: _Table) -> Limits:
    table.check_keys(*(own.name for own in fields(Limits)))
    default = Limits()
    return Limits(
        max_body_bytes=table.whole("max_body_bytes", default.max_body_bytes, least=1),
        body_seconds=table.seconds("body_seconds", default.body_seconds),
        max_concurrent=table.whole("max_concurrent", default.max_concurrent, least=1),
        max_fallbacks=table.whole("max_fallbacks", default.max_fallbacks),
        drain_seconds=table.whole("drain_seconds", default.drain_seconds, most=86_400),
    )


def _read_conversation(table: _Table) -> Conversation:
    table.check_keys(*(own.name for own in fields(Conversation)))
    default = Conversation()
    try:
        return Conversation(
            user_messages=table.whole("user_messages", default.user_messages),
            system_share=table.share("system_share", default.system_share),
        )
    except ValueError as error:
        raise DataError(f"{table.source}, {table.name}.{error}") from None


def _read_session(table: _Table) -> Session:
    table.check_keys("switch_cost_usd", "switch_quality")
    amounts = {key: table.content[key] for key in table.content}
    for key, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
            table.fail(key, f"must be a finite number of 0 or more, got {show(amount)}")
    return Session(**amounts)  # type: ignore[arg-type]


def _read_log(table: _Table, folder: Path) -> LogConfig:
    table.check_keys(*(own.name for own in fields(LogConfig)))
    path = table.optional_text("path")
    if path is None:
        table.fail("path", "is missing")
    default = LogConfig(folder / path)
    return LogConfig(
        path=default.path,
        sample=table.share("sample", default.sample),
        with_text=table.flag("with_text", default.with_text),
    )


def _key(name: str) -> str:
    """A name as TOML writes it."""
    return name if name.isidentifier() else json.dumps(name[:_SHOWN], ensure_ascii=False)


def _listing(names: tuple[str, ...]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
