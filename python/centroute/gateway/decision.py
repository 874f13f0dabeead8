"""``/v1/route``: the decision alone, without asking any model."""

import json

from centroute.decision_json import decision_to_json
from centroute.gateway.body import read_object
from centroute.gateway.chat import requested_policy
from centroute.gateway.errors import invalid
from centroute.gateway.exchange import JSON, Exchange
from centroute.gateway.gateway import Gateway
from centroute.gateway.policies import over, policy_from_fields
from centroute.gateway.routing import Query, decide

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


async def answer_decision(gateway: Gateway, exchange: Exchange) -> None:
    """Answer one request: ``input`` or ``messages``, and perhaps ``policy`` and ``model``."""
    request = read_object(await exchange.read_body(gateway.config.limits))
    policy = requested_policy(gateway, exchange, _named(gateway, request))
    if (fields := request.get("policy")) is not None:
        if not isinstance(fields, dict):
            raise invalid('policy must be an object such as {"willingness_to_pay": 0.01}', param="policy")
        policy = over(policy_from_fields(fields), policy)
    decided = await decide(gateway, exchange, _query(request), policy)
    await exchange.answer(
        200, _encode(decision_to_json(decided.decision)).encode(), [JSON, *decided.headers()]
    )


def _named(gateway: Gateway, request: dict[str, object]) -> str:
    model = request.get("model", "auto")
    if not isinstance(model, str) or model in gateway.router.models:
        raise invalid("model must be a text: 'auto', or 'auto:' and a policy", param="model")
    return model


def _query(request: dict[str, object]) -> Query:
    text, messages = request.get("input"), request.get("messages")
    if (text is None) == (messages is None):
        raise invalid("wanted either input, a text, or messages, a list", param="input")
    if text is not None:
        if not isinstance(text, str):
            raise invalid("input must be a text", param="input")
        return text
    if not isinstance(messages, list):
        raise invalid("messages must be a list of messages", param="messages")
    return messages
