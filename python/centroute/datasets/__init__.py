"""Outcome data: reading and writing it, splitting it by text, and the bundled synthetic sample."""

import os
from pathlib import Path

from centroute.datasets.jsonl import SUFFIXES, read_jsonl, write_jsonl
from centroute.datasets.outcomes import Outcomes, split_by_text, text_key
from centroute.datasets.synthetic import SYNTHETIC_NOTICE, example_queries, synthetic_outcomes
from centroute.errors import DataError

__all__ = [
    "SYNTHETIC_NOTICE",
    "Outcomes",
    "example_queries",
    "read_jsonl",
    "read_outcomes",
    "split_by_text",
    "synthetic_outcomes",
    "text_key",
    "write_jsonl",
]


def read_outcomes(path: str | os.PathLike[str]) -> Outcomes:
    """Read a file of outcomes in the form that its suffix tells.

    Parameters
    ----------
    path
        A ``.jsonl`` or ``.jsonl.gz`` file; letter case of the suffix does not matter.

    Raises
    ------
    DataError
        The suffix is none of these, the file cannot be read, or its content is at fault.
    """
    source = Path(path)
    if source.is_dir():
        raise DataError(f"{source}: is a directory, not a file of outcomes")
    if not source.exists():
        raise DataError(f"{source}: no such file")
    if not source.name.lower().endswith(SUFFIXES):
        readable = ", ".join(SUFFIXES)
        raise DataError(f"{source}: unknown suffix {source.suffix!r}; outcomes are read from {readable}")
    return read_jsonl(source)
