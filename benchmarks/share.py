# SPDX-License-Identifier: MIT
"""What share of a `renewal` link's cells at class 4,096 carries mail under full load.

    alpha's spool, full -> link, 4,096 cells/s -> bravo's spool -> LMTP -> smtp-sink

Messages are handed to alpha alone; then bravo comes, and the link has mail for as long as
there is any.  Cells are the octets that alpha's end of the connection has sent (TCP's own
count, by `ss`), by 4,096; nothing of ours counts which of them carry mail, and nothing
may.  So the share is octets of messages that the sink took, by 4,080 a cell that was sent:

    whole     from the connection's first cell until the last message is at the sink: from
              below, for handshake, begin and end count as padding
    middle    between two moments: without begin and end, and off by what is on its way at
              one of them and not at the other, which is up to 32 messages

Envelopes and what is left free in a cell count as padding in both.  Every message must be
at the sink once and whole.
"""

import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.mail import Load, Sink, common, source, untouched
from benchmarks.pairs import Link, Mesh
from benchmarks.processes import BenchmarkError, tool
from benchmarks.result import Figure, Result, Scale, Series, Tell
from mesh.core.cell import BODY_LEN, CELL_LEN

TITLE: Final = "Cells of a renewal link at class 4,096 that carry mail"
RATE: Final = 4096
QUICK_RATE: Final = 64
"""A sample's: a busy host is refused more."""
BOUND: Final = 0.95
LENGTHS: Final = (28_000, 100_000, 1_000_000)
OCTETS: Final = 400_000_000
"""Of each round: 24 s of the link."""
FIRST: Final = 0.15
LAST: Final = 0.85
"""Of the messages: between them the link is looked at."""
STALL_SECONDS: Final = 120.0
STEP_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Moment:
    """What there was, at once."""

    at: float
    octets: int
    taken: int


def sent(said: str) -> list[int]:
    """Read the octets that sockets have sent, from what `ss -ti` says."""
    return [int(each) for each in re.findall(r"\bbytes_sent:(\d+)", said)]


def moment(pair: Mesh, sink: Sink) -> Moment:
    """Look at the link and at the sink."""
    alpha, bravo = pair.ports
    ends = f"( dport = :{bravo} or sport = :{alpha} )"
    done = subprocess.run(
        [tool("ss"), "-tinH", ends], check=True, capture_output=True, text=True
    )
    octets = sent(done.stdout)
    if len(octets) != 1:
        raise BenchmarkError(f"{len(octets)} connections where one link is")
    return Moment(time.monotonic(), octets[0], sink.taken)


def share(first: Moment, last: Moment, length: int) -> float:
    """Give what part of the cells' bodies messages of that length were."""
    cells = (last.octets - first.octets) / CELL_LEN
    return (last.taken - first.taken) * length / (cells * BODY_LEN)


@dataclass(frozen=True)
class Flow:
    """What one round gave."""

    whole: float
    middle: float
    cells_a_second: float


def once(folder: Path, length: int, messages: int, link: Link) -> Flow:
    """Fill, and let it flow."""
    path = folder / "sink.sock"
    whole = untouched(length)
    pair = Mesh(folder / "pair", path, link)
    try:
        pair.start_nodes("alpha")
        load = Load(messages, length, min(20, messages))
        subprocess.run(source(pair.entry, load), check=True, stdout=subprocess.DEVNULL)
        with Sink(path, copies=True) as sink:
            pair.start_nodes("bravo")
            _until(sink, FIRST * messages)
            first = moment(pair, sink)
            _until(sink, LAST * messages)
            last = moment(pair, sink)
            sink.wait(messages)
            end = moment(pair, sink)
            if wrong := sink.collect().mistake(messages, common(whole)):
                raise BenchmarkError(wrong)
    finally:
        pair.close()
    seconds = max(last.at - first.at, 1e-9)
    rate = (last.octets - first.octets) / CELL_LEN / seconds
    octets = len(whole) + whole.count(b"\n") + 2  # CRLF, and the last line's
    begin = Moment(0.0, 0, 0)
    return Flow(share(begin, end, octets), share(first, last, octets), rate)


def _until(sink: Sink, count: float) -> None:
    end = time.monotonic() + STALL_SECONDS
    while sink.taken < count:
        if time.monotonic() > end:
            raise BenchmarkError(f"{sink.taken} messages came")
        time.sleep(STEP_SECONDS)


def run(scale: Scale, tell: Tell) -> Result:
    """Each length, so many times."""
    lengths = LENGTHS[:1] if scale.is_quick else LENGTHS
    link = {"cells_per_second": str(scale.of(RATE, QUICK_RATE))}
    figures: list[Figure] = []
    for number, length in enumerate(lengths):
        flows = []
        for turn in range(scale.rounds):
            done = (number + turn / scale.rounds) / len(lengths)
            tell(f"{length / 1000:g} kB, round {turn + 1}", done)
            with tempfile.TemporaryDirectory(prefix="mesh-") as name:
                count = scale.of(OCTETS // length, 20)
                flows.append(once(Path(name), length, count, link))
        name = f"messages of {length / 1000:g} kB"
        rates = [flow.cells_a_second for flow in flows]
        figures += [
            _figure(f"whole, {name}", "share", [f.whole for f in flows], BOUND),
            _figure(f"middle, {name}", "share", [f.middle for f in flows]),
            _figure(f"cells sent, {name}", "cells/s", rates),
        ]
    return Result("share", TITLE, tuple(figures), settings=link)


def _figure(
    name: str, unit: str, values: list[float], bound: float | None = None
) -> Figure:
    return Figure(name, unit, (Series("mesh", tuple(values)),), bound)
