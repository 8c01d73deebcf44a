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

Only slots that differ are opened here: the others are read when their turn comes
(recovery.py), so that a large arena is open in the time of reading its files.  Blocking.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from mesh.core.crypto import Entropy, Key
from mesh.core.slot import (
    KEYS_LEN,
    SLOT_LEN,
    ArenaKeys,
    open_keys_untrusted,
)
from mesh.errors import RemoteProtocolError, SpoolCorruptError
from mesh.node.arena import PAGE_LEN, SLOTS_MIN, Arena, read_slot
from mesh.node.copies import Copies, check_regular, sync_folder
from mesh.node.groups import PAGE_LEN as DATABASE_PAGE_LEN
from mesh.node.groups import Groups

_Piece = tuple[int, bytes]

FIRST_SEQUENCE: Final = 1
"""Of the arena key's box that `create_arena` writes."""


def open_files(
    path: Path, spool_key: Key, entropy: Entropy
) -> tuple[Copies, Arena, Groups]:
    """Open the files of the spool in this folder, made when absent.

    SpoolCorruptError: it is damaged as a whole, or the key is another spool's.
    OSError: the folder or a file cannot be made or read.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    sync_folder(path.parent)
    database = path / "spool.db"
    # The database is made last: without it nothing was ever accepted.
    check_regular(database)
    is_new = not database.exists() or database.stat().st_size < DATABASE_PAGE_LEN
    copies = Copies(path)
    if is_new:
        begin_arena(copies, spool_key, entropy)
    arena = open_arena(copies, spool_key, entropy)
    is_first = arena.keys.sequence == FIRST_SEQUENCE
    groups = Groups(database, new=is_first)
    if is_first:
        note_database(copies, arena)
    return copies, arena, groups


def create_arena(copies: Copies, spool_key: Key, entropy: Entropy) -> None:
    """Write an arena of SLOTS_MIN free slots; its key file is written last."""
    keys = ArenaKeys(0, 0, 0, entropy.key(), None)
    arena = Arena(spool_key, keys, bytearray(), entropy)
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


def open_arena(copies: Copies, spool_key: Key, entropy: Entropy) -> Arena:
    """Read both copies and make them equal.

    SpoolCorruptError when the arena key opens in neither place.
    """
    keys = _open_keys(copies, spool_key)
    image = bytearray(keys.slots * SLOT_LEN)
    pieces: tuple[list[_Piece], list[_Piece]] = ([], [])
    for at, first, second in copies.chunks(len(image)):
        end = at + len(first)
        image[at:end] = first
        if first != second:
            _choose(keys, image, at, first, second)
            made = bytes(image[at:end])
            for mended, copy in zip(pieces, (first, second), strict=True):
                mended += _changed(at, made, copy)
    if any(pieces):
        copies.mend(*pieces)
    return Arena(spool_key, keys, image, entropy)


def _choose(
    keys: ArenaKeys, image: bytearray, at: int, first: bytes, second: bytes
) -> None:
    """Put into the image which of two different slots counts, for each."""
    for offset in range(0, len(first), SLOT_LEN):
        one, two = first[offset : offset + SLOT_LEN], second[offset : offset + SLOT_LEN]
        if one == two:
            continue
        number = (at + offset) // SLOT_LEN
        found, other = read_slot(keys, number, one), read_slot(keys, number, two)
        if other is not None and (found is None or other[0] > found[0]):
            image[at + offset : at + offset + SLOT_LEN] = two


def _changed(at: int, made: bytes, copy: bytes) -> list[_Piece]:
    """Give the pages of what was made of both in which a copy differs from it."""
    return [
        (at + offset, made[offset : offset + PAGE_LEN])
        for offset in range(0, len(made), PAGE_LEN)
        if made[offset : offset + PAGE_LEN] != copy[offset : offset + PAGE_LEN]
    ]


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
