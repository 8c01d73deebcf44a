# SPDX-License-Identifier: MIT
"""`mesh audit`: what a snooper learns, from a capture or from nodes that it makes itself.

    mesh audit CAPTURE [--events FILE]           a pcap or pcapng file, or a trace (.npz)
    mesh audit --live [--minutes N] [--resume FOLDER]
                 [--json FILE] [--html FILE]

    code   when
      0    each figure with a bound holds
      1    one was missed, or not shown
     69    the extra `audit`, or a program that --live needs, is not there
     73    no folder for --json or --html
     77    --live without root

The table goes to standard output, how far it is to standard error.
"""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mesh.cli.plain import plain
from mesh.errors import CannotCreateError, UnavailableError, UsageError

if TYPE_CHECKING:
    from mesh.audit.report import Report

FILE: Final = click.Path(path_type=Path)
MINUTES: Final = 10.0
MINUTES_MIN: Final = 1.0
"""Below, not one world comes up."""
EXTRA: Final = "pip install 'remailer-mesh[audit]'"
NEEDS: Final = ("numpy", "sklearn", "dpkt", "aiosmtpd")
"""What it installs, by the names under which they are imported."""
BAD: Final = frozenset({"missed", "not shown"})


@click.command("audit")
@click.argument("capture", type=FILE, required=False)
@click.option("--events", type=FILE, metavar="FILE", help="When mail came and went.")
@click.option("--live", is_flag=True, help="Make nodes, and listen to their wires.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=MINUTES_MIN),
    metavar="N",
    help=f"How long to listen [default: {MINUTES:g}].",
)
@click.option("--resume", type=FILE, metavar="FOLDER", help="Keep the pieces there.")
@click.option("--json", "as_json", type=FILE, metavar="FILE", help="Write it as JSON.")
@click.option(
    "--html", "as_html", type=FILE, metavar="FILE", help="Write it as a page."
)
def command(
    capture: Path | None,
    events: Path | None,
    live: bool,
    minutes: float | None,
    resume: Path | None,
    as_json: Path | None,
    as_html: Path | None,
) -> int:
    """Attack a link as its snooper would, and say what came of it.

    CAPTURE is what tcpdump or tshark wrote of one link.  With --live, as root, nodes run
    in network namespaces of their own, with mail and without; for hours of it there is
    scripts/audit.  `mesh help audit` says how to read the table.
    """
    if (capture is None) == (not live):
        raise UsageError("name a capture file, or give --live")
    if live and events:
        raise UsageError("--events belongs to a capture file: leave it out")
    if minutes is not None and not math.isfinite(minutes):
        raise UsageError("--minutes: no number of minutes: give one")
    if not live and (minutes is not None or resume):
        raise UsageError("--minutes and --resume belong to --live: leave them out")
    for file in (as_json, as_html):
        if file and not file.parent.is_dir():  # hours later is no time to say so
            raise CannotCreateError(f"{file.parent}: no such folder: make it")
    _check_extra()
    if capture is not None:
        from mesh.audit.capture import of_capture

        report = of_capture(capture, events)
    else:
        from mesh.audit.suite import live as run

        report = run(MINUTES if minutes is None else minutes, resume, _tell)
    # Without events there is no bound on purpose: then the table is all that is wanted.
    return _give(report, as_json, as_html, is_held=live or events is not None)


def _check_extra() -> None:
    """UnavailableError: what needs the extra cannot be imported."""
    for name in NEEDS:
        if find_spec(name) is None:
            raise UnavailableError(f"no Python package {name}: {EXTRA}")


def _tell(line: str, share: float) -> None:
    click.echo(f"audit: {share:4.0%} {plain(line)}", err=True)


def _give(
    report: "Report", as_json: Path | None, as_html: Path | None, *, is_held: bool
) -> int:
    """Print the table, write the files; the exit code: whether it holds, or is there."""
    from mesh.audit.report import text, written
    from mesh.audit.sheet import sheet

    for line in text(report).splitlines():
        click.echo(plain(line))
    if as_json:
        as_json.write_text(written(report), encoding="utf-8")
    if as_html:
        as_html.write_text(sheet(report), encoding="utf-8")
    verdicts = {figure.verdict for figure in report.figures}
    fine = report.holds if is_held else bool(verdicts) and not BAD & verdicts
    return 0 if fine else 1
