# SPDX-License-Identifier: MIT
"""The memory that the main process and the pacer share for one link.

    page 0   counters, u64 in the machine's order   0 bodies put for sending     (main)
                                                    1 of them taken              (pacer)
                                                    2 bodies put that came       (pacer)
                                                    3 of them taken              (main)
                                                    4 why the link ended, 0: not (pacer)
             octets 2,048 .. 2,111                  the sealer's key, the opener's,
                                                    zeroed by the pacer when it has them
    then     `out` slots of a page each, then `into` slots; a body at each one's start

Each counter has one writer.  A slot is filled before its counter moves and zeroed by
its reader before the counter that frees it does.  `take` copies a whole body always,
of zeros when there is none, so that the sender's work does not depend on mail.

The number of slots follows the class alone: `out` a quarter of a second, so that a
main process that stalls leaves mail waiting and not the wire; `into` four seconds, in
which it may stop without the pacer reading later (then the link is as good as silent).
"""

import mmap
import os
import threading
from typing import Final

from mesh.core.cell import BODY_LEN, PADDING
from mesh.core.clock import rate_of
from mesh.core.crypto import (
    KEY_LEN,
    Key,
    Octets,
    Place,
    address_of,
    memmove,
    wipe_buffer,
)

PAGE: Final = 4096
KEYS_AT: Final = 2048
OUT_SECONDS: Final = 0.25
OUT_MIN: Final = 2
OUT_MAX: Final = 48
"""Bodies: all that was put must leave within the 64 cells that a replaced link has."""
INTO_SECONDS: Final = 4.0
MAP_LOCKED: Final = 0x2000
"""mmap(2): never swapped; Python 3.11 has no name for it."""
INTO_MIN: Final = 16
"""Bodies: with OUT_MIN and the first page 76 KiB a link, whatever its class."""

_OUT_PUT, _OUT_TAKEN, _INTO_PUT, _INTO_TAKEN, _ENDED = range(5)


def _two_turns() -> None:
    """A barrier: nothing passes one lock's release and another one's acquire."""
    with _between:
        pass
    with _between:
        pass


def _nothing() -> None:
    """x86 keeps writes in order, and reads."""


_between: Final = threading.Lock()
ORDERED: Final = os.uname().machine == "x86_64"
"""Whether `fence` does nothing: where each cell comes by, it is not even called."""
fence: Final = _nothing if ORDERED else _two_turns
"""Orders what was written, or read, before it against what is after it."""


def slots_of(klass: int) -> tuple[int, int]:
    """How many slots a link of this class has: (out, into)."""
    rate = rate_of(klass)
    out = min(OUT_MAX, max(OUT_MIN, int(OUT_SECONDS * rate)))
    return out, max(INTO_MIN, int(INTO_SECONDS * rate))


