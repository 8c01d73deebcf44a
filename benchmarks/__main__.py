# SPDX-License-Identifier: MIT
"""The whole suite: how fast ours is, beside rivals on the same machine.

    python -m benchmarks [--only NAME,...] [--quick] [--rounds N] [--pairs PAIR,...]
                         [--json FILE] [--html FILE]

Prints a table a part, and writes JSON (benchmarks/schema.json) and one HTML page with
plots: after each part, and each row of a long one, what there is.  So a run that is ended
(Ctrl-C, SIGTERM) has what it has, and prints it.  `--quick` takes a few messages of each:
it shows that all works, and its figures mean nothing.  Rivals are those that
scripts/rivals has brought; without one, or without being root, the report says what is
not in it.  Ends with 1 when a part failed.  `--help` says how long each part takes.
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.relay import PAIRS
from benchmarks.result import Report, Scale, written
from benchmarks.sheet import sheet
from benchmarks.show import show
from benchmarks.suite import MINUTES, PARTS, suite

ROUNDS: Final = 5
WIDTH: Final = 180


def parsed() -> argparse.Namespace:
    """Read the command line."""
    listed = "\n".join(
        f"  {name:10} {MINUTES[name]:3} min  {what}" for name, what in PARTS.items()
    )
    whole = sum(MINUTES.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"parts, in their order; {whole} minutes in all, at {ROUNDS} rounds on two "
        f"idle cores:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(PARTS), metavar="NAME,...")
    parser.add_argument("--quick", action="store_true", help="a sample, in seconds")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}; quick: 1")
    parser.add_argument(
        "--pairs", default=",".join(PAIRS), metavar="PAIR,...",
        help=f"of {', '.join(PAIRS)}; ours is always there",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--html", type=Path, metavar="FILE")
    args = parser.parse_args()
    args.only, args.pairs = args.only.split(","), args.pairs.split(",")
    if unknown := {*args.only, *args.pairs} - {*PARTS, *PAIRS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; see --help")
    return args


def main() -> int:
    """Run it, and give its exit code."""
    args = parsed()
    # What was started is ended by the blocks that this goes through.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rounds = args.rounds or (1 if args.quick else ROUNDS)
    scale = Scale(args.quick, rounds, tuple(args.pairs))
    latest: list[Report] = []
    if not args.quick:
        minutes = sum(MINUTES[name] for name in args.only) * rounds / ROUNDS
        print(f"about {max(1, round(minutes))} minutes", file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {
            name: progress.add_task(name, total=1.0, start=False) for name in args.only
        }

        def tell(name: str, line: str, share: float) -> None:
            if share == 0:
                progress.start_task(tasks[name])
            said = f"{name}: {line}"
            progress.update(tasks[name], description=said, completed=share)

        def keep(report: Report) -> None:
            latest[:] = [report]
            if args.json:
                args.json.write_text(written(report), encoding="utf-8")
            if args.html:
                args.html.write_text(sheet(report), encoding="utf-8")

        is_ended = False
        try:
            latest[:] = [suite(args.only, scale, tell, keep)]
        except KeyboardInterrupt:
            is_ended = True
    for report in latest:
        show(report, Console(width=WIDTH))
    if is_ended:
        return 128 + signal.SIGINT
    return 1 if any(report.failed for report in latest) else 0


if __name__ == "__main__":
    raise SystemExit(main())
