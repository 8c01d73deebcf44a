# SPDX-License-Identifier: MIT
"""The main process's hand on the pacer: starts it, gives it links, feeds their rings.

A link is given away whole: its socket, both keys, its law.  From then on this process
does three things for it, none of which the wire shows: it puts bodies that have
something to say into the ring, takes what came out of it, and says when the link ends.

The pacer wakes nobody for a cell.  This process looks by itself at the rings of links
that had an instant (board.py), LATER_SECONDS after the next one of all, or an eighth of
the time that its fastest link's ring lasts where that is less: so it wakes for many cells
at once, no ring runs empty between two looks, mail waits a twentieth of a second at most,
and nothing at the pacer depends on what came.

The pacer that ended, for whatever reason, took its links with it: they end here as
well, those that waited to be given too (their keys may be a clone's as well), another
pacer is started, and the dialer makes new links.  One that has links and does nothing
for HUNG_SECONDS is ended.  One that does not get as far as the end of its trial is tried
again; after TRIES_MAX in a row the node ends with PacerError.
"""

import math
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import count
from typing import Final

import trio

from mesh.core.clock import CLASS_MAX, period_of
from mesh.core.handshake import Session
from mesh.errors import PacerError, RemoteProtocolError
from mesh.node.pacer.histogram import Histogram
from mesh.node.pacer.lane import BROKEN
from mesh.node.pacer.lateness import Lateness
from mesh.node.pacer.ring import Ring, slots_of
from mesh.node.pacer.standstill import Standstill
from mesh.node.pacer.word import NUMBER, REFUSED, Kind, say
from mesh.node.parking import Parking
from mesh.node.port import Ending, Port
from mesh.node.wire import SocketWire

TRIAL_WAKES: Final = 128
"""Sleeps of a millisecond at the start, before the first link."""
RESTART_SECONDS: Final = 0.5
START_SECONDS: Final = 30.0
"""For a pacer to load and to have its trial; a very busy host takes some seconds."""
HUNG_SECONDS: Final = 30.0
"""Past an instant: one that only stood still for so long ends by itself (loop.py)."""
TRIES_MAX: Final = 3
"""Pacers in a row that did not get so far, until the node ends: none ever will."""
MANY: Final = 64
"""Packets heard at once, or bodies of one link, before others have their turn."""
LATER_SECONDS: Final = 0.05
"""From an instant to the look at what came: a twentieth of T at 1 cell/s."""
LATER_PART: Final = 8
"""Of a full ring of bodies to send: it is filled again long before it is empty."""
GONE: Final = -1
"""The pacer ended, and its links with it."""


