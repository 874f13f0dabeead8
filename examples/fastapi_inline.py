"""A decision inside a FastAPI service: ``ROUTER=router.safetensors uvicorn fastapi_inline:app``.

    curl -s localhost:8000/answer -d '{"messages": [{"role": "user", "content": "2 + 2?"}]}' \
         -H 'Content-Type: application/json'

The router is loaded once, before the first request. ``aroute`` decides on the event loop where that takes
microseconds, and elsewhere where it does not; the loop is held in neither case.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from centroute import Policy, Router
from centroute.errors import DataError, PolicyError

POLICY = Policy(willingness_to_pay=0.01)
"""A right answer is worth one cent to us."""


class Message(BaseModel):
    """One message of a conversation, as OpenAI writes it."""

    role: str
    content: str


class Question(BaseModel):
    """A request."""

    messages: list[Message]


class Answer(BaseModel):
    """Who should answer, and whom to ask next if that fails."""

    model: str
    then: list[str]
    expected_quality: float
    expected_cost_usd: float | None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the router and its embedder, so that no request waits for them."""
    app.state.router = Router.load(os.environ["ROUTER"])
    app.state.router.route("warm up", policy=POLICY)
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/answer")
async def answer(question: Question) -> Answer:
    """Choose the model; a service would call it here."""
    messages = [message.model_dump() for message in question.messages]
    try:
        decision = await app.state.router.aroute(messages, policy=POLICY)
    except (DataError, PolicyError) as error:
        raise HTTPException(status_code=400, detail=str(error)) from error
    return Answer(
        model=decision.model,
        then=list(decision.ranking[1:3]),
        expected_quality=decision.quality,
        expected_cost_usd=decision.cost,
    )
