"""``Router``: text or embeddings in, decisions out."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Decision, DecisionBatch, Kernel, Policy
from centroute.artifact import Artifact, Precision, load_kernel
from centroute.errors import DataError, EmbedderError

if TYPE_CHECKING:
    from centroute.embedders import Embedder


class Router:
    """A calibrated router, ready to decide. Safe to share between threads.

    Made by :meth:`load`, or from an :class:`Artifact` in memory by :meth:`from_artifact`.
    """

    __slots__ = ("_embedder", "_kernel")

    def __init__(self, kernel: Kernel, *, embedder: "Embedder | None" = None) -> None:
        self._kernel = kernel
        self._embedder = embedder
        if embedder is not None:
            _check_embedder(kernel, embedder)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        embedder: "Embedder | str | None" = None,
        precision: Precision | None = None,
    ) -> "Router":
        """Read and validate a router file.

        Parameters
        ----------
        path
            File written by ``calibrate``.
        embedder
            Embedder for texts, its name or its folder; by default the one that the artifact names, loaded
            when the first text comes.
        precision
            In which precision one query is searched: ``"f32"``, ``"f16"`` or ``"i8"``, which need half and a
            quarter of the memory traffic and choose the same clusters; that of the file when not given.

        Raises
        ------
        ArtifactError
            If the file is missing, damaged, altered or of another version.
        EmbedderError
            If the embedder is not the one that the centroids were fitted on.
        """
        kernel = load_kernel(path, precision=precision)
        if isinstance(embedder, str):
            from centroute.embedders import load_embedder

            embedder = load_embedder(embedder)
        return cls(kernel, embedder=embedder)

    @classmethod
    def from_artifact(
        cls, artifact: Artifact, *, embedder: "Embedder | None" = None, precision: Precision | None = None
    ) -> "Router":
        """Route with an artifact that was not written to a file. The options are those of :meth:`load`.

        Raises
        ------
        ArtifactError
            If the artifact is not valid.
        EmbedderError
            If the embedder is not the one that the centroids were fitted on.
        """
        return cls(Kernel(artifact.to_bytes(), precision=precision), embedder=embedder)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the pool, in the order of the model ids."""
        return self._kernel.models

    @property
    def top_p(self) -> int:
        """Number of clusters blended for a query."""
        return self._kernel.top_p

    @property
    def beta(self) -> float:
        """Sharpness of the softmax over similarities."""
        return self._kernel.beta

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self._kernel.dim

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return self._kernel.n_clusters

    @property
    def precision(self) -> str:
        """Precision in which one query is searched."""
        return self._kernel.precision

    @property
    def simd(self) -> str:
        """Instruction set in use, see :func:`centroute.simd`."""
        return self._kernel.simd

    @property
    def generation(self) -> int:
        """Which loading of the router decides."""
        return self._kernel.generation

    @property
    def artifact(self) -> Artifact:
        """Tables and provenance of what is loaded, copied."""
        return Artifact.from_kernel(self._kernel)

    @property
    def embedder(self) -> "Embedder":
        """The embedder for texts, loaded at first use.

        Raises
        ------
        EmbedderError
            If it is not found, or is not the one that the centroids were fitted on.
        """
        if self._embedder is None:
            from centroute.embedders import load_embedder

            embedder = load_embedder(self._kernel.embedder[0])
            _check_embedder(self._kernel, embedder)
            self._embedder = embedder
        return self._embedder

    def route(self, text: str, *, policy: Policy | None = None) -> Decision:
        """Decide one text.

        Parameters
        ----------
        text
            The user's query.
        policy
            What this request wants; the artifact's default holds for what it leaves open.

        Raises
        ------
        DataError
            If the text is empty or holds nothing that the embedder knows.
        PolicyError
            If the policy names unknown models, needs an unknown cost, or leaves no candidate.
        """
        return self._kernel.route(self.embed([text])[0], policy)

    def route_batch(self, texts: Sequence[str], *, policy: Policy | None = None) -> DecisionBatch:
        """Decide many texts: arrays with one row a text. Errors as :meth:`route`, with the index."""
        return self._kernel.route_batch(self.embed(texts), policy)

    def route_embedding(self, embedding: NDArray[np.float32], *, policy: Policy | None = None) -> Decision:
        """Decide one embedding of your own, C-contiguous float32 ``[dim]``."""
        return self._kernel.route(embedding, policy)

    def route_embeddings(
        self,
        embeddings: NDArray[np.float32],
        *,
        policy: Policy | None = None,
        alpha: NDArray[np.float32] | None = None,
        willingness_to_pay: NDArray[np.float32] | None = None,
        allow: NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> DecisionBatch:
        """Decide many embeddings of your own.

        Parameters
        ----------
        embeddings
            C-contiguous float32 ``[n, dim]``; rows are normalised inside. Must not be written to meanwhile.
        policy
            What these requests want.
        alpha, willingness_to_pay
            Float32 ``[n]``: one of them takes the place of the policy's objective, row by row.
        allow
            Bool ``[n, n_models]``: models that each row allows; the policy's limits hold besides.
        threads
            Threads to decide on. The result is the same to the bit on any number.

        Raises
        ------
        DataError
            If the dtype, order or dim is another, or a row is not finite or zero; names the row.
        PolicyError
            As :meth:`route`; names the row where it is one row's.
        """
        return self._kernel.route_batch(
            embeddings,
            policy,
            alpha=alpha,
            willingness_to_pay=willingness_to_pay,
            allow=allow,
            threads=threads,
        )

    def predict(self, embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Predicted quality and cost (USD, NaN when unknown) of every model, two arrays ``[n, n_models]``."""
        return self._kernel.predict(embeddings)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts for routing, float32 ``[n, dim]``.

        Raises
        ------
        DataError
            If a text is empty or holds nothing that the embedder knows; names its index.
        """
        if isinstance(texts, str):
            raise DataError("texts: got one string, wanted a sequence of them")
        embeddings = self.embedder.embed(texts)
        routable = embeddings.any(axis=1)
        if not routable.all():
            index = int(np.argmin(routable))
            holds = "nothing that the embedder knows" if texts[index].strip() else "only spaces or nothing"
            raise DataError(f"text {index} holds {holds}: {texts[index][:80]!r}")
        return embeddings

    def __repr__(self) -> str:
        return (
            f"Router({len(self.models)} models, {self.n_clusters} clusters, dim={self.dim}, "
            f"top_p={self.top_p}, beta={self.beta:g}, generation={self.generation})"
        )


def _check_embedder(kernel: Kernel, embedder: "Embedder") -> None:
    """Refuse an embedder that gives other rows than the centroids were fitted on."""
    name, dim, fingerprint = kernel.embedder
    if embedder.dim != dim:
        raise EmbedderError(f"embedder {embedder.name}: dim {embedder.dim}, the router wants {dim}")
    if fingerprint is not None and embedder.fingerprint != fingerprint:
        raise EmbedderError(
            f"embedder {embedder.name}: fingerprint {embedder.fingerprint[:16]}…, the router was calibrated "
            f"with {name} {fingerprint[:16]}…; calibrate again or load that embedder"
        )
