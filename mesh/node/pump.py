# SPDX-License-Identifier: MIT
"""Many sockets, one task: each that is ready is served by a call, with no task switch.

To wake a task for what one socket has brought costs ten times the reading of it.  So
sockets whose owners never wait for anything else lie together in one epoll set, and one
task waits for the set (epoll(7): a set is itself readable while it has something).

    pump = Pump(guard, turn)             guard: guard.py's; `turn()` is around each turn
    nursery.start_soon(pump.run)         serves until cancelled; one task only
    seat = pump.add(sock, owner)         waits for octets to read
    seat.want(READ | WRITE)              waits for others from now on; 0: for nothing
    seat.leave()                         before the socket is closed; again is no error

    owner.serve(events)                  something it waits for is there, or the other
                                         side is gone; it never blocks and raises nothing.
                                         True: it answered, and more will come at once
    owner.drop()                         `serve` had a bug: end this connection

`add`, `want` and `leave` may be called at any time on the Trio thread, also by `serve`,
also while nothing runs.  A call of `serve` may be for nothing, as any wake-up: who reads
then finds nothing to read, and that is all.  While an end that is gone is waited for,
`serve` is called again and again: who reads finds the end.  While nothing is waited for
it is not called at all.

Fair: in one turn the sockets that are ready are served, and then those that have become
ready meanwhile, in LOOKS_MAX looks and TURN_MAX calls at most; then all other tasks have
their turn.  So they have after TURN_SECONDS, for a call can be made long by whoever is at
the other end (a large message); who was not served yet is then the first.
The kernel goes round the sockets that are ready, so that none is left out.

A lone client that was answered says its next word within some microseconds, and to
sleep and be woken for it costs more processor than to wait for it: where each look
of a turn had one socket alone and its owner said so, the next look goes on for
LINGER_SECONDS at most.  In between whoever else wants the processor has it
(sched_yield(2)).  A message that is whole ends that: it waits for nobody's next word.

A bug in one call ends that connection, and the next socket is served.

Nothing here reads or sends, and no deadline is here: they are the owners', who look at
all of theirs once in a while and not for each read.
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

import trio

from mesh.node.guard import Guard

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
TURN_MAX: Final = 64
"""Calls of one turn: some milliseconds at 50 us each, and others wait no longer."""

LOOKS_MAX: Final = 4
"""Looks at the set in one turn: who sends without end is read so often, and no more."""

TURN_SECONDS: Final = 0.01
"""Of one turn, but for its last call: three times what TURN_MAX usual ones take."""


LINGER_SECONDS: Final = 0.00005
"""For a lone client's next word: what a switch to another task and back costs."""


class Served(Protocol):
    """Who owns a socket."""

    def serve(self, events: int, /) -> bool | None:
        """Read or send: READ, WRITE, and what epoll(7) says of an end that is gone.

        True: the other side has what it waited for, and will go on at once.
        """

    def drop(self) -> None:
        """End this connection: it has a bug."""


class Seat:
    """A socket's place in a pump."""

    __slots__ = ("_fd", "_pump", "events", "owner")

    def __init__(self, pump: "Pump", fd: int, owner: Served) -> None:
        self._pump = pump
        self._fd = fd
        self.events = 0
        """What is waited for."""
        self.owner = owner

    def want(self, events: int) -> None:
        """Wait for these from now on; nothing when this seat was left."""
        if events != self.events and self._fd >= 0:
            self._pump.change(self._fd, self.events, events)
            self.events = events

    def leave(self) -> None:
        """Be served no more."""
        self.want(0)
        self._pump.forget(self._fd)
        self._fd = -1


class Pump:
    """The set and its task."""

    def __init__(
        self,
        guard: Guard,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guard = guard
        self._turn = turn
        self._clock = clock
        self._ready: deque[tuple[int, int]] = deque()
        self._made: select.epoll | None = None
        self._seats: dict[int, Seat] = {}

    @property
    def _set(self) -> select.epoll:
        """The set, made when something is to be waited for, and again after an end."""
        if self._made is None:
            self._made = select.epoll()
        return self._made

    def add(self, sock: socket.socket, owner: Served) -> Seat:
        """Serve a socket, which does not block, whenever there is something to read."""
        seat = self._seats[sock.fileno()] = Seat(self, sock.fileno(), owner)
        seat.want(READ)
        return seat

    def change(self, fd: int, before: int, after: int) -> None:
        """Let the kernel wait for something else; called by the seats.

        What waits for nothing is not in the set, for there an end that is gone is
        always waited for.
        """
        if not after:
            self._set.unregister(fd)
        elif before:
            self._set.modify(fd, after)
        else:
            self._set.register(fd, after)

    def forget(self, fd: int) -> None:
        """Know nothing of a seat; called by it."""
        self._seats.pop(fd, None)

    def _serve(self, until: float) -> bool | None:
        """Serve who is ready, until this time; the others are for the next turn.

        True: it was one alone, and will go on at once.
        """
        ready = self._ready
        is_alone, goes_on = len(ready) == 1, None
        while ready and self._clock() < until:
            fd, events = ready.popleft()
            seat = self._seats.get(fd)
            if seat is None:  # it left meanwhile
                continue
            try:
                goes_on = seat.owner.serve(events)
            except BaseException:  # the guard says what it is
                with self._guard(seat.owner.drop):
                    raise
        return is_alone and goes_on

    def _look(self, most: int, *, linger: bool | None) -> None:
        """See who is ready, so many at most."""
        found = self._set.poll(0, most)
        if linger and not found:
            until = self._clock() + LINGER_SECONDS
            while not found and self._clock() < until:
                os.sched_yield()
                found = self._set.poll(0, most)
        self._ready.extend(found)

    def _serve_all(self) -> None:
        until = self._clock() + TURN_SECONDS
        left = TURN_MAX
        linger: bool | None = None
        for _ in range(LOOKS_MAX):
            if not self._ready and left:
                self._look(left, linger=linger)
                left -= len(self._ready)
            if not self._ready:
                break
            goes_on = bool(self._serve(until))
            linger = goes_on and linger is not False
            if self._ready:  # the time is over
                break

    async def run(self) -> None:
        """Serve for ever; what is left at the end is its owners' to close."""
        try:
            while True:
                if self._ready:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._set.fileno())
                with self._turn():
                    self._serve_all()
        finally:
            for seat in list(self._seats.values()):
                seat.leave()
            self._ready.clear()
            self._set.close()
            self._made = None
