"""``Router``: texts, conversations or embeddings in, decisions out.

NumPy is loaded by those who bring or take arrays: a service that routes texts starts without it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from centroute._fork import renewed_after_fork
from centroute._kernel import Counters, Decision, DecisionBatch, Kernel, Policy
from centroute._loaded import Loaded, Query
from centroute._router_file import FileStamp, file_stamp, find_embedder, load_kernel
from centroute.conversation import Conversation, is_short
from centroute.errors import ArtifactError, DataError, EmbedderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from centroute._router_file import Precision
    from centroute.artifact import Artifact
    from centroute.embedders import Embedder
    from centroute.ensemble import EnsembleDecision
    from centroute.microbatch import MicroBatch
    from centroute.plan import Plan
    from centroute.session import Decide, KeptDecision, Session
    from centroute.watch_file import Watch

T = TypeVar("T")


class Router:
    """A calibrated router, ready to decide. Safe to share between threads, tasks and forked processes.

    Made by :meth:`load`, or from an :class:`Artifact` in memory by :meth:`from_artifact`. It can be pickled,
    as for processes that are spawned: by its file where it has one, which is read again, else with its
    tables. The embedder is then found by its name.
    """

    # All that decides is in one object that is replaced as a whole: a request takes it once.
    __slots__ = (
        "__weakref__",
        "_changing",
        "_failure",
        "_loaded",
        "_named_embedder",
        "_precision",
        "_source",
    )

    def __init__(
        self,
        kernel: Kernel,
        *,
        embedder: Embedder | None = None,
        conversation: Conversation | None = None,
        microbatch: MicroBatch | None = None,
    ) -> None:
        loaded = Loaded(kernel=kernel, conversation=conversation or Conversation(), microbatch=microbatch)
        self._loaded = loaded if embedder is None else loaded.with_embedder(embedder)
        self._source: tuple[Path, FileStamp | None] | None = None
        self._precision: Precision | None = None
        # By which name or from which folder the caller wants the embedder; the artifact's name when None.
        self._named_embedder: str | os.PathLike[str] | None = None
        self._failure: EmbedderError | None = None
        self.renew_after_fork()
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """Make anew the lock that another thread may have held when this process was forked."""
        # Held by whoever loads something; deciding never takes it.
        self._changing = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        embedder: Embedder | str | os.PathLike[str] | None = None,
        precision: Precision | None = None,
        conversation: Conversation | None = None,
        microbatch: MicroBatch | None = None,
    ) -> Router:
        """Read and validate a router file.

        Parameters
        ----------
        path
            File written by ``calibrate``, or the folder of a bundle written by ``centroute export``.
        embedder
            Embedder for texts, its name or its folder; by default that of the bundle, else the one that the
            artifact names, loaded when the first text comes.
        precision
            In which precision one query is searched: ``"f32"``, ``"f16"`` or ``"i8"``, which need half and a
            quarter of the memory traffic and choose the same clusters; that of the file when not given.
        conversation
            Which part of a conversation is embedded; the last user message when not given.
        microbatch
            How texts that come at the same time are embedded in one call of an ONNX graph; each alone when
            not given, which is faster on the CPU. A static embedder has no use for it.

        Raises
        ------
        ArtifactError
            If the file is missing, damaged, altered or of another version.
        EmbedderError
            If the embedder is not the one that the centroids were fitted on.
        """
        source = (Path(path), file_stamp(path))
        kernel = load_kernel(path, precision=precision)
        named = embedder if isinstance(embedder, str | os.PathLike) else None
        if isinstance(embedder, str | os.PathLike):
            from centroute.embedders import load_embedder

            embedder = load_embedder(embedder)
        elif embedder is None:
            _import_for(kernel)
        router = cls(kernel, embedder=embedder, conversation=conversation, microbatch=microbatch)
        router._source = source
        router._precision = precision
        router._named_embedder = named
        return router

    @classmethod
    def from_artifact(
        cls,
        artifact: Artifact,
        *,
        embedder: Embedder | None = None,
        precision: Precision | None = None,
        conversation: Conversation | None = None,
        microbatch: MicroBatch | None = None,
    ) -> Router:
        """Route with an artifact that was not written to a file. The options are those of :meth:`load`.

        Raises
        ------
        ArtifactError
            If the artifact is not valid.
        EmbedderError
            If the embedder is not the one that the centroids were fitted on.
        """
        return cls._from_bytes(
            artifact.to_bytes(),
            embedder=embedder,
            precision=precision,
            conversation=conversation,
            microbatch=microbatch,
        )

    @classmethod
    def _from_bytes(cls, data: bytes, *, precision: Precision | None, **options: Any) -> Router:
        router = cls(Kernel(data, precision=precision), **options)
        router._precision = precision
        return router

    def __reduce__(self) -> tuple[Any, ...]:
        loaded = self._loaded
        options: dict[str, Any] = {
            "precision": self._precision,
            "conversation": loaded.conversation,
            "microbatch": loaded.microbatch,
        }
        # functools.partial carries keyword arguments through pickle.
        if self._source is not None:
            load = partial(Router.load, embedder=self._named_embedder, **options)
            return load, (self._source[0].absolute(),)
        return partial(Router._from_bytes, **options), (self.artifact.to_bytes(),)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the pool, in the order of the model ids."""
        return self._loaded.kernel.models

    @property
    def top_p(self) -> int:
        """Number of clusters blended for a query."""
        return self._loaded.kernel.top_p

    @property
    def beta(self) -> float:
        """Sharpness of the softmax over similarities."""
        return self._loaded.kernel.beta

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self._loaded.kernel.dim

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return self._loaded.kernel.n_clusters

    @property
    def precision(self) -> str:
        """Precision in which one query is searched."""
        return self._loaded.kernel.precision

    @property
    def simd(self) -> str:
        """Instruction set in use, see :func:`centroute.simd`."""
        return self._loaded.kernel.simd

    @property
    def generation(self) -> int:
        """Which loading of the router decides."""
        return self._loaded.kernel.generation

    @property
    def source(self) -> tuple[Path, FileStamp | None] | None:
        """The file that was loaded last and its state before it was read; None for an artifact in memory."""
        return self._source

    @property
    def conversation(self) -> Conversation:
        """Which part of a conversation is embedded."""
        return self._loaded.conversation

    @property
    def counters(self) -> Counters:
        """What was decided so far, as :mod:`centroute.metrics` shows it; kept when the router is reloaded."""
        return self._loaded.kernel.counters

    @property
    def artifact(self) -> Artifact:
        """Tables and provenance of what is loaded, copied."""
        from centroute.artifact import Artifact

        return Artifact.from_kernel(self._loaded.kernel)

    @property
    def embedder(self) -> Embedder:
        """The embedder for texts, loaded at first use.

        Raises
        ------
        EmbedderError
            If it is not found, or is not the one that the centroids were fitted on.
        """
        return self._ready().embedder  # type: ignore[return-value]

    @property
    def _kernel(self) -> Kernel:
        return self._loaded.kernel

    def _ready(self) -> Loaded:
        """What is loaded, with its embedder. Whoever comes while that is being loaded waits for it."""
        loaded = self._loaded
        if loaded.embedder is not None:
            return loaded
        earlier = self._failure
        with self._changing:
            loaded = self._loaded
            if loaded.embedder is not None:
                return loaded
            failure = self._failure
            if failure is not None and failure is not earlier:
                # It failed while this one waited for it: a crowd does not try one after another.
                raise EmbedderError(str(failure))
            from centroute.embedders import load_embedder

            try:
                file = None if self._source is None else self._source[0]
                loaded = loaded.with_embedder(load_embedder(find_embedder(file, loaded.kernel)))
            except EmbedderError as error:
                self._failure = EmbedderError(str(error))
                raise
            self._loaded = loaded
            return loaded

    def reload(self, path: str | os.PathLike[str] | None = None) -> int:
        """Serve another router file, or the same one as it is now, from the next request on.

        It is read and validated beside what serves, with its embedder where that is another one and the old
        one was in use; requests go on meanwhile, and each is decided by the old or the new one throughout.
        Takes milliseconds to seconds: in an event loop call it by ``asyncio.to_thread``.

        Parameters
        ----------
        path
            The file; the one that was loaded last when not given.

        Returns
        -------
        int
            The generation of the decisions to come, one more than before.

        Raises
        ------
        ArtifactError
            If the file is missing, damaged, altered or of another version, or the router was not loaded from
            one and none is named. What serves goes on serving, as after the next error.
        EmbedderError
            If the new router wants another embedder, which cannot be loaded.
        """
        with self._changing:
            if path is None and self._source is None:
                raise ArtifactError(
                    "reload: this router was not loaded from a file, so that one must be named"
                )
            file = Path(path) if path is not None else self._source[0]  # type: ignore[index]
            loaded = self._loaded
            source = (file, file_stamp(file))
            kernel = load_kernel(
                file,
                generation=loaded.kernel.generation + 1,
                precision=self._precision,
                counters=loaded.kernel.counters,
            )
            self._loaded = self._under(kernel, loaded, file)
            self._source = source
            return kernel.generation

    def _under(self, kernel: Kernel, loaded: Loaded, file: Path) -> Loaded:
        """What is loaded, under a new kernel: its embedder where that fits, else the one that is wanted."""
        try:
            return loaded.with_kernel(kernel)
        except EmbedderError:
            from centroute.embedders import load_embedder

            embedder = load_embedder(self._named_embedder or find_embedder(file, kernel))
            return Loaded(
                kernel=kernel, conversation=loaded.conversation, microbatch=loaded.microbatch
            ).with_embedder(embedder)

    def watch(self, path: str | os.PathLike[str] | None = None, *, interval: float = 1.0) -> Watch:
        """Reload whenever a file changes: a thread looks at its time, size and inode.

        Parameters
        ----------
        path
            The file; the one that was loaded last when not given. Replace it by renaming, as ``calibrate``
            and ``edit`` do: a file that is written in place can be seen half written, and is then refused
            until it is whole.
        interval
            Seconds between two looks.

        Returns
        -------
        Watch
            Ends with ``stop()``, or as a context manager. In a forked child it goes on with a thread there.

        Raises
        ------
        ArtifactError
            If the router was not loaded from a file and none is named.
        ValueError
            If the interval is not above 0.

        Examples
        --------
        >>> with router.watch(interval=5.0):  # doctest: +SKIP
        ...     serve(router)
        """
        from centroute.watch_file import Watch

        if not interval > 0:
            raise ValueError(f"interval: got {interval}, wanted seconds above 0")
        if path is None and self._source is None:
            raise ArtifactError("watch: this router was not loaded from a file, so that one must be named")
        return Watch(self, Path(path) if path is not None else self._source[0], interval=interval)  # type: ignore[index]

    @overload
    def route(self, query: Query, *, policy: Policy | None = None, session: None = None) -> Decision: ...
    @overload
    def route(
        self, query: Query, *, policy: Policy | None = None, session: Session
    ) -> Decision | KeptDecision: ...
    def route(
        self, query: Query, *, policy: Policy | None = None, session: Session | None = None
    ) -> Decision | KeptDecision:
        """Decide one query.

        Parameters
        ----------
        query
            The user's text, or the messages of a conversation as OpenAI's API has them.
        policy
            What this request wants; the artifact's default holds for what it leaves open.
        session
            What the conversation keeps from turn to turn; see :mod:`centroute.session`.

        Raises
        ------
        DataError
            If the text is empty or holds nothing that the embedder knows, or a message is not of its form.
        PolicyError
            If the policy names unknown models, needs an unknown cost, or leaves no candidate.
        OverloadError
            If texts are embedded in batches and too many wait.
        """
        loaded = self._loaded
        static = loaded.static
        if static is not None and session is None and type(query) is str:
            return loaded.kernel.route_text(static, query, policy)
        return self._chosen(query, lambda loaded, decide: loaded.choose(decide, policy, session))

    def route_ensemble(
        self, query: Query, *, policy: Policy, n_choices: float | None = None
    ) -> EnsembleDecision:
        """Decide which models to ask about one query, and what the vote of each weighs.

        The answers are counted by :func:`centroute.vote`, which says when enough were asked.

        Parameters
        ----------
        query
            As of :meth:`route`.
        policy
            How many models: ``n_models`` at most, ``max_cost`` for all of them together,
            ``willingness_to_pay`` for as many as are worth their cost, ``min_quality`` for a vote predicted
            to be right that often. ``allow``, ``deny``, ``require`` and ``fallback`` hold as for one model.
        n_choices
            Answers that the query leaves open, where they are known: 4 for a question with four options.

        Returns
        -------
        EnsembleDecision
            One model where no other is worth asking, or where the fallback is taken.

        Raises
        ------
        ArtifactError
            If what the router file says of votes cannot be read.
        PolicyError
            As :meth:`route`; if the policy says nothing of how many, has an objective that says nothing of
            votes (``alpha``, ``max_mean_cost``), or leaves one model alone.
        DataError, OverloadError
            As :meth:`route`.
        """
        return self._chosen(query, lambda loaded, decide: loaded.ensemble(decide, policy, n_choices))

    def route_ensemble_embedding(
        self, embedding: NDArray[np.float32], *, policy: Policy, n_choices: float | None = None
    ) -> EnsembleDecision:
        """Decide on the ensemble of one embedding of your own, C-contiguous float32 ``[dim]``."""
        loaded = self._loaded
        return loaded.ensemble(partial(loaded.kernel.route, embedding), policy, n_choices)

    def route_ensemble_batch(
        self, queries: Sequence[Query], *, policy: Policy, n_choices: float | None = None
    ) -> list[EnsembleDecision]:
        """Decide on the ensembles of many queries, which are embedded together.

        Parameters and errors as :meth:`route_ensemble`, with the index.
        """
        _refuse_one_string(queries)
        loaded = self._ready()
        texts, systems = _read_all(loaded, queries)
        return [
            loaded.ensemble(partial(loaded.kernel.route, row), policy, n_choices)
            for row in loaded.embed(texts, systems=systems)
        ]

    def plan(self, query: Query, *, roles: Sequence[str], policy: Policy | None = None) -> Plan:
        """Assign a model to each role of an agent that is to work on one query.

        Parameters
        ----------
        query
            As of :meth:`route`.
        roles
            Their names, each once. A role without outcomes is predicted by the shared tables, and its entry
            in the plan says so.
        policy
            One budget for the whole plan: ``max_cost`` for all roles together, ``willingness_to_pay`` for
            one unit of quality of one role, ``min_quality`` for the cheapest plan whose mean quality reaches
            it; the best plan otherwise. ``allow``, ``deny`` and ``require`` hold for every role; the
            ``fallback`` takes all of them.

        Returns
        -------
        Plan
            A model for each role, and whether a single one for all of them does as well.

        Raises
        ------
        ArtifactError
            If what the router file says of roles cannot be read.
        PolicyError
            As :meth:`route`; if there is no role or one is there twice, if even the cheapest models cost more
            than ``max_cost`` together, or if the policy has an objective that says nothing of plans
            (``alpha``, ``max_mean_cost``, ``strong_share``).
        DataError, OverloadError
            As :meth:`route`.
        """
        return self._chosen(query, lambda loaded, decide: loaded.plan(decide, roles, policy))

    def plan_embedding(
        self, embedding: NDArray[np.float32], *, roles: Sequence[str], policy: Policy | None = None
    ) -> Plan:
        """Plan for one embedding of your own, C-contiguous float32 ``[dim]``."""
        loaded = self._loaded
        return loaded.plan(partial(loaded.kernel.route, embedding), roles, policy)

    @overload
    async def aroute(
        self, query: Query, *, policy: Policy | None = None, session: None = None
    ) -> Decision: ...
    @overload
    async def aroute(
        self, query: Query, *, policy: Policy | None = None, session: Session
    ) -> Decision | KeptDecision: ...
    async def aroute(
        self, query: Query, *, policy: Policy | None = None, session: Session | None = None
    ) -> Decision | KeptDecision:
        """Decide one query without holding the event loop.

        What takes microseconds is decided at once: texts of up to some thousand characters with a static
        embedder. All else, and the loading of the embedder, is done in a worker thread. Parameters and errors
        as :meth:`route`.
        """
        return await self._chosen_meanwhile(
            query, lambda loaded, decide: loaded.choose(decide, policy, session)
        )

    async def aroute_ensemble(
        self, query: Query, *, policy: Policy, n_choices: float | None = None
    ) -> EnsembleDecision:
        """Decide which models to ask, as :meth:`route_ensemble`, without holding the event loop."""
        return await self._chosen_meanwhile(
            query, lambda loaded, decide: loaded.ensemble(decide, policy, n_choices)
        )

    async def aplan(self, query: Query, *, roles: Sequence[str], policy: Policy | None = None) -> Plan:
        """Assign a model to each role, as :meth:`plan`, without holding the event loop."""
        return await self._chosen_meanwhile(query, lambda loaded, decide: loaded.plan(decide, roles, policy))

    def _chosen(self, query: Query, choose: Callable[[Loaded, Decide], T]) -> T:
        """What is chosen for a query that can be decided under any policy."""
        loaded = self._ready()
        return choose(loaded, loaded.under_any_policy(*loaded.read(query)))

    async def _chosen_meanwhile(self, query: Query, choose: Callable[[Loaded, Decide], T]) -> T:
        """The same: at once where that takes microseconds, else in a batch or a worker thread."""
        if is_short(query):
            loaded = self._loaded
            text, system = loaded.read(query)
            if loaded.is_quick(text, system):
                return choose(loaded, loaded.under_any_policy(text, system))
            if loaded.microbatch is not None:
                if loaded.embedder is None:
                    from centroute._workers import in_worker

                    loaded = await in_worker(self._ready)
                if loaded.batcher is not None:
                    return await loaded.in_batch(text, system, partial(choose, loaded))
        from centroute._workers import in_worker

        return await in_worker(self._chosen, query, choose)

    def time_stages(self, text: str, *, policy: Policy | None = None) -> tuple[int, int, int]:
        """Decide one text and tell the nanoseconds it took to tokenize, to embed and to decide.

        Errors as :meth:`route`.
        """
        loaded = self._ready()
        if loaded.static is not None:
            return loaded.kernel.time_stages(loaded.static, text, policy)
        started = time.perf_counter_ns()
        loaded.embedder.tokenize(text)  # type: ignore[union-attr]
        tokenized = time.perf_counter_ns()
        # Embedding tokenizes once more, which is taken off again.
        row = loaded.embed([text])[0]
        embedded = time.perf_counter_ns()
        loaded.kernel.route(row, policy)
        decided = time.perf_counter_ns()
        tokenizing = tokenized - started
        return tokenizing, max(0, embedded - tokenized - tokenizing), decided - embedded

    def route_batch(
        self,
        queries: Sequence[Query],
        *,
        policy: Policy | None = None,
        alpha: NDArray[np.float32] | None = None,
        willingness_to_pay: NDArray[np.float32] | None = None,
        allow: NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> DecisionBatch:
        """Decide many queries, texts and conversations: arrays with one row a query.

        The options are those of :meth:`route_embeddings`; ``threads`` is also how many a static embedder
        embeds on. Errors as :meth:`route`, with the index.
        """
        _refuse_one_string(queries)
        loaded = self._ready()
        options: dict[str, Any] = {
            "alpha": alpha,
            "willingness_to_pay": willingness_to_pay,
            "allow": allow,
            "threads": threads,
        }
        if loaded.static is not None:
            # To look at every item first would take 3 % of the time; what is no string is read below.
            with suppress(TypeError):
                return loaded.kernel.route_texts(loaded.static, queries, policy, **options)  # type: ignore[arg-type]
        texts, systems = _read_all(loaded, queries)
        if loaded.static is not None and not any(systems):
            return loaded.kernel.route_texts(loaded.static, texts, policy, **options)
        return loaded.kernel.route_batch(loaded.embed(texts, systems=systems), policy, **options)

    def route_embedding(self, embedding: NDArray[np.float32], *, policy: Policy | None = None) -> Decision:
        """Decide one embedding of your own, C-contiguous float32 ``[dim]``."""
        return self._loaded.kernel.route(embedding, policy)

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
        return self._loaded.kernel.route_batch(
            embeddings,
            policy,
            alpha=alpha,
            willingness_to_pay=willingness_to_pay,
            allow=allow,
            threads=threads,
        )

    def predict(self, embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Predicted quality and cost (USD, NaN when unknown) of every model, two arrays ``[n, n_models]``."""
        return self._loaded.kernel.predict(embeddings)

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
        return self._ready().embed(texts, allow_zero_rows=allow_zero_rows)

    def __repr__(self) -> str:
        return (
            f"Router({len(self.models)} models, {self.n_clusters} clusters, dim={self.dim}, "
            f"top_p={self.top_p}, beta={self.beta:g}, generation={self.generation})"
        )


def _import_for(kernel: Kernel) -> None:
    """Import what the embedder will need: in a worker, with the first text, it would hold an event loop."""
    import centroute.embedders.static

    name, _, fingerprint = kernel.embedder
    if fingerprint is not None and name not in centroute.embedders.bundled_names():
        with suppress(EmbedderError):  # of what is missing the first text tells
            import centroute.embedders.onnx


def _refuse_one_string(texts: Sequence[Query]) -> None:
    if isinstance(texts, str):
        raise DataError("texts: got one string, wanted a sequence of them")


def _read_all(loaded: Loaded, queries: Sequence[Query]) -> tuple[Sequence[str], list[str]]:
    """User's texts and system prompts; of texts alone there are no prompts. Names the index of a query."""
    if {str}.issuperset(map(type, queries)):
        return queries, []  # type: ignore[return-value]
    texts, systems = [], []
    for index, query in enumerate(queries):
        if isinstance(query, str):
            text, system = query, ""
        elif isinstance(query, Mapping):
            raise DataError(
                f"queries[{index}] is one message: put the messages of a conversation into a list"
            )
        elif isinstance(query, Sequence):
            try:
                text, system = loaded.read(query)
            except DataError as error:
                raise DataError(f"queries[{index}]: {error}") from None
        else:
            raise TypeError(f"texts[{index}] must be str, got {type(query).__name__}")
        texts.append(text)
        systems.append(system)
    return texts, systems
