"""The Rust kernel against its NumPy specification."""

import json
import pickle
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute import Artifact, DataError, Decision, Policy, PolicyError, Router, _reference
from centroute.artifact import AlphaScore, EmbedderId, PoolModel

DIMS = (1, 3, 7, 15, 16, 17, 31, 33, 64, 65, 384)
CLUSTERS = (1, 2, 33)
TIE = 1e-5


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_artifact(
    *,
    seed=0,
    n_clusters=33,
    dim=16,
    n_models=5,
    top_p=4,
    beta=9.0,
    ood_threshold=None,
    unknown_cost=(),
    **fields,
):
    rng = np.random.default_rng(seed)
    quality = rng.random((n_clusters, n_models)).astype(np.float32)
    cost = (0.01 * rng.random((n_clusters, n_models)) ** 3 + 1e-5).astype(np.float32)
    prior_cost = cost.mean(axis=0)
    for column in unknown_cost:
        cost[:, column] = prior_cost[column] = np.nan
    models = tuple(
        PoolModel(
            f"m{column}",
            tags=frozenset({"even"} if column % 2 == 0 else {"odd"}),
            context_length=1000 * column,
        )
        for column in range(n_models)
    )
    described = {
        "models": models,
        "embedder": EmbedderId("outside", dim, None),
        "centroids": unit(rng.standard_normal((n_clusters, dim))),
        "quality": quality,
        "cost": cost,
        "count": np.ones_like(quality),
        "prior_quality": quality.mean(axis=0),
        "prior_cost": prior_cost,
        "frontier": np.array([[0, 0.4, 0.001], [0.01, 0.5, 0.002], [0.1, 0.6, 0.004]], dtype=np.float32),
        "top_p": min(top_p, n_clusters),
        "beta": beta,
        "method": {"name": "made up"},
        "ood_threshold": ood_threshold,
    }
    return Artifact(**{**described, **fields})


def queries(n, dim, seed=1):
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


