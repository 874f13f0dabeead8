"""The column of a model that joins a pool: a few outcomes and the pool's columns in, one more column out.

Few outcomes suffice by leaning on what the pool knows. With ``W`` the soft assignment of the
rows ``[n, n_clusters]``, ``Q`` the pool's columns less their means and ``p`` the mean column, the new column
is ``p + d``, and ``W d`` is fitted to ``y - s``: the outcome less the mean of the pool's models on that
query, observed where the data has it and predicted where not, so that hard queries weigh on both alike. The
prior

    d ~ N(0, a · 11ᵀ + b · QQᵀ + c · K),    K = exp(4 (similarity of centroids - 1))

says in turn: as good as the pool's models on average, give or take their spread; a blend of the models that
it goes along with; and something of its own that near clusters share. This is Bayesian linear regression
(Rasmussen & Williams 2006, chapter 2). ``a`` is the pool's spread. ``b`` and ``c`` are averaged over a grid,
each pair weighted by how probable it makes the outcomes and, to the power of `POOL_TRUST`, the column of each
pool model given the others': a pool of like models foretells another one. Cost is fitted alike, in units of
the model's mean.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

PROFILE_VARIANCES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
CLUSTER_VARIANCES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
"""Values of ``b`` and ``c``."""
POOL_TRUST = 0.1
"""Cells of near clusters and models of one family are not as many witnesses as they look."""
KERNEL_SHARPNESS = 4.0
LEVEL_DEVIATION = 0.2
"""How far a model's mean lies from its pool's, where the pool is too small to tell."""

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PoolColumns:
    """What the columns of a pool say of a model that joins it.

    Attributes
    ----------
    table
        Columns of the pool ``[n_clusters, n_models]``, at least one.
    means
        Mean of each model ``[n_models]``.
    count
        Outcomes behind a cell ``[n_clusters]``.
    similarities
        Cosine similarities of the centroids ``[n_clusters, n_clusters]``.
    """

    table: Rows
    means: Rows
    count: Rows
    similarities: Rows

    def level(self) -> Rows:
        """Prior covariance of being better or worse everywhere."""
        around = float(((self.means - self.means.mean()) ** 2).sum())
        # Two more models at the typical distance, for pools too small to know their spread.
        variance = (around + 2 * LEVEL_DEVIATION**2) / (len(self.means) + 1)
        return np.full_like(self.similarities, variance)

    def profile(self) -> Rows:
        """Prior covariance of going along with the pool's models, for ``b = 1``."""
        around = self.table - self.means
        return np.asarray(around @ around.T)

    def kernel(self) -> Rows:
        """Prior covariance of what a model has of its own, for ``c = 1``."""
        return np.asarray(np.exp(KERNEL_SHARPNESS * (self.similarities - 1)))

    def evidence(self, noise: float) -> Rows:
        """Log probability of each model's column given the others', for every ``b`` and ``c``.

        ``noise`` is the variance of one outcome. Zeros where there is only one model.
        """
        grid = list(product(PROFILE_VARIANCES, CLUSTER_VARIANCES))
        evidence = np.zeros(len(grid))
        n_models = len(self.means)
        for column in range(n_models if n_models > 1 else 0):
            others = np.arange(n_models) != column
            rest = replace(self, table=self.table[:, others], means=self.means[others])
            deviation = self.table[:, column] - rest.table.mean(axis=1)
            known = rest.level() + np.diag(noise / np.maximum(self.count, 1))
            profile, kernel = rest.profile(), rest.kernel()
            for place, (along_profiles, along_clusters) in enumerate(grid):
                covariance = known + along_profiles * profile + along_clusters * kernel
                evidence[place] -= 0.5 * float(deviation @ np.linalg.solve(covariance, deviation))
                evidence[place] -= 0.5 * float(np.linalg.slogdet(covariance)[1])
        return evidence


def fit_deviation(weights: Rows, targets: Rows, pool: PoolColumns) -> tuple[Rows, Rows]:
    """Posterior mean and standard error of the deviation ``d``; see the module's description.

    Parameters
    ----------
    weights
        Soft assignment ``[n, n_clusters]``.
    targets
        What ``weights @ d`` is to come near, ``[n]``.
    pool
        What is known of the others.

    Returns
    -------
    mean, error
        ``[n_clusters]`` each.

    Examples
    --------
    >>> pool = PoolColumns(np.full((2, 1), 0.5), np.array([0.5]), np.full(2, 50.0), np.eye(2))
    >>> rows = np.eye(2)[[0, 1] * 50]
    >>> fit_deviation(rows, rows @ [0.3, -0.1], pool)[0].round(2)
    array([ 0.3, -0.1])
    """
    n, n_clusters = len(targets), weights.shape[1]
    gram, moment, total = weights.T @ weights, weights.T @ targets, float(targets @ targets)
    noise = float(targets.var()) or total / n
    if noise <= 0:
        return np.zeros(n_clusters), np.zeros(n_clusters)
    level, profile, kernel = pool.level(), pool.profile(), pool.kernel()
    evidence, means, variances = [], [], []
    for along_profiles, along_clusters in product(PROFILE_VARIANCES, CLUSTER_VARIANCES):
        # In units of the noise, which is profiled out of the evidence.
        prior = (level + along_profiles * profile + along_clusters * kernel) / noise
        system = np.eye(n_clusters) + gram @ prior
        posterior = prior @ np.linalg.inv(system)
        mean = posterior @ moment
        unexplained = max(total - float(moment @ mean), 1e-9 * total)
        evidence.append(-0.5 * (n * np.log(unexplained) + np.linalg.slogdet(system)[1]))
        means.append(mean)
        variances.append(np.maximum(np.diag(posterior), 0) * (unexplained / n))
    weight = np.array(evidence) + POOL_TRUST * pool.evidence(noise)
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    columns = np.array(means)
    mean = weight @ columns
    return mean, np.sqrt(weight @ (np.array(variances) + (columns - mean) ** 2))
