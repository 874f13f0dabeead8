"""Places that a command is told to write."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from centroute._atomic import write_atomic
from centroute.errors import ArtifactError, DataError


def refuse_unwritable(output: Path) -> None:
    """Refuse a place that cannot be written, before the long work.

    Raises
    ------
    ArtifactError
        If it is a folder, or its folder does not exist.
    """
    if output.is_dir():
        raise ArtifactError(f"{output}: cannot be written (it is a folder)")
    if not output.absolute().parent.is_dir():
        raise ArtifactError(f"{output}: cannot be written (there is no folder {output.absolute().parent})")


def write_json(output: Path, content: Mapping[str, object]) -> None:
    """Write one JSON object, to standard output where the path is ``-``.

    Raises
    ------
    DataError
        If the file cannot be written; nothing is half-written.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    if str(output) == "-":
        sys.stdout.write(text)
        return
    try:
        write_atomic(output, text.encode())
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error})") from error
