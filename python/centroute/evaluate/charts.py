"""Charts as inline SVG: numbers in, markup out. Colours are classes that the page's style defines."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from centroute.evaluate.details import CalibrationBin

Point = tuple[float, float]

N_SERIES = 7
"""Colours of models; what comes behind is drawn as "others"."""

_CHARACTER = 7.0
"""Mean width of a character of a label, in pixels."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined by a line, in the colour of class ``css``; ``bounds`` are low and high of each point."""

    name: str
    css: str
    points: Sequence[Point]
    bounds: Sequence[Point] = ()
    titles: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """One point with a name beside it; ``shape`` is ``"dot"``, ``"ring"``, ``"diamond"`` or ``"square"``."""

    name: str
    css: str
    shape: str
    at: Point
    title: str
    label: bool = True


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        part = (value - low) / (high - low) if high > low else 0.5
        return self.start + part * (self.end - self.start)


@dataclass(slots=True)
class _Canvas:
    """Markup of one chart, and the boxes that labels have taken."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)

    def add(self, markup: str) -> None:
        self.parts.append(markup)

    def text(self, x: float, y: float, words: str, *, css: str = "tick", anchor: str = "middle") -> None:
        self.add(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>')

    def take(self, box: tuple[float, float, float, float]) -> bool:
        """Take a place unless it is taken or outside."""
        left, top, right, bottom = box
        if left < 0 or top < 0 or right > self.width or bottom > self.height:
            return False
        if any(left < r and right > x and top < b and bottom > y for x, y, r, b in self.boxes):
            return False
        self.boxes.append(box)
        return True

    def svg(self, name: str, css: str) -> str:
        inside = "\n".join(self.parts)
        return (
            f'<svg class="{css}" role="img" aria-label="{escape(name)}" '
            f'viewBox="0 0 {self.width:g} {self.height:g}">\n{inside}\n</svg>'
        )


def both_widths(draw: Callable[[int, str], str]) -> str:
    """A chart drawn for a wide page and for a narrow one; the style shows one of them."""
    return draw(820, "chart wide") + "\n" + draw(400, "chart narrow")


def frontier_chart(lines: Sequence[Line], marks: Sequence[Mark], *, width: int, css: str) -> str:
    """Accuracy over mean cost, the cost logarithmic where no cost is zero."""
    height = 440 if width > 600 else 380
    points = [*(mark.at for mark in marks), *(point for line in lines for point in line.points)]
    costs = [cost for cost, _ in points]
    heights = [
        *(accuracy for _, accuracy in points),
        *(b for line in lines for pair in line.bounds for b in pair),
    ]
    logarithmic = min(costs) > 0
    left, right = _margins(costs, logarithmic=logarithmic)
    low, high = _padded(heights)
    canvas = _Canvas(width, height)
    x = _Axis(left, right, 46, width - 12, logarithmic)
    y = _Axis(low, high, height - 46, 12)
    ticks = money_ticks(left, right, logarithmic=logarithmic)
    _grid(canvas, x, y, ticks=ticks, show_x=round_dollars, show_y=_per_cent)
    words = "mean cost a query, USD, logarithmic" if logarithmic else "mean cost a query, USD"
    canvas.text((46 + width - 12) / 2, height - 6, words, css="axis")
    for line in lines:
        if line.bounds:
            edge = [(x(cost), y(bound[1])) for (cost, _), bound in zip(line.points, line.bounds, strict=True)]
            edge += [
                (x(cost), y(bound[0]))
                for (cost, _), bound in reversed(list(zip(line.points, line.bounds, strict=True)))
            ]
            canvas.add(f'<polygon class="band {line.css}" points="{_path(edge)}"/>')
    for line in lines:
        drawn = [(x(cost), y(accuracy)) for cost, accuracy in line.points]
        canvas.add(f'<polyline class="line {line.css}" points="{_path(drawn)}"/>')
        canvas.boxes += [(across - 3, down - 3, across + 3, down + 3) for across, down in _along(drawn)]
        for (across, down), title in zip(drawn, line.titles, strict=False):
            canvas.add(_shape("dot", across, down, 3, line.css, title))
    for mark in marks:
        across, down = x(mark.at[0]), y(mark.at[1])
        canvas.boxes.append((across - 5, down - 5, across + 5, down + 5))
        canvas.add(_shape(mark.shape, across, down, 5, mark.css, mark.title))
    for mark in marks:
        if mark.label:
            _label(canvas, mark.name, x(mark.at[0]), y(mark.at[1]), mark.css)
    return canvas.svg("accuracy over mean cost", css)


def accuracy_chart(rows: Sequence[tuple[str, float, Point | None, str]], *, width: int, css: str) -> str:
    """One row a way to choose: name, accuracy, interval and colour class, in the order given."""
    wide = width > 600
    step = 26 if wide else 38
    height = step * len(rows) + 34
    name_width = 250 if wide else 0
    low, high = _padded([v for _, accuracy, bounds, _ in rows for v in (accuracy, *(bounds or ()))])
    canvas = _Canvas(width, height)
    x = _Axis(low, high, name_width + 14, width - 58)
    for tick in _ticks(low, high, 5):
        canvas.add(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 28}"/>')
        canvas.text(x(tick), height - 12, _per_cent(tick))
    for place, (name, accuracy, bounds, colour) in enumerate(rows):
        down = step * place + (step / 2 if wide else 26)
        shown = _shortened(name, 38 if wide else 48)
        canvas.text(
            name_width if wide else 4, down + 4 if wide else down - 11, shown,
            css="name", anchor="end" if wide else "start",
        )  # fmt: skip
        if bounds is not None:
            canvas.add(
                f'<line class="whisker {colour}" x1="{x(bounds[0]):.1f}" x2="{x(bounds[1]):.1f}" '
                f'y1="{down:.1f}" y2="{down:.1f}"/>'
            )
        canvas.add(_shape("dot", x(accuracy), down, 5, colour, f"{name}: {_per_cent(accuracy, 1)}"))
        canvas.text(width - 4, down + 4, _per_cent(accuracy, 1), css="value", anchor="end")
    return canvas.svg("accuracy of the router, of baselines and of single models", css)


def shares_chart(
    amounts: Sequence[float], layers: Sequence[tuple[str, str, Sequence[float]]], *, width: int, css: str
) -> str:
    """Shares of queries stacked over the willingness to pay; layers are name, colour class and shares.

    Amounts ascend; a first amount of 0, which a logarithm has no place for, stands at the left edge.
    """
    height = 300 if width > 600 else 280
    canvas = _Canvas(width, height)
    positive = [amount for amount in amounts if amount > 0]
    x = _Axis(min(positive), max(positive), 62 if amounts[0] <= 0 else 46, width - 12, logarithmic=True)
    y = _Axis(0, 1, height - 46, 12)
    across = [x(amount) if amount > 0 else 46.0 for amount in amounts]
    below = [0.0] * len(amounts)
    for name, colour, shares in layers:
        above = [low + share for low, share in zip(below, shares, strict=True)]
        edge = [*zip(across, map(y, above), strict=True)]
        edge += reversed([*zip(across, map(y, below), strict=True)])
        top = _per_cent(max(shares), 0)
        canvas.add(
            f'<polygon class="area {colour}" points="{_path(edge)}">'
            f"<title>{escape(name)}: up to {top} of the queries</title></polygon>"
        )
        below = above
    for tick in _ticks(0, 1, 5):
        canvas.text(40, y(tick) + 4, _per_cent(tick), anchor="end")
    for tick in _spread(money_ticks(min(positive), max(positive), logarithmic=True), x, 52):
        canvas.add(
            f'<line class="notch" x1="{x(tick):.1f}" x2="{x(tick):.1f}" '
            f'y1="{height - 46}" y2="{height - 41}"/>'
        )
        canvas.text(x(tick), height - 28, round_dollars(tick))
    words = "what a right answer is worth, USD, logarithmic"
    canvas.text((46 + width - 12) / 2, height - 6, words, css="axis")
    return canvas.svg("share of each model along the willingness to pay", css)


def reliability_chart(
    chosen: Sequence[CalibrationBin], all_pairs: Sequence[CalibrationBin], *, width: int, css: str
) -> str:
    """Measured over predicted quality with the diagonal; dots grow with the number of pairs."""
    height = 360
    canvas = _Canvas(width, height)
    side = min(width - 58, 620)
    x, y = _Axis(0, 1, 46, 46 + side), _Axis(0, 1, height - 46, 12)
    _grid(canvas, x, y, ticks=_ticks(0, 1, 5), show_x=_per_cent, show_y=_per_cent)
    canvas.text(46 + side / 2, height - 6, "predicted quality", css="axis")
    canvas.add(f'<line class="diagonal" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    for bins, colour in ((all_pairs, "muted"), (chosen, "router")):
        most = max((found.n for found in bins), default=1)
        drawn = [(x(found.predicted), y(found.measured)) for found in bins]
        canvas.add(f'<polyline class="line thin {colour}" points="{_path(drawn)}"/>')
        for found, (across, down) in zip(bins, drawn, strict=True):
            low, high = (y(bound) for bound in found.interval_95)
            canvas.add(
                f'<line class="whisker {colour}" x1="{across:.1f}" x2="{across:.1f}" '
                f'y1="{low:.1f}" y2="{high:.1f}"/>'
            )
            title = (
                f"predicted {_per_cent(found.predicted, 1)}, measured {_per_cent(found.measured, 1)}, "
                f"{found.n} pairs"
            )
            canvas.add(_shape("dot", across, down, 2.5 + 4.5 * math.sqrt(found.n / most), colour, title))
    return canvas.svg("measured over predicted quality", css)


def span_chart(low: float, high: float, marks: Iterable[tuple[str, float, str]]) -> str:
    """A small bar for a table cell: marks are colour class, accuracy and title, on a scale shared by rows."""
    x = _Axis(low, high, 6, 154)
    canvas = _Canvas(160, 18)
    canvas.add('<line class="grid" x1="6" x2="154" y1="9" y2="9"/>')
    for colour, accuracy, title in marks:
        shape = "dot" if colour == "router" else "tick"
        canvas.add(_shape(shape, x(accuracy), 9, 5, colour, title))
    return canvas.svg("", "span").replace(' role="img" aria-label=""', ' aria-hidden="true"')


def money_ticks(low: float, high: float, *, logarithmic: bool) -> list[float]:
    """Round amounts between two others."""
    if not logarithmic:
        return _ticks(low, high, 5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high < 500 * low else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def _grid(
    canvas: _Canvas,
    x: _Axis,
    y: _Axis,
    *,
    ticks: list[float],
    show_x: Callable[[float], str],
    show_y: Callable[[float], str],
) -> None:
    for tick in _ticks(y.low, y.high, 5):
        down = y(tick)
        canvas.add(f'<line class="grid" x1="{x.start}" x2="{x.end:.1f}" y1="{down:.1f}" y2="{down:.1f}"/>')
        canvas.text(x.start - 6, down + 4, show_y(tick), anchor="end")
    canvas.add(f'<line class="base" x1="{x.start}" x2="{x.end:.1f}" y1="{y.start}" y2="{y.start}"/>')
    for tick in _spread(ticks, x, 52):
        canvas.add(
            f'<line class="notch" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{y.start}" y2="{y.start + 5}"/>'
        )
        canvas.text(x(tick), y.start + 18, show_x(tick))


def _spread(ticks: Iterable[float], x: _Axis, apart: float) -> Iterator[float]:
    """Ticks that leave each other room."""
    last = -math.inf
    for tick in ticks:
        if x(tick) - last >= apart:
            last = x(tick)
            yield tick


def _label(canvas: _Canvas, name: str, x: float, y: float, css: str) -> None:
    """Write a name where nothing else is, or nowhere: the mark's title has it too."""
    shown = _shortened(name, 30)
    wide = len(shown) * _CHARACTER
    places: tuple[tuple[float, float, str, float], ...] = (
        (x + 9, y + 4, "start", x + 9),
        (x - 9, y + 4, "end", x - 9 - wide),
        (x, y - 10, "middle", x - wide / 2),
        (x, y + 18, "middle", x - wide / 2),
        (x + 7, y - 8, "start", x + 7),
        (x + 7, y + 15, "start", x + 7),
        (x - 7, y - 8, "end", x - 7 - wide),
        (x - 7, y + 15, "end", x - 7 - wide),
    )
    if css != "muted":
        places += ((x, y - 24, "middle", x - wide / 2), (x, y + 32, "middle", x - wide / 2))
    for across, down, anchor, left in places:
        if canvas.take((left, down - 11, left + wide, down + 3)):
            canvas.text(across, down, shown, css=f"label {css}", anchor=anchor)
            return


