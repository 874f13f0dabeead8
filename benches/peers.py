"""The kernel's work done by other means: assign, blend, decide by willingness to pay.

Each peer is a function of ``(case, queries)`` that returns the chosen model ids ``[n]``. Best effort: each is
written as somebody who knows the library would write it for speed, except `avengers_pro`, which follows the
published description.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import faiss
import numba
import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import Normalizer

from centroute import Artifact, Policy, Router, _reference
from centroute.artifact import EmbedderId, PoolModel

Ids = NDArray[np.integer]
WILLINGNESS = 0.02
faiss.omp_set_num_threads(1)


@dataclass(frozen=True)
class Case:
    """Sizes and the tables drawn for them; queries lie around the centroids, as real ones do."""

    n_clusters: int
    dim: int
    n_models: int
    top_p: int
    beta: float = 9.0

    def __str__(self) -> str:
        return f"K={self.n_clusters:,} D={self.dim} M={self.n_models} p={self.top_p}"

    @cached_property
    def artifact(self) -> Artifact:
        """A router file of random tables."""
        rng = np.random.default_rng(0)
        centroids = rng.standard_normal((self.n_clusters, self.dim), dtype=np.float32)
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        quality = rng.random((self.n_clusters, self.n_models), dtype=np.float32)
        cost = 0.01 * rng.random((self.n_clusters, self.n_models), dtype=np.float32)
        return Artifact(
            models=tuple(PoolModel(f"model-{model}") for model in range(self.n_models)),
            embedder=EmbedderId("random", self.dim, None),
            centroids=centroids,
            quality=quality,
            cost=cost,
            count=np.ones_like(quality),
            prior_quality=quality.mean(axis=0),
            prior_cost=cost.mean(axis=0),
            frontier=np.zeros((0, 3), dtype=np.float32),
            top_p=self.top_p,
            beta=self.beta,
            method={"name": "random"},
        )

    def queries(self, n: int) -> NDArray[np.float32]:
        """Unit rows, each a random centroid with noise of about its own length."""
        rng = np.random.default_rng(1)
        near = self.artifact.centroids[rng.integers(self.n_clusters, size=n)]
        rows = near + rng.standard_normal((n, self.dim), dtype=np.float32) / np.float32(np.sqrt(self.dim))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)  # type: ignore[no-any-return]

    def router(self, precision: str = "f32") -> Router:
        """The router under test."""
        return Router.from_artifact(self.artifact, precision=precision)  # type: ignore[arg-type]

    @cached_property
    def faiss_index(self) -> faiss.IndexFlatIP:
        """Centroids in a flat index."""
        index = faiss.IndexFlatIP(self.dim)
        index.add(self.artifact.centroids)
        return index

    @cached_property
    def neighbours(self) -> NearestNeighbors:
        """Centroids in scikit-learn's search; for unit rows the nearest by distance and by cosine agree."""
        search = NearestNeighbors(n_neighbors=self.top_p, algorithm="brute", n_jobs=1)
        return search.fit(self.artifact.centroids)

    @cached_property
    def average(self) -> dict[int, dict[str, dict[str, float]]]:
        """Per cluster and model the normalised quality and cost, in dictionaries as published."""
        quality = _reference.min_max(self.artifact.quality)
        cheapness = _reference.cheapness_by_max(self.artifact.cost)
        return {
            cluster: {
                model.name: {"p": float(quality[cluster, column]), "q": float(1 - cheapness[cluster, column])}
                for column, model in enumerate(self.artifact.models)
            }
            for cluster in range(self.n_clusters)
        }


def policy() -> Policy:
    """What all but `avengers_pro` decide by."""
    return Policy(willingness_to_pay=WILLINGNESS)


def blend_numpy(case: Case, similarities: NDArray[np.float32], nearest: Ids) -> Ids:
    """Softmax, blend and choice for similarities and ids ``[n, top_p]``."""
    artifact = case.artifact
    weights = np.exp(case.beta * (similarities - similarities.max(axis=1, keepdims=True)))
    weights /= weights.sum(axis=1, keepdims=True)
    quality = np.einsum("np,npm->nm", weights, artifact.quality[nearest])
    cost = np.einsum("np,npm->nm", weights, artifact.cost[nearest])
    return (WILLINGNESS * quality - cost).argmax(axis=1)


