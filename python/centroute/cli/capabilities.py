"""``centroute capabilities``."""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.table import Table

from centroute._kernel import Policy
from centroute._shown import dollars
from centroute.capabilities import Capabilities, Match, read_agents
from centroute.capabilities.agents import newest
from centroute.cli import screen
from centroute.cli.output import refuse_unwritable
from centroute.cli.policy_flags import names_of
from centroute.cli.queries import for_each_query
from centroute.policy import make_policy


def run_build(agents_file: Path, output: Path, *, embedder: str, seed: int) -> None:
    """Embed the agents of a file, index them and write them."""
    refuse_unwritable(output)
    agents = read_agents(agents_file)
    built = Capabilities.build(agents, embedder=embedder, seed=seed)
    if older := len(agents) - len(built):
        screen.warn(f"{older} of {len(agents)} entries are older versions and are left out")
    built.save(output)
    _told(built, output)


def run_add(
    file: Path, agents_file: Path, *, output: Path | None, rebuild: bool, embedder: str | None
) -> None:
    """Add agents, newer versions in the place of older ones."""
    target = output or file
    refuse_unwritable(target)
    capabilities = Capabilities.load(file, embedder=embedder)
    agents = newest(read_agents(agents_file))
    n_replaced = capabilities.add(agents)
    if rebuild:
        capabilities = capabilities.rebuilt()
    capabilities.save(target)
    screen.out.print(f"{len(agents) - n_replaced} added, {n_replaced} replaced")
    _told(capabilities, target)


def run_remove(file: Path, ids: Sequence[str], *, output: Path | None, embedder: str | None) -> None:
    """Remove agents by their ids."""
    target = output or file
    refuse_unwritable(target)
    capabilities = Capabilities.load(file, embedder=embedder)
    capabilities.remove(ids)
    capabilities.save(target)
    _told(capabilities, target)


def run_match(
    file: Path,
    texts: Sequence[str],
    *,
    n: int,
    as_json: bool,
    embedder: str | None,
    policy: dict[str, object],
) -> None:
    """Show the agents that fit each query."""
    capabilities = Capabilities.load(file, embedder=embedder)
    decide = partial(capabilities.match, policy=_policy(policy), n=n)
    for_each_query(texts, decide, explain=_explained, to_json=_to_json, as_json=as_json)


def run_inspect(file: Path, *, as_json: bool, embedder: str | None) -> None:
    """Show what a file holds."""
    capabilities = Capabilities.load(file, embedder=embedder)
    facts = {
        "n_agents": len(capabilities),
        "n_rows": capabilities.n_rows,
        "n_behind": capabilities.n_behind,
        "embedder": capabilities.embedder.name,
    }
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for name, value in facts.items():
        table.add_row(name.removeprefix("n_"), f"{value:,}" if isinstance(value, int) else str(value))
    screen.out.print(table)


def _policy(flags: dict[str, object]) -> Policy:
    """The policy of the flags; ``allow``, ``deny`` and ``require`` are lists with commas or repeated."""
    fields = dict(flags)
    for name in ("allow", "deny", "require"):
        fields[name] = names_of(flags[name], ())  # type: ignore[arg-type]
    return make_policy(fields)


def _explained(matches: Sequence[Match]) -> str:
    width = max(len(match.agent) for match in matches)
    return "\n".join(
        f"{match.agent:{width}}  version {match.version}  similarity {match.similarity:.3f}  "
        f"cost {dollars(match.cost_usd)}"
        for match in matches
    )


def _to_json(matches: Sequence[Match]) -> dict[str, object]:
    return {
        "matches": [
            {
                "agent": match.agent,
                "version": match.version,
                "similarity": match.similarity,
                "cost_usd": match.cost_usd,
            }
            for match in matches
        ]
    }


def _told(capabilities: Capabilities, file: Path) -> None:
    behind = f", {capabilities.n_behind} of them not in the index" if capabilities.n_behind else ""
    screen.out.print(
        f"wrote {file} ({len(capabilities)} agents, {capabilities.n_rows} rows{behind}, "
        f"{file.stat().st_size} bytes)"
    )
