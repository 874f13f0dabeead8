"""``/v1/embeddings``: rows of the router's own embedder, in OpenAI's shape."""

import asyncio
import base64
import json
from http import HTTPStatus

from centroute.embedders import Embedder
from centroute.gateway.body import read_object
from centroute.gateway.errors import GatewayError, invalid
from centroute.gateway.exchange import Exchange
from centroute.gateway.gateway import AUTO, Gateway

MAX_TEXTS = 2048
"""Texts in one request, as in OpenAI's API."""

_SHOWN = 80


async def answer_embeddings(gateway: Gateway, exchange: Exchange) -> None:
    """Answer one request: ``input``, a text or a list of them."""
    request = read_object(await exchange.read_body(gateway.config.limits))
    embedder = gateway.router.embedder
    _check_model(request.get("model"), embedder)
    texts = _texts(request.get("input"))
    encoding = request.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise invalid("encoding_format must be 'float' or 'base64'", param="encoding_format")
    dimensions = request.get("dimensions")
    if dimensions is not None and dimensions != embedder.dim:
        raise invalid(f"dimensions must be {embedder.dim}, or left out", param="dimensions")
    # On a thread: many or long texts take longer than an event loop may be held.
    body = await asyncio.to_thread(_embed, embedder, texts, as_base64=encoding == "base64")
    await exchange.answer(200, body)


def _embed(embedder: Embedder, texts: list[str], *, as_base64: bool) -> bytes:
    rows = embedder.embed(texts)
    routable = rows.any(axis=1)
    if not routable.all():
        raise invalid(f"input {int(routable.argmin())} holds nothing that the embedder knows", param="input")
    data = []
    # Row by row: one call for all of them would hold the interpreter, and with it the loop.
    for index, row in enumerate(rows):
        content = base64.b64encode(row.astype("<f4").tobytes()).decode() if as_base64 else row.tolist()
        data.append(json.dumps({"object": "embedding", "index": index, "embedding": content}))
    n_tokens = sum(len(embedder.tokenize(text)) for text in texts)
    usage = json.dumps({"prompt_tokens": n_tokens, "total_tokens": n_tokens})
    name = json.dumps(embedder.name)
    return f'{{"object":"list","data":[{",".join(data)}],"model":{name},"usage":{usage}}}'.encode()


def _check_model(model: object, embedder: Embedder) -> None:
    if not isinstance(model, str) or not model:
        raise invalid(f"model must be a text: {embedder.name!r}", param="model")
    if model not in (embedder.name, *AUTO):
        raise GatewayError(
            HTTPStatus.NOT_FOUND,
            f"there is no embedder {model[:_SHOWN]!r}, only {embedder.name!r}",
            param="model",
            code="model_not_found",
        )


def _texts(given: object) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise invalid("input must be a text or a list of texts; lists of tokens are not read", param="input")
    if len(texts) > MAX_TEXTS:
        raise invalid(f"input holds {len(texts)} texts, the most is {MAX_TEXTS}", param="input")
    return texts