def put(ring: Ring, port: Port) -> None:
    """Put what the port has to say, as far as there is room."""
    while ring.room and port.has_data:
        ring.put(port.next_body())


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
        put(self._ring, self._port)

    def pull(self) -> bool:
        """Hand over MANY bodies that came; whether these were all.

        RemoteProtocolError ends the link.
        """
        came = 0
        while came < MANY and (body := self._ring.come()) is not None:
            self._port.receive_body(body)
            came += 1
        if came:
            self._port.received()
        return came < MANY

    async def run(self) -> int:
        """Feed until the link has ended; why: lane.py's reasons, or GONE."""
        self._port.on_data = self.push
        try:
            while True:
                self.push()
                ended = GONE if self.gone else self._ring.ended
                if not self.pull():  # a peer may send faster than it is heard here
                    await trio.lowlevel.checkpoint()
                elif ended:  # and all that came before the end was heard
                    return ended
                else:
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
        self._losses = 0
        self.histogram, self._memory = Histogram.create()
        self._board = self.histogram.board
        self._given = Parking()
        self._carried = [0] * (CLASS_MAX + 1)  # links of each class
        self.lateness = Lateness(self.histogram)
        self.standstill = Standstill()

    @property
    def notices(self) -> list[str]:
        """What the operator should know now."""
        return [] if self._control else ["the process that sends cells starts again"]

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep a pacer running, for ever; started: the first one has had its trial.

        PacerError: none gets so far.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.standstill.watch)
            await self._run(task_status)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        failed = 0
        while True:
            trouble = await self._run_one(task_status)
            if trouble:
                failed += 1
            else:
                failed = 0
                task_status = trio.TASK_STATUS_IGNORED
            if failed == TRIES_MAX:
                raise PacerError(
                    f"the process that sends cells does not start: {trouble}: see to "
                    "the machine's memory and limits, and to this installation"
                )
            await trio.sleep(RESTART_SECONDS)

    async def _run_one(self, task_status: trio.TaskStatus[None]) -> str:
        """Run one pacer to its end; why it had no trial, "" when it had."""
        try:
            process, control = self._spawn()
        except OSError as error:
            return error.strerror or "it cannot be made"
        tried = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look, process.kill)
                tried = await self._listen(control, task_status)
                nursery.cancel_scope.cancel()
        finally:
            self._lose(control)
            process.kill()  # ours, by its own handle; it may be gone already
            with trio.CancelScope(shield=True):
                code = await trio.to_thread.run_sync(process.wait)
        return "" if tried else f"it ended with {code}"

    def _spawn(self) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        # Not from a thread: PR_SET_PDEATHSIG means the thread that started it.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as undo:
            undo.enter_context(ours)
            process = subprocess.Popen(  # noqa: S603  # ourselves
                [sys.executable, "-I", "-m", "mesh.node.pacer", str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
            )
            ours.setblocking(False)
            undo.pop_all()
        return process, ours

    async def _listen(
        self, control: socket.socket, task_status: trio.TaskStatus[None]
    ) -> bool:
        """Hear a pacer until it has ended; whether it got as far as its trial's end."""
        with suppress(OSError):  # it may be gone, which is heard below
            say(control, Kind.HELLO, value=TRIAL_WAKES, descriptors=[self._memory])
        with trio.move_on_after(START_SECONDS) as waiting:
            while True:
                await trio.lowlevel.wait_readable(control)
                numbers = _packets(control)
                if numbers is None:
                    break
                if 0 in numbers:
                    waiting.deadline = math.inf
                    self._control = control
                    self._started.set()
                    task_status.started()
                self._say_late_words(control)
                self._hand_round(numbers)
        return self._control is not None

    def _hand_round(self, numbers: list[int]) -> None:
        """Wake those whose links the pacer has named."""
        for number in numbers:
            if number & REFUSED and (feed := self._feeds.get(number ^ REFUSED)):
                feed.gone = True
                feed.changed.wake()
        for number in set(numbers) & self._feeds.keys():
            self._feeds[number].changed.wake()

    async def _look(self, hung: Callable[[], object]) -> None:
        """Wake those whose links had instants, a little after the next one, for ever.

        `hung` is called when the pacer lets its instants pass.
        """
        self._board.begin()
        lives = time.monotonic()  # the last sign that it does something
        while True:
            idle = not self._feeds
            with trio.move_on_after(self._pause()):
                await self._given.park()
                await trio.sleep(self._later())  # its first instant may be the next one
            now, due = time.monotonic(), self._board.due
            if idle or not self._feeds:
                lives = now
            elif due < math.inf:
                lives = due
            if now - lives > HUNG_SECONDS:
                hung()
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
        out, _ = slots_of(fastest)
        return min(LATER_SECONDS, out * period_of(fastest) / LATER_PART)

    def _lose(self, control: socket.socket) -> None:
        self._losses += 1
        self._control = None
        self._started.set()  # whoever waits sees that it was in vain
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
        losses, moves = self._losses, self.standstill.moves()
        async with self._giving:
            while self._control is None and self._losses == losses:
                await self._started.wait()
            # A pacer that began after the machine had moved knows nothing of it.
            moved = self.standstill.moves() != moves
            if self._control is None or self._losses != losses or moved:
                wire.close()
                session.wipe()
                return GONE
            ring = await self._give(self._control, number, wire, session, port)
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
        self,
        control: socket.socket,
        number: int,
        wire: SocketWire,
        session: Session,
        port: Port,
    ) -> Ring | None:
        """Hand a link over; None: the pacer ended, or nothing is left for one more."""
        sealer, opener = session.sealer.surrender(), session.opener.surrender()
        given = None
        try:
            ring, memory = Ring.create(session.klass)
            try:
                ring.put_keys(sealer, opener)
                put(ring, port)  # the pacer seals the first cell when it takes it
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
