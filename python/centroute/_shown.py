"""Values as people read them, in messages, tables and reports."""

import math

SHOWN_CHARACTERS = 80
"""Characters of a value that a message repeats."""


def show(value: object) -> str:
    """``repr`` of a value, at most about 80 characters of it, for an error message."""
    try:
        text = repr(value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def share(value: float | None) -> str:
    """A share of one with a tenth of a per cent."""
    return "unknown" if value is None else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """A difference of two shares in points of a hundred, with its sign."""
    return "unknown" if value is None else f"{100 * value:+.1f}"


def dollars(value: float | None) -> str:
    """USD with three significant digits."""
    if value is None or math.isnan(value):
        return "unknown"
    if value == 0:
        return "$0"
    digits = max(2, 2 - math.floor(math.log10(abs(value))))
    return f"${value:.{digits}f}"
