"""Small charts, drawn on the server: where each bar and each point stands. The templates make SVG of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

WIDTH: Final = 480
HEIGHT: Final = 150
LEFT: Final = 52  # for the numbers
RIGHT: Final = 6
TOP: Final = 8
BOTTOM: Final = 22  # for the times
TIMES: Final = 4  # said below


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Label:
    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A path through what is known; a gap where nothing is. Single points, which have no line, are marks."""

    path: str
    marks: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    text: str  # what it shows, in words
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()
    rows: Sequence[Label] = ()  # numbers at the left
    columns: Sequence[Label] = ()  # times below
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    floor: int = HEIGHT - BOTTOM

    @property
    def is_empty(self) -> bool:
        return not self.bars and not any(line.path or line.marks for line in self.lines)


def stacked(
    buckets: Sequence[Mapping[str, int]],
    kinds: Sequence[str],
    *,
    start: datetime,
    span: timedelta,
    what: str,
) -> Chart:
    """Bars, one for each span, of parts.

    Args:
        kinds: from the bottom up.
        what: is counted.
    """
    highest = max((sum(bucket.values()) for bucket in buckets), default=0)
    top = _round_up(highest)
    step = _inner_width() / max(len(buckets), 1)
    bars: list[Bar] = []
    for place, bucket in enumerate(buckets):
        base = 0
        for kind in kinds:
            if not (number := bucket.get(kind, 0)):
                continue
            y, floor = _y(base + number, top), _y(base, top)
            title = f"{_clock(start + place * span, span)}: {number} {kind}"
            bars.append(
                Bar(
                    x=_round(LEFT + place * step + step * 0.1),
                    y=_round(y),
                    width=_round(step * 0.8),
                    height=_round(floor - y),
                    kind=kind,
                    title=title,
                )
            )
            base += number
    totals = {kind: sum(bucket.get(kind, 0) for bucket in buckets) for kind in kinds}
    told = ", ".join(f"{number} {kind}" for kind, number in totals.items() if number) or "none"
    return Chart(
        text=f"{what}: {told}.",
        bars=bars,
        rows=_rows(top, str),
        columns=_columns(start, span, len(buckets)),
    )


def lined(
    series: Mapping[str, Sequence[float | None]],
    *,
    start: datetime,
    span: timedelta,
    what: str,
    show: Callable[[float], str],
) -> Chart:
    """One line for each series of values, one for each span; None where there is none."""
    count = max((len(values) for values in series.values()), default=0)
    top = _round_up(
        max((value for values in series.values() for value in values if value is not None), default=0)
    )
    step = _inner_width() / max(count, 1)

    def points(values: Sequence[float | None]) -> list[tuple[float, float] | None]:
        return [
            None if value is None else (_round(LEFT + (place + 0.5) * step), _round(_y(value, top)))
            for place, value in enumerate(values)
        ]

    told = "; ".join(f"{name} {_summary(values, show)}" for name, values in series.items())
    return Chart(
        text=f"{what}: {told}.",
        lines=[_line(points(values)) for values in series.values()],
        rows=_rows(top, show),
        columns=_columns(start, span, count),
    )


def _line(points: Sequence[tuple[float, float] | None]) -> Line:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    path = " ".join("M" + " L".join(f"{x:g} {y:g}" for x, y in run) for run in runs if len(run) > 1)
    return Line(path=path, marks=[run[0] for run in runs if len(run) == 1])


def _summary(values: Sequence[float | None], show: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    return f"{show(min(known))} to {show(max(known))}" if known else "unknown"


def _inner_width() -> float:
    return WIDTH - LEFT - RIGHT


def _y(value: float, top: float) -> float:
    floor = HEIGHT - BOTTOM
    return floor - value / top * (floor - TOP)


def _round(number: float) -> float:
    return round(number, 1)


def _round_up(highest: float) -> float:
    """To a number that reads well; never 0, which nothing can be divided by."""
    size = 1.0
    while size * 10 < highest:
        size *= 10
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= highest)


def _rows(top: float, show: Callable[[float], str] | type[str]) -> list[Label]:
    # Half a task is none.
    halves = [0, top / 2, top] if top > 1 and top % 2 == 0 else [0, top]
    return [
        Label(_round(_y(value, top)), show(int(value) if value == int(value) else value)) for value in halves
    ]


def _columns(start: datetime, span: timedelta, count: int) -> list[Label]:
    step = _inner_width() / max(count, 1)
    every = max(count // TIMES, 1)
    return [
        Label(_round(LEFT + (place + 0.5) * step), _clock(start + place * span, span))
        for place in range(0, count, every)
    ]


def _clock(moment: datetime, span: timedelta) -> str:
    return moment.strftime("%a %H:%M" if span > timedelta(minutes=30) else "%H:%M")


class Timed(Protocol):
    @property
    def at(self) -> datetime: ...

    @property
    def ms(self) -> int: ...


def percentiles(
    found: Sequence[Timed], *, start: datetime, span: timedelta, count: int, shares: Sequence[float]
) -> list[list[float | None]]:
    """For each share, the value below which it lies in each span.

    Args:
        shares: from 0 to 1.
    """
    buckets: list[list[int]] = [[] for _ in range(count)]
    for each in found:
        place = int((each.at - start) / span)
        if 0 <= place < count:
            buckets[place].append(each.ms)
    ordered = [sorted(bucket) for bucket in buckets]
    return [[_percentile(bucket, share) for bucket in ordered] for share in shares]


def _percentile(ordered: Sequence[int], share: float) -> float | None:
    """The nearest rank."""
    if not ordered:
        return None
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])
