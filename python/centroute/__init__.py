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
    from centroute.ensemble import EnsembleDecision
    from centroute.microbatch import MicroBatch
    from centroute.voting import Vote, vote

__all__ = [
    "Artifact",
    "ArtifactError",
    "Conversation",
    "DataError",
    "Decision",
    "DecisionBatch",
    "EmbedderError",
    "EnsembleDecision",
    "KeptDecision",
    "MicroBatch",
    "OverloadError",
    "Policy",
    "PolicyError",
    "Router",
    "Session",
    "Vote",
    "__version__",
    "simd",
    "vote",
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
    # Ensembles and votes are for those who ask several models.
    if name in {"Vote", "vote"}:
        from centroute import voting

        return getattr(voting, name)
    if name == "EnsembleDecision":
        from centroute.ensemble import EnsembleDecision

        return EnsembleDecision
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
