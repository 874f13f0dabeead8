"""``diagnose``: where the oracle's lead is, and advice that is right where the cause is known.

Rows are given directly, and scores are drawn from known chances. Every number follows from its seeds.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from centroute import DataError, EmbedderError
from centroute.calibrate import selection
from centroute.datasets import Outcomes, write_jsonl
from centroute.diagnose import cross_fitting, diagnose
from centroute.diagnose.advice import CLEAR, WORTHWHILE, Evidence, advise
from centroute.diagnose.draws import Estimate, draw_means, z_score
from centroute.diagnose.learning_curve import line_at
from centroute.diagnose.noise import chance_oracle, repeated_texts
from centroute.diagnose.probes import LinearProbe, dataset_means, nearest_neighbors, residuals, weights
from centroute.diagnose.trees import bin_columns, predict_by_forest

DIM, N_MODELS = 16, 4
QUICK = {"n_clusters": 6, "n_folds": 3, "n_splits": 1}


@pytest.fixture(autouse=True, scope="module")
def few_candidates():
    """The search for settings is `calibrate`'s and tested there: here it is short, and forests are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "MEAN_BLENDS", ((2, 9.0),))
        patch.setattr(selection, "LEARNED_BLENDS", ((4, 9.0),))
        patch.setattr(selection, "SHRINKAGES", (3.0, 30.0))
        patch.setattr(cross_fitting, "N_TREES", 20)
        yield


class Rows:
    """An embedder of rows that come from outside."""

    fingerprint, dim = None, DIM

    def __init__(self, name="outside"):
        self.name = name


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def outcomes_of(scores, *, texts=None, labels=None):
    n = len(scores)
    return Outcomes(
        queries=tuple(f"query {text}" for text in (range(n) if texts is None else texts)),
        models=tuple(f"m{model}" for model in range(scores.shape[1])),
        scores=np.asarray(scores, dtype=np.float64),
        costs=np.full(scores.shape, np.nan),
        datasets=("",) * n if labels is None else tuple(f"topic {label}" for label in labels),
        ids=tuple(map(str, range(n))),
    )


