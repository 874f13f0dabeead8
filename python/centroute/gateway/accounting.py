"""What an answer took: tokens as its upstream counts them, USD by the pool's prices. Unknown is never 0."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from centroute.router import Router

_TAIL_BYTES = 16_384
_PER_MILLION = 1e-6


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, as its upstream counts them."""

    prompt_tokens: int
    completion_tokens: int


def read_usage(content: Mapping[str, object] | None) -> Usage | None:
    """The usage that an answer states; ``None`` where it states none or no whole numbers.

    Examples
    --------
    >>> read_usage({"usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}})
    Usage(prompt_tokens=12, completion_tokens=3)
    """
    usage = (content or {}).get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    whole = [count for count in counts if type(count) is int and count >= 0]
    return Usage(*whole) if len(whole) == len(counts) else None


class StreamTail:
    """The last bytes of a stream of events, which hold its usage where the client asked for it."""

    __slots__ = ("_tail",)

    def __init__(self, first: bytes) -> None:
        self._tail = first

    def add(self, chunk: bytes) -> None:
        """Take note of what passed."""
        self._tail = (self._tail + chunk)[-_TAIL_BYTES:]

    @property
    def ends_an_event(self) -> bool:
        """Whether another event may follow here."""
        return self._tail.endswith((b"\n\n", b"\r\n\r\n"))

    def usage(self) -> Usage | None:
        """The usage that the last events state."""
        for line in reversed(self._tail.splitlines()):
            if line.startswith(b"data:") and b'"usage"' in line:
                try:
                    content = json.loads(line[5:])
                except (ValueError, RecursionError):
                    continue
                if isinstance(content, dict) and (usage := read_usage(content)) is not None:
                    return usage
        return None


class Prices:
    """Prices of the pool, read anew when the router was reloaded."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._generation: int | None = None
        self._by_model: dict[str, tuple[float, float]] = {}

    async def refresh(self) -> None:
        """Read the prices of the router's present generation, where they are of another."""
        if self._generation == self._router.generation:
            return
        # Told first, so that one of all the requests that find it changed reads them.
        self._generation = self._router.generation
        models = await asyncio.to_thread(lambda: self._router.artifact.models)
        self._by_model = {
            model.name: (model.input_usd_per_million, model.output_usd_per_million)
            for model in models
            if model.input_usd_per_million is not None and model.output_usd_per_million is not None
        }

    def cost_usd(self, model: str, usage: Usage | None) -> float | None:
        """What an answer cost; ``None`` where its tokens or prices are not known."""
        prices = self._by_model.get(model)
        if prices is None or usage is None:
            return None
        return (usage.prompt_tokens * prices[0] + usage.completion_tokens * prices[1]) * _PER_MILLION
