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
