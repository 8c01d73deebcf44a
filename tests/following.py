# SPDX-License-Identifier: MIT
"""Who follows messages from wire to wire: attackers for a lab's capture files.

    wire 1 ---> place(s) ---> wire 2     a message is on wire 1 from t0 to t1, and on
                                         wire 2 from t2 to t3
    a name      (an instant on wire 1, an instant on wire 2): "this went on as that"

    by body           all strings of WORD octets that both wires carry, each once: the
                      same body is the same message, whatever protocol is around it
    by size and time  pairs of writes, of which the second has what the first had, less
                      what a remailer takes off, and comes as long after it as the place
                      takes; the likeliest first, each write once

A write is a message's content on port 25, and on a link what is sent without a pause:
without cover a message's cells, with cover what the clock let come close together.
Nobody tells him when a message passes: on covered wires that is what is hidden.  The
second one is told how many there were, how long the place takes, and what it takes off.

A name is right where both of its instants lie in one message's times.  By chance alone
some are: the same names are held against the same times, all moved round by SHIFTS other
spans of time, so that load, queues and the clock's law are as they were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import dpkt
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mesh.audit.spaces import Wire
from mesh.audit.trace import Event, Floats, Trace
from mesh.audit.wire import NANO, Connection, read
from mesh.core.cell import CELL_LEN

WORD: Final = 32
"""Octets: two that were drawn by chance are never alike; less than half a line."""
PICK: Final = 32
"""Of all strings one in so many is looked at, by its first octets: the same on each wire."""
UNSURE: Final = 0.3
"""Seconds by which a place takes longer or shorter: they make a name e times as unlikely."""
PAUSE: Final = 0.002
"""Seconds between two cells that were not sent at once."""
SHIFTS: Final = 4000
APART: Final = 1.0
"""Seconds: a smaller shift leaves messages where they were, in part."""
ERRORS: Final = 5.0
LUCK: Final = 2.0
"""So many standard errors and messages above chance come by chance less than once in 10,000
times, whatever the number of messages and their chance are."""

Names: TypeAlias = Floats
"""Pairs of instants, one a row."""


# The truth


def trips(events: Sequence[Event], first: Wire, second: Wire) -> Floats:
    """Give t0, t1, t2 and t3 of each message that went over both wires."""
    when: dict[tuple[str, str, str], float] = {
        (one.what, one.place, one.ident): one.at for one in events
    }
    ways = [("in", first.first), ("out", first.second)]
    ways += [("in", second.first), ("out", second.second)]
    found = [
        [when[*way, ident] for way in ways]
        for ident in sorted({one.ident for one in events})
        if all((*way, ident) in when for way in ways)
    ]
    return np.array(sorted(found), float).reshape(-1, 4)


@dataclass(frozen=True)
class Followed:
    """How many messages somebody followed."""

    messages: int
    names: int
    found: int
    chance: float
    """Messages, on average."""
    usual: float
    """95 % of chance stay below."""
    most: float
    """More is no chance."""

    @property
    def share(self) -> float:
        """Of the messages that went over both wires."""
        return self.found / max(1, self.messages)

    @property
    def beyond_chance(self) -> bool:
        """Whether names are right because the wires told something."""
        return self.found > self.most


def judged(named: Names, truth: Floats, begin: float, end: float) -> Followed:
    """Count the messages with a right name, and those that chance alone would have."""
    span = end - begin
    grid = np.linspace(APART, span - APART, SHIFTS)
    found, moved = 0, np.zeros(SHIFTS)
    for t0, t1, t2, t3 in truth:
        low = np.maximum(named[:, 0] - t1, named[:, 1] - t3)
        high = np.minimum(named[:, 0] - t0, named[:, 1] - t2)
        fits = low <= high
        found += bool((fits & (low <= 0) & (high >= 0)).any())
        # Moved round by a shift between `low` and `high` the message has that name.
        right = np.zeros(SHIFTS, np.bool_)
        for one, length in zip(low[fits] % span, (high - low)[fits], strict=True):
            right |= (grid >= one) & (grid <= one + length)
            right |= grid <= one + length - span
        moved += right
    chance, count = float(moved.mean()), len(truth)
    error = max(float(moved.std()), np.sqrt(chance * (1 - chance / max(1, count))))
    usual = float(np.quantile(moved, 0.95))
    most = chance + ERRORS * float(error) + LUCK
    return Followed(count, len(named), found, chance, usual, most)


# By body


class Words(NamedTuple):
    """Strings that a wire carried, from its first end to its second, each once."""

    words: NDArray[np.bytes_]
    at: Floats


def words_of(path: Path) -> Words:
    """Read a capture file of whole packets."""
    words = [np.empty(0, f"S{WORD}")]
    when = [np.empty(0)]
    for begins, at, stream in _streams(path):
        octets = np.frombuffer(stream, np.uint8)
        if len(octets) < WORD:
            continue
        lead = octets[:-1] * np.uint8(31) + octets[1:] * np.uint8(7)
        picked = np.flatnonzero(lead[: len(octets) - WORD + 1] % PICK == 0)
        some = np.ascontiguousarray(sliding_window_view(octets, WORD)[picked])
        words.append(some.view(f"S{WORD}").ravel())
        when.append(at[np.searchsorted(begins, picked, "right") - 1])
    every, where, counts = np.unique(
        np.concatenate(words), return_index=True, return_counts=True
    )
    once = counts == 1
    return Words(every[once], np.concatenate(when)[where[once]])


def _streams(path: Path) -> Iterator[tuple[NDArray[np.int64], Floats, bytes]]:
    """Give each stream that way: where its segments begin, when they came, its octets."""
    pieces: dict[tuple[bytes, int, int], list[tuple[int, float, bytes]]] = {}
    with path.open("rb") as file:
        for at, frame in dpkt.pcap.UniversalReader(file):
            packet = dpkt.ethernet.Ethernet(frame).data
            if not isinstance(packet, dpkt.ip.IP) or packet.src > packet.dst:
                continue
            segment = packet.data
            if not isinstance(segment, dpkt.tcp.TCP) or not segment.data:
                continue
            known = pieces.setdefault((packet.dst, segment.sport, segment.dport), [])
            base = known[0][0] if known else segment.seq
            step = (segment.seq - base + (1 << 31)) % (1 << 32) - (1 << 31)
            known.append((base + step, float(at), segment.data))
    for known in pieces.values():
        offset, begins, whens, parts = 0, [], [], []
        end = -1
        for sequence, at, data in sorted(known, key=lambda one: one[:2]):
            new = data[max(0, end - sequence) :] if end >= 0 else data
            if new:
                begins.append(offset)
                whens.append(at)
                parts.append(new)
                offset += len(new)
                end = max(end, sequence + len(data))
        yield np.array(begins, np.int64), np.array(whens), b"".join(parts)


def by_body(first: Words, second: Words) -> Names:
    """Name whatever both wires carried."""
    _, one, two = np.intersect1d(
        first.words, second.words, assume_unique=True, return_indices=True
    )
    named = np.column_stack([first.at[one], second.at[two]])
    return np.unique(named, axis=0)


# By size and time


class Writes(NamedTuple):
    """What a wire carried, from its first end to its second, in order."""

    at: Floats
    end: Floats
    octets: Floats
    sizes: "Sizes"


class Sizes(NamedTuple):
    """How well a write's octets are a message's."""

    unit: int
    """Octets: by which they are compared."""
    steep: float
    """One unit more or less makes a name e times as unlikely, so many times over."""
    within: float
    """Seconds after which he looks no further: a busy host holds a message up."""


PORT_25: Final = Sizes(1, 100.0, 20.0)
"""Octet for octet: time only says which of two, of one size, it is."""
LINK: Final = Sizes(CELL_LEN, 2.0, 4.0)
"""In cells, and other cells may be among them."""


def contents(path: Path) -> Writes:
    """On port 25: the longest turn of each who dialled."""
    found = [_turn(one) for one in read(path)]
    at, end, octets = np.array(sorted(found), float).reshape(-1, 3).T
    return Writes(at, end, octets, PORT_25)


def _turn(one: Connection) -> tuple[float, float, float]:
    data = one.packets[one.packets["length"] > 0]
    mine = data[data["side"] == 0]
    mine = mine[np.sort(np.unique(mine["sequence"], return_index=True)[1])]
    turn = np.searchsorted(data["at"][data["side"] == 1], mine["at"])
    if not len(turn):
        return 0.0, 0.0, 0.0
    octets = np.bincount(turn, mine["length"])
    at = mine["at"][turn == octets.argmax()] / NANO
    return float(at[0]), float(at[-1]), float(octets.max())


def runs(trace: Trace) -> Writes:
    """On a link: cells without a pause between them."""
    at = trace.of(0)["at"]
    begins = np.flatnonzero(np.diff(at, prepend=-np.inf) > PAUSE)
    ends = np.append(begins[1:], len(at))
    cells = ends - begins
    return Writes(at[begins], at[ends - 1], (cells * CELL_LEN).astype(np.float64), LINK)


def by_size_and_time(
    first: Writes, second: Writes, truth: Floats, shrinks: int
) -> Names:
    """Name as many as there were messages: those of like size, at the usual time, first.

    Of two as like the one of the size that is seldom.
    """
    unit, steep, within = second.sizes
    low = np.searchsorted(second.at, first.end, "right")
    high = np.searchsorted(second.at, first.end + within, "right")
    one = np.repeat(np.arange(len(low)), high - low)
    two = np.arange(len(one)) + np.repeat(high - np.cumsum(high - low), high - low)
    less = first.octets[one] - shrinks - second.octets[two]
    unlike = np.abs(np.round(less / unit))
    takes = _takes(first, second, truth)
    away = np.abs(second.at[two] - first.end[one] - takes) / UNSURE
    seldom = np.minimum(_seldom(first)[one], _seldom(second)[two])
    named: list[tuple[float, float]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for pair in np.argsort(steep * unlike + away - seldom):
        i, j = int(one[pair]), int(two[pair])
        if i not in taken[0] and j not in taken[1] and len(named) < len(truth):
            taken[0].add(i)
            taken[1].add(j)
            named.append((first.at[i], second.at[j]))
    return np.array(named, float).reshape(-1, 2)


def _seldom(writes: Writes) -> Floats:
    """How seldom each write's size is: the logarithm."""
    _, size, counts = np.unique(writes.octets, return_inverse=True, return_counts=True)
    rarity: Floats = -np.log(counts / len(writes.at))[size]
    return rarity


def _takes(first: Writes, second: Writes, truth: Floats) -> float:
    """Seconds from the last write on wire 1 to the next one on wire 2, the median."""
    last = np.searchsorted(first.end, truth[:, 1], "right") - 1
    then = np.searchsorted(second.at, truth[:, 2], "left")
    seen = (last >= 0) & (then < len(second.at))
    return float(np.median(second.at[then[seen]] - first.end[last[seen]]))
