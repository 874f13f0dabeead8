"""The error classes of centroute: one a part, subclasses of ``ValueError`` where what was given is at fault.

The Rust binding raises the same classes, so ``except`` works alike on both sides. Messages are one line each,
as they go into logs and terminals: what they repeat of a file or a request has no control characters, line
breaks among them, and is cut where it is long.
"""

LONGEST_MESSAGE = 2000
"""Characters of a message."""


def one_line(message: object) -> str:
    r"""Make one line of a message that repeats what others wrote.

    Examples
    --------
    >>> print(one_line("unknown model 'a\nb\x1b[2J'"))
    unknown model 'a\nb\x1b[2J'
    """
    text = str(message)
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    if len(text) > LONGEST_MESSAGE:
        half = (LONGEST_MESSAGE - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return text


class _OneLineError(ValueError):
    """What was given is at fault."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class ArtifactError(_OneLineError):
    """A router file is damaged, of another version, or does not fit what it is used with."""


class DataError(_OneLineError):
    """Outcome data, query texts or embeddings cannot be used; names the file, line, row or value."""


class PolicyError(_OneLineError):
    """A policy is contradictory, names unknown models, or leaves no candidate."""


class EmbedderError(_OneLineError):
    """An embedder folder is incomplete, inconsistent or unknown."""


class OverloadError(RuntimeError):
    """More requests wait than the queue may hold: the request is fine, and may be sent again later."""
