# SPDX-License-Identifier: MIT
"""What every test shares: randomness that repeats."""

import hashlib

from mesh.core.crypto import Key


class FixedEntropy:
    """The same draws for the same seed: SHAKE-256 over a counter."""

    def __init__(self, seed: bytes | str = b"") -> None:
        self._seed = seed.encode() if isinstance(seed, str) else seed
        self._counter = 0

    def octets(self, length: int) -> bytes:
        self._counter += 1
        counter = self._counter.to_bytes(8, "big")
        return hashlib.shake_256(counter + self._seed).digest(length)

    def key(self) -> Key:
        return Key.from_bytes(self.octets(32))
