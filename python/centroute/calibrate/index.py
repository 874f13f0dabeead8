"""An index over many rows: unit rows ``[n, dim]`` in, the arrays of a two-level inverted file out.

Rows are projected on the directions that hold most of them (principal components without centring) and
clustered there, first into groups, then each group into lists. Each row lies in the list whose centroid is
nearest, and in a second one chosen so that a query for which the first is a poor guide finds the row by the
other (SOAR: Sun et al., "SOAR: Improved Indexing for Approximate Nearest Neighbor Search", NeurIPS 2023). How
much a query compares is measured at the end. ``rust/core/src/index`` searches it.
"""

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.index_probes import N_HELD_OUT, Index, measured_probes
from centroute.calibrate.kmeans import ROWS_PER_BLOCK, spherical_kmeans, unit_rows
from centroute.errors import DataError

__all__ = ["MIN_ROWS", "Index", "Progress", "build_index"]

MIN_ROWS = 2048
"""Rows below which all are compared: an index is faster from 512 rows of 256 numbers on, but here comparing
with all takes a tenth of a millisecond at most and misses nothing."""
ROWS_PER_LIST = 32

_KEPT_SHARE = 0.95
_WIDTH_STEP = 32
_N_PROJECTION_ROWS = 65_536
_N_GROUPS_SEARCHED = 8
_N_NEAREST = 8
_ROWS_PER_CENTROID = 64
_GROUP_ITERATIONS = 10
_LIST_ITERATIONS = 6

Progress = Callable[[str, int, int], None]


