# SPDX-License-Identifier: MIT
"""A report for a terminal: a table a benchmark, versions and settings below it."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.result import Figure, Report, Result, Series
from mesh.audit.page import short

COLOURS = {"holds": "green", "missed": "red", "not shown": "yellow", "open": "dim"}


def spread(series: Series) -> str:
    """Give the median and, of more than one, the least and the greatest."""
    if len(series.values) == 1:
        return short(series.median)
    low, high = min(series.values), max(series.values)
    return f"{short(series.median)} ({short(low)}..{short(high)})"


def ratio(figure: Figure) -> str:
    """Give what ours is of the best rival's, and the quotients' spread."""
    if figure.ratio is None:
        return "-"
    if not figure.of_rival or len(figure.ours.values) == 1:
        return f"{short(figure.ratio)}x"
    low, high = figure.spread
    return f"{short(figure.ratio)}x ({short(low)}..{short(high)})"


def bound(figure: Figure) -> str:
    """Give what it must not pass."""
    if figure.bound is None:
        return "-"
    sign = ">=" if figure.at_least else "<="
    return f"{sign} {short(figure.bound)}{'x' if figure.of_rival else ''}"


def failed(result: Result) -> str:
    """Say how much there is of one that failed, and why no more."""
    return f"{'not all of it' if result.figures else 'no result'}: {result.failure}"


def contestants(result: Result) -> list[str]:
    """Give the rivals that any figure has."""
    return list(
        dict.fromkeys(
            series.name for figure in result.figures for series in figure.series[1:]
        )
    )


def rows(result: Result) -> Iterator[list[str]]:
    """Give the table's rows: the name, the unit, ours, rivals', ratio, bound, verdict."""
    names = contestants(result)
    for figure in result.figures:
        rivals = {series.name: spread(series) for series in figure.series[1:]}
        yield [
            figure.name,
            figure.unit,
            spread(figure.ours),
            *(rivals.get(name, "-") for name in names),
            ratio(figure),
            bound(figure),
            figure.verdict,
        ]


def table(result: Result) -> Table:
    """One benchmark's figures."""
    made = Table(title=result.title, title_justify="left")
    made.add_column("")
    made.add_column("unit")
    for name in ("mesh", *contestants(result), "ratio", "bound"):
        made.add_column(name, justify="right")
    made.add_column("")
    for *cells, verdict in rows(result):
        made.add_row(
            *(Text(cell) for cell in cells), Text(verdict, style=COLOURS[verdict])
        )
    return made


def show(report: Report, console: Console) -> None:
    """Print all of it."""
    for name, value in report.machine.items():
        console.print(Text(f"{name}: {value}"))
    for result in report.results:
        console.print()
        if result.figures:
            console.print(table(result))
        if result.failure:
            console.print(Text(f"{result.name}: {failed(result)}", style="red"))
        for note in result.notes:
            console.print(Text(f"note: {note}"))
        for name, value in result.settings.items():
            console.print(Text(f"{name}: {value}", style="dim"))
    console.print()
    if report.is_quick:
        console.print(Text("A sample: its figures mean nothing."))
    console.print(Text(report.summary))
