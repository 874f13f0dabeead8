"""``Router``: text or embeddings in, decisions out.

NumPy is loaded by those who bring or take arrays: a service that routes texts starts without it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from centroute._kernel import Decision, DecisionBatch, Kernel, Policy, StaticEmbedder, surface_features
from centroute._router_file import load_kernel
from centroute.errors import DataError, EmbedderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from centroute._router_file import Precision
    from centroute.artifact import Artifact
    from centroute.embedders import Embedder
    from centroute.surface import SurfaceFeatures


class Router:
    """A calibrated router, ready to decide. Safe to share between threads.

    Made by :meth:`load`, or from an :class:`Artifact` in memory by :meth:`from_artifact`.
    """

    __slots__ = ("_embedder", "_kernel", "_loading", "_static")

    def __init__(self, kernel: Kernel, *, embedder: Embedder | None = None) -> None:
        self._kernel = kernel
        self._embedder: Embedder | None = None
        # The embedder's part in the extension, where it has one: embedding and deciding are then one call.
        self._static: StaticEmbedder | None = None
        self._loading = threading.Lock()
        if embedder is not None:
            self._take(embedder)

    def _take(self, embedder: Embedder) -> None:
        _check_embedder(self._kernel, embedder)
        self._static = getattr(embedder, "static", None)
        self._embedder = embedder

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        embedder: Embedder | str | os.PathLike[str] | None = None,
        precision: Precision | None = None,
    ) -> Router:
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
        if isinstance(embedder, str | os.PathLike):
            from centroute.embedders import load_embedder

            embedder = load_embedder(embedder)
        return cls(kernel, embedder=embedder)

    @classmethod
    def from_artifact(
        cls, artifact: Artifact, *, embedder: Embedder | None = None, precision: Precision | None = None
    ) -> Router:
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
        from centroute.artifact import Artifact

        return Artifact.from_kernel(self._kernel)

    @property
    def embedder(self) -> Embedder:
        """The embedder for texts, loaded at first use.

        Raises
        ------
        EmbedderError
            If it is not found, or is not the one that the centroids were fitted on.
        """
        if self._embedder is None:
            from centroute.embedders import load_embedder

            # Whoever comes while it is being loaded waits for it.
            with self._loading:
                if self._embedder is None:
                    self._take(load_embedder(self._kernel.embedder[0]))
                return self._embedder  # type: ignore[return-value]
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
        static = self._static_embedder()
        if static is not None:
            return self._kernel.route_text(static, text, policy)
        return self._kernel.route(self.embed([text])[0], policy)

    def time_stages(self, text: str, *, policy: Policy | None = None) -> tuple[int, int, int]:
        """Decide one text and tell the nanoseconds it took to tokenize, to embed and to decide.

        Errors as :meth:`route`.
        """
        static = self._static_embedder()
        if static is not None:
            return self._kernel.time_stages(static, text, policy)
        started = time.perf_counter_ns()
        self.embedder.tokenize(text)
        tokenized = time.perf_counter_ns()
        # Embedding tokenizes once more, which is taken off again.
        row = self.embed([text])[0]
        embedded = time.perf_counter_ns()
        self._kernel.route(row, policy)
        decided = time.perf_counter_ns()
        tokenizing = tokenized - started
        return tokenizing, max(0, embedded - tokenized - tokenizing), decided - embedded

    def route_batch(
        self,
        texts: Sequence[str],
        *,
        policy: Policy | None = None,
        alpha: NDArray[np.float32] | None = None,
        willingness_to_pay: NDArray[np.float32] | None = None,
        allow: NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> DecisionBatch:
        """Decide many texts: arrays with one row a text.

        The options are those of :meth:`route_embeddings`; ``threads`` is also how many a static embedder
        embeds on. Errors as :meth:`route`, with the index.
        """
        _refuse_one_string(texts)
        static = self._static_embedder()
        if static is not None:
            return self._kernel.route_texts(
                static,
                texts,
                policy,
                alpha=alpha,
                willingness_to_pay=willingness_to_pay,
                allow=allow,
                threads=threads,
            )
        return self.route_embeddings(
            self.embed(texts),
            policy=policy,
            alpha=alpha,
            willingness_to_pay=willingness_to_pay,
            allow=allow,
            threads=threads,
        )

    def _static_embedder(self) -> StaticEmbedder | None:
        return self._static if self._embedder is not None else getattr(self.embedder, "static", None)

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

    def embed(self, texts: Sequence[str], *, allow_zero_rows: bool = False) -> NDArray[np.float32]:
        """Embed texts for routing, float32 ``[n, dim]``, surface features included where the router has them.

        Parameters
        ----------
        texts
            The queries.
        allow_zero_rows
            Whether a text that holds nothing that the embedder knows gets a row of zeros, which cannot be
            routed, and is no error.

        Raises
        ------
        DataError
            If a text is empty or holds nothing that the embedder knows; names its index.
        """
        _refuse_one_string(texts)
        embeddings = self.embedder.embed(texts)
        routable = embeddings.any(axis=1)
        if not (allow_zero_rows or routable.all()):
            index = int(routable.argmin())
            holds = "nothing that the embedder knows" if texts[index].strip() else "only spaces or nothing"
            raise DataError(f"text {index} holds {holds}: {texts[index][:80]!r}")
        surface = _surface(self._kernel)
        return embeddings if surface is None else surface.append(embeddings, surface_features(texts))

    def __repr__(self) -> str:
        return (
            f"Router({len(self.models)} models, {self.n_clusters} clusters, dim={self.dim}, "
            f"top_p={self.top_p}, beta={self.beta:g}, generation={self.generation})"
        )


def _refuse_one_string(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise DataError("texts: got one string, wanted a sequence of them")


def _surface(kernel: Kernel) -> SurfaceFeatures | None:
    """The features that this router has behind its embeddings."""
    stored = kernel.surface_features
    if stored is None:
        return None
    from centroute.surface import SurfaceFeatures

    name, weight, mean, scale = stored
    return SurfaceFeatures(weight=weight, mean=tuple(mean), scale=tuple(scale), name=name)


def _check_embedder(kernel: Kernel, embedder: Embedder) -> None:
    """Refuse an embedder that gives other rows than the centroids were fitted on."""
    name, wanted_dim, wanted = kernel.embedder
    surface = _surface(kernel)
    dim: int = embedder.dim
    fingerprint: str | None = embedder.fingerprint
    if surface is not None:
        from centroute.surface import routed_identity

        dim, fingerprint = routed_identity(embedder, surface)
    if dim != wanted_dim:
        raise EmbedderError(f"embedder {embedder.name}: dim {dim}, the router wants {wanted_dim}")
    if wanted is not None and fingerprint != wanted:
        raise EmbedderError(
            f"embedder {embedder.name}: fingerprint {(fingerprint or 'none')[:16]}…, the router was "
            f"calibrated with {name} {wanted[:16]}…; calibrate again or load that embedder"
        )
