"""``Gateway``: what all endpoints share. A router, upstreams, policies, counters; asks models in turn."""

import hmac
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

from centroute.decision_log import DecisionLog
from centroute.gateway.accounting import Prices
from centroute.gateway.body import JsonObject
from centroute.gateway.config import GatewayConfig, read_client_keys, read_key
from centroute.gateway.errors import SERVER_ERROR, UPSTREAM_ERROR, GatewayError
from centroute.gateway.exchange import Exchange
from centroute.gateway.headers import Header
from centroute.gateway.metrics import GatewayMetrics
from centroute.gateway.policies import PolicyBook
from centroute.gateway.upstream import Answer, Upstream, UpstreamFailure
from centroute.router import Router

log = logging.getLogger("centroute.gateway")

AUTO = ("auto", "centroute")
"""Names of a model that ask for the router's choice."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer, which model of which upstream gave it, and how many requests to upstreams it took."""

    answer: Answer
    model: str
    upstream: str
    n_attempts: int


@dataclass(frozen=True, slots=True)
class _Failed:
    model: str
    upstream: str
    failure: UpstreamFailure


class Gateway:
    """A router and its upstreams, for one event loop: enter it there.

    Parameters
    ----------
    router
        Who decides.
    config
        Where models are asked, and within which limits.

    Raises
    ------
    DataError
        If the config does not fit the router, a key is missing in the environment, or the log of decisions
        cannot be opened.
    """

    def __init__(self, router: Router, config: GatewayConfig) -> None:
        config.check_models(router.models)
        self.router = router
        self.config = config
        self.policies = PolicyBook(config.policy)
        self.prices = Prices(router)
        self.metrics = GatewayMetrics()
        self.log: DecisionLog | None = None
        if (log := config.log) is not None:
            self.log = DecisionLog(log.path, sample=log.sample, with_text=log.with_text)
        self._client_keys = read_client_keys(config)
        self._upstreams = {
            name: Upstream(
                name,
                upstream,
                key=read_key(config, name),
                # What clients show here is for the gateway; no upstream has a use for it.
                pass_authorisation=self._client_keys is None,
            )
            for name, upstream in config.upstreams.items()
        }
        self.metrics.watch(router, self._upstreams)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for upstream in self._upstreams.values():
            await self._open.enter_async_context(upstream)
        if self.log is not None:
            self._open.enter_context(self.log)
        if self.config.reload_seconds and self.router.source is not None:
            self._open.enter_context(self.router.watch(interval=self.config.reload_seconds))
        await self.prices.refresh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    def admit(self, exchange: Exchange) -> None:
        """Let a request in.

        Raises
        ------
        GatewayError
            401 if it shows no key of a client where one is wanted; 503 if too many are in work.
        """
        if self._client_keys is not None:
            scheme, _, shown = exchange.header(b"authorization").partition(" ")
            # Each is compared, in a time that tells nothing of where they differ.
            known = [hmac.compare_digest(shown.strip().encode(), key) for key in self._client_keys]
            if scheme.lower() != "bearer" or not any(known):
                raise GatewayError(
                    HTTPStatus.UNAUTHORIZED,
                    "no valid key: send the header 'Authorization: Bearer KEY'",
                    code="invalid_api_key",
                    headers=((b"www-authenticate", b"Bearer"),),
                )
        if self.metrics.n_in_progress > self.config.limits.max_concurrent:
            raise GatewayError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"more than {self.config.limits.max_concurrent} requests in work",
                kind=SERVER_ERROR,
                code="overloaded",
                headers=((b"retry-after", b"1"),),
            )

    async def ask(
        self,
        models: Sequence[str],
        request: JsonObject,
        headers: Sequence[Header],
        *,
        stream: bool,
    ) -> Asked:
        """Ask models in turn until one answers; each as often as its upstream allows.

        Raises
        ------
        GatewayError
            502, 503 or 504 when nobody did and no upstream said why in words that a client understands.
        """
        failures: list[_Failed] = []
        unreachable: set[str] = set()
        for model in models:
            place = self.config.place(model)
            # A reload may bring a model that the config does not know.
            if place is None or place.upstream in unreachable:
                continue
            body = request.with_text("model", place.name)
            upstream = self._upstreams[place.upstream]
            answer = await self._try(upstream, model, body, headers, stream=stream, failures=failures)
            if answer is not None:
                if model != models[0]:
                    self.metrics.fallback(model)
                return Asked(answer, model, upstream.name, len(failures) + 1)
            if failures[-1].failure.kind == "connect":
                unreachable.add(upstream.name)
        for failed in reversed(failures):
            # An upstream's own words on a limit or a fault say more than ours.
            if failed.failure.answer is not None:
                return Asked(failed.failure.answer, failed.model, failed.upstream, len(failures))
        raise _nobody_answered(failures)

    async def _try(
        self,
        upstream: Upstream,
        model: str,
        body: bytes,
        headers: Sequence[Header],
        *,
        stream: bool,
        failures: list[_Failed],
    ) -> Answer | None:
        """Ask one model as often as its upstream allows; what failed goes into ``failures``."""
        for n_tried in range(1, upstream.config.retries + 2):
            try:
                answer = await upstream.ask(body, headers, stream=stream)
            except UpstreamFailure as failure:
                self.metrics.attempt(upstream.name, failure.kind)
                # That it is left alone was told once.
                if failure.kind != "open":
                    log.warning("%s at upstream %s: %s (%s)", model, upstream.name, failure, failure.kind)
                failures.append(_Failed(model, upstream.name, failure))
                if not failure.is_worth_repeating or n_tried > upstream.config.retries:
                    break
                await upstream.pause_before_retry(n_tried)
            else:
                self.metrics.attempt(upstream.name, "answered")
                return answer
        return None


def _nobody_answered(failures: Sequence[_Failed]) -> GatewayError:
    told = dict.fromkeys(f"{failed.model}: {failed.failure}" for failed in failures)
    message = f"no upstream answered ({'; '.join(told) or 'none is configured for the model'})"
    kinds = {failed.failure.kind for failed in failures}
    if kinds <= {"open"}:
        return GatewayError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            message,
            kind=UPSTREAM_ERROR,
            code="no_upstream",
            headers=((b"retry-after", b"1"),),
        )
    if failures[-1].failure.kind == "timeout":
        return GatewayError(HTTPStatus.GATEWAY_TIMEOUT, message, kind=UPSTREAM_ERROR, code="upstream_timeout")
    return GatewayError(HTTPStatus.BAD_GATEWAY, message, kind=UPSTREAM_ERROR, code="upstream_failed")
