# SPDX-License-Identifier: MIT
"""What a benchmark found: figures beside rivals' of the same run, curves, and JSON of it.

    Series    one contestant's samples of one thing, a sample a round
    Figure    what is measured: series, ours first; and what it must not pass
    Chart     curves for the page
    Result    one benchmark's figures, charts, settings and notes; or why there are none
    Report    all of them

A figure's value is the median of ours.  Where `of_rival`, it is the quotient: our median by
that of the best rival, and its spread is that of the quotients round by round, each of
which was run beside the other.

    holds       within its bound
    missed      not
    not shown   it has a bound, and nothing to hold it against
    open        nothing is promised
"""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, TypeAlias

from mesh.audit.report import finite

SCHEMA_VERSION: Final = 1
Tell: TypeAlias = Callable[[str, float], None]
"""Hears what is being done, and what share of the benchmark is."""
Points: TypeAlias = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    is_quick: bool = False
    rounds: int = 5
    pairs: tuple[str, ...] = ()
    """Which pairs of servers take turns; empty: all that are there."""
    found: Callable[["Result"], None] = lambda _: None
    """Hears what there is so far: a part that takes long calls it after each of its rows,
    so that a run that ends early, or a row that fails, loses one row."""

    def of(self, whole: int, quick: int) -> int:
        """Choose between two counts."""
        return quick if self.is_quick else whole

    def of_each(self, whole: Sequence[int], quick: Sequence[int]) -> Sequence[int]:
        """Choose between two lists of counts."""
        return quick if self.is_quick else whole


@dataclass(frozen=True)
class Series:
    """One contestant's samples."""

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Figure:
    """One thing that is measured."""

    name: str
    unit: str
    series: tuple[Series, ...]
    bound: float | None = None
    of_rival: bool = False
    at_least: bool = True
    """More is better, and the bound is from below."""

    @property
    def ours(self) -> Series:
        """Our samples."""
        return self.series[0]

    @property
    def rival(self) -> Series | None:
        """The best of the others."""
        best = max if self.at_least else min
        return best(self.series[1:], key=lambda each: each.median, default=None)

    @property
    def ratio(self) -> float | None:
        """Our median by the best rival's."""
        rival = self.rival
        return self.ours.median / rival.median if rival and rival.median else None

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest of what the value is the middle of."""
        values: Sequence[float] = self.ours.values
        if self.of_rival and (rival := self.rival) and rival.median:
            values = [
                one / other
                for one, other in zip(values, rival.values, strict=False)
                if other
            ]
        return min(values), max(values)

    @property
    def value(self) -> float | None:
        """What the bound is held against."""
        return self.ratio if self.of_rival else self.ours.median

    @property
    def verdict(self) -> str:
        """How it came out."""
        if self.bound is None:
            return "open"
        if self.value is None:
            return "not shown"
        good = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "holds" if good else "missed"


@dataclass(frozen=True)
class Chart:
    """Curves over one axis."""

    title: str
    across: str
    curves: Mapping[str, Points]
    limits: Mapping[str, Points] = field(default_factory=dict)
    logarithmic: bool = False
    """Upwards."""
    linear: bool = False
    """Across; else that is logarithmic."""


@dataclass(frozen=True)
class Result:
    """What one benchmark found."""

    name: str
    title: str
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class Report:
    """All that one run of the suite found."""

    version: str
    machine: Mapping[str, str]
    is_quick: bool
    results: tuple[Result, ...]

    @property
    def figures(self) -> list[Figure]:
        """Of all benchmarks."""
        return [figure for result in self.results for figure in result.figures]

    @property
    def summary(self) -> str:
        """One line: how many figures came out how."""
        verdicts = [figure.verdict for figure in self.figures]
        promised = len(verdicts) - verdicts.count("open")
        parts = [f"{verdicts.count('holds')} of {promised} figures with a bound hold"]
        parts += [
            f"{verdicts.count(word)} {word}"
            for word in ("missed", "not shown")
            if word in verdicts
        ]
        failed = [result.name for result in self.results if result.failure]
        parts += [f"failed: {' '.join(failed)}"] if failed else []
        return ", ".join(parts)

    @property
    def failed(self) -> bool:
        """Whether a benchmark came to no result."""
        return any(result.failure for result in self.results)


# JSON


def written(report: Report) -> str:
    """The report as JSON, with what can be reckoned from it written out."""
    told = finite(asdict(report))
    for result, own in zip(told["results"], report.results, strict=True):
        for figure, mine in zip(result["figures"], own.figures, strict=True):
            figure["value"] = finite(mine.value)
            figure["spread"] = finite(mine.spread)
            figure["verdict"] = mine.verdict
            for series, each in zip(figure["series"], mine.series, strict=True):
                series["median"] = finite(each.median)
    told = {"schema": SCHEMA_VERSION, "summary": report.summary, **told}
    return json.dumps(told, indent=1, allow_nan=False) + "\n"


def read(text: str) -> Report:
    """Read back what `written` wrote; KeyError, TypeError, ValueError: something else."""
    told = json.loads(text)
    if told["schema"] != SCHEMA_VERSION:
        raise ValueError("a report of another version")
    results = tuple(
        Result(
            each["name"],
            each["title"],
            tuple(map(_figure, each["figures"])),
            tuple(map(_chart, each["charts"])),
            each["settings"],
            tuple(each["notes"]),
            each["seconds"],
            each["failure"],
        )
        for each in told["results"]
    )
    return Report(told["version"], told["machine"], told["is_quick"], results)


def _figure(told: dict[str, Any]) -> Figure:
    series = tuple(
        Series(
            each["name"],
            tuple(math.nan if one is None else one for one in each["values"]),
        )
        for each in told["series"]
    )
    fields = ("name", "unit", "bound", "of_rival", "at_least")
    return Figure(**{key: told[key] for key in fields}, series=series)


def _chart(told: dict[str, Any]) -> Chart:
    chart = Chart(**told)
    return replace(chart, curves=_points(chart.curves), limits=_points(chart.limits))


def _points(told: Mapping[str, Points]) -> dict[str, Points]:
    return {
        name: tuple((across, up) for across, up in points)
        for name, points in told.items()
    }


# what results are made of


def single(
    name: str, unit: str, value: float, bound: float | None = None, **more: bool
) -> Figure:
    """Make a figure of one sample of ours."""
    return Figure(name, unit, (Series("mesh", (value,)),), bound, **more)


def quantile(values: Sequence[float], share: float) -> float:
    """Give the value that this share of them does not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def distribution(values: Sequence[float], most: int = 200) -> Points:
    """Give the share of values up to each, as points for a chart."""
    ordered = sorted(values)
    steps = min(len(ordered), most)
    places = [(len(ordered) - 1) * n // max(steps - 1, 1) for n in range(steps)]
    return [(ordered[at], (at + 1) / len(ordered)) for at in places]
