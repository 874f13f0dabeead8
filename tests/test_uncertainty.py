"""Standard errors of decisions against their NumPy specification."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernel import make_artifact, unit

from centroute import Artifact, ArtifactError, Policy, Router, _reference

POLICIES = [
    Policy(), Policy(willingness_to_pay=0.02), Policy(alpha=0.7), Policy(alpha=1.0), Policy(min_quality=0.5),
    Policy(allow={"m1"}),
]  # fmt: skip


def with_errors(*, seed: int = 0, **fields: object) -> Artifact:
    artifact = make_artifact(seed=seed, **fields)
    errors = 0.2 * np.random.default_rng(seed + 1).random(artifact.quality.shape).astype(np.float32)
    return replace(artifact, quality_se=errors)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), top_p=st.integers(1, 12), policy=st.sampled_from(POLICIES))
def test_errors_equal_the_specification(seed: int, top_p: int, policy: Policy) -> None:
    artifact = with_errors(seed=seed, top_p=top_p, ood_threshold=0.3)
    router = Router.from_artifact(artifact)
    query = unit(np.random.default_rng(seed).standard_normal((1, 16)))[0]
    decision, wanted = router.route_embedding(query, policy=policy), _reference.route(artifact, query, policy)
    assert decision.quality_se == pytest.approx(
        _reference.quality_se(artifact, wanted.cluster_ids, wanted.cluster_weights, wanted.model_id), rel=1e-5
    )
    assert decision.resolved is _reference.resolved(artifact, policy, wanted)


def test_both_answers_are_given() -> None:
    artifact = with_errors()
    queries = unit(np.random.default_rng(3).standard_normal((200, 16)))
    exact = Router.from_artifact(replace(artifact, quality_se=np.zeros_like(artifact.quality)))
    vague = Router.from_artifact(replace(artifact, quality_se=np.ones_like(artifact.quality)))
    assert all(exact.route_embedding(query).resolved is True for query in queries)
    assert all(vague.route_embedding(query).resolved is False for query in queries)
    assert len({Router.from_artifact(artifact).route_embedding(query).resolved for query in queries}) == 2


def test_out_of_distribution_nothing_is_resolved() -> None:
    artifact = replace(with_errors(ood_threshold=1.0), quality_se=np.zeros((33, 5), dtype=np.float32))
    decision = Router.from_artifact(artifact).route_embedding(np.ones(16, dtype=np.float32))
    assert (decision.in_distribution, decision.resolved) == (False, False)


def test_without_errors_nothing_is_claimed() -> None:
    decision = Router.from_artifact(make_artifact()).route_embedding(np.ones(16, dtype=np.float32))
    assert (decision.quality_se, decision.resolved) == (None, None)


def test_errors_come_back_from_the_file(tmp_path: Path) -> None:
    artifact = with_errors()
    artifact.save(tmp_path / "router.safetensors")
    loaded = Artifact.load(tmp_path / "router.safetensors")
    assert loaded.quality_se is not None
    np.testing.assert_array_equal(loaded.quality_se, artifact.quality_se)


@pytest.mark.parametrize(
    ("errors", "wanted"),
    [
        (np.full((33, 5), -0.1), "quality_se"),
        (np.full((33, 5), np.nan), "quality_se"),
        (np.zeros((33, 4)), "quality_se"),
    ],
    ids=["negative", "unknown", "another shape"],
)
def test_errors_that_are_none_are_refused(errors: np.ndarray, wanted: str) -> None:
    with pytest.raises(ArtifactError, match=wanted):
        replace(make_artifact(), quality_se=errors.astype(np.float32)).to_bytes()


# -- where they come from ----------------------------------------------------------------


def test_errors_of_one_cluster_by_hand() -> None:
    from centroute.calibrate.uncertainty import STRENGTH, quality_errors

    scores = np.array([[1, 0], [0, 0], [1, np.nan], [1, 0]], dtype=np.float32)
    quality = np.array([[0.75, 0.0]])
    ids, weights = np.zeros((4, 1), dtype=np.int32), np.ones((4, 1))
    (errors,) = quality_errors(ids, weights, scores, quality, shrinkage=2.0)
    assert errors[0] == pytest.approx(np.sqrt((0.75 * 0.25) / (4 + 2 + 1)))
    assert errors[1] == 0
    assert STRENGTH > 0


def test_more_outcomes_make_smaller_errors_and_none_the_spread_of_one() -> None:
    from centroute.calibrate.uncertainty import quality_errors

    rng = np.random.default_rng(0)
    scores = (rng.random((1000, 1)) < 0.5).astype(np.float32)
    ids = (rng.random((1000, 1)) < 0.1).astype(np.int32)
    errors = quality_errors(ids, np.ones((1000, 1)), scores, np.full((3, 1), 0.5), shrinkage=0.0)[:, 0]
    np.testing.assert_allclose(errors, [0.5 / np.sqrt(n + 1) for n in np.bincount(ids[:, 0], minlength=3)])


@pytest.mark.parametrize("method", ["means", "learned"])
def test_held_out_means_lie_within_the_errors(method: str) -> None:
    """The synthetic sample's cells, again from another half: differences in units of their errors."""
    from centroute.calibrate import calibrate
    from centroute.datasets import synthetic_outcomes

    def fit(n_queries: int) -> Artifact:
        return calibrate(
            synthetic_outcomes(n_queries=n_queries, seed=5), method=method, n_clusters=8, top_p=1, beta=9.0,
            shrinkage=1.0, surface_weight=0.0, holdout=0.0,
        )  # fmt: skip

    few, many = fit(400), fit(4000)
    nearest = (few.centroids @ many.centroids.T).argmax(axis=1)
    close = (few.centroids @ many.centroids.T).max(axis=1) > 0.97
    assert few.quality_se is not None
    assert many.quality_se is not None
    distance = (few.quality - many.quality[nearest]) / np.hypot(few.quality_se, many.quality_se[nearest])
    assert (np.abs(distance[close]) < 1.96).mean() > 0.8
    assert (few.quality_se > many.quality_se[nearest]).mean() > 0.9
