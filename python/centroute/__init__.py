"""centroute: the right language model for each query, in microseconds.

>>> from centroute import Policy, Router
>>> router = Router.load("router.safetensors")  # doctest: +SKIP
>>> router.route("Prove that √2 is irrational").model  # doctest: +SKIP
'atlas-large'
"""

from centroute._kernel import Decision, DecisionBatch, Policy, __version__, simd
from centroute.artifact import Artifact
from centroute.errors import ArtifactError, DataError, EmbedderError, PolicyError
from centroute.router import Router

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
