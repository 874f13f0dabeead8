"""Regression trees with histogram splits, and forests of them: a probe that sees thresholds and interactions.

Columns are cut into at most `N_BINS` bins at their quantiles. A tree tries some columns at every node, sums
the targets of all models per bin, and takes the cut that lowers their squared error most (one tree for all
models; CART, Breiman et al. 1984). A forest grows every tree on other texts (Breiman 2001, "Random Forests",
but drawn without replacement), so that the texts left out measure it: no row is predicted by a tree that saw
its text.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

N_BINS = 32
MAX_DEPTH = 24
COLUMNS_A_TRY = 6
"""One in so many columns is tried at a node."""
IN_BAG = 0.6
"""Share of the texts that a tree grows on."""
QUANTILE_ROWS = 10_000
"""Rows that the bins are taken from."""

Binned = NDArray[np.uint8]
Table = NDArray[np.float64]


Nodes = NDArray[np.int32]
"""A tree, ``[n_nodes, 3]``: the column that a node looks at, -1 for a leaf; the highest bin that goes left;
the left child, which the right one follows."""


def bin_columns(rows: NDArray[np.float32]) -> Binned:
    """Bin of every value, uint8 ``[n, width]``; the bins of a column hold about as many rows each."""
    step = max(1, len(rows) // QUANTILE_ROWS)
    edges = np.quantile(rows[::step], np.linspace(0, 1, N_BINS + 1)[1:-1], axis=0)
    binned = np.empty(rows.shape, dtype=np.uint8)
    for column in range(rows.shape[1]):
        binned[:, column] = np.searchsorted(edges[:, column], rows[:, column])
    return binned


def predict_by_forest(
    binned: Binned,
    targets: Table,
    text_ids: NDArray[np.intp],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    *,
    n_trees: int,
    least: int,
    seed: int,
) -> tuple[Table, Table]:
    """Grow a forest on some rows, and predict them and others.

    Parameters
    ----------
    binned
        All rows as of :func:`bin_columns`.
    targets
        Of all rows, ``[n, n_columns]``, NaN where unknown.
    text_ids
        Number of each row's text, ``[n]``.
    train, test
        Rows to grow on and rows to predict.
    n_trees
        Number of trees.
    least
        Least rows of a leaf.
    seed
        Seed of the draws; the same on any number of threads.

    Returns
    -------
    of_train, of_test
        Mean over the trees that did not see the row's text, ``[n_train, n_columns]``, and over all trees,
        ``[n_test, n_columns]``.
    """
    filled = np.where(np.isnan(targets), 0.0, targets)
    texts = np.unique(text_ids[train])
    n_drawn = max(1, round(IN_BAG * len(texts)))
    both = np.concatenate([train, test])

    def grow(sequence: np.random.SeedSequence) -> tuple[Nodes, Table, NDArray[np.intp]]:
        rng = np.random.default_rng(sequence)
        drawn = np.zeros(int(text_ids.max()) + 1, dtype=np.bool_)
        drawn[rng.choice(texts, size=n_drawn, replace=False)] = True
        inside = drawn[text_ids[train]]
        bag = train[inside]
        nodes = _grow(binned, filled, bag, least, int(rng.integers(2**31)))
        places = np.concatenate([np.flatnonzero(~inside), np.arange(len(train), len(both))])
        return nodes, _leaf_means(binned, targets, bag, nodes), places

    # The last column counts the trees that predicted a row.
    total = np.zeros((len(both), targets.shape[1] + 1))
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        # The trees come back in their order: sums do not depend on who was first.
        for nodes, means, places in pool.map(grow, np.random.SeedSequence(seed).spawn(n_trees)):
            total[places, :-1] += means[_leaves(binned, both[places], nodes)]
            total[places, -1] += 1
    mean = total[:, :-1] / np.maximum(total[:, -1:], 1)
    return mean[: len(train)], mean[len(train) :]


@numba.njit(cache=True, nogil=True)
def _grow(binned: Binned, targets: Table, bag: NDArray[np.intp], least: int, seed: int) -> Nodes:
    """Split rows until `least` of them are left."""
    np.random.seed(seed)  # noqa: NPY002, numba has no other generator
    nodes = np.zeros((2 * (len(bag) // least) + 3, 3), dtype=np.int32)
    nodes[:, 0] = -1
    order = bag.copy()
    # Nodes to split: where their rows begin and end in `order`, and how deep they lie.
    waiting = [(0, 0, len(bag), 0)]
    n_nodes = 1
    while len(waiting) > 0:
        node, start, end, depth = waiting.pop()
        if end - start < 2 * least or depth == MAX_DEPTH:
            continue
        column, cut = _best_cut(binned, targets, order[start:end], least)
        if column < 0:
            continue
        # Rows that go left come first.
        middle = start
        for place in range(start, end):
            row = order[place]
            if binned[row, column] <= cut:
                order[place] = order[middle]
                order[middle] = row
                middle += 1
        nodes[node] = (column, cut, n_nodes)
        waiting.append((n_nodes, start, middle, depth + 1))
        waiting.append((n_nodes + 1, middle, end, depth + 1))
        n_nodes += 2
    return nodes[:n_nodes]


@numba.njit(cache=True, nogil=True)
def _best_cut(binned: Binned, targets: Table, rows: NDArray[np.intp], least: int) -> tuple[int, int]:
    """Column and bin of the cut that explains most, of some columns; column -1 where none does."""
    width, n_columns = binned.shape[1], targets.shape[1]
    whole = np.zeros(n_columns)
    for row in rows:
        whole += targets[row]
    highest, best_column, best_cut = (whole**2).sum() / len(rows) + 1e-9, -1, 0
    sums = np.empty((N_BINS, n_columns))
    counts = np.empty(N_BINS, dtype=np.int64)
    for _ in range(max(1, width // COLUMNS_A_TRY)):
        tried = np.random.randint(width)  # noqa: NPY002
        sums[:] = 0.0
        counts[:] = 0
        for row in rows:
            bin_ = binned[row, tried]
            counts[bin_] += 1
            for column in range(n_columns):
                sums[bin_, column] += targets[row, column]
        n_left = 0
        lower = np.zeros(n_columns)
        for cut in range(N_BINS - 1):
            n_left += counts[cut]
            lower += sums[cut]
            n_right = len(rows) - n_left
            if counts[cut] == 0 or n_left < least or n_right < least:
                continue
            explained = (lower**2).sum() / n_left + ((whole - lower) ** 2).sum() / n_right
            if explained > highest:
                highest, best_column, best_cut = explained, tried, cut
    return best_column, best_cut


@numba.njit(cache=True, nogil=True)
def _leaves(binned: Binned, rows: NDArray[np.intp], nodes: Nodes) -> NDArray[np.intp]:
    """Leaf of each row, ``[n_rows]``."""
    leaves = np.zeros(len(rows), dtype=np.intp)
    for place in range(len(rows)):
        node = 0
        while nodes[node, 0] >= 0:
            node = nodes[node, 2] + (binned[rows[place], nodes[node, 0]] > nodes[node, 1])
        leaves[place] = node
    return leaves


@numba.njit(cache=True, nogil=True)
def _leaf_means(binned: Binned, targets: Table, bag: NDArray[np.intp], nodes: Nodes) -> Table:
    """Mean of the known targets of each leaf's rows, ``[n_nodes, n_columns]``, 0 where none is known."""
    sums = np.zeros((len(nodes), targets.shape[1]))
    counts = np.zeros((len(nodes), targets.shape[1]))
    leaves = _leaves(binned, bag, nodes)
    for place in range(len(bag)):
        for column in range(targets.shape[1]):
            target = targets[bag[place], column]
            if not np.isnan(target):
                sums[leaves[place], column] += target
                counts[leaves[place], column] += 1
    return sums / np.maximum(counts, 1.0)
