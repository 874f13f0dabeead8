"""``centroute route``."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from centroute import Decision, Policy, Router
from centroute._shown import dollars
from centroute.cli import screen
from centroute.cli.policy_flags import PolicyFlags
from centroute.decision_json import decision_to_json
from centroute.errors import DataError


def run_route(
    router_file: Path, texts: Sequence[str], *, as_json: bool, embedder: str | None, flags: PolicyFlags
) -> None:
    """Route the texts, or one query a line from stdin; one at fault is told, and the rest go on."""
    router = Router.load(router_file, embedder=embedder)
    policy = flags.policy(router)
    if not texts and sys.stdin.isatty():
        screen.warn("one query a line; end with Ctrl-D")
    place = "text" if texts else "stdin line"
    n_faults = 0
    for number, text in enumerate(texts or _lines(), start=1):
        try:
            decision = _route_at(router, text, policy, f"{place} {number}")
        except DataError as error:
            n_faults += 1
            screen.warn(str(error))
            if as_json:
                # Keeps the answers beside their questions.
                sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
            continue
        _print(decision, text, as_json=as_json)
    if n_faults:
        sys.exit(1)


def explanation(decision: Decision) -> str:
    """The numbers behind a decision in two lines."""
    margin = "no second candidate" if decision.margin is None else f"margin {decision.margin:.3g}"
    if decision.resolved is False:
        margin += " (may be chance)"
    known = "in distribution" if decision.in_distribution else "OUT OF DISTRIBUTION"
    clusters = ", ".join(f"{cluster} ({weight:.0%})" for cluster, weight in decision.clusters[:4])
    more = "" if len(decision.clusters) <= 4 else ", …"
    return (
        f"{decision.model}  quality {decision.quality:.3f}  cost {dollars(decision.cost)}  {margin}  "
        f"similarity {decision.similarity:.3f} ({known})\n"
        f"  clusters {clusters}{more}; then {', '.join(decision.ranking[1:4]) or 'nobody'}"
    )


def _print(decision: Decision, text: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(decision_to_json(decision), allow_nan=False) + "\n")
        sys.stdout.flush()
        return
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 76 else shown[:75] + "…"
    # Control characters and lone surrogates are not for terminals.
    printable = "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cs"} else c for c in shown)
    screen.out.print(f"› {printable}", style="dim")
    screen.out.print(explanation(decision))


def _lines() -> Iterator[str]:
    """Lines of stdin as text; bytes that are no UTF-8 become lone surrogates, which the embedder replaces."""
    binary: Iterable[bytes] = sys.stdin.buffer
    for line in binary:
        yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _route_at(router: Router, text: str, policy: Policy, place: str) -> Decision:
    try:
        return router.route(text, policy=policy)
    except DataError as error:
        raise DataError(f"{place} {str(error).removeprefix('text 0 ')}") from None
