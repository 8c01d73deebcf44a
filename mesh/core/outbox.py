# SPDX-License-Identifier: MIT
"""Octets on their way out: put whole pieces, take as many octets as there is room.

Invariant: octets leave in the order in which they were put, and a long piece is not
copied for every part of it that leaves.
"""

from collections import deque


class Outbox:
    """A queue of pieces that is emptied by octets."""

    __slots__ = ("_octets", "_pieces")

    def __init__(self) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self._octets = 0

    def __len__(self) -> int:
        return self._octets

    def put(self, piece: bytes | memoryview) -> None:
        """Put octets behind all others."""
        if piece:
            self._pieces.append(piece)
            self._octets += len(piece)

    def take(self, limit: int) -> bytes:
        """The next octets, at most `limit`; b"" when there are none."""
        pieces = self._pieces
        if self._octets <= limit:
            taken = b"".join(pieces)
            pieces.clear()
            self._octets = 0
            return taken
        parts: list[bytes | memoryview] = []
        room = limit
        while room > 0:
            piece = pieces.popleft()
            if len(piece) > room:
                view = memoryview(piece)
                pieces.appendleft(view[room:])
                piece = view[:room]
            parts.append(piece)
            room -= len(piece)
        taken = b"".join(parts)
        self._octets -= len(taken)
        return taken

    def clear(self) -> None:
        """Forget everything: there is nobody to take it."""
        self._pieces.clear()
        self._octets = 0
