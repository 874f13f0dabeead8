"""The multiple-choice knapsack: one item of every group, the most value within one limit of weight.

Lagrange's relaxation prices the limit, after which every group decides for itself; the price at which the
limit is just met is that of the item at which a greedy walk over the groups' upper hulls breaks off (Sinha &
Zoltners, "The multiple-choice knapsack problem", 1979). It gives a bound that no choice passes, and a first
choice near it. What lies between the two is searched exactly: group after group, partial choices are kept
that no other beats in both value and weight, and that can still pass the first choice under the bound
(Dyer, Kayal & Walker, "A branch and bound algorithm for solving the multiple-choice knapsack problem", 1984).
Few remain, which is why the exact search takes less than a millisecond where enumeration would take seconds.
In plain Python: groups of tens of items are too small for NumPy to be faster.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final

MAX_PARTIAL: Final = 64
"""Partial choices that are kept; of more, `N_THINNED` are, and nothing is proved."""
N_THINNED: Final = 16
"""Ranges of weights of which one partial choice each is kept, where there are too many."""
_ROUNDING: Final = 1e-12
"""Share of the bound within which two values are equal."""

Item = tuple[float, float, int]
"""Weight of 0 or more, value, and a number by which it is known."""
_Partial = tuple[float, float, float, Any]
"""Weight, value with its sign turned so that sorting puts the best first, gap to the bound, items."""


@dataclass(frozen=True, slots=True)
class Selection:
    """One item of every group.

    Attributes
    ----------
    ids
        Numbers of the items, in the order of the groups.
    value, weight
        Sums over the items.
    bound
        Value that no selection within the limit passes.
    is_optimal
        Whether the search was exact.
    """

    ids: tuple[int, ...]
    value: float
    weight: float
    bound: float
    is_optimal: bool


def select(groups: Sequence[Sequence[Item]], limit: float) -> Selection | None:
    """Choose one item of every group.

    Parameters
    ----------
    groups
        At least one, of at least one item each.
    limit
        Most that the items may weigh together; may be infinite.

    Returns
    -------
    Selection | None
        None where even the lightest items weigh more. Of equal items the lighter, then the one with the
        lower number is taken.

    Examples
    --------
    >>> select([[(1.0, 1.0, 0), (2.0, 5.0, 1)], [(1.0, 2.0, 0), (4.0, 9.0, 1)]], limit=5.0).ids
    (0, 1)
    """
    fronts = [_efficient(group) for group in groups]
    if sum(front[0][0] for front in fronts) > limit:
        return None
    best = [front[-1] for front in fronts]
    if sum(item[0] for item in best) <= limit:
        return _selection(best, bound=sum(item[1] for item in best), is_optimal=True)
    first, price = _greedy(fronts, limit)
    return _search(fronts, limit, first, price)


def _efficient(group: Sequence[Item]) -> list[Item]:
    """Items that no lighter one reaches in value, lightest first: value rises with weight."""
    front: list[Item] = []
    for item in sorted(group, key=lambda one: (one[0], -one[1], one[2])):
        if not front or item[1] > front[-1][1]:
            front.append(item)
    return front


def _hull(front: Sequence[Item]) -> list[Item]:
    """Items that some price of weight makes the best: what each adds for its weight falls."""
    hull: list[Item] = []
    for item in front:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], item):
            hull.pop()
        hull.append(item)
    return hull


def _slope(low: Item, high: Item) -> float:
    return (high[1] - low[1]) / (high[0] - low[0])


def _greedy(fronts: Sequence[Sequence[Item]], limit: float) -> tuple[list[Item], float]:
    """A selection within the limit, and the price of weight at which the relaxed one meets it."""
    steps: list[tuple[float, int, Item, float]] = []
    chosen: list[Item] = []
    for group, front in enumerate(fronts):
        hull = _hull(front)
        chosen.append(hull[0])
        steps.extend((_slope(low, high), group, high, high[0] - low[0]) for low, high in pairwise(hull))
    # Stable: the steps of a group keep their order, in which slopes fall.
    steps.sort(key=lambda step: -step[0])
    left = limit - sum(item[0] for item in chosen)
    price, closed = 0.0, set()
    for slope, group, item, added in steps:
        if group in closed:
            continue
        if added <= left:
            chosen[group] = item
            left -= added
        else:
            # Later steps of this group start from an item that was not taken.
            price = price or slope
            closed.add(group)
    for group, front in enumerate(fronts):
        left += chosen[group][0]
        chosen[group] = front[bisect_right(front, left, key=lambda item: item[0]) - 1]
        left -= chosen[group][0]
    return chosen, price


def _search(fronts: Sequence[list[Item]], limit: float, first: list[Item], price: float) -> Selection:
    """The best selection, from one that is near it and the price of weight."""
    tops = [max(item[1] - price * item[0] for item in front) for front in fronts]
    bound = sum(tops) + price * limit
    found = sum(item[1] for item in first)
    # How far the items of a selection may stay below the bound together.
    room = bound - found - _ROUNDING * abs(bound)
    # What is left of the limit when all groups to come weigh the least they can.
    spare = limit - sum(front[0][0] for front in fronts)
    partial: list[_Partial] = [(0.0, 0.0, 0.0, ())]
    is_optimal = True
    for front, top in zip(fronts[:-1], tops, strict=False):
        spare += front[0][0]
        gaps = sorted((top - item[1] + price * item[0], item) for item in front)
        partial = _undominated(_grown(partial, gaps, room, spare))
        if len(partial) > MAX_PARTIAL:
            partial = _thinned(partial)
            is_optimal = False
    items = _completed(partial, fronts[-1], limit)
    if items is not None and sum(item[1] for item in items) > found:
        return _selection(items, bound=bound, is_optimal=is_optimal)
    return _selection(first, bound=bound, is_optimal=is_optimal)


def _grown(
    partial: Sequence[_Partial], gaps: Sequence[tuple[float, Item]], room: float, spare: float
) -> list[_Partial]:
    """Every partial choice with every item of one more group that leaves it promising."""
    grown: list[_Partial] = []
    for weight, negative, gap, items in partial:
        for added, item in gaps:
            if gap + added >= room:
                break
            if weight + item[0] <= spare:
                grown.append((weight + item[0], negative - item[1], gap + added, (items, item)))
    return grown


def _undominated(grown: list[_Partial]) -> list[_Partial]:
    """Those that no other beats in both weight and value, lightest first."""
    grown.sort(key=itemgetter(0, 1))
    kept: list[_Partial] = []
    for state in grown:
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept


def _thinned(partial: Sequence[_Partial]) -> list[_Partial]:
    """The one nearest the bound of each range of weights: which weight can be filled up is not known yet."""
    edges = [len(partial) * place // N_THINNED for place in range(N_THINNED + 1)]
    return [min(partial[low:high], key=itemgetter(2)) for low, high in pairwise(edges)]


def _completed(partial: Sequence[_Partial], front: Sequence[Item], limit: float) -> list[Item] | None:
    """The best of the partial choices, each with the dearest item of the last group that it has room for."""
    best, best_value = None, -math.inf
    for weight, negative, _, items in partial:
        place = bisect_right(front, limit - weight, key=itemgetter(0)) - 1
        if place >= 0 and front[place][1] - negative > best_value:
            best, best_value = (items, front[place]), front[place][1] - negative
    return None if best is None else _unlinked(best)


def _unlinked(linked: Any) -> list[Item]:
    """Items of a chain of pairs, first to last."""
    items = []
    while linked:
        linked, item = linked
        items.append(item)
    return items[::-1]


def _selection(items: Sequence[Item], *, bound: float, is_optimal: bool) -> Selection:
    value = sum(item[1] for item in items)
    return Selection(
        ids=tuple(item[2] for item in items),
        value=value,
        weight=sum(item[0] for item in items),
        bound=value if is_optimal else bound,
        is_optimal=is_optimal,
    )