def assert_agrees(artifact, rows, policy, router=None):
    """Every number of the kernel's decisions equals the reference's; choices may differ in a tie alone."""
    router = router or Router.from_artifact(artifact)
    batch = router.route_embeddings(rows, policy=policy)
    quality, cost = router.predict(rows)
    for row, query in enumerate(rows):
        wanted = _reference.route(artifact, query, policy)
        decision = router.route_embedding(query, policy=policy)
        np.testing.assert_allclose(quality[row], wanted.quality, atol=2e-6)
        np.testing.assert_allclose(cost[row], wanted.cost, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(batch.similarity[row], wanted.similarity, atol=2e-6)
        # One query and a batch are the same code: equal to the bit.
        assert decision.model_id == batch.model_ids[row]
        assert decision.quality == batch.quality[row]
        assert decision.clusters == tuple(
            zip(batch.cluster_ids[row].tolist(), batch.cluster_weights[row].tolist(), strict=True)
        )
        if wanted.model_id != decision.model_id:
            gap = abs(wanted.utility[wanted.model_id] - wanted.utility[decision.model_id])
            assert gap < TIE, f"row {row}: chose {decision.model_id}, wanted {wanted.model_id}, gap {gap}"
            continue
        np.testing.assert_allclose(batch.margin[row], wanted.margin, atol=TIE)
        assert decision.ranking[0] == decision.model
        assert set(decision.ranking) == {artifact.models[model].name for model in wanted.ranking}
        utilities = [wanted.utility[router.models.index(name)] for name in decision.ranking]
        if policy is None or (policy.min_quality is None and policy.fallback is None):
            assert all(left >= right - TIE for left, right in pairwise(utilities))


@st.composite
def policies(draw):
    objective = draw(
        st.sampled_from([{}, {"alpha": 1.0}, {"alpha": 0.0}, {"alpha": 0.5}, {"willingness_to_pay": 0.0},
                         {"willingness_to_pay": 0.01}, {"willingness_to_pay": 3.0}, {"min_quality": 0.5},
                         {"min_quality": 1.0}, {"max_mean_cost": 0.003}])
    )  # fmt: skip
    limits = draw(
        st.sampled_from([{}, {"deny": {"m0"}}, {"allow": {"m1", "m2"}}, {"require": {"odd"}},
                         {"require": {"context>=2000"}}, {"fallback": "m1"}, {"max_cost": 0.02},
                         {"max_cost": 0.002, "fallback": "m1"}])
    )  # fmt: skip
    return Policy(**objective, **limits)


@given(
    dim=st.sampled_from(DIMS),
    n_clusters=st.sampled_from(CLUSTERS),
    n_models=st.sampled_from((3, 4, 16, 17)),
    top_p=st.sampled_from((1, 2, 4, 32)),
    beta=st.sampled_from((0.0, 9.0, 50.0)),
    ood_threshold=st.sampled_from((None, -0.5, 0.3, 0.9)),
    alpha_score=st.sampled_from(get_args(AlphaScore)),
    policy=policies(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=200, deadline=None)
def test_kernel_equals_the_reference(
    dim, n_clusters, n_models, top_p, beta, ood_threshold, alpha_score, policy, seed
):
    artifact = make_artifact(
        seed=seed, dim=dim, n_clusters=n_clusters, n_models=n_models, top_p=top_p, beta=beta,
        ood_threshold=ood_threshold, alpha_score=alpha_score,
    )  # fmt: skip
    assert_agrees(artifact, queries(3, dim, seed + 1), policy)


@pytest.mark.parametrize("n", [0, 1, 2, 257])
def test_batch_equals_loop(n):
    artifact = make_artifact()
    router = Router.from_artifact(artifact)
    rows = queries(n, 16)
    batch = router.route_embeddings(rows, policy=Policy(willingness_to_pay=0.01))
    assert len(batch) == n
    assert batch.cluster_ids.shape == (n, 4)
    assert batch.models == [
        router.route_embedding(row, policy=Policy(willingness_to_pay=0.01)).model for row in rows
    ]
    assert batch.model_ids.dtype == np.int32
    assert batch.in_distribution.dtype == np.bool_


def test_a_default_policy_holds_for_what_a_request_leaves_open():
    artifact = make_artifact(default_policy=Policy(willingness_to_pay=0.0, deny={"m0"}))
    cheapest = [
        _reference.route(artifact, row, Policy(willingness_to_pay=0.0, deny={"m0"})).model_id
        for row in queries(50, 16)
    ]
    router = Router.from_artifact(artifact)
    assert router.route_embeddings(queries(50, 16)).model_ids.tolist() == cheapest
    assert_agrees(artifact, queries(20, 16), Policy(allow={"m0", "m1"}, deny=set()))
    assert_agrees(artifact, queries(20, 16), Policy(alpha=0.7))


def test_permuting_models_permutes_the_choices():
    artifact = make_artifact(n_models=7)
    order = np.random.default_rng(5).permutation(7)
    shuffled = make_artifact(
        n_models=7,
        models=tuple(artifact.models[place] for place in order),
        **{name: getattr(artifact, name)[:, order].copy() for name in ("quality", "cost", "count")},
        **{name: getattr(artifact, name)[order].copy() for name in ("prior_quality", "prior_cost")},
    )
    rows = queries(200, 16)
    for policy in (None, Policy(alpha=0.4), Policy(willingness_to_pay=0.02)):
        assert (
            Router.from_artifact(artifact).route_embeddings(rows, policy=policy).models
            == Router.from_artifact(shuffled).route_embeddings(rows, policy=policy).models
        )


def test_ties_go_to_the_lower_cost_then_the_lower_id():
    quality = np.full((33, 5), 0.5, dtype=np.float32)
    cost = np.tile(np.array([0.3, 0.2, 0.1, 0.1, 0.4], dtype=np.float32), (33, 1))
    artifact = make_artifact(quality=quality, cost=cost, prior_quality=quality[0], prior_cost=cost[0])
    decision = Router.from_artifact(artifact).route_embedding(queries(1, 16)[0])
    assert decision.ranking == ("m2", "m3", "m1", "m0", "m4")
    assert decision.margin == 0.0


def test_alpha_zero_and_one_pick_the_extremes():
    artifact = make_artifact(top_p=1)
    router = Router.from_artifact(artifact)
    rows = queries(300, 16)
    clusters = router.route_embeddings(rows).cluster_ids[:, 0]
    best = router.route_embeddings(rows, policy=Policy(alpha=1)).model_ids
    cheapest = router.route_embeddings(rows, policy=Policy(alpha=0)).model_ids
    np.testing.assert_array_equal(best, artifact.quality[clusters].argmax(axis=1))
    np.testing.assert_array_equal(cheapest, artifact.cost[clusters].argmin(axis=1))


def test_raising_the_willingness_never_lowers_the_quality_or_the_cost():
    router = Router.from_artifact(make_artifact(n_models=16))
    rows = queries(500, 16)
    before = None
    for amount in [0, *np.geomspace(1e-5, 10, 60)]:
        batch = router.route_embeddings(rows, policy=Policy(willingness_to_pay=float(amount)))
        if before is not None:
            assert (batch.quality >= before.quality - 1e-6).all()
            assert (batch.cost >= before.cost - 1e-8).all()
        before = batch


def test_an_unknown_cost_is_never_free():
    artifact = make_artifact(unknown_cost=(1, 3))
    router = Router.from_artifact(artifact)
    rows = queries(30, 16)
    assert_agrees(artifact, rows, None)
    for score in get_args(AlphaScore):
        variant = replace(artifact, alpha_score=score)
        assert_agrees(variant, rows, Policy(alpha=1))
        assert_agrees(variant, rows, Policy(alpha=0.5, deny={"m1", "m3"}))
    assert_agrees(artifact, rows, Policy(willingness_to_pay=0.01, deny={"m1", "m3"}))
    for policy in (Policy(willingness_to_pay=0.01), Policy(alpha=0.5), Policy(min_quality=0.5),
                   Policy(max_cost=1.0), Policy(max_mean_cost=0.003)):  # fmt: skip
        with pytest.raises(PolicyError, match="m1, m3"):
            router.route_embeddings(rows, policy=policy)
    decision = router.route_embedding(rows[0], policy=Policy(allow={"m3"}))
    assert decision.cost is None
    assert decision.margin is None


def test_no_candidate_says_which_limit_excludes_whom():
    router = Router.from_artifact(make_artifact())
    rows = queries(2, 16)
    with pytest.raises(PolicyError, match="allow excludes m1, m2, m3, m4; deny excludes m0"):
        router.route_embeddings(rows, policy=Policy(allow={"m0"}, deny={"m0"}))
    with pytest.raises(PolicyError, match=r"row 0: max_cost 1.000e-9 USD excludes m0 \("):
        router.route_embeddings(rows, policy=Policy(max_cost=1e-9))
    with pytest.raises(PolicyError, match="require vision excludes m0"):
        router.route_embeddings(rows, policy=Policy(require={"vision"}))
    with pytest.raises(PolicyError, match=r"allow: unknown model 'm9' \(the pool has m0, m1"):
        router.route_embeddings(rows, policy=Policy(allow={"m9"}))
    with pytest.raises(PolicyError, match="cheapest choice already costs"):
        router.route_embeddings(rows, policy=Policy(max_mean_cost=1e-9))


def test_the_fallback_is_taken_out_of_distribution_and_when_nothing_is_left():
    router = Router.from_artifact(make_artifact(ood_threshold=1.0))
    decision = router.route_embedding(queries(1, 16)[0], policy=Policy(fallback="m4"))
    assert (decision.model, decision.in_distribution, decision.margin) == ("m4", False, None)
    assert decision.ranking[0] == "m4"
    router = Router.from_artifact(make_artifact())
    assert (
        router.route_embedding(queries(1, 16)[0], policy=Policy(fallback="m4", max_cost=1e-9)).model == "m4"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 1.5}, "alpha=1.5: wanted 0 to 1"),
        ({"willingness_to_pay": -1}, "willingness_to_pay=-1"),
        ({"willingness_to_pay": float("nan")}, "willingness_to_pay=NaN"),
        ({"max_cost": float("inf")}, "max_cost=inf"),
        ({"alpha": 0.5, "min_quality": 0.5}, "alpha and min_quality exclude each other"),
        ({"allow": "m1"}, "wanted a collection of strings"),
        ({"deny": [1]}, "wanted a collection of strings"),
        ({"deny": 3}, "wanted a collection of strings"),
    ],
)
def test_policies_out_of_range_are_refused(fields, message):
    with pytest.raises(PolicyError, match=message.replace("(", r"\(")):
        Policy(**fields)


