"""``Watch``: reload a router when its file changes. Made by :meth:`centroute.Router.watch`."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from centroute._fork import renewed_after_fork
from centroute._router_file import FileStamp, file_stamp

if TYPE_CHECKING:
    from centroute.router import Router

_log = logging.getLogger("centroute")
_NEVER: Final[FileStamp] = (-1, -1, -1)


class Watch:
    """A thread that looks at a router's file and reloads it. Ends with ``stop()`` or as a context manager.

    A file that cannot be loaded is logged once, as an error of the logger ``centroute``, and the router goes
    on with what it has. In a forked child the watch goes on with a thread of its own.
    """

    def __init__(self, router: Router, path: Path, *, interval: float) -> None:
        self._router = router
        self._path = path
        self._interval = interval
        # The state that was looked at last, good or bad: nothing is done until there is another one.
        self._seen: FileStamp | None = _NEVER
        self._stopped = threading.Event()
        self._start()
        renewed_after_fork(self)

    def stop(self) -> None:
        """Watch no longer; returns when the thread has ended. May be called again."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def renew_after_fork(self) -> None:
        """Go on in the child, unless it was stopped."""
        was_stopped = self._stopped.is_set()
        self._stopped = threading.Event()
        if was_stopped:
            self._stopped.set()
        else:
            self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="centroute-watch", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval):
            self._look()

    def _look(self) -> None:
        stamp = file_stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        if self._router.source == (self._path, stamp):
            return
        try:
            generation = self._router.reload(self._path)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a file, watching goes on
            serving = self._router.generation
            _log.error("%s; generation %d goes on serving", error, serving)
        else:
            _log.info("%s: generation %d serves", self._path, generation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
