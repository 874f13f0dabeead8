"""``RoleScores``: how a pool's models do in one role of a plan. Part of a router file, read without NumPy.

A role changes what the score tables predict for a query: by an offset of each model's quality, and a factor
of its cost,

    quality[role, m] = quality_m + offset[role, m], in 0..1        cost[role, m] = cost_m · factor[role, m]

Models are known by their names, so that an edit of the pool leaves all of it valid: a model without outcomes
in the role, or a new one, has the offset and factor that are usual there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from centroute._router_file import number_within
from centroute.errors import ArtifactError

MAX_ROLES: Final = 64
"""Roles of a router, and of a plan."""


@dataclass(frozen=True, slots=True)
class RoleScore:
    """What a role changes for one model.

    Attributes
    ----------
    quality_offset
        What is added to the predicted quality, -1 to 1.
    quality_offset_se
        Its standard error.
    cost_factor
        What the predicted cost is multiplied by, 0 or more.
    n_outcomes
        Outcomes of the model in the role.
    """

    quality_offset: float
    quality_offset_se: float
    cost_factor: float
    n_outcomes: int


AS_SHARED: Final = RoleScore(0.0, 0.0, 1.0, 0)
"""What holds in a role without outcomes: the shared tables as they are."""


@dataclass(frozen=True, slots=True)
class RoleScores:
    """What a role changes.

    Attributes
    ----------
    models
        By name, for models with outcomes in the role.
    usual
        For all others.
    """

    models: Mapping[str, RoleScore]
    usual: RoleScore

    def of(self, model: str) -> RoleScore:
        """What holds for a model."""
        return self.models.get(model, self.usual)


def roles_to_json(roles: Mapping[str, RoleScores]) -> dict[str, Any]:
    """As a router file holds them."""
    return {
        role: {
            "usual": _to_json(scores.usual),
            "models": {model: _to_json(score) for model, score in scores.models.items()},
        }
        for role, scores in roles.items()
    }


def roles_from_json(entry: Any) -> dict[str, RoleScores]:
    """Read what `roles_to_json` wrote.

    Raises
    ------
    ArtifactError
        If a number is missing, of another kind or outside its range.
    """
    try:
        return {
            role: RoleScores(
                {model: _from_json(score) for model, score in scores["models"].items()},
                _from_json(scores["usual"]),
            )
            for role, scores in entry.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"router metadata: roles cannot be read ({error!r})") from error


def _to_json(score: RoleScore) -> list[float]:
    return [
        round(score.quality_offset, 6),
        round(score.quality_offset_se, 6),
        round(score.cost_factor, 6),
        score.n_outcomes,
    ]


def _from_json(numbers: Any) -> RoleScore:
    offset, error, factor, n_outcomes = numbers
    return RoleScore(
        number_within(offset, -1.0, 1.0),
        number_within(error, 0.0, 1.0),
        number_within(factor, 0.0, math.inf),
        int(number_within(n_outcomes, 0.0, math.inf)),
    )
