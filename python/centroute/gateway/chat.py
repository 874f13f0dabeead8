"""``/v1/chat/completions``: the request goes on with another ``model``, the answer comes back as it is."""

import logging
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus

from centroute._kernel import Policy
from centroute.gateway.accounting import StreamTail, read_usage
from centroute.gateway.body import JsonObject, read_members
from centroute.gateway.errors import UPSTREAM_ERROR, GatewayError, invalid
from centroute.gateway.exchange import Exchange
from centroute.gateway.gateway import AUTO, Asked, Gateway
from centroute.gateway.headers import Headers, safe_value
from centroute.gateway.routing import Decided, decide
from centroute.gateway.upstream import Rest, UpstreamFailure

log = logging.getLogger("centroute.gateway")

POLICY_HEADER = b"x-centroute-policy"
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class _Choice:
    """The models to ask, best first, and the decision behind them, if it was one."""

    models: tuple[str, ...]
    decided: Decided | None = None


async def answer_chat(gateway: Gateway, exchange: Exchange) -> None:
    """Answer one request."""
    request = read_members(await exchange.read_body(gateway.config.limits))
    choice = await _choose(gateway, exchange, request)
    stream = request.members.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise invalid("stream must be true or false", param="stream")
    async with exchange.cancelled_when_client_leaves():
        asked = await gateway.ask(choice.models, request, exchange.headers, stream=bool(stream))
        headers = [*asked.answer.headers, *_headers(choice, asked)]
        if asked.answer.rest is not None:
            async with aclosing(asked.answer.rest) as rest:
                await exchange.begin(asked.answer.status, headers)
                tail = await _pass_stream(gateway, exchange, asked, rest)
    if asked.answer.rest is None:
        await _answer_whole(gateway, exchange, asked, headers)
    elif tail is not None:
        await exchange.end()
        usage = tail.usage()
        await gateway.prices.refresh()
        gateway.metrics.usage(asked.model, usage, gateway.prices.cost_usd(asked.model, usage))


async def _answer_whole(gateway: Gateway, exchange: Exchange, asked: Asked, headers: Headers) -> None:
    answer = asked.answer
    if answer.status < HTTPStatus.BAD_REQUEST:
        usage = read_usage(answer.content)
        await gateway.prices.refresh()
        cost_usd = gateway.prices.cost_usd(asked.model, usage)
        gateway.metrics.usage(asked.model, usage, cost_usd)
        if usage is not None:
            headers.append((b"x-centroute-prompt-tokens", b"%d" % usage.prompt_tokens))
            headers.append((b"x-centroute-completion-tokens", b"%d" % usage.completion_tokens))
        if cost_usd is not None:
            headers.append((b"x-centroute-cost-usd", _number(cost_usd)))
    await exchange.answer(answer.status, answer.body, headers)


async def _choose(gateway: Gateway, exchange: Exchange, request: JsonObject) -> _Choice:
    wanted = request.members.get("model")
    if not isinstance(wanted, str) or not wanted:
        raise invalid("model must be a text: 'auto' or a model of /v1/models", param="model")
    if wanted in gateway.router.models:
        return _Choice((wanted,))
    policy = requested_policy(gateway, exchange, wanted)
    messages = request.members.get("messages")
    if not isinstance(messages, list):
        raise invalid("messages must be a list of messages", param="messages")
    decided = await decide(gateway, exchange, messages, policy)
    decision = decided.decision
    # The fallback of a policy may be chosen without being the first of the ranking.
    others = (model for model in decision.ranking if model != decision.model)
    return _Choice((decision.model, *others)[: 1 + gateway.config.limits.max_fallbacks], decided)


def requested_policy(gateway: Gateway, exchange: Exchange, wanted: str) -> Policy:
    """The policy of a request that leaves the choice to the router.

    Raises
    ------
    GatewayError
        404 if it names a model that is not in the pool.
    PolicyError
        If its suffix or header is no policy.
    """
    name, _, suffix = wanted.partition(":")
    if name not in AUTO:
        raise GatewayError(
            HTTPStatus.NOT_FOUND,
            f"there is no model {wanted[:_SHOWN]!r}; see /v1/models, or leave the choice to 'auto'",
            param="model",
            code="model_not_found",
        )
    return gateway.policies.find(suffix=suffix, header=exchange.header(POLICY_HEADER))


def _headers(choice: _Choice, asked: Asked) -> Headers:
    headers = [
        (b"x-centroute-model", safe_value(asked.model)),
        (b"x-centroute-attempts", b"%d" % asked.n_attempts),
    ]
    if choice.decided is None:
        return headers
    decision = choice.decided.decision
    headers += choice.decided.headers()
    headers.append((b"x-centroute-in-distribution", b"true" if decision.in_distribution else b"false"))
    if asked.model == decision.model:
        # Both were predicted for the model that was chosen, and say nothing of another that answered.
        headers.append((b"x-centroute-quality", _number(decision.quality)))
        if (cost := decision.cost) is not None:
            headers.append((b"x-centroute-predicted-cost-usd", _number(cost)))
    else:
        headers.append((b"x-centroute-instead-of", safe_value(decision.model)))
    return headers


async def _pass_stream(gateway: Gateway, exchange: Exchange, asked: Asked, rest: Rest) -> StreamTail | None:
    """Pass a stream on and return its tail; ``None`` where it broke off, and has no proper end."""
    tail = StreamTail(asked.answer.body)
    await exchange.pass_on(asked.answer.body)
    try:
        async for chunk in rest:
            tail.add(chunk)
            await exchange.pass_on(chunk)
    except UpstreamFailure as failure:
        gateway.metrics.attempt(asked.upstream, f"stream_{failure.kind}")
        log.warning("%s at upstream %s, in a stream: %s", asked.model, asked.upstream, failure)
        # The status is gone; what is left is an event that clients take for an error.
        if tail.ends_an_event:
            error = GatewayError(HTTPStatus.BAD_GATEWAY, f"{asked.model}: {failure}", kind=UPSTREAM_ERROR)
            await exchange.pass_on(b"data: " + error.body() + b"\n\n")
        return None
    return tail


def _number(value: float) -> bytes:
    return format(value, ".6g").encode()
