# SPDX-License-Identifier: MIT
"""An audit's result: what it is made of, as text and as JSON; sheet.py has it as a page.

    Report   version, source, seconds, cells    which mesh, what was looked at, how much
             figures                            figures.py
             costs                              what cover costs in each world, below
             wires                              idle and busy stretches, to be drawn
             notes                              what was not measured, and why
             missing                            figures that were promised and not made

The JSON is what mesh/audit/schema.json says: one object, numbers that are not finite as
null.  `read` gives back what `written` wrote.

Cover costs 4,096 octets a cell, R cells a second, mail or none: 0.354 R GB a day each
way, without TCP's and IP's own 5 %.  It delays a message's first cell at each hop by what
is left of a gap (`mean_wait`), each further cell by a gap.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from mesh.audit.figures import HOLDS, OPEN, Control, Figure
from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock

SCHEMA_VERSION: Final = 1
DAY_SECONDS: Final = 86_400
GIGA: Final = 1e9
WAITS: Final = {
    Clock.RENEWAL: 5 / 8,
    Clock.SLOTTED: (7 / 6 - 1 / math.pi**2) / 2,
    Clock.POISSON: 1.0,
    Clock.CONSTANT: 1 / 2,
}
"""Of a period: E[gap^2] / (2 E[gap]), from the variance of each law's gap: T^2/4 (four
exponentials of T/4), 2 (1/12 - 1/(2 pi^2)) T^2 (two raised cosines), T^2, none."""
HEADS: Final = ("attacker", "n", "value", "95 %", "bound", "finds", "")


@dataclass(frozen=True)
class Cost:
    """What cover costs in one world."""

    world: str
    clock: str
    rate: float
    """Cells a second, each way."""
    measured: float | None = None
    """Seconds that a message took from its way in to its way out, median."""
    without: float | None = None
    """The same where there is no cover."""

    @property
    def gigabytes(self) -> float:
        """A day, each way."""
        return self.rate * CELL_LEN * DAY_SECONDS / GIGA

    @property
    def mean_wait(self) -> float | None:
        """Seconds that a message's first cell waits at each hop; None: it does not."""
        share = WAITS.get(Clock[self.clock.upper()]) if self.clock else None
        return None if share is None else share / self.rate


