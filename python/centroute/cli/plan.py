"""``centroute plan``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from centroute import Router
from centroute._shown import dollars
from centroute.cli.policy_flags import PolicyFlags
from centroute.cli.queries import for_each_query
from centroute.decision_json import plan_to_json
from centroute.plan import Plan


def run_plan(
    router_file: Path,
    texts: Sequence[str],
    *,
    roles: Sequence[str],
    as_json: bool,
    embedder: str | None,
    flags: PolicyFlags,
) -> None:
    """Assign a model to each role, for the texts or one query a line from stdin."""
    router = Router.load(router_file, embedder=embedder)
    names = [name.strip() for given in roles for name in given.split(",") if name.strip()]
    decide = partial(router.plan, roles=names, policy=flags.policy(router))
    for_each_query(texts, decide, explain=explanation, to_json=plan_to_json, as_json=as_json)


def explanation(plan: Plan) -> str:
    """A line for each role, one for the plan and one for the best single model."""
    role_width = max(len(choice.role) for choice in plan.roles)
    model_width = max(len(choice.model) for choice in plan.roles)
    lines = [
        f"{choice.role:{role_width}}  {choice.model:{model_width}}  quality {choice.quality:.3f}  "
        f"cost {dollars(choice.cost)}" + ("" if choice.calibrated else "  (no outcomes in this role)")
        for choice in plan.roles
    ]
    known = "in distribution" if plan.in_distribution else "OUT OF DISTRIBUTION"
    proved = "" if plan.is_optimal else "  (a better one may exist)"
    lines.append(
        f"  mean quality {plan.quality:.3f}  cost of all {dollars(plan.cost)}{proved}  "
        f"similarity {plan.similarity:.3f} ({known})"
    )
    if plan.single is None:
        lines.append("  no single model is within the budget for all roles")
    else:
        verdict = "does as well" if plan.is_single_as_good else "does worse"
        lines.append(
            f"  {plan.single} alone {verdict}: quality {plan.single_quality:.3f}  "
            f"cost {dollars(plan.single_cost)}"
        )
    return "\n".join(lines)
