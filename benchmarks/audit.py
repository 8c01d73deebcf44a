# SPDX-License-Identifier: MIT
"""`mesh audit --live` for hours, with a progress bar: see `mesh help audit`.

    python -m benchmarks.audit [--hours H] [--links N] [--folder FOLDER]
                               [--json FILE] [--html FILE]

Without --hours it is as long as the figures that are promised need: with 4 links side by
side some 22 hours, with 18 some 5 and a half.

Pieces and what was found in them stay in FOLDER: a run that was ended (Ctrl-C, SIGTERM)
takes its nodes with it and goes on when it is called again.  One of other hours or links
has other blocks, and wants a folder of its own.  Ends with 0 when each figure with a bound holds, with 130 when it was ended, else 1.
"""

import argparse
import signal
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mesh.audit.report import text, written
from mesh.audit.schedule import whole
from mesh.audit.sheet import sheet
from mesh.audit.suite import live

LINKS = 4
ENDED = 130
"""Exit code of what Ctrl-C has ended, as a shell gives it."""


def main() -> int:
    """Run it, and give its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float)
    parser.add_argument("--links", type=int, default=LINKS, help="side by side")
    parser.add_argument("--folder", type=Path, default=Path("build/audit"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("begins", total=1.0)

        def tell(line: str, share: float) -> None:
            progress.update(task, description=line, completed=share)

        minutes = 60 * args.hours if args.hours else whole(args.links).minutes
        report = None
        try:
            report = live(minutes, args.folder, tell, args.links)
        except* KeyboardInterrupt:  # the prober's, from within a group of tasks, too
            print(f"ended; call it again, and it goes on in {args.folder}")
        if report is None:
            return ENDED
        progress.update(task, description="done", completed=1.0)
    print(text(report), end="")
    if args.json:
        args.json.write_text(written(report), encoding="utf-8")
    if args.html:
        args.html.write_text(sheet(report), encoding="utf-8")
    return 0 if report.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
