# SPDX-License-Identifier: MIT
"""Looking at a connection that has proven nothing, at instants that nothing on it chose.

    look k       at the accept (or connect) plus k + 1 pauses, each drawn: see
                 `look_pause`; the first ones are short, so that a hello is not kept
                 waiting: 1/16, 1/8, 1/4, 1/2 of a pause, then whole ones
    at a look    all that has come is read
    its end      seen at one look, answered by our close at the next one

A read sends an acknowledgement and a close a FIN, so both are on the wire at once.
Done when something comes, they would show what else this process does: the envelope
that it opens (a stranger tells by the FIN after 4,096 octets whether somebody tries to
open them), and the mail that it carries (his second connection waits longer).

Invariants: the instants depend on the draws and on the count of looks alone, not on
what has come and not on when an earlier look was done.  What is done with the octets
of a look is done by the next one, which is its own time away.
"""

from typing import Final

import trio

from mesh.core.crypto import Entropy
from mesh.core.handshake import look_pause
from mesh.node.wire import DRAIN_READS, RECEIVE_MAX, Wire

FIRST_SCALE: Final = 1 / 16
"""Of a pause: 6 to 31 ms, which is what the first octets take anyway."""


class Looks:
    """One connection's."""

    def __init__(self, wire: Wire, entropy: Entropy) -> None:
        """Begin now: at the accept, or when all that was said is said."""
        self._wire, self._entropy = wire, entropy
        self._due = trio.current_time()
        self._scale = FIRST_SCALE
        self._ended = False
        self.over = False
        """Whether it is time to close: the other side's end was seen a look ago."""

    async def next(self) -> bytes:
        """Wait for the next look; what it finds, b"" when nothing has come."""
        self._due += self._scale * look_pause(self._entropy)
        self._scale = min(1.0, 2 * self._scale)
        await trio.sleep_until(self._due)
        self.over = self._ended
        found = []
        for _ in range(DRAIN_READS):
            data = self._wire.try_receive(RECEIVE_MAX)
            if not data:
                self._ended = data is not None
                break
            found.append(data)
        return b"".join(found)

    async def ignore(self) -> None:
        """Read and throw away until it is time to close."""
        while not self.over:
            await self.next()