def simulated(seed, n, chances, *, noise=0.5):
    """Topics, rows around their centres, and scores by the chances ``[n_topics, n_models]``."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(len(chances), size=n)
    centres = np.random.default_rng(0).normal(size=(len(chances), DIM))
    rows = unit(centres[topics] + noise * rng.normal(size=(n, DIM)))
    return rng, topics, rows, (rng.random((n, chances.shape[1])) < chances[topics]).astype(np.float64)


def masters(n_topics, n_models=N_MODELS, *, high=0.8, low=0.45):
    """Each model is best at some topics."""
    chances = np.full((n_topics, n_models), low)
    chances[np.arange(n_topics), np.arange(n_topics) % n_models] = high
    return chances


def found_in(outcomes, *rows, **options):
    names = [Rows(f"outside {place}") for place in range(len(rows))]
    return diagnose(outcomes, embedders=names, embeddings=rows, **{**QUICK, **options})


# Advice where the cause is known.


@pytest.mark.parametrize("seed", range(3))
def test_permuted_labels_say_nothing_to_gain(seed):
    rng, topics, rows, scores = simulated(seed, 300, masters(6))
    for permuted in (
        scores[rng.permutation(len(scores))],
        np.column_stack([rng.permutation(column) for column in scores.T]),
    ):
        found = found_in(outcomes_of(permuted, labels=topics), rows)
        assert found.advice.verdict == "nothing to gain", found
        assert "chance" in found.advice.reason
        assert found.oracle.gain.value > 0.3
        low, high = found.embedders[0].noise.interval_95
        assert low <= found.oracle.gain.value <= high + 0.03


@pytest.mark.parametrize(("seed", "means"), [(0, (0.5, 0.5, 0.5, 0.5)), (1, (0.5, 0.6, 0.55, 0.5))])
def test_pure_noise_says_nothing_to_gain(seed, means):
    _, topics, rows, scores = simulated(seed, 300, np.tile(means, (6, 1)))
    assert found_in(outcomes_of(scores, labels=topics), rows).advice.verdict == "nothing to gain"


def test_permuted_repeats_say_nothing_to_gain():
    """Rows of equal texts then have nothing in common."""
    rng, topics, rows, scores = simulated(1, 150, masters(6))
    twice = np.repeat(np.arange(150), 2)
    found = found_in(
        outcomes_of(scores[rng.permutation(twice)], texts=twice, labels=topics[twice]), rows[twice]
    )
    assert found.noise.basis == "repeats"
    assert found.noise.n_repeated_texts == 150
    assert found.noise.kept_share.value < 0.05
    assert found.advice.verdict == "nothing to gain"


def test_the_same_data_unpermuted_have_much_to_gain():
    """The tests above could fail."""
    _, topics, rows, scores = simulated(0, 300, masters(6))
    found = found_in(outcomes_of(scores, labels=topics), rows)
    assert found.embedders[0].router.gain.interval_95[0] > 0.1
    assert min(found.embedders[0].apart_z.values()) > 2 * CLEAR


def test_labels_that_the_embedding_cannot_see_ask_for_another_embedder():
    rng, topics, rows, scores = simulated(0, 300, masters(6))
    found = found_in(outcomes_of(scores, labels=topics), unit(rng.normal(size=rows.shape)))
    assert found.advice.verdict == "another embedder"
    assert "Dataset labels add" in found.advice.reason
    assert found.embedders[0].labels.interval_95[0] > 0.1


def test_an_embedder_that_was_tried_and_sees_more_is_named():
    rng, _, rows, scores = simulated(0, 300, masters(6))
    found = found_in(outcomes_of(scores), unit(rng.normal(size=rows.shape)), rows)
    assert found.advice.verdict == "another embedder"
    assert found.advice.reason.startswith("outside 1 adds")
    assert found.others[0].router.interval_95[0] > 0.1
    assert found.dataset_labels is None


def test_few_rows_of_much_structure_ask_for_more_outcomes():
    _, _, rows, scores = simulated(1, 200, masters(20, 5, high=0.95, low=0.3))
    found = found_in(outcomes_of(scores), rows, n_clusters=20)
    assert found.advice.verdict == "more outcomes"
    assert "extrapolated" in found.advice.reason
    curve = found.embedders[0].learning_curve
    assert [point.n_queries for point in curve.points] == sorted(point.n_queries for point in curve.points)
    assert curve.points[0].gain.value < curve.points[-1].gain.value < curve.doubled.gain.value
    assert curve.doubled.n_queries == 400


@pytest.mark.parametrize("is_same", [True, False])
def test_models_that_are_alike_ask_for_a_more_diverse_pool(is_same):
    """Equal chances on every topic, or equal answers but for one in fifty."""
    rng, topics, rows, scores = simulated(0, 400, np.repeat(np.linspace(0.1, 0.9, 6)[:, None], 4, axis=1))
    if is_same:
        scores = np.abs(np.repeat(scores[:, :1], 4, axis=1) - (rng.random(scores.shape) < 0.02))
    found = found_in(outcomes_of(scores, labels=topics), rows)
    assert found.advice.verdict == "a more diverse pool"
    assert found.embedders[0].difficulty_z > CLEAR


def test_one_model_that_is_better_everywhere_asks_for_a_more_diverse_pool():
    """Texts tell by how much, and it makes no difference."""
    chances = np.column_stack([np.full(6, 0.9), np.linspace(0.1, 0.8, 6), np.linspace(0.8, 0.1, 6)])
    _, topics, rows, scores = simulated(0, 600, chances)
    found = found_in(outcomes_of(scores, labels=topics), rows)
    assert max(found.embedders[0].apart_z.values()) > CLEAR
    assert found.advice.verdict == "a more diverse pool"


def test_a_router_that_has_what_there_is_has_nothing_to_gain():
    _, _, rows, scores = simulated(0, 900, masters(2, 2, high=0.85, low=0.35))
    found = found_in(outcomes_of(scores), rows, n_clusters=2)
    assert found.advice.verdict == "nothing to gain"
    assert "twice the outcomes" in found.advice.reason
    assert found.embedders[0].router.gain.interval_95[0] > 0.15


def test_what_probes_find_and_nearness_does_not_show():
    """The better model is the sign of one column, in which all rows are near each other."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(700, DIM))
    is_first = rows[:, 0] > 0
    rows[:, 0] *= 0.2
    scores = rng.random((700, 2)) < np.where(is_first[:, None], [0.9, 0.3], [0.3, 0.9])
    found = found_in(outcomes_of(scores.astype(float)), unit(rows))
    one = found.embedders[0]
    assert one.trees.gain.interval_95[0] > max(one.knn.gain.value, one.router.gain.value)
    assert one.linear.gain.interval_95[0] > 0
    assert one.tables.interval_95[0] > 0
    assert found.advice.verdict == "another embedder"
    assert "Probes find" in found.advice.reason


