"""Objects that go on working in a forked child: `renewed_after_fork` registers one.

A fork copies the memory and one thread. A lock that another thread held stays locked for ever in the child,
and threads are not there. Whoever has either makes them anew in ``renew_after_fork``.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Protocol
from weakref import WeakValueDictionary


class Renewable(Protocol):
    """What holds locks, threads or sessions."""

    def renew_after_fork(self) -> None:
        """Make anew what a fork broke. Called in the child before anything else runs there."""


_registered: WeakValueDictionary[int, Renewable] = WeakValueDictionary()
_numbers = count()


def renewed_after_fork(renewable: Renewable) -> None:
    """Call ``renewable.renew_after_fork()`` in every child that is forked while it lives.

    Those that registered first are renewed first, so that one may rely on what was there before it.
    """
    _registered[next(_numbers)] = renewable


def _renew_all() -> None:
    for renewable in list(_registered.values()):
        renewable.renew_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew_all)
