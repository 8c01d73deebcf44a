# SPDX-License-Identifier: MIT
"""Long things of many parts: each part behind its length, laid end to end.

    part   length   4 octets, big-endian
           octets

A statement of msgpack is decoded in one call of C, which neither lets another thread
run nor asks how much memory thousands of empty arrays take.  What is long is therefore
made of parts of bounded size, each decoded alone.  A list of parts has one spelling.
"""

import struct
from collections.abc import Iterable
from typing import Final

from mesh.errors import EncodingError

_LENGTH: Final = struct.Struct(">I")


def join(parts: Iterable[bytes]) -> bytes:
    """Lay parts end to end."""
    return b"".join(
        piece for part in parts for piece in (_LENGTH.pack(len(part)), part)
    )


def split_untrusted(octets: bytes, *, max_parts: int) -> list[bytes]:
    """Take parts apart; EncodingError when the last is cut off, or there are more."""
    parts: list[bytes] = []
    at = 0
    while at < len(octets):
        if len(parts) == max_parts or len(octets) - at < _LENGTH.size:
            raise EncodingError("not a list of parts")
        (length,) = _LENGTH.unpack_from(octets, at)
        at += _LENGTH.size
        if length > len(octets) - at:
            raise EncodingError("not a list of parts")
        parts.append(octets[at : at + length])
        at += length
    return parts
