"""Threads for work that would hold an event loop: one pool a process, made when it is first needed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from centroute._fork import renewed_after_fork

T = TypeVar("T")


class Workers:
    """A pool of as many threads as there are processors. It is not the loop's own, which resolves names."""

    def __init__(self) -> None:
        self.renew_after_fork()
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """Start without threads."""
        self._pool: ThreadPoolExecutor | None = None
        self._making = threading.Lock()

    def pool(self) -> ThreadPoolExecutor:
        """The pool of this process."""
        with self._making:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="centroute")
            return self._pool


_workers = Workers()


async def in_worker(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a function in a worker thread, in a copy of this task's context.

    A task that is cancelled leaves the call to end by itself, or takes it back where it has not begun.
    """
    call = partial(copy_context().run, function, *arguments, **options)
    return await asyncio.get_running_loop().run_in_executor(_workers.pool(), call)
