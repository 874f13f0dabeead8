"""Decisions as JSON: the one form of the command line and the gateway."""

from centroute._kernel import Decision
from centroute.ensemble import EnsembleDecision
from centroute.plan import Plan
from centroute.session import KeptDecision


def decision_to_json(decision: Decision | KeptDecision) -> dict[str, object]:
    """Keys as ``docs/design.md`` names them; unknown values are ``None``."""
    return {
        "model": decision.model,
        "quality": decision.quality,
        "cost_usd": decision.cost,
        "quality_se": decision.quality_se,
        "margin": decision.margin,
        "resolved": decision.resolved,
        "similarity": decision.similarity,
        "in_distribution": decision.in_distribution,
        "clusters": [{"id": cluster, "weight": weight} for cluster, weight in decision.clusters],
        "ranking": list(decision.ranking),
        "generation": decision.generation,
    }


def ensemble_to_json(decision: EnsembleDecision) -> dict[str, object]:
    """The models to ask, the weightiest vote first, and what was decided for one model under ``best``."""
    voters = zip(decision.models, decision.weights, decision.qualities, decision.costs, strict=True)
    return {
        "models": [
            {"model": model, "weight": weight, "quality": quality, "cost_usd": cost}
            for model, weight, quality, cost in voters
        ],
        "quality": decision.quality,
        "cost_usd": decision.cost,
        "n_calls": decision.n_calls,
        "best": decision_to_json(decision.best),
    }


def plan_to_json(plan: Plan) -> dict[str, object]:
    """A model for each role, the best single model, and what was decided for one call under ``best``."""
    return {
        "roles": [
            {
                "role": choice.role,
                "model": choice.model,
                "quality": choice.quality,
                "cost_usd": choice.cost,
                "calibrated": choice.calibrated,
            }
            for choice in plan.roles
        ],
        "quality": plan.quality,
        "cost_usd": plan.cost,
        "single": {"model": plan.single, "quality": plan.single_quality, "cost_usd": plan.single_cost},
        "is_single_as_good": plan.is_single_as_good,
        "lead": plan.lead,
        "lead_se": plan.lead_se,
        "is_optimal": plan.is_optimal,
        "best": decision_to_json(plan.best),
    }
