# SPDX-License-Identifier: MIT
"""Octets on their way out: put whole pieces, take as many octets as there is room.

Invariant: octets leave in the order in which they were put, and a long piece is not
copied for every part of it that leaves.
"""

from collections import deque


class Outbox:
    """A queue of pieces that is emptied by octets."""

    __slots__ = ("_begun", "_pieces", "octets")

    def __init__(self) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self._begun = 0  # octets of the first piece that have left
        self.octets = 0
        """How many wait."""

    def __len__(self) -> int:
        return self.octets

    def put(self, piece: bytes | memoryview) -> None:
        """Put octets behind all others."""
        if piece:
            self._pieces.append(piece)
            self.octets += len(piece)

    def take(self, limit: int) -> bytes:
        """The next octets, at most `limit`; b"" when there are none."""
        limit = min(limit, self.octets)
        self.octets -= limit
        return self._take(limit)

    def _take(self, room: int) -> bytes:
        """Take so many octets, which are there and no longer counted."""
        pieces, begun = self._pieces, self._begun
        parts: list[bytes | memoryview] = []
        while room > 0:
            piece = pieces[0]
            end = begun + room
            if end < len(piece):
                parts.append(piece[begun:end])
                begun = end
                break
            parts.append(piece[begun:] if begun else piece)
            room = end - len(piece)
            begun = 0
            pieces.popleft()
        self._begun = begun
        return b"".join(parts)

    def lay(self, room: memoryview, starts: range, length: int) -> None:
        """Lay the next octets, which are there, into `room`: `length` at each start."""
        piece = self._pieces[0]
        begun, whole = self._begun, len(piece)
        for at in starts:
            end = begun + length
            if end < whole:
                room[at : at + length] = piece[begun:end]
                begun = end
            else:
                self._begun = begun
                room[at : at + length] = self._take(length)
                piece = self._pieces[0] if self._pieces else b""
                begun, whole = self._begun, len(piece)
        self._begun = begun
        self.octets -= len(starts) * length

    def clear(self) -> None:
        """Forget everything: there is nobody to take it."""
        self._pieces.clear()
        self._begun = self.octets = 0
