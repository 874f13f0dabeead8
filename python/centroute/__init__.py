"""centroute: the right language model for each query, in microseconds.

>>> from centroute import Policy, Router
>>> router = Router.load("router.safetensors")  # doctest: +SKIP
>>> router.route("Prove that √2 is irrational").model  # doctest: +SKIP
'atlas-large'
"""

from typing import TYPE_CHECKING

from centroute._kernel import Decision, DecisionBatch, Policy, __version__, simd
from centroute.errors import ArtifactError, DataError, EmbedderError, PolicyError
from centroute.router import Router

if TYPE_CHECKING:
    from centroute.artifact import Artifact

__all__ = [
    "Artifact",
    "ArtifactError",
    "DataError",
    "Decision",
    "DecisionBatch",
    "EmbedderError",
    "Policy",
    "PolicyError",
    "Router",
    "__version__",
    "simd",
]


def __getattr__(name: str) -> object:
    # Loads NumPy, which those who only route texts do not need.
    if name == "Artifact":
        from centroute.artifact import Artifact

        return Artifact
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
