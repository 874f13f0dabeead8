"""The report: an evaluation in, one HTML page out that needs nothing but itself."""

import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from centroute import __version__
from centroute._atomic import write_atomic
from centroute._kernel import Policy
from centroute._shown import dollars, points, share
from centroute.datasets import Outcomes
from centroute.errors import DataError
from centroute.evaluate import charts
from centroute.evaluate.charts import Line, Mark
from centroute.evaluate.details import FEW_OUTCOMES, ClusterDetail, Details, details
from centroute.evaluate.figures import Baseline, Evaluation, Measured
from centroute.evaluate.metrics import headroom_captured
from centroute.router import Router

N_SHOWN = 12
"""Rows of a long table that are open at once."""

_QUERY_CHARACTERS = 160

METRICS = (
    ("aiq", "AIQ", "2403.12031", "mean height of the frontier's hull between the cheapest and dearest model"),
    (
        "apgr",
        "APGR",
        "2406.18665",
        "gap from the cheapest to the best single model that is closed on average",
    ),
    (
        "cpt_50",
        "CPT(50 %)",
        "2406.18665",
        "share of the way to the best model's spending that closes half of it",
    ),
    ("cpt_80", "CPT(80 %)", "2406.18665", "the same for four fifths"),
    (
        "perf_gain",
        "PerfGain",
        "2601.07206",
        "best accuracy anywhere on the frontier over the best single model",
    ),
    ("cost_save", "CostSave", "2601.07206", "saved at the accuracy of the best single model"),
    (
        "pareto_dist",
        "ParetoDist",
        "2601.07206",
        "distance to the frontier of router and models, both axes min-max",
    ),
    ("arena", "arena score", "2510.00202", "accuracy and cost of the policy above in one number"),
)
"""Key, name, arXiv number and meaning."""


def write_report(
    router: Router,
    outcomes: Outcomes,
    evaluation: Evaluation,
    path: str | os.PathLike[str],
    *,
    title: str,
    policy: Policy | None = None,
    embeddings: NDArray[np.float32] | None = None,
) -> None:
    """Write the page of an evaluation; arguments as of :func:`centroute.evaluate.evaluate`, which made it.

    Raises
    ------
    DataError
        If the file cannot be written; nothing is half-written.
    """
    page = render_report(router, outcomes, evaluation, title=title, policy=policy, embeddings=embeddings)
    try:
        # A lone surrogate, which UTF-8 cannot hold, becomes a question mark.
        write_atomic(path, page.encode("utf-8", "replace"))
    except OSError as error:
        raise DataError(f"{Path(path)}: cannot be written ({error.strerror or error})") from error


def render_report(
    router: Router,
    outcomes: Outcomes,
    evaluation: Evaluation,
    *,
    title: str,
    policy: Policy | None = None,
    embeddings: NDArray[np.float32] | None = None,
) -> str:
    """The page as text; see :func:`write_report`."""
    found = details(router, outcomes, policy=policy, embeddings=embeddings)
    template = Template(files("centroute.evaluate").joinpath("report.html").read_text("utf-8"))
    artifact = router.artifact
    method = ", ".join(f"{name} {value}" for name, value in artifact.method.items())
    asked = str(policy) if policy is not None else str(artifact.default_policy or "quality first")
    page = template.substitute(
        title=escape(title),
        heading=escape(title),
        subtitle=escape(
            f"{evaluation.n_queries:,} queries, {len(router.models)} models, {router.n_clusters} clusters, "
            f"embedder {artifact.embedder.name}, policy: {asked}"
        ),
        tiles=_tiles(evaluation),
        notes=_notes(evaluation, found),
        sections="\n".join(
            part
            for part in (
                _frontier_section(evaluation),
                _table_section(evaluation),
                _budgets_section(evaluation),
                _shares_section(evaluation, router.models),
                _axes_section(evaluation),
                _datasets_section(evaluation),
                _clusters_section(found.clusters, evaluation.n_queries),
                _reliability_section(found),
                _models_section(evaluation),
                _metrics_section(evaluation),
            )
            if part
        ),
        footer=escape(f"centroute {__version__}. Router: {method or 'method unknown'}.")
        + " Intervals are 95 % bootstrap intervals over queries. Point at a mark to read its numbers.",
    )
    return _printable(page)


