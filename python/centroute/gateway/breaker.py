"""A circuit breaker: an upstream that keeps failing is left alone for a while, then tried by one request."""

import time
from collections.abc import Callable


class CircuitBreaker:
    """Counts failures in a row. Not for several threads: an event loop has its own.

    Parameters
    ----------
    n_failures
        Failures in a row that open it.
    open_seconds
        How long it stays open.
    clock
        Seconds that only grow.
    """

    def __init__(
        self, *, n_failures: int, open_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._n_failures = n_failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._n_failed = 0
        self._closed_again_at = 0.0
        self._is_tried = False

    @property
    def is_open(self) -> bool:
        """Whether the upstream is being left alone, or tried by one request."""
        return self._n_failed >= self._n_failures

    def admits(self) -> bool:
        """Whether a request may go; who was let through has to tell how it ended."""
        if not self.is_open:
            return True
        if self._is_tried or self._clock() < self._closed_again_at:
            return False
        self._is_tried = True
        return True

    def succeeded(self) -> None:
        """The upstream answered."""
        self._n_failed = 0
        self._is_tried = False

    def failed(self) -> None:
        """The upstream did not answer, or with an error of its own."""
        self._n_failed += 1
        self._is_tried = False
        if self.is_open:
            self._closed_again_at = self._clock() + self._open_seconds

    def abandoned(self) -> None:
        """The request ended without telling anything of the upstream, as when its client left."""
        self._is_tried = False
