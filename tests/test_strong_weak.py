"""``Policy(strong=…, weak=…, strong_share=…)``: thresholds of calibration, in kernel and reference alike."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from centroute import ArtifactError, Policy, PolicyError, Router, _reference
from centroute.artifact import Artifact
from centroute.calibrate import calibrate
from centroute.calibrate.pairs import N_POINTS, curve_point, pair_curves
from centroute.datasets import Outcomes
from centroute.evaluate.strong_weak import measured, promised

SHARES = np.linspace(0.1, 0.9, 9)
GAINS = np.linspace(-0.2, 0.8, 11)
"""How much more often the strong model is right, by kind of query."""


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def simulated(n, seed, *, dim=24):
    """Queries of eleven kinds; a weak model right on a fifth of each, a strong one by its gain more."""
    rng = np.random.default_rng(seed)
    kinds = unit(np.random.default_rng(0).standard_normal((len(GAINS), dim)))
    kind = rng.integers(len(GAINS), size=n)
    rows = unit(kinds[kind] + 0.05 * rng.standard_normal((n, dim)))
    right = np.column_stack([np.full(n, 0.2), 0.2 + GAINS[kind], np.full(n, 0.2)])
    scores = (rng.random((n, 3)) < right).astype(np.float64)
    costs = np.tile([0.001, 0.01, 0.0005], (n, 1))
    outcomes = Outcomes(
        queries=tuple(f"{seed} {i}" for i in range(n)),
        models=("weak", "strong", "other"),
        scores=scores,
        costs=costs,
        datasets=("",) * n,
        ids=tuple(map(str, range(n))),
    )
    return outcomes, rows, GAINS[kind]


class Rows:
    """An embedder of rows that come from outside."""

    name, fingerprint, dim = "outside", None, 24


@pytest.fixture(scope="module")
def calibrated():
    outcomes, rows, _ = simulated(3000, 1)
    return calibrate(outcomes, embedder=Rows(), embeddings=rows, method="learned", n_clusters=11, top_p=4)


@pytest.fixture(scope="module")
def router(calibrated):
    return Router.from_artifact(calibrated)


def policy(share, strong="strong", weak="weak"):
    return Policy(strong=strong, weak=weak, strong_share=share)


def test_every_share_is_met_on_new_queries_with_the_promised_accuracy(router):
    outcomes, rows, _ = simulated(6000, 2)
    promise = promised(router, "strong", "weak")
    for share in SHARES:
        chosen = router.route_embeddings(rows, policy=policy(share)).model_ids
        assert set(np.unique(chosen)) <= {0, 1}
        assert (chosen == 1).mean() == pytest.approx(share, abs=0.04)
        accuracy = outcomes.scores[np.arange(len(chosen)), chosen].mean()
        wanted = np.interp(
            share, [p.strong_share for p in promise.points], [p.accuracy for p in promise.points]
        )
        # Two samples of 3,000 and 6,000 at most .5 of standard deviation, four standard errors.
        assert accuracy == pytest.approx(wanted, abs=4 * 0.5 * np.sqrt(1 / 3000 + 1 / 6000))


def test_the_strong_model_answers_where_it_gains_most(router):
    _, rows, gain = simulated(2000, 3)
    chosen = router.route_embeddings(rows, policy=policy(0.3)).model_ids == 1
    assert gain[chosen].min() > gain[~chosen].mean()


def test_all_and_none(router):
    _, rows, _ = simulated(300, 4)
    assert (router.route_embeddings(rows, policy=policy(0.0)).model_ids == 0).all()
    assert (router.route_embeddings(rows, policy=policy(1.0)).model_ids == 1).all()


@pytest.mark.parametrize("share", [0.0, 0.03, 0.25, 0.6, 0.97, 1.0])
def test_kernel_equals_the_reference(calibrated, router, share):
    _, rows, _ = simulated(60, 5)
    for row in rows:
        decision = router.route_embedding(row, policy=policy(share))
        wanted = _reference.route(calibrated, row, policy(share))
        assert decision.model_id == wanted.model_id or wanted.margin < 1e-5
        assert decision.margin == pytest.approx(wanted.margin, abs=2e-5)
        assert [router.models.index(name) for name in decision.ranking] == list(wanted.ranking)
        assert decision.resolved == _reference.resolved(calibrated, policy(share), wanted)


def test_figures_with_their_intervals(router):
    outcomes, rows, _ = simulated(4000, 6)
    promise = promised(router, "strong", "weak")
    found = measured(router, outcomes, "strong", "weak", embeddings=rows)
    assert found.n_queries == 4000
    for name in ("apgr", "cpt_50", "cpt_80"):
        one, other = getattr(promise, name), getattr(found, name)
        low, high = one.interval_95
        assert low < one.value < high
        assert low - 0.05 < other.value < high + 0.05
    assert found.apgr.interval_95[0] > 0.5
    assert promise.cpt_50.value < promise.cpt_80.value < 0.8


def test_the_interval_of_apgr_covers_what_other_draws_give():
    figures = []
    for seed in range(40):
        outcomes, _, gain = simulated(400, 100 + seed)
        order = np.argsort(-gain, kind="stable")
        curve = []
        for share in np.linspace(0, 1, N_POINTS):
            is_strong = np.zeros(400, dtype=bool)
            is_strong[order[: round(share * 400)]] = True
            curve.append(
                (share, *curve_point(is_strong, outcomes.scores[:, [1, 0]], outcomes.costs[:, [1, 0]]))
            )
        share, accuracy, _, error, _ = np.array(curve).T
        recovered = (accuracy - accuracy[0]) / (accuracy[-1] - accuracy[0])
        figures.append((np.trapezoid(recovered, share), np.trapezoid(error, share)))
    values, errors = np.array(figures).T
    # The errors along the curve count as one, so that the stated one is no smaller than the true one.
    assert values.std() < 1.3 * errors.mean()
    assert values.std() > 0.3 * errors.mean()


def test_a_pair_that_nobody_measured(calibrated):
    outcomes, rows, _ = simulated(400, 7)
    scores = outcomes.scores.copy()
    scores[::2, 0], scores[1::2, 1] = np.nan, np.nan
    outcomes = replace(outcomes, scores=scores)
    artifact = calibrate(outcomes, embedder=Rows(), embeddings=rows, method="means", n_clusters=4)
    pairs = list(combinations(artifact.models, 2))
    assert np.isnan(artifact.pairs[0]).all()
    assert pairs[0][0].name == "weak"
    with pytest.raises(PolicyError, match="no query of the calibration was answered by both strong and weak"):
        Router.from_artifact(artifact).route_embedding(rows[0], policy=policy(0.5))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"strong": "strong", "weak": "weak"}, "strong, weak, strong_share: all three belong together"),
        ({"strong_share": 0.5}, "all three belong together"),
        ({"strong": "strong", "weak": "weak", "strong_share": 1.2}, "strong_share=1.2: wanted 0 to 1"),
        ({"strong": "strong", "weak": "weak", "strong_share": float("nan")}, "strong_share=NaN"),
        ({"strong": "strong", "weak": "weak", "strong_share": 0.5, "alpha": 0.5}, "exclude each other"),
    ],
)
def test_policies_that_are_none(fields, said):
    with pytest.raises(PolicyError, match=said):
        Policy(**fields)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            policy(0.5, strong="weak", weak="strong"),
            "strong weak was no better than weak strong at calibration",
        ),
        (policy(0.5, weak="strong"), "both are strong"),
        (policy(0.5, weak="nobody"), "policy weak: unknown model 'nobody'"),
        (policy(0.5).replace(deny={"strong"}), "strong strong is excluded by allow, deny or require"),
    ],
)
def test_pairs_that_are_none(router, asked, said):
    with pytest.raises(PolicyError, match=said):
        router.route_embedding(router.artifact.centroids[0], policy=asked)


def test_a_strong_model_that_costs_less(calibrated):
    prior_cost, cost = calibrated.prior_cost.copy(), calibrated.cost.copy()
    prior_cost[1], cost[:, 1] = 0.0001, 0.0001
    router = Router.from_artifact(replace(calibrated, prior_cost=prior_cost, cost=cost))
    with pytest.raises(PolicyError, match="strong strong is better and costs less than weak weak"):
        router.route_embedding(calibrated.centroids[0], policy=policy(0.5))


def test_a_file_without_thresholds(calibrated):
    router = Router.from_artifact(replace(calibrated, pairs=None))
    with pytest.raises(PolicyError, match="stores no thresholds; calibrate again"):
        router.route_embedding(calibrated.centroids[0], policy=policy(0.5))


def test_the_file_keeps_the_curves(calibrated, tmp_path):
    calibrated.save(tmp_path / "router.safetensors")
    loaded = Artifact.load(tmp_path / "router.safetensors")
    np.testing.assert_array_equal(loaded.pairs, calibrated.pairs)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((0, 3, 0), 0.9, "descending"),
        ((0, 3, 1), 0.99, "ascending"),
        ((0, 0, 2), 1.5, "within 0 to 1"),
        ((0, 0, 3), -1.0, "finite and 0 or more"),
        ((0, 0, 5), np.nan, "known or unknown as the pair's first"),
        ((0, 1, 0), np.nan, "within -1 to 1"),
    ],
)
def test_curves_that_are_none(calibrated, place, value, said):
    pairs = calibrated.pairs.copy()
    pairs[place] = value
    with pytest.raises(ArtifactError, match=said):
        replace(calibrated, pairs=pairs).to_bytes()
    with pytest.raises(ArtifactError, match="pairs"):
        replace(calibrated, pairs=calibrated.pairs[1:]).to_bytes()


def test_unknown_costs_stay_unknown():
    scores = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    quality = np.array([[0.3, 0.9], [0.5, 0.7], [0.2, 0.2]])
    unknown = np.full((3, 2), np.nan)
    curves = pair_curves((quality, unknown), (quality, unknown), scores, unknown, np.array([0.4, 0.6]))
    assert curves.shape == (1, N_POINTS, 6)
    assert np.isnan(curves[..., 5]).all()
    assert not np.isnan(curves[..., :4]).any()
    assert (
        pair_curves((quality[:, :1],) * 2, (quality[:, :1],) * 2, scores[:, :1], unknown[:, :1], [0.4])
        is None
    )


def test_the_command_shows_promise_and_measurement(cli, router_file, outcomes_file):
    done = cli("thresholds", router_file)
    assert done.code == 0, done.err
    assert "accuracy promised" in done.out
    assert "APGR" in done.out
    shown = cli("thresholds", router_file, outcomes_file, "--json")
    assert shown.code == 0, shown.err
    found = json.loads(shown.out)
    assert set(found) == {"promised", "measured"}
    assert set(found["measured"]) == {"strong", "weak", "points", "apgr", "cpt_50", "cpt_80", "n_queries"}
    assert found["promised"]["n_queries"] is None
    refused = cli("thresholds", router_file, "--strong", "nobody")
    assert (refused.code, refused.out) == (1, "")
    assert "unknown model 'nobody'" in refused.err


def test_the_flags_reach_the_policy(cli, router_file):
    from centroute.evaluate.strong_weak import default_pair

    strong, weak = default_pair(Artifact.load(router_file))
    done = cli(
        "route", router_file, "2 + 2?", "--json", "--strong", strong, "--weak", weak, "--strong-share", "1"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["model"] == strong
