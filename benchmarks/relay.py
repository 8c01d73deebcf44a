# SPDX-License-Identifier: MIT
"""How many messages a second two nodes relay, each hop durable; and rivals beside them.

    smtp-source -> alpha's socket -> spool -> link (greedy) -> spool -> LMTP -> smtp-sink

    python -m benchmarks.relay [--messages N] [--length OCTETS] [--sessions N] [--runs N]
                               [--json]

makes two nodes in a temporary folder, links them on loopback, drives them with Postfix's
smtp-source over kept-open sessions, and waits until bravo's smtp-sink has taken every
message.  Printed: messages a second from the first octet in to the last message out; CPU a
message of each process (user and system), pacers by themselves; peak memory (VmHWM).
Everything is on the disk of TMPDIR, twice.  Messages are counted here.

In the suite (`run`) pairs of Postfix and Exim take turns with ours, A B A B, over the same
driver and sink; each message is looked at (mail.py).  Rivals get fewer messages, so that a
run of each takes about as long.  CPU is of all processes of a pair, source and sink
included, in runs of their own whose sink keeps no copies.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import exim, postfix
from benchmarks.mail import Load, Run, Sink, drive, kind_of
from benchmarks.pairs import Mesh, Pair
from benchmarks.processes import (
    BenchmarkError,
    cpu_seconds,
    peak_mb,
    tree,
)
from benchmarks.result import Chart, Figure, Points, Result, Scale, Series, Tell

PAIRS: Final = ("mesh", "postfix-reuse", "postfix-fresh", "exim")
TITLE: Final = "Durable relay through two nodes, end to end"
CPU_LIMIT_US: Final = 810.0
"""A message of 10 kB: both nodes, source and sink."""
RIVALS_SLOWER: Final = 5
"""Of our messages a rival gets one in so many."""


@dataclass(frozen=True)
class Row:
    """A load, and how many times the best rival's rate ours must be."""

    load: Load
    bound: float


ROWS: Final = (
    Row(Load(10_000), 10),
    Row(Load(10_000, length=1000), 8),
    Row(Load(5000, length=28_000), 8),
    Row(Load(2000, sessions=1), 3),
    Row(Load(10_000, sessions=100), 8),
    Row(Load(5000, kept_open=False), 5),
)
QUICK: Final = 40
"""Messages of a sample, and two from each session."""


# for people who look at one thing


@dataclass
class Summary:
    """One run."""

    messages: int
    length: int
    sessions: int
    seconds: float
    messages_per_second: float
    accepted_per_second: float
    cpu_us: dict[str, float]
    peak_mb: dict[str, float]


def once(load: Load) -> Summary:
    """Make two nodes, drive, measure, clean up."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        folder = Path(name)
        path = folder / "sink.sock"
        with Sink(path, copies=False) as sink, Mesh(folder / "pair", path) as pair:
            drive(pair, sink, replace(load, messages=load.sessions))
            before = _by_process(pair)
            run = drive(pair, sink, load)
            after = _by_process(pair)
            peaks = {name: peak_mb(node.pid) for name, node in pair.nodes.items()}
    cpu = {
        name: (seconds - before[name]) / load.messages * 1e6
        for name, seconds in after.items()
    }
    cpu["source and sink"] = (run.cpu["source"] + run.cpu["sink"]) / load.messages * 1e6
    return Summary(
        load.messages, load.length, load.sessions, run.seconds, run.rate, run.accept_rate,
        cpu, peaks,
    )  # fmt: skip


def _by_process(pair: Mesh) -> dict[str, float]:
    """Give the seconds of each node's main process, and those of both pacers."""
    found = {name: cpu_seconds(node.pid) for name, node in pair.nodes.items()}
    below = (pid for node in pair.nodes.values() for pid in tree([node.pid]))
    mains = {node.pid for node in pair.nodes.values()}
    found["pacers"] = sum(cpu_seconds(pid) for pid in below if pid not in mains)
    return found


# for the suite


