# SPDX-License-Identifier: MIT
"""Where the time of one message goes: each stage by itself, and what it runs against.

    python -m benchmarks.stages [--messages N] [--length OCTETS] [--rounds N]

prints the tables of `mesh help performance` for this machine: microseconds of CPU of one
message, the stages in its order (steps.py: the product's own parts, real files and
sockets), and beside each the limit that it runs against (floors.py).  Once for
messages that come AT_ONCE at a time, once for one that comes alone.  What is indented is a
part of the line above it and is not added again.

Below the sum stands what whole nodes need in the same run, as relay.py measures it.  The
difference is what no stage has: the event loop and its wake-ups, gossip, what the parts
cost each other in the processor's caches.  Without Postfix's smtp-source there is no such
line.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio
from rich.console import Console
from rich.progress import Progress

from benchmarks import floors, mail, relay
from benchmarks.cost import QUIET_SECONDS, Cost, Load
from benchmarks.processes import BenchmarkError
from benchmarks.result import Chart, Figure, Result, Scale, Series, Tell
from benchmarks.steps import measured, stored
from mesh.core.cell import BODY_LEN, CELL_LEN
from mesh.core.record import HEAD_LEN, sealed_len

TITLE: Final = "Where the time of one message goes"
AT_ONCE: Final = 20
LENGTH: Final = 10_000
BATCHES: Final = (1, 2, 5, 10, 20, 50)
NODES: Final = ("alpha", "bravo")
Found = Mapping[str, Cost]


@dataclass(frozen=True)
class Stage:
    """One of them: its name, its step or steps, what it runs against."""

    name: str
    steps: tuple[str, ...]
    floor: str = ""
    waits: bool = False
    """For the disk: its wall time is told, too."""
    part: bool = False
    """Of the stage above."""

    def cost(self, found: Found) -> Cost:
        """Of its steps together."""
        costs = [found[step] for step in self.steps]
        return Cost(sum(c.cpu for c in costs), sum(c.wall for c in costs))


_ACCEPT: Final = (
    Stage("of it: seal the record", ("seal",), "AEAD", part=True),
    Stage("of it: insert and commit", ("insert",), "SQLite", waits=True, part=True),
)
STAGES: Final[Mapping[str, tuple[Stage, ...]]] = {
    "alpha": (
        Stage("local socket: read, parse, reply", ("entry",), "4 reads, 4 replies"),
        Stage("accept: route, store", ("first accept",), "both below", waits=True),
        *_ACCEPT,
        Stage("message into cells", ("link pack",)),
        Stage("seal cells", ("link seal",), "AEAD, cells"),
        Stage("send cells", ("link send",), "kernel, send"),
        Stage(
            "replies: read, open, parse",
            ("replies receive", "replies open", "replies parse"),
        ),
        Stage("settle", ("first deliver",)),
        Stage("forget: key, row, WAL", ("first forget",)),
    ),
    "bravo": (
        Stage("read cells", ("link receive",), "kernel, read"),
        Stage("open cells", ("link open",), "AEAD, cells"),
        Stage("streams, dialogue, answer", ("link parse",)),
        Stage("accept: route, store", ("second accept",), "both above", waits=True),
        Stage(
            "replies: into cells, seal, send",
            ("replies pack", "replies seal", "replies send"),
        ),
        Stage("LMTP out, settle", ("second deliver",)),
        Stage("forget: key, row, WAL", ("second forget",)),
    ),
}


@dataclass(frozen=True)
class Floor:
    """What a stage runs against: CPU of a message, and the disk's wall time."""

    cpu: float
    wall: float = 0.0


