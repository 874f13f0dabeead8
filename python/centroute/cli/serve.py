"""``centroute serve``."""

from importlib.util import find_spec
from pathlib import Path

from centroute.errors import DataError
from centroute.gateway.config import read_config

_NEEDED = ("starlette", "httpx", "uvicorn")


def run_serve(router_file: Path, *, config_file: Path, embedder: str | None) -> None:
    """Serve until told to stop.

    Raises
    ------
    DataError
        If the config is at fault, or a package of the extra is missing.
    """
    config = read_config(config_file)
    for package in _NEEDED:
        if find_spec(package) is None:
            raise DataError(f"serving needs {package}, which is missing: pip install 'centroute[serve]'")
    from centroute.gateway.server import RouterSource, serve

    serve(RouterSource(router_file, embedder, config.conversation), config)
