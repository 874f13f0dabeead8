"""Agents and tools: what each can do, which version it is, and what a call costs; read from JSON lines.

::

    {"id": "invoices", "version": "2.1", "description": "Reads invoices and books them",
     "capabilities": ["find the due date of an invoice"], "tags": ["eu"], "cost_usd": 0.002}

``description`` and every one of ``capabilities`` become a row of their own, so that an agent is found by any
of them. In place of texts, ``vectors`` may hold rows of one's own. ``version`` is ``"1"`` where it is
missing; of several versions of one agent the newest counts. An unknown ``cost_usd`` is null or missing,
never 0.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from centroute._shown import show
from centroute.datasets.json_lines import Line, numbered_lines, opened
from centroute.errors import DataError

MAX_ROWS_OF_AN_AGENT: Final = 1024
"""Texts or vectors of one agent."""

_FIELDS = frozenset({"id", "version", "description", "capabilities", "vectors", "tags", "cost_usd"})
_PART = re.compile(r"\d+|[^\d.]+")


@dataclass(frozen=True, slots=True, eq=False)
class Agent:
    """One version of an agent or a tool.

    Attributes
    ----------
    id
        The name that policies use.
    version
        Compared part by part, numbers as numbers: ``"1.10"`` is newer than ``"1.9"``, ``"2.0"`` than
        ``"2.0-rc"``.
    capabilities
        Texts that say what it can do.
    vectors
        Rows ``[n_rows, dim]`` in place of texts, else None.
    tags
        What a policy may require.
    cost_usd
        Of a call, None when unknown.
    """

    id: str
    version: str = "1"
    capabilities: tuple[str, ...] = ()
    vectors: NDArray[np.float32] | None = None
    tags: frozenset[str] = frozenset()
    cost_usd: float | None = None


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """What versions are sorted by, the newest last.

    Examples
    --------
    >>> sorted(["1.10", "1.9", "2.0-rc1", "2.0", "2.0.1"], key=version_order)
    ['1.9', '1.10', '2.0-rc1', '2.0', '2.0.1']
    """
    parts = [(2, int(part), "") if part.isdecimal() else (0, 0, part) for part in _PART.findall(version)]
    # The end stands between text, which names what comes before a release, and a further number.
    return (*parts, (1, 0, ""))


def newest(agents: Iterable[Agent]) -> list[Agent]:
    """The newest version of every agent, in the order of their first versions."""
    found: dict[str, Agent] = {}
    for agent in agents:
        known = found.get(agent.id)
        if known is None or version_order(agent.version) > version_order(known.version):
            found[agent.id] = agent
    return list(found.values())


def read_agents(path: str | os.PathLike[str]) -> list[Agent]:
    """Read agents, one a line; all their versions.

    Parameters
    ----------
    path
        ``.jsonl``, or ``.jsonl.gz``.

    Raises
    ------
    DataError
        The file cannot be read or holds no agent, a line is at fault or says nothing of what the agent can
        do, or a version of an agent is there twice. Names file, line and field.
    """
    source = Path(path)
    agents: list[Agent] = []
    lines: dict[tuple[str, str], int] = {}
    dim: int | None = None
    with opened(source) as stream:
        for number, raw in numbered_lines(source, stream):
            line = Line(source, number, raw, fields=_FIELDS)
            agent = _agent(line)
            if (first := lines.setdefault((agent.id, agent.version), number)) != number:
                line.fail(
                    "version", f"{show(agent.id)} {show(agent.version)} is there twice, first in line {first}"
                )
            if agent.vectors is not None:
                dim = agent.vectors.shape[1] if dim is None else dim
                if agent.vectors.shape[1] != dim:
                    line.fail("vectors", f"have {agent.vectors.shape[1]} numbers, those before have {dim}")
            agents.append(agent)
    if not agents:
        raise DataError(f"{source}: holds no agent")
    return agents


def _agent(line: Line) -> Agent:
    for field in line.fields:
        if field not in _FIELDS:
            line.fail(field, f"is not known; there are {', '.join(sorted(_FIELDS))}")
    name = line.required("id")
    if not isinstance(name, str) or not name.strip():
        line.fail("id", f"must be a name, got {show(name)}")
    version = line.text("version", "1").strip()
    if not version:
        line.fail("version", "is empty")
    texts = _texts(line)
    vectors = _vectors(line)
    if texts and vectors is not None:
        line.fail("vectors", "are given beside texts; an agent has either")
    if not texts and vectors is None:
        line.fail(
            None, f"{show(name)} says nothing of what it can do: wanted description, capabilities or vectors"
        )
    return Agent(
        id=name,
        version=version,
        capabilities=texts,
        vectors=vectors,
        tags=frozenset(_strings(line, "tags")),
        cost_usd=line.amount("cost_usd", line.fields.get("cost_usd"), "amount of USD"),
    )


def _texts(line: Line) -> tuple[str, ...]:
    description = line.text("description", "")
    texts = ([description] if "description" in line.fields else []) + list(_strings(line, "capabilities"))
    for text in texts:
        if not text.strip():
            line.fail("description" if text is description else "capabilities", "holds an empty text")
    _check_count(line, "capabilities", texts)
    return tuple(dict.fromkeys(texts))


def _strings(line: Line, field: str) -> Sequence[str]:
    given = line.fields.get(field)
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        line.fail(field, f"must be a list of texts, got {show(given)}")
    return given


def _vectors(line: Line) -> NDArray[np.float32] | None:
    given = line.fields.get("vectors")
    if given is None:
        return None
    if not isinstance(given, list) or not given or not all(isinstance(row, list) and row for row in given):
        line.fail("vectors", f"must be a list of lists of numbers, got {show(given)}")
    _check_count(line, "vectors", given)
    widths = {len(row) for row in given}
    if len(widths) > 1:
        line.fail("vectors", f"must be of one length, got {', '.join(map(str, sorted(widths)))}")
    numbers = [line.number(f"vectors[{place}]", value) for place, row in enumerate(given) for value in row]
    rows = np.array(numbers, dtype=np.float64).reshape(len(given), -1)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    for place, size in enumerate(largest[:, 0].tolist()):
        if not 0.0 < size < float("inf"):
            line.fail(f"vectors[{place}]", "must be finite numbers that are not all 0")
    # By the largest first: the square of what is beyond 1e154 is no number.
    rows /= largest
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _check_count(line: Line, field: str, rows: Sequence[object]) -> None:
    if len(rows) > MAX_ROWS_OF_AN_AGENT:
        line.fail(field, f"holds {len(rows)}, wanted at most {MAX_ROWS_OF_AN_AGENT} of an agent")
