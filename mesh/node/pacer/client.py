# SPDX-License-Identifier: MIT
"""The main process's hand on the pacer: starts it, gives it links, feeds their rings.

A link is given away whole: its socket, both keys, its law.  From then on this process
does three things for it, none of which the wire shows: it puts bodies that have
something to say into the ring, takes what came out of it, and says when the link ends.

The pacer wakes nobody for a cell.  This process looks by itself at the rings of links
that had an instant (board.py), LATER_SECONDS after the next one of all, or T/8 of its
fastest link where that is less: so it wakes for many cells at once, mail waits a
twentieth of a second at most, and nothing at the pacer depends on what came.

The pacer that ended, for whatever reason, took its links with it: they end here as
well, another pacer is started, and the dialer makes new links.
"""

import math
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

import trio

from mesh.core.clock import CLASS_MAX, Clock, period_of, rate_of
from mesh.core.handshake import Session
from mesh.errors import ConfigError, RemoteProtocolError
from mesh.node.pacer.histogram import TRIAL, Histogram, quantile
from mesh.node.pacer.lane import BROKEN
from mesh.node.pacer.ring import Ring
from mesh.node.pacer.word import NUMBER, REFUSED, Kind, say
from mesh.node.parking import Parking
from mesh.node.port import Ending, Port
from mesh.node.wire import SocketWire

TRIAL_WAKES: Final = 128
"""Sleeps of a millisecond at the start, before the first link."""
TRIAL_SHARE: Final = 0.1
"""Of them, those that must be in time: a host that is busy at its start may hold the
class all the same, and one whose best wake-ups are too late never does.  What cells
really do is counted while they leave, and `status` says it."""
UNTRIED: Final = 9
"""64 cells a second: half a millisecond, which any host keeps when it is not busy."""
LATE_SHARE: Final = 0.999
LATE_PART: Final = 30
"""A cell may be late by T/30, which 128 cells of `renewal` do not show."""
RESTART_SECONDS: Final = 0.5
MANY: Final = 64
"""Packets heard at once, before others have their turn."""
LATER_SECONDS: Final = 0.05
"""From an instant to the look at what came: a twentieth of T at 1 cell/s."""
LATER_PART: Final = 8
GONE: Final = -1
"""The pacer ended, and its links with it."""


class Feed:
    """One link's ring and the inside that it serves."""

    def __init__(self, ring: Ring, port: Port, end: Callable[[Ending], None]) -> None:
        self._ring, self._port = ring, port
        self._end: Callable[[Ending], None] | None = end
        self.changed = Parking()
        self.gone = False
        """The pacer is."""

    def push(self) -> None:
        """Put what the port has to say, as far as there is room."""
        if self._end and (ending := self._port.ending) is not None:
            self._end(ending)
            self._end = None
        while self._ring.room and self._port.has_data:
            self._ring.put(self._port.next_body())

    def pull(self) -> None:
        """Hand over what has come; RemoteProtocolError ends the link."""
        came = False
        while (body := self._ring.come()) is not None:
            self._port.receive_body(body)
            came = True
        if came:
            self._port.received()

    async def run(self) -> int:
        """Feed until the link has ended; why: lane.py's reasons, or GONE."""
        self._port.on_data = self.push
        try:
            while True:
                self.push()
                ended = GONE if self.gone else self._ring.ended
                self.pull()  # what came before the end too
                if ended:
                    return ended
                await self.changed.park()
        except RemoteProtocolError:
            return BROKEN


