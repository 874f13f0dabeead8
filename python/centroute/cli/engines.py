"""``--engine``: where the work over shards runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from centroute._engine import Engine, LocalEngine


@contextmanager
def opened_engine(name: str | None, *, address: str | None, n_workers: int | None) -> Iterator[Engine]:
    """The engine of that name; this process when not given.

    Raises
    ------
    DataError
        Ray is not installed, or there is no cluster at the address.
    """
    if name != "ray":
        if address is not None or n_workers is not None:
            raise click.UsageError("--address and --workers are for --engine ray.")
        yield LocalEngine()
        return
    from centroute.ray import RayEngine

    with RayEngine(address=address, n_workers=n_workers) as engine:
        yield engine
