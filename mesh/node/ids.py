# SPDX-License-Identifier: MIT
"""Which messages of which peers we have, so that one offered twice is stored once.

An id is known from the commit of its first record until the peer says DONE, which the
slot of a record that still waits remembers, or until its tombstone expires: EXPIRY_SECONDS of running time after the last of its records was
delivered.  One message may have become several records, each in a slot of its own; the
id is known as long as one of them, or one tombstone, is there.

    hash of an id -> slots   to answer an offer, to obey DONE; each slot's id is compared
    slot -> its id           32 octets a slot, to leave a tombstone when the record is
                             forgotten
    tombstone -> expiry      in the order of expiring

No object an id but three small numbers: a million of them take 150 MB.  Memory only: on the disk it is the heads of records and the tombstones of the arena.
"""

from collections import Counter
from typing import Final

from mesh.core.record import ID_LEN, NO_ID
from mesh.core.slot import Tombstone

EXPIRY_SECONDS: Final = 8 * 86400
"""A sender gives up at 5 days and offers no id after 7."""
PER_PEER_MAX: Final = 65_536
"""Ids that one peer may have us remember: 27 a second without a DONE for 40 minutes."""
_KNOWN_LEN: Final = 2 * ID_LEN
_NOTHING: Final = bytes(_KNOWN_LEN)


class Ids:
    """Known ids, by slot and by peer."""

    def __init__(self) -> None:
        self._slots: dict[int, int | tuple[int, ...]] = {}
        self._ids = bytearray()
        self._expiries: dict[int, int] = {}
        self._peers: Counter[bytes] = Counter()

    def knows(self, origin: bytes, origin_id: bytes) -> bool:
        """Say whether this peer's message was stored before."""
        return bool(self._find(origin + origin_id))

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
        others = self._alike(known)
        if not others or not self._find(known):
            self._peers[origin] += 1
        self._slots[hash(known)] = (*others, slot) if others else slot
        at = slot * _KNOWN_LEN
        if at >= len(self._ids):
            self._ids += bytes(at + _KNOWN_LEN - len(self._ids))
        self._ids[at : at + _KNOWN_LEN] = known

    def add_tombstone(self, slot: int, tombstone: Tombstone) -> None:
        """Remember a tombstone found at the start."""
        self.add(slot, tombstone.origin, tombstone.origin_id)
        self._expiries[slot] = tombstone.expiry

    def sort(self) -> None:
        """Bring the tombstones into the order of expiring, now that all are found."""
        self._expiries = dict(sorted(self._expiries.items(), key=lambda item: item[1]))

    def bury(self, slot: int, running: int) -> Tombstone | None:
        """A record is forgotten: give the tombstone that its slot needs, if any."""
        known = self._at(slot)
        if known == _NOTHING:
            return None
        expiry = running + EXPIRY_SECONDS
        self._expiries[slot] = expiry
        return Tombstone(known[:ID_LEN], known[ID_LEN:], expiry)

    def done(self, origin: bytes, origin_id: bytes) -> tuple[list[int], list[int]]:
        """Forget an id; give the slots of its tombstones and those of its records.

        The first may be renewed, the others should say that nobody asks for their id.
        """
        buried: list[int] = []
        held: list[int] = []
        for slot in self._find(origin + origin_id):
            self._remove(slot)
            was_buried = self._expiries.pop(slot, None) is not None
            (buried if was_buried else held).append(slot)
        return buried, held

    def expired(self, running: int) -> list[int]:
        """Forget tombstones whose time is over; give their slots."""
        over: list[int] = []
        for slot, expiry in self._expiries.items():
            if expiry > running:
                break
            over.append(slot)
        for slot in over:
            del self._expiries[slot]
            self._remove(slot)
        return over

    def _at(self, slot: int) -> bytes:
        at = slot * _KNOWN_LEN
        return bytes(self._ids[at : at + _KNOWN_LEN]) or _NOTHING

    def _alike(self, known: bytes) -> tuple[int, ...]:
        """Give the slots of all ids with this one's hash."""
        slots = self._slots.get(hash(known), ())
        return (slots,) if isinstance(slots, int) else slots

    def _find(self, known: bytes) -> list[int]:
        return [slot for slot in self._alike(known) if self._at(slot) == known]

    def _remove(self, slot: int) -> None:
        """Forget which id a slot has, and the id with its last one."""
        known = self._at(slot)
        at = slot * _KNOWN_LEN
        self._ids[at : at + _KNOWN_LEN] = _NOTHING
        slots = self._slots.pop(hash(known))
        if not isinstance(slots, int):
            left = tuple(other for other in slots if other != slot)
            self._slots[hash(known)] = left if len(left) > 1 else left[0]
            if self._find(known):
                return
        origin = known[:ID_LEN]
        self._peers[origin] -= 1
        if not self._peers[origin]:
            del self._peers[origin]
