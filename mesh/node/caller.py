# SPDX-License-Identifier: MIT
"""One remailer's session at the local socket, served by a pump and never waiting.

    waits for               while                                       and then
    octets                  no other line here holds                    reads once
    room for its replies    the client does not read them, or more      sends the rest,
                            lines came than are answered in one call    answers more
    an answer               a message is with the spool, and it is      goes on
                            large, or more than AHEAD_MAX lies behind
                            it, or nothing more will come
    a place                 its message is beyond SMALL_MESSAGE_LEN     reads on
                            and the user's places are all taken

What comes in is the dialogue's; a message that is whole goes to the queue manager, and
the commit calls `_answer`, which sends the reply at once.  A session ends after QUIT, a
bug, silence, or the client's last octet, and then when it owes no reply.

`look` is called about once a second and knows what nothing came of: a client that is
silent is told so and ended; one that reads no reply is ended.
"""

import math
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from mesh.core.dialogue import Dialogue, MessageReceived
from mesh.core.reply import Reply
from mesh.errors import RemoteProtocolError
from mesh.node.pump import READ, WRITE, Pump, Seat
from mesh.node.qmgr import QueueManager
from mesh.node.wire import Outlet, SocketWire

READ_MAX: Final = 262_144
"""Octets of one read: a 28 kB remailer packet comes in one."""
AHEAD_MAX: Final = 65_536
"""Octets that may wait behind an unanswered message before reading stops: with one
read more they are no more than the dialogue's SENT_AHEAD_MAX."""
SMALL_MESSAGE_LEN: Final = 262_144
"""Octets of a message in arrival past which it needs a place among the large ones."""
LARGE_SECONDS: Final = 180.0
"""Without an octet, and the place goes to another: RFC 5321 4.5.3.2.5."""
IDLE_SECONDS: Final = 300.0
"""Without a command, and the session ends: RFC 5321 4.5.3.2.7 asks for no less."""
SILENT: Final = Reply(421, "nothing came for too long")