def _tiles(evaluation: Evaluation) -> str:
    gain, router = evaluation.gain, evaluation.router
    tiles = [
        ("accuracy", share(router.accuracy), _between(evaluation.interval_95["accuracy"])),
        ("mean cost", dollars(router.mean_cost_usd), _cost_to_best(evaluation)),
        (
            "gain",
            "unknown" if gain.accuracy is None else f"{points(gain.accuracy)} points",
            f"over the best single model; {_between(gain.interval_95)}, {_chance(gain.p_value)}",
        ),
        ("headroom", share(evaluation.headroom_captured), "of the way to the oracle captured"),
        (
            "CostSave",
            share(evaluation.metrics.cost_save),
            "at the best single model's accuracy"
            if evaluation.metrics.cost_save is not None or not evaluation.frontier
            else "its accuracy is not reached",
        ),
    ]
    if evaluation.metrics.aiq is not None:
        tiles.append(("AIQ", f"{evaluation.metrics.aiq:.3f}", "height of the frontier"))
    cells = "".join(
        f'<div class="tile"><span>{name}</span><b>{escape(value)}</b><span>{escape(more)}</span></div>'
        for name, value, more in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _cost_to_best(evaluation: Evaluation) -> str:
    cost, best = evaluation.router.mean_cost_usd, evaluation.best_single.mean_cost_usd
    return "" if cost is None or not best else f"{100 * cost / best:.0f} % of the best single model's"


def _notes(evaluation: Evaluation, found: Details) -> str:
    notes = []
    if evaluation.n_left_out:
        notes.append(f"{evaluation.n_left_out} queries hold nothing the embedder knows and are in no figure.")
    if evaluation.calibration and evaluation.calibration.n_shared_texts:
        notes.append(
            f"{evaluation.calibration.n_shared_texts} of these queries are in the calibration data too: what "
            "was fitted to it looks better than it is."
        )
    if found.n_out_of_distribution:
        part = share(found.n_out_of_distribution / evaluation.n_queries)
        notes.append(f"{part} of the queries are unlike the calibration data and lean on the models' means.")
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def ways(evaluation: Evaluation) -> list[tuple[str, Measured | Baseline, str]]:
    """Name, figures and colour class of the router and all baselines that were measured."""
    told = evaluation.best_per_dataset_by == "calibration"
    rows: list[tuple[str, Measured | Baseline | None, str]] = [
        ("centroute", evaluation.router, "router"),
        (f"best single: {evaluation.best_single.model}", evaluation.best_single, "ink"),
        (
            "best per dataset" if told else "best per dataset, in hindsight",
            evaluation.best_per_dataset,
            "ink",
        ),
        ("kNN", evaluation.knn, "s1"),
        ("Avengers-Pro", evaluation.avengers_pro, "s2"),
        ("Avengers-Pro's rule on these tables", evaluation.alpha_rule, "s3"),
        ("random model", evaluation.random, "ink"),
        ("oracle", evaluation.oracle, "ink"),
    ]
    return [(name, measured, css) for name, measured, css in rows if measured is not None]


def _frontier_section(evaluation: Evaluation) -> str:
    if not frontier_points(evaluation):
        rows = _accuracy_rows(evaluation)
        if not rows:
            return ""
        return _section(
            "Accuracy",
            "There is no frontier, as the cost of a model is unknown. Bars are 95 % intervals, grey dots are "
            "single models.",
            charts.both_widths(lambda width, css: charts.accuracy_chart(rows, width=width, css=css)),
        )
    lines, marks = frontier_lines(evaluation), frontier_marks(evaluation)
    return _section(
        "Frontier",
        "What each willingness to pay scores and costs; the band is the 95 % interval of the accuracy. Up "
        "and to the left is better.",
        charts.both_widths(lambda width, css: charts.frontier_chart(lines, marks, width=width, css=css)),
        _key([(line.name, line.css) for line in reversed(lines)] + [("one model", "muted")]),
    )


def frontier_points(evaluation: Evaluation) -> list[tuple[float, float]]:
    """Mean cost and accuracy along the frontier, where both are known, by ascending cost."""
    return sorted(
        (point.mean_cost_usd, point.accuracy)
        for point in evaluation.frontier
        if point.mean_cost_usd is not None and point.accuracy is not None
    )


def frontier_lines(evaluation: Evaluation) -> list[Line]:
    """The baselines' trade-offs, and the router's frontier with its intervals, which is drawn last."""
    lines = []
    for name, css, baseline in (
        ("Avengers-Pro's rule on these tables", "s3", evaluation.alpha_rule),
        ("kNN", "s1", evaluation.knn),
        ("Avengers-Pro", "s2", evaluation.avengers_pro),
    ):
        points = sorted(
            (cost, accuracy)
            for _, accuracy, cost in (baseline.points if baseline else ())
            if accuracy is not None and cost is not None
        )
        if points:
            lines.append(Line(name, css, points))
    known = sorted(
        (
            (point.mean_cost_usd, point.accuracy, point.willingness_to_pay, point.accuracy_95)
            for point in evaluation.frontier
            if point.mean_cost_usd is not None and point.accuracy is not None
        ),
        key=lambda point: point[:3],
    )
    lines.append(
        Line(
            "centroute by willingness to pay",
            "router",
            [(cost, accuracy) for cost, accuracy, *_ in known],
            bounds=[interval or (accuracy, accuracy) for _, accuracy, _, interval in known],
            titles=[
                f"worth {dollars(amount)}: {share(accuracy)} {_between(interval)} at {dollars(cost)}"
                for cost, accuracy, amount, interval in known
            ],
        )
    )
    return lines


def frontier_marks(evaluation: Evaluation) -> list[Mark]:
    """Single models, and the baselines that are one point."""
    best = evaluation.best_single
    marks = []

    def add(name: str, css: str, shape: str, measured: Measured) -> None:
        if measured.accuracy is not None and measured.mean_cost_usd is not None:
            title = f"{name}: {share(measured.accuracy)} at {dollars(measured.mean_cost_usd)}"
            marks.append(Mark(name, css, shape, (measured.mean_cost_usd, measured.accuracy), title))

    add("this policy", "router", "ring", evaluation.router)
    add("oracle", "ink", "square", evaluation.oracle)
    add("random model", "ink", "square", evaluation.random)
    add(f"best single: {best.model}", "ink", "diamond", best)
    told = evaluation.best_per_dataset
    if told is not None and (told.accuracy, told.mean_cost_usd) != (best.accuracy, best.mean_cost_usd):
        add("best per dataset", "ink", "tick", told)
    for model in evaluation.models:
        if model.name != best.model:
            add(model.name, "muted", "dot", Measured(model.accuracy, model.mean_cost_usd))
    return marks


def _accuracy_rows(evaluation: Evaluation) -> list[tuple[str, float, tuple[float, float] | None, str]]:
    rows: list[tuple[str, float, tuple[float, float] | None, str]] = []
    for name, measured, css in ways(evaluation):
        if measured.accuracy is not None:
            rows.append((name, measured.accuracy, measured.accuracy_95, css))
    rows += [
        (model.name, model.accuracy, None, "muted")
        for model in evaluation.models
        if model.accuracy is not None and model.name != evaluation.best_single.model
    ]
    return sorted(rows, key=lambda row: -row[1])


def _table_section(evaluation: Evaluation) -> str:
    best, oracle = evaluation.best_single.accuracy, evaluation.oracle.accuracy
    rows = []
    for name, measured, _ in ways(evaluation):
        own = name == "centroute"
        aiq = measured.aiq if isinstance(measured, Baseline) else None
        if own:
            aiq = evaluation.metrics.aiq
        headroom = headroom_captured(measured.accuracy, best, oracle)
        cells = (
            _cell("", escape(name), css="name"),
            _cell("accuracy", share(measured.accuracy)),
            _cell("95 %", _between(measured.accuracy_95)),
            _cell("mean cost", dollars(measured.mean_cost_usd)),
            _cell("headroom", "" if headroom is None else share(headroom)),
            _cell("AIQ", "" if aiq is None else f"{aiq:.3f}"),
        )
        rows.append(f'<tr class="{"own" if own else ""}">{"".join(cells)}</tr>')
    missing = (
        ""
        if evaluation.calibration
        else " kNN and Avengers-Pro need the calibration data and were not measured."
    )
    return _section(
        "Router and baselines",
        "centroute under the policy above, the others quality first. Headroom is the part of the way from "
        f"the best single model to the oracle.{missing}",
        _table(("", "accuracy", "95 %", "mean cost", "headroom", "AIQ"), rows),
    )


def _shares_section(evaluation: Evaluation, models: Sequence[str]) -> str:
    points = evaluation.frontier
    amounts = [point.willingness_to_pay for point in points]
    if sum(amount > 0 for amount in amounts) < 2:
        return ""
    table = np.array([point.shares for point in points])
    order = [int(model) for model in np.argsort(-table.mean(axis=0), kind="stable") if table[:, model].any()]
    layers = [
        (models[model], f"s{place}", table[:, model].tolist())
        for place, model in enumerate(order[: charts.N_SERIES])
    ]
    rest = order[charts.N_SERIES :]
    if rest:
        layers.append((f"{len(rest)} others", "others", table[:, rest].sum(axis=1).tolist()))
    return _section(
        "Who answers",
        "Share of the queries that each model gets, by what a right answer is worth.",
        charts.both_widths(lambda width, css: charts.shares_chart(amounts, layers, width=width, css=css)),
        _key([(name, css) for name, css, _ in layers]),
    )


WAYS = (
    ("fixed", "one entry for all", "s3"),
    ("efforts_only", "one model, its efforts", "s2"),
    ("models_only", "all models, one effort each", "s1"),
    ("both", "models and efforts", "router"),
)
"""Key of a way to choose along two axes, its name and colour class; the last is drawn last."""


def _axes_section(evaluation: Evaluation) -> str:
    axes = evaluation.axes
    if axes is None:
        return ""
    lines = []
    for key, name, css in WAYS:
        known = [
            (cost, accuracy, amount)
            for (cost, accuracy), amount in zip(axes.frontiers[key], axes.amounts, strict=True)
            if cost is not None and accuracy is not None
        ]
        lines.append(
            Line(
                name,
                css,
                sorted((cost, accuracy) for cost, accuracy, _ in known),
                titles=[
                    f"{name}, worth {dollars(amount)}: {share(accuracy)} at {dollars(cost)}"
                    for cost, accuracy, amount in sorted(known)
                ],
            )
        )
    gains = "; ".join(
        f"{points(axes.gains[key].accuracy)} ({_between(axes.gains[key].interval_95)}) over {name}"
        for key, name, _ in reversed(WAYS[:-1])
    )
    rows = []
    for entry in axes.entries:
        used = (
            "never" if entry.used_from is None else f"{dollars(entry.used_from)} to {dollars(entry.used_to)}"
        )
        cells = (
            _cell("", f"<bdi>{escape(entry.name)}</bdi>", css="name"),
            _cell("accuracy alone", share(entry.accuracy)),
            _cell("mean cost", dollars(entry.mean_cost_usd)),
            _cell("highest share", share(entry.highest_share)),
            _cell("used at", used),
            _cell("brings", "" if entry.brings.accuracy is None else points(entry.brings.accuracy)),
            _cell("95 %", _between(entry.brings.interval_95)),
            _cell("", entry.verdict, css="name"),
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = (
        "",
        "accuracy alone",
        "mean cost",
        "highest share",
        "used at",
        "brings",
        "95 %",
        "",
    )
    return _section(
        "Models and efforts",
        "What choosing the effort for each request adds to choosing the model, in points of accuracy or what "
        f"they are worth: {gains}. An entry brings what is lost without it where it is used; those that are "
        "not shown to bring anything are taken out one by one, the least first.",
        charts.both_widths(lambda width, css: charts.frontier_chart(lines, [], width=width, css=css)),
        _key([(line.name, line.css) for line in reversed(lines)]),
        _table(head, rows[: 2 * N_SHOWN]),
        _folded(f"{len(rows) - 2 * N_SHOWN} more entries", _table(head, rows[2 * N_SHOWN :])),
    )


def _datasets_section(evaluation: Evaluation) -> str:
    if not evaluation.datasets:
        return ""
    shown = [
        value
        for dataset in evaluation.datasets
        for value in (dataset.accuracy, dataset.best_single_accuracy, dataset.oracle_accuracy)
        if value is not None
    ]
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    rows = []
    for dataset in evaluation.datasets:
        marks = [
            (css, value, f"{name} {share(value)}")
            for css, value, name in (
                ("muted", dataset.oracle_accuracy, "oracle"),
                ("ink", dataset.best_single_accuracy, "best single"),
                ("router", dataset.accuracy, "centroute"),
            )
            if value is not None
        ]
        top = dataset.best_model
        cells = (
            _cell("", _named(dataset.name), css="name"),
            _cell("queries", f"{dataset.n_queries:,}"),
            _cell("centroute", f"{share(dataset.accuracy)}"),
            _cell("95 %", _between(dataset.accuracy_95)),
            _cell("best single", share(dataset.best_single_accuracy)),
            _cell("oracle", share(dataset.oracle_accuracy)),
            _cell("", charts.span_chart(low, high, marks), css=""),
            _cell(
                "best here",
                ""
                if top.model is None
                else f"<div><bdi>{escape(top.model)}</bdi> {share(top.accuracy)}</div>",
                css="name",
            ),
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = ("", "queries", "centroute", "95 %", "best single", "oracle", "", "best here")
    return _section(
        "Datasets",
        f"Mean over datasets {share(evaluation.macro_accuracy)}, over queries "
        f"{share(evaluation.router.accuracy)}. In the bars the dot is centroute, the strong tick the best "
        "single model, the grey one the oracle. “Best here” is the model that turned out best on these very "
        "queries.",
        _table(head, rows[: 2 * N_SHOWN]),
        _folded(f"{len(rows) - 2 * N_SHOWN} more datasets", _table(head, rows[2 * N_SHOWN :])),
    )


def _clusters_section(clusters: Sequence[ClusterDetail], n_queries: int) -> str:
    blocks = [_cluster(cluster, n_queries) for cluster in clusters]
    return _section(
        "Clusters",
        "The queries of this data nearest to each centroid, the model that the tables put first there, the "
        "outcomes behind that cell, and what centroute scored. Doubtful are a lead within chance, and cells "
        f"of fewer than {FEW_OUTCOMES} outcomes.",
        *blocks[:N_SHOWN],
        _folded(f"{len(blocks) - N_SHOWN} more clusters", "".join(blocks[N_SHOWN:])),
    )


def _cluster(cluster: ClusterDetail, n_queries: int) -> str:
    facts = [
        f"<b>Cluster {cluster.cluster_id}</b>",
        f"{cluster.n_queries:,} queries ({share(cluster.n_queries / n_queries)})",
        f"best <bdi>{escape(cluster.best_model)}</bdi> {share(cluster.best_quality)}",
        f"{cluster.n_outcomes:,} outcomes behind it",
    ]
    if cluster.runner_up is not None and cluster.lead is not None:
        lead = f"{points(cluster.lead)} over <bdi>{escape(cluster.runner_up)}</bdi>"
        facts.insert(3, lead)
    if cluster.accuracy is not None:
        facts.append(f"centroute scored {share(cluster.accuracy)}")
    doubts = ["lead within chance"] if cluster.lead_is_noise else []
    if cluster.doubtful:
        few = ", ".join(f"{name} ({count})" for name, count in cluster.doubtful[:4])
        more = len(cluster.doubtful) - 4
        doubts.append(f"few outcomes: {few}" + (f" and {more} more" if more > 0 else ""))
    tags = "".join(f'<span class="tag">{escape(doubt)}</span>' for doubt in doubts)
    queries = "".join(f"<li><bdi>{escape(_cut(text))}</bdi></li>" for text in cluster.exemplars)
    return (
        f'<div class="cluster"><ul class="facts">{"".join(f"<li>{fact}</li>" for fact in facts)}</ul>'
        f'<div><ul class="queries">{queries or "<li>no query of this data</li>"}</ul>{tags}</div></div>'
    )


def _reliability_section(found: Details) -> str:
    chosen, every = found.chosen, found.all_pairs
    if not every.bins:
        return ""
    return _section(
        "Predicted against measured quality",
        "On the diagonal the predictions hold. Bins of predicted quality, with 95 % intervals. Mean gap "
        f"{share(chosen.error)} for the chosen models, {share(every.error)} over all models.",
        charts.both_widths(
            lambda width, css: charts.reliability_chart(chosen.bins, every.bins, width=width, css=css)
        ),
        _key([("chosen models", "router"), ("all models", "muted")]),
    )


def _models_section(evaluation: Evaluation) -> str:
    rows = []
    for model in sorted(evaluation.models, key=lambda model: -(model.accuracy or 0.0)):
        bar = f"<span class='bar' style='width:{100 * model.share:.1f}%'></span>" if model.share else ""
        cells = (
            _cell("", f"<bdi>{escape(model.name)}</bdi>", css="name"),
            _cell("accuracy", share(model.accuracy)),
            _cell("mean cost", dollars(model.mean_cost_usd)),
            _cell("share", share(model.share)),
            _cell("", bar, css="wide-bar"),
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = ("", "accuracy alone", "mean cost", "share of queries", "")
    return _section(
        "Models",
        "What each would score and cost alone, and how many queries it got under the policy above.",
        _table(head, rows[: 2 * N_SHOWN]),
        _folded(f"{len(rows) - 2 * N_SHOWN} more models", _table(head, rows[2 * N_SHOWN :])),
    )


def _budgets_section(evaluation: Evaluation) -> str:
    rows = []
    for budget in evaluation.budgets:
        spent, between = budget.mean_cost_usd, budget.mean_cost_95
        off = "" if spent is None else f"{100 * (spent / budget.max_mean_cost - 1):+.0f} %"
        cells = (
            _cell("budget", dollars(budget.max_mean_cost)),
            _cell("spent", dollars(spent)),
            _cell("95 %", "" if between is None else f"{dollars(between[0])} to {dollars(between[1])}"),
            _cell("off by", off),
            _cell("accuracy", share(budget.accuracy)),
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    if not rows:
        return ""
    return _section(
        "Budgets",
        "What <code>max_mean_cost</code> asks for and what is then spent a query, here.",
        _table(("budget", "spent", "95 %", "off by", "accuracy"), rows),
    )


def _metrics_section(evaluation: Evaluation) -> str:
    rows = []
    for key, name, paper, meaning in METRICS:
        value: float | None = getattr(evaluation.metrics, key)
        link = f"<a href='https://arxiv.org/abs/{paper}'>arXiv {paper}</a>"
        cells = (
            _cell("", name, css="name"),
            _cell("value", "unknown" if value is None else f"{value:.4f}"),
            _cell("", f"<div>{meaning} ({link})</div>", css="name"),
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _section(
        "Published metrics",
        "Of the frontier, but for the arena score, which is that of the policy above.",
        _table(("", "value", "meaning"), rows),
    )


def _chance(p_value: float | None) -> str:
    if p_value is None:
        return "no pairs"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _section(heading: str, intro: str, *content: str) -> str:
    """A section; the heading and the introduction are ours, names in them are escaped by the caller."""
    return f'<section><h2>{heading}</h2><p class="soft">{intro}</p>{"".join(content)}</section>'


def _cell(label: str, content: str, *, css: str = "n") -> str:
    return f'<td class="{css}" data-label="{label}">{content}</td>'


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    # Numbers stand to the right, as their cells do.
    names = "".join(f'<th class="{_side(name)}">{name}</th>' for name in head)
    return (
        f'<div class="scroll"><table class="stack"><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _side(name: str) -> str:
    left = ("", "best here", "meaning")
    return "" if name in left else "n"


def _folded(name: str, content: str) -> str:
    return f"<details><summary>{name}</summary>{content}</details>" if name[0] not in "-0" else ""


def _key(entries: Iterable[tuple[str, str]]) -> str:
    items = "".join(
        f'<li class="{css}"><i></i><span class="label">{escape(name)}</span></li>' for name, css in entries
    )
    return f'<ul class="key">{items}</ul>'


def _named(dataset: str) -> str:
    return f"<bdi>{escape(dataset)}</bdi>" if dataset else "<span class='soft'>not named</span>"


def _cut(text: str) -> str:
    return text if len(text) <= _QUERY_CHARACTERS else text[: _QUERY_CHARACTERS - 1] + "…"


def _printable(page: str) -> str:
    """Without the control characters that HTML forbids."""
    return "".join(
        character if character.isprintable() or character in "\n\t" or ord(character) >= 0xA0 else "\ufffd"
        for character in page
    )
