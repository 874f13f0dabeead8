"""The router behind the gateway: a query in, a decision and its id out, without holding the event loop."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import unquote

from centroute._kernel import Decision, Policy
from centroute.errors import OverloadError
from centroute.gateway.errors import SERVER_ERROR, GatewayError
from centroute.gateway.exchange import Exchange
from centroute.gateway.gateway import Gateway
from centroute.gateway.headers import Headers
from centroute.session import KeptDecision

SESSION_HEADER = b"x-centroute-session-model"
"""Header with the model that answered last, as ``x-centroute-model`` told it."""

Query = str | Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and the id under which others can speak of it."""

    decision: Decision | KeptDecision
    id: str

    def headers(self) -> Headers:
        """The id and which loading of the router decided."""
        return [
            (b"x-centroute-decision-id", self.id.encode()),
            (b"x-centroute-generation", b"%d" % self.decision.generation),
        ]


async def decide(gateway: Gateway, exchange: Exchange, query: Query, policy: Policy) -> Decided:
    """Decide one query, a text or OpenAI's messages, and write it down where there is a log.

    A client that says which model answered last gets another one only where that is worth a switch.

    Raises
    ------
    DataError
        If there is nothing to route on, or a message is not of its form.
    PolicyError
        If the policy does not fit the router, or leaves no candidate.
    GatewayError
        503 if too many texts wait for the embedder.
    """
    session = None
    if answered_last := exchange.header(SESSION_HEADER):
        session = replace(gateway.config.session, model=unquote(answered_last))
    try:
        if session is None:
            decision: Decision | KeptDecision = await gateway.router.aroute(query, policy=policy)
        else:
            decision = await gateway.router.aroute(query, policy=policy, session=session)
    except OverloadError as error:
        raise GatewayError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            str(error),
            kind=SERVER_ERROR,
            code="overloaded",
            headers=((b"retry-after", b"1"),),
        ) from None
    decision_id = secrets.token_hex(12)
    if gateway.log is not None:
        text = None
        if gateway.config.log is not None and gateway.config.log.with_text:
            text = query if isinstance(query, str) else gateway.router.conversation.read(query)[0]
        # What was kept is a decision too, for that model alone.
        of_model = decision.kept if isinstance(decision, KeptDecision) else decision
        gateway.log.record(of_model, decision_id=decision_id, text=text)
    return Decided(decision, decision_id)
