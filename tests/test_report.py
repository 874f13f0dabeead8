"""The report and the plot: what stands in them, that nothing in the data can break out, and the command."""

import builtins
import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from centroute import Artifact, DataError, Policy, Router
from centroute.artifact import EmbedderId, PoolModel
from centroute.datasets import Outcomes, write_jsonl
from centroute.evaluate import charts, evaluate
from centroute.evaluate.details import details, reliability
from centroute.evaluate.report import render_report, write_report

VOID = {"meta", "br", "img", "input", "hr", "link"}
HOSTILE = "</title></text><script>alert(1)</script>\"'&<b>"


class Page(HTMLParser):
    """Tags in balance, the text, and everything that a browser would fetch."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        # `<line …/>` comes as a start and an end.
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def router(artifact):
    return Router.from_artifact(artifact)


@pytest.fixture(scope="module")
def page(router, outcomes):
    evaluation = evaluate(router, outcomes, calibration=outcomes)
    return render_report(router, outcomes, evaluation, title="sample router on sample")


def rendered(router, outcomes, embeddings=None, **more):
    evaluation = evaluate(router, outcomes, embeddings=embeddings, **more)
    return render_report(router, outcomes, evaluation, title="title", embeddings=embeddings)


def made_up(*, models=("a", "b"), n=40, cost=0.01, datasets=None, queries=None, n_clusters=2, seed=0):
    """A router without an embedder, outcomes, and their rows."""
    rng = np.random.default_rng(seed)
    shape = (n_clusters, len(models))
    costs = np.full(shape, np.nan) if cost is None else cost * rng.uniform(0.1, 1, shape)
    router = Router.from_artifact(
        Artifact(
            models=tuple(map(PoolModel, models)),
            embedder=EmbedderId("outside", n_clusters, None),
            centroids=np.eye(n_clusters, dtype=np.float32),
            quality=rng.uniform(size=shape).astype(np.float32),
            cost=costs.astype(np.float32),
            count=rng.integers(0, 30, shape).astype(np.float32),
            prior_quality=rng.uniform(size=len(models)).astype(np.float32),
            prior_cost=costs.mean(axis=0).astype(np.float32),
            frontier=np.zeros((0, 3), dtype=np.float32),
            top_p=1,
            beta=9.0,
            method={},
        )
    )
    outcomes = Outcomes(
        queries=queries or tuple(f"query {row}" for row in range(n)),
        models=models,
        scores=rng.integers(0, 2, (n, len(models))).astype(np.float32),
        costs=np.full((n, len(models)), np.nan)
        if cost is None
        else cost * rng.uniform(0, 1, (n, len(models))),
        datasets=datasets or ("",) * n,
        ids=tuple(map(str, range(n))),
    )
    rows = np.abs(rng.normal(size=(n, n_clusters))).astype(np.float32) + 0.01
    return router, outcomes, rows


# What stands in it.


def test_the_page_shows_everything(page, outcomes):
    shown = Page(page)
    for heading in (
        "sample router on sample", "Frontier", "Router and baselines", "Who answers", "Datasets", "Clusters",
        "Predicted against measured quality", "Models", "Published metrics",
    ):  # fmt: skip
        assert heading in shown.words, heading
    for way in ("best single: ", "best per dataset", "random model", "kNN", "Avengers-Pro", "oracle"):
        assert way in shown.words, way
    for name in (*outcomes.models, *set(outcomes.datasets)):
        assert name in shown.words, name
    for metric in (
        "AIQ",
        "APGR",
        "CPT(50 %)",
        "CPT(80 %)",
        "PerfGain",
        "CostSave",
        "ParetoDist",
        "arena score",
    ):
        assert metric in shown.words, metric
    assert "240 of these queries are in the calibration data too" in shown.words
    assert any(query[:60] in shown.words for query in outcomes.queries)


def test_the_page_needs_nothing_but_itself(page):
    shown = Page(page)
    assert "script" not in shown.tags
    assert not {"link", "img", "iframe", "object"} & set(shown.tags)
    assert "default-src 'none'" in page
    for name, value in shown.attributes:
        assert name != "src"
        assert not name.startswith("on")
        if name == "href":
            assert value.startswith("https://arxiv.org/abs/")
    for word in ("url(", "@import", "http://"):
        assert word not in page


def test_the_page_has_both_themes_and_both_widths(page):
    assert "prefers-color-scheme: dark" in page
    assert "max-width: 640px" in page
    assert 'name="viewport"' in page
    assert page.count('class="chart wide"') == page.count('class="chart narrow"') == 3


def test_the_page_is_the_same_each_time(router, outcomes):
    assert rendered(router, outcomes) == rendered(router, outcomes)


def test_without_calibration_data_the_rows_are_left_out(router, outcomes):
    shown = Page(rendered(router, outcomes)).words
    assert "kNN and Avengers-Pro need the calibration data" in shown
    assert "Avengers-Pro's rule on these tables" in shown
    assert "best per dataset, in hindsight" in shown


def test_without_costs_there_are_accuracies_and_no_zero_dollars():
    router, outcomes, rows = made_up(cost=None)
    shown = Page(rendered(router, outcomes, rows)).words
    assert "There is no frontier" in shown
    assert "Who answers" not in shown
    assert "unknown" in shown
    assert "$" not in shown


@pytest.mark.parametrize(
    "more",
    [
        {"cost": 0.0},
        {"models": ("only",)},
        {"n": 1},
        {"n": 3, "n_clusters": 30},
        {"models": tuple(f"model {number}" for number in range(40)), "n": 100},
        {"datasets": tuple(f"set {row % 33}" for row in range(40))},
        {"datasets": ("named", *("",) * 39)},
        {"queries": ("the same",) * 40},
    ],
    ids=str,
)
def test_pages_at_the_edges(more):
    router, outcomes, rows = made_up(**more)
    text = rendered(router, outcomes, rows, calibration=outcomes, calibration_embeddings=rows)
    shown = Page(text)
    assert "nan" not in text.lower().replace("financ", "")
    assert "inf" not in "".join(value or "" for _, value in shown.attributes)


def test_an_unobserved_chosen_model_leaves_unknown_figures():
    router, outcomes, rows = made_up(models=("a", "b"))
    scores = np.array(outcomes.scores)
    chosen = router.route_embeddings(rows).model_ids
    scores[np.arange(len(rows)), chosen] = np.nan
    shown = Page(rendered(router, replace(outcomes, scores=scores, allow_unobserved=True), rows)).words
    assert "unknown" in shown


# Nothing breaks out.


def test_user_text_is_escaped():
    models = (f"m{HOSTILE}", f"n{HOSTILE}")
    router, outcomes, rows = made_up(
        models=models, datasets=(f"d{HOSTILE}",) * 40, queries=tuple(f"q{HOSTILE} {row}" for row in range(40))
    )
    evaluation = evaluate(
        router, outcomes, embeddings=rows, calibration=outcomes, calibration_embeddings=rows
    )
    text = render_report(router, outcomes, evaluation, title=f"t{HOSTILE}", embeddings=rows)
    shown = Page(text)
    assert "script" not in shown.tags
    assert "<script" not in text
    for first in "mdqt":
        assert f"{first}{HOSTILE}" in shown.words


def test_text_that_no_page_can_hold_is_replaced(tmp_path):
    queries = tuple(f"nul \x00 bell \x07 lone \ud800 {row}" for row in range(40))
    router, outcomes, rows = made_up(queries=queries)
    evaluation = evaluate(router, outcomes, embeddings=rows)
    file = tmp_path / "report.html"
    write_report(router, outcomes, evaluation, file, title="t", embeddings=rows)
    text = file.read_text("utf-8")
    assert "\x00" not in text
    assert "\x07" not in text
    assert "nul" in text


def test_dollars_and_braces_in_text_are_no_template():
    router, outcomes, rows = made_up(queries=tuple(f"$tiles ${{notes}} {{0}} {row}" for row in range(40)))
    assert "$tiles ${notes} {0}" in Page(rendered(router, outcomes, rows)).words


# Figures behind it.


def test_clusters_by_hand():
    router, _, _ = made_up()
    artifact = replace(
        router.artifact,
        quality=np.array([[0.9, 0.5], [0.5, 0.5]], dtype=np.float32),
        cost=np.array([[0.01, 0.001], [0.01, 0.001]], dtype=np.float32),
        count=np.array([[100, 100], [100, 9]], dtype=np.float32),
    )
    rows = np.array([[1, 0.2], [1, 0], [0.5, 1], [1, 0.1], [1, 0]], dtype=np.float32)
    outcomes = Outcomes(
        queries=("third", "near  est", "other", "second", "near est"), models=("a", "b"),
        scores=np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.float32),
        costs=np.full((5, 2), np.nan), datasets=("",) * 5, ids=tuple("12345"),
    )  # fmt: skip
    found = details(Router.from_artifact(artifact), outcomes, embeddings=rows)
    first, second = found.clusters
    assert (first.cluster_id, first.n_queries, first.accuracy) == (0, 4, 0.5)
    # Nearest first, and a text that repeats once.
    assert first.exemplars == ("near est", "second", "third")
    assert (first.best_model, first.runner_up) == ("a", "b")
    assert first.lead == pytest.approx(0.4)
    # 1.96 · sqrt(.09 / 100 + .25 / 100) = .114.
    assert first.lead_is_noise is False
    assert first.doubtful == ()
    # A tie goes to the cheaper model; a cell of nine outcomes is doubtful.
    assert (second.best_model, second.lead, second.lead_is_noise) == ("b", 0.0, True)
    assert second.n_outcomes == 9
    assert second.doubtful == (("b", 9),)


def test_standard_errors_of_the_artifact_are_taken_where_it_holds_them():
    router, outcomes, rows = made_up()
    artifact = replace(
        router.artifact, quality=np.array([[0.9, 0.8]] * 2, dtype=np.float32),
        count=np.full((2, 2), 1e6, dtype=np.float32),
    )  # fmt: skip
    for error, noise in ((0.2, True), (0.01, False)):
        known = replace(artifact, quality_se=np.full((2, 2), error, dtype=np.float32))
        found = details(Router.from_artifact(known), outcomes, embeddings=rows)
        assert {cluster.lead_is_noise for cluster in found.clusters} == {noise}


def test_reliability_by_hand():
    predicted = np.array([0.05, 0.05, 0.35, 0.35, 1.0, 0.5])
    measured = np.array([0.0, 0.0, 1.0, 0.0, 1.0, np.nan])
    found = reliability(predicted, measured)
    assert [round(place.predicted, 6) for place in found.bins] == [0.05, 0.35, 1.0]
    assert [place.measured for place in found.bins] == [0.0, 0.5, 1.0]
    assert [place.n for place in found.bins] == [2, 2, 1]
    assert found.error == pytest.approx((2 * 0.05 + 2 * 0.15) / 5)
    assert reliability(predicted, np.full(6, np.nan)).error is None


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0003, 0.004, [0.0005, 0.001, 0.002]),
        (0.01, 0.011, [0.01]),
        (1e-6, 2.0, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low, high, wanted):
    assert charts.money_ticks(low, high, logarithmic=True) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "$0"), (0.0005, "$0.0005"), (0.001, "$0.001"), (0.02, "$0.02"), (0.25, "$0.25"), (1, "$1"),
     (20, "$20"), (1e-7, "$1e-07")],
)  # fmt: skip
def test_amounts_of_ticks(amount, shown):
    assert charts.round_dollars(amount) == shown


# The command.


def test_evaluate_writes_the_report(cli, router_file, outcomes_file, tmp_path):
    file = tmp_path / "report.html"
    finished = cli("evaluate", router_file, outcomes_file, "--report", file, "--alpha", 0.7)
    assert (finished.code, finished.err) == (0, "")
    assert f"wrote the report {file}" in finished.out
    shown = Page(file.read_text("utf-8")).words
    assert str(outcomes_file) in shown
    assert "alpha=0.7" in shown
    assert list(tmp_path.iterdir()) == [file]


def test_evaluate_with_calibration_data(cli, router_file, outcomes_file):
    finished = cli("evaluate", router_file, outcomes_file, "--calibration", outcomes_file)
    assert finished.code == 0
    assert "240 of 240 queries are in the calibration data too" in finished.err
    assert len(finished.err.splitlines()) == 1
    for word in ("kNN", "Avengers-Pro", "AIQ", "arena score", "p ="):
        assert word in finished.out.replace("p <", "p ="), word


def test_evaluate_json_with_a_report_stays_pure(cli, router_file, outcomes_file, tmp_path):
    finished = cli("evaluate", router_file, outcomes_file, "--json", "-", "--report", tmp_path / "r.html")
    assert json.loads(finished.out)["metrics"]["aiq"] > 0
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_places_that_cannot_be_written_are_refused_at_once(
    cli, router_file, outcomes_file, tmp_path, unchanged
):
    with unchanged(tmp_path):
        for flag in ("--report", "--plot"):
            cli("evaluate", router_file, outcomes_file, flag, tmp_path).assert_refused("folder")
            cli("evaluate", router_file, outcomes_file, flag, tmp_path / "no" / "x").assert_refused(
                "no folder"
            )
    with unchanged(outcomes_file.parent):
        refused = cli("evaluate", router_file, outcomes_file, "--report", outcomes_file)
        refused.assert_refused("it is an input")
    with unchanged(tmp_path):
        place = tmp_path / "same"
        refused = cli("evaluate", router_file, outcomes_file, "--report", place, "--json", place)
        refused.assert_refused(str(place), "two outputs")
    missing = tmp_path / "none.jsonl"
    cli("evaluate", router_file, outcomes_file, "--calibration", missing).assert_refused(str(missing))


def test_calibration_data_of_another_pool_is_one_line(cli, router_file, outcomes, outcomes_file, tmp_path):
    other = tmp_path / "other.jsonl"
    write_jsonl(replace(outcomes, models=tuple(f"other {n}" for n in range(outcomes.n_models))), other)
    finished = cli("evaluate", router_file, outcomes_file, "--calibration", other)
    finished.assert_refused("calibration data", "no model in common")


def test_a_full_disk_leaves_no_half_report(router, outcomes, tmp_path, monkeypatch, unchanged):
    evaluation = evaluate(router, outcomes)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("centroute.evaluate.report.write_atomic", full)
    with unchanged(tmp_path), pytest.raises(DataError, match=r"r\.html: cannot be written \(No space"):
        write_report(router, outcomes, evaluation, tmp_path / "r.html", title="t")


# The plot.


def test_a_plot_without_matplotlib_is_one_line(
    cli, router_file, outcomes_file, tmp_path, monkeypatch, unchanged
):
    real = builtins.__import__

    def without(name, *more):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *more)

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(builtins, "__import__", without)
    with unchanged(tmp_path):
        finished = cli("evaluate", router_file, outcomes_file, "--plot", tmp_path / "f.png")
    finished.assert_refused("centroute[plot]")


def test_the_plot_is_a_png(cli, router_file, outcomes_file, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib comes with centroute[plot]")
    file = tmp_path / "frontier.png"
    finished = cli("evaluate", router_file, outcomes_file, "--plot", file, "--calibration", outcomes_file)
    assert finished.code == 0, finished.err
    assert file.read_bytes().startswith(b"\x89PNG\r\n")
    assert f"wrote the plot {file}" in finished.out


def test_names_are_no_mathematics_in_the_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib comes with centroute[plot]")
    from centroute.evaluate.plot import plot_frontier

    router, outcomes, rows = made_up(models=("$x^{", "_$a$\\frac"))
    plot_frontier(evaluate(router, outcomes, embeddings=rows), tmp_path / "f.png", title="$\x00\\")
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_no_frontier_no_plot(tmp_path, unchanged):
    from centroute.evaluate.plot import plot_frontier

    router, outcomes, rows = made_up(cost=None)
    evaluation = evaluate(router, outcomes, embeddings=rows)
    with unchanged(tmp_path), pytest.raises(DataError, match="there is no frontier to plot"):
        plot_frontier(evaluation, tmp_path / "f.png", title="t")


def test_evaluation_stays_light():
    heavy = ("numba", "matplotlib", "rich", "onnxruntime", "click")
    script = (
        "import centroute.evaluate, centroute.evaluate.report, centroute.evaluate.plot, sys\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_policies_stand_in_the_page(router, outcomes):
    policy = Policy(willingness_to_pay=0.002)
    evaluation = evaluate(router, outcomes, policy=policy)
    shown = Page(render_report(router, outcomes, evaluation, title="t", policy=policy)).words
    assert "willingness_to_pay=0.002" in shown
    assert "this policy" in shown
