# SPDX-License-Identifier: MIT
"""What becomes of the rate and of CPU as messages grow, to 20 MB; Postfix beside ours.

The same pairs, driver and sink as relay.py, in turns.  Of each length so many messages as
have OCTETS together, over 20 sessions.
"""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.mail import Load, Run
from benchmarks.relay import Arena, figure
from benchmarks.result import Chart, Figure, Result, Scale, Tell

TITLE: Final = "Message size"
LENGTHS: Final = (1000, 10_000, 100_000, 1_000_000, 10_000_000, 20_000_000)
OCTETS: Final = 200_000_000
MESSAGES_MAX: Final = 5000
SESSIONS: Final = 20
ONLY: Final = ("mesh", "postfix-reuse")


def load_of(length: int) -> Load:
    """So many messages of a length."""
    count = max(SESSIONS, min(MESSAGES_MAX, OCTETS // length))
    return Load(count, length, SESSIONS)


def run(scale: Scale, tell: Tell) -> Result:
    """Every length."""
    lengths = LENGTHS[:3:2] if scale.is_quick else LENGTHS
    rounds = min(scale.rounds, 3)
    figures: list[Figure] = []
    curves: list[dict[str, list[tuple[float, float]]]] = [{}, {}, {}]
    with (
        tempfile.TemporaryDirectory(prefix="mesh-") as name,
        Arena(Path(name), only=ONLY) as arena,
    ):
        for number, length in enumerate(lengths):

            def done(line: str, number: int = number) -> None:
                tell(line, number / len(lengths))

            runs = arena.rounds(load_of(length), rounds, done, quick=scale.is_quick)
            title = f"{length / 1000:g} kB"
            made = [
                figure(title, "messages/s", runs, lambda r: r.rate, None),
                figure(title, "MB/s", runs, _megabytes, None),
                figure(
                    title, "CPU us a kB", runs, _cpu, None,
                    of_rival=False, at_least=False,
                ),
            ]  # fmt: skip
            figures += made
            for each, shown in zip(made, curves, strict=True):
                for series in each.series:
                    shown.setdefault(series.name, []).append((length, series.median))
    titles = ("Messages a second", "MB a second", "CPU of both nodes, us a kB")
    charts = tuple(
        Chart(title, "octets a message", shown, logarithmic=True)
        for title, shown in zip(titles, curves, strict=True)
    )
    return Result(
        "growth", TITLE, tuple(figures), charts, arena.settings, tuple(arena.notes)
    )


def _megabytes(run: Run) -> float:
    return run.rate * run.load.length / 1e6


def _cpu(run: Run) -> float:
    return run.cpu_us(ends=False) / (run.load.length / 1000)
