"""Bodies of requests: bytes in, a JSON object whose members know where they stand.

The place of ``model`` is what lets the gateway replace it and leave every other byte as the client wrote it.
"""

import json
from dataclasses import dataclass
from json.decoder import WHITESPACE, scanstring  # type: ignore[attr-defined]
from typing import NoReturn

from centroute.gateway.errors import GatewayError, invalid

_SHOWN = 40


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object and the text it was read from.

    Attributes
    ----------
    body
        As the client sent it.
    text
        The same, decoded.
    members
        Its members, decoded.
    spans
        Where the value of each member stands in the text: start and end.
    """

    body: bytes
    text: str
    members: dict[str, object]
    spans: dict[str, tuple[int, int]]

    def with_text(self, name: str, value: str) -> bytes:
        """The object's bytes, with the value of one member replaced by a text and all else untouched."""
        start, end = self.spans[name]
        if not self.text.isascii():
            # Only the shorter side is encoded once more: bodies may be long.
            length, n_bytes = len(self.text[start:end].encode()), len(self.body)
            if start < len(self.text) - end:
                start = len(self.text[:start].encode())
                end = start + length
            else:
                end = n_bytes - len(self.text[end:].encode())
                start = end - length
        return self.body[:start] + json.dumps(value).encode() + self.body[end:]


def read_members(body: bytes) -> JsonObject:
    """Read the body of a request, and where each of its members stands.

    Raises
    ------
    GatewayError
        400 if it is no JSON object, or one name stands twice, so that two readers could read two things.
    """
    text = _decode(body)
    request = JsonObject(body, text, {}, {})
    try:
        place = _skip(text, 0)
        if not text.startswith("{", place):
            # It is no object: let the other reader say what it is.
            read_object(body)
        place = _skip(text, place + 1)
        has_ended = text.startswith("}", place)
        while not has_ended:
            place = _read_member(request, place)
            has_ended = text.startswith("}", place)
            if not has_ended:
                place = _skip(text, _expect(text, ",", place))
        place = _skip(text, place + 1)
        if place != len(text):
            raise json.JSONDecodeError("extra data", text, place)
    except (ValueError, RecursionError) as error:
        raise _not_json(error) from None
    return request


def _read_member(request: JsonObject, place: int) -> int:
    """Read one name and its value; where the text goes on behind them."""
    text = request.text
    name, place = scanstring(text, _expect(text, '"', place), True)
    if name in request.members:
        raise invalid(f"the body has {name[:_SHOWN]!r} twice", param=name[:_SHOWN])
    start = _skip(text, _expect(text, ":", _skip(text, place)))
    try:
        value, end = _DECODER.scan_once(text, start)  # type: ignore[attr-defined]
    except StopIteration as error:
        raise json.JSONDecodeError("expected a value", text, error.value) from None
    request.members[name] = value
    request.spans[name] = (start, end)
    return _skip(text, end)


def _expect(text: str, sign: str, place: int) -> int:
    if not text.startswith(sign, place):
        raise json.JSONDecodeError(f"expected {sign}", text, place)
    return place + 1


def read_object(body: bytes) -> dict[str, object]:
    """Read the body of a request as a JSON object.

    Raises
    ------
    GatewayError
        400 if it is none.
    """
    try:
        content = _DECODER.decode(_decode(body))
    except (ValueError, RecursionError) as error:
        raise _not_json(error) from None
    if not isinstance(content, dict):
        raise invalid("the body must be a JSON object")
    return content


def _decode(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8: byte 0x{body[error.start]:02x} at {error.start}") from None


def _skip(text: str, place: int) -> int:
    match = WHITESPACE.match(text, place)
    return int(match.end())


def _not_json(error: Exception) -> GatewayError:
    if isinstance(error, json.JSONDecodeError):
        # Its own text counts lines too, which bodies do not have.
        return invalid(f"the body is not valid JSON: {error.msg} at character {error.pos}")
    fault = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return invalid(f"the body is not valid JSON: {fault}")
