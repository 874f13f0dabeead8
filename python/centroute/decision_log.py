r"""A log of decisions: one JSON object a line, written in the background.

    from centroute.decision_log import DecisionLog

    with DecisionLog("decisions.jsonl", sample=0.1) as log:
        decision = router.route(text)
        decision_id = log.record(decision)
        ...
        if decision_id:  # once it is known what came of it
            log.feedback(decision_id, score=1.0, cost_usd=0.0021)

A line holds ``id, time, generation, model, quality, cost_usd, margin, similarity, in_distribution,
clusters[{id,weight}], sha256``, the last of them the router file's; what is not known is null. The text is in
none unless ``with_text=True`` asks for it. Feedback is a line of ``id, score, cost_usd``.

Recording puts the decision in a queue and returns. When the queue is full the line is dropped and counted: a
full disk slows nobody down. Lines are appended whole, so that several processes may share a file. Rotation is
left to logrotate: a file that was moved away is followed by a new one within a twentieth of a second, without
a signal. :mod:`centroute.logged_decisions` reads it.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import secrets
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from itertools import count
from json.encoder import encode_basestring_ascii as _string
from pathlib import Path
from random import random
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from centroute._fork import renewed_after_fork
from centroute._kernel import Decision
from centroute.errors import DataError

if TYPE_CHECKING:
    from centroute.session import KeptDecision

QUEUE_SIZE: Final = 10_000
LINGER_SECONDS: Final = 0.05
"""How long the writer gathers lines before it writes them."""

_SAMPLES: Final = 1 << 32
_OWN: Final = "centroute-"
_LONGEST_LINE: Final = 1 << 20
# A line without its last brackets may end in a bracket: with this behind it, readers leave it out.
_CUT_OFF: Final = b" (cut off)\n"

_logger = logging.getLogger(__name__)

_Entry = Callable[[], bytes]


class DecisionLog:
    """Writes decisions to a file of JSON lines. Safe to share between threads.

    Parameters
    ----------
    path
        The file to append to; its folder must exist.
    sample
        Share of the decisions that are written: by chance, or by a hash of their ids where these are given,
        so that all logs of one share hold the same requests.
    with_text
        Whether the text that was routed is written too.
    queue_size
        Decisions that may wait for the writer.

    Raises
    ------
    DataError
        If ``sample`` or ``queue_size`` is out of range, or the file cannot be opened.

    Examples
    --------
    >>> log = DecisionLog("decisions.jsonl", sample=0.1)  # doctest: +SKIP
    >>> decision_id = log.record(router.route("2 + 2?"))  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sample: float = 1.0,
        with_text: bool = False,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        if not 0 <= sample <= 1:
            raise DataError(f"sample {sample}: wanted a share from 0 to 1")
        if queue_size < 1:
            raise DataError(f"queue_size {queue_size}: wanted 1 or more")
        self._path = Path(path)
        self._with_text = with_text
        self._sample = sample
        self._queue_size = queue_size
        self._n_written = self._n_dropped = 0
        self._closed = self._is_failing = False
        self._start_anew()
        try:
            self._file = _open(self._path)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror or error})") from error
        renewed_after_fork(self)
        atexit.register(self.close)

    @property
    def n_written(self) -> int:
        """Lines written by this process."""
        return self._n_written

    @property
    def n_dropped(self) -> int:
        """Lines lost by this process, to a full queue or to a file that cannot be written."""
        return self._n_dropped

    def record(
        self,
        decision: Decision | KeptDecision,
        *,
        decision_id: str | None = None,
        text: str | None = None,
    ) -> str | None:
        """Take a decision in, where it is in the sample.

        Parameters
        ----------
        decision
            What was decided.
        decision_id
            The request's own id, such as that of its trace, by which the sample is then chosen; made here
            when not given.
        text
            What was routed; written only by a log ``with_text``.

        Returns
        -------
        str or None
            The id; ``None`` where none was given and the decision is not in the sample.

        Raises
        ------
        TypeError
            If ``text`` is no text, such as a list of messages.
        """
        if text is not None and not isinstance(text, str):
            # Told here, and not by the writer, where nobody hears it.
            raise TypeError(f"text must be str, got {type(text).__name__}")
        if decision_id is None:
            if random() >= self._sample:  # noqa: S311 - nothing secret hangs on it
                return None
            decision_id = f"{self._prefix}{next(self._numbers):x}"
        elif not self._is_sampled(decision_id):
            return decision_id
        self._put(
            partial(_decision_line, decision_id, time.time(), decision, text if self._with_text else None)
        )
        return decision_id

    def feedback(
        self, decision_id: str, *, score: float | None = None, cost_usd: float | None = None
    ) -> None:
        """Take in what came of a decision, where the decision is in the sample.

        ``centroute edit ROUTER absorb`` folds it into the tables; :mod:`centroute.feedback` says how.

        Parameters
        ----------
        decision_id
            What :meth:`record` returned.
        score
            How good the answer was, 0 to 1; ``None`` where not known.
        cost_usd
            What it cost, in USD; ``None`` where not known.

        Raises
        ------
        DataError
            If a number is out of range, or neither is given.
        """
        if score is None and cost_usd is None:
            raise DataError(f"feedback on {decision_id}: give a score, a cost or both")
        if score is not None and not 0 <= score <= 1:
            raise DataError(f"feedback on {decision_id}: score {score} is outside 0..1")
        if cost_usd is not None and not 0 <= cost_usd < math.inf:
            raise DataError(
                f"feedback on {decision_id}: cost_usd {cost_usd} is not a finite number of 0 or more"
            )
        # Ids that were made here are those of decisions in the sample.
        if decision_id.startswith(_OWN) or self._is_sampled(decision_id):
            self._put(partial(_feedback_line, decision_id, score, cost_usd))

    def _is_sampled(self, decision_id: str) -> bool:
        return zlib.crc32(decision_id.encode("utf-8", "surrogatepass")) < self._sample * _SAMPLES

    def _put(self, entry: _Entry) -> None:
        if self._closed or len(self._queue) >= self._queue_size:
            self._n_dropped += 1
            return
        self._queue.append(entry)
        if not self._awake.is_set():
            self._wake()

    def close(self, *, timeout: float = 5.0) -> None:
        """Write what waits, for up to ``timeout`` seconds, and close the file. Later records are dropped."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._awake.set()
        self._hurry.set()
        if self._writer is not None:
            self._writer.join(timeout)
            if self._writer.is_alive():
                return
        self._write_waiting()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def renew_after_fork(self) -> None:
        """Start anew in a forked child; what waited there is the parent's to write."""
        self._start_anew()
        self._n_written = self._n_dropped = 0

    def _start_anew(self) -> None:
        # Ids differ between processes and between runs.
        self._prefix, self._numbers = f"{_OWN}{secrets.token_hex(6)}-", count()
        self._queue: deque[_Entry] = deque()
        self._awake, self._hurry = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None

    def _wake(self) -> None:
        self._awake.set()
        if self._writer is None:
            with self._starting:
                if self._writer is None:
                    self._writer = threading.Thread(
                        target=self._write_on, name="centroute decision log", daemon=True
                    )
                    self._writer.start()

    def _write_on(self) -> None:
        while not self._closed:
            self._awake.wait()
            self._hurry.wait(LINGER_SECONDS)
            # Cleared before the queue is emptied: whoever adds to it from here on wakes the writer again.
            self._awake.clear()
            self._write_waiting()

    def _write_waiting(self) -> None:
        while self._queue:
            entries = [self._queue.popleft() for _ in range(min(len(self._queue), 1000))]
            try:
                self._follow_rotation()
                # After a failure the file may end within a line.
                start = _CUT_OFF if self._is_failing else b""
                _write_all(self._file, start + b"".join(entry() for entry in entries))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with some lines, the others are written
                if not self._is_failing:
                    reason = getattr(error, "strerror", None) or error
                    _logger.error("%s: decisions are lost: %s", self._path, reason)  # noqa: TRY400
                self._is_failing = True
                self._n_dropped += len(entries)
            else:
                self._is_failing = False
                self._n_written += len(entries)

    def _follow_rotation(self) -> None:
        """Open the file anew where it was moved away or deleted."""
        ours = os.fstat(self._file.fileno())
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
            fresh = _open(self._path)
            self._file.close()
            self._file = fresh


