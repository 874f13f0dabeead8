"""``Capabilities``: agents by what they can do, found by a query under a policy, and kept in one file.

Every text that says what an agent can do is a row, embedded as queries are; an agent is as near to a query as
its nearest row. The rows are searched in the kernel by an index (:mod:`centroute.calibrate.index`) where they
are many, and the policy's filters are applied during the search: a policy that leaves one agent in a hundred
still gets its nearest ones. Agents are added, replaced by newer versions and removed without building the
index anew; rows that came later are compared one by one until :meth:`Capabilities.rebuilt`.
"""

from __future__ import annotations

import math
import os
import threading
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from centroute._atomic import write_atomic
from centroute._kernel import Policy, RowIndex
from centroute._router_file import reason
from centroute._shown import dollars, show
from centroute.calibrate.index import build_index
from centroute.calibrate.index_probes import Index
from centroute.capabilities.agents import Agent, newest, version_order
from centroute.embedders import Embedder, load_embedder
from centroute.errors import ArtifactError, DataError, EmbedderError, PolicyError

N_NEAREST: Final = 32
"""Agents nearest to the query among which a price is weighed against how near they are."""
MAX_TOP_P: Final = 1024
"""Rows that one search finds at most."""
MAX_FILTERS: Final = 64
"""Policies whose filters are kept."""

_FOR_CALIBRATED: Final = {
    "alpha": "give willingness_to_pay",
    "max_mean_cost": "give max_cost, the most that a call may cost",
    "strong": "give allow",
    "n_models": "give n, how many agents are wanted",
    "fallback": "nothing is out of distribution here; give min_quality",
}
"""What needs calibrated outcomes, and what may be given instead."""


@dataclass(frozen=True, slots=True)
class Match:
    """An agent that fits a query.

    Attributes
    ----------
    agent, version
        Which.
    similarity
        Cosine of the query and the nearest of the agent's rows, -1 to 1.
    cost_usd
        Of a call, None when unknown.
    """

    agent: str
    version: str
    similarity: float
    cost_usd: float | None


@dataclass(slots=True, eq=False)
class _Agents:
    """The agents by number; a number is given once, so that an old search reads what it found."""

    ids: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    tags: list[frozenset[str]] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    """NaN where unknown."""
    live: dict[str, int] = field(default_factory=dict)
    """Number of each agent that is not removed."""

    def append(self, agent: Agent) -> int:
        self.ids.append(agent.id)
        self.versions.append(agent.version)
        self.tags.append(agent.tags)
        self.costs.append(math.nan if agent.cost_usd is None else agent.cost_usd)
        return len(self.ids) - 1


