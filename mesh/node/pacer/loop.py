# SPDX-License-Identifier: MIT
"""The pacer's loop: all lanes in the order of their instants.

It sleeps until the next instant, in a call that wakes to the microsecond, and wakes
nobody for a cell (board.py).  A word of the main process is about the birth or the end
of a link and never about mail, so it may take its time: it is listened for in a sleep
of more than HEAR_SECONDS and once in as long (select(2), which costs half as much again
as a sleep; epoll counts in milliseconds).  Between two words all that was due has left,
and no more, so that words are heard under any load.

The process ends, with all its links, when this machine may not be the one that it was
(a clone that goes on with the same keys would use a nonce twice): the sleep ended
GAP_SECONDS late, the clock that counts suspended time moved against the one that does
not, the boot's id changed, or the kernel says that the machine was begun from a
snapshot (generation.py).  What was seen holds for FRESH_SECONDS.  Keys that wait in its
control socket go with it, and the main process starts another one.  So does a word that
it does not understand, and an error of its own: whatever ends the loop, each link says
FIN and its keys are zeroed.

The clock of the day is no sign: it may be set at any time, and no link ends by that.
"""

import heapq
import math
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Clock, law_of
from mesh.core.crypto import SystemEntropy
from mesh.node.bare import BareWire
from mesh.node.pacer.generation import Generation, listen
from mesh.node.pacer.histogram import LENGTH, TRIAL, Histogram
from mesh.node.pacer.lane import CLOSED, STOPPED, Lane
from mesh.node.pacer.ring import Ring
from mesh.node.pacer.word import DESCRIPTORS_MAX, NUMBER, REFUSED, Kind, Word, hear

GAP_SECONDS: Final = 10.0
"""A sleep that ends so late was no sleep of a loaded host: the machine stood still."""
SUSPENDED_SECONDS: Final = 1.0
FRESH_SECONDS: Final = 0.01
"""So long, by the clock that counts suspended time, what was seen holds.  That clock
stands still in a snapshot: so late the kernel's word of one is heard, at the most."""
TRIAL_SECONDS: Final = 0.001
"""A sleep of the trial: long enough that the processor goes to rest."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
BOOT_ID_LEN: Final = 64
LOOK_SECONDS: Final = 1.0
"""The longest sleep."""
HEAR_SECONDS: Final = 0.02
"""A word may wait so long: a link's first instant is up to T away anyway."""


def sleep(socks: Sequence[socket.socket], seconds: float) -> bool:
    """Sleep so long or until a socket can be read; whether one can."""
    if socks:
        return bool(select.select(socks, [], [], seconds)[0])
    time.sleep(seconds)
    return False


def boottime() -> float:
    """Seconds since this machine's boot, suspended ones too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Machine:
    """Whether this is still the machine that it was."""

    def __init__(
        self,
        boot_id: Path = BOOT_ID,
        boottime: Callable[[], float] = boottime,
        listen: Callable[[], socket.socket | None] = listen,
    ) -> None:
        self._boottime = boottime
        self._generation = Generation(listen())
        self._file: int | None = None
        with suppress(OSError):  # /proc may not be there
            self._file = os.open(boot_id, os.O_RDONLY | os.O_CLOEXEC)
        self._boot = self._read()
        self._slept = math.inf  # seconds that it was suspended
        self._looked = math.inf
        self._fresh = -math.inf

    def moved(self, due: float, now: float) -> bool:
        """Whether the machine stood still, slept or was cloned."""
        boottime = self._boottime()
        seen = self._fresh - FRESH_SECONDS
        if seen <= boottime < self._fresh:
            return now - due > GAP_SECONDS
        looked, self._looked, self._fresh = self._looked, now, boottime + FRESH_SECONDS
        slept = boottime - now
        self._slept = min(self._slept, slept)
        return (
            now - due > GAP_SECONDS
            or now - looked > GAP_SECONDS + LOOK_SECONDS
            or slept - self._slept > SUSPENDED_SECONDS
            or boottime < seen  # restored on a machine that began later
            or self._generation.changed()
            or self._read() != self._boot
        )

    def close(self) -> None:
        """Look no more."""
        self._generation.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        """Close it with whoever looked: a pacer's client may end before it began."""
        self.close()

    def _read(self) -> bytes:
        return b"" if self._file is None else os.pread(self._file, BOOT_ID_LEN, 0)