def test_tables_that_are_too_coarse_are_told():
    """The better model is the sign of a product of two columns; six clusters are too few to show it."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(900, DIM))
    is_first = rows[:, 0] * rows[:, 1] > 0
    scores = rng.random((900, 2)) < np.where(is_first[:, None], [0.9, 0.2], [0.2, 0.9])
    found = found_in(outcomes_of(scores.astype(float)), unit(rows))
    one = found.embedders[0]
    assert one.trees.gain.interval_95[0] > 0 >= one.linear.gain.interval_95[0]
    assert one.tables.interval_95[0] > 0
    assert "calibrate with more --clusters" in found.advice.reason


def test_repeated_texts_tell_noise_from_what_the_embedding_does_not_show():
    """Every text has its own masters, right in 95 of 100 rows; the embedding knows nothing of it."""
    rng = np.random.default_rng(0)
    twice = np.repeat(np.arange(250), 2)
    chances = np.where(rng.random((250, N_MODELS)) < 0.5, 0.95, 0.05)[twice]
    scores = (rng.random(chances.shape) < chances).astype(float)
    found = found_in(outcomes_of(scores, texts=twice), unit(rng.normal(size=(250, DIM)))[twice])
    assert found.noise.basis == "repeats"
    one = found.embedders[0]
    best = chances.mean(axis=0).max()
    true_noise = scores.max(axis=1).mean() - chances.max(axis=1).mean()
    assert true_noise < one.noise.value < 0.15  # at most: one row is a noisy guide
    low, high = one.not_in_embedding.interval_95
    assert low < chances.max(axis=1).mean() - best < high + 0.05
    assert found.advice.verdict == "another embedder"
    assert "Equal texts repeat" in found.advice.reason


def test_the_parts_sum_up_to_what_the_router_leaves():
    _, topics, rows, scores = simulated(0, 300, masters(6))
    found = found_in(outcomes_of(scores, labels=topics), rows)
    one = found.embedders[0]
    parts = one.noise.value + one.not_in_embedding.value + one.tables.value
    assert parts == pytest.approx(found.oracle.value - one.router.value)


def test_the_same_seed_gives_the_same_figures():
    _, topics, rows, scores = simulated(0, 100, masters(3))
    outcomes = outcomes_of(scores, labels=topics)
    first, second, other = (
        json.dumps(found_in(outcomes, rows, seed=seed).to_json(), allow_nan=False) for seed in (5, 5, 6)
    )
    assert first == second != other


def test_scores_that_are_missing_are_not_counted_as_zero():
    """Half of the scores are not known; a model that is rarely asked is not thereby worse."""
    rng, topics, rows, scores = simulated(0, 700, masters(6, high=0.9, low=0.3))
    missing = rng.random(scores.shape) < [0.2, 0.4, 0.6, 0.7]
    missing[np.arange(len(scores)), rng.integers(N_MODELS, size=len(scores))] = False
    found = found_in(outcomes_of(np.where(missing, np.nan, scores), labels=topics), rows)
    one = found.embedders[0]
    assert found.best_single == pytest.approx(scores.mean(axis=0).max(), abs=0.05)
    for way in (one.knn, one.linear, one.trees, one.together, one.router):
        assert way.gain.interval_95[0] > 0.2


def test_costs_count_where_a_willingness_to_pay_is_given():
    _, _, rows, scores = simulated(0, 300, np.tile([0.9, 0.6], (3, 1)))
    costs = np.tile([0.01, 0.001], (300, 1))
    outcomes = replace(outcomes_of(scores), costs=costs)
    found = found_in(outcomes, rows, willingness_to_pay=0.02)
    assert found.best_single_model == "m1"
    assert found.best_single == pytest.approx(scores[:, 1].mean() - 0.05)
    # A pair without a cost is not known, and one of its rows holds no other.
    costs[::3, 0] = costs[0] = np.nan
    twice = np.repeat(np.arange(150), 2)
    outcomes = replace(outcomes_of(scores, texts=twice), costs=costs)
    found = found_in(outcomes, rows, willingness_to_pay=0.02)
    assert found.best_single == pytest.approx(scores[1:, 1].mean() - 0.05)
    json.dumps(found.to_json(), allow_nan=False)


# The parts of it.


def test_the_best_advice_is_that_of_the_largest_figure():
    none, clear, large = (
        Estimate(0.0, (-0.01, 0.01)),
        Estimate(0.01, (0.002, 0.02)),
        Estimate(0.02, (0.01, 0.03)),
    )
    base = Evidence(
        room=0.3, apart_z=9.0, difficulty_z=9.0, router=clear, found=clear, tables=none,
        beyond_nearness=none, labels=none, other_embedder=None, growth=none, doubled=large, unseen=None,
    )  # fmt: skip
    wanted = {
        "nothing to gain": [base, replace(base, room=0.001), replace(base, apart_z=1.0, difficulty_z=1.0)],
        "more outcomes": [
            replace(base, growth=clear),
            replace(base, growth=large, labels=clear),
            replace(base, growth=clear, unseen=large),
        ],
        "another embedder": [
            replace(base, labels=large, growth=clear),
            replace(base, other_embedder=("b", clear)),
            replace(base, tables=clear, beyond_nearness=clear),
            replace(base, unseen=clear),
            replace(base, unseen=clear, router=none, found=none),
        ],
        "a more diverse pool": [
            replace(base, router=none, found=none),
            replace(base, apart_z=1.0, labels=large),
            replace(base, router=none, found=none, unseen=large, other_embedder=("b", none)),
            replace(base, found=Estimate(WORTHWHILE / 2, (0.001, 0.002))),
        ],
    }
    for verdict, cases in wanted.items():
        for case in cases:
            assert advise(case).verdict == verdict, case
    # Growth from far below the best single model to nothing above it is none.
    assert advise(replace(base, growth=clear, doubled=none, found=none)).verdict == "a more diverse pool"
    # Tables that are too coarse are no matter of outcomes, embedder or pool.
    coarse = advise(replace(base, tables=clear))
    assert coarse.verdict == "nothing to gain"
    assert "--clusters" in coarse.reason


def test_intervals_cover_splits_as_well_as_rows():
    """Two splits that each miss the truth by as much as the rows do."""
    rng = np.random.default_rng(0)
    texts = np.repeat(np.arange(60), 2)
    covered = narrow = 0
    for seed in range(40):
        rows = np.repeat(rng.normal(size=60), 2) + 0.1 * rng.normal(size=120)
        splits = [rows + rng.normal() / np.sqrt(60) for _ in range(2)]
        low, high = (
            draw_means({"a": splits}, texts, n_folds=4, seed=seed)
            .estimate(lambda means: means["a"])
            .interval_95
        )
        covered += low <= 0 <= high
        # Rows alone, of which there seem to be twice as many.
        low, high = (
            draw_means({"a": [np.mean(splits, axis=0)]}, np.arange(120), n_folds=4, seed=seed)
            .estimate(lambda means: means["a"])
            .interval_95
        )
        narrow += low <= 0 <= high
    assert covered >= 35
    assert narrow < covered


def test_z_scores_count_texts():
    values = np.random.default_rng(0).normal(1.0, 1.0, size=50)
    assert z_score([values], np.arange(50)) == pytest.approx(
        z_score([np.repeat(values, 2)], np.repeat(np.arange(50), 2))
    )
    assert z_score([np.zeros(5)], np.arange(5)) == 0


def test_probes_do_not_see_the_text_that_they_predict():
    """Twins have equal rows and equal, random scores: to see one is to know the other."""
    rng = np.random.default_rng(0)
    twice = np.repeat(np.arange(100), 2)
    rows = unit(rng.normal(size=(100, DIM)))[twice]
    targets = rng.normal(size=(100, 2))[twice]
    folds = (rng.permutation(100) % 4)[twice]
    train, test = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
    near = np.argsort(-(rows @ rows.T), axis=1, kind="stable").astype(np.int32)
    found = {
        "knn": nearest_neighbors(near, targets, twice, train, test).of_train,
        "linear": LinearProbe.of(rows, folds, ~np.isnan(targets)).predict(targets, 0).of_train,
        "trees": predict_by_forest(
            bin_columns(rows), targets, twice, train, test, n_trees=30, least=2, seed=0
        )[0],
    }
    for name, predicted in found.items():
        correlation = np.corrcoef(predicted.ravel(), targets[train].ravel())[0, 1]
        assert abs(correlation) < 0.2, name


def test_a_forest_finds_a_step():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3)).astype(np.float32)
    targets = np.where(rows[:, [1]] > 0.3, 1.0, -1.0)
    targets[::5] = np.nan
    train, test = np.arange(300), np.arange(300, 400)
    _, predicted = predict_by_forest(
        bin_columns(rows), targets, np.arange(400), train, test, n_trees=20, least=5, seed=0
    )
    assert ((predicted > 0) == (rows[test, 1:2] > 0.3)).mean() > 0.9


def test_a_linear_probe_is_ridge_regression():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 3)).astype(np.float32)
    targets = rows.astype(float) @ rng.normal(size=(3, 2))
    targets[::3, 1] = np.nan
    folds = np.arange(80) % 4
    predicted = LinearProbe.of(rows, folds, ~np.isnan(targets)).predict(targets, 2).of_test
    inside = folds != 2
    wide = np.column_stack([rows, np.ones(80)]).astype(float)
    for column in range(2):
        seen = inside & ~np.isnan(targets[:, column])
        line = np.linalg.solve(
            wide[seen].T @ wide[seen] + 0.3 * np.eye(4), wide[seen].T @ targets[seen, column]
        )
        np.testing.assert_allclose(predicted[:, column], wide[~inside] @ line)


def test_labels_are_drawn_to_the_mean_and_do_not_see_themselves():
    targets = np.array([[1.0], [1.0], [-1.0], [4.0]])
    found = dataset_means(np.array([0, 0, 1, 0]), targets, np.array([0, 1, 2]), np.array([3]))
    np.testing.assert_allclose(found.of_train, [[1 / 11], [1 / 11], [0.0]])
    np.testing.assert_allclose(found.of_test, [[2 / 12]])


def test_weights_leave_noise_out():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 2))
    targets = truth + rng.normal(size=truth.shape)
    targets[::7] = np.nan
    good, bad = weights(targets, [truth, -truth])
    assert good == pytest.approx(1.0, abs=0.1)
    assert bad == 0.0
    assert weights(targets, [rng.normal(size=truth.shape)])[0] < 0.1


def test_residuals_know_no_difficulty():
    values = np.array([[0.2, 0.4, np.nan], [0.9, np.nan, np.nan]])
    found = residuals(values + 5.0, np.array([0.5, 0.5, 0.5]))
    np.testing.assert_allclose(found[0, :2], [-0.1, 0.1])
    assert np.isnan(found[0, 2])
    assert np.isnan(found[1]).all()


def test_the_model_of_chance_is_that_of_independent_outcomes():
    rng = np.random.default_rng(0)
    chances = np.tile([[0.2, 0.7, 0.5]], (4000, 1))
    # In truth all three are right together.
    scores = (rng.random((4000, 1)) < chances).astype(float)
    found = chance_oracle(scores, chances, seed=0).mean()
    assert found == pytest.approx(1 - 0.8 * 0.3 * 0.5, abs=0.01)
    assert scores.max(axis=1).mean() == pytest.approx(0.7, abs=0.03)


def test_repeats_without_noise_keep_all_of_the_lead():
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    found = repeated_texts(scores, np.array([0, 0, 1, 1, 2]), np.array([0.5, 0.6]))
    assert (found.n_texts, found.n_conflicting) == (2, 0)
    np.testing.assert_array_equal(found.kept[[0, 2]], [1.0, 0.0])
    np.testing.assert_array_equal(found.kept, found.lead)
    assert sorted(found.rows.tolist()) == [0, 1, 2, 3]


def test_a_flat_curve_does_not_grow():
    gains = np.array([[0.1, 0.02], [0.22, 0.05], [0.232, 0.08], [0.232, 0.11]])
    here, doubled = line_at([50, 100, 200, 400], gains, (400, 800))
    flat, rising = doubled - here
    assert flat < 0.005
    assert rising > 0.01


# Bad input, and the command.


@pytest.fixture(scope="module")
def written(outcomes_file, tmp_path_factory, cli):
    folder = tmp_path_factory.mktemp("diagnosis")
    done = cli(
        "diagnose", outcomes_file, "--clusters", "4", "--folds", "3", "--splits", "1",
        "--json", folder / "found.json", "--markdown", folder / "found.md",
    )  # fmt: skip
    assert done.code == 0, done.err
    return done, json.loads((folder / "found.json").read_text()), (folder / "found.md").read_text()


def test_the_command_shows_tables_and_ends_with_advice(written):
    done, found, markdown = written
    assert done.err == ""
    for line in ("calibrated router", "kNN", "linear", "trees", "best by dataset label", "oracle"):
        assert line in done.out
        assert line in markdown
    assert "outcome noise, at most" in done.out
    assert "extrapolated" in done.out
    assert f"Advice: {found['advice']['verdict']}" in done.out
    assert f"**Advice: {found['advice']['verdict']}.**" in markdown


def test_json_has_the_documented_keys(written):
    _, found, _ = written
    assert set(found) == {
        "n_queries", "n_texts", "n_models", "n_datasets", "n_left_out", "n_not_drawn", "n_folds", "n_splits",
        "willingness_to_pay", "best_single_model", "best_single", "oracle", "dataset_labels", "noise",
        "embedders", "others", "advice",
    }  # fmt: skip
    assert set(found["embedders"][0]) == {
        "name", "dim", "surface_weight", "router", "knn", "linear", "trees", "together", "noise",
        "not_in_embedding", "tables", "labels", "learning_curve", "apart_z", "difficulty_z",
    }  # fmt: skip
    assert set(found["noise"]) == {
        "basis", "n_repeated_texts", "n_conflicting_texts", "datasets", "kept_share", "chance_oracle"
    }  # fmt: skip
    assert found["embedders"][0]["name"] == "static-256"
    assert found["embedders"][0]["surface_weight"] == 0.15


def test_data_without_repeated_texts_use_the_model_and_say_so(written):
    done, found, _ = written
    assert found["noise"]["basis"] == "model"
    assert found["noise"]["kept_share"] is None
    (line,) = [line for line in done.out.splitlines() if line.startswith("Noise by")]
    assert "by a model, since no text repeats" in line


def test_data_without_dataset_labels(cli, tmp_path):
    _, _, _, scores = simulated(0, 90, masters(3))
    write_jsonl(outcomes_of(scores), tmp_path / "data.jsonl")
    done = cli("diagnose", tmp_path / "data.jsonl", "--clusters", "2", "--folds", "3", "--splits", "1")
    assert done.code == 0, done.err
    assert "no dataset labels" in done.out
    assert "Dataset labels: not available" in done.out
    assert "best by dataset label" not in done.out


def test_one_model_only(cli, tmp_path):
    write_jsonl(outcomes_of(np.ones((100, 1))), tmp_path / "data.jsonl")
    cli("diagnose", tmp_path / "data.jsonl").assert_refused("one model, 'm0'")


def test_fewer_rows_than_the_probes_need(cli, tmp_path):
    _, _, _, scores = simulated(0, 50, masters(3))
    write_jsonl(outcomes_of(scores), tmp_path / "data.jsonl")
    cli("diagnose", tmp_path / "data.jsonl").assert_refused("50 distinct texts", "80 or more")


def test_unknown_embedder(cli, outcomes_file):
    cli("diagnose", outcomes_file, "--embedder", "static-256,nothing").assert_refused("nothing", "static-256")


def test_a_willingness_to_pay_without_costs(cli, tmp_path):
    _, _, _, scores = simulated(0, 90, masters(3))
    write_jsonl(outcomes_of(scores), tmp_path / "data.jsonl")
    cli("diagnose", tmp_path / "data.jsonl", "--willingness-to-pay", "0.01").assert_refused("cost", "'m0'")


def test_outputs_that_cannot_be_written_are_refused_before_the_work(cli, outcomes_file, tmp_path):
    cli("diagnose", outcomes_file, "--markdown", tmp_path / "no" / "a.md").assert_refused("no folder")
    cli("diagnose", outcomes_file, "--json", outcomes_file).assert_refused("is the data")


def test_wrong_usage(cli, outcomes_file):
    cli("diagnose", outcomes_file, "--folds", "2").assert_wrong_usage("--folds")
    cli("diagnose").assert_wrong_usage("DATA")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"n_folds": 2}, "folds 2"),
        ({"n_splits": 0}, "splits 0"),
        ({"max_rows": 10}, "max rows 10"),
        ({"seed": -1}, "seed -1"),
        ({"n_clusters": 0}, "clusters 0"),
        ({"willingness_to_pay": 0.0}, "willingness to pay 0"),
        ({"embedders": ["static-256", "static-256"]}, "'static-256' is given twice"),
        ({"embedders": []}, "at least one embedder"),
        ({"embeddings": [np.ones((3, 256))]}, "3 embeddings by static-256 for 240 queries"),
        ({"embeddings": []}, "0 arrays of embeddings for 1 embedders"),
    ],
)
def test_bad_arguments(outcomes, options, named):
    with pytest.raises(DataError, match=named):
        diagnose(outcomes, **options)


def test_an_unknown_embedder_is_no_fault_of_the_data(outcomes):
    with pytest.raises(EmbedderError, match="nothing"):
        diagnose(outcomes, embedders=["nothing"])


def test_a_model_of_few_outcomes():
    _, _, rows, scores = simulated(0, 90, masters(3))
    scores[5:, 2] = np.nan
    with pytest.raises(DataError, match=r"'m2' has 5 outcomes, at least 20"):
        found_in(outcomes_of(scores), rows)


def test_rows_beyond_the_most_are_drawn_by_text():
    _, _, rows, scores = simulated(0, 100, masters(3))
    twice = np.repeat(np.arange(100), 2)
    found = found_in(outcomes_of(scores[twice], texts=twice), rows[twice], max_rows=180)
    assert (found.n_queries, found.n_texts, found.n_not_drawn) == (180, 90, 20)
    assert found.noise.n_repeated_texts == 90


def test_queries_that_the_embedder_does_not_know_are_left_out():
    _, _, rows, scores = simulated(0, 100, masters(3))
    rows[:7] = 0.0
    found = found_in(outcomes_of(scores), rows)
    assert (found.n_queries, found.n_left_out) == (93, 7)
    with pytest.raises(DataError, match="none of the 100 queries"):
        found_in(outcomes_of(scores), np.zeros_like(rows))
