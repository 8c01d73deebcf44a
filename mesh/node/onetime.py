# SPDX-License-Identifier: MIT
"""The private halves of the drop folder's one-time keys: state/drop.keys.

    SLOTS blocks of BLOCK_LEN octets, each: box, zeros
    box    nonce 24 | XChaCha20-Poly1305(id 16 | public 32 | private 32) | tag 16
           under a key derived from the spool key; AD = the slot's number

A slot always holds a key.  A key that has served is destroyed by the one that takes its
place, in the same write; a block lies in sectors of its own, so a torn write hurts no
neighbour, whose mail somebody was promised.  Keys stay boxed in memory too.

Invariant: a public half leaves this module's caller only when `write` has returned.
After a failed write or fsync nobody knows which key a slot holds: IoError, the node ends
and reads at its next start what is there.

`draw` and `private` are for the Trio thread, `write` and `open` block.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from mesh.core.crypto import (
    KEY_LEN,
    PUBLIC_LEN,
    XNONCE_LEN,
    Entropy,
    Key,
    x25519_public,
)
from mesh.core.drop import ID_LEN, SLOTS, OneTime
from mesh.core.keybox import OVERHEAD, open_key_untrusted, seal_key
from mesh.errors import CannotCreateError, CryptoError, IoError
from mesh.node.copies import sync_folder

BLOCK_LEN: Final = 4096
"""Octets of a slot: no sector of any disk holds two."""
_BEFORE_LEN: Final = ID_LEN + PUBLIC_LEN
_BOX_LEN: Final = OVERHEAD + _BEFORE_LEN + KEY_LEN
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Slot(NamedTuple):
    """One key: what is public of it, and its box."""

    one: OneTime
    box: bytes


class OneTimeKeys:
    """All slots.  Made by `open`."""

    def __init__(self, fd: int, wrapping: Key, entropy: Entropy) -> None:
        self._fd = fd
        self._wrapping = wrapping
        self._entropy = entropy
        self._slots: list[Slot] = []
        self.new: set[int] = set()
        """Slots whose key was made at this start: nobody has it yet."""

    @classmethod
    def open(cls, path: Path, wrapping: Key, entropy: Entropy) -> "OneTimeKeys":
        """Read the file, made when absent; a slot that does not open gets a new key.

        CannotCreateError or IoError when the disk refuses.
        """
        try:
            fd = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise CannotCreateError(f"{path}: {error.strerror}") from error
        keys = cls(fd, wrapping, entropy)
        try:
            os.fchmod(fd, 0o600)
            blocks = b""
            while part := os.pread(fd, SLOTS * BLOCK_LEN - len(blocks), len(blocks)):
                blocks += part
            fresh: dict[int, Slot] = {}
            for slot in range(SLOTS):
                found = keys._open(slot, blocks[slot * BLOCK_LEN :][:_BOX_LEN])
                if found is None:
                    found = fresh[slot] = keys.draw(slot)
                keys._slots.append(found)
            if fresh:
                keys.write(fresh)
                keys.new.update(fresh)
                sync_folder(path.parent)
        except OSError as error:
            os.close(fd)
            raise IoError(f"{path}: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise
        return keys

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _open(self, slot: int, box: bytes) -> Slot | None:
        try:
            before, key, _ = open_key_untrusted(
                self._wrapping, box, _BEFORE_LEN, _ad(slot)
            )
        except CryptoError:
            return None
        key.wipe()
        return Slot(OneTime(before[:ID_LEN], before[ID_LEN:]), box)

    def one(self, slot: int) -> OneTime:
        """Give the public half of a slot's key."""
        return self._slots[slot].one

    def private(self, slot: int) -> Key:
        """Give the private half; the caller wipes it."""
        box = self._slots[slot].box
        return open_key_untrusted(self._wrapping, box, _BEFORE_LEN, _ad(slot))[1]

    def draw(self, slot: int) -> Slot:
        """Make a new key for a slot; it counts when it is written and adopted."""
        key = self._entropy.key()
        one = OneTime(self._entropy.octets(ID_LEN), x25519_public(key))
        nonce = self._entropy.octets(XNONCE_LEN)
        box = seal_key(self._wrapping, nonce, one.id + one.public, key, b"", _ad(slot))
        key.wipe()
        return Slot(one, box)

    def write(self, fresh: Mapping[int, Slot]) -> None:
        """Put new keys in the place of old ones, on the disk; IoError."""
        try:
            for first, blocks in _runs(fresh):
                rest = memoryview(blocks)
                at = first * BLOCK_LEN
                while rest:
                    done = os.pwrite(self._fd, rest, at)
                    rest, at = rest[done:], at + done
            os.fdatasync(self._fd)
        except OSError as error:
            raise IoError(f"state/drop.keys: {error.strerror}") from error

    def adopt(self, fresh: Mapping[int, Slot]) -> None:
        """Go on with the new keys, once they are written."""
        for slot, key in fresh.items():
            self._slots[slot] = key


def _runs(fresh: Mapping[int, Slot]) -> Iterable[tuple[int, bytes]]:
    """Join the blocks of neighbouring slots: one write each."""
    first, blocks = -1, bytearray()
    for slot in sorted(fresh):
        if blocks and slot * BLOCK_LEN != first * BLOCK_LEN + len(blocks):
            yield first, bytes(blocks)
            blocks.clear()
        if not blocks:
            first = slot
        blocks += fresh[slot].box.ljust(BLOCK_LEN, b"\0")
    if blocks:
        yield first, bytes(blocks)


def _ad(slot: int) -> bytes:
    return slot.to_bytes(4, "big")
