"""The error classes of centroute: one a part, subclasses of ``ValueError`` where what was given is at fault.

The Rust binding raises the same classes, so ``except`` works alike on both sides.
"""


class ArtifactError(ValueError):
    """A router file is damaged, of another version, or does not fit what it is used with."""


class DataError(ValueError):
    """Outcome data, query texts or embeddings cannot be used; names the file, line, row or value."""


class PolicyError(ValueError):
    """A policy is contradictory, names unknown models, or leaves no candidate."""


class EmbedderError(ValueError):
    """An embedder folder is incomplete, inconsistent or unknown."""


class OverloadError(RuntimeError):
    """More requests wait than the queue may hold: the request is fine, and may be sent again later."""
