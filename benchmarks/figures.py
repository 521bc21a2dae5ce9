"""What was measured, as rows of a table, and the page that keeps them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Protocol

DOCS: Final = Path(__file__).parents[1] / "docs"
RELIABILITY: Final = DOCS / "reliability.md"
Row = tuple[str, ...]
HEAD = ("what", "measured", "result", "spread", "target", "held")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a benchmark.

    Args:
        measured: the quantities behind the result.
        result: what the target is about.
        held: None where nothing was aimed at.
    """

    what: str
    measured: str
    result: str
    spread: str = ""
    target: str = ""
    held: bool | None = None

    def cells(self) -> Row:
        held = {None: "", True: "yes", False: "**no**"}[self.held]
        return (self.what, self.measured, self.result, self.spread, self.target, held)


def ratio(
    what: str, values: Sequence[float], baselines: Sequence[float], *, unit: str, least: float | None = None
) -> Figure:
    """Of pairs that were measured in turn: the median of their ratios, from the least to the greatest."""
    ratios = [value / baseline for value, baseline in zip(values, baselines, strict=True)]
    return Figure(
        what=what,
        measured=f"{median(values):,.0f} of {median(baselines):,.0f} {unit}",
        result=f"{median(ratios):.2f}",
        spread=f"{min(ratios):.2f} to {max(ratios):.2f}",
        target="" if least is None else f"≥ {least:.2f}",
        held=None if least is None else median(ratios) >= least,
    )


class Rate(Protocol):
    """A round."""

    @property
    def a_second(self) -> float: ...

    @property
    def each_us(self) -> float:
        """Of the server's processor time."""


def beside(what: str, taken: Sequence[Rate], alone: Sequence[Rate], *, least: float) -> list[Figure]:
    """Rates beside the baseline's. And processor time: what it comes down to when one core does all the work, which
    others on the same machine disturb less.
    """
    return [
        ratio(
            what,
            [one.a_second for one in taken],
            [one.a_second for one in alone],
            unit="a second",
            least=least,
        ),
        ratio(
            f"processor time of each, the baseline's in Klingel's, {what}",
            [one.each_us for one in alone],
            [one.each_us for one in taken],
            unit="µs",
        ),
    ]


def most(
    what: str,
    values: Sequence[float],
    limit: float | None,
    *,
    unit: str,
    measured: str = "",
    decimals: int = 1,
    of: Callable[[Sequence[float]], float] = median,
) -> Figure:
    """The median of repeats, which may be at most so much."""
    value = of(values)
    return Figure(
        what=what,
        measured=measured,
        result=f"{value:,.{decimals}f} {unit}".strip(),
        spread=f"{min(values):,.{decimals}f} to {max(values):,.{decimals}f}" if len(values) > 1 else "",
        target="" if limit is None else f"≤ {limit:g} {unit}".strip(),
        held=None if limit is None else value <= limit,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them is; with few of them, the greatest counts."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def keep(name: str, shown: str, *, page: Path = RELIABILITY) -> None:
    """Puts them in place of the former ones, between two marks of a page."""
    begin, end = _marks(name)
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{shown}\n{end}{after}")


def kept(name: str, *, page: Path) -> str:
    """What stands between them."""
    begin, end = _marks(name)
    return page.read_text().partition(begin)[2].partition(end)[0].strip()


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
