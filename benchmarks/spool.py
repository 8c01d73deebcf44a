# SPDX-License-Identifier: MIT
"""How fast the spool accepts, gives back and forgets, and what that costs the loop.

    python -m benchmarks.spool [--records N] [--sessions N] [--octets N] [--json]

`--sessions` callers each hand in a record, wait for its commit, and hand in the next:
the groups are what gathers, as in the node.  Each record is forgotten when it is
committed.  CPU of the Trio thread is that thread's own clock; "all threads" has the
writer and its kernel time in it.  `turns` is how often a bare Trio task came round
beside this, against how often it does alone: the writer's fight for the lock shows.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.result import Figure, Result, Scale, Tell, single
from mesh.core.crypto import Key, SystemEntropy
from mesh.core.record import NO_ID, Record
from mesh.node.spool import Ref, Spool


@dataclass
class Phase:
    """What one part of the run took."""

    name: str
    records: int
    seconds: float
    loop_cpu: float
    all_cpu: float

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds


class Stopwatch:
    """Wall time, this thread's CPU, everybody's CPU."""

    def __init__(self) -> None:
        self._began = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.perf_counter(), time.thread_time(), time.process_time()

    def phase(self, name: str, records: int) -> Phase:
        """Say what passed since this was made."""
        wall, loop, everybody = (
            after - before
            for after, before in zip(self._now(), self._began, strict=True)
        )
        return Phase(name, records, wall, loop, everybody)


class Load:
    """So many sessions, each with one record under way."""

    def __init__(self, spool: Spool, record: Record, total: int, *, keep: bool) -> None:
        self._spool = spool
        self._record = record
        self._keep = keep
        self.total = total
        self.begun = 0
        self.ended = 0
        self.finished = trio.Event()
        self.refs: list[Ref] = []

    def start(self, sessions: int) -> None:
        """Let every session hand in its first record."""
        for _ in range(sessions):
            self._next()

    def _next(self) -> None:
        if self.begun < self.total:
            self.begun += 1
            self._spool.accept([self._record], self._done)

    def _done(self, refs: Sequence[Ref] | None) -> None:
        if refs is None:
            raise SystemExit("the disk is full")
        if self._keep:
            self.refs += refs
        else:
            self._spool.forget(refs[0])
        self.ended += 1
        if self.ended == self.total:
            self.finished.set()
        self._next()


async def spin(turns: list[int]) -> None:
    """Count how often a task comes round."""
    while True:
        turns[0] += 1
        await trio.lowlevel.checkpoint()


async def watch(load: Load, show: Callable[[int], None]) -> None:
    """Show progress four times a second."""
    while True:
        show(load.ended)
        await trio.sleep(0.25)


async def accept(
    spool: Spool, record: Record, args: argparse.Namespace, *, keep: bool
) -> tuple[Phase, list[Ref]]:
    """Hand in all records and wait for the last commit."""
    load = Load(spool, record, args.records, keep=keep)
    with Progress(console=Console(stderr=True), disable=args.json) as progress:
        task = progress.add_task("keep" if keep else "relay", total=load.total)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                watch, load, lambda ended: progress.update(task, completed=ended)
            )
            watch_ = Stopwatch()
            load.start(args.sessions)
            await load.finished.wait()
            name = "accept" if keep else "accept and forget"
            phase = watch_.phase(name, load.total)
            nursery.cancel_scope.cancel()
    return phase, load.refs


async def turns_beside(
    spool: Spool, record: Record, args: argparse.Namespace
) -> tuple[float, float]:
    """Count turns of a bare task a second, alone and beside the spool at work."""
    rates: list[float] = []
    for busy in (False, True):
        turns = [0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spin, turns)
            began = time.perf_counter()
            if busy:
                load = Load(spool, record, args.records, keep=False)
                load.start(args.sessions)
                await load.finished.wait()
            else:
                await trio.sleep(0.5)
            rates.append(turns[0] / (time.perf_counter() - began))
            nursery.cancel_scope.cancel()
    return rates[0], rates[1]


async def work(path: Path, key: Key, args: argparse.Namespace) -> list[Phase]:
    """Run the phases on a running spool."""
    entropy = SystemEntropy()
    record = Record(
        bytes(16), b"p" * 16, NO_ID, "bravo", "a@alpha.test", ("b@bravo.test",), 0,
        entropy.octets(args.octets),
    )  # fmt: skip
    phases: list[Phase] = []
    spool = Spool.open(path, key, entropy)
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        phases.append((await accept(spool, record, args, keep=False))[0])
        phase, refs = await accept(spool, record, args, keep=True)
        phases.append(phase)
        cold = refs[: min(2000, len(refs) // 2)]
        watch = Stopwatch()
        for at in range(0, len(cold), 64):
            await spool.read(cold[at : at + 64])
        phases.append(watch.phase("read, from the disk if beyond 32 MiB", len(cold)))
        watch = Stopwatch()
        for ref in refs[len(refs) // 2 :]:
            spool.forget(ref)
        phases.append(watch.phase("forget", len(refs) - len(refs) // 2))
        alone, beside = await turns_beside(spool, record, args)
        print(f"turns a second: {alone:,.0f} alone, {beside:,.0f}", file=sys.stderr)
        nursery.cancel_scope.cancel()
    watch = Stopwatch()
    spool = Spool.open(path, key, entropy)
    found = sum(1 for _ in spool.recovered())
    phases.append(watch.phase("open and index", found))
    return phases


def run(scale: Scale, tell: Tell) -> Result:
    """Run the phases for the suite."""
    tell("phases", 0.1)
    args = argparse.Namespace(
        records=scale.of(20_000, 500), sessions=64, octets=10_240, json=True
    )
    with tempfile.TemporaryDirectory(prefix="spool-") as folder:
        key = SystemEntropy().key()
        phases = trio.run(work, Path(folder) / "spool", key, args)
    figures: list[Figure] = []
    for phase in phases:
        loop, everybody = (
            1e6 * cpu / phase.records for cpu in (phase.loop_cpu, phase.all_cpu)
        )
        figures += [
            single(phase.name, "records/s", phase.rate),
            single(f"{phase.name}: CPU of the loop", "us", loop, at_least=False),
            single(f"{phase.name}: CPU", "us", everybody, at_least=False),
        ]
    return Result("spool", "The spool by itself, records of 10 kB", tuple(figures))


def show(phases: list[Phase]) -> None:
    """Print the phases as a table."""
    table = Table("phase", "records", "records/s", "loop us", "all threads us")
    for phase in phases:
        table.add_row(
            phase.name,
            f"{phase.records:,}",
            f"{phase.rate:,.0f}",
            f"{1e6 * phase.loop_cpu / phase.records:.1f}",
            f"{1e6 * phase.all_cpu / phase.records:.1f}",
        )
    Console().print(table)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--octets", type=int, default=10_240)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dir", help="where to make the spool (default: TMPDIR)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spool-", dir=args.dir) as folder:
        key = SystemEntropy().key()
        phases = trio.run(work, Path(folder) / "spool", key, args)
    if args.json:
        print(json.dumps([asdict(phase) for phase in phases]))
    else:
        show(phases)


if __name__ == "__main__":
    main()
