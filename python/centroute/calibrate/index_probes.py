"""How much an index must compare: held-out rows and their true neighbours in, rows of ``index.probes`` out.

An index is measured with the kernel that will search it. For some depths of neighbours the fewest lists, then
the fewest groups, then the fewest candidates are taken that still find the wanted share. Depths beyond
``top_p`` are for filters: where a tenth of the rows is allowed, the eight nearest of these are among the
eighty nearest of all, or not much deeper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import RowIndex
from centroute.calibrate.kmeans import ROWS_PER_BLOCK

MIN_RECALL = 0.9935
"""Share of the true neighbours that the held-out queries must find: 0.99 with room for chance."""

Index = Mapping[str, NDArray[np.float32] | NDArray[np.int32]]
"""Arrays of an index by the names of their tensors in a router file."""

N_HELD_OUT = 2000
"""Rows that are held out of the centroids to be queries."""

_DEPTHS = ((1, N_HELD_OUT), (4, 500), (16, 250), (64, 125))
"""Multiples of ``top_p`` and the number of queries for each."""
_MAX_DEPTH = 1023
"""The kernel finds one more, the query's own row."""
_SLACK = (0.16, 0.08, 0.0)
"""What lists, then groups, must leave to the choices after them, as a share of what may be missed."""
_LADDER = np.unique(np.round(1.15 ** np.arange(100)).astype(np.int64))
"""Numbers of lists, groups and candidates that are tried: steps of about a seventh."""


@dataclass(frozen=True, slots=True, eq=False)
class _Measurement:
    """Held-out rows, their true neighbours and the index that is to find them."""

    index: RowIndex
    queries: NDArray[np.float32]
    own: NDArray[np.intp]
    truth: NDArray[np.intp]
    depth: int

    def recall(self, n_groups: int, n_lists: int, n_candidates: int) -> float:
        """Share of the nearest rows, the query's own left out, that are found by comparing so much."""
        probe = [self.depth + 1, n_groups, n_lists, max(n_candidates, self.depth + 1)]
        self.index.set_probes(np.array([probe], dtype=np.int32))
        found, _ = self.index.search_batch(self.queries, self.depth + 1)
        n_found = 0
        for got, wanted, own in zip(found, self.truth, self.own, strict=True):
            others = wanted[wanted != own][: self.depth]
            n_found += len(np.intersect1d(got[got != own], others, assume_unique=True))
        return n_found / (len(self.queries) * self.depth)


def measured_probes(
    rows: NDArray[np.float32], index: Index, held_out: NDArray[np.intp], top_p: int
) -> NDArray[np.int32]:
    """How much must be compared for some depths, int32 ``[n_probes, 4]``: depth, groups, lists, candidates.

    Parameters
    ----------
    rows
        Unit rows ``[n, dim]``.
    index
        The arrays of an index over them, with any probes.
    held_out
        Numbers of rows that no centroid was fitted to.
    top_p
        The first depth.
    """
    searched = RowIndex(rows, index=dict(index))
    n_groups, n_lists = len(index["index.groups"]), len(index["index.lists"])
    depths = [(top_p * multiple, n_queries) for multiple, n_queries in _DEPTHS]
    deepest = min(_MAX_DEPTH, len(rows) // 8)
    depths = [depth for depth in depths if depth[0] <= deepest] or depths[:1]
    truth = _true_neighbours(rows, rows[held_out], depths[-1][0] + 1)
    probes = []
    for depth, n_queries in depths:
        own = held_out[:n_queries]
        measurement = _Measurement(searched, rows[own], own, truth[:n_queries], depth)
        groups, lists, candidates = _least(measurement, n_groups, n_lists)
        probes.append((depth, groups, lists, candidates))
        if lists > n_lists // 4:
            # Deeper than this it is as fast to compare all.
            break
    return np.array(probes, dtype=np.int32)


def _least(measurement: _Measurement, n_groups: int, n_lists: int) -> tuple[int, int, int]:
    """The fewest groups, lists and candidates that find enough."""
    lists_wanted, groups_wanted, wanted = (MIN_RECALL + (1 - MIN_RECALL) * slack for slack in _SLACK)
    recall, most = measurement.recall, min(64 * measurement.depth, 1 << 14)
    lists = _smallest(n_lists, lambda n: recall(n_groups, n, most) >= lists_wanted)
    groups = _smallest(n_groups, lambda n: recall(n, lists, most) >= groups_wanted)
    candidates = _smallest(most, lambda n: recall(groups, lists, n) >= wanted)
    return groups, lists, max(candidates, measurement.depth)


def _smallest(most: int, is_enough: Callable[[int], bool]) -> int:
    """The smallest number of the ladder that is enough, ``most`` where none is."""
    ladder = [*(int(number) for number in _LADDER if number < most), most]
    low, high = 0, len(ladder) - 1
    while low < high:
        middle = (low + high) // 2
        if is_enough(ladder[middle]):
            high = middle
        else:
            low = middle + 1
    return ladder[low]


def _true_neighbours(
    rows: NDArray[np.float32], queries: NDArray[np.float32], n_nearest: int
) -> NDArray[np.intp]:
    """The nearest rows of each query, nearest first, ``[n_queries, n_nearest]``, by comparison with all."""
    n_nearest = min(n_nearest, len(rows))
    ids = np.zeros((len(queries), 0), dtype=np.intp)
    similarities = np.zeros((len(queries), 0), dtype=np.float32)
    step = 16 * ROWS_PER_BLOCK
    for start in range(0, len(rows), step):
        block = queries @ rows[start : start + step].T
        numbers = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        similarities = np.concatenate([similarities, block], axis=1)
        ids = np.concatenate([ids, numbers], axis=1)
        if similarities.shape[1] > n_nearest:
            kept = np.argpartition(-similarities, n_nearest - 1, axis=1)[:, :n_nearest]
            similarities = np.take_along_axis(similarities, kept, axis=1)
            ids = np.take_along_axis(ids, kept, axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)
