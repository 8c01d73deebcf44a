# SPDX-License-Identifier: MIT
"""A group as its row says it: what is in clear there, and the boxes of its heads.

What the parts are is in groups.py.  They are judged by their lengths here, and believed
in nothing else: the boxes are opened by who has the keys (recovery.py).
"""

import struct
from dataclasses import dataclass
from typing import Final

from mesh.core.record import HEAD_LEN, SALT_LEN

ENTRY: Final = struct.Struct(">IQI")
"""Slot, generation, length of the sealed body: what a row says of a record in clear."""


@dataclass(frozen=True, slots=True)
class Row:
    """A group without its bodies."""

    id: int
    salt: bytes
    entries: tuple[tuple[int, int, int], ...]
    """Slot, generation, length of the sealed body."""
    heads: bytes
    sound: bool
    """The parts agree with each other in length."""


def row_of(
    number: int, salt: object, slots: object, heads: object, body: object
) -> Row:
    """Judge a row by its lengths; `body` is the length of its bodies."""
    if (
        not isinstance(salt, bytes)
        or len(salt) != SALT_LEN
        or not isinstance(slots, bytes)
        or len(slots) % ENTRY.size
    ):
        return Row(number, b"", (), b"", sound=False)
    entries = tuple(ENTRY.iter_unpack(slots))
    if not isinstance(heads, bytes):
        heads = b""
    sound = len(heads) == HEAD_LEN * len(entries) and body == sum(
        entry[2] for entry in entries
    )
    return Row(number, salt, entries, heads, sound)
