"""A decision as JSON: the one form of the command line and the gateway."""

from centroute._kernel import Decision
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
