# SPDX-License-Identifier: MIT
"""From packets to cells: the rows (trace.py) of a link, and of a wire that has none.

A link's stream is cells and nothing else, once the three messages of its handshake are
over, which are as long.  So where cells lie in the stream is told by where TCP's
numbers begin, or, where that was not seen, by where writes end: a cell is sent in one
write, and its last segment has PSH.  A stack that sets none tells it by the short segments.
A connection whose writes end elsewhere is no link; CaptureError says so where a capture
has none.  A packet whose number is LEAP away from the stream is nobody's: whoever can send
the port a packet can write any number into it.

Of a row
- `at` is the first copy of the segment that holds the cell's first octet;
- `segments` are those that hold octets of it, each once; `again` the copies beyond;
- `gap` is nan where the cell before was not seen whole;
- a cell that was not seen whole has no row.

The link of a capture is that of the two hosts that exchange most.  Its connections
follow each other: while an old one ends, the new one's cells count.  A second one that
ends within another's life lost the race of two dials, and does not count.

A wire without cells has rows of the same kind, so that whoever tells idle from busy can
look at it: `bursts`.  A row is what one side sent without a pause of BURST_SECONDS and
without a word of the other in between, and, where a side is silent, a row without
segments for each 1 / rate seconds.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from mesh.audit.trace import NO_BLOCK, ROW, SIDES, Bools, Ints, Rows, Trace, by_time
from mesh.audit.wire import (
    ACK,
    FIN,
    NANO,
    PSH,
    RST,
    SYN,
    CaptureError,
    Connection,
    Packets,
    read,
)
from mesh.core.cell import CELL_LEN

HANDSHAKE_CELLS: Final = {True: 2, False: 1}
"""Messages of a cell's length that go first: from who dialled, from who was dialled."""
CELLS_MIN: Final = 8
"""Each way: fewer are no link yet."""
FIT_MIN: Final = 0.5
"""Of the writes, that end where a cell does: nearly all of a link's, one in 4,096 else.
A host under load may merge or cut some."""
LEAP: Final = 1 << 30
"""Octets: TCP's largest window (RFC 7323, 2.3); so much is never on its way at once."""
GUARD_SECONDS: Final = 0.5
"""At a block's edges, whose cells are left out: mail of the block before may be there."""
BURST_SECONDS: Final = 0.005
"""A pause that parts two bursts: longer than TCP's own within one write, here."""


class Block(NamedTuple):
    """A stretch of a capture: seconds, and whether mail was on its way in it."""

    begin: float
    end: float
    busy: bool


@dataclass(frozen=True)
class _Sent:
    """One side's stream: each segment's first copy, in the stream's order."""

    begin: Ints
    """Octets since the first cell's first one."""
    end: Ints
    """Never falls."""
    at: Ints
    length: Ints
    window: Ints
    again: Ints
    """Where copies began, beyond the first."""
    acks: tuple[Ints, Ints]
    """The other side: when, and up to where it has acknowledged by then."""
    bare: Ints
    """When the other side sent an acknowledgement and nothing else."""
    words: Ints
    """When the other side sent octets."""
    is_phased: bool
    """Whether writes end where cells do."""


def trace_of(
    path: Path, *, rate: float = 0.0, clock: str = "", source: str = ""
) -> Trace:
    """Read a capture's link; a rate of 0 is estimated.

    Where it is one of several, its source says which.
    CaptureError: no capture, or no link in it; NoInputError: no such file.
    """
    rows, which = _link_of(read(path), str(path))
    if not _takes_time(rows):
        raise CaptureError(
            f"{path}: all its cells are of one moment: capture more of it"
        )
    return Trace(rows, rate or rate_in(rows), clock, source or f"{path}{which}")


def rows_of(connections: Iterable[Connection], name: str = "the capture") -> Rows:
    """Give the rows of the link in them, unlabelled; CaptureError: there is none."""
    return _link_of(connections, name)[0]


def _link_of(connections: Iterable[Connection], name: str) -> tuple[Rows, str]:
    """Its rows; and, where there are several, which it is."""
    links: dict[tuple[bytes, bytes], list[Rows]] = defaultdict(list)
    for one in connections:
        rows = _cells(one)
        if len(rows):
            links[one.ends[0].address, one.ends[1].address].append(rows)
    if not links:
        raise CaptureError(
            f"{name}: no link in it: no connection carries cells of {CELL_LEN} octets "
            "both ways"
        )
    hosts = max(links, key=lambda some: sum(map(len, links[some])))
    ours, theirs = map(ip_address, hosts)
    which = f": of {len(links)} links, that of {ours} and {theirs}"
    return _in_turn(links[hosts]), which if len(links) > 1 else ""


def _takes_time(rows: Rows) -> bool:
    mine = rows["at"][rows["side"] == 0]
    return len(mine) > 1 and bool(mine[-1] > mine[0])


