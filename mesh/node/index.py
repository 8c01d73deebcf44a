# SPDX-License-Identifier: MIT
"""What the spool keeps in memory: where each record lies, and those just committed.

    Index   slot -> (row, place in the row), 10 octets a slot; rows that died
    Hot     reference -> record, the newest 32 MiB; the oldest leave first

A million records take 10 MB here: no object a record.  A row whose only record it is
has no entry of its own, so a spool that filled one by one takes no more.
"""

from array import array
from collections import OrderedDict
from typing import Final, NewType

from mesh.core.record import Record
from mesh.errors import LocalProtocolError

Ref = NewType("Ref", int)
"""A record in the spool: its slot's generation << 32 | its slot."""

HOT_OCTETS: Final = 33_554_432
"""Contents kept in memory for those who send them at once."""
HOT_OVERHEAD: Final = 1024
"""Octets that a record takes beside its content, roughly."""
_SLOT: Final = 0xFFFFFFFF


def ref_of(slot: int, generation: int) -> Ref:
    """Name the record whose key that generation of the slot is."""
    return Ref(generation << 32 | slot)


def slot_of(ref: Ref) -> tuple[int, int]:
    """Give a reference's slot and generation."""
    return ref & _SLOT, ref >> 32


class Index:
    """Rows and places of the records that are waiting."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._places = array("H")
        self._shared: dict[int, int] = {}
        self._kept: set[int] = set()
        self.waiting = 0
        """Records that are neither forgotten nor finished."""

    def add(self, row: int, places: list[tuple[int, int]]) -> None:
        """Note the records of a row: (slot, place) of each that lives."""
        highest = max((slot for slot, _ in places), default=0)
        if highest >= len(self._rows):
            more = bytes(highest + 1 - len(self._rows))
            self._rows.extend(more)
            self._places.extend(more)
        for slot, place in places:
            self._rows[slot] = row
            self._places[slot] = place
        if len(places) > 1:
            self._shared[row] = len(places)
        self.waiting += len(places)

    def keep(self, row: int) -> None:
        """Never report this row as finished: it holds something for the operator."""
        self._kept.add(row)

    def is_kept(self, row: int) -> bool:
        """Say whether this row is to stay."""
        return row in self._kept

    def place(self, slot: int) -> tuple[int, int]:
        """Give the row of a slot's record and its place there."""
        return self._rows[slot], self._places[slot]

    def drop(self, slot: int) -> int | None:
        """Take a record out; its row when that was the last one there."""
        self.waiting -= 1
        row = self._rows[slot]
        left = self._shared.get(row, 1) - 1
        if left > 1:
            self._shared[row] = left
            return None
        if left == 1:
            # One left is the case without an entry.
            del self._shared[row]
            return None
        self._rows[slot] = 0
        return None if row in self._kept else row


class Hot:
    """Records that were committed a moment ago, as they were handed in."""

    def __init__(self, octets: int = HOT_OCTETS) -> None:
        # An OrderedDict finds its oldest at once; a dict looks through its dead.
        self._records: OrderedDict[Ref, Record] = OrderedDict()
        self._room = octets

    def add(self, ref: Ref, record: Record) -> None:
        """Keep a record; what is oldest makes room."""
        if ref in self._records:
            raise LocalProtocolError("a record was committed twice")
        self._records[ref] = record
        self._room -= len(record.content) + HOT_OVERHEAD
        while self._room < 0:
            self.drop(next(iter(self._records)))

    def get(self, ref: Ref) -> Record | None:
        """Give a record that is still here."""
        return self._records.get(ref)

    def drop(self, ref: Ref) -> None:
        """Let go of a record, if it is here."""
        record = self._records.pop(ref, None)
        if record is not None:
            self._room += len(record.content) + HOT_OVERHEAD
