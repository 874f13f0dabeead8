r"""``vote``: answers of several models in, the winner of their weighted vote out, and whom to ask next.

>>> from centroute.voting import Ballot
>>> ballot = Ballot(("large", "small", "tiny"), (1.2, 0.9, 0.4))
>>> vote({"large": "(B)", "small": "The answer is B."}, ballot, normalise="choice").winner
'B'

Models are asked in the decision's order and answers handed in as they come; ``escalate`` names the next
model, or None when no further answer could change the winner.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, Protocol

from centroute.errors import DataError

Normaliser = Callable[[str], str | None]
"""An answer in, what it says in a form that equal answers share out; None where it cannot be read."""
Answer = str | Sequence[str | None] | None
"""What a model answered, or the samples of an entry such as ``model@n5``; None where it failed."""

_SHOWN_CHARACTERS = 80
_ROUNDING: Final = 1e-9
"""Share of all weights within which two sums are equal."""


class Weighted(Protocol):
    """Whose vote weighs what: an :class:`centroute.ensemble.EnsembleDecision`, or a `Ballot`."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names in the order in which to ask."""
        ...

    @property
    def weights(self) -> tuple[float, ...]:
        """A weight each, finite and 0 or more."""
        ...


@dataclass(frozen=True, slots=True)
class Ballot:
    """Models and weights of one's own, where no router decided on them."""

    models: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Vote:
    """What the answers come to.

    Attributes
    ----------
    winner
        The winning answer in its normal form; None where no answer could be read so far.
    answer
        An answer that says so, as it was given: that of the weightiest of its voters.
    support
        Share of the weights of all who were asked that is for the winner, 0 to 1: an answer that cannot be
        read supports nobody.
    escalate
        The model to ask next; None when all were asked or no further answer is worth it.
    decided
        Whether no further answer could change the winner.
    tied
        Answers that share the highest weight, where there are several. The winner is then the one with the
        weightiest voter; equal weights go by the decision's order.
    counts
        Weight of every answer, the highest first.
    unread
        Models whose answers could not be read.
    """

    winner: str | None
    answer: str | None
    support: float
    escalate: str | None
    decided: bool
    tied: tuple[str, ...]
    counts: Mapping[str, float]
    unread: tuple[str, ...]


def vote(
    answers: Mapping[str, Answer],
    decision: Weighted,
    *,
    normalise: str | Normaliser = "text",
    patience: float = 1.0,
) -> Vote:
    """Count weighted votes.

    Parameters
    ----------
    answers
        By model, what it answered; models that are missing were not asked yet. Samples of one model in a list
        share its weight.
    decision
        Models and weights, in the order in which they are asked.
    normalise
        What makes answers equal: ``"text"`` (case and white space levelled), ``"number"`` (the last one),
        ``"choice"`` (a letter), `json_field`, or a function of your own.
    patience
        1 asks on until the outcome is certain. Less stops earlier: as soon as the lead is that share of the
        weight that is still out, and more answers are unlikely to change the winner. 0 stops at any lead.

    Raises
    ------
    DataError
        If there is no answer, a model is not of the decision, none of all models gave an answer that can be
        read, the normaliser is not known, or a weight or `patience` is out of range.

    Examples
    --------
    >>> found = vote({"a": "41", "b": None}, Ballot(("a", "b", "c"), (1.0, 1.0, 1.0)), normalise="number")
    >>> found.winner, found.support, found.escalate
    ('41', 0.5, 'c')
    """
    read = _normaliser(normalise)
    weights = _checked(answers, decision, patience)
    counts: dict[str, float] = {}
    strongest: dict[str, tuple[float, str]] = {}
    unread: list[str] = []
    cast = 0.0
    for model, weight in weights.items():
        if model not in answers:
            continue
        cast += weight
        given = answers[model]
        samples = [given] if given is None or isinstance(given, str) else list(given)
        said = [(sample, read(sample)) for sample in samples if sample is not None]
        if all(normal is None for _, normal in said):
            unread.append(model)
        own: dict[str, tuple[float, str]] = {}
        for sample, normal in said:
            if normal is not None:
                before, first = own.get(normal, (0.0, sample))
                own[normal] = (before + weight / len(samples), first)
        for normal, (share, sample) in own.items():
            counts[normal] = counts.get(normal, 0.0) + share
            if normal not in strongest or share > strongest[normal][0]:
                strongest[normal] = (share, sample)
    missing = [model for model in weights if model not in answers]
    if not counts:
        if missing:
            return Vote(None, None, 0.0, missing[0], False, (), {}, tuple(unread))
        raise DataError(f"vote: none of the answers can be read ({_shown(answers)})")
    slack = _ROUNDING * sum(weights.values())
    highest = max(counts.values())
    tied = [normal for normal, count in counts.items() if count >= highest - slack]
    # max and sorted keep the first of equals: the one whose voter stands first in the decision.
    winner = max(tied, key=lambda normal: strongest[normal][0])
    others = [count for normal, count in counts.items() if normal != winner]
    lead, out = counts[winner] - max(others, default=0.0), sum(weights[model] for model in missing)
    decided = not missing or lead > out + slack
    is_enough = decided or lead > patience * out + slack
    return Vote(
        winner=winner,
        answer=strongest[winner][1],
        support=counts[winner] / cast if cast > 0.0 else 0.0,
        escalate=None if is_enough else missing[0],
        decided=decided,
        tied=tuple(tied) if len(tied) > 1 else (),
        counts=dict(sorted(counts.items(), key=lambda item: -item[1])),
        unread=tuple(unread),
    )


