# SPDX-License-Identifier: MIT
"""A report as one HTML page: nothing fetched, no script, pictures as SVG in it.

From top to bottom: the verdict; the wires, idle above busy, without cover below; the
figures world by world with what cover costs there; receivers' curves, with controls and
planted leaks as broken lines; what was not made or not measured; how to read it.
"""

import html
from collections.abc import Iterator
from typing import Final

from mesh.audit.drawing import Lane, Line, curves, strip
from mesh.audit.figures import Figure
from mesh.audit.page import page
from mesh.audit.report import Report, bound, number, price, said

TITLE: Final = "What a snooper learns"
COLUMNS: Final = (
    "figure", "attacker", "n", "value", "95 %", "bound", "finds", "verdict", "cost of cover",
)  # fmt: skip
NUMBERS: Final = COLUMNS[2:6]
LINES_MAX: Final = 6
"""In one square: more lie upon each other."""
READING: Final = """
<h2>How to read this</h2>
<p>AUC is the chance that an attacker who is shown one of each kind tells which is which:
0.5 is a guess, 1 is certain. Attackers are judged on data that they have not learned from;
below 0.5 counts as much as above. <b>95 %</b> is the one-sided limit, and what the bound is
held against. <b>Finds</b> is the smallest leak of those planted into the same data that the
same attacker found. A figure whose controls did not come out as wanted is <b>not shown</b>,
whatever its value: who cannot break what is open proves nothing about what is closed.</p>
"""
STYLE: Final = """<style>
body{max-width:64em;color:#222;line-height:1.4}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:.35em .6em;text-align:left;vertical-align:top;border-top:1px solid #ddd}
th{font-weight:600;border-top:0}
th.n{text-align:right}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.c,p.c{color:#666;font-size:12.5px}tr.c td{border-top:0;padding-top:0}
.holds{color:#27805b}.missed{color:#c0392b}.not{color:#b8860b}.open{color:#666}
b.holds,b.missed,b.not,b.open{white-space:nowrap}
figure{display:inline-block;vertical-align:top;margin:0 1em 1em 0;width:320px}
figcaption{font-weight:600;font-size:14px;min-height:2.8em}
figure ul{columns:1;list-style:none;padding:0 0 0 2em;font-size:12.5px}
h3{margin-bottom:.2em}
</style>"""


def sheet(report: Report) -> str:
    """The page."""
    grade = "holds" if report.holds else "missed"
    about = html.escape(report.source)
    if report.cells:
        about += f"; {report.cells:,} cells in {report.seconds:,.0f} s"
    return page(
        TITLE,
        STYLE,
        f'<p class="c">{about}; mesh {html.escape(report.version)}</p>',
        f'<p><b class="{grade}">{html.escape(report.summary)}.</b></p>',
        *_wires(report),
        *_tables(report),
        *_receivers(report),
        *_notes(report),
        READING,
    )


def _wires(report: Report) -> Iterator[str]:
    if not report.wires:
        return
    yield "<h2>The wire</h2><p>Each tick is a cell, or a write where there are none: up "
    yield "from the first end, down from the second. Mail was on its way in lanes that "
    yield "say busy.</p>"
    for wire in report.wires:
        yield f"<h3>{html.escape(wire.world)}</h3>"
        yield strip([Lane("idle", wire.idle), Lane("busy", wire.busy)], wire.seconds)


def _tables(report: Report) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    for world in dict.fromkeys(figure.world for figure in report.figures):
        if world:
            yield f"<h3>{html.escape(world)}</h3>"
        yield "<table><tr>"
        yield from (
            f"<th{' class=n' if name in NUMBERS else ''}>{name}</th>"
            for name in COLUMNS
        )
        yield "</tr>"
        for figure in report.figures:
            if figure.world == world:
                cost = report.cost_of(figure)
                yield _row(figure, price(cost) if cost else "")
        yield "</table>"


def _row(figure: Figure, cost: str) -> str:
    """A row, and one below it with its controls."""
    verdict = figure.verdict
    cells = [
        f"<td>{html.escape(figure.name)}</td><td>{html.escape(figure.attacker)}</td>",
        *(
            f'<td class="n">{html.escape(each)}</td>'
            for each in (
                f"{figure.count:,}", f"{number(figure.value)} {figure.unit}",
                number(figure.upper), bound(figure),
            )
        ),
        f"<td>{html.escape(figure.smallest) or '-'}</td>",
        f'<td><b class="{verdict.partition(" ")[0]}">{verdict}</b></td>',
        f'<td class="c">{html.escape(cost)}</td>',
    ]  # fmt: skip
    controls = "; ".join(map(said, figure.controls)) or "no controls"
    below = html.escape(f"controls: {controls}" if figure.controls else controls)
    if figure.note:
        below += f"<br>{html.escape(figure.note)}"
    return (
        f"<tr>{''.join(cells)}</tr>"
        f'<tr class="c"><td class="c" colspan="{len(COLUMNS)}">{below}</td></tr>'
    )


def _receivers(report: Report) -> Iterator[str]:
    """A square for each figure that has a curve, with its controls' curves."""
    with_curves = [figure for figure in report.figures if figure.roc]
    if with_curves:
        yield "<h2>Receivers</h2>"
    for figure in with_curves:
        lines = [Line(f"{figure.attacker}: {number(figure.value)}", figure.roc)]
        lines += [
            Line(f"{control.name}: {number(control.value)}", control.roc, True)
            for control in figure.controls
            if control.roc
        ]
        title = ", ".join(filter(None, (figure.name, figure.world)))
        yield curves(title, lines[:LINES_MAX])


def _notes(report: Report) -> Iterator[str]:
    for title, lines in (("Not made", report.missing), ("Not measured", report.notes)):
        if lines:
            yield f"<h2>{title}</h2><ul style='columns:1'>"
            yield from (f"<li>{html.escape(each)}</li>" for each in lines)
            yield "</ul>"
