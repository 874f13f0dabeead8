"""Advice: the figures of a diagnosis in, one of four words out, with its reason.

The first rule that applies decides. *Worthwhile* is `WORTHWHILE` or more with a 95 % interval above zero;
*tells* means a z-score of `CLEAR` or more.

1. The best single model leaves less than `WORTHWHILE`: nothing to gain.
2. Nothing tells the models apart (no probe of any embedder, no dataset label, no repeated text): a more
   diverse pool where texts tell hard queries from easy ones, since the models then succeed and fail on the
   same ones; otherwise nothing to gain, since the outcomes look like chance.
3. The largest that is worthwhile of: what twice the outcomes would add (more outcomes; the gain over the best
   single model must be above zero then, too), and, for another embedder, what dataset labels add to the
   better of tables and probes, what another embedder added where one was tried, and what the probes add to
   the better of tables and kNN, which both go by nearness.
4. Repeated texts show worthwhile differences that nothing finds in this embedding, and no other was tried:
   another embedder.
5. The gain of the better of router and probes is not worthwhile: a more diverse pool.
6. Otherwise nothing to gain: the router has what there is.

Where the probes add something worthwhile to the tables, the reason says so: more clusters may find it.
"""

from dataclasses import dataclass
from typing import Literal

from centroute.diagnose.draws import Estimate

WORTHWHILE = 0.003
"""0.3 points of accuracy."""
CLEAR = 3.5
"""By chance one z-score in 4,000 is that large."""

Verdict = Literal["more outcomes", "another embedder", "a more diverse pool", "nothing to gain"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the advice rests on; gains in the unit of the scores.

    Attributes
    ----------
    room
        What the best single model leaves to the highest score that was seen.
    apart_z, difficulty_z
        Largest z-score of what tells the models apart, and of what tells hard queries from easy ones.
    router, found
        Gain over the best single model of the router, and of the better of router and probes together.
    tables
        What the probes together add to the router.
    beyond_nearness
        What they add to the better of router and kNN.
    labels
        What dataset labels add to the better of probes and router; None without labels.
    other_embedder
        Name of the best other embedder and what it adds; None where only one was tried.
    growth, doubled
        What twice the outcomes would add, and the gain over the best single model then.
    unseen
        What repeated texts tell beyond the better of probes and router; None without repeats.
    """

    room: float
    apart_z: float
    difficulty_z: float
    router: Estimate
    found: Estimate
    tables: Estimate
    beyond_nearness: Estimate
    labels: Estimate | None
    other_embedder: tuple[str, Estimate] | None
    growth: Estimate
    doubled: Estimate
    unseen: Estimate | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do and why."""

    verdict: Verdict
    reason: str


def advise(evidence: Evidence) -> Advice:
    """Apply the rules of this module."""
    if evidence.room < WORTHWHILE:
        return Advice("nothing to gain", "The best single model is right on nearly all queries.")
    if evidence.apart_z < CLEAR:
        return _models_alike(evidence)
    worthwhile = _worthwhile(evidence)
    found = max(worthwhile, key=lambda one: one[0])[1] if worthwhile else _nothing_worthwhile(evidence)
    if not evidence.tables.is_above(WORTHWHILE) or evidence.beyond_nearness.is_above(WORTHWHILE):
        return found
    lost = f"The tables lose {_points(evidence.tables)} to the probes: calibrate with more --clusters."
    return Advice(found.verdict, f"{found.reason} {lost}")


def _models_alike(evidence: Evidence) -> Advice:
    if evidence.difficulty_z >= CLEAR:
        return Advice(
            "a more diverse pool",
            "Texts tell hard queries from easy ones, but not which model is better: the models succeed and "
            "fail on the same kinds of queries.",
        )
    return Advice(
        "nothing to gain",
        "Nothing in texts or labels foretells which model is right: what the oracle leads by looks like "
        "chance.",
    )


def _nothing_worthwhile(evidence: Evidence) -> Advice:
    unseen = evidence.unseen if evidence.unseen is not None and evidence.unseen.is_above(WORTHWHILE) else None
    if unseen is not None and evidence.other_embedder is None:
        return Advice(
            "another embedder",
            f"Equal texts repeat {_points(unseen)} of differences between the models that neither tables nor "
            "probes find in this embedding. Whether another one shows them, --embedder tells.",
        )
    beyond = ""
    if unseen is not None:
        beyond = f" Equal texts repeat {_points(unseen)} more, which no embedder that was tried shows."
    if not evidence.found.is_above(WORTHWHILE):
        return Advice(
            "a more diverse pool",
            "Texts tell the models apart, but hardly any query is better sent elsewhere than to the best "
            f"single model.{beyond}",
        )
    return Advice(
        "nothing to gain",
        f"The router has {_points(evidence.router)} over the best single model, and neither labels, probes "
        f"nor twice the outcomes clearly add to that.{beyond}",
    )


def _worthwhile(evidence: Evidence) -> list[tuple[float, Advice]]:
    """What is worthwhile, with its size."""
    found: list[tuple[float, Advice]] = []
    if evidence.growth.is_above(WORTHWHILE) and evidence.doubled.interval_95[0] > 0:
        reason = (
            f"The router's gain still grows with the number of outcomes: twice as many would add about "
            f"{_points(evidence.growth)} (extrapolated)."
        )
        found.append((evidence.growth.value, Advice("more outcomes", reason)))
    if evidence.labels is not None and evidence.labels.is_above(WORTHWHILE):
        reason = (
            f"Dataset labels add {_points(evidence.labels)} to what tables and probes find: this embedding "
            "does not tell those kinds of queries apart."
        )
        found.append((evidence.labels.value, Advice("another embedder", reason)))
    if evidence.other_embedder is not None and evidence.other_embedder[1].is_above(WORTHWHILE):
        name, added = evidence.other_embedder
        reason = f"{name} adds {_points(added)} on the same rows."
        found.append((added.value, Advice("another embedder", reason)))
    if evidence.beyond_nearness.is_above(WORTHWHILE):
        reason = (
            f"Probes find {_points(evidence.beyond_nearness)} in these rows that neither the tables nor kNN "
            "find, which go by nearness: an embedder in whose space it is near would show it to them."
        )
        found.append((evidence.beyond_nearness.value, Advice("another embedder", reason)))
    return found


def _points(estimate: Estimate) -> str:
    low, high = (100 * bound for bound in estimate.interval_95)
    return f"{100 * estimate.value:.1f} points ({low:.1f} to {high:.1f})"