def rate_in(rows: Rows) -> float:
    """Estimate a link's rate: the class nearest to its first side's cells a second.

    The rows take some time.
    """
    mine = rows["at"][rows["side"] == 0]
    seconds = float(mine[-1] - mine[0])
    return float(2.0 ** round(np.log2((len(mine) - 1) / seconds)))


def labelled(rows: Rows, blocks: Sequence[Block], guard: float = GUARD_SECONDS) -> Rows:
    """Say which block each row lies in, and whether it was busy; NO_BLOCK: in none."""
    rows = rows.copy()
    rows["block"], rows["busy"] = NO_BLOCK, False
    for number, (begin, end, busy) in enumerate(blocks):
        inside = (rows["at"] >= begin + guard) & (rows["at"] < end - guard)
        rows["block"][inside], rows["busy"][inside] = number, busy
    return rows


def bursts(
    connections: Iterable[Connection], rate: float, begin: float, end: float
) -> Rows:
    """Give the rows of a wire without cells, between two instants."""
    found: tuple[list[Rows], list[Rows]] = ([], [])
    for one in connections:
        for side in SIDES:
            sent = _sent(one, side)
            if sent is not None:
                found[side].append(_rows(sent, side, *_writes(sent)))
    sides = []
    for side in SIDES:
        rows = by_time(np.concatenate([np.empty(0, ROW), *found[side]]))
        rows = rows[(rows["at"] >= begin) & (rows["at"] < end)]
        sides.append(_with_silence(rows, side, 1 / rate, begin, end))
    return by_time(np.concatenate(sides))


# one connection


def _cells(one: Connection) -> Rows:
    """Give both sides' cells; none where it is no link."""
    found = []
    for side in SIDES:
        sent = _sent(one, side)
        if sent is None or not sent.is_phased:
            return np.empty(0, ROW)
        begins = _begun(sent)
        if one.opener is not None:
            begins = begins[begins >= HANDSHAKE_CELLS[one.opener == side] * CELL_LEN]
        if len(begins) < CELLS_MIN:
            return np.empty(0, ROW)
        found.append(_rows(sent, side, begins, begins + CELL_LEN))
    return by_time(np.concatenate(found))


def _sent(one: Connection, side: int) -> _Sent | None:
    """One side's stream; None: it sent nothing."""
    packets = one.packets
    mine = packets["side"] == side
    data = packets[mine & (packets["length"] > 0)]
    if not len(data):
        return None
    syns = packets["sequence"][mine & (packets["flags"] & SYN > 0)]
    base = int(syns[0]) + 1 if len(syns) else int(data["sequence"][0])
    near = _near(data["sequence"], base)
    data = data[near]
    if not len(data):
        return None
    begins = _unwrapped(data["sequence"], base)
    ends = begins + data["length"]
    places = ends[_last_of_write(data)] % CELL_LEN
    phase = 0 if len(syns) else int(np.bincount(places).argmax())
    begin, index = np.unique(begins - phase, return_index=True)
    again = np.delete(begins - phase, index)
    first = data[index]
    answers = packets[~mine]
    heard = answers[answers["flags"] & ACK > 0]
    heard = heard[_near(heard["acknowledged"], base)]
    upto = _unwrapped(heard["acknowledged"], base) - phase
    return _Sent(
        begin,
        np.maximum.accumulate(begin + first["length"]),
        first["at"],
        first["length"].astype(np.int64),
        first["window"].astype(np.int64),
        again,
        (heard["at"], np.maximum.accumulate(upto)),
        np.maximum.accumulate(_bare(answers)),
        np.maximum.accumulate(answers["at"][answers["length"] > 0]),
        bool((places == phase).mean() >= FIT_MIN),
    )


def _last_of_write(data: Packets) -> Bools:
    """Which segments are the last ones of a write."""
    pushed: Bools = data["flags"] & PSH > 0
    if pushed.any():
        return pushed
    short: Bools = data["length"] < data["length"].max()
    return short if short.any() else ~short


def _bare(answers: Packets) -> Ints:
    flags = answers["flags"]
    is_bare = (answers["length"] == 0) & (flags & (ACK | SYN | FIN | RST) == ACK)
    at: Ints = answers["at"][is_bare]
    return at


def _near(numbers: Ints, base: int) -> Bools:
    """Say which of TCP's numbers are not LEAP away from the ones before."""
    near = np.ones(len(numbers), np.bool_)
    wide = numbers.astype(np.int64)
    leaps = np.flatnonzero(abs(_step(wide, np.append(base, wide[:-1]))) > LEAP)
    last = base
    # Between two leaps all are near each other: in a capture of a link there are none.
    for begin, end in pairwise([0, *leaps.tolist(), len(wide)]):
        if begin == end:
            continue
        if abs(int(_step(wide[begin], last))) > LEAP:
            near[begin:end] = False
        else:
            last = int(wide[end - 1])
    return near