def numpy_vectorised(case: Case, queries: NDArray[np.float32]) -> Ids:
    """NumPy: matrix product, argpartition, softmax, einsum, argmax."""
    similarities = queries @ case.artifact.centroids.T
    nearest = np.argpartition(similarities, case.n_clusters - case.top_p, axis=1)[
        :, case.n_clusters - case.top_p :
    ]
    return blend_numpy(case, np.take_along_axis(similarities, nearest, axis=1), nearest)


def faiss_blend(case: Case, queries: NDArray[np.float32]) -> Ids:
    """Faiss IndexFlatIP, then NumPy."""
    return blend_numpy(case, *case.faiss_index.search(queries, case.top_p))


def faiss_search(case: Case, queries: NDArray[np.float32]) -> Ids:
    """Faiss IndexFlatIP alone: no decision."""
    return case.faiss_index.search(queries, case.top_p)[1][:, 0]  # type: ignore[no-any-return]


def sklearn_blend(case: Case, queries: NDArray[np.float32]) -> Ids:
    """scikit-learn's brute-force neighbours, then NumPy."""
    distances, nearest = case.neighbours.kneighbors(queries)
    return blend_numpy(case, (1 - distances**2 / 2).astype(np.float32), nearest)


@numba.njit(fastmath=True)
def _numba_loop(  # noqa: PLR0917
    queries: NDArray[np.float32],
    centroids: NDArray[np.float32],
    quality: NDArray[np.float32],
    cost: NDArray[np.float32],
    top_p: int,
    beta: float,
    willingness: float,
) -> NDArray[np.int64]:
    chosen = np.empty(len(queries), dtype=np.int64)
    best = np.empty(top_p, dtype=np.float32)
    ids = np.empty(top_p, dtype=np.int64)
    for row in range(len(queries)):
        best[:] = -np.inf
        for cluster in range(len(centroids)):
            product = np.float32(0)
            for column in range(queries.shape[1]):
                product += queries[row, column] * centroids[cluster, column]
            if product > best[top_p - 1]:
                place = top_p - 1
                while place > 0 and product > best[place - 1]:
                    best[place], ids[place] = best[place - 1], ids[place - 1]
                    place -= 1
                best[place], ids[place] = product, cluster
        weights = np.exp(beta * (best - best[0]))
        utility = -np.inf
        for model in range(quality.shape[1]):
            blended = 0.0
            for place in range(top_p):
                gain = willingness * quality[ids[place], model] - cost[ids[place], model]
                blended += weights[place] * gain
            if blended > utility:
                utility = blended
                chosen[row] = model
    return chosen


def numba_loop(case: Case, queries: NDArray[np.float32]) -> Ids:
    """One compiled loop with numba, fastmath."""
    artifact = case.artifact
    return _numba_loop(  # type: ignore[no-any-return]
        queries, artifact.centroids, artifact.quality, artifact.cost, case.top_p, case.beta, WILLINGNESS
    )


def reference(case: Case, queries: NDArray[np.float32]) -> Ids:
    """The project's readable NumPy specification, query by query."""
    wanted = policy()
    return np.array([_reference.route(case.artifact, query, wanted).model_id for query in queries])


_NORMALIZER = Normalizer(norm="l2")


def avengers_pro(case: Case, queries: NDArray[np.float32]) -> Ids:
    """The published decision, alpha = 0.7: normaliser, argsort, a loop over models and dictionaries."""
    centroids, average = case.artifact.centroids, case.average
    names = [model.name for model in case.artifact.models]
    chosen = []
    for query in queries:
        embedding = _NORMALIZER.transform(query.reshape(1, -1))[0]
        similarities = centroids @ embedding
        closest = np.argsort(similarities)[::-1][: case.top_p]
        weights = np.exp(case.beta * similarities[closest])
        weights = weights / weights.sum()
        scores = {}
        for name in names:
            score = 0.0
            for cluster, weight in zip(closest, weights, strict=True):
                cell = average[int(cluster)][name]
                score += weight * (0.7 * cell["p"] + 0.3 * (1 - cell["q"]))
            scores[name] = score
        chosen.append(names.index(max(scores, key=lambda name: scores[name])))
    return np.array(chosen)


Peer = Callable[[Case, NDArray[np.float32]], Ids]
