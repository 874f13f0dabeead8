"""``RayEngine``: work over shards on the workers of a Ray cluster.

Work that loads an embedder or a router goes through Ray Data to a pool of actors, each of which loads it
once; partial sums are plain tasks, which begin at once. Either way a worker that dies costs its item a retry,
and what it did not finish is not there: results are renamed into place. Faults of the data are carried back
as results, so that they reach the caller as the same one line as without Ray.
"""

import importlib
import logging
import os
import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar

from centroute.errors import ArtifactError, DataError, EmbedderError, PolicyError

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_SECONDS = 5.0
"""How long a cluster may take to accept a connection."""
RETRIES = 3
"""How often work whose worker died is done again; another shard's work does not count."""
TASKS_PER_CPU = 2
"""Tasks that are given out at a time: what is done waits for what comes before it, and is held meanwhile."""
STORE_BYTES = 256 << 20
"""Object store of a cluster that is started here: parts are small."""

_OURS = (ArtifactError, DataError, EmbedderError, PolicyError)
# The last one is named after the systems where it is the default: without clusters Ray stays on the loopback.
_HERE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


class RayEngine:
    """A Ray cluster as an :class:`centroute._engine.Engine`; a context manager.

    Parameters
    ----------
    address
        ``host:port`` of a cluster, or ``"auto"`` for the one that this machine is part of. When not given, a
        cluster is started on this machine, on the loopback address and without a dashboard, and stopped in
        the end; one that this process is connected to already is used as it is.
    n_workers
        Workers that embed or route, each on one processor, and with one GPU where the cluster has any and a
        graph is run; one a processor, or a GPU, when not given.

    Raises
    ------
    DataError
        On entering, if Ray is not installed or there is no cluster at the address.
    """

    threads = 1

    def __init__(self, *, address: str | None = None, n_workers: int | None = None) -> None:
        self._address = address
        self._n_workers = n_workers
        self._ray: ModuleType | None = None
        self._is_ours = False

    def __enter__(self) -> Self:
        if self._address is None:
            self._ray, self._is_ours = start_here(self._n_workers)
        else:
            self._ray, self._is_ours = _connect(self._address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            self._ray.shutdown()  # type: ignore[union-attr]
        self._ray, self._is_ours = None, False

    def scatter(
        self, work: Callable[[Item], Result], items: Iterable[Item], *, is_graph: bool = False
    ) -> Iterator[Result]:
        """Results in any order, by actors of Ray Data that hold the work."""
        ray = self._connected()
        packed = [{"item": pickle.dumps(item)} for item in items]
        if not packed:
            return
        data = import_ray("ray.data")
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        n_gpus = int(ray.cluster_resources().get("GPU", 0)) if is_graph else 0
        n_workers = self._n_workers or n_gpus or self._n_cpus()
        # A block each: what a dead worker had in hand is one item.
        rows = data.from_items(packed, override_num_blocks=len(packed)).map(
            _Worker,
            fn_constructor_args=(pickle.dumps(work),),
            compute=data.ActorPoolStrategy(size=min(n_workers, len(packed))),
            num_cpus=1,
            num_gpus=1 if n_gpus else 0,
        )
        try:
            for row in rows.iter_rows():
                yield _unpacked(row["result"])
        except ray.exceptions.RayError as error:
            raise _told(error) from error

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items, by tasks."""
        ray = self._connected()
        run = ray.remote(num_cpus=1, max_retries=RETRIES)(_run)
        shared = ray.put(pickle.dumps(work))
        waiting: deque[Any] = deque()
        most = TASKS_PER_CPU * self._n_cpus()
        try:
            for item in items:
                waiting.append(run.remote(shared, pickle.dumps(item)))
                if len(waiting) >= most:
                    yield _unpacked(ray.get(waiting.popleft()))
            while waiting:
                yield _unpacked(ray.get(waiting.popleft()))
        except ray.exceptions.RayError as error:
            raise _told(error) from error

    def _connected(self) -> ModuleType:
        if self._ray is None:
            raise RuntimeError("RayEngine: enter it first, by with RayEngine() as engine")
        return self._ray

    def _n_cpus(self) -> int:
        return max(1, int(self._connected().cluster_resources().get("CPU", 1)))


def import_ray(name: str) -> ModuleType:
    """Import a module of Ray.

    Raises
    ------
    DataError
        It is not installed; names the extra.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"Ray runs this, and {error.name} is not installed; pip install 'centroute[ray]'"
        ) from None


class _Worker:
    """An actor of Ray Data: holds the work, whose embedder or router is loaded with its first item."""

    def __init__(self, work: bytes) -> None:
        self._work = pickle.loads(work)  # noqa: S301, from the engine that started this actor

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        return {"result": _attempt(self._work, row["item"])}


def _run(work: bytes, item: bytes) -> bytes:
    return _attempt(pickle.loads(work), item)  # noqa: S301, from the engine that started this task


def _attempt(work: Callable[[Any], Any], item: bytes) -> bytes:
    """Result or fault of an item, packed."""
    try:
        return pickle.dumps(work(pickle.loads(item)))  # noqa: S301, as above
    except _OURS as error:
        return pickle.dumps(_Fault(error))


class _Fault:
    """A fault of the data on its way back."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _unpacked(packed: bytes) -> Any:
    found = pickle.loads(packed)  # noqa: S301, from our own workers
    if isinstance(found, _Fault):
        raise found.error
    return found


def _told(error: Exception) -> DataError:
    return DataError(f"Ray could not finish the work: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def start_here(n_cpus: int | None = None) -> tuple[ModuleType, bool]:
    """Start Ray on this machine alone, unless this process is connected to one already.

    All its servers listen on the loopback address, where Ray was not imported before; there is no dashboard.

    Parameters
    ----------
    n_cpus
        Processors that it gives out; all of the machine when not given.

    Returns
    -------
    ModuleType, bool
        Ray, and whether it was started.

    Raises
    ------
    DataError
        Ray is not installed or cannot be started.
    """
    for name, value in _HERE.items():
        os.environ.setdefault(name, value)
    return _begin(
        "on this machine",
        address="local",
        num_cpus=n_cpus or os.cpu_count(),
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
    )


def _connect(address: str) -> tuple[ModuleType, bool]:
    import_ray("ray")
    _refuse_silence(address)
    return _begin(f"at {address}", address=address)


def _begin(where: str, **options: Any) -> tuple[ModuleType, bool]:
    ray = import_ray("ray")
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"no Ray cluster {where}: {_first_line(error)}") from error
    return ray, True


def _refuse_silence(address: str) -> None:
    """Refuse an address at which nobody listens: Ray itself would wait for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise DataError(f"no Ray cluster at {address!r}: wanted host:port or auto")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS):
            pass
    except (OSError, OverflowError) as error:
        raise DataError(
            f"no Ray cluster at {address}: {getattr(error, 'strerror', None) or error}"
        ) from error
