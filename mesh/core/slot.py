# SPDX-License-Identifier: MIT
"""Slots of the key arena and the file that holds the arena's own key.

A slot, SLOT_LEN = 128 octets, all alike whether free, used, or a tombstone:

    offset  length  field
         0      24  nonce        random
        24       8  generation   counts the slot's lives, from 1    \
        32      32  key          random; one record's, or nobody's   | sealed under the
        64      48  filling      zeros, or as below                  | arena key, with
       112      16  tag                                             /  AD = slot number

A slot with a record in it may say that the peer which brought the record needs its id
no more: it was heard that it is stored, and will not offer it again.

    kind 2 = 2 | zeros 47

A tombstone is what stays of a record that came from a peer: its id, so that the same
message offered again is not stored twice.  It takes the record's slot in the same
overwrite that destroys its key.  Filling of a tombstone:

    kind 1 = 1 | origin 16 | origin_id 16 | expiry u64, running seconds | zeros 7

The arena key's box, KEYS_LEN = 169 octets, sealed under the spool key:

    nonce 24 | sequence u64 | running seconds u64 | slots u64 | current key 32
             | 1 with, 0 without previous | previous key in a box of its own 72 | tag 16

While slots are re-wrapped each opens under the current key or under the previous one.
Without a previous key its place holds a second box of the current one.
What is here is a format; which slot holds what, and when, is `mesh.node.arena`.
"""

import struct
from dataclasses import dataclass
from typing import Final

from mesh.core.crypto import Key
from mesh.core.keybox import OVERHEAD, open_key_untrusted, seal_key
from mesh.errors import CryptoError, EncodingError

SLOT_LEN: Final = 128
FILLING_LEN: Final = 48
EMPTY: Final = bytes(FILLING_LEN)

_NUMBER: Final = struct.Struct(">Q")
_TOMBSTONE: Final = struct.Struct(">B16s16sQ7s")
_IS_TOMBSTONE: Final = 1
ID_DONE: Final = b"\2".ljust(FILLING_LEN, b"\0")
"""Filling of a record's slot whose id need not be known."""
_ZEROS_7: Final = bytes(7)
_KEYS: Final = struct.Struct(">QQQ")
_INNER_LEN: Final = 32 + OVERHEAD
KEYS_LEN: Final = OVERHEAD + _KEYS.size + 32 + 1 + _INNER_LEN
"""Octets of the arena key's box."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The id of a message that is gone, until its peer is done with it or `expiry`."""

    origin: bytes
    origin_id: bytes
    expiry: int


@dataclass(frozen=True, slots=True)
class ArenaKeys:
    """What opens the arena, and the two numbers that live beside it."""

    sequence: int
    running: int
    slots: int
    current: Key
    previous: Key | None


def pack_tombstone(tombstone: Tombstone) -> bytes:
    """Write a tombstone as a slot's filling."""
    return _TOMBSTONE.pack(
        _IS_TOMBSTONE,
        tombstone.origin,
        tombstone.origin_id,
        tombstone.expiry,
        _ZEROS_7,
    )


def parse_filling_untrusted(filling: bytes) -> Tombstone | None:
    """Read a filling; EncodingError when it is none that we write."""
    if filling in (EMPTY, ID_DONE):
        return None
    if len(filling) != FILLING_LEN:
        raise EncodingError("a filling has the wrong length")
    kind, origin, origin_id, expiry, rest = _TOMBSTONE.unpack(filling)
    if kind != _IS_TOMBSTONE or rest != _ZEROS_7:
        raise EncodingError("a filling that we never write")
    return Tombstone(origin, origin_id, expiry)


def seal_slot(
    arena_key: Key, nonce: bytes, number: int, generation: int, key: Key, filling: bytes
) -> bytes:
    """Make slot `number`'s 128 octets."""
    return seal_key(
        arena_key,
        nonce,
        _NUMBER.pack(generation),
        key,
        filling,
        _NUMBER.pack(number),
    )


def open_slot_untrusted(
    arena_key: Key, number: int, slot: bytes
) -> tuple[int, Key, bytes]:
    """Open slot `number`: (generation, key, filling); CryptoError if it does not."""
    if len(slot) != SLOT_LEN:
        raise CryptoError("a slot has the wrong length")
    generation, key, filling = open_key_untrusted(
        arena_key, slot, _NUMBER.size, _NUMBER.pack(number)
    )
    return _NUMBER.unpack(generation)[0], key, filling


def seal_keys(spool_key: Key, nonces: tuple[bytes, bytes], keys: ArenaKeys) -> bytes:
    """Make the arena key's box from two fresh nonces of 24 octets."""
    previous = keys.previous if keys.previous is not None else keys.current
    inner = seal_key(spool_key, nonces[1], b"", previous, b"", b"previous")
    before = _KEYS.pack(keys.sequence, keys.running, keys.slots)
    flag = bytes([keys.previous is not None])
    after = flag + inner
    return seal_key(spool_key, nonces[0], before, keys.current, after, b"arena")


def open_keys_untrusted(spool_key: Key, box: bytes) -> ArenaKeys:
    """Open the arena key's box; CryptoError if it does not."""
    before, current, after = open_key_untrusted(spool_key, box, _KEYS.size, b"arena")
    if len(after) != 1 + _INNER_LEN:
        raise CryptoError("the arena key's box has the wrong length")
    sequence, running, slots = _KEYS.unpack(before)
    previous = None
    if after[0]:
        previous = open_key_untrusted(spool_key, after[1:], 0, b"previous")[1]
    return ArenaKeys(sequence, running, slots, current, previous)
