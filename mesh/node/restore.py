# SPDX-License-Identifier: MIT
"""How the key arena comes back from its two copies, whatever a crash left of them.

    a slot opens in    it counts
    both, alike        as it is
    both, different    by the greater generation: a forgetting that was under way
    one                as it is there: the other's sector was torn
    neither            as DAMAGED

Then the copies are made equal, in the order of every write: what differs in arena.a
first, its fsync, then what differs in arena.b.  After one torn write the copy that is
written is never the only one that opens.  The same holds for the two places of the
arena key, where the greater sequence counts.

A slot that opens is FREE until a row claims it, unless it is a tombstone.  Blocking.
"""

from contextlib import suppress
from typing import Final

from mesh.core.crypto import Entropy, Key
from mesh.core.slot import (
    KEYS_LEN,
    SLOT_LEN,
    ArenaKeys,
    Tombstone,
    open_keys_untrusted,
    parse_filling_untrusted,
)
from mesh.errors import RemoteProtocolError, SpoolCorruptError
from mesh.node.arena import PAGE_LEN, SLOTS_MIN, Arena, State, open_either
from mesh.node.copies import Copies

FIRST_SEQUENCE: Final = 1
"""Of the arena key's box that `create_arena` writes."""


def create_arena(copies: Copies, spool_key: Key, entropy: Entropy) -> None:
    """Write an arena of SLOTS_MIN free slots; its key file is written last."""
    arena = Arena(spool_key, ArenaKeys(0, 0, 0, entropy.key(), None), b"", entropy)
    arena.grow(SLOTS_MIN)
    copies.write(arena.begin_flush().pieces)
    copies.write_keys(arena.box(arena.grown_keys(0)))


def begin_arena(copies: Copies, spool_key: Key, entropy: Entropy) -> None:
    """Make the arena of a spool that has no database yet; SpoolCorruptError if it had.

    A new arena's key has been written once; `note_database` writes it again.
    """
    boxes = copies.read_keys(KEYS_LEN)
    if all(any(box) for box in boxes):
        _open_keys(copies, spool_key)  # or it is another key's arena: not to be lost
    for box in boxes:
        with suppress(RemoteProtocolError):
            if open_keys_untrusted(spool_key, box).sequence > FIRST_SEQUENCE:
                raise SpoolCorruptError(
                    "spool.db is gone: put it back, or remove the folder spool to begin "
                    "anew without what it held"
                )
    create_arena(copies, spool_key, entropy)


def note_database(copies: Copies, arena: Arena) -> None:
    """From now on a database that is not there is one that was lost."""
    keys = arena.timed_keys(arena.keys.running)
    copies.write_keys(arena.box(keys))
    arena.adopt(keys)


def open_arena(
    copies: Copies, spool_key: Key, entropy: Entropy
) -> tuple[Arena, list[tuple[int, Tombstone]]]:
    """Read both copies and make them equal: the arena, and its tombstones.

    SpoolCorruptError when the arena key opens in neither place.
    """
    keys = _open_keys(copies, spool_key)
    first, second = copies.read(keys.slots * SLOT_LEN)
    arena = Arena(spool_key, keys, first, entropy)
    tombstones: list[tuple[int, Tombstone]] = []
    for number in range(keys.slots):
        offset = number * SLOT_LEN
        one, two = first[offset : offset + SLOT_LEN], second[offset : offset + SLOT_LEN]
        found = _read_slot(keys, number, one)
        if one != two:
            other = _read_slot(keys, number, two)
            if other is not None and (found is None or other[0] > found[0]):
                found = other
                arena.image[offset : offset + SLOT_LEN] = two
        if found is None:
            arena.states[number] = State.DAMAGED
            continue
        arena.generations[number], tombstone = found
        if tombstone is not None:
            arena.states[number] = State.TOMBSTONE
            tombstones.append((number, tombstone))
    _mend(copies, arena.image, first, second)
    return arena, tombstones


def _read_slot(
    keys: ArenaKeys, number: int, slot: bytes
) -> tuple[int, Tombstone | None] | None:
    try:
        generation, _, filling = open_either(keys, number, slot)
        return generation, parse_filling_untrusted(filling)
    except RemoteProtocolError:
        return None


def _mend(copies: Copies, image: bytearray, first: bytes, second: bytes) -> None:
    """Write the pages in which a copy differs from what was made of both."""
    if first == second:
        return
    pieces = [
        [
            (at, bytes(image[at : at + PAGE_LEN]))
            for at in range(0, len(image), PAGE_LEN)
            if image[at : at + PAGE_LEN] != copy[at : at + PAGE_LEN]
        ]
        for copy in (first, second)
    ]
    copies.mend(*pieces)


def _open_keys(copies: Copies, spool_key: Key) -> ArenaKeys:
    """Open the arena key, and write it where it is missing or behind."""
    boxes = copies.read_keys(KEYS_LEN)
    found: list[tuple[int, int, ArenaKeys]] = []
    for place, box in enumerate(boxes):
        try:
            keys = open_keys_untrusted(spool_key, box)
        except RemoteProtocolError:
            continue
        found.append((keys.sequence, -place, keys))
    if not found:
        raise SpoolCorruptError(
            "arena.key does not open: it is damaged or this is another spool.key"
        )
    _, place, keys = max(found, key=lambda entry: entry[:2])
    if boxes[0] != boxes[1]:
        copies.write_keys(boxes[-place], (1 + place,))
    return keys