class Capabilities:
    """Agents that can be found by what they can do. Safe to share between threads.

    Made by :meth:`build` or :meth:`load`.

    Examples
    --------
    >>> tools = [
    ...     Agent("weather", capabilities=("forecast of rain and wind for a city",), cost_usd=0.001),
    ...     Agent("ledger", "2.1", ("books invoices",), tags=frozenset({"eu"}), cost_usd=0.002),
    ... ]
    >>> capabilities = Capabilities.build(tools)
    >>> capabilities.match("Will it rain in Oslo tomorrow?")[0].agent
    'weather'
    >>> capabilities.match("Will it rain in Oslo tomorrow?", policy=Policy(require={"eu"}))[0].agent
    'ledger'
    """

    __slots__ = ("_agents", "_changing", "_embedder", "_filters", "_index", "_owners", "_parts", "_rows_of")

    def __init__(
        self,
        agents: _Agents,
        rows: NDArray[np.float32],
        owners: NDArray[np.int32],
        parts: Index | None,
        embedder: Embedder,
    ) -> None:
        self._agents = agents
        self._embedder = embedder
        self._parts = parts
        self._index = RowIndex(
            rows, owners=owners, n_owners=len(agents.ids), index=None if parts is None else dict(parts)
        )
        order = np.argsort(owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=len(agents.ids)))
        self._owners = array("i", owners.tolist())
        self._rows_of = {
            number: part.tolist() for number, part in enumerate(np.split(order, ends[:-1])) if len(part)
        }
        self._filters: dict[Policy, tuple[int, NDArray[np.bool_]]] = {}
        self._changing = threading.Lock()

    # -- made, read and written --------------------------------------------------------------

    @classmethod
    def build(
        cls, agents: Iterable[Agent], *, embedder: Embedder | str = "static-256", seed: int = 0
    ) -> Capabilities:
        """Embed what agents can do, and build the index.

        Parameters
        ----------
        agents
            The newest version of each counts.
        embedder
            An embedder, its name or its folder.
        seed
            Of the index.

        Raises
        ------
        DataError
            If there is no agent, a text holds nothing that the embedder knows, or vectors are of another dim.
        EmbedderError
            If the embedder cannot be loaded.
        """
        loaded = load_embedder(embedder) if isinstance(embedder, str) else embedder
        chosen = newest(agents)
        if not chosen:
            raise DataError("capabilities: there is no agent")
        rows, counts = _rows(chosen, loaded)
        numbered = _Agents()
        for agent in chosen:
            numbered.live[agent.id] = numbered.append(agent)
        owners = np.repeat(np.arange(len(chosen), dtype=np.int32), counts)
        return cls(numbered, rows, owners, build_index(rows, seed=seed), loaded)

    def rebuilt(self, *, seed: int = 0) -> Capabilities:
        """The same agents with an index over all of them."""
        agents, rows, owners, _ = self._compacted()
        return Capabilities(agents, rows, owners, build_index(rows, seed=seed), self._embedder)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, embedder: Embedder | str | None = None) -> Capabilities:
        """Read and check a file of capabilities.

        Parameters
        ----------
        path
            The file.
        embedder
            Where the file's own embedder is elsewhere.

        Raises
        ------
        ArtifactError
            If the file is missing, damaged, altered or of another version; names it.
        EmbedderError
            If the embedder cannot be loaded or is not the one that the rows are of.
        """
        from centroute.capabilities.file import read_file

        found = read_file(Path(path))
        loaded = embedder or found.embedder_name
        if isinstance(loaded, str):
            loaded = load_embedder(loaded)
        if loaded.dim != found.rows.shape[1] or loaded.fingerprint != found.fingerprint:
            raise EmbedderError(
                f"{os.fspath(path)}: embedder {loaded.name} is not the one that its rows are of, "
                f"{found.embedder_name} {(found.fingerprint or 'none')[:16]}…"
            )
        agents = _Agents(found.ids, found.versions, found.tags, found.costs)
        agents.live = {name: number for number, name in enumerate(agents.ids)}
        try:
            return cls(agents, found.rows, found.owners, found.parts, loaded)
        except (ArtifactError, DataError) as error:
            raise ArtifactError(f"{os.fspath(path)}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically; removed rows and older versions are left out.

        Raises
        ------
        ArtifactError
            If the path cannot be written; nothing is half-written.
        """
        from centroute.capabilities.file import Contents, to_bytes

        agents, rows, owners, parts = self._compacted()
        contents = Contents(
            ids=agents.ids,
            versions=agents.versions,
            tags=agents.tags,
            costs=agents.costs,
            rows=rows,
            owners=owners,
            parts=parts,
            embedder_name=self._embedder.name,
            fingerprint=self._embedder.fingerprint,
        )
        try:
            write_atomic(path, to_bytes(contents))
        except OSError as error:
            raise ArtifactError(f"{os.fspath(path)}: cannot be written ({reason(error)})") from error

    # -- what is there -----------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of agents."""
        return len(self._agents.live)

    def __contains__(self, agent: object) -> bool:
        """Whether there is an agent of this id."""
        return agent in self._agents.live

    def version(self, agent: str) -> str:
        """The version of an agent that is there.

        Raises
        ------
        KeyError
            If there is none.
        """
        return self._agents.versions[self._agents.live[agent]]

    @property
    def n_rows(self) -> int:
        """Rows of all agents."""
        return int(self._index.n_live)

    @property
    def n_behind(self) -> int:
        """Rows that came after the index was built and are compared one by one; 0 where there is none."""
        return 0 if self._parts is None else int(self._index.n_rows) - _n_listed(self._parts)

    @property
    def embedder(self) -> Embedder:
        """What embeds queries and texts."""
        return self._embedder

    # -- changed -----------------------------------------------------------------------------

    def add(self, agents: Iterable[Agent]) -> int:
        """Add agents, and put newer versions in the place of older ones; the index is not built anew.

        Returns
        -------
        int
            How many were replaced.

        Raises
        ------
        DataError
            If a version is there already or an older one than what is there, a text holds nothing that the
            embedder knows, or vectors are of another dim. Nothing is changed then.
        """
        chosen = newest(agents)
        if not chosen:
            return 0
        rows, counts = _rows(chosen, self._embedder)
        with self._changing:
            for agent in chosen:
                known = self._agents.live.get(agent.id)
                if known is not None:
                    _check_is_newer(agent, self._agents.versions[known])
            numbers = [self._agents.append(agent) for agent in chosen]
            owners = np.repeat(np.array(numbers, dtype=np.int32), counts)
            # Known before they can be found.
            self._owners.extend(owners.tolist())
            first = self._index.add(rows, owners)
            replaced = [self._agents.live[agent.id] for agent in chosen if agent.id in self._agents.live]
            for agent, number, count in zip(chosen, numbers, counts, strict=True):
                self._rows_of[number] = list(range(first, first + count))
                self._agents.live[agent.id] = number
                first += count
            self._drop(replaced)
        return len(replaced)

    def remove(self, agents: Iterable[str]) -> None:
        """Remove agents by their ids.

        Raises
        ------
        DataError
            If there is none of an id; nothing is changed then.
        """
        names = dict.fromkeys(agents)
        with self._changing:
            for name in names:
                if name not in self._agents.live:
                    raise DataError(f"capabilities: there is no agent {show(name)}")
            if len(names) == len(self._agents.live):
                raise DataError("capabilities: no agent would be left")
            self._drop([self._agents.live.pop(name) for name in names])

    def _drop(self, numbers: Sequence[int]) -> None:
        self._index.remove([row for number in numbers for row in self._rows_of.pop(number)])
        # Names that they hold may be nobody's now.
        self._filters.clear()

    # -- searched ----------------------------------------------------------------------------

    def match(self, query: str, *, policy: Policy | None = None, n: int = 5) -> tuple[Match, ...]:
        """Find the agents that fit a query.

        Parameters
        ----------
        query
            The text.
        policy
            ``allow`` and ``deny`` name agents, ``require`` tags, ``max_cost`` is the most that a call may
            cost. Without an objective the nearest agents come first. ``willingness_to_pay``, in USD for one
            unit of similarity, weighs nearness against cost among the nearest `N_NEAREST`; ``min_quality``
            puts the cheapest of them first whose similarity reaches it. Agents whose cost is unknown are no
            candidates where a limit or a price is given.
        n
            At most so many.

        Returns
        -------
        tuple[Match, ...]
            At least one, the best first.

        Raises
        ------
        DataError
            If the text holds nothing that the embedder knows.
        PolicyError
            If the policy names an agent or a tag that nobody has, allows nobody, or has an objective that
            needs calibrated outcomes.
        """
        row = self._embedder.embed([query])[0]
        if not row.any():
            raise DataError(f"text 0 holds nothing that the embedder knows: {show(query)}")
        return self.match_embedding(row, policy=policy, n=n)

    def match_embedding(
        self, embedding: NDArray[np.float32], *, policy: Policy | None = None, n: int = 5
    ) -> tuple[Match, ...]:
        """Find the agents that fit an embedding of your own, float32 ``[dim]``; see :meth:`match`."""
        asked = policy or Policy()
        _check_objective(asked)
        if n < 1:
            raise PolicyError(f"n: got {n}, wanted 1 or more")
        amount, least = asked.willingness_to_pay, asked.min_quality
        found = self._nearest(embedding, asked, n if amount is None and least is None else max(n, N_NEAREST))
        if amount is not None:
            found.sort(key=lambda match: (match.cost_usd or 0.0) - amount * match.similarity)
        elif least is not None:
            good = [match for match in found if match.similarity >= least]
            good.sort(key=lambda match: math.inf if match.cost_usd is None else match.cost_usd)
            found = good + [match for match in found if match.similarity < least]
        return tuple(found[:n])

    def _nearest(self, embedding: NDArray[np.float32], policy: Policy, n: int) -> list[Match]:
        """The nearest agents that a policy allows, nearest first."""
        agents, top_p = self._agents, min(n, MAX_TOP_P)
        while True:
            allowed = self._filter(policy)
            try:
                rows, similarities = self._index.search(embedding, top_p, allowed)
            except DataError:
                if allowed is not None and len(allowed) != self._index.n_owners:
                    continue  # Agents were added in between.
                raise
            best: dict[int, float] = {}
            for row, similarity in zip(rows.tolist(), similarities.tolist(), strict=True):
                number = self._owners[row]
                # Unless it was replaced or removed in between.
                if agents.live.get(agents.ids[number]) == number:
                    best.setdefault(number, similarity)
            if len(best) >= n or len(rows) < top_p or top_p == MAX_TOP_P:
                break
            # Several rows of one agent were near.
            top_p = min(4 * top_p, MAX_TOP_P)
        return [
            Match(agents.ids[number], agents.versions[number], similarity, _known(agents.costs[number]))
            for number, similarity in list(best.items())[:n]
        ]

    def _filter(self, policy: Policy) -> NDArray[np.bool_] | None:
        """Which agents a policy allows, by number; None for all."""
        counts_cost = policy.max_cost is not None or policy.willingness_to_pay is not None
        if not counts_cost and policy.allow is None and policy.deny is None and policy.require is None:
            return None
        n_agents = self._index.n_owners
        known = self._filters.get(policy)
        if known is not None and known[0] == n_agents:
            return known[1]
        agents = self._agents
        allowed = np.ones(n_agents, dtype=np.bool_)
        if counts_cost:
            costs = np.array(agents.costs[:n_agents])
            # NaN, for unknown, is no number below a limit.
            allowed &= costs <= (math.inf if policy.max_cost is None else policy.max_cost)
        if policy.allow is not None:
            named = np.zeros_like(allowed)
            named[self._numbers("allow", policy.allow)] = True
            allowed &= named
        if policy.deny is not None:
            allowed[self._numbers("deny", policy.deny)] = False
        for tag in sorted(policy.require or ()):
            has_tag = np.fromiter((tag in tags for tags in agents.tags[:n_agents]), np.bool_, n_agents)
            if not has_tag.any():
                raise PolicyError(f"policy require: no agent has the tag {show(tag)}")
            allowed &= has_tag
        live = np.fromiter(agents.live.values(), np.intp, len(agents.live))
        if not allowed[live[live < n_agents]].any():
            raise PolicyError(f"capabilities: {_limits(policy)} leaves none of {len(agents.live)} agents")
        if len(self._filters) >= MAX_FILTERS:
            self._filters.clear()
        self._filters[policy] = (n_agents, allowed)
        return allowed

    def _numbers(self, field_name: str, names: Iterable[str]) -> list[int]:
        live = self._agents.live
        for name in sorted(names):
            if name not in live:
                raise PolicyError(f"policy {field_name}: there is no agent {show(name)}")
        return [live[name] for name in names]

    # -- kept --------------------------------------------------------------------------------

    def _compacted(
        self,
    ) -> tuple[_Agents, NDArray[np.float32], NDArray[np.int32], Index | None]:
        """Agents, rows, owners and index without what was removed or replaced, numbered anew."""
        with self._changing:
            old, owners = self._agents, self._index.owners
            live = sorted(old.live.values())
            agents = _Agents(
                ids=[old.ids[number] for number in live],
                versions=[old.versions[number] for number in live],
                tags=[old.tags[number] for number in live],
                costs=[old.costs[number] for number in live],
            )
            agents.live = {name: number for number, name in enumerate(agents.ids)}
            kept = owners >= 0
            renumbered = np.full(len(old.ids), -1, dtype=np.int32)
            renumbered[live] = np.arange(len(live), dtype=np.int32)
            parts = None if self._parts is None else _without(self._parts, kept)
            return agents, self._index.rows[kept], renumbered[owners[kept]], parts


def _without(parts: Index, kept: NDArray[np.bool_]) -> Index:
    """The index of the rows that are kept, numbered anew."""
    numbers = np.cumsum(kept, dtype=np.int64) - 1
    members, offsets = parts["index.members"], parts["index.list_offsets"]
    is_kept = kept[members]
    before = np.concatenate([[0], np.cumsum(is_kept)])
    return {
        **parts,
        "index.members": numbers[members[is_kept]].astype(np.int32),
        "index.list_offsets": before[offsets].astype(np.int32),
    }


def _n_listed(parts: Index) -> int:
    """Rows that lie in the lists of an index."""
    members = parts["index.members"]
    return int(members.max()) + 1 if len(members) else 0


def _rows(agents: Sequence[Agent], embedder: Embedder) -> tuple[NDArray[np.float32], list[int]]:
    """Rows of all agents, float32 ``[n_rows, dim]``, and how many each has."""
    texts = [text for agent in agents for text in agent.capabilities]
    embedded = embedder.embed(texts) if texts else np.empty((0, embedder.dim), dtype=np.float32)
    parts: list[NDArray[np.float32]] = []
    place = 0
    for agent in agents:
        if agent.vectors is not None:
            if agent.vectors.shape[1:] != (embedder.dim,):
                raise DataError(
                    f"agent {show(agent.id)}: vectors of {agent.vectors.shape[-1]} numbers, embedder "
                    f"{embedder.name} gives {embedder.dim}"
                )
            parts.append(agent.vectors)
            continue
        rows = embedded[place : place + len(agent.capabilities)]
        place += len(rows)
        if not len(rows):
            raise DataError(f"agent {show(agent.id)}: says nothing of what it can do")
        unknown = ~rows.any(axis=1)
        if unknown.any():
            text = agent.capabilities[int(unknown.argmax())]
            raise DataError(
                f"agent {show(agent.id)}: {show(text)} holds nothing that embedder {embedder.name} knows"
            )
        parts.append(rows)
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32), [len(part) for part in parts]


def _check_is_newer(agent: Agent, known: str) -> None:
    if version_order(agent.version) <= version_order(known):
        found = "is there already" if agent.version == known else f"is older than {known}, which is there"
        raise DataError(f"agent {show(agent.id)}: version {agent.version} {found}")


def _check_objective(policy: Policy) -> None:
    for name, advice in _FOR_CALIBRATED.items():
        if getattr(policy, name) is not None:
            raise PolicyError(f"policy {name}: it says nothing of capabilities; {advice}")


def _limits(policy: Policy) -> str:
    """The limits of a policy as people read them."""
    limits = [
        f"{name}={{{', '.join(sorted(values))}}}"
        for name in ("allow", "deny", "require")
        if (values := getattr(policy, name)) is not None
    ]
    if policy.max_cost is not None:
        limits.append(f"max_cost={dollars(policy.max_cost)}")
    elif policy.willingness_to_pay is not None:
        limits.append("willingness_to_pay, which needs known costs,")
    return " ".join(limits)


def _known(cost: float) -> float | None:
    return None if math.isnan(cost) else cost