class Pacer:
    """The process, while it lives, and the links that it carries."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._feeds: dict[int, Feed] = {}
        self._numbers = count(1)
        self._late_words: deque[tuple[Kind, int, int]] = deque()
        self._giving = trio.Lock()
        self._started = trio.Event()
        self.histogram, self._memory = Histogram.create()
        self._board = self.histogram.board
        self._given = Parking()
        self._carried = [0] * (CLASS_MAX + 1)  # links of each class

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep a pacer running, for ever; started: the first one has had its trial."""
        status: trio.TaskStatus[None] | None = task_status
        while True:
            process, control = self._spawn()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._look)
                    await self._listen(control, status)
                    nursery.cancel_scope.cancel()
            finally:
                self._lose(control)
                process.kill()  # ours, by its own handle; it may be gone already
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(process.wait)
            status = None
            await trio.sleep(RESTART_SECONDS)

    def _spawn(self) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        # Not from a thread: PR_SET_PDEATHSIG means the thread that started it.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # ourselves
                [sys.executable, "-I", "-m", "mesh.node.pacer", str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
            )
        ours.setblocking(False)
        return process, ours

    async def _listen(
        self, control: socket.socket, status: trio.TaskStatus[None] | None
    ) -> None:
        say(control, Kind.HELLO, value=TRIAL_WAKES, descriptors=[self._memory])
        while True:
            await trio.lowlevel.wait_readable(control)
            numbers = _packets(control)
            if numbers is None:
                return
            if 0 in numbers:
                self._control = control
                self._started.set()
                if status:
                    status.started()
                    status = None
            self._say_late_words(control)
            for number in numbers:
                if number & REFUSED and (feed := self._feeds.get(number ^ REFUSED)):
                    feed.gone = True
                    feed.changed.wake()
            for number in set(numbers) & self._feeds.keys():
                self._feeds[number].changed.wake()

    async def _look(self) -> None:
        """Wake those whose links had instants, a little after the next one, for ever."""
        self._board.begin()
        while True:
            with trio.move_on_after(self._pause()):
                await self._given.park()
                await trio.sleep(self._later())  # its first instant may be the next one
            looked = self._board.looked()
            for number in self._feeds.keys() if looked is None else looked:
                if number in self._feeds:
                    self._feeds[number].changed.wake()

    def _pause(self) -> float:
        """Seconds until the next look."""
        if not self._feeds:
            return math.inf
        due = self._board.due
        wait = due - time.monotonic() if due < math.inf else 0.0  # not shown yet
        return max(0.0, wait) + self._later()

    def _later(self) -> float:
        fastest = max((k for k, n in enumerate(self._carried) if n), default=0)
        return min(LATER_SECONDS, period_of(fastest) / LATER_PART)

    def _lose(self, control: socket.socket) -> None:
        self._control = None
        self._started = trio.Event()
        self._late_words.clear()
        trio.lowlevel.notify_closing(control)
        control.close()
        for feed in self._feeds.values():
            feed.gone = True
            feed.changed.wake()

    def _say_late_words(self, control: socket.socket) -> None:
        with suppress(BlockingIOError, OSError):
            while self._late_words:
                say(control, *self._late_words[0])
                self._late_words.popleft()

    def _end(self, number: int, ending: Ending) -> None:
        kind = Kind.REPLACE if ending.linger else Kind.END
        self._late_words.append((kind, number, ending.cells))
        if self._control:
            self._say_late_words(self._control)

    async def carry(self, wire: SocketWire, session: Session, port: Port) -> int:
        """Carry a link until it ends; why: lane.py's reasons, or GONE.

        The wire is the pacer's from here on, the keys are its alone.
        """
        number = next(self._numbers)
        async with self._giving:
            while self._control is None:
                await self._started.wait()
            ring = await self._give(self._control, number, wire, session)
        if ring is None:
            return GONE
        feed = Feed(ring, port, lambda ending: self._end(number, ending))
        self._feeds[number] = feed
        self._carried[session.klass] += 1
        self._given.wake()
        try:
            return await feed.run()
        finally:
            self._carried[session.klass] -= 1
            port.on_data = _nothing
            del self._feeds[number]
            if not (ring.ended or feed.gone):
                self._end(number, Ending(0))
            ring.close()

    async def _give(
        self, control: socket.socket, number: int, wire: SocketWire, session: Session
    ) -> Ring | None:
        """Hand a link over; None: the pacer ended, or nothing is left for one more."""
        sealer, opener = session.sealer.surrender(), session.opener.surrender()
        given = None
        try:
            ring, memory = Ring.create(session.klass)
            try:
                ring.put_keys(sealer, opener)
                value = session.klass << 8 | session.clock
                descriptors = [wire.socket.fileno(), memory]
                await _say_when_it_fits(control, number, value, descriptors)
                given = ring
            finally:
                os.close(memory)
                if given is None:
                    ring.close()
        except (OSError, trio.ClosedResourceError):
            return None
        finally:
            wire.close()
            sealer.wipe()
            opener.wipe()
        return given

    # lateness

    def check_class(self, clock: Clock, klass: int) -> None:
        """ConfigError when this host wakes too late for a class, by the trial.

        A `greedy` link has no instants to be late at, and up to UNTRIED a moment's load
        would refuse what the host holds: there the count of late cells speaks alone.
        """
        if clock is Clock.GREEDY or klass <= UNTRIED:
            return
        late = quantile(self.histogram.row(TRIAL), TRIAL_SHARE) or 0.0
        if late <= period_of(klass) / LATE_PART:
            return
        holds = klass
        while holds > UNTRIED and late > period_of(holds) / LATE_PART:
            holds -= 1
        raise ConfigError(
            f"cells_per_second: this host wakes up to {late * 1e6:.0f} us late, and "
            f"this class allows {period_of(klass) / LATE_PART * 1e6:.0f}: "
            f"set {2.0 ** (holds - 3):g}, or let the service run in real time "
            "(LimitRTPRIO=1)"
        )

    def is_late(self, klass: int) -> bool:
        """Whether more than one cell in a thousand of this class left after T/30."""
        late = quantile(self.histogram.row(klass), LATE_SHARE)
        return late is not None and late > 2 * period_of(klass) / LATE_PART

    def notices(self) -> list[str]:
        """Give what the operator should know of each class whose cells are late."""
        return [
            f"cells of {rate_of(klass):g}/s leave late: this host is too busy, or this "
            "rate too high for it"
            for klass in range(CLASS_MAX + 1)
            if self.is_late(klass)
        ]


async def _say_when_it_fits(
    control: socket.socket, number: int, value: int, descriptors: list[int]
) -> None:
    while True:
        try:
            say(control, Kind.ADD, number, value, descriptors)
        except BlockingIOError:  # hundreds of links at once
            await trio.lowlevel.wait_writable(control)
        else:
            return


def _packets(control: socket.socket) -> list[int] | None:
    """Numbers that the pacer said, MANY at most; None: it has ended."""
    numbers: list[int] = []
    with suppress(BlockingIOError):
        while len(numbers) < MANY:
            try:
                packet = control.recv(NUMBER.size)
            except ConnectionError:
                return None
            if not packet:
                return None
            numbers += NUMBER.unpack(packet)
    return numbers


def _nothing() -> None:
    """No port listens."""
