# SPDX-License-Identifier: MIT
"""Which messages of which peers we have, so that one offered twice is stored once.

An id is known from the commit of its first record until the peer says DONE, which the
slot of a record that still waits remembers, or until its tombstone expires: EXPIRY_SECONDS of running time after the last of its records was
delivered.  One message may have become several records, each in a slot of its own; the
id is known as long as one of them, or one tombstone, is there.

    id -> its slots        to answer an offer, to obey DONE
    slot -> its id         to leave a tombstone when the record is forgotten
    tombstone -> expiry    in the order of expiring

Memory only: on the disk it is the heads of records and the tombstones of the arena.
"""

from collections import Counter
from typing import Final

from mesh.core.record import ID_LEN, NO_ID
from mesh.core.slot import Tombstone

EXPIRY_SECONDS: Final = 8 * 86400
"""A sender gives up at 5 days and offers no id after 7."""
PER_PEER_MAX: Final = 65_536
"""Ids that one peer may have us remember: 27 a second without a DONE for 40 minutes."""


class Ids:
    """Known ids, by slot and by peer."""

    def __init__(self) -> None:
        self._slots: dict[bytes, tuple[int, ...]] = {}
        self._ids: dict[int, bytes] = {}
        self._expiries: dict[int, int] = {}
        self._peers: Counter[bytes] = Counter()

    def knows(self, origin: bytes, origin_id: bytes) -> bool:
        """Say whether this peer's message was stored before."""
        return origin + origin_id in self._slots

    def count(self, origin: bytes) -> int:
        """Count the ids that are remembered for a peer."""
        return self._peers[origin]

    @property
    def buried(self) -> int:
        """Count the tombstones: slots that hold nothing else."""
        return len(self._expiries)

    def add(self, slot: int, origin: bytes, origin_id: bytes) -> None:
        """Remember that this slot holds a record of that message; no id, nothing."""
        if origin_id == NO_ID:
            return
        known = origin + origin_id
        slots = self._slots.get(known, ())
        if not slots:
            self._peers[origin] += 1
        self._slots[known] = (*slots, slot)
        self._ids[slot] = known

    def add_tombstone(self, slot: int, tombstone: Tombstone) -> None:
        """Remember a tombstone found at the start."""
        self.add(slot, tombstone.origin, tombstone.origin_id)
        self._expiries[slot] = tombstone.expiry

    def sort(self) -> None:
        """Bring the tombstones found at the start into the order of expiring."""
        self._expiries = dict(sorted(self._expiries.items(), key=lambda item: item[1]))

    def bury(self, slot: int, running: int) -> Tombstone | None:
        """A record is forgotten: give the tombstone that its slot needs, if any."""
        known = self._ids.get(slot)
        if known is None:
            return None
        expiry = running + EXPIRY_SECONDS
        self._expiries[slot] = expiry
        return Tombstone(known[:ID_LEN], known[ID_LEN:], expiry)

    def done(self, origin: bytes, origin_id: bytes) -> tuple[list[int], list[int]]:
        """Forget an id; give the slots of its tombstones and those of its records.

        The first may be renewed, the others should say that nobody asks for their id.
        """
        slots = self._slots.pop(origin + origin_id, ())
        if slots:
            self._leave(origin)
        for slot in slots:
            del self._ids[slot]
        buried = [slot for slot in slots if self._expiries.pop(slot, None) is not None]
        return buried, [slot for slot in slots if slot not in buried]

    def expired(self, running: int) -> list[int]:
        """Forget tombstones whose time is over; give their slots."""
        over: list[int] = []
        for slot, expiry in self._expiries.items():
            if expiry > running:
                break
            over.append(slot)
        for slot in over:
            del self._expiries[slot]
            known = self._ids.pop(slot)
            left = tuple(other for other in self._slots[known] if other != slot)
            if left:
                self._slots[known] = left
            else:
                del self._slots[known]
                self._leave(known[:ID_LEN])
        return over

    def _leave(self, origin: bytes) -> None:
        self._peers[origin] -= 1
        if not self._peers[origin]:
            del self._peers[origin]
