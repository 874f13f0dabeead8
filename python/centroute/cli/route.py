"""``centroute route``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from centroute import Decision, Router
from centroute._shown import dollars
from centroute.cli.policy_flags import PolicyFlags
from centroute.cli.queries import for_each_query
from centroute.decision_json import decision_to_json, ensemble_to_json
from centroute.ensemble import EnsembleDecision


def run_route(
    router_file: Path,
    texts: Sequence[str],
    *,
    n_models: int | None,
    as_json: bool,
    embedder: str | None,
    flags: PolicyFlags,
) -> None:
    """Route the texts, or one query a line from stdin; to several models each where `n_models` is given."""
    router = Router.load(router_file, embedder=embedder)
    policy = flags.policy(router)
    if n_models is None:
        decide = partial(router.route, policy=policy)
        for_each_query(texts, decide, explain=explanation, to_json=decision_to_json, as_json=as_json)
    else:
        decide_all = partial(router.route_ensemble, policy=policy.replace(n_models=n_models))
        for_each_query(
            texts, decide_all, explain=_explained_ensemble, to_json=ensemble_to_json, as_json=as_json
        )


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


def _explained_ensemble(decision: EnsembleDecision) -> str:
    total = sum(decision.weights)
    models = ", ".join(
        f"{model} {weight / total:.0%}"
        for model, weight in zip(decision.models, decision.weights, strict=True)
    )
    known = "in distribution" if decision.in_distribution else "OUT OF DISTRIBUTION"
    return (
        f"{models}\n"
        f"  vote right {decision.quality:.3f}  cost of all {dollars(decision.cost)}  "
        f"similarity {decision.similarity:.3f} ({known})"
    )
