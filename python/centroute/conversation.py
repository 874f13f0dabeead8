"""``Conversation``: which part of OpenAI-style messages is embedded.

By default the last user message that holds text. The rest of a conversation says less about what is asked
now than it takes of the few hundred tokens that an embedder reads.

>>> messages = [
...     {"role": "system", "content": "You write SQL."},
...     {"role": "user", "content": [{"type": "text", "text": "Count the orders of each customer."}]},
... ]
>>> Conversation().read(messages)
('Count the orders of each customer.', '')
>>> Conversation(system_share=0.2).read(messages)
('Count the orders of each customer.', 'You write SQL.')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from centroute.errors import DataError

Message = Mapping[str, Any]
"""``{"role": ..., "content": ...}``; other keys are not read."""

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
"""Roles that a message may have; ``developer`` is read as ``system``."""

SHORT: Final = 128
"""Messages, or parts of a content, up to which reading takes microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Which part of a conversation is embedded.

    Attributes
    ----------
    user_messages
        How many of the last user messages that hold text, the newest first: embedders read the start of a
        long text. At least 1.
    system_share
        Share of the embedding that the system prompt has, 0 to below 1: the row that is routed is
        ``(1 - system_share) * row of the user's text + system_share * row of the system prompt``, brought
        to norm 1. Embedded apart, a long prompt does not crowd out a short question, and a prompt that
        comes again is embedded once. Surface features are those of the user's text. With 0 the prompt is
        not read.

    Raises
    ------
    ValueError
        If one is out of range.
    """

    user_messages: int = 1
    system_share: float = 0.0

    def __post_init__(self) -> None:
        if self.user_messages < 1:
            raise ValueError(f"user_messages: got {self.user_messages}, wanted 1 or more")
        if not 0 <= self.system_share < 1:
            raise ValueError(f"system_share: got {self.system_share}, wanted 0 to below 1")

    def read(self, messages: Sequence[Message]) -> tuple[str, str]:
        """Return the user's text and the system prompt; the latter is empty where it has no share.

        Parameters
        ----------
        messages
            Mappings with ``role`` and ``content``: a string, or a list of parts, of which those of the type
            ``text`` are read. The content may be missing where it is not the user's or the system's.

        Raises
        ------
        DataError
            If a message is not of that form, its role is none of `ROLES`, or no user message holds text;
            names the index.
        TypeError
            If ``messages`` is no sequence.
        """
        if not isinstance(messages, Sequence) or isinstance(messages, bytes | bytearray):
            raise TypeError(f"a query must be str or a sequence of messages, got {type(messages).__name__}")
        for index, message in enumerate(messages):
            # The common case at once: long conversations keep an interpreter busy.
            is_plain = type(message) is dict and type(message.get("content")) is str
            if not is_plain or message.get("role") not in ROLES:
                _check(index, message)
        texts: list[str] = []
        for index in reversed(range(len(messages))):
            if messages[index]["role"] == "user":
                text = _text(index, messages[index]["content"])
                if text and not text.isspace():
                    texts.append(text)
                    if len(texts) == self.user_messages:
                        break
        if not texts:
            has_user = any(message["role"] == "user" for message in messages)
            raise DataError(
                "messages: no user message holds text" if has_user else "messages: no user message among them"
            )
        if not self.system_share:
            return "\n".join(texts), ""
        prompts = [
            _text(index, message["content"])
            for index, message in enumerate(messages)
            if message["role"] in ("system", "developer")
        ]
        return "\n".join(texts), "\n".join(prompts)


def is_short(query: str | Sequence[Message]) -> bool:
    """Whether reading a query takes microseconds, however long its texts are: few messages of few parts."""
    if isinstance(query, str) or not isinstance(query, Sequence):
        return True
    return len(query) <= SHORT and all(
        not (isinstance(message, Mapping) and isinstance(message.get("content"), list))
        or len(message["content"]) <= SHORT
        for message in query
    )


def _check(index: int, message: object) -> None:
    if not isinstance(message, Mapping):
        kind = type(message).__name__
        raise DataError(f"messages[{index}]: wanted a mapping with role and content, got {kind}")
    role = message.get("role")
    if role not in ROLES:
        try:
            got = f"role {str(role)[:80]!r}" if "role" in message else "no role"
        except RecursionError:
            got = f"a role that is a {type(role).__name__} nested too deeply"
        raise DataError(f"messages[{index}]: {got}, wanted one of {', '.join(ROLES)}")
    content = message.get("content")
    if content is None and role not in ("system", "developer", "user"):
        return  # as of an assistant that only calls tools
    if not isinstance(content, str | list | tuple):
        got = "no content" if content is None else f"content of type {type(content).__name__}"
        raise DataError(f"messages[{index}]: {got}, wanted a string or a list of parts")


def _text(index: int, content: str | Sequence[object]) -> str:
    """Text of a content whose kind was checked."""
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        if type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str:
            texts.append(part["text"])  # the common case, at once
            continue
        place = f"messages[{index}].content[{number}]"
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise DataError(f"{place}: wanted a mapping with a type, got {type(part).__name__}")
        if part["type"] != "text":
            continue
        text = part.get("text")
        if not isinstance(text, str):
            raise DataError(f"{place}: text of type {type(text).__name__}, wanted a string")
        texts.append(text)
    return "\n".join(texts)
