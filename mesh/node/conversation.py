# SPDX-License-Identifier: MIT
"""One dialogue of a person or a tool on a link, for the task that serves him.

The link (core/link.py) has the dialogue; this is its end on the Trio side: the link's
port puts replies in, one task takes them out.  It ends when the dialogue does, or when
the link is lost.  Whoever made it calls `end`, or the stream is never free again.
"""

from collections import deque
from collections.abc import Callable

from mesh.core.link import Answered, Link
from mesh.core.raw import RawEnded
from mesh.core.reply import Reply
from mesh.node.parking import Parking


class Conversation:
    """Writes to, and hears, one stream; `wake` lets the carrier know of octets."""

    def __init__(self, link: Link, wake: Callable[[], None]) -> None:
        self._link, self._wake = link, wake
        self.stream = link.open_raw()
        self._heard: deque[Reply | RawEnded] = deque()
        self._parking = Parking()
        self._over = False
        wake()

    @property
    def room(self) -> int:
        """Octets that may be written now."""
        return 0 if self._over else self._link.raw_room(self.stream)

    def write(self, octets: bytes) -> None:
        """Say this; dropped when it is over."""
        if not self._over:
            self._link.write_raw(self.stream, octets)
            self._wake()

    def end(self, *, gone: bool) -> None:
        """Say no more; `gone`: nor listen."""
        if not self._over:
            self._link.end_raw(self.stream, gone=gone)
            self._wake()

    def hear(self, event: Reply | RawEnded) -> None:
        """Take what the port has for us."""
        self._heard.append(event)
        self._over = self._over or isinstance(event, RawEnded)
        self._parking.wake()

    def lost(self) -> None:
        """The link has ended."""
        self._over = True
        self._parking.wake()

    async def next(self) -> Reply | RawEnded | None:
        """Return the next reply or the end; None: the link is lost."""
        while not self._heard:
            if self._over:
                return None
            await self._parking.park()
        return self._heard.popleft()


class Conversations:
    """All of one link."""

    def __init__(self, link: Link, wake: Callable[[], None]) -> None:
        self._link, self._wake = link, wake
        self._by_stream: dict[int, Conversation] = {}

    def begin(self) -> Conversation:
        """Begin one; LocalProtocolError where the link `can_offer` no stream."""
        conversation = Conversation(self._link, self._wake)
        self._by_stream[conversation.stream] = conversation
        return conversation

    @property
    def open(self) -> tuple[Conversation, ...]:
        """Those whose dialogue goes on."""
        return tuple(self._by_stream.values())

    def hear(self, answered: Answered) -> None:
        """Give an event of the link to whom it belongs."""
        conversation = self._by_stream[answered.stream]
        if isinstance(answered.event, RawEnded):
            del self._by_stream[answered.stream]
        conversation.hear(answered.event)

    def lost(self) -> None:
        """The link has ended: so have they."""
        for conversation in self._by_stream.values():
            conversation.lost()
