# SPDX-License-Identifier: MIT
"""What share of a `renewal` link's cells at class 4,096 carries mail under full load.

    alpha's spool, full -> link, 4,096 cells/s -> bravo's spool -> LMTP -> smtp-sink

Messages are handed to alpha alone; then bravo comes, and the link has mail for as long as
there is any.  Cells are the octets that alpha's end of the connection has sent (TCP's own
count, by `ss`), by 4,096; nothing of ours counts which of them carry mail, and nothing
may.  So the share is octets of messages that the sink took, by 4,080 a cell that was sent:

    whole     from the link's first cell until the last message is at the sink: from
              below, for handshake, begin and end count as padding
    middle    between two moments: without begin and end, and off by what is on its way at
              one of them and not at the other, which is up to 32 messages; so it is told
             only where these are less than a hundredth of what was counted

Envelopes and what is left free in a cell count as padding in both.  Every message must be
at the sink once and whole.

    python -m benchmarks.share [--rate CELLS] [--seconds S] [--length OCTETS] [--rounds N]
                               [--untried]

Few seconds say little: what is not mail at the begin and the end is some 30 cells.
A node takes a fast class only on a host whose best wake-ups are in time: here it is asked
some times, then the suite measures without that trial (untried.py), with a note of what
the node said.  The cells are then late, and as many.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from benchmarks.mail import Load, Sink, common, source, untouched
from benchmarks.pairs import Link, Mesh
from benchmarks.processes import MESH, BenchmarkError, tool
from benchmarks.result import Figure, Result, Scale, Series, Tell
from mesh.core.cell import BODY_LEN, CELL_LEN, STREAMS_MAX

TITLE: Final = "Cells of a renewal link at class 4,096 that carry mail"
RATE: Final = 4096
QUICK_RATE: Final = 64
"""A sample's: a busy host is refused more."""
BOUND: Final = 0.95
LENGTHS: Final = (28_000, 100_000, 1_000_000)
SECONDS: Final = 24
"""Of the link, in each round."""
QUICK_SECONDS: Final = 12
UNSURE: Final = 0.01
"""Of the middle's octets: what may be on its way at one of its ends."""
ON_THEIR_WAY: Final = STREAMS_MAX
TRIES: Final = 10
REST_SECONDS: Final = 2.0
"""Between two starts of a node that finds its host too busy."""
TOO_BUSY: Final = "this host wakes"
TRIED: Final = (MESH,)
UNTRIED: Final = (sys.executable, "-m", "benchmarks.untried")
ALL_THE_SAME: Final = "measured without the trial: cells leave late here"
FIRST: Final = 0.15
LAST: Final = 0.85
"""Of the messages: between them the link is looked at."""
STALL_SECONDS: Final = 120.0
STEP_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Moment:
    """What there was, at once."""

    at: float
    octets: int
    taken: int


def sent(said: str) -> dict[str, int]:
    """Read the octets that sockets have sent, by their ends, from what `ss -ti` says."""
    found = re.findall(r"(\S+:\d+\s+\S+:\d+)[^:]*\n\s.*?\bbytes_sent:(\d+)", said)
    return {" ".join(ends.split()): int(octets) for ends, octets in found}


class Counted:
    """All that alpha's end of a link has sent, on whichever connections.

    Two nodes that dial each other have two for a moment, and the one that ends has carried
    mail.  What it sent after the last look is taken to be cells of the class for as long
    as lies between two looks: so rather too much is counted than too little.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most: dict[str, int] = {}
        self._there: dict[str, float] = {}
        self._unseen = 0.0

    def look(self, said: dict[str, int], now: float) -> None:
        """Take in what sockets have sent by now."""
        for ends in set(self._there) - set(said):
            self._unseen += (now - self._there.pop(ends)) * self._rate * CELL_LEN
        self._most.update(said)
        self._there.update(dict.fromkeys(said, now))

    @property
    def octets(self) -> int:
        """Sent so far."""
        return sum(self._most.values()) + round(self._unseen)


class Watch:
    """Looks at a link and at the sink."""

    def __init__(self, pair: Mesh, sink: Sink, rate: float) -> None:
        alpha, bravo = pair.ports
        self._ends = f"( dport = :{bravo} or sport = :{alpha} )"
        self._sink, self._counted = sink, Counted(rate)

    def look(self) -> Moment:
        """How far both are."""
        done = subprocess.run(
            [tool("ss"), "-tinH", "state", "established", self._ends],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        now = time.monotonic()
        self._counted.look(sent(done.stdout), now)
        return Moment(now, self._counted.octets, self._sink.taken)

    def until(self, count: float) -> Moment:
        """Look until so many messages have come."""
        now = self.look()
        had, since = now.taken, now.at
        while now.taken < count:
            time.sleep(STEP_SECONDS)
            now = self.look()
            if now.taken > had:
                had, since = now.taken, now.at
            if now.at > since + STALL_SECONDS:
                raise BenchmarkError(
                    f"{had} messages came, and no other for {STALL_SECONDS:.0f} s"
                )
        return now


def share(first: Moment, last: Moment, length: int) -> float:
    """Give what part of the cells' bodies messages of that length were."""
    cells = (last.octets - first.octets) / CELL_LEN
    return (last.taken - first.taken) * length / (cells * BODY_LEN)


