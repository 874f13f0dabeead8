"""Outcome noise: how much of the oracle's lead no text can tell.

The oracle takes the best score of each query after the fact, and so profits from chance. There are two
answers to how much:

*Repeats.* Where a text stands in several rows, the model that was best in one row is scored in another. What
that keeps of the oracle's lead over the best single model, the text does tell; the rest is noise *at most*,
since one row is a noisy guide. Chance here is all that the text does not decide: sampling, and hidden
differences behind equal texts.

*Model.* Without repeats, noise and what no probe has found cannot be told apart. What is computed then is
what an oracle would get from chance alone, were the scores independent given their fitted expectations: each
model's scores are shuffled, on their own, among queries whose expected score is alike. For scores of 0 and 1
these are independent Bernoulli outcomes of the fitted probabilities. It is a bound from above, too: real
models fail together, and give chance less to choose from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.diagnose.probes import residuals

MIN_REPEATED = 30
"""Repeated texts below which the model is used."""
MAX_ROWS_A_TEXT = 20
"""Rows of one text that are compared with each other."""
N_BINS = 20
"""Groups of queries with like expected scores, by model."""
N_SHUFFLES = 10

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Repeated:
    """Texts in several rows, as columns ``[n]`` that are NaN but for the first row of such a text.

    Attributes
    ----------
    kept
        Lead over the best single model of what was best in another row of the text.
    lead
        Lead of the oracle there.
    consistent
        Products of the residuals of two of its rows, summed over the models: above zero on average where
        the text decides which model is better.
    n_texts
        Number of repeated texts.
    n_conflicting
        How many of them have a model with different values.
    rows
        Their rows.
    """

    kept: Values
    lead: Values
    consistent: Values
    n_texts: int
    n_conflicting: int
    rows: NDArray[np.intp]


def repeated_texts(values: Values, text_ids: NDArray[np.intp], prior: Values) -> Repeated:
    """Compare rows of equal texts.

    Parameters
    ----------
    values
        ``[n, n_models]``, NaN where unknown.
    text_ids
        Number of each row's text, ``[n]``.
    prior
        Mean of each model; of models that are equally good in a row, the better one on average is taken.
    """
    n = len(values)
    kept, lead, consistent = (np.full(n, np.nan) for _ in range(3))
    observed = np.flatnonzero(~np.isnan(values).all(axis=1))
    order = observed[np.argsort(text_ids[observed], kind="stable")]
    groups = [
        group for group in np.split(order, np.flatnonzero(np.diff(text_ids[order])) + 1) if len(group) > 1
    ]
    best = int(np.nanargmax(prior))
    apart = np.nan_to_num(residuals(values, prior))
    by_prior = np.argsort(np.argsort(prior, kind="stable"), kind="stable") / len(prior)
    n_texts = n_conflicting = 0
    used = []
    for whole in groups:
        group = whole[:MAX_ROWS_A_TEXT]
        found, products = [], []
        for one in group:
            for other in group:
                both = ~np.isnan(values[one]) & ~np.isnan(values[other])
                if one == other or both.sum() < 2 or not both[best]:
                    continue
                top = np.where(both, values[one], -np.inf)
                choice = int(np.where(top >= top.max() - 1e-9, by_prior, -1.0).argmax())
                found.append(values[other, choice] - values[other, best])
                products.append(float(apart[one] @ apart[other]))
        if not found:
            continue
        leads = np.nanmax(values[group], axis=1) - values[group, best]
        place = group[0]
        kept[place], lead[place] = np.mean(found), np.nanmean(leads)
        consistent[place] = np.mean(products)
        known = ~np.isnan(values[group]).all(axis=0)
        differs = np.nanmax(values[group][:, known], axis=0) > np.nanmin(values[group][:, known], axis=0)
        n_texts, n_conflicting = n_texts + 1, n_conflicting + int(differs.any())
        used.append(whole)
    rows = np.concatenate(used) if used else np.zeros(0, dtype=np.intp)
    return Repeated(kept, lead, consistent, n_texts, n_conflicting, rows)


def chance_oracle(values: Values, expected: Values, *, seed: int) -> Values:
    """Best of independent scores of each row, ``[n]``: the mean over `N_SHUFFLES` shuffles.

    Parameters
    ----------
    values
        ``[n, n_models]``, NaN where unknown.
    expected
        What was predicted of them, by what has not seen them.
    seed
        Of the shuffles.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(len(values))
    groups = [
        group
        for model in range(values.shape[1])
        for group in _alike(np.flatnonzero(~np.isnan(values[:, model])), expected[:, model], model)
    ]
    for _ in range(N_SHUFFLES):
        shuffled = np.full(values.shape, -np.inf)
        for model, rows in groups:
            shuffled[rows, model] = values[rng.permutation(rows), model]
        total += shuffled.max(axis=1)
    return np.asarray(total / N_SHUFFLES)


def _alike(rows: NDArray[np.intp], expected: Values, model: int) -> list[tuple[int, NDArray[np.intp]]]:
    """Rows of a model in groups of like expectation."""
    ordered = rows[np.argsort(expected[rows], kind="stable")]
    return [(model, group) for group in np.array_split(ordered, N_BINS) if len(group)]