def _step(there: Any, here: Any) -> Any:
    """From one of TCP's numbers to another: the short way round."""
    return (there - here + (1 << 31)) % (1 << 32) - (1 << 31)


def _unwrapped(numbers: Ints, base: int) -> Ints:
    """TCP's numbers, of 32 bits, as octets since `base`; each is near the one before."""
    wide = numbers.astype(np.int64)
    found: Ints = np.cumsum(_step(wide, np.append(base, wide[:-1])))
    return found


def _begun(sent: _Sent) -> Ints:
    """Where the cells begin whose first octet was seen.

    As many as there are octets for: whoever can send a packet can write a number into it
    that lies 2^31 octets on.
    """
    low, high = -(-sent.begin // CELL_LEN), -(-(sent.begin + sent.length) // CELL_LEN)
    counts = np.maximum(high - low, 0)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.unique(np.repeat(low, counts) + within) * CELL_LEN
    seen: Ints = begins[begins + CELL_LEN <= sent.end[-1]]
    return seen


def _writes(sent: _Sent) -> tuple[Ints, Ints]:
    """Where the stream's bursts begin and end."""
    answered = np.searchsorted(sent.words, sent.at)
    parted = (np.diff(sent.at) > BURST_SECONDS * NANO) | (np.diff(answered) > 0)
    pauses = np.flatnonzero(parted) + 1
    begins = sent.begin[np.concatenate([np.zeros(1, np.int64), pauses])]
    return begins, np.append(begins[1:], sent.end[-1])


def _rows(sent: _Sent, side: int, begins: Ints, ends: Ints) -> Rows:
    """A row for each stretch of a stream that was seen whole; they are in its order."""
    last_of_all = len(sent.begin) - 1
    head = np.searchsorted(sent.end, begins, "right").clip(0, last_of_all)
    tail = (np.searchsorted(sent.begin, ends, "left") - 1).clip(0, last_of_all)
    at = sent.at[head]
    acked_at, upto = sent.acks
    answer = np.searchsorted(upto, ends, "left")
    came = np.append(acked_at, -1)[answer]
    delay = (came - sent.at[tail]) / NANO
    rows = np.zeros(len(begins), ROW)
    rows["side"], rows["block"], rows["at"] = side, NO_BLOCK, at / NANO
    rows["ack_delay"] = np.where(delay >= 0, delay, np.nan)
    since = np.searchsorted(sent.bare, at, "left")
    rows["acks"] = _small(np.append(since[1:], len(sent.bare)) - since)
    rows["segments"] = _small(tail - head + 1)
    rows["first"], rows["last"] = _small(sent.length[head]), _small(sent.length[tail])
    which = np.searchsorted(begins, sent.again, "right") - 1
    which = which[(which >= 0) & (sent.again < ends[-1])]
    rows["again"] = _small(np.bincount(which, minlength=len(begins)))
    rows["window"] = sent.window[head]
    whole = _whole(sent, begins, ends)
    rows["gap"] = np.nan
    follows = whole[:-1] & (begins[1:] == ends[:-1])
    rows["gap"][1:] = np.where(follows, np.diff(at) / NANO, np.nan)
    return rows[whole]


def _small(numbers: Ints) -> Ints:
    """As much of a number as fits in a row."""
    return numbers.clip(0, 0xFFFF)


def _whole(sent: _Sent, begins: Ints, ends: Ints) -> Bools:
    """Say of each stretch whether all its octets were seen."""
    holes = np.flatnonzero(sent.begin[1:] > sent.end[:-1])
    end = np.iinfo(np.int64).max
    low, high = np.append(sent.end[holes], end), np.append(sent.begin[holes + 1], end)
    next_one = np.searchsorted(high, begins, "right").clip(0, len(holes))
    whole: Bools = low[next_one] >= ends
    return whole


# several connections


def _in_turn(connections: Sequence[Rows]) -> Rows:
    """One link's connections as one, each until the next one is there."""
    turns: list[Rows] = []
    for rows in sorted(connections, key=lambda some: float(some["at"][0])):
        if turns and rows["at"][-1] < turns[-1]["at"][-1]:
            continue
        if turns:
            turns[-1] = turns[-1][turns[-1]["at"] < rows["at"][0]]
        turns.append(rows)
    return np.concatenate(turns)


def _with_silence(rows: Rows, side: int, step: float, begin: float, end: float) -> Rows:
    """The bursts of a side, and a row for each step in which it sent nothing."""
    edges = np.concatenate([[begin], rows["at"], [end]])
    silent = [np.arange(here + step, there, step) for here, there in pairwise(edges)]
    empty = np.zeros(sum(map(len, silent)), ROW)
    empty["side"], empty["block"], empty["ack_delay"] = side, NO_BLOCK, np.nan
    empty["at"] = np.concatenate(silent)
    both = by_time(np.concatenate([rows, empty]))
    both["gap"] = np.diff(both["at"], prepend=np.nan)
    return both
