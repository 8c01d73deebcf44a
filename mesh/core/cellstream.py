# SPDX-License-Identifier: MIT
"""Cells in one direction of a link: sealed in order, opened in order, or not at all.

    cell     body 4,080 -> box 4,096: ChaCha20-Poly1305, no associated data, the
             nonce counts cells since the last rekey (cipherstate.py)
    rekey    after every 64 cells, by both ends alike, told by nobody

         cells of the stream   key                                     nonce
         0 .. 63               k0 = K("I->R") or K("R->I")             0 .. 63
         64 .. 127             k1 = BLAKE2b-256(key=k0, "mesh/1 rekey")  0 .. 63
         ...

Invariant: TCP keeps order, so a cell that does not open is an attack or a broken
machine.  The opener then wipes its key and opens nothing any more; flipped, dropped,
repeated, swapped and foreign cells all end so.  The key of a past cell is gone after
63 more; cells always flow, so the count is also a time.
The body's content makes no difference to the work: padding is sealed like mail.
See `mesh help protocol`, cells.
"""

from collections.abc import Sequence
from typing import Final

from mesh.core.cell import BODY_LEN, CELL_LEN
from mesh.core.cipherstate import CipherState
from mesh.core.crypto import Key, Octets, Place
from mesh.errors import CryptoError, LocalProtocolError

REKEY_AFTER_CELLS: Final = 64
"""Cells a key: a minute at 1 cell/s, and 1/64 of a hash a cell in cost."""


class CellSealer:
    """The sending half: bodies in, cells out."""

    __slots__ = ("_cipher",)

    def __init__(self, key: Key) -> None:
        """Take the direction's key over."""
        self._cipher = CipherState(key)

    def seal(self, body: Octets) -> bytes:
        """Seal one body of 4,080 octets into the next cell of 4,096."""
        if len(body) != BODY_LEN:
            raise LocalProtocolError("a body has 4,080 octets")
        cell = self._cipher.encrypt_with_ad(b"", body)
        if self._cipher.count == REKEY_AFTER_CELLS:
            self._cipher.rekey()
        return cell

    def seal_over(self, cell: Place) -> None:
        """Seal the body at the head of a cell's 4,096 octets into that very cell."""
        if self._cipher.seal_over(cell, BODY_LEN) == REKEY_AFTER_CELLS:
            self._cipher.rekey()

    def seal_each(
        self, bodies: Sequence[memoryview], cells: Sequence[memoryview]
    ) -> None:
        """Seal many bodies in order, each into its cell's place: a third of the work.

        What stops it in between ends the stream: the key is zeroed.
        """
        if len(bodies) != len(cells):
            raise LocalProtocolError("each body wants a cell")
        begin = 0
        try:
            while begin < len(cells):
                end = begin + REKEY_AFTER_CELLS - self._cipher.count
                count = self._cipher.seal_each(bodies[begin:end], cells[begin:end])
                if count == REKEY_AFTER_CELLS:
                    self._cipher.rekey()
                begin = end
        except BaseException:
            self.wipe()
            raise

    def surrender(self) -> Key:
        """Give up the key of a stream that has not begun, to whoever goes on with it."""
        return self._cipher.surrender()

    def wipe(self) -> None:
        """Zero the key: nothing can be sealed after this."""
        self._cipher.wipe()


class CellOpener:
    """The receiving half: cells in, bodies out, until the first that does not open."""

    __slots__ = ("_cipher", "_dead")

    def __init__(self, key: Key) -> None:
        """Take the direction's key over."""
        self._cipher = CipherState(key)
        self._dead = False

    def open_untrusted(self, cell: Octets) -> bytes:
        """Open the next cell; CryptoError, now and ever after, if it is not that."""
        if self._dead or len(cell) != CELL_LEN:
            self.wipe()
            raise CryptoError("this is not the next cell of the link")
        try:
            body = self._cipher.decrypt_with_ad_untrusted(b"", cell)
        except CryptoError:
            self.wipe()
            raise
        if self._cipher.count == REKEY_AFTER_CELLS:
            self._cipher.rekey()
        return body

    def open_into_untrusted(self, cell: Place, body: Place) -> None:
        """Open the next cell into a place; CryptoError as above."""
        if self._dead:
            raise CryptoError("this is not the next cell of the link")
        try:
            count = self._cipher.open_into_untrusted(cell, CELL_LEN, body)
        except CryptoError:
            self.wipe()
            raise
        if count == REKEY_AFTER_CELLS:
            self._cipher.rekey()

    def open_each_untrusted(
        self, cells: Sequence[memoryview], bodies: Sequence[memoryview]
    ) -> int:
        """Open many cells in order, into so many places; how many did before one did not.

        Fewer than all: that one is not the next cell, and nothing opens any more.
        """
        begin = 0
        while begin < len(cells) and not self._dead:
            before = self._cipher.count
            some = cells[begin : begin + REKEY_AFTER_CELLS - before]
            places = bodies[begin : begin + len(some)]
            count = self._cipher.open_each_untrusted(some, places)
            begin += count - before
            if count - before < len(some):
                self.wipe()
            elif count == REKEY_AFTER_CELLS:
                self._cipher.rekey()
        return begin

    def surrender(self) -> Key:
        """Give up the key of a stream that has not begun, to whoever goes on with it."""
        key = self._cipher.surrender()
        self._dead = True
        return key

    def wipe(self) -> None:
        """Zero the key: nothing can be opened after this."""
        self._dead = True
        self._cipher.wipe()
