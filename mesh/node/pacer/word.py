# SPDX-License-Identifier: MIT
"""What the main process says to the pacer, and the descriptors that come with it.

A SOCK_SEQPACKET pair, one word a packet, integers big-endian:

    kind u8   number u32   value u32    descriptors
    0 HELLO   0            wake-ups to try        the histogram's and board's memory
    1 ADD     a link       class << 8 | clock     its socket, its ring's memory
    2 END     a link       cells to send before the last one; 0: end at once
    3 REPLACE a link       likewise, but the other side is heard out

The pacer answers with packets of one link's number each: it has ended; 0 says that its
trial is over, and a number with REFUSED that it could not take the link.  What does not
fit is said later.  Of cells it says nothing here (board.py).
"""

import enum
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

WORD: Final = struct.Struct(">BII")
NUMBER: Final = struct.Struct(">I")
DESCRIPTORS_MAX: Final = 2
REFUSED: Final = 1 << 31
"""Added to a link's number."""


class Kind(enum.IntEnum):
    """What a word asks for."""

    HELLO = 0
    ADD = 1
    END = 2
    REPLACE = 3


class Word(NamedTuple):
    """One word and what came with it."""

    kind: int
    number: int
    value: int
    descriptors: Sequence[int]


def say(
    sock: socket.socket,
    kind: Kind,
    number: int = 0,
    value: int = 0,
    descriptors: Sequence[int] = (),
) -> None:
    """Send one word; OSError when the other side is gone."""
    socket.send_fds(sock, [WORD.pack(kind, number, value)], list(descriptors))


def hear(sock: socket.socket) -> Word | None:
    """Receive one word; None: the other side is gone."""
    try:
        data, descriptors, _, _ = socket.recv_fds(sock, WORD.size, DESCRIPTORS_MAX)
    except OSError:  # it ended without having read all that we said
        return None
    if len(data) != WORD.size:
        return None
    kind, number, value = WORD.unpack(data)
    return Word(kind, number, value, descriptors)