def _checked(answers: Mapping[str, Answer], decision: Weighted, patience: float) -> dict[str, float]:
    weights = dict(zip(decision.models, decision.weights, strict=True))
    if not 0.0 <= patience <= 1.0:
        raise DataError(f"vote: patience {patience}, wanted 0 to 1")
    for model, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0.0):
            raise DataError(f"vote: the weight of {model!r} is {weight}, wanted a finite number, 0 or more")
    for model, answer in answers.items():
        if model not in weights:
            asked = ", ".join(weights)
            raise DataError(f"vote: {model!r} is not of this decision, which asks {asked}")
        if not (answer is None or isinstance(answer, str)) and not (
            isinstance(answer, Sequence)
            and answer
            and all(sample is None or isinstance(sample, str) for sample in answer)
        ):
            raise DataError(
                f"vote: the answer of {model!r} must be a text, None or a list of samples, "
                f"got {_short(answer)}"
            )
    if not answers:
        raise DataError("vote: there is no answer to count")
    return weights


def _normaliser(normalise: str | Normaliser) -> Normaliser:
    if callable(normalise):
        return normalise
    if normalise not in NORMALISERS:
        raise DataError(
            f"vote: normalise {normalise!r}, wanted one of {', '.join(NORMALISERS)}, json_field(…) or a "
            "function"
        )
    return NORMALISERS[normalise]


def _shown(answers: Mapping[str, Answer]) -> str:
    first = ", ".join(f"{model}: {_short(answer)}" for model, answer in list(answers.items())[:3])
    return first + (f" and {len(answers) - 3} more" if len(answers) > 3 else "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def exact_text(answer: str) -> str | None:
    r"""The text with letter case and runs of white space levelled; None where it is empty.

    Examples
    --------
    >>> exact_text("  New\n York ")
    'new york'
    """
    return " ".join(answer.casefold().split()) or None


_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,4})?(?![\d])"
)
_LONGEST_NUMBER: Final = 100
"""Digits up to which a number is written out."""


def number(answer: str) -> str | None:
    """The last number of an answer, however it is written; None where there is none.

    Commas between groups of three digits do not count.

    Examples
    --------
    >>> number("So 3 times 400 makes $1,200.00."), number("1.2e3"), number("none")
    ('1200', '1200', None)
    """
    found = _NUMBER.findall(answer)
    if not found:
        return None
    try:
        value = Decimal(found[-1].replace(",", "").replace("−", "-")).normalize()
    except InvalidOperation:
        return None
    if not value:
        return "0"
    # Written out, 1e9999 would take ten thousand digits.
    return format(value, "f") if abs(value.adjusted()) < _LONGEST_NUMBER else str(value)


_ONLY_LETTER = re.compile(r"\s*[*_`({\[\"']{0,4}([A-Za-z])[*_`)}\]\"']{0,4}\s*[.:)]?\s*")
# A small letter that a word follows is an article: "the answer is a guess".
_NAMED_LETTER = re.compile(
    r"(?i:answer|choice|option)(?i:\s+is)?\s*[:=]?\s*[*_`({\[\"']{0,4}"
    r"([A-Z](?![A-Za-z'’])|[a-z](?=\s*(?:[.,;:)\]}*_`\"']|$)))"
)
_BOXED_LETTER = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*\(?([A-Za-z])\)?\s*\}")
_FIRST_LETTER = re.compile(r"\s*[*_`(\[]{0,4}([A-Za-z])[*_`]{0,2}[.):\]]")
_BRACKETED_LETTER = re.compile(r"\(([A-Z])\)")


def choice_letter(answer: str) -> str | None:
    """The letter of a multiple-choice answer, as a capital; None where there is none.

    Looked for in this order: the whole answer; the last "answer is X" or boxed letter; a letter that opens
    the answer, as in "B. Paris"; the last one in brackets.

    Examples
    --------
    >>> choice_letter("b)"), choice_letter("I think the answer is (C)."), choice_letter("A guess")
    ('B', 'C', None)
    """
    if (found := _ONLY_LETTER.fullmatch(answer)) is not None:
        return found[1].upper()
    for pattern in (_NAMED_LETTER, _BOXED_LETTER):
        if letters := pattern.findall(answer):
            return str(letters[-1]).upper()
    if (found := _FIRST_LETTER.match(answer)) is not None:
        return found[1].upper()
    letters = _BRACKETED_LETTER.findall(answer)
    return letters[-1] if letters else None


def json_field(path: str, then: Normaliser = exact_text) -> Normaliser:
    """A normaliser that reads a field of a JSON object, which may stand within other text.

    Parameters
    ----------
    path
        Name of the field; names with dots between them lead into objects.
    then
        What is done with its text. Numbers, booleans, lists and objects are taken as JSON writes them.

    Examples
    --------
    >>> json_field("result.city")('Here: {"result": {"city": "Oslo"}}')
    'oslo'
    """
    names = path.split(".")

    def read(answer: str) -> str | None:
        found = _json_object(answer)
        for name in names:
            if not isinstance(found, dict) or name not in found:
                return None
            found = found[name]
        if found is None:
            return None
        return then(found if isinstance(found, str) else json.dumps(found, sort_keys=True))

    return read


_OBJECTS_TRIED: Final = 16
"""Opening braces of an answer at which an object is looked for."""


def _json_object(answer: str) -> object:
    decoder = json.JSONDecoder()
    start = answer.find("{")
    for _ in range(_OBJECTS_TRIED):
        if start < 0:
            return None
        try:
            return decoder.raw_decode(answer, start)[0]
        except (ValueError, RecursionError):
            start = answer.find("{", start + 1)
    return None


NORMALISERS: Final[Mapping[str, Normaliser]] = {
    "text": exact_text,
    "number": number,
    "choice": choice_letter,
}
"""Normalisers by name."""