def floors_of(load: Load) -> dict[str, Floor]:
    """Measure the limits, for messages of this kind."""
    body = sealed_len(load.length)
    octets = load.at_once * (HEAD_LEN + body)
    cells = -(-load.length // BODY_LEN)
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        insert = floors.insert(Path(name), octets) / load.at_once
        sync = floors.sync(Path(name), octets) / load.at_once
    send, read = (
        us / load.at_once for us in floors.tcp(load.at_once * cells * CELL_LEN)
    )
    block = floors.aead(CELL_LEN)
    record = block * (body + HEAD_LEN) / CELL_LEN
    return {
        "4 reads, 4 replies": Floor(4 * floors.calls()),
        "AEAD": Floor(record),
        "SQLite": Floor(insert, sync),
        "both below": Floor(record + insert, sync),
        "both above": Floor(record + insert, sync),
        "AEAD, cells": Floor(block * cells),
        "kernel, send": Floor(send),
        "kernel, read": Floor(read),
    }


@dataclass(frozen=True)
class Round:
    """All that one round found, of one load."""

    found: Found
    floor: Mapping[str, Floor]
    whole: Mapping[str, float]
    """CPU a message of each node, whole; empty: nobody could drive them."""

    def sum(self, node: str) -> float:
        """CPU of a node's stages."""
        stages = (each for each in STAGES[node] if not each.part)
        return sum(each.cost(self.found).cpu for each in stages)


def whole(load: Load, messages: int) -> dict[str, float]:
    """Drive two whole nodes; CPU a message of each."""
    told = relay.once(mail.Load(messages, load.length, load.at_once, copies=False))
    return {node: told.cpu_us[node] for node in NODES}


def once(load: Load, messages: int) -> tuple[Round, str]:
    """Take one round, whole nodes with so many messages; and why there are none."""
    found, floor = measured(load), floors_of(load)
    try:
        return Round(found, floor, whole(load, messages)), ""
    except (BenchmarkError, SystemExit, OSError) as error:
        return Round(found, floor, {}), f"without whole nodes: {error}"


# figures


def said(load: Load) -> str:
    """Say how they come."""
    return "alone" if load.at_once == 1 else f"{load.at_once} at once"


def figures(load: Load, rounds: Sequence[Round]) -> list[Figure]:
    """Each stage's, the sum's, and those of whole nodes."""
    made = []
    for node, stages in STAGES.items():
        for stage in stages:
            name = f"{node}: {stage.name}, {said(load)}"
            made.append(_figure(name, "us CPU", stage, rounds, "cpu"))
            if stage.waits:
                made.append(_figure(name, "us wall", stage, rounds, "wall"))
        sums = tuple(each.sum(node) for each in rounds)
        series = [Series("mesh", sums)]
        if all(each.whole for each in rounds):
            series.append(Series("whole node", tuple(r.whole[node] for r in rounds)))
        name = f"{node}: all stages, {said(load)}"
        made.append(Figure(name, "us CPU", tuple(series), at_least=False))
    return made


def _figure(
    name: str, unit: str, stage: Stage, rounds: Sequence[Round], clock: str
) -> Figure:
    ours = tuple(getattr(stage.cost(each.found), clock) for each in rounds)
    series = [Series("mesh", ours)]
    if stage.floor:
        limits = tuple(getattr(each.floor[stage.floor], clock) for each in rounds)
        series.append(Series("limit", limits))
    return Figure(name, unit, tuple(series), at_least=False)


def batches(loads: Sequence[Load]) -> Chart:
    """What an accept costs by how many share its commit."""
    cpu, wall, sync = [], [], []
    for load in loads:
        at_once = load.at_once
        with tempfile.TemporaryDirectory(prefix="mesh-") as name:
            cost = trio.run(stored, Path(name), load, True)["accept"]
            octets = at_once * (HEAD_LEN + sealed_len(load.length))
            us = floors.sync(Path(name), octets)
        cpu.append((float(at_once), cost.cpu))
        wall.append((float(at_once), cost.wall))
        sync.append((float(at_once), us / at_once))
    return Chart(
        "An accept, us a message, by how many share its commit", "messages at once",
        {"CPU": cpu, "wall": wall}, {"fdatasync alone": sync}, logarithmic=True,
    )  # fmt: skip


def run(scale: Scale, tell: Tell) -> Result:
    """Measure for the suite."""
    quiet = 0.1 if scale.is_quick else QUIET_SECONDS
    loads = (
        (Load(scale.of(2000, AT_ONCE), LENGTH, AT_ONCE, quiet), scale.of(4000, 40)),
        (Load(scale.of(400, 2), LENGTH, 1, quiet), scale.of(500, 10)),
    )
    made: list[Figure] = []
    notes: dict[str, None] = {}
    turns, turn = len(loads) * scale.rounds + 1, 0
    for load, messages in loads:
        rounds = []
        for number in range(scale.rounds):
            tell(f"{said(load)}, round {number + 1}", turn / turns)
            each, note = once(load, messages)
            rounds.append(each)
            notes |= {note: None} if note else {}
            turn += 1
        made += figures(load, rounds)
    tell("accepts by how many share a commit", turn / turns)
    chart = batches(
        [
            Load(scale.of(1000, at_once), LENGTH, at_once, 0.0)
            for at_once in scale.of_each(BATCHES, BATCHES[::4])
        ]
    )
    notes |= dict.fromkeys(READING)
    return Result("stages", TITLE, tuple(made), (chart,), {}, tuple(notes))


READING: Final = (
    "limit: what the stage runs against, measured in the same round: a write and a read of "
    "a short reply on a local socket; ChaCha20-Poly1305, 4 KiB a call and a key; a bare "
    "insert of as many octets into SQLite, and, of wall time, one fdatasync of them; one "
    "send and read of as many cells over loopback",
    "'of it' is a part of the stage above; 'whole node' is what the nodes of relay need, "
    "the event loop and all",
)


# for people, and for the handbook's page


def table(load: Load, rounds: Sequence[Round]) -> list[str]:
    """Print as `mesh help performance` has it: 92 columns at most."""
    head = f"{load.length:,} octets, {said(load)}"
    lines = [
        f"{head:<35}{'CPU us':>7}{'wall us':>8}{'limit us':>9}  what it runs against"
    ]

    def line(name: str, *values: float, what: str = "") -> None:
        cells = "".join(
            f"{'' if value < 0 else f'{value:,.0f}':>{width}}"
            for value, width in zip(values, (7, 8, 9), strict=True)
        )
        lines.append(f"{name:<35}{cells}  {what}".rstrip())

    for node, stages in STAGES.items():
        lines.append(node)
        for stage in stages:
            costs = [stage.cost(each.found) for each in rounds]
            cpu = statistics.median(cost.cpu for cost in costs)
            wall = statistics.median(cost.wall for cost in costs) if stage.waits else -1
            limit, what = -1.0, stage.floor
            if what:
                limit = statistics.median(each.floor[what].cpu for each in rounds)
            if stage.waits and stage.part:
                sync = statistics.median(each.floor[what].wall for each in rounds)
                what = f"{what}; fdatasync {sync:,.0f}"
            indent = "    " if stage.part else "  "
            line(indent + stage.name, cpu, wall, limit, what=what)
        line("  all stages", statistics.median(e.sum(node) for e in rounds), -1, -1)
        if all(each.whole for each in rounds):
            both = statistics.median(each.whole[node] for each in rounds)
            rest = statistics.median(e.whole[node] - e.sum(node) for e in rounds)
            line("  the whole node", both, -1, -1, what=f"{rest:,.0f} are of no stage")
    return lines


def limits() -> list[str]:
    """Say what the machine can do."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        sync = floors.sync(Path(name), CELL_LEN)
    block = floors.aead(CELL_LEN)
    return [
        f"fdatasync of 4 KiB                  {sync:8,.0f} us {1e6 / sync:12,.0f} a second",
        f"ChaCha20-Poly1305, 4 KiB            {block:8.1f} us "
        f"{CELL_LEN / block:12,.0f} MB/s a core",
        f"a write and a read of a reply       {floors.calls():8.1f} us",
    ]


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--messages", type=int, default=2000, help="a fifth of it alone"
    )
    parser.add_argument("--length", type=int, default=LENGTH, help="octets")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    loads = (
        Load(args.messages, args.length, AT_ONCE),
        Load(max(1, args.messages // 5), args.length, 1),
    )
    told: list[str] = []
    notes: dict[str, None] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("stages", total=len(loads) * args.rounds)
        for load in loads:
            rounds = []
            for _ in range(args.rounds):
                each, note = once(load, load.count)
                rounds.append(each)
                notes |= {note: None} if note else {}
                progress.advance(task)
            told += [*table(load, rounds), ""]
    print("\n".join([*told, *limits(), *notes]))


if __name__ == "__main__":
    main()
