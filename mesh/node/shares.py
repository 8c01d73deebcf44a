# SPDX-License-Identifier: MIT
"""Who holds how much of the spool, so that no one fills it for all.

The rule, asked at the door: nobody may hold more than is still free.

    one alone               stops at half of the room
    n who take all they can stop with an equal share each, and as much is left: 1 / (n + 1)
    who holds nothing       is never refused here; the disk itself says when it is full

Room is counted twice, in octets of the disk and in slots of the arena, and either may
refuse: 452, to that one alone, who keeps the message and tries again.

    origin               who that is
    a peer's mark        all that this peer hands over, whoever wrote it
    a user's mark        all that this user of the machine hands over (SO_PEERCRED); those
                         of a loopback port, whom the kernel does not know, are one
    the drop folder's    all that is dropped, whoever dropped it
    zeros                nobody: a record whose head does not open

A record is charged to its origin from its commit until it is forgotten, with the pages of
the database that its head and its sealed body take when it comes alone:

    up to a page    an equal share of the page that holds several such: of 17 KiB a whole one
    more            whole pages, and what of it may lie in a page with others

Those that are committed together take less, down to half.  What is made of a record goes on in its name, and is never refused: parts
when its recipients part, a rest, a bounce, each of which takes its place.  So what was
accepted is brought to an end however full the spool is.  A peer's ids that must be
remembered count as records (ids.py).

What is on its way to the disk counts from the moment at which the spool has it, so that
a burst is refused too; what is refused after that counts no more.  While a start still reads the spool, what it has
not read is not counted either: for as long a share may be exceeded, and after that its
holder is refused until it is not.  After it the counts are those of before.

Memory only, 8 octets a slot; the origin of a record is in its head.
"""

import pwd
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mesh.core.record import HEAD_LEN, ID_LEN, NO_ID, Record, sealed_len
from mesh.node.groups import PAGE_LEN, Groups

NOBODY: Final = 0xFFFFFFFF
"""The user whom the kernel names where it knows none."""
SPILLED_LEN: Final = 4096
"""Octets of a longer row that lie in a page with others' (SQLite's file format, 1.6)."""
_BLOCK: Final = 1024
"""Octets in which charges are counted."""


def user_mark(uid: int) -> bytes:
    """Name a user of this machine as an origin; no peer's mark begins so."""
    return (uid + 1).to_bytes(ID_LEN, "big")


def user_of(origin: bytes) -> int | None:
    """Give the user of a mark; None: it is none's."""
    number = int.from_bytes(origin, "big")
    return number - 1 if 0 < number <= 1 << 32 else None


def has_no_room(origin: bytes, peers: Mapping[bytes, str]) -> str:
    """Tell the operator who was refused; `peers` names the marks of those."""
    uid = user_of(origin)
    if uid == NOBODY:
        who = "who submits on a loopback port"
    elif uid is not None:
        who = f"user {_name_of(uid)}"
    elif origin in peers:
        who = f"peer {peers[origin]}"
    else:
        who = "the drop folder, or a peer that was removed,"
    return (
        f"{who} has as much in the spool as is left for all: no more is taken of it "
        "until some is delivered: `mesh queue`"
    )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def charge_of(content_len: int) -> int:
    """Count the octets that a record with so much content takes, if it comes alone."""
    return sealed_charge(sealed_len(content_len))


def sealed_charge(body_len: int) -> int:
    """The same by the length of its sealed body."""
    octets = HEAD_LEN + body_len
    if octets <= PAGE_LEN:
        octets = PAGE_LEN // (PAGE_LEN // octets)
    else:
        octets = SPILLED_LEN - (SPILLED_LEN - octets) // PAGE_LEN * PAGE_LEN
    return -(-octets // _BLOCK) * _BLOCK


@dataclass(slots=True)
class Holding:
    """What one origin has in the spool."""

    records: int = 0
    octets: int = 0


class Shares:
    """The counts, and the rule."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {NO_ID: 0}
        self._holdings = [Holding()]
        self._whose = array("I")
        self._blocks = array("I")
        self._refused: set[bytes] = set()
        self._coming: dict[bytes, Holding] = {}
        self._all_coming = Holding()

    def expect(self, records: Sequence[Record], times: int = 1) -> None:
        """These are on their way to the disk; with -1 they are no more."""
        for record in records:
            coming = self._coming.setdefault(record.origin, Holding())
            octets = times * charge_of(len(record.content))
            for each in (coming, self._all_coming):
                each.records += times
                each.octets += octets
            if not coming.records:
                del self._coming[record.origin]

    def hold(self, slot: int, origin: bytes, octets: int) -> None:
        """Charge a slot's record."""
        if slot >= len(self._whose):
            more = bytes((slot + 1 - len(self._whose)) * self._whose.itemsize)
            self._whose.frombytes(more)
            self._blocks.frombytes(more)
        number = self._numbers.get(origin)
        if number is None:
            number = self._numbers[origin] = len(self._holdings)
            self._holdings.append(Holding())
        self._whose[slot] = number
        self._blocks[slot] = octets // _BLOCK
        holding = self._holdings[number]
        holding.records += 1
        holding.octets += octets

    def let_go(self, slot: int) -> None:
        """A slot's record is forgotten."""
        holding = self._holdings[self._whose[slot]]
        holding.records -= 1
        holding.octets -= self._blocks[slot] * _BLOCK

    def of(self, origin: bytes) -> Holding:
        """Say what an origin holds now."""
        number = self._numbers.get(origin)
        return Holding() if number is None else self._holdings[number]

    def has_room(
        self,
        origin: bytes,
        more: Holding,
        free: Holding,
        ids: int = 0,
    ) -> bool:
        """Say whether an origin may have so much more while so much is free.

        `ids` are those that are remembered for it.
        """
        held, coming = self.of(origin), self._coming.get(origin, Holding())
        records = max(held.records, ids) + coming.records
        octets = held.octets + coming.octets
        all_records = records + more.records + self._all_coming.records
        all_octets = octets + more.octets + self._all_coming.octets
        has_room = origin == NO_ID or (
            (not records or all_records <= free.records)
            and (not octets or all_octets <= free.octets)
        )
        if not has_room:
            self._refused.add(origin)
        return has_room

    def take_refused(self) -> set[bytes]:
        """Give who was refused since this was asked last."""
        refused, self._refused = self._refused, set()
        return refused


class Door:
    """Asks the rule for messages; the disk is looked at when somebody has asked."""

    def __init__(self, shares: Shares, groups: Groups) -> None:
        """Blocks for a moment."""
        self._shares = shares
        self._is_asked = False
        self.free_octets = groups.room()
        """Of the disk, as they were found last."""

    def has_room(
        self, origin: bytes, contents: Sequence[int], free_slots: int, ids: int
    ) -> bool:
        """Say whether an origin's share has room for records of so many octets each."""
        self._is_asked = True
        more = Holding(len(contents), sum(map(charge_of, contents)))
        free = Holding(free_slots, self.free_octets)
        return self._shares.has_room(origin, more, free, ids)

    def take_asked(self) -> bool:
        """Say whether somebody has asked since: then it matters how much is free."""
        asked, self._is_asked = self._is_asked, False
        return asked
