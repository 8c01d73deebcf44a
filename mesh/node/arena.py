# SPDX-License-Identifier: MIT
"""The key arena: where each record's key lives, and where it is made to die.

    slot         seen from outside   what it is
    UNREAD       ?                   nobody has looked at it since the start
    READ         a box               opened, and no row has claimed it yet
    FREE         a box               a random key that nobody has used; may be taken
    HELD         a box               the key of a record
    TOMBSTONE    a box               an unused key, and the id of a record that is gone
    SPENT        a box               renewed in memory; free when both copies have it
    DAMAGED      does not open       never taken again, never believed to be free

    take      FREE -> HELD           writes nothing
    renew     HELD, TOMBSTONE -> SPENT or TOMBSTONE: next generation; the new key and
                                     box come with the next flush
    flushed   SPENT -> FREE
    claim     UNREAD, READ -> HELD   a row names this very generation of it
    settle    UNREAD, READ -> FREE   when every row was read (recovery.py), not before:
                                     a used slot looks like a free one

All slots are sealed in one image in memory.  Changing one marks its page of 4 KiB
dirty.  What is renewed is sealed at the flush, for it lies on the disk as it was until
then anyway; a tombstone whose peer was done with it meanwhile is never made.  `seal` does
some, for thousands take milliseconds, and `begin_flush` the rest; it takes a copy of the dirty pages for the writer thread, which
writes them to one file and then to the other (copies.py); `end_flush` frees what that
made durable.  A key that lies on no disk yet is never given out: a crash would leave
accepted mail that nobody can open.

The arena key lives an hour.  `begin_rewrap` makes a new one, `rewrap` seals a page
after the other under it, and until the old one is destroyed each slot opens under
either.  So a crash at any step leaves nothing that does not open.

Slots are taken from a page drawn at random, in random order, until it has none: a group
touches few pages and the order of arrival is not the order of slots.
How it comes back from its files is in restore.py.  Trio thread only; nothing blocks.
"""

from array import array
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import islice
from typing import Any, Final, NamedTuple

from mesh.core.crypto import XNONCE_LEN, Entropy, Key
from mesh.core.slot import (
    EMPTY,
    ID_DONE,
    SLOT_LEN,
    ArenaKeys,
    Tombstone,
    open_slot_untrusted,
    parse_filling_untrusted,
    seal_keys,
    seal_slot,
)
from mesh.errors import CryptoError, LocalProtocolError, RemoteProtocolError

PAGE_LEN: Final = 4096
"""Octets of a page: the unit of a disk's write."""
PAGE_SLOTS: Final = PAGE_LEN // SLOT_LEN
SLOTS_MIN: Final = 4096
"""Slots of a new arena: 512 KiB a copy; a second of traffic at full speed."""
SLOTS_MAX: Final = 1 << 21
"""Slots at most: 256 MiB of memory, twice the million records of the design."""
GAP_PAGES: Final = 8
"""Clean pages that a write goes over rather than begin anew: 32 KiB cost the disk
less than a system call with its two changes of the interpreter's lock."""


class State(IntEnum):
    """What a slot is used for."""

    UNREAD = 0
    READ = 1
    FREE = 2
    HELD = 3
    TOMBSTONE = 4
    SPENT = 5
    DAMAGED = 6


class Claim(NamedTuple):
    """What became of a row's record; with HELD its key comes, too."""

    state: State
    key: Key | None = None
    is_done: bool = False
    """Its id need not be known."""


@dataclass(slots=True)
class Flush:
    """Pages on their way to the disk, and the slots that are free once there."""

    pieces: list[tuple[int, bytes]]
    spent: list[int]


@dataclass(slots=True)
class _Pool:
    """Free slots, by page."""

    pages: list[int] = field(default_factory=list)
    slots: dict[int, list[int]] = field(default_factory=dict)
    hand: list[int] = field(default_factory=list)
    count: int = 0

    def add(self, number: int) -> None:
        page = number // PAGE_SLOTS
        there = self.slots.get(page)
        if there is None:
            self.slots[page] = [number]
            self.pages.append(page)
        else:
            there.append(number)
        self.count += 1

    def take(self, entropy: Entropy) -> int:
        if not self.hand:
            self.hand = self._deal(entropy)
        self.count -= 1
        return self.hand.pop()

    def _deal(self, entropy: Entropy) -> list[int]:
        """Draw a page, and an order for its slots."""
        draw = int.from_bytes(entropy.octets(8), "big") % len(self.pages)
        self.pages[draw], self.pages[-1] = self.pages[-1], self.pages[draw]
        slots = self.slots.pop(self.pages.pop())
        order = memoryview(entropy.octets(4 * len(slots))).cast("I")
        return [slot for _, slot in sorted(zip(order, slots, strict=True))]


