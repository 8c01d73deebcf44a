# SPDX-License-Identifier: MIT
"""A report as one HTML page: nothing fetched, no script, plots as SVG in it."""

import html
from collections.abc import Iterator, Mapping

from benchmarks.result import Chart, Report, Result
from benchmarks.show import contestants, failed, rows
from mesh.audit.page import chart, page
from mesh.audit.sheet import STYLE

TITLE = "How fast, beside what else there is"
CLASSES = {"holds": "holds", "missed": "missed", "not shown": "not", "open": "open"}
CHARTS = """
.charts{display:flex;flex-wrap:wrap;gap:0 2em}
.charts>div{flex:0 1 30em}
.charts svg{width:100%;height:auto}
.charts h3{margin-bottom:0}
.charts h3{font-size:1em}
details{color:#666;font-size:12.5px;margin:.6em 0}
@media print{details>*{display:block}}
"""
READING = """
<h2>How to read this</h2>
<p>Each figure is a median of rounds, with the least and the greatest in brackets.
Contestants take turns in each round, over the same driver and the same sink, with their
queues on the same disk. A <b>ratio</b> is our median by that of the best rival of the same
rounds; its brackets are the quotients round by round. A figure with a bound and without a
rival to hold it against is <b>not shown</b>.</p>
"""


def sheet(report: Report) -> str:
    """The page."""
    grade = "holds" if "missed" not in report.summary else "missed"
    sample = "<p>A sample: its figures mean nothing.</p>" if report.is_quick else ""
    return page(
        TITLE,
        f"{STYLE}<style>{CHARTS}</style>",
        f'<p class="c">mesh {html.escape(report.version)}</p>',
        *_settings(report.machine),
        f'<p><b class="{grade}">{html.escape(report.summary)}.</b></p>{sample}',
        *(part for result in report.results for part in _result(result)),
        READING,
    )


def _result(result: Result) -> Iterator[str]:
    yield f"<h2>{html.escape(result.title)}</h2>"
    if result.failure:
        said = html.escape(failed(result))
        yield f'<p class="missed">{said}</p>'
    if result.figures:
        yield "<table><tr><th></th><th>unit</th>"
        for head in ("mesh", *contestants(result), "ratio", "bound"):
            yield f'<th class="n">{html.escape(head)}</th>'
        yield "<th></th></tr>"
        for name, unit, *numbers, verdict in rows(result):
            yield f"<tr><td>{html.escape(name)}</td><td>{html.escape(unit)}</td>"
            yield from (f'<td class="n">{html.escape(each)}</td>' for each in numbers)
            yield f'<td><b class="{CLASSES[verdict]}">{verdict}</b></td></tr>'
        yield "</table>"
    yield from (f'<p class="c">{html.escape(note)}</p>' for note in result.notes)
    if result.charts:
        yield '<div class="charts">'
        for each in result.charts:
            yield f"<div>{drawn(each).replace('h2>', 'h3>')}</div>"
        yield "</div>"
    if result.settings:
        yield '<details class="c"><summary>versions and settings</summary>'
        yield from _settings(result.settings)
        yield "</details>"


def drawn(what: Chart) -> str:
    """Draw a chart."""
    return chart(
        what.title,
        what.across,
        what.curves,
        what.limits,
        logarithmic=what.logarithmic,
        linear=what.linear,
    )


def _settings(settings: Mapping[str, str]) -> Iterator[str]:
    for name, value in settings.items():
        yield f'<p class="c">{html.escape(name)}: {html.escape(value)}</p>'