def _decision_line(
    decision_id: str, seconds: float, decision: Decision | KeptDecision, text: str | None
) -> bytes:
    # Put together by hand, at a third of what json takes for it.
    clusters = ", ".join(
        f'{{"id": {cluster}, "weight": {weight:.7g}}}' for cluster, weight in decision.clusters
    )
    time_utc = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    line = (
        f'{{"id": {_string(decision_id)}, "time": "{time_utc}", "generation": {decision.generation}, '
        f'"model": {_string(decision.model)}, "quality": {_number(decision.quality)}, '
        f'"cost_usd": {_number(decision.cost)}, "margin": {_number(decision.margin)}, '
        f'"similarity": {_number(decision.similarity)}, '
        f'"in_distribution": {"true" if decision.in_distribution else "false"}, '
        f'"clusters": [{clusters}], "sha256": "{decision.sha256}"'
    )
    return (line + ("}\n" if text is None else f', "text": {_string(text)}}}\n')).encode()


def _feedback_line(decision_id: str, score: float | None, cost_usd: float | None) -> bytes:
    fields = {"id": decision_id, "score": score, "cost_usd": cost_usd}
    return json.dumps(fields, allow_nan=False).encode() + b"\n"


def _number(value: float | None) -> str:
    """The seven digits that a float32 has."""
    return "null" if value is None else f"{value:.7g}"


def _open(path: Path) -> FileIO:
    file = path.open("a+b", buffering=0)
    if file.tell():
        # A writer that was stopped in the middle of a line must not spoil the next one.
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n" if _ends_in_json(file) else _CUT_OFF)
    return file


def _ends_in_json(file: FileIO) -> bool:
    """Whether the last line is whole but for its end."""
    file.seek(-min(file.tell(), _LONGEST_LINE), os.SEEK_END)
    try:
        json.loads(file.read().rpartition(b"\n")[2])
    except (ValueError, RecursionError):
        return False
    return True


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
