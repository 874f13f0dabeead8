"""Micro-batching: texts that come at the same time are embedded in one call.

For embedders whose graph gains by batches, as on a GPU. On the CPU it loses or gains nothing
(``benches/microbatch.py``), so that it is off unless asked for:
``Router.load(path, microbatch=MicroBatch())``.

A text waits in a bounded queue until a thread takes it, with what else waits: at once when
`MicroBatch.max_size` texts or `MicroBatch.max_tokens` tokens are there, else `MicroBatch.max_wait_ms` after
the oldest of them came. While a batch runs the next one gathers, so that under load nobody waits for the
clock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from centroute._fork import renewed_after_fork
from centroute.errors import OverloadError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from centroute.embedders import Embedder

CHARACTERS_PER_TOKEN: Final = 4
"""English text; counting exactly would tokenize every text twice."""
IDLE_SECONDS: Final = 5.0
"""How long a thread without work stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """How texts are gathered.

    Attributes
    ----------
    max_size
        Texts of one batch, at least 1.
    max_tokens
        Tokens of one batch, as estimated from the characters; a longer text is a batch of its own.
    max_wait_ms
        How long the first text waits for others, in milliseconds. With 0 a batch is what came while
        another one ran, and a lone text waits for nobody.
    max_queue
        Texts that may wait; the next one is refused with `OverloadError`.
    threads
        Batches that run side by side, at least 1.

    Raises
    ------
    ValueError
        If one is out of range.
    """

    max_size: int = 32
    max_tokens: int = 4096
    max_wait_ms: float = 0.0
    max_queue: int = 1024
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("max_size", "max_tokens", "max_queue", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        if not 0 <= self.max_wait_ms < float("inf"):
            raise ValueError(f"max_wait_ms: got {self.max_wait_ms}, wanted a finite time, 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    text: str
    n_tokens: int
    since: float
    row: Future[NDArray[np.float32]]


class Batcher:
    """Gathers the texts of all threads and tasks for one embedder."""

    def __init__(self, embedder: Embedder, options: MicroBatch) -> None:
        self._embedder = embedder
        self._options = options
        self.renew_after_fork()
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """Start without threads and with an empty queue: what waited, waits in the parent."""
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._n_tokens = 0
        self._n_threads = 0
        self._n_idle = 0

    def submit(self, text: str) -> Future[NDArray[np.float32]]:
        """Put a text into the queue.

        Returns
        -------
        Future[NDArray[np.float32]]
            Its row ``[dim]``. Cancelled before its batch runs, the text is dropped and makes room.

        Raises
        ------
        OverloadError
            If the queue is full.
        """
        n_tokens = min(self._embedder.max_tokens, len(text) // CHARACTERS_PER_TOKEN + 2)
        waiting = _Waiting(text, n_tokens, time.monotonic(), Future())
        with self._changed:
            if len(self._queue) >= self._options.max_queue:
                raise OverloadError(
                    f"embedder {self._embedder.name}: {len(self._queue)} texts wait, as many as may; "
                    "send fewer at once, or again later"
                )
            self._queue.append(waiting)
            self._n_tokens += n_tokens
            if self._n_idle == 0 and self._n_threads < self._options.threads:
                self._n_threads += 1
                threading.Thread(target=self._work, name="centroute-microbatch", daemon=True).start()
            self._changed.notify()
        waiting.row.add_done_callback(lambda row: self._drop(waiting) if row.cancelled() else None)
        return waiting.row

    def _drop(self, waiting: _Waiting) -> None:
        with self._changed:
            try:
                self._queue.remove(waiting)
            except ValueError:  # a batch took it meanwhile, and leaves it out
                return
            self._n_tokens -= waiting.n_tokens

    def _work(self) -> None:
        while batch := self._next():
            self._embed([waiting for waiting in batch if waiting.row.set_running_or_notify_cancel()])

    def _next(self) -> list[_Waiting]:
        """The next batch; none when there was no work for a while, and the thread is counted out."""
        options = self._options
        with self._changed:
            while True:
                self._n_idle += 1
                has_work = self._changed.wait_for(lambda: self._queue, IDLE_SECONDS)
                self._n_idle -= 1
                if not has_work:
                    self._n_threads -= 1
                    return []
                due = self._queue[0].since + options.max_wait_ms / 1e3
                # Gone are texts that were cancelled or that another thread took.
                while self._queue and not self._is_full() and (left := due - time.monotonic()) > 0:
                    self._changed.wait(left)
                batch: list[_Waiting] = []
                n_tokens = 0
                while self._queue and len(batch) < options.max_size:
                    n_tokens += self._queue[0].n_tokens
                    if batch and n_tokens > options.max_tokens:
                        break
                    self._n_tokens -= self._queue[0].n_tokens
                    batch.append(self._queue.popleft())
                if batch:
                    if self._queue:
                        self._changed.notify()
                    return batch

    def _is_full(self) -> bool:
        return len(self._queue) >= self._options.max_size or self._n_tokens >= self._options.max_tokens

    def _embed(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            rows = self._embedder.embed([waiting.text for waiting in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to those who wait
            if len(batch) == 1:
                batch[0].row.set_exception(error)
                return
            # One text must not fail the others.
            for waiting in batch:
                self._embed([waiting])
            return
        for waiting, row in zip(batch, rows, strict=True):
            waiting.row.set_result(row)