def build_index(
    rows: NDArray[np.float32],
    *,
    seed: int,
    top_p: int = 8,
    min_rows: int = MIN_ROWS,
    progress: Progress | None = None,
) -> Index | None:
    """Build an index, or none where the rows are too few for one to pay.

    Parameters
    ----------
    rows
        Unit rows, float32 ``[n, dim]``.
    seed
        Seed of all random choices.
    top_p
        Neighbours that a search will ask for.
    min_rows
        Rows below which there is no index.
    progress
        Told how far the work is.

    Returns
    -------
    Index or None
        Arrays ``index.projection [width, dim]``, ``index.groups [n_groups, width]``, ``index.lists
        [n_lists, width]``, ``index.group_offsets``, ``index.list_offsets``, ``index.members`` and
        ``index.probes [n_probes, 4]`` (see ``rust/core/src/index/parts.rs``).

    Examples
    --------
    >>> rows = np.eye(4, dtype=np.float32)
    >>> build_index(rows, seed=0) is None
    True
    """
    if top_p < 1:
        raise DataError(f"top-p {top_p}: wanted 1 or more")
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if len(rows) < max(min_rows, 2):
        return None
    tell = progress or (lambda *_: None)
    rng = np.random.default_rng(seed)
    held_out = np.sort(rng.choice(len(rows), min(N_HELD_OUT, max(len(rows) // 8, 1)), replace=False))
    fitted = np.ones(len(rows), dtype=bool)
    fitted[held_out] = False

    tell("index", 0, 4)
    projection = _principal_directions(rows, rng)
    projected = _project(rows, projection)
    lists, group_of_list = _cluster(projected, fitted, rng)
    tell("index", 1, 4)
    groups = _group_centroids(lists, group_of_list)
    nearest, _ = _nearest_lists(projected, groups, lists, group_of_list, 1)
    lists = _moved(projected, nearest[:, 0], fitted, lists)
    groups = _group_centroids(lists, group_of_list)
    nearest, similarities = _nearest_lists(projected, groups, lists, group_of_list, _N_NEAREST)
    second = _second_lists(projected, lists, nearest, similarities)
    del projected
    tell("index", 2, 4)
    list_of_member = np.concatenate([nearest[:, 0], second])
    row_of_member = np.tile(np.arange(len(rows), dtype=np.int32), 2)
    in_two = np.ones(len(list_of_member), dtype=bool)
    in_two[len(rows) :] = second != nearest[:, 0]
    list_of_member, row_of_member = list_of_member[in_two], row_of_member[in_two]
    order = np.argsort(list_of_member, kind="stable")
    index: dict[str, NDArray[np.float32] | NDArray[np.int32]] = {
        "index.projection": projection,
        "index.groups": groups,
        "index.lists": lists,
        "index.group_offsets": _offsets(group_of_list, len(groups)),
        "index.list_offsets": _offsets(list_of_member[order], len(lists)),
        "index.members": row_of_member[order],
        "index.probes": np.array([[top_p, len(groups), len(lists), 8 * top_p]], dtype=np.int32),
    }
    index["index.probes"] = measured_probes(rows, index, held_out, top_p)
    tell("index", 4, 4)
    return index


def _principal_directions(rows: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Orthonormal directions ``[width, dim]``, the one that holds most of the rows first."""
    sample = rows[np.sort(rng.choice(len(rows), min(len(rows), _N_PROJECTION_ROWS), replace=False))]
    values, vectors = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    kept = np.cumsum(values) / values.sum()
    width = int(np.searchsorted(kept, _KEPT_SHARE)) + 1
    width = min(-(-width // _WIDTH_STEP) * _WIDTH_STEP, rows.shape[1])
    directions = vectors[:, :width].T
    # The sign of a direction is any library's whim.
    largest = np.abs(directions).argmax(axis=1)
    return np.ascontiguousarray(
        directions * np.sign(directions[np.arange(width), largest])[:, None], dtype=np.float32
    )


def _project(rows: NDArray[np.float32], projection: NDArray[np.float32]) -> NDArray[np.float32]:
    projected = np.empty((len(rows), len(projection)), dtype=np.float32)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        np.matmul(
            rows[start : start + ROWS_PER_BLOCK], projection.T, out=projected[start : start + ROWS_PER_BLOCK]
        )
    return projected


def _cluster(
    projected: NDArray[np.float32], fitted: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Centroids of the lists, unit rows ``[n_lists, width]`` group by group, and the group of each."""
    rows = np.flatnonzero(fitted & projected.any(axis=1))
    n_lists = max(len(projected) // ROWS_PER_LIST, 1)
    n_groups = max(round(n_lists**0.5), 1)
    groups = _centroids(projected, rows, n_groups, _GROUP_ITERATIONS, rng)
    labels = np.empty(len(rows), dtype=np.int32)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        labels[start : start + ROWS_PER_BLOCK] = (
            projected[rows[start : start + ROWS_PER_BLOCK]] @ groups.T
        ).argmax(axis=1)
    lists: list[NDArray[np.float32]] = []
    group_of_list: list[NDArray[np.int32]] = []
    for group in range(len(groups)):
        own = rows[labels == group]
        if not len(own):
            continue
        n_own = max(round(len(own) / len(rows) * n_lists), 1)
        centroids = _centroids(projected, own, n_own, _LIST_ITERATIONS, rng)
        group_of_list.append(np.full(len(centroids), len(lists), dtype=np.int32))
        lists.append(centroids)
    return np.concatenate(lists), np.concatenate(group_of_list)


def _centroids(
    projected: NDArray[np.float32],
    rows: NDArray[np.intp],
    n_clusters: int,
    n_iterations: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Centroids, unit rows, at most ``n_clusters``, of a sample of these rows."""
    n_sampled = min(len(rows), _ROWS_PER_CENTROID * n_clusters)
    sample = projected[np.sort(rng.choice(rows, n_sampled, replace=False))]
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    return spherical_kmeans(
        sample,
        n_clusters=n_clusters,
        seed=int(rng.integers(2**31)),
        n_restarts=1,
        max_iterations=n_iterations,
        allow_fewer=True,
    ).centroids


def _group_centroids(lists: NDArray[np.float32], group_of_list: NDArray[np.int32]) -> NDArray[np.float32]:
    sums = np.add.reduceat(
        lists.astype(np.float64), _offsets(group_of_list, group_of_list[-1] + 1)[:-1], axis=0
    )
    return _unit(sums)


def _unit(sums: NDArray[np.float64]) -> NDArray[np.float32]:
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def _offsets(sorted_labels: NDArray[np.int32], n_labels: int) -> NDArray[np.int32]:
    """Where each label begins, and the end, ``[n_labels + 1]``."""
    return np.searchsorted(sorted_labels, np.arange(n_labels + 1)).astype(np.int32)


def _moved(
    projected: NDArray[np.float32],
    labels: NDArray[np.int32],
    fitted: NDArray[np.bool_],
    lists: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Centroids of the rows that are nearest to each; one without any stays where it is."""
    sums = _sums(projected, labels, fitted, len(lists))
    return unit_rows(sums, lists)


def _nearest_lists(
    projected: NDArray[np.float32],
    groups: NDArray[np.float32],
    lists: NDArray[np.float32],
    group_of_list: NDArray[np.int32],
    n_nearest: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids and inner products of the lists nearest to each row among those of the nearest groups.

    Both ``[n, n_nearest]``, nearest first; minus one and minus infinity where there are fewer.
    """
    offsets = _offsets(group_of_list, len(groups))
    n_groups = min(_N_GROUPS_SEARCHED, len(groups))
    searched = np.empty((len(projected), n_groups), dtype=np.int32)
    for start in range(0, len(projected), ROWS_PER_BLOCK):
        block = projected[start : start + ROWS_PER_BLOCK] @ groups.T
        searched[start : start + ROWS_PER_BLOCK] = np.argpartition(-block, n_groups - 1, axis=1)[:, :n_groups]
    order = np.argsort(searched.ravel(), kind="stable")
    ends = _offsets(searched.ravel()[order], len(groups))
    ids: NDArray[np.int32] = np.full((len(projected), n_nearest), -1, dtype=np.int32)
    similarities: NDArray[np.float32] = np.full((len(projected), n_nearest), -np.inf, dtype=np.float32)
    for group in range(len(groups)):
        first, last = offsets[group], offsets[group + 1]
        rows = order[ends[group] : ends[group + 1]] // n_groups
        for start in range(0, len(rows), ROWS_PER_BLOCK):
            some = rows[start : start + ROWS_PER_BLOCK]
            _take_nearest(projected[some] @ lists[first:last].T, first, some, ids, similarities)
    return ids, similarities


@numba.njit(cache=True)
def _take_nearest(
    block: NDArray[np.float32],
    first: int,
    rows: NDArray[np.intp],
    ids: NDArray[np.int32],
    similarities: NDArray[np.float32],
) -> None:
    """Insert what is nearer than what a row has, in place; of equals the lower id goes first."""
    n_nearest = ids.shape[1]
    for at in range(block.shape[0]):
        row = rows[at]
        for column in range(block.shape[1]):
            value = block[at, column]
            if value < similarities[row, n_nearest - 1]:
                continue
            list_id = first + column
            place = n_nearest
            while place > 0 and (
                similarities[row, place - 1] < value
                or (similarities[row, place - 1] == value and ids[row, place - 1] > list_id)
            ):
                place -= 1
            if place == n_nearest:
                continue
            for later in range(n_nearest - 1, place, -1):
                similarities[row, later] = similarities[row, later - 1]
                ids[row, later] = ids[row, later - 1]
            similarities[row, place] = value
            ids[row, place] = list_id


@numba.njit(cache=True)
def _sums(
    projected: NDArray[np.float32], labels: NDArray[np.int32], fitted: NDArray[np.bool_], n_lists: int
) -> NDArray[np.float64]:
    """Sum of the unit rows of each list, float64 ``[n_lists, width]``, in row order."""
    sums = np.zeros((n_lists, projected.shape[1]))
    for row in range(projected.shape[0]):
        if not fitted[row]:
            continue
        squared = 0.0
        for column in range(projected.shape[1]):
            squared += float(projected[row, column]) ** 2
        if squared == 0.0:
            continue
        inverse = 1.0 / np.sqrt(squared)
        for column in range(projected.shape[1]):
            sums[labels[row], column] += projected[row, column] * inverse
    return sums


@numba.njit(cache=True)
def _second_lists(
    projected: NDArray[np.float32],
    lists: NDArray[np.float32],
    nearest: NDArray[np.int32],
    similarities: NDArray[np.float32],
) -> NDArray[np.int32]:
    """The list of least loss ``|x - c|^2 + (r · (x - c))^2`` but the first.

    ``r`` is the unit residual to the first. Equation 4 of the paper named above with its weight at one; the
    first itself where there is no other.
    """
    second = nearest[:, 0].copy()
    width = projected.shape[1]
    for row in range(projected.shape[0]):
        first = nearest[row, 0]
        squared = 0.0
        for column in range(width):
            squared += float(projected[row, column]) ** 2
        residual = squared - 2.0 * similarities[row, 0] + 1.0
        least = np.inf
        for place in range(1, nearest.shape[1]):
            other = nearest[row, place]
            if other < 0:
                break
            between = 0.0
            for column in range(width):
                between += lists[first, column] * lists[other, column]
            along = squared - similarities[row, place] - similarities[row, 0] + between
            loss = squared - 2.0 * similarities[row, place] + 1.0
            if residual > 0.0:
                loss += along * along / residual
            if loss < least:
                least, second[row] = loss, other
    return second
