# SPDX-License-Identifier: MIT
"""What becomes of the rate and of CPU as messages grow to 20 MB, and with recipients.

The same pairs, driver and sink as relay.py, in turns; Postfix with reuse beside ours.  Of
each length so many messages as have OCTETS together, over 20 sessions.  Recipients are of
one domain, of messages of 10 kB; with more than 40 a message of ours has two records.
"""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.mail import Load, Run
from benchmarks.relay import Arena, figure
from benchmarks.result import Chart, Figure, Result, Scale, Tell

TITLE: Final = "Message size, and recipients"
LENGTHS: Final = (1000, 10_000, 100_000, 1_000_000, 10_000_000, 20_000_000)
OCTETS: Final = 200_000_000
MESSAGES_MAX: Final = 5000
RECIPIENTS: Final = (1, 2, 5, 10, 20, 40)
SESSIONS: Final = 20
ONLY: Final = ("mesh", "postfix-reuse")


def load_of(length: int) -> Load:
    """So many messages of a length."""
    count = max(SESSIONS, min(MESSAGES_MAX, OCTETS // length))
    return Load(count, length, SESSIONS)


class Growth:
    """Figures of loads that grow, and what is drawn of them."""

    def __init__(self, *titles: str) -> None:
        self.figures: list[Figure] = []
        self._curves: dict[str, dict[str, list[tuple[float, float]]]] = {
            title: {} for title in titles
        }

    def add(self, across: float, *figures: Figure) -> None:
        """One load's figures, one for each title."""
        self.figures += figures
        for curves, each in zip(self._curves.values(), figures, strict=True):
            for series in each.series:
                curves.setdefault(series.name, []).append((across, series.median))

    def charts(self, across: str) -> tuple[Chart, ...]:
        """Draw them."""
        return tuple(
            Chart(title, across, curves, logarithmic=True)
            for title, curves in self._curves.items()
            if curves
        )


def run(scale: Scale, tell: Tell) -> Result:
    """Every length, then every number of recipients."""
    lengths = scale.of_each(LENGTHS, LENGTHS[:3:2])
    counts = scale.of_each(RECIPIENTS, RECIPIENTS[2:3])
    rounds = min(scale.rounds, 3)
    only = [key for key in ONLY if key in (scale.pairs or ONLY) or key == ONLY[0]]
    sizes = Growth("Messages a second", "MB a second", "CPU of both nodes, us a kB")
    several = Growth("Recipients a second", "CPU of both nodes, us a message")
    begun = 0

    def done(line: str) -> None:
        nonlocal begun
        turns = (len(lengths) + len(counts)) * (rounds + 1) * len(only)
        tell(line, begun / turns)
        begun += 1

    with (
        tempfile.TemporaryDirectory(prefix="mesh-") as name,
        Arena(Path(name), only=only) as arena,
    ):

        def found() -> Result:
            charts = (*sizes.charts("octets a message"), *several.charts("recipients"))
            figures = (*sizes.figures, *several.figures)
            settings, notes = arena.settings, tuple(arena.notes)
            return Result("growth", TITLE, figures, charts, settings, notes)

        for length in lengths:
            load = load_of(length)
            runs = arena.rounds(load, rounds, done, quick=scale.is_quick)
            cpu = figure(
                str(load), "CPU us a kB", runs, _cpu_of_kb, None, of_rival=False,
                at_least=False,
            )  # fmt: skip
            sizes.add(
                length,
                figure(str(load), "messages/s", runs, lambda r: r.rate, None),
                figure(str(load), "MB/s", runs, _megabytes, None),
                cpu,
            )
            scale.found(found())
        for count in counts:
            load = Load(MESSAGES_MAX // 2, recipients=count)
            runs = arena.rounds(load, rounds, done, quick=scale.is_quick)
            cpu = figure(
                str(load), "CPU us a message", runs, _cpu, None, of_rival=False,
                at_least=False,
            )  # fmt: skip
            rate = figure(str(load), "recipients/s", runs, _recipients, None)
            several.add(count, rate, cpu)
            scale.found(found())
        return found()


def _megabytes(run: Run) -> float:
    return run.rate * run.load.length / 1e6


def _recipients(run: Run) -> float:
    return run.rate * run.load.recipients


def _cpu(run: Run) -> float:
    return run.cpu_us(ends=False)


def _cpu_of_kb(run: Run) -> float:
    return run.cpu_us(ends=False) / (run.load.length / 1000)
