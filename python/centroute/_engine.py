"""Engines: what runs work over shards. `LocalEngine` is this process; Ray's is in :mod:`centroute.ray`."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a callable on every item. Callables, items and results can be pickled.

    Attributes
    ----------
    threads
        Threads that the work on one item may use.
    """

    threads: int

    def scatter(
        self, work: Callable[[Item], Result], items: Iterable[Item], *, is_graph: bool = False
    ) -> Iterator[Result]:
        """Results in any order. For work that loads an embedder or a router, once a process.

        ``is_graph`` says that it runs a graph, which is faster on a GPU.
        """

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items. For work that begins at once."""


class LocalEngine:
    """One item after the other, in this process."""

    def __init__(self) -> None:
        self.threads = os.cpu_count() or 1

    def scatter(
        self, work: Callable[[Item], Result], items: Iterable[Item], *, is_graph: bool = False
    ) -> Iterator[Result]:
        """Results in the order of the items."""
        del is_graph  # the embedder takes a GPU where it finds one
        return map(work, items)

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items."""
        return map(work, items)
