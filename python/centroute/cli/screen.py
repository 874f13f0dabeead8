"""What people see: consoles, progress, tables and the text plot of a frontier."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from centroute._shown import dollars, points, share
from centroute.artifact import Json
from centroute.evaluate.metrics import headroom_captured

# Names, paths and queries are shown as they are: no markup, no emoji codes, no wrapping.
out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

STEPS = {"embed": "embedding queries", "select": "choosing settings", "fit": "fitting tables"}

TABLE_KEYS = frozenset(
    {"n_queries", "accuracy", "mean_cost_usd", "best_single", "random", "oracle"}
    | {"headroom_captured", "interval_95"}
)
"""What :func:`evaluation_table` needs; what newer versions add may be absent."""

METRICS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("aiq", "AIQ", "{:.3f}".format),
    ("apgr", "APGR", "{:.3f}".format),
    ("cpt_50", "CPT(50 %)", "{:.1%}".format),
    ("cpt_80", "CPT(80 %)", "{:.1%}".format),
    ("perf_gain", "PerfGain", "{:+.1%}".format),
    ("cost_save", "CostSave", "{:.1%}".format),
    ("pareto_dist", "ParetoDist", "{:.4f}".format),
    ("arena", "arena score", "{:.3f}".format),
)
"""Keys, names and forms of the published metrics."""

OTHERS = {"knn": "kNN", "avengers_pro": "Avengers-Pro", "alpha_rule": "Avengers-Pro's rule here"}
"""Keys and names of the baselines that route."""

Evaluation = Mapping[str, Any]
"""An evaluation in the JSON form of ``Evaluation.to_json``, from a run or from an artifact's report."""


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on stderr while it is a terminal, silence in a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda *_: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = {}

        def tell(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(STEPS.get(step, step), total=total)
            progress.update(tasks[step], completed=done, total=total)

        yield tell


def evaluation_table(evaluation: Evaluation) -> Table:
    """Router and baselines side by side; what was not measured has no row."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for column in ("accuracy", "95 %", "mean cost", "headroom"):
        table.add_column(column, justify="right")
    best, oracle = evaluation["best_single"], evaluation["oracle"]
    rows = (
        ("centroute", {**evaluation, "accuracy_95": evaluation["interval_95"]["accuracy"]}),
        (f"best single ({best['model']})", best),
        (per_dataset_name(evaluation), evaluation.get("best_per_dataset")),
        ("random model", evaluation["random"]),
        *((name, evaluation.get(key)) for key, name in OTHERS.items()),
        ("oracle", oracle),
    )
    for name, measured in rows:
        if measured is None:
            continue
        bounds = measured.get("accuracy_95")
        headroom = headroom_captured(measured["accuracy"], best["accuracy"], oracle["accuracy"])
        table.add_row(
            name,
            share(measured["accuracy"]),
            "" if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}",
            dollars(measured["mean_cost_usd"]),
            "" if headroom is None else share(headroom),
            style="bold" if name == "centroute" else None,
        )
    return table


def per_dataset_name(evaluation: Evaluation) -> str:
    """What the best model per dataset was chosen by."""
    chosen_on = (evaluation.get("best_per_dataset") or {}).get("chosen_on")
    return "best per dataset" if chosen_on == "calibration" else "best per dataset, in hindsight"


def metrics_lines(evaluation: Evaluation) -> list[str]:
    """Published metrics and the paired comparison, the unknown left out."""
    metrics = evaluation.get("metrics") or {}
    parts = [
        f"{label} {shown(metrics[name])}" for name, label, shown in METRICS if metrics.get(name) is not None
    ]
    lines = [", ".join(parts)] if parts else []
    others = [
        f"{name} {evaluation[key]['aiq']:.3f}"
        for key, name in OTHERS.items()
        if evaluation.get(key) and evaluation[key]["aiq"] is not None
    ]
    if others:
        lines.append(f"AIQ of others: {', '.join(others)}")
    if evaluation.get("macro_accuracy") is not None:
        n_datasets = len(evaluation["datasets"])
        lines.append(f"mean over {n_datasets} datasets {share(evaluation['macro_accuracy'])}")
    gain = evaluation.get("gain_over_best_single")
    if gain and gain["accuracy"] is not None:
        low, high = gain["interval_95"]
        chance = "p < 0.001" if gain["p_value"] < 0.001 else f"p = {gain['p_value']:.2g}"
        lines.append(
            f"over the best single model {points(gain['accuracy'])} points "
            f"({points(low)} to {points(high)}), {chance}"
        )
    return lines


def ensemble_line(ensemble: Mapping[str, Any]) -> str:
    """What votes reached."""
    low, high = ensemble["accuracy_95"]
    return (
        f"votes of up to {ensemble['n_models']} models: {share(ensemble['accuracy'])} "
        f"({100 * low:.1f}–{100 * high:.1f}), {ensemble['mean_calls']:.2f} calls a query, mean cost "
        f"{dollars(ensemble['mean_cost_usd'])}, {ensemble['n_queries']} queries"
    )


def frontier_table(evaluation: Evaluation) -> Table | None:
    """A few points of the frontier against the best single model; ``None`` without costs."""
    known = [
        p for p in evaluation["frontier"] if p["accuracy"] is not None and p["mean_cost_usd"] is not None
    ]
    best = evaluation["best_single"]
    if len(known) < 2 or not best["mean_cost_usd"] or not best["accuracy"]:
        return None
    table = Table(
        title="Frontier: what a right answer is worth, and what that buys",
        title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0),
    )  # fmt: skip
    for column in ("worth", "accuracy", "mean cost", "accuracy to best", "cost to best"):
        table.add_column(column, justify="right")
    kept: list[Mapping[str, Any]] = []
    for point in known:
        if not kept or abs(point["accuracy"] - kept[-1]["accuracy"]) >= 0.01 or point is known[-1]:
            kept.append(point)
    step = max(1, math.ceil(len(kept) / 9))
    for point in [*kept[:-1:step], kept[-1]]:
        table.add_row(
            dollars(point["willingness_to_pay"]),
            share(point["accuracy"]),
            dollars(point["mean_cost_usd"]),
            share(point["accuracy"] / best["accuracy"]),
            share(point["mean_cost_usd"] / best["mean_cost_usd"]),
        )
    return table


def budget_table(evaluation: Evaluation) -> Table | None:
    """What budgets spend; ``None`` where there are none."""
    budgets = evaluation.get("budgets") or []
    if not budgets:
        return None
    table = Table(
        title="Budgets: the mean cost asked for, and what was spent",
        title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0),
    )  # fmt: skip
    for column in ("budget", "spent", "95 %", "off by", "accuracy"):
        table.add_column(column, justify="right")
    for point in budgets:
        spent, bounds = point["mean_cost_usd"], point["mean_cost_95"]
        table.add_row(
            dollars(point["max_mean_cost"]),
            dollars(spent),
            "" if bounds is None else f"{dollars(bounds[0])}–{dollars(bounds[1])}",
            "" if spent is None else f"{100 * (spent / point['max_mean_cost'] - 1):+.0f} %",
            share(point["accuracy"]),
        )
    return table


def axes_table(evaluation: Evaluation) -> Table | None:
    """What each effort of a model brings; ``None`` where no model has several."""
    axes = evaluation.get("axes")
    if axes is None:
        return None
    gains = ", ".join(
        f"{points(axes['gain_over'][way]['accuracy'])} over {name}"
        for way, name in (("models_only", "one effort each"), ("efforts_only", "one model"))
    )
    table = Table(
        title=f"Efforts: choosing them for each request is worth, in points, {gains}",
        title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0),
    )  # fmt: skip
    table.add_column("")
    for column in ("accuracy alone", "mean cost", "highest share", "used from", "to", "brings", "95 %"):
        table.add_column(column, justify="right")
    table.add_column("")
    for entry in axes["entries"]:
        brings, bounds = entry["brings"]["accuracy"], entry["brings"]["interval_95"]
        table.add_row(
            entry["name"],
            share(entry["accuracy"]),
            dollars(entry["mean_cost_usd"]),
            share(entry["highest_share"]),
            "" if entry["used_from"] is None else dollars(entry["used_from"]),
            "" if entry["used_to"] is None else dollars(entry["used_to"]),
            "" if brings is None else points(brings),
            "" if bounds is None else f"{points(bounds[0])} to {points(bounds[1])}",
            entry["verdict"],
        )
    return table


def frontier_plot(evaluation: Evaluation, *, width: int = 64, height: int = 14) -> str | None:
    """Accuracy over mean cost (logarithmic) as text; ``None`` without costs."""
    marks: list[tuple[str, float, float]] = [
        ("·", model["mean_cost_usd"], model["accuracy"]) for model in evaluation["models"]
    ]
    marks += [("●", point["mean_cost_usd"], point["accuracy"]) for point in evaluation["frontier"]]
    best, oracle = evaluation["best_single"], evaluation["oracle"]
    marks += [
        ("B", best["mean_cost_usd"], best["accuracy"]),
        ("O", oracle["mean_cost_usd"], oracle["accuracy"]),
    ]
    marks = [(mark, cost, accuracy) for mark, cost, accuracy in marks if cost and accuracy is not None]
    if not evaluation["frontier"] or len({cost for _, cost, _ in marks}) < 2:
        return None
    costs = [math.log10(cost) for _, cost, _ in marks]
    accuracies = [accuracy for _, _, accuracy in marks]
    low, high = min(costs), max(costs)
    bottom, top = min(accuracies), max(accuracies)
    canvas = [[" "] * width for _ in range(height)]
    for (mark, _, accuracy), cost in zip(marks, costs, strict=True):
        column = round((cost - low) / (high - low) * (width - 1))
        row = round((top - accuracy) / ((top - bottom) or 1) * (height - 1))
        canvas[row][column] = mark
    lines = [
        f"{share(top - (top - bottom) * row / (height - 1)):>8} │{''.join(cells)}"
        for row, cells in enumerate(canvas)
    ]
    left, right = dollars(10**low), dollars(10**high)
    lines += [
        " " * 9 + "└" + "─" * width,
        " " * 10 + left + " " * (width - len(left) - len(right)) + right,
        " " * 10 + "mean cost a query, logarithmic",
        " " * 10 + "● centroute   B best single   O oracle   · one model",
    ]
    return "\n".join(lines)


def show_evaluation(evaluation: Evaluation, title: str) -> None:
    """Table, frontier and plot of an evaluation."""
    out.print()
    # Above the table and not its title, which would be broken at the table's width.
    out.print(f"{title}, {evaluation['n_queries']} queries", style="italic")
    out.print(evaluation_table(evaluation), soft_wrap=False)
    for line in metrics_lines(evaluation):
        out.print(line)
    if "ensemble" in evaluation:
        out.print(ensemble_line(evaluation["ensemble"]))
    for table in (frontier_table(evaluation), budget_table(evaluation), axes_table(evaluation)):
        if table is not None:
            out.print()
            out.print(table, soft_wrap=False)
    if (plot := frontier_plot(evaluation)) is not None:
        out.print()
        out.print(plot)


def plain(value: Json) -> str:
    """A setting or report value in a table."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def warn(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"centroute: {message}\n")