class Arena:
    """All slots, sealed in memory, with what is known of each."""

    def __init__(
        self, spool_key: Key, keys: ArenaKeys, image: bytearray, entropy: Entropy
    ) -> None:
        """Every slot of the image, which is not copied, is UNREAD."""
        self.keys = keys
        self.image = image
        self._spool_key = spool_key
        self.generations = array("Q", bytes(8 * keys.slots))
        self.states = bytearray(keys.slots)
        self._entropy = entropy
        self._pool = _Pool()
        self._dirty: set[int] = set()
        self._spent: list[int] = []
        self._renewed: dict[int, bytes] = {}  # fillings of boxes that are to be made
        self._rewrapped = 0
        self._settled = 0
        self._unsettled = keys.slots
        self._done: set[int] = set()
        self.tombstones: list[tuple[int, Tombstone]] = []
        """What reading slots has found, for whoever reads them to take."""

    # what the spool asks

    @property
    def free(self) -> int:
        """Slots that may be taken now."""
        return self._pool.count

    @property
    def dirty(self) -> bool:
        """Something waits for a flush."""
        return bool(self._dirty or self._renewed)

    @property
    def is_settled(self) -> bool:
        """Of each slot it is known what it is."""
        return self._settled == self._unsettled

    @property
    def capacity(self) -> int:
        """Slots that the arena has on the disk."""
        return self.keys.slots

    def count(self, state: State) -> int:
        """Count the slots in a state."""
        return self.states.count(state)

    def is_held(self, number: int, generation: int) -> bool:
        """Say whether this slot still holds the key of that generation's record."""
        return (
            number < len(self.states)
            and self.states[number] == State.HELD
            and self.generations[number] == generation
        )

    def take(self) -> tuple[int, int, Key]:
        """Give a free slot away: its number, generation and key.

        LocalProtocolError when none is free: the caller looks at `free` first.
        """
        if not self._pool.count:
            raise LocalProtocolError("no slot is free")
        number = self._pool.take(self._entropy)
        self.states[number] = State.HELD
        generation, key, _ = self._open(number)
        return number, generation, key

    def key(self, number: int) -> Key:
        """Open a slot for its key."""
        return self._open(number)[1]

    def renew(self, number: int, filling: bytes = EMPTY) -> None:
        """Destroy a slot's key: next generation, a random key, a new box."""
        self.generations[number] += 1
        self.states[number] = State.SPENT if filling == EMPTY else State.TOMBSTONE
        self._renewed[number] = filling

    def seal(self, count: int) -> bool:
        """Make the boxes of the first renewed slots, so many; False: all are made."""
        for number, filling in list(islice(self._renewed.items(), count)):
            del self._renewed[number]
            self._put(number, self.generations[number], self._entropy.key(), filling)
            if filling == EMPTY:
                self._spent.append(number)
        return bool(self._renewed)

    def mark_done(self, number: int) -> None:
        """Note that the id of a slot's record need not be known any more."""
        generation, key, _ = self._open(number)
        self._put(number, generation, key, ID_DONE)

    # recovery

    def claim(self, number: int, generation: int) -> Claim:
        """Say what became of a row's record: HELD, SPENT (moved on) or DAMAGED.

        A row younger than its slot, or a second row for one slot, was never written by
        us: damage, never delivery.
        """
        if number >= len(self.states):
            return Claim(State.DAMAGED)
        key = self._look(number) if self.states[number] == State.UNREAD else None
        if self.states[number] == State.DAMAGED:
            return Claim(State.DAMAGED)
        if self.generations[number] > generation:
            return Claim(State.SPENT)
        if self.generations[number] < generation or self.states[number] != State.READ:
            return Claim(State.DAMAGED)
        self.states[number] = State.HELD
        is_done = number in self._done
        self._done.discard(number)
        return Claim(State.HELD, key or self.key(number), is_done)

    def settle(self, count: int) -> None:
        """Every row has claimed its slots: free what is left of the next so many."""
        end = min(self._settled + count, self._unsettled)
        for number in range(self._settled, end):
            if self.states[number] == State.UNREAD:
                self._look(number)
            if number in self._done:  # its row is lost: nobody else's id is done
                self._done.discard(number)
                self.renew(number)
            elif self.states[number] == State.READ:
                self.states[number] = State.FREE
                self._pool.add(number)
        self._settled = end

    def _look(self, number: int) -> Key | None:
        """Open a slot that nobody has looked at; its key where there is one."""
        found = read_slot(self.keys, number, self._slot(number))
        if found is None:
            self.states[number] = State.DAMAGED
            return None
        self.generations[number], key, filling = found
        tombstone = parse_filling_untrusted(filling)
        if tombstone is None:
            self.states[number] = State.READ
            if filling == ID_DONE:
                self._done.add(number)
            return key
        self.states[number] = State.TOMBSTONE
        self.tombstones.append((number, tombstone))
        return None

    # to the disk

    def begin_flush(self) -> Flush:
        """Copy the dirty pages, near ones in one piece, for the writer thread."""
        self.seal(len(self._renewed))
        pages = sorted(self._dirty)
        pieces: list[tuple[int, bytes]] = []
        start = 0
        for index, page in enumerate(pages):
            last = index + 1 == len(pages)
            if last or pages[index + 1] - page > GAP_PAGES:
                offset, end = pages[start] * PAGE_LEN, (page + 1) * PAGE_LEN
                pieces.append((offset, bytes(self.image[offset:end])))
                start = index + 1
        self._dirty = set()
        spent, self._spent = self._spent, []
        return Flush(pieces, spent)

    def end_flush(self, flush: Flush) -> None:
        """Free the slots whose renewal is now in both copies."""
        for number in flush.spent:
            self.states[number] = State.FREE
            self._pool.add(number)

    # more slots, other keys: the caller writes the box, then calls `adopt`

    def grow(self, count: int) -> None:
        """Seal `count` more slots behind the last one; `adopt` gives them out."""
        first = len(self.states)
        self.image += bytes(count * SLOT_LEN)
        for number in range(first, first + count):
            self.generations.append(1)
            self.states.append(State.SPENT)
            self._put(number, 1, self._entropy.key(), EMPTY)

    def grown_keys(self, running: int) -> ArenaKeys:
        """Give the keys with the new count of slots, all of which are on the disk."""
        return self.timed_keys(running, slots=len(self.states))

    def fresh_keys(self, running: int) -> ArenaKeys:
        """Give the keys for a re-wrap: a new one, and the present one as previous."""
        if self.keys.previous is not None:
            raise LocalProtocolError("a re-wrap is under way")
        fresh = self._entropy.key()
        return self.timed_keys(running, current=fresh, previous=self.keys.current)

    def bare_keys(self, running: int) -> ArenaKeys:
        """Give the keys for the end of a re-wrap: without the previous one."""
        return self.timed_keys(running, previous=None)

    def timed_keys(self, running: int, **changes: Any) -> ArenaKeys:
        """Give the same keys with a later time, and what else changes."""
        sequence = self.keys.sequence + 1
        return replace(self.keys, sequence=sequence, running=running, **changes)

    def box(self, keys: ArenaKeys) -> bytes:
        """Seal keys for their file."""
        draw = self._entropy.octets(2 * XNONCE_LEN)
        return seal_keys(self._spool_key, (draw[:XNONCE_LEN], draw[XNONCE_LEN:]), keys)

    def adopt(self, keys: ArenaKeys) -> None:
        """Use keys whose box is in both places of its file."""
        known, self.keys = self.keys, keys
        if keys.previous is None and known.previous is not None:
            known.previous.wipe()
        if known.current != keys.current:
            self._rewrapped = 0
        for number in range(known.slots, keys.slots):
            self.states[number] = State.FREE
            self._pool.add(number)

    def rewrap(self, pages: int) -> bool:
        """Seal the next pages anew under the current key; True: that was the last."""
        first = self._rewrapped * PAGE_SLOTS
        end = min(first + pages * PAGE_SLOTS, len(self.states))
        for number in range(first, end):
            if self.states[number] != State.DAMAGED:
                generation, key, filling = self._open(number)
                self._put(number, generation, key, filling)
        self._rewrapped += pages
        return end == len(self.states)

    # boxes

    def _open(self, number: int) -> tuple[int, Key, bytes]:
        return open_either(self.keys, number, self._slot(number))

    def _slot(self, number: int) -> bytes:
        return bytes(self.image[number * SLOT_LEN : (number + 1) * SLOT_LEN])

    def _put(self, number: int, generation: int, key: Key, filling: bytes) -> None:
        nonce = self._entropy.octets(XNONCE_LEN)
        offset = number * SLOT_LEN
        self.image[offset : offset + SLOT_LEN] = seal_slot(
            self.keys.current, nonce, number, generation, key, filling
        )
        key.wipe()
        self._dirty.add(number // PAGE_SLOTS)


def read_slot(
    keys: ArenaKeys, number: int, slot: bytes
) -> tuple[int, Key, bytes] | None:
    """Open a slot as it lies on the disk; None: it does not open, or is none of ours."""
    try:
        found = open_either(keys, number, slot)
        parse_filling_untrusted(found[2])
    except RemoteProtocolError:
        return None
    return found


def open_either(keys: ArenaKeys, number: int, slot: bytes) -> tuple[int, Key, bytes]:
    """Open a slot under the current key or, in a re-wrap, under the previous one."""
    try:
        return open_slot_untrusted(keys.current, number, slot)
    except CryptoError:
        if keys.previous is None:
            raise
        return open_slot_untrusted(keys.previous, number, slot)