def test_policies_are_values():
    policy = Policy(willingness_to_pay=0.5, deny=["b", "a"], fallback="c")
    assert policy == Policy(willingness_to_pay=0.5, deny={"a", "b"}, fallback="c")
    assert hash(policy) == hash(Policy(willingness_to_pay=0.5, deny={"a", "b"}, fallback="c"))
    assert policy != Policy()
    assert Policy(alpha=0.0) == Policy(alpha=-0.0)
    assert hash(Policy(alpha=0.0)) == hash(Policy(alpha=-0.0))
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert policy.replace(deny=None, alpha=0.1, willingness_to_pay=None) == Policy(alpha=0.1, fallback="c")
    assert eval(repr(policy)) == policy  # noqa: S307, the repr is ours
    with pytest.raises(AttributeError):
        policy.alpha = 0.3


def test_one_policy_serves_two_routers():
    first, second = (
        Router.from_artifact(make_artifact(seed=1)),
        Router.from_artifact(make_artifact(seed=2, n_models=3)),
    )
    policy = Policy(deny={"m0"})
    rows = queries(20, 16)
    for router in (first, second, first):
        assert "m0" not in router.route_embeddings(rows, policy=policy).models


BAD = np.nan, np.inf, -np.inf


@pytest.mark.parametrize("value", BAD)
def test_rows_that_are_not_finite_are_refused_with_their_number(value):
    router = Router.from_artifact(make_artifact())
    rows = queries(5, 16)
    rows[3, 7] = value
    with pytest.raises(DataError, match="row 3: it holds NaN or infinity"):
        router.route_embeddings(rows)
    with pytest.raises(DataError, match="row 0: it holds NaN"):
        router.route_embedding(rows[3])


