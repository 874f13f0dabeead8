"""Places that a command is told to write."""

from pathlib import Path

from centroute.errors import ArtifactError


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
