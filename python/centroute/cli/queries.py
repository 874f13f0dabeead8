"""Queries of the command line, one by one: texts given as arguments, or the lines of standard input."""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from centroute.cli import screen
from centroute.errors import DataError

T = TypeVar("T")


def for_each_query(
    texts: Sequence[str],
    decide: Callable[[str], T],
    *,
    explain: Callable[[T], str],
    to_json: Callable[[T], dict[str, object]],
    as_json: bool,
) -> None:
    """Decide on every query and print what was decided; one at fault is told, and the rest go on."""
    if not texts and sys.stdin.isatty():
        screen.warn("one query a line; end with Ctrl-D")
    place = "text" if texts else "stdin line"
    n_faults = 0
    for number, text in enumerate(texts or _lines(), start=1):
        try:
            decision = decide(text)
        except DataError as error:
            n_faults += 1
            message = f"{place} {number} {str(error).removeprefix('text 0 ')}"
            screen.warn(message)
            if as_json:
                # Keeps the answers beside their questions.
                sys.stdout.write(json.dumps({"error": message}) + "\n")
            continue
        if as_json:
            sys.stdout.write(json.dumps(to_json(decision), allow_nan=False) + "\n")
            sys.stdout.flush()
        else:
            screen.out.print(f"› {_printable(text)}", style="dim")
            screen.out.print(explain(decision))
    if n_faults:
        sys.exit(1)


def _printable(text: str) -> str:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 76 else shown[:75] + "…"
    # Control characters and lone surrogates are not for terminals.
    return "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cs"} else c for c in shown)


def _lines() -> Iterator[str]:
    """Lines of stdin as text; bytes that are no UTF-8 become lone surrogates, which the embedder replaces."""
    binary: Iterable[bytes] = sys.stdin.buffer
    for line in binary:
        yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
