# SPDX-License-Identifier: MIT
"""Messages over one link's inside and its cells, a step at a time, timed (steps.py).

    pack      streams and their commands into bodies
    seal      bodies into cells
    send      into the kernel, as many as one call takes
    receive   out of it
    open      cells into bodies
    parse     what the bodies say: streams, dialogue, and what is answered

Both ends are in this process, the connection is loopback's, and so many messages come at
once; their replies go the same way back.
"""

from collections.abc import Sequence
from typing import Any, Final

from benchmarks.cost import Cost, Load, Watch
from benchmarks.floors import tcp_pair
from benchmarks.links import session
from benchmarks.speaker import FROM, TO, text_of
from mesh.core.cell import BODY_LEN, CELL_LEN, PADDING
from mesh.core.clock import Clock
from mesh.core.crypto import SystemEntropy
from mesh.core.link import Done, Link, Received
from mesh.core.reply import OK
from mesh.core.smtp import Finished, Outgoing
from mesh.node.wire import RECEIVE_MAX, SocketWire

MESSAGE_MAX: Final = 30_000_000
ROOM_CELLS: Final = RECEIVE_MAX // CELL_LEN


class Cells:
    """One direction of a link: bodies out of one end, into the other, by a socket."""

    def __init__(
        self,
        near: Link,
        far: Link,
        sealer: Any,
        opener: Any,
        wires: Sequence[SocketWire],
    ) -> None:
        self._near, self._far = near, far
        self._sealer, self._opener = sealer, opener
        self._sends, self._receives = wires
        self._plain, self._sealed = (
            memoryview(bytearray(ROOM_CELLS * CELL_LEN)) for _ in range(2)
        )
        starts = range(0, len(self._plain), CELL_LEN)
        self._bodies = [self._plain[at : at + BODY_LEN] for at in starts]
        self._cells = [self._sealed[at : at + CELL_LEN] for at in starts]
        self.pack, self.seal, self.send, self.receive, self.open, self.parse = (
            Watch() for _ in range(6)
        )

    def carry(self) -> None:
        """Bring all that the near end has to say to the far one."""
        while end := self._write():
            self._carry(end)

    def _write(self) -> int:
        """Write as many as one call of the kernel takes; their octets, as cells."""
        end = 0
        with self.pack:
            while end < len(self._plain) and self._near.has_data:
                end += self._near.write_bodies(self._plain[end:])
        return end

    def _carry(self, end: int) -> None:
        count = end // CELL_LEN
        bodies, cells = self._bodies[:count], self._cells[:count]
        with self.seal:
            self._sealer.seal_each(bodies, cells)
        with self.send:
            sent = self._sends.try_send(self._sealed[:end])
        if sent != end:
            raise RuntimeError("the kernel had no room")
        got = 0
        while got < end:
            with self.receive:
                place = self._sealed[got:]
                got += self._receives.try_receive_into(place, RECEIVE_MAX) or 0
        with self.open:
            opened = self._opener.open_each_untrusted(cells, bodies)
        if opened < count:
            raise RuntimeError("a cell did not open")
        with self.parse:
            at, room = 0, self._plain
            while (at := self._far.receive_full(room[:end], at)) < end:
                self._far.receive_body(bytes(room[at : at + BODY_LEN]))
                at += CELL_LEN

    def costs(self, messages: int) -> dict[str, Cost]:
        """By step."""
        return {
            name: getattr(self, name).cost(messages)
            for name in ("pack", "seal", "send", "receive", "open", "parse")
        }


def over_a_link(load: Load) -> dict[str, Cost]:
    """Carry messages from one link's end to the other, and their replies back."""
    near, far = (
        Link(name=name, peer=peer, accepts=lambda _: None, max_message=MESSAGE_MAX)
        for name, peer in (("alpha", "bravo"), ("bravo", "alpha"))
    )
    ours, theirs = (session(0, side, Clock.GREEDY, 3) for side in (0, 1))
    wires = tcp_pair()
    there = Cells(near, far, ours.sealer, theirs.opener, wires)
    back = Cells(far, near, theirs.sealer, ours.opener, wires[::-1])
    near.receive_body(PADDING)
    far.receive_body(PADDING)
    content, entropy = text_of(load.length), SystemEntropy()
    for _ in range(load.turns):
        with there.pack:
            for _ in range(load.at_once):
                near.offer(Outgoing(None, FROM, (TO,), content, entropy.octets(16)))
        left = load.at_once
        while left:
            there.carry()
            with there.parse:
                while (event := far.next_event()) is not None:
                    if isinstance(event, Received):
                        far.answer(event.stream, OK)
                    elif not isinstance(event, Done):
                        raise TypeError
            back.carry()
            with back.parse:
                while (event := near.next_event()) is not None:
                    left -= isinstance(event, Finished) and event.replies == (OK,)
    for end in (ours, theirs):
        end.wipe()
    for wire in wires:
        wire.socket.close()
    count = load.count
    costs = {f"link {name}": cost for name, cost in there.costs(count).items()}
    costs |= {f"replies {name}": cost for name, cost in back.costs(count).items()}
    return costs
