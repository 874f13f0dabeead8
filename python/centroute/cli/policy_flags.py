"""The policy flags that ``route`` and ``evaluate`` share."""

from dataclasses import dataclass

from centroute import Policy, Router
from centroute.policy import make_policy


@dataclass(frozen=True, slots=True)
class PolicyFlags:
    """Policy flags as the command line gives them."""

    alpha: float | None
    willingness_to_pay: float | None
    max_mean_cost: float | None
    min_quality: float | None
    strong: str | None
    weak: str | None
    strong_share: float | None
    max_cost: float | None
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    require: tuple[str, ...]

    def policy(self, router: Router) -> Policy:
        """The policy; names may also be given as one list with commas.

        Raises
        ------
        PolicyError
            If a number is out of range or two objectives are given.
        """
        return make_policy(
            {
                "alpha": self.alpha,
                "willingness_to_pay": self.willingness_to_pay,
                "max_mean_cost": self.max_mean_cost,
                "min_quality": self.min_quality,
                "strong": self.strong,
                "weak": self.weak,
                "strong_share": self.strong_share,
                "max_cost": self.max_cost,
                "allow": names_of(self.allow, router.models),
                "deny": names_of(self.deny, router.models),
                "require": names_of(self.require, ()),
            }
        )


def names_of(values: tuple[str, ...], known: tuple[str, ...]) -> set[str] | None:
    """Names of a repeatable flag; a value that is itself a known name is not taken apart at its commas."""
    if not values:
        return None
    return {
        name.strip()
        for value in values
        for name in ([value] if value in known else value.split(","))
        if name.strip()
    }
