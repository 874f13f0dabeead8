"""Policies of requests: from a model's suffix, a header or a JSON object, over the one of the config."""

from collections.abc import Mapping

from centroute._kernel import Policy
from centroute._shown import show
from centroute.errors import PolicyError
from centroute.policy import FIELDS, NAMES, OBJECTIVES, TEXTS, make_policy, parse_policy

_REMEMBERED = 1024
_LONGEST = 4096


def policy_from_fields(values: Mapping[str, object]) -> Policy:
    """Make a policy of the fields of a JSON object or a TOML table.

    Parameters
    ----------
    values
        By name, with ``-`` or ``_``; ``None`` leaves a field open.

    Raises
    ------
    PolicyError
        If a field is unknown, a value is not of its kind or out of range, or two objectives are given.

    Examples
    --------
    >>> policy_from_fields({"willingness-to-pay": 0.01, "deny": ["gpt-4"]})
    Policy(willingness_to_pay=0.01, deny=frozenset({'gpt-4'}))
    """
    known: dict[str, object] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in FIELDS:
            raise PolicyError(f"policy {show(key)}: is not known; there are {', '.join(FIELDS)}")
        if name in known:
            raise PolicyError(f"policy {name}: is given twice")
        if value is not None:
            known[name] = _checked(name, value)
    return make_policy(known)


def _checked(name: str, value: object) -> object:
    if name not in NAMES and name not in TEXTS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PolicyError(f"policy {name}: got {show(value)}, wanted a number")
        try:
            return float(value)
        except OverflowError:
            raise PolicyError(f"policy {name}: got {show(value)}, wanted a number") from None
    if name in NAMES:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PolicyError(f"policy {name}: got {show(value)}, wanted a list of texts")
        return frozenset(value)
    if not isinstance(value, str):
        raise PolicyError(f"policy {name}: got {show(value)}, wanted a text")
    return value


def over(own: Policy, default: Policy) -> Policy:
    """``own``, with what it leaves open taken from ``default``; an objective takes the place of another.

    Examples
    --------
    >>> over(Policy(alpha=0.5), Policy(min_quality=0.8, deny={"gpt-4"}))
    Policy(alpha=0.5, deny=frozenset({'gpt-4'}))
    """
    has_objective = any(getattr(own, name) is not None for name in OBJECTIVES)
    added = {
        name: getattr(default, name)
        for name in FIELDS
        if getattr(own, name) is None and not (has_objective and name in OBJECTIVES)
    }
    return own.replace(**added)


class PolicyBook:
    """Policies by what requests write, remembered: a policy is compiled once a router and then reused."""

    def __init__(self, default: Policy) -> None:
        self.default = default
        self._by_words: dict[tuple[str, str], Policy] = {}

    def find(self, *, suffix: str = "", header: str = "") -> Policy:
        """The policy of a request: the suffix over the header over the config.

        Raises
        ------
        PolicyError
            If either is no policy; names the field and the value.
        """
        if not (suffix or header):
            return self.default
        if (known := self._by_words.get((suffix, header))) is not None:
            return known
        if len(suffix) + len(header) > _LONGEST:
            raise PolicyError(f"policy: longer than {_LONGEST} characters")
        policy = over(parse_policy(suffix), over(parse_policy(header), self.default))
        if len(self._by_words) >= _REMEMBERED:
            # The oldest goes. Services use a few policies, not thousands.
            self._by_words.pop(next(iter(self._by_words)))
        self._by_words[suffix, header] = policy
        return policy