class Places:
    """A user's large messages: so many at once, the others in a line."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[Caller] = deque()

    def take(self, caller: "Caller") -> bool:
        """Take a place; False: `caller.take_place` is called when one is free."""
        if self._free:
            self._free -= 1
            return True
        self._line.append(caller)
        return False

    def give_back(self) -> None:
        """Let the next one have it."""
        if self._line:
            self._line.popleft().take_place()
        else:
            self._free += 1

    def leave(self, caller: "Caller") -> None:
        """Wait no more."""
        self._line.remove(caller)


class Caller:
    """One session; `ended` is called once, when its socket is closed."""

    def __init__(
        self,
        accepted: socket.socket,
        dialogue: Dialogue,
        qmgr: QueueManager,
        places: Places,
        origin: bytes,
        ended: Callable[[], None],
    ) -> None:
        self.dialogue = dialogue
        self._qmgr = qmgr
        self._places = places
        self._origin = origin
        self._ended = ended
        self._wire = SocketWire(accepted)
        self._outlet = Outlet(self._wire)
        self._guard = partial(qmgr.guard, self.drop)
        self._seat: Seat | None = None
        self._since = math.inf
        """When `look` first saw that it waits, and for this."""
        self._attending = self._has_all = self._is_closed = False
        self._has_place = self._waits_for_place = False

    def begin(self, pump: Pump) -> None:
        """Greet, and be served from now on."""
        self._seat = pump.add(self._wire.socket, self)
        self._outlet.send(self.dialogue.data_to_send())
        self._go_on()

    def refuse(self, reply: Reply) -> None:
        """Say why there is no session."""
        self._outlet.send(reply.encode())
        self.drop()

    # What the pump, the watch and the commit call.

    def serve(self, events: int) -> bool:
        """Send what waits; read once if anything may be read.

        True: a command was answered, and the client has nothing to wait for.
        """
        if events != READ:
            self._outlet.flush()
        answered = False
        if self._reads:
            answered = self._read()
        elif self.dialogue.behind and not self._outlet.waiting:
            self._since = math.inf
            self.dialogue.go_on()
            answered = self._attend()
        self._go_on()
        return answered

    def drop(self) -> None:
        """End at once; again is no error."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._seat is not None:
            self._seat.leave()
            self._seat = None
        self._wire.close()
        # What was sent ahead of an answer gets none: its sender keeps it.
        self.dialogue.receive_eof()
        if self._waits_for_place:
            self._places.leave(self)
        self._give_place_back()
        self._ended()

    def look(self, now: float) -> None:
        """Have an eye on a client of whom nothing comes, or who does not read."""
        with self._guard():
            if math.isinf(self._since):
                self._since = now
            silent = now - self._since
            if self._outlet.waiting or self.dialogue.behind:
                if silent > IDLE_SECONDS:
                    self.drop()
            elif not self._reads or self.dialogue.awaiting_answer:
                self._since = math.inf  # it waits for us
            elif silent > (LARGE_SECONDS if self._has_place else IDLE_SECONDS):
                self.say(SILENT)
                self._has_all = True
                self._go_on()

    def say(self, reply: Reply) -> None:
        """Say something that was not asked; the node does, to all sessions."""
        with self._guard():
            self._outlet.send(reply.encode())
            self._go_on()

    def _answer(self, reply: Reply) -> None:
        """Send the commit's reply, and take up what was sent ahead of it.

        The commit calls this, for which one session's bug must be nothing.
        """
        with self._guard():
            self.dialogue.answer(reply)
            if not self._attending:  # else it was called from there
                self._attend()
                self._go_on()

    def take_place(self) -> None:
        """Have a place among the large messages, and go on."""
        with self._guard():
            self._waits_for_place = False
            self._has_place = True
            self._go_on()

    # What it does.

    def _read(self) -> bool:
        data = self._wire.try_receive(READ_MAX)
        if data is None:
            return False
        self._since = math.inf
        if not data:
            self._has_all = True
            return False
        try:
            self.dialogue.receive_data(data)
        except RemoteProtocolError:
            self.drop()
            return False
        return self._attend()

    def _attend(self) -> bool:
        """Take the dialogue's events and send its replies.

        True: there were some, and no message waits for its own.
        """
        dialogue = self.dialogue
        self._attending = True
        while (event := dialogue.next_event()) is not None:
            if isinstance(event, MessageReceived):
                self._qmgr.accept(
                    reverse_path=event.reverse_path,
                    recipients=event.recipients,
                    content=event.content,
                    answer=self._answer,
                    origin=self._origin,
                )
            else:
                self._has_all = True
        self._attending = False
        if replies := dialogue.data_to_send():
            self._outlet.send(replies)
        return bool(replies) and not (self._has_all or dialogue.awaiting_answer)

    @property
    def _reads(self) -> bool:
        return self._seat is not None and bool(self._seat.events & READ)

    def _go_on(self) -> None:
        """Wait for what is to come next, or end."""
        seat, dialogue = self._seat, self.dialogue
        if seat is None:
            return
        ahead = dialogue.buffered > AHEAD_MAX
        if ahead or self._has_place:
            self._see_to_place()
        waits = self._has_all or self._waits_for_place
        if dialogue.awaiting_answer:
            waits = waits or ahead or self._has_place
        if self._outlet.waiting or dialogue.behind:
            events = WRITE
        elif not waits:
            events = READ
        elif self._has_all and not dialogue.awaiting_answer:
            self.drop()
            return
        else:
            events = 0
        if events != seat.events:
            seat.want(events)
            self._since = math.inf

    def _see_to_place(self) -> None:
        """Hold a place among the large messages while this one is large."""
        if self._waits_for_place or self.dialogue.awaiting_answer:
            return
        large = self.dialogue.content_octets > SMALL_MESSAGE_LEN
        if not large:
            self._give_place_back()
        elif not self._has_place:
            self._has_place = self._places.take(self)
            self._waits_for_place = not self._has_place

    def _give_place_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self._places.give_back()