@dataclass(frozen=True)
class Flow:
    """What one round gave."""

    whole: float
    middle: float | None
    """None: what is on its way would be too large a part of it."""
    cells_a_second: float


def once(
    folder: Path, length: int, messages: int, link: Link, program: Sequence[str]
) -> Flow:
    """Fill, and let it flow."""
    path = folder / "sink.sock"
    whole = untouched(length)
    pair = Mesh(folder / "pair", path, link, program)
    try:
        begin_node(pair, "alpha")
        load = Load(messages, length, min(20, messages))
        subprocess.run(source(pair.entry, load), check=True, stdout=subprocess.DEVNULL)
        with Sink(path, copies=True) as sink:
            begin_node(pair, "bravo")
            watch = Watch(pair, sink, float(link["cells_per_second"]))
            first = watch.until(FIRST * messages)
            last = watch.until(LAST * messages)
            end = watch.until(messages)
            sink.wait(messages)
            if wrong := sink.collect().mistake(messages, common(whole)):
                raise BenchmarkError(wrong)
    finally:
        pair.close()
    seconds = max(last.at - first.at, 1e-9)
    rate = (last.octets - first.octets) / CELL_LEN / seconds
    octets = len(whole) + whole.count(b"\n") + 2  # CRLF, and the last line's
    begin = Moment(0.0, 0, 0)
    middle = share(first, last, octets) if is_sure(first, last) else None
    return Flow(share(begin, end, octets), middle, rate)


def is_sure(first: Moment, last: Moment) -> bool:
    """Whether what may have been on its way is little of what came between."""
    return min(ON_THEIR_WAY, last.taken) <= UNSURE * (last.taken - first.taken)


def begin_node(pair: Mesh, name: str) -> None:
    """Start a node; again when it finds the host too busy for its class just then."""
    for left in range(TRIES - 1, -1, -1):
        try:
            pair.start_nodes(name)
            return
        except BenchmarkError as error:
            if not left or TOO_BUSY not in str(error):
                raise
        time.sleep(REST_SECONDS)


def messages_of(rate: int, seconds: float, length: int) -> int:
    """Count the messages that fill a link for so long."""
    return max(1, round(rate * seconds * BODY_LEN / length))


def run(scale: Scale, tell: Tell) -> Result:
    """Each length, so many times; without the trial where the host does not pass it."""
    try:
        return _with(TRIED, scale, tell)
    except BenchmarkError as error:
        if TOO_BUSY not in str(error):
            raise
        found = _with(UNTRIED, scale, tell)
        return replace(found, notes=(f"{error}", ALL_THE_SAME))


def _with(program: Sequence[str], scale: Scale, tell: Tell) -> Result:
    """Each length, so many times, by nodes of that program."""
    rate = scale.of(RATE, QUICK_RATE)
    lengths = LENGTHS[:1] if scale.is_quick else LENGTHS
    link = {"cells_per_second": str(rate)}
    figures: list[Figure] = []
    for number, length in enumerate(lengths):
        flows = []
        for turn in range(scale.rounds):
            done = (number + turn / scale.rounds) / len(lengths)
            tell(f"{length / 1000:g} kB, round {turn + 1}", done)
            with tempfile.TemporaryDirectory(prefix="mesh-") as name:
                seconds = scale.of(SECONDS, QUICK_SECONDS)
                count = messages_of(rate, seconds, length)
                flows.append(once(Path(name), length, count, link, program))
        name = f"messages of {length / 1000:g} kB, {rate:,} cells/s"
        rates = [flow.cells_a_second for flow in flows]
        middles = [flow.middle for flow in flows if flow.middle is not None]
        figures.append(
            _figure(f"whole, {name}", "share", [f.whole for f in flows], BOUND)
        )
        if middles:
            figures.append(_figure(f"middle, {name}", "share", middles))
        figures.append(_figure(f"cells sent, {name}", "cells/s", rates))
    return Result("share", TITLE, tuple(figures), settings=link)


def _figure(
    name: str, unit: str, values: list[float], bound: float | None = None
) -> Figure:
    return Figure(name, unit, (Series("mesh", tuple(values)),), bound)


def main() -> None:
    """Measure one length and rate, and print each round."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--rate", type=int, default=RATE, help="cells a second")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the link")
    parser.add_argument("--length", type=int, default=LENGTHS[0], help="octets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--untried", action="store_true", help="even where the host wakes too late"
    )
    args = parser.parse_args()
    program = UNTRIED if args.untried else TRIED
    count = messages_of(args.rate, args.seconds, args.length)
    print(f"{count} messages of {args.length} octets at {args.rate} cells/s")
    wholes = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for turn in progress.track(range(args.rounds), description="share"):
            with tempfile.TemporaryDirectory(prefix="mesh-") as name:
                link = {"cells_per_second": str(args.rate)}
                try:
                    flow = once(Path(name), args.length, count, link, program)
                except BenchmarkError as error:
                    raise SystemExit(f"share: {error}") from error
            wholes.append(flow.whole)
            middle = "-" if flow.middle is None else f"{flow.middle:.3f}"
            print(
                f"round {turn + 1}: whole {flow.whole:.3f}, middle {middle}, "
                f"{flow.cells_a_second:.1f} cells/s"
            )
    print(f"median {statistics.median(wholes):.3f}, wanted {BOUND}")


if __name__ == "__main__":
    main()
