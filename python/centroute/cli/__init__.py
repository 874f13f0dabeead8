"""The command line ``centroute``. Exit codes: 0 done, 1 the data or request is at fault, 2 wrong usage."""

import io
import os
import sys

from centroute.cli.app import app
from centroute.errors import ArtifactError, DataError, EmbedderError, PolicyError, one_line

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; errors of the data or request are one line on stderr and exit code 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    try:
        app()
    except (ArtifactError, DataError, EmbedderError, PolicyError) as error:
        sys.stderr.write(f"centroute: {one_line(error)}\n")
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; what is still buffered goes nowhere.
        _discard_output()
        sys.exit(1)
    except OSError as error:
        _discard_output()
        sys.stderr.write(f"centroute: {one_line(error)}\n")
        sys.exit(1)
    except MemoryError as error:
        _discard_output()
        sys.stderr.write(f"centroute: not enough memory{f' ({one_line(error)})' if str(error) else ''}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("centroute: stopped\n")
        sys.exit(130)


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
