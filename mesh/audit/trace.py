# SPDX-License-Identifier: MIT
"""What a snooper has of one link: a row a cell, and who knew better what was going on.

    ROW     field      type
            side       u1     0: a cell of the first node; 1: of the second
            block      i4     number of the block it lies in; -1: none
            busy       ?      whether mail was on its way in that block
            at         f8     seconds: its first segment
            gap        f8     seconds since that side's cell before; nan: none was seen
            ack_delay  f8     seconds from its last segment to the segment that
                              acknowledges all of it; nan: none was seen
            acks       u2     bare acknowledgements until that side's next cell
            segments   u2     TCP segments that carried it
            first      u2     octets of the first of them
            last       u2     octets of the last of them
            again      u2     segments that were sent again
            window     u4     the sender's advertised TCP window, octets

A `Trace` is such rows, ordered by `at`, with the link's clock and rate.  As a file it
is numpy's .npz: "rows" and three scalars; nothing in it is ever unpickled.

An `Event` is ground truth, from who made the mail: a message of `size` octets came to a
node (what "in") or left it ("out").  Events are kept as JSON lines.
"""

import json
import lzma
import math
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final, Literal, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mesh.core.clock import Clock

ROW: Final = np.dtype(
    [
        ("side", "u1"),
        ("block", "i4"),
        ("busy", "?"),
        ("at", "f8"),
        ("gap", "f8"),
        ("ack_delay", "f8"),
        ("acks", "u2"),
        ("segments", "u2"),
        ("first", "u2"),
        ("last", "u2"),
        ("again", "u2"),
        ("window", "u4"),
    ]
)
NO_BLOCK: Final = -1
"""Of a row between blocks, or that nobody labelled."""
SIDES: Final = (0, 1)

Rows: TypeAlias = NDArray[Any]
"""An array of ROW: mypy has no word for a structured type."""
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Trace:
    """One link, by `at`, with what both ends know of its clock."""

    rows: Rows
    rate: float
    """Cells a second, each way."""
    clock: str
    """The clock's name in small letters, as in node.toml; "" where there is none."""
    source: str
    """Where the rows come from, for people."""

    def of(self, side: int) -> Rows:
        """The rows of one side."""
        mine: Rows = self.rows[self.rows["side"] == side]
        return mine

    def with_labels(self, block: Ints, busy: Bools) -> "Trace":
        """Give the same cells other labels, one a row."""
        rows = self.rows.copy()
        rows["block"], rows["busy"] = block, busy
        return replace(self, rows=rows)

    def with_rows(self, rows: Rows) -> "Trace":
        """Give the same link other rows."""
        return replace(self, rows=rows)

    def only(self, keep: Bools) -> "Trace":
        """The rows of a mask, one truth a row."""
        return replace(self, rows=self.rows[keep])

    def save(self, path: Path) -> None:
        """Write as .npz."""
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                rows=self.rows,
                rate=np.float64(self.rate),
                clock=np.str_(self.clock),
                source=np.str_(self.source),
            )


CLOCKS: Final = frozenset({"", *(clock.name.lower() for clock in Clock)})
RATES: Final = (2.0**-10, 2.0**20)
"""Of a trace that is read, cells a second: beyond any class of a link (core/clock.py)."""
_NO_ARCHIVE: Final = (
    EOFError,
    BadZipFile,
    lzma.LZMAError,
    zlib.error,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    TokenError,
)
"""What numpy and zipfile say of a file that is cut off, that holds one array, or whose
head says what cannot be."""


def load(path: Path) -> Trace:
    """Read back what `save` wrote; ValueError: it is something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            rows, rate = held["rows"], float(held["rate"])
            clock, source = str(held["clock"]), str(held["source"])
    except KeyError as missing:
        raise ValueError(f"no trace: {missing}") from None
    except _NO_ARCHIVE as error:
        raise ValueError(
            "no trace: not what was once written, or not all of it"
        ) from error
    if clock not in CLOCKS:
        raise ValueError("no trace: its clock has a name that no clock has")
    if rows.dtype != ROW or rows.ndim != 1:
        raise ValueError("no trace: its rows have other fields")
    if not (RATES[0] <= rate <= RATES[1] and np.isfinite(rows["at"]).all()):
        raise ValueError("no trace: its rate or its times are no numbers")
    if np.isinf([rows["gap"], rows["ack_delay"]]).any():
        raise ValueError("no trace: its gaps or its delays are no numbers")
    if (rows["side"] > SIDES[-1]).any() or (np.diff(rows["at"]) < 0).any():
        raise ValueError("no trace: its rows are of other sides, or not in order")
    return Trace(rows, rate, clock, source)


def joined(traces: Iterable[Trace]) -> Trace:
    """Pieces of one link as one trace; each piece's blocks get numbers of their own.

    ValueError: there is none, they differ in clock or rate, or overlap in time.
    """
    pieces = sorted(traces, key=lambda piece: piece.rows["at"].min(initial=np.inf))
    if len({(piece.clock, piece.rate) for piece in pieces}) != 1:
        raise ValueError("pieces of one clock and one rate are wanted")
    rows: list[Rows] = []
    free = 0
    for piece in pieces:
        copy = piece.rows.copy()
        copy["block"][copy["block"] != NO_BLOCK] += free
        free = max(free, int(copy["block"].max(initial=NO_BLOCK)) + 1)
        if rows and len(copy) and len(rows[-1]) and copy["at"][0] < rows[-1]["at"][-1]:
            raise ValueError("pieces that follow each other are wanted")
        rows.append(copy)
    return replace(pieces[0], rows=by_time(np.concatenate(rows)))


def by_time(rows: Rows) -> Rows:
    """The rows ordered by `at`; those of one instant stay as they are."""
    return rows[np.argsort(rows["at"], kind="stable")]


@dataclass(frozen=True)
class Event:
    """A message came to a node, or left it."""

    at: float
    """Seconds, by the clock of the trace's `at`."""
    size: int
    """Octets of its content."""
    ident: str
    """The same for a message wherever it is seen."""
    what: Literal["in", "out"]
    place: str
    """The node's name."""


def save_events(events: Iterable[Event], path: Path) -> None:
    """Write events as JSON lines."""
    path.write_text("".join(json.dumps(asdict(event)) + "\n" for event in events))


def load_events(path: Path) -> list[Event]:
    """Read back what `save_events` wrote.

    ValueError: it is something else, and in which line.
    """
    events = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            events.append(_event_untrusted(line))
        except ValueError as error:
            raise ValueError(f"line {number}") from error
    return events


def _event_untrusted(line: bytes) -> Event:
    """One line of JSON, UTF-8; ValueError: no event is written so."""
    try:
        event = Event(**json.loads(line.decode()))
        known = math.isfinite(event.at) and 0 <= event.size < math.inf
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError("no event") from error
    words = (event.ident, event.what, event.place)
    if not known or not all(isinstance(word, str) for word in words):
        raise ValueError("no event")
    if event.what not in ("in", "out"):
        raise ValueError("no event: neither in nor out")
    return event