class Loop:
    """All links of a node, and the word of its main process."""

    def __init__(
        self,
        control: socket.socket,
        moved: Callable[[float, float], bool],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[Sequence[socket.socket], float], bool] = sleep,
    ) -> None:
        self._control = control
        self._moved = moved
        self._monotonic = monotonic
        self._sleep = sleep
        self._entropy = SystemEntropy()
        self._lanes: dict[int, tuple[Lane, int]] = {}
        # A heap of numbers alone takes half as long as one of pairs.
        self._dues: list[float] = []
        self._at: dict[float, tuple[Lane, int, int]] = {}
        self._untold: list[int] = []
        self._hear_at = -math.inf
        self._histogram = Histogram(bytearray(LENGTH))  # nobody's, until HELLO
        self._board = self._histogram.board

    def run(self) -> None:
        """Serve until the main process is gone, or the machine moved."""
        try:
            while self.turn():
                pass
        finally:
            for lane, _ in self._lanes.values():
                lane.close(STOPPED)
            self._lanes.clear()

    def turn(self) -> bool:
        """Sleep until something is due, and do it; False: this process is to end."""
        dues, now = self._dues, self._monotonic()
        due = dues[0] if dues else math.inf
        wait = due - now
        if wait > LOOK_SECONDS:
            wait = LOOK_SECONDS
        elif wait < 0.0:
            wait = 0.0
        listens = wait > HEAR_SECONDS or now >= self._hear_at
        heard = self._sleep([self._control] if listens else (), wait)
        now = self._monotonic()
        if self._moved(min(due, now), now):
            return False
        if listens:
            self._hear_at = now + HEAR_SECONDS
        if heard:
            word = hear(self._control)
            if word is None:
                return False
            self._take(word)
            self._hear_at = now  # there may be more
        while dues and dues[0] <= now:
            self._serve(self._monotonic())
        if self._untold:
            self._untold = [each for each in self._untold if not self._tell(each)]
        self._board.show(dues[0] if dues else math.inf)
        return True

    def _serve(self, now: float) -> None:
        dues, at = self._dues, self._at
        it = at.pop(dues[0], None)
        if it is None:  # it was ended by a word
            heapq.heappop(dues)
            return
        lane, number, klass = it
        self._histogram.count(klass, now - lane.due)
        if lane.instant(now):
            heapq.heappop(dues)
            self._ended(number)
            return
        due = lane.due
        while due in at:
            due = math.nextafter(due, math.inf)
        at[due] = it
        heapq.heapreplace(dues, due)
        self._board.note(number)

    def _take(self, word: Word) -> None:
        if word.kind == Kind.HELLO:
            self._histogram = Histogram.attach(word.descriptors[0])
            self._board = self._histogram.board
            os.close(word.descriptors[0])
            self._try_waking(self._histogram, word.value)
            self._ended(0)
        elif word.kind == Kind.ADD:
            try:
                self._add(word)
            except OSError:  # no memory or descriptors left, here or on the way
                for fd in word.descriptors:
                    with suppress(OSError):
                        os.close(fd)
                self._say(word.number | REFUSED)
        elif word.number in self._lanes:
            lane, _ = self._lanes[word.number]
            if word.value:
                lane.end_after(word.value, linger=word.kind == Kind.REPLACE)
            else:
                lane.close(CLOSED)
                self._at = {
                    due: it for due, it in self._at.items() if it[0] is not lane
                }
                self._ended(word.number)

    def _add(self, word: Word) -> None:
        klass, clock = word.value >> 8, Clock(word.value & 0xFF)
        if len(word.descriptors) != DESCRIPTORS_MAX:
            raise OSError("the descriptors did not arrive")
        connection, memory = word.descriptors
        ring = Ring.attach(memory, klass)
        os.close(memory)
        sealer, opener = ring.take_keys()
        now = self._monotonic()
        lane = Lane(
            wire=BareWire(socket.socket(fileno=connection)),
            sealer=CellSealer(sealer),
            opener=CellOpener(opener),
            ring=ring,
            law=law_of(clock, klass, self._entropy.key(), now),
            klass=klass,
            now=now,
        )
        self._lanes[word.number] = lane, klass
        due = lane.due
        while due in self._at:  # of two at one instant, either may be the first
            due = math.nextafter(due, math.inf)
        self._at[due] = lane, word.number, klass
        heapq.heappush(self._dues, due)

    def _try_waking(self, histogram: Histogram, wakes: int) -> None:
        """Sleep so many times as before a cell, and count how late each one ends."""
        for _ in range(wakes):
            due = self._monotonic() + TRIAL_SECONDS
            self._sleep([], TRIAL_SECONDS)
            histogram.count(TRIAL, self._monotonic() - due)

    def _ended(self, number: int) -> None:
        self._lanes.pop(number, None)
        self._say(number)

    def _say(self, number: int) -> None:
        if not self._tell(number):
            self._untold.append(number)

    def _tell(self, number: int) -> bool:
        try:
            self._control.send(NUMBER.pack(number), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True  # gone: the next word says so
        return True
