"""centroute: the right language model for each query, in microseconds.

>>> from centroute import Policy, Router
>>> router = Router.load("router.safetensors")  # doctest: +SKIP
>>> router.route("Prove that √2 is irrational").model  # doctest: +SKIP
'atlas-large'
"""

from typing import TYPE_CHECKING

from centroute._kernel import Decision, DecisionBatch, Policy, __version__, simd
from centroute.conversation import Conversation
from centroute.errors import ArtifactError, DataError, EmbedderError, OverloadError, PolicyError
from centroute.router import Router
from centroute.session import KeptDecision, Session

if TYPE_CHECKING:
    from centroute.artifact import Artifact
    from centroute.microbatch import MicroBatch

__all__ = [
    "Artifact",
    "ArtifactError",
    "Conversation",
    "DataError",
    "Decision",
    "DecisionBatch",
    "EmbedderError",
    "KeptDecision",
    "MicroBatch",
    "OverloadError",
    "Policy",
    "PolicyError",
    "Router",
    "Session",
    "__version__",
    "simd",
]


def __getattr__(name: str) -> object:
    # Loads NumPy, which those who only route texts do not need.
    if name == "Artifact":
        from centroute.artifact import Artifact

        return Artifact
    # Loads concurrent.futures, which those who embed each text alone do not need.
    if name == "MicroBatch":
        from centroute.microbatch import MicroBatch

        return MicroBatch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
