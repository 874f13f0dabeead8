"""``Policy``: what one request wants. Immutable; compiled once per router and reused.

At most one objective, with any limits:

=====================  ==================================================================================
``alpha``              0..1, Avengers-Pro: ``A * p + (1 - A) * (1 - q)`` over per-cluster normalised quality
                       (min-max) and cost (by its maximum); 1 is quality only, 0 the cheapest
``willingness_to_pay`` maximise ``W * quality - cost``, W in USD for one unit of quality
``max_mean_cost``      the W whose calibrated mean cost is this, in USD a query
``min_quality``        the cheapest model predicted at this quality or more, else the best one
``strong``, ``weak``,  of these two models the strong one where its predicted quality leads most, for this
``strong_share``       share of the queries (0..1), as calibrated
``max_cost``           limit: models predicted dearer than this, in USD for this query, are excluded
``allow``, ``deny``    limit: only these models, none of these models
``require``            limit: tags that a model must have, and ``context>=N`` for its context length
``fallback``           taken when the query is out of distribution or no candidate is left
``n_models``           most models of an ensemble, see :meth:`centroute.Router.route_ensemble`; one model is
                       what all else decides on, and refuses it
=====================  ==================================================================================

Without an objective the artifact's default holds, and without one there the highest predicted quality, ties
by cost. A model whose cost is unknown is never free: an objective or limit that needs it refuses.

>>> Policy(willingness_to_pay=0.01, deny={"gpt-4"})
Policy(willingness_to_pay=0.01, deny=frozenset({'gpt-4'}))
"""

from collections.abc import Mapping

from centroute._kernel import Policy
from centroute.errors import PolicyError

__all__ = ["Policy", "make_policy", "parse_policy"]

OBJECTIVES = (
    "alpha", "willingness_to_pay", "max_mean_cost", "min_quality", "strong", "weak", "strong_share",
)  # fmt: skip
NAMES = ("allow", "deny", "require")
TEXTS = ("strong", "weak", "fallback")
FIELDS = (*OBJECTIVES, "max_cost", *NAMES, "fallback")
"""Fields that texts, JSON and TOML may set."""
_NUMBERS = tuple(name for name in FIELDS if name not in (*NAMES, *TEXTS))


def parse_policy(text: str) -> Policy:
    """Read a policy from ``field=value`` pairs separated by semicolons; sets list names with commas.

    Raises
    ------
    PolicyError
        If a field is unknown or its value is not of its kind; names both.

    Examples
    --------
    >>> parse_policy("willingness-to-pay=0.01; deny=gpt-4,claude-v1").willingness_to_pay
    0.01
    """
    fields: dict[str, object] = {}
    for pair in filter(None, (pair.strip() for pair in text.split(";"))):
        name, separator, value = (part.strip() for part in pair.partition("="))
        name = name.replace("-", "_")
        if not separator or name not in (*_NUMBERS, *NAMES, *TEXTS):
            known = ", ".join((*_NUMBERS, *NAMES, *TEXTS))
            raise PolicyError(f"policy {pair!r}: wanted field=value with one of {known}")
        if name in _NUMBERS:
            try:
                fields[name] = float(value)
            except ValueError:
                raise PolicyError(f"policy {name}: got {value!r}, wanted a number") from None
        elif name in NAMES:
            fields[name] = {item.strip() for item in value.split(",") if item.strip()}
        else:
            fields[name] = value
    return make_policy(fields)


def make_policy(fields: Mapping[str, object]) -> Policy:
    """Make a policy of its fields.

    Raises
    ------
    PolicyError
        As `Policy`, and if a name holds a lone surrogate, as bytes that are no UTF-8 become in arguments.
    """
    try:
        return Policy(**fields)  # type: ignore[arg-type]
    except UnicodeEncodeError as error:
        raise PolicyError(f"policy: {error.object!r} holds a lone surrogate, which no name does") from None
