"""``Loaded``: all that one generation of a router decides with, in one object that is swapped as a whole."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Final, TypeVar

from centroute._kernel import Decision, Kernel, Policy, StaticEmbedder, surface_features
from centroute._router_file import read_metadata
from centroute.conversation import Conversation, Message
from centroute.errors import DataError, EmbedderError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from centroute.agreement import Agreement
    from centroute.embedders import Embedder
    from centroute.ensemble import EnsembleDecision
    from centroute.microbatch import Batcher, MicroBatch
    from centroute.plan import Plan
    from centroute.roles import RoleScores
    from centroute.session import Decide, KeptDecision, Session
    from centroute.surface import SurfaceFeatures

T = TypeVar("T")
Query = str | Sequence[Message]
"""A text, or the messages of a conversation."""

# What an event loop may be held by: each bound is half a millisecond of the worst text that was found
# (benches/loop_hold.py); an English text of that length takes 20 to 150 µs.
QUICK_CHARACTERS: Final = 16_384
"""Characters up to which a static embedder embeds in microseconds: at most 35 µs for 1,000 of them."""
QUICK_CHARACTERS_OTHER_TOKENIZER: Final = 512
"""The same where the `tokenizers` crate tokenizes."""
QUICK_CENTROIDS: Final = 4_000_000
"""Numbers in the table of centroids up to which it is searched in microseconds."""
SYSTEM_ROWS: Final = 256
"""System prompts whose rows are kept."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A kernel and, once it was needed, its embedder. Never changed: who holds one sees no other."""

    kernel: Kernel
    conversation: Conversation
    microbatch: MicroBatch | None = None
    embedder: Embedder | None = None
    static: StaticEmbedder | None = field(init=False, default=None)
    """The embedder's part in the extension, where it has one: embedding and deciding are then one call."""
    batcher: Batcher | None = None

    def __post_init__(self) -> None:
        if self.embedder is not None:
            object.__setattr__(self, "static", getattr(self.embedder, "static", None))

    def with_embedder(self, embedder: Embedder) -> Loaded:
        """The same with its embedder.

        Raises
        ------
        EmbedderError
            If it is not the one that the centroids were fitted on.
        """
        check_embedder(self.kernel, embedder)
        batcher = None
        if self.microbatch is not None and getattr(embedder, "static", None) is None:
            from centroute.microbatch import Batcher

            batcher = Batcher(embedder, self.microbatch)
        return replace(self, embedder=embedder, batcher=batcher)

    def with_kernel(self, kernel: Kernel) -> Loaded:
        """The same embedder and its queue under another kernel.

        Raises
        ------
        EmbedderError
            If the embedder is not the one that these centroids were fitted on.
        """
        if self.embedder is not None:
            check_embedder(kernel, self.embedder)
        return replace(self, kernel=kernel)

    @cached_property
    def default_policy(self) -> Policy:
        """What holds for whatever a request leaves open."""
        stored = read_metadata(self.kernel).get("default_policy")
        return Policy(**(stored or {}))

    @cached_property
    def agreement(self) -> Agreement:
        """How the votes of the pool's models hang together; each for itself where the file does not say.

        Raises
        ------
        ArtifactError
            If what the file says cannot be read.
        """
        from centroute.agreement import Agreement

        stored = read_metadata(self.kernel).get("agreement")
        n_models = len(self.kernel.models)
        if stored is None:
            return Agreement.independent(n_models)
        return Agreement.from_json(stored, n_models=n_models)

    @cached_property
    def roles(self) -> dict[str, RoleScores]:
        """What each role of a plan changes, for those with outcomes.

        Raises
        ------
        ArtifactError
            If what the file says cannot be read.
        """
        from centroute.roles import roles_from_json

        return roles_from_json(read_metadata(self.kernel).get("roles") or {})

    def quality_se(self, clusters: Sequence[tuple[int, float]], model_id: int) -> float | None:
        """Standard error of a model's quality blended from clusters and weights, as the kernel's own."""
        if self._quality_errors is None:
            return None
        squares = ((weight * self._quality_errors[cluster][model_id]) ** 2 for cluster, weight in clusters)
        return math.sqrt(sum(squares))

    @cached_property
    def _quality_errors(self) -> list[list[float]] | None:
        stored = self.kernel.tensors().get("quality_se")
        return None if stored is None else stored.tolist()

    @cached_property
    def quick_characters(self) -> int:
        """Length of a text up to which embedding and deciding take microseconds; -1 where none does."""
        if self.static is None or not self._searches_quickly:
            return -1
        return QUICK_CHARACTERS if self.static.fallback_reason is None else QUICK_CHARACTERS_OTHER_TOKENIZER

    @cached_property
    def _searches_quickly(self) -> bool:
        return self.kernel.n_clusters * self.kernel.dim <= QUICK_CENTROIDS

    def read(self, query: Query) -> tuple[str, str]:
        """User's text and system prompt of a query; see `Conversation.read`."""
        return (query, "") if isinstance(query, str) else self.conversation.read(query)

    def is_quick(self, text: str, system: str) -> bool:
        """Whether an event loop may wait for the decision."""
        # With a system prompt there are two texts to embed, and NumPy to load.
        return not system and len(text) <= self.quick_characters

    def ensemble(self, decide: Decide, policy: Policy, n_choices: float | None) -> EnsembleDecision:
        """Decide whom to ask about the query of ``decide``; errors as `Router.route_ensemble`."""
        from centroute.ensemble import decide_ensemble

        return decide_ensemble(
            decide,
            policy,
            default=self.default_policy,
            models=self.kernel.models,
            agreement=self.agreement,
            n_choices=n_choices,
        )

    def plan(self, decide: Decide, roles: Sequence[str], policy: Policy | None) -> Plan:
        """Assign a model to each role for the query of ``decide``; errors as `Router.plan`."""
        from centroute.plan import decide_plan

        return decide_plan(
            decide,
            roles,
            policy,
            default=self.default_policy,
            models=self.kernel.models,
            scores=self.roles,
            error_of=self.quality_se,
        )

    def under_any_policy(self, text: str, system: str) -> Decide:
        """A query that was read, to be decided under whatever policy; errors as `Router.route`."""
        if self.static is not None and not system:
            return partial(self.kernel.route_text, self.static, text)
        return partial(self.kernel.route, self.embed([text], systems=[system])[0])

    async def in_batch(self, text: str, system: str, choose: Callable[[Decide], T]) -> T:
        """Choose for one query whose text is embedded with those of other tasks; there must be a batcher."""
        import asyncio

        from centroute._workers import in_worker

        started = time.perf_counter_ns()
        row = await asyncio.wrap_future(self.batcher.submit(text))  # type: ignore[union-attr]
        self.kernel.counters.observe("embed", time.perf_counter_ns() - started)
        system_rows = [await in_worker(self._system_row, system)] if system else []
        rows = self.finish(row[None], [text], system_rows=system_rows)
        decide = partial(self.kernel.route, rows[0])
        return choose(decide) if self._searches_quickly else await in_worker(choose, decide)

    def choose(
        self, decide: Decide, policy: Policy | None, session: Session | None
    ) -> Decision | KeptDecision:
        """Decide on one model for the query of ``decide``; errors as `Router.route`."""
        if session is None:
            return decide(policy)
        from centroute.session import stay_or_switch

        return stay_or_switch(decide, session, policy=policy, default=self.default_policy)

    def embed(
        self, texts: Sequence[str], *, systems: Sequence[str] = (), allow_zero_rows: bool = False
    ) -> NDArray[np.float32]:
        """Rows to route, float32 ``[n, dim]``; see `Router.embed`. Empty system prompts have no share."""
        started = time.perf_counter_ns()
        if self.batcher is not None and len(texts) == 1:
            embeddings = self.batcher.submit(texts[0]).result()[None]
        else:
            embeddings = self.embedder.embed(texts)  # type: ignore[union-attr]
        if len(texts) == 1:
            # As a decision sees it: tokenizing and waiting for others included.
            self.kernel.counters.observe("embed", time.perf_counter_ns() - started)
        rows = [self._system_row(system) if system else None for system in systems]
        return self.finish(embeddings, texts, system_rows=rows, allow_zero_rows=allow_zero_rows)

    def finish(
        self,
        embeddings: NDArray[np.float32],
        texts: Sequence[str],
        *,
        system_rows: Sequence[NDArray[np.float32] | None] = (),
        allow_zero_rows: bool = False,
    ) -> NDArray[np.float32]:
        """Make rows to route of embeddings ``[n, dim]``: system prompts blended in, surface features behind.

        Raises
        ------
        DataError
            If a text holds nothing that the embedder knows; names its index.
        """
        routable = embeddings.any(axis=1)
        if not (allow_zero_rows or routable.all()):
            index = int(routable.argmin())
            holds = "nothing that the embedder knows" if texts[index].strip() else "only spaces or nothing"
            refused = DataError(f"text {index} holds {holds}: {texts[index][:80]!r}")
            self.kernel.counters.count_refused(refused)
            raise refused
        for index, system_row in enumerate(system_rows):
            if system_row is not None:
                embeddings[index] = _blend(embeddings[index], system_row, self.conversation.system_share)
        surface = _surface(self.kernel)
        return embeddings if surface is None else surface.append(embeddings, surface_features(texts))

    @cached_property
    def _system_row(self) -> Callable[[str], NDArray[np.float32]]:
        def row(system: str) -> NDArray[np.float32]:
            rows = self.embedder.embed([system])  # type: ignore[union-attr]
            return rows.reshape(-1)

        return lru_cache(SYSTEM_ROWS)(row)


def _blend(
    row: NDArray[np.float32], system_row: NDArray[np.float32], system_share: float
) -> NDArray[np.float32]:
    """Two unit rows as one; a row of zeros, of which nothing is known, has no share."""
    import numpy as np

    if not (row.any() and system_row.any()):
        return row
    blended = (1 - system_share) * row + system_share * system_row
    norm = np.linalg.norm(blended)
    return np.asarray(blended / norm, dtype=np.float32) if norm > 0 else row


def _surface(kernel: Kernel) -> SurfaceFeatures | None:
    """The features that this router has behind its embeddings."""
    stored = kernel.surface_features
    if stored is None:
        return None
    from centroute.surface import SurfaceFeatures

    name, weight, mean, scale = stored
    return SurfaceFeatures(weight=weight, mean=tuple(mean), scale=tuple(scale), name=name)


def check_embedder(kernel: Kernel, embedder: Embedder) -> None:
    """Refuse an embedder that gives other rows than the centroids were fitted on.

    Raises
    ------
    EmbedderError
        If width or fingerprint are others.
    """
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