@dataclass(frozen=True)
class Wire:
    """Stretches of one wire: cells as (seconds since the begin, whose: 0 or 1)."""

    world: str
    seconds: float
    idle: tuple[tuple[float, int], ...]
    busy: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Report:
    """All that one audit found."""

    version: str
    source: str
    seconds: float
    cells: int
    figures: tuple[Figure, ...]
    costs: tuple[Cost, ...] = ()
    wires: tuple[Wire, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Where these are, nothing holds: a figure that is not there is not kept to."""

    def cost_of(self, figure: Figure) -> Cost | None:
        """What the cover costs beside which that figure stands."""
        found = (cost for cost in self.costs if cost.world == figure.world)
        return next(found, None)

    @property
    def summary(self) -> str:
        """One line: how many figures came out how."""
        verdicts = [figure.verdict for figure in self.figures]
        parts = [
            f"{verdicts.count(word)} {said}"
            for word, said in (
                ("missed", "missed"), ("not shown", "not shown"), ("open", "without a bound"),
            )
            if word in verdicts
        ]  # fmt: skip
        whole = f"{verdicts.count(HOLDS)} of {len(verdicts)} figures hold"
        lost = [f"{len(self.missing)} not made"] if self.missing else []
        return ", ".join([whole, *parts, *lost])

    @property
    def holds(self) -> bool:
        """Whether there are figures with a bound, each of them holds, and none is missing."""
        verdicts = {figure.verdict for figure in self.figures}
        kept = HOLDS in verdicts and verdicts <= {HOLDS, OPEN}
        return kept and not self.missing


def written(report: Report) -> str:
    """The report as JSON, with what can be reckoned from it written out."""
    told = finite(asdict(report))
    for cost, mine in zip(told["costs"], report.costs, strict=True):
        cost["gigabytes_a_day"], cost["mean_wait"] = mine.gigabytes, mine.mean_wait
    for figure, own in zip(told["figures"], report.figures, strict=True):
        figure["verdict"] = own.verdict
    told = {"schema": SCHEMA_VERSION, "summary": report.summary, **told}
    return json.dumps(told, indent=1, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """The same in what JSON has words for: numbers of numpy's become our own."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read(text: str) -> Report:
    """Read back what `written` wrote; KeyError, TypeError, ValueError: something else."""
    told = json.loads(text)
    if told["schema"] != SCHEMA_VERSION:
        raise ValueError("a report of another version")
    figures = []
    for each in told["figures"]:
        each = {key: value for key, value in each.items() if key != "verdict"}
        each["controls"] = tuple(_control(one) for one in each["controls"])
        each["roc"] = _pairs(each["roc"])
        each["value"], each["upper"] = _number(each["value"]), _number(each["upper"])
        figures.append(Figure(**each))
    fields = ("world", "clock", "rate", "measured", "without")
    return Report(
        told["version"],
        told["source"],
        told["seconds"],
        told["cells"],
        tuple(figures),
        tuple(Cost(**{key: each[key] for key in fields}) for each in told["costs"]),
        tuple(
            Wire(
                each["world"],
                each["seconds"],
                _pairs(each["idle"]),
                _pairs(each["busy"]),
            )
            for each in told["wires"]
        ),
        tuple(told["notes"]),
        tuple(told["missing"]),
    )


def _control(told: dict[str, Any]) -> Control:
    return Control(
        **{**told, "value": _number(told["value"]), "roc": _pairs(told["roc"])}
    )


def _number(told: float | None) -> float:
    return math.nan if told is None else told


def _pairs(told: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    return tuple((one, other) for one, other in told)


# as text


def text(report: Report) -> str:
    """The report as a table for a terminal."""
    lines = [report.source]
    if report.cells:
        lines.append(f"{report.cells:,} cells in {report.seconds:,.0f} s")
    for world in dict.fromkeys(figure.world for figure in report.figures):
        mine = [figure for figure in report.figures if figure.world == world]
        lines += ["", *_world(world, mine, report.cost_of(mine[0]))]
    lines += ["", *(f"not made: {each}" for each in report.missing)]
    lines += [*(f"note: {note}" for note in report.notes), report.summary]
    return "\n".join(lines) + "\n"


def _world(world: str, figures: Sequence[Figure], cost: Cost | None) -> Iterator[str]:
    if world:
        yield f"{world}{': ' + price(cost) if cost else ''}"
    rows = [("figure", *HEADS), *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS) + 1)]
    before: tuple[Control, ...] = ()
    for row, figure in zip(rows, [None, *figures], strict=True):
        cells = [
            cell.rjust(width) if 2 <= column <= 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
        if figure and figure.controls and figure.controls != before:
            yield f"    controls: {'; '.join(map(said, figure.controls))}"
        before = figure.controls if figure else ()
        if figure and figure.note:
            yield f"    {figure.note}"


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        figure.name,
        figure.attacker,
        f"{figure.count:,}",
        number(figure.value),
        number(figure.upper),
        bound(figure),
        figure.smallest or "-",
        figure.verdict,
    )


def price(cost: Cost) -> str:
    """What cover costs there, in words."""
    parts = []
    if cost.rate and cost.clock:
        parts.append(f"{cost.gigabytes:.3g} GB a day each way")
    if (wait := cost.mean_wait) is not None:
        parts.append(f"a cell waits {duration(wait)} a hop")
    if cost.measured is not None:
        parts.append(f"a message took {duration(cost.measured)}")
    if cost.without is not None:
        parts.append(f"without cover {duration(cost.without)}")
    return ", ".join(parts)


def said(control: Control) -> str:
    """A control in words."""
    missed = "" if control.found else " NOT FOUND"
    return f"{control.name} {number(control.value)} ({control.wanted}){missed}"


def bound(figure: Figure) -> str:
    """What the figure must not pass, in words."""
    if figure.bound is None:
        return "-"
    return f"{'>=' if figure.at_least else '<='} {number(figure.bound)}"


def number(value: float) -> str:
    """A figure's number, as short as it may be."""
    if math.isnan(value):
        return "?"
    return f"{value:.3f}" if abs(value) >= 0.02 or value == 0 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Seconds, or milliseconds where those are few."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
