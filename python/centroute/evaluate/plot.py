"""The frontier as a PNG, through matplotlib, which the extra ``plot`` brings."""

import importlib
import io
import os
from pathlib import Path
from typing import Any

from centroute._atomic import write_atomic
from centroute.errors import DataError
from centroute.evaluate.charts import Mark, money_ticks, round_dollars
from centroute.evaluate.figures import Evaluation
from centroute.evaluate.report import frontier_lines, frontier_marks, frontier_points

COLOURS = {
    "router": "#2a6fdb",
    "s1": "#1a9b76",
    "s2": "#d98e04",
    "s3": "#8a4fd0",
    "ink": "#1b1c1e",
    "muted": "#8d9197",
}
"""Of the report's light page, by its classes."""

SHAPES = {"dot": "o", "ring": "o", "diamond": "D", "square": "s", "tick": "|"}

PLACES = (((7, 4), "left"), ((-7, 4), "right"), ((0, 8), "center"), ((7, -9), "left"), ((-7, -9), "right"))
"""Offsets of a label in points, and which of its sides stands there."""


def require_matplotlib() -> None:
    """Refuse where matplotlib is missing, before the long work.

    Raises
    ------
    DataError
        If it cannot be imported.
    """
    _matplotlib("figure")


def plot_frontier(evaluation: Evaluation, path: str | os.PathLike[str], *, title: str) -> None:
    """Draw accuracy over mean cost: the router's frontier with its intervals, baselines and single models.

    Parameters
    ----------
    evaluation
        What :func:`centroute.evaluate.evaluate` found.
    path
        PNG file to write.
    title
        Above the plot.

    Raises
    ------
    DataError
        If there is no frontier as a cost is unknown, matplotlib is missing, or the file cannot be written;
        nothing is half-written.
    """
    if not frontier_points(evaluation):
        raise DataError(f"{Path(path)}: there is no frontier to plot, as the cost of a model is unknown")
    figure = _matplotlib("figure").Figure(figsize=(10, 6), dpi=150, layout="constrained")
    _matplotlib("backends.backend_agg").FigureCanvasAgg(figure)
    axes = _draw(figure, evaluation)
    axes.set_title(_plain(title), loc="left", fontsize=11)
    _label(figure, axes, frontier_marks(evaluation))
    image = io.BytesIO()
    figure.savefig(image, format="png")
    try:
        write_atomic(path, image.getvalue())
    except OSError as error:
        raise DataError(f"{Path(path)}: cannot be written ({error.strerror or error})") from error


def _draw(figure: Any, evaluation: Evaluation) -> Any:
    axes = figure.add_subplot()
    marks = frontier_marks(evaluation)
    for line in frontier_lines(evaluation):
        colour, own = COLOURS[line.css], line.css == "router"
        costs, accuracies = zip(*line.points, strict=True)
        axes.plot(costs, accuracies, color=colour, label=line.name, marker="o" if own else None, markersize=3)
        if line.bounds:
            low, high = zip(*line.bounds, strict=True)
            axes.fill_between(costs, low, high, color=colour, alpha=0.14, linewidth=0)
    for mark in marks:
        face = "white" if mark.shape == "ring" else COLOURS[mark.css]
        axes.plot(
            *mark.at,
            SHAPES[mark.shape],
            color=COLOURS[mark.css],
            markerfacecolor=face,
            markersize=6,
            zorder=3,
        )
    every = [cost for cost, _ in [*frontier_points(evaluation), *(mark.at for mark in marks)]]
    axes.margins(x=0.08)
    logarithmic = min(every) > 0
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(money_ticks(min(every), max(every), logarithmic=logarithmic) or [min(every)], minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: _plain(round_dollars(value)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set_xlabel("mean cost a query, USD" + (", logarithmic" if logarithmic else ""))
    axes.set_ylabel("accuracy")
    axes.grid(visible=True, color="#e3e3df", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return axes


def _label(figure: Any, axes: Any, marks: list[Mark]) -> None:
    """Write each mark's name where no other is, or nowhere."""
    figure.draw_without_rendering()
    taken: list[Any] = []
    for mark in marks:
        for offset, side in PLACES:
            text = axes.annotate(
                _plain(mark.name), mark.at, xytext=offset, textcoords="offset points", fontsize=8, ha=side,
                color=COLOURS[mark.css],
            )  # fmt: skip
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _plain(text: str) -> str:
    """Text without matplotlib's mathematics, and without what no font shows."""
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return shown.replace("$", r"\$")


def _matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise DataError("a plot needs matplotlib: pip install 'centroute[plot]'") from error