def _shape(  # noqa: PLR0917, a shape, its place and its size
    shape: str, x: float, y: float, size: float, css: str, title: str
) -> str:
    told = f"<title>{escape(title)}</title>"
    if shape == "diamond":
        far = size * 1.35
        corners = _path([(x, y - far), (x + far, y), (x, y + far), (x - far, y)])
        return f'<polygon class="mark {css}" points="{corners}">{told}</polygon>'
    if shape == "square":
        return (
            f'<rect class="mark {css}" x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:g}" '
            f'height="{2 * size:g}">{told}</rect>'
        )
    if shape == "tick":
        return f'<line class="stroke {css}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 6}" y2="{y + 6}">{told}</line>'
    kind = "hollow" if shape == "ring" else "mark"
    return f'<circle class="{kind} {css}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{told}</circle>'


def _along(points: Sequence[Point]) -> Iterator[Point]:
    """Places on a line, so close that no label fits between two."""
    for (x0, y0), (x1, y1) in pairwise(points):
        steps = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / 8))
        for step in range(steps + 1):
            yield x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps


def _path(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _margins(costs: Sequence[float], *, logarithmic: bool) -> Point:
    low, high = min(costs), max(costs)
    if logarithmic:
        room = max((high / low) ** 0.05, 1.15)
        return low / room, high * room
    room = 0.05 * (high - low) or 1e-6
    return max(0.0, low - room), high + room


def _padded(values: Sequence[float]) -> Point:
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), 0.005)
    return max(0.0, low - room), min(1.0, high + room)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two others, about so many."""
    rough = (high - low) / about
    if rough <= 0:
        return [low]
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def round_dollars(value: float) -> str:
    """An amount of a tick, in no more digits than it has."""
    if value == 0:
        return "$0"
    if value >= 1:
        return f"${value:g}"
    digits = max(0, -math.floor(math.log10(value) + 1e-9))
    text = f"{value:.{digits + 1}f}".rstrip("0")
    return f"${text}" if digits < 6 else f"${value:.0e}"


def _per_cent(value: float, digits: int | None = None) -> str:
    if digits is None:
        return f"{100 * value:.3g} %"
    return f"{100 * value:.{digits}f} %"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
