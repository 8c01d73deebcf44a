# SPDX-License-Identifier: MIT
"""Where secrets live: a slab of locked memory, and the Key that owns one slot of it.

    slab   64 KiB of anonymous memory: locked against swapping, left out of core
           dumps and of forked children; another one when all its slots are taken
    slot   64 octets: one Key of 32 or 64; zeroed when the Key is wiped or collected

`bytes` is never the type of a secret, because Python copies and keeps them.

Invariant: a secret is reached by its address only, and its slot holds zeros before and
after its Key.  Nothing here computes: crypto.py does.
"""

import mmap
from typing import Any, ClassVar, Final, TypeAlias

from nacl import _sodium  # type: ignore[attr-defined]  # the cffi handle, untyped

from mesh.errors import LocalProtocolError

lib: Final[Any] = _sodium.lib
ffi: Final[Any] = _sodium.ffi

Octets: TypeAlias = bytes | bytearray | memoryview
Place: TypeAlias = Any
"""An address from `address_of`, or one so many octets behind it."""

KEY_LEN: Final = 32
"""Octets of a symmetric key, an X25519 scalar, an Ed25519 seed."""
LONG_KEY_LEN: Final = 64
"""Octets of a chaining key and of an expanded Ed25519 key."""

SLOT_LEN: Final = 64
SLAB_LEN: Final = 65536
"""Octets of a slab: below the 64 KiB that an unprivileged process may always lock."""

if lib.sodium_init() < 0:
    raise AssertionError("libsodium does not start")


def new_locked(length: int) -> Any:
    """Anonymous zeroed memory: locked, not dumped, not inherited by a fork."""
    region = mmap.mmap(-1, length)
    region.madvise(mmap.MADV_DONTDUMP)
    region.madvise(mmap.MADV_DONTFORK)
    address = ffi.from_buffer("unsigned char[]", region)
    # A refusal (RLIMIT_MEMLOCK) leaves the memory usable; swapping is then the
    # operator's matter, and the service file forbids it.
    lib.sodium_mlock(address, length)
    return address


def wipe_buffer(place: memoryview) -> None:
    """Zero a writable buffer, however clever the compiler."""
    lib.sodium_memzero(address_of(place), place.nbytes)


def address_of(place: bytearray | memoryview) -> Place:
    """Give a buffer's address, which keeps it where it is; BufferError: nobody may write."""
    return ffi.from_buffer("unsigned char[]", place, require_writable=True)


class _Slab:
    """All slots for keys; grows by one locked region when it is used up.

    Any thread may take and give back: each list call is one step to the others.
    """

    def __init__(self) -> None:
        self._regions: list[Any] = []
        self._free: list[Any] = []
        self._zero: Any = lib.sodium_memzero

    def take(self) -> Any:
        while True:
            try:
                return self._free.pop()
            except IndexError:
                region = new_locked(SLAB_LEN)
            self._regions.append(region)
            self._free.extend([region + at for at in range(0, SLAB_LEN, SLOT_LEN)])

    def give_back(self, slot: Any, length: int = SLOT_LEN) -> None:
        self._zero(slot, length)
        self._free.append(slot)


_slab: Final = _Slab()


class Key:
    """A secret of 32 or 64 octets in locked memory; zeroed by `wipe` or when dropped.

    Comparison takes the same time whatever differs; the repr shows nothing.
    Using a wiped Key is a bug and raises LocalProtocolError.
    """

    __slots__ = ("length", "slot")
    # Not the module's global: that goes before the last keys when the process ends.
    _home: ClassVar[_Slab] = _slab

    def __init__(self, length: int = KEY_LEN) -> None:
        """Make an all-zero key, to be filled by this module."""
        self.slot: Any = None
        """The address, for who uses it in each cell; None when the key was wiped."""
        if length not in (KEY_LEN, LONG_KEY_LEN):
            raise LocalProtocolError("a key has 32 or 64 octets")
        self.length = length
        self.slot = _slab.take()

    @classmethod
    def from_bytes(cls, secret: Octets) -> "Key":
        """Copy a secret in; the caller's copy is the caller's to forget."""
        key = cls(len(secret))
        ffi.memmove(key.slot, secret, len(secret))
        return key

    @property
    def address(self) -> Any:
        """Where the octets are, for libsodium."""
        if self.slot is None:
            raise LocalProtocolError("this key was wiped")
        return self.slot

    def copy(self) -> "Key":
        """Give a second Key of the same octets, with a life of its own."""
        key = Key(self.length)
        ffi.memmove(key.slot, self.address, self.length)
        return key

    def copy_into(self, place: memoryview) -> None:
        """Copy the secret into memory that its reader zeroes: the pacer's."""
        if place.nbytes != self.length:
            raise LocalProtocolError("a place of another length than the key's")
        ffi.memmove(address_of(place), self.address, self.length)

    def unsafe_bytes(self) -> bytes:
        """Copy the secret out, for a key file or a known-answer test only."""
        return bytes(ffi.buffer(self.address, self.length))

    def wipe(self) -> None:
        """Zero the octets and give the slot back; again is no error."""
        if self.slot is not None:
            self._home.give_back(self.slot)
            self.slot = None

    def __del__(self) -> None:
        self.wipe()

    def __len__(self) -> int:
        return self.length

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key) or other.length != self.length:
            return NotImplemented
        return bool(lib.sodium_memcmp(self.address, other.address, self.length) == 0)

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key

    def __repr__(self) -> str:
        return f"<Key of {self.length} octets>"

    def __reduce__(self) -> Any:
        raise LocalProtocolError("a key does not leave its memory")