def test_zero_rows_are_refused_with_their_number():
    router = Router.from_artifact(make_artifact())
    rows = queries(5, 16)
    rows[2] = 0
    with pytest.raises(DataError, match="row 2: its norm is zero"):
        router.route_embeddings(rows)
    with pytest.raises(DataError, match="row 2: its norm is zero"):
        router.predict(rows)


def test_wrong_arrays_say_what_was_got_and_wanted():
    router = Router.from_artifact(make_artifact())
    rows = queries(6, 16)
    wrong = {
        r"got an array of float64 \[6, 16\], wanted a C-contiguous array of float32 \[n, dim\]": rows.astype(
            "f8"
        ),
        "got an array of >f4": rows.astype(">f4"),
        "not C-contiguous": np.asfortranarray(rows),
        r"float32 \[16\], wanted": rows[0],
        "dim: got 15, the router wants 16": rows[:, :15].copy(),
        "list": rows.tolist(),
        "NoneType": None,
    }
    for message, value in wrong.items():
        with pytest.raises(DataError, match=message):
            router.route_embeddings(value)
    with pytest.raises(DataError, match=r"wanted a C-contiguous array of float32 \[dim\]"):
        router.route_embedding(rows)
    with pytest.raises(DataError, match="dim: got 15"):
        router.route_embedding(rows[0, :15].copy())


def test_rows_are_normalised_inside():
    router = Router.from_artifact(make_artifact())
    rows = queries(50, 16)
    scaled = router.route_embeddings(rows * np.float32(37.0))
    plain = router.route_embeddings(rows)
    np.testing.assert_array_equal(scaled.model_ids, plain.model_ids)
    np.testing.assert_allclose(scaled.similarity, plain.similarity, atol=1e-6)


def test_decisions_explain_themselves():
    decision = Router.from_artifact(make_artifact()).route_embedding(queries(1, 16)[0])
    assert isinstance(decision, Decision)
    assert len(decision.clusters) == 4
    assert sum(weight for _, weight in decision.clusters) == pytest.approx(1.0, abs=1e-6)
    assert json.dumps([decision.model, decision.quality, decision.cost, decision.margin, decision.ranking])
    assert "model='m" in repr(decision)
    assert decision.generation == 1