@dataclass
class Contestant:
    """A pair that runs, and its two sinks' sockets, of which one is there at a time."""

    pair: Pair
    path: Path
    slower: int


class Arena:
    """Pairs that take turns; one that fails is told of, and not asked again."""

    def __init__(self, folder: Path, *, only: Sequence[str] = ()) -> None:
        self.folder = folder
        self.only = only
        self.notes: list[str] = []
        self.settings: dict[str, str] = {}
        self.there: list[Contestant] = []
        self._kinds: dict[int, bytes] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder.chmod(0o711)  # other users' servers come to the sinks
        with ExitStack() as stack:
            self._add(stack, "mesh", Mesh, 1, must=True)
            if why := postfix.is_there():
                self.notes.append(f"without Postfix: {why}")
            else:
                for reuse in (True, False):
                    key = "reuse" if reuse else "fresh"
                    make = _postfix(reuse=reuse)
                    self._add(stack, f"postfix-{key}", make, RIVALS_SLOWER)
            if why := exim.is_there():
                self.notes.append(f"without Exim: {why}")
            else:
                self._add(stack, "exim", exim.Exim, 2 * RIVALS_SLOWER)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _add(
        self,
        stack: ExitStack,
        key: str,
        make: Callable[[Path, Path], Pair],
        slower: int,
        *,
        must: bool = False,
    ) -> None:
        if self.only and key not in (*self.only, "mesh"):
            return
        path = self.folder / f"{key}.sock"
        try:
            pair = stack.enter_context(make(self.folder / key, path))
        except BenchmarkError as error:
            if must:
                raise
            self.notes.append(str(error))
            return
        self.settings.update(pair.settings)
        self.there.append(Contestant(pair, path, slower))

    def rounds(
        self,
        load: Load,
        count: int,
        done: Callable[[str], None],
        *,
        quick: bool = False,
    ) -> dict[str, list[Run]]:
        """Run a load so many times through each, in turns; by name, ours first."""
        kind = self._kinds.get(load.length) or kind_of(load.length)
        self._kinds[load.length] = kind
        runs: dict[str, list[Run]] = {each.pair.name: [] for each in self.there}
        with ExitStack() as stack:
            sinks = {}
            for each in self.there:
                sink = stack.enter_context(Sink(each.path, copies=load.copies))
                sinks[each.pair.name] = sink
            for number in range(-1, count):  # the first warms up
                order = self.there if number % 2 else self.there[::-1]
                for each in list(order):
                    mine = self._share(each, load, warm=number < 0, quick=quick)
                    done(f"{each.pair.name}: {mine}")
                    run = self._drive(each, sinks[each.pair.name], mine, kind)
                    if number >= 0 and run:
                        runs[each.pair.name].append(run)
        return {name: each for name, each in runs.items() if len(each) == count}

    @staticmethod
    def _share(each: Contestant, load: Load, *, warm: bool, quick: bool) -> Load:
        if warm or quick:
            return replace(load, messages=max(load.sessions, 10 if warm else QUICK))
        return replace(load, messages=max(load.messages // each.slower, load.sessions))

    def _drive(
        self, each: Contestant, sink: Sink, load: Load, kind: bytes
    ) -> Run | None:
        try:
            return drive(each.pair, sink, load, kind)
        except BenchmarkError as error:
            if each.pair.name == Mesh.name:
                raise
            self.notes.append(f"not asked again: {error}")
            self.there.remove(each)
            return None


def _postfix(*, reuse: bool) -> Callable[[Path, Path], postfix.Postfix]:
    return lambda folder, sink: postfix.Postfix(folder, sink, reuse=reuse)


def figure(
    name: str,
    unit: str,
    runs: Mapping[str, Sequence[Run]],
    of: Callable[[Run], float],
    bound: float | None,
    *,
    of_rival: bool = True,
    at_least: bool = True,
) -> Figure:
    """Make a figure of runs by contestant."""
    series = tuple(Series(who, tuple(map(of, each))) for who, each in runs.items())
    return Figure(name, unit, series, bound, of_rival, at_least)


def over_time(runs: Mapping[str, Sequence[Run]]) -> list[Chart]:
    """Draw what the last run of each was like."""
    cpu: dict[str, Points] = {}
    memory: dict[str, Points] = {}
    for name, each in runs.items():
        samples = each[-1].samples
        if len(samples) > 1:
            cpu[name] = [
                (now.at, (now.cpu - then.cpu) / (now.at - then.at))
                for then, now in pairwise(samples)
            ]
            memory[name] = [(now.at, now.memory / 1e6) for now in samples]
    if not cpu:
        return []
    where = f"seconds; {next(iter(runs.values()))[-1].load}"
    return [
        Chart("CPU of both nodes, cores", where, cpu, linear=True),
        Chart(
            "Memory of both nodes that is theirs alone, MB", where, memory, linear=True
        ),
    ]


def run(scale: Scale, tell: Tell) -> Result:
    """Every row, with every rival that is there."""
    rows = ROWS[:1] + ROWS[-1:] if scale.is_quick else ROWS
    figures: list[Figure] = []
    charts: list[Chart] = []
    with (
        tempfile.TemporaryDirectory(prefix="mesh-") as name,
        Arena(Path(name), only=scale.pairs) as arena,
    ):
        turns = (len(rows) + 1) * (scale.rounds + 1) * len(arena.there)
        begun = 0

        def done(line: str) -> None:
            nonlocal begun
            tell(line, begun / turns)
            begun += 1

        def found() -> Result:
            settings, notes = arena.settings, tuple(arena.notes)
            return Result(
                "relay", TITLE, tuple(figures), tuple(charts), settings, notes
            )

        for number, row in enumerate(rows):
            runs = arena.rounds(row.load, scale.rounds, done, quick=scale.is_quick)
            figures.append(
                figure(str(row.load), "messages/s", runs, lambda r: r.rate, row.bound)
            )
            charts += over_time(runs) if number == 0 else []
            scale.found(found())
            if number == 0:  # the one that is asked for most
                load = replace(row.load, copies=False)
                runs = arena.rounds(load, scale.rounds, done, quick=scale.is_quick)
                figures += cpu_figures(load, runs)
                scale.found(found())
        return found()


def cpu_figures(load: Load, runs: Mapping[str, Sequence[Run]]) -> Iterator[Figure]:
    """CPU a message, whole and by part."""
    yield figure(
        f"CPU a message, source and sink included, {load}", "us", runs,
        lambda r: r.cpu_us(), CPU_LIMIT_US, of_rival=False, at_least=False,
    )  # fmt: skip
    for part in ("alpha", "bravo", "source", "sink"):
        yield figure(
            f"of it {part}", "us", runs,
            lambda r, part=part: r.cpu[part] / r.load.messages * 1e6,  # type: ignore[misc]
            None, of_rival=False, at_least=False,
        )  # fmt: skip


def main() -> None:
    """Run as often as asked and print a table or JSON."""
    parser = argparse.ArgumentParser(description="relay through two nodes")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=10_000, help="octets")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    load = Load(args.messages, args.length, args.sessions, copies=False)
    results = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("relay", total=args.runs)
        for _ in range(args.runs):
            results.append(once(load))
            progress.advance(task)
    if args.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    table = Table(
        "run", "msg/s", "accepted/s", *results[0].cpu_us,
        *(f"{n} MB" for n in results[0].peak_mb),
    )  # fmt: skip
    for number, r in enumerate(results, 1):
        table.add_row(
            str(number), f"{r.messages_per_second:.0f}", f"{r.accepted_per_second:.0f}",
            *(f"{v:.0f} us" for v in r.cpu_us.values()),
            *(f"{v:.0f}" for v in r.peak_mb.values()),
        )  # fmt: skip
    rates = [r.messages_per_second for r in results]
    print(
        f"{args.messages} messages of {args.length} octets over {args.sessions} sessions"
    )
    Console().print(table)
    print(
        f"median {statistics.median(rates):.0f} messages/s, {min(rates):.0f} to {max(rates):.0f}"
    )


if __name__ == "__main__":
    main()