class Ring:
    """One link's shared memory, from either side."""

    __slots__ = (
        "_first",
        "_into",
        "_into_first",
        "_into_put",
        "_memory",
        "_octets",
        "_out",
        "_out_taken",
        "_words",
        "place",
    )

    def __init__(self, memory: mmap.mmap | bytearray, klass: int) -> None:
        self._out, self._into = slots_of(klass)
        self._memory = memory
        self._octets = memoryview(memory)
        self._words = self._octets[: 8 * 8].cast("Q")
        self._first: Place = address_of(self._octets) + PAGE
        # The pacer's own counters: it need not read what nobody else writes.
        self._out_taken, self._into_put = (
            self._words[_OUT_TAKEN],
            self._words[_INTO_PUT],
        )
        self._into_first = self._first + PAGE * self._out
        self.place: Place = self._into_first + PAGE * (self._into_put % self._into)
        """Where the next body that comes is to be; its writer looks at `into_room`."""

    @classmethod
    def create(cls, klass: int) -> tuple["Ring", int]:
        """Make the memory; also its descriptor, to be handed over and closed."""
        fd = os.memfd_create("mesh-link", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, length_of(klass))
            return cls.attach(fd, klass), fd
        except OSError:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int, klass: int) -> "Ring":
        """Open the memory behind a descriptor."""
        # All pages now: a first touch later would cost the instant at which it falls.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        try:
            memory = mmap.mmap(fd, length_of(klass), flags | MAP_LOCKED)
        except (
            OSError
        ):  # RLIMIT_MEMLOCK: swapping is the operator's matter, as for keys
            memory = mmap.mmap(fd, length_of(klass), flags)
        memory.madvise(mmap.MADV_DONTDUMP)
        memory.madvise(mmap.MADV_DONTFORK)
        return cls(memory, klass)

    def close(self) -> None:
        """Zero what is mine to zero, and let go of the memory."""
        wipe_buffer(self._octets[KEYS_AT : KEYS_AT + 2 * KEY_LEN])
        self._first = self._into_first = self.place = None
        self._words.release()
        self._octets.release()
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()

    # the main process

    @property
    def room(self) -> int:
        """Bodies that may be put for sending now."""
        return self._out - (self._words[_OUT_PUT] - self._words[_OUT_TAKEN])

    def put(self, body: Octets) -> None:
        """Add a body to send; the caller has looked at `room`."""
        put = self._words[_OUT_PUT]
        at = PAGE * (1 + put % self._out)
        self._octets[at : at + BODY_LEN] = body
        fence()
        self._words[_OUT_PUT] = put + 1

    def come(self) -> bytes | None:
        """Take the next body that came; None: there is none."""
        taken = self._words[_INTO_TAKEN]
        if taken == self._words[_INTO_PUT]:
            return None
        fence()
        at = PAGE * (1 + self._out + taken % self._into)
        body = bytes(self._octets[at : at + BODY_LEN])
        self._octets[at : at + BODY_LEN] = PADDING
        fence()
        self._words[_INTO_TAKEN] = taken + 1
        return body

    @property
    def ended(self) -> int:
        """Why the link ended, one of lane.py's; 0 while it lives."""
        return self._words[_ENDED]

    def put_keys(self, sealer: Key, opener: Key) -> None:
        """Lay the two directions' keys down for the pacer."""
        sealer.copy_into(self._octets[KEYS_AT : KEYS_AT + KEY_LEN])
        opener.copy_into(self._octets[KEYS_AT + KEY_LEN : KEYS_AT + 2 * KEY_LEN])

    # the pacer

    def take_keys(self) -> tuple[Key, Key]:
        """Take the sealer's and the opener's key out and zero them here."""
        place = self._octets[KEYS_AT : KEYS_AT + 2 * KEY_LEN]
        keys = Key.from_bytes(place[:KEY_LEN]), Key.from_bytes(place[KEY_LEN:])
        wipe_buffer(place)
        return keys

    def take(self, body: Place) -> None:
        """Copy the next body to send, or zeros, to a place."""
        taken = self._out_taken
        if taken == self._words[_OUT_PUT]:
            memmove(body, PADDING, BODY_LEN)
            return
        fence()
        slot = self._first + PAGE * (taken % self._out)
        memmove(body, slot, BODY_LEN)
        memmove(slot, PADDING, BODY_LEN)
        fence()
        self._out_taken = self._words[_OUT_TAKEN] = taken + 1

    @property
    def into_room(self) -> int:
        """Bodies that came and that can be put now."""
        return self._into - (self._into_put - self._words[_INTO_TAKEN])

    def came(self) -> None:
        """The body at `place` is whole."""
        if not ORDERED:
            fence()
        self._into_put = put = self._into_put + 1
        self._words[_INTO_PUT] = put
        self.place = self._into_first + PAGE * (put % self._into)

    def end(self, reason: int) -> None:
        """Say why the link ended; nothing more comes."""
        fence()
        self._words[_ENDED] = reason


def length_of(klass: int) -> int:
    """Octets of the memory of a link of this class."""
    out, into = slots_of(klass)
    return PAGE * (1 + out + into)
