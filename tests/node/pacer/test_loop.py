# SPDX-License-Identifier: MIT
"""The loop turn by turn, on a clock of our own: words, instants, a machine that moved."""

import gc
import itertools
import math
import os
import select
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mesh.core.cell import CELL_LEN, CLOSE_BODY, PADDING
from mesh.core.cellstream import CellOpener
from mesh.core.clock import Clock
from mesh.core.crypto import Key
from mesh.node.pacer.histogram import TRIAL, Histogram
from mesh.node.pacer.lane import CLOSED, STOPPED
from mesh.node.pacer.loop import (
    FRESH_SECONDS,
    GAP_SECONDS,
    HEAR_SECONDS,
    LOOK_SECONDS,
    Loop,
    Machine,
)
from mesh.node.pacer.ring import KEYS_AT, Ring
from mesh.node.pacer.word import NUMBER, REFUSED, Kind, say

KLASS = 3


class Main:
    """The main process's side, and the loop with its time."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        self.ours.setblocking(False)
        self.now = 1000.0
        self.late = 0.0
        self.rings: dict[int, Ring] = {}
        self.far: dict[int, socket.socket] = {}
        self.openers: dict[int, CellOpener] = {}
        self.moves = False
        self.looked: list[tuple[float, float]] = []
        self.loop = Loop(self.theirs, self._moved, lambda: self.now, self._sleep)

    def _moved(self, due: float, now: float) -> bool:
        self.looked.append((due, now))
        return self.moves

    def _sleep(self, socks: Sequence[socket.socket], seconds: float) -> bool:
        for sock in socks:
            if _readable(sock):
                return True
        self.now += seconds + self.late
        return False

    def say(
        self, kind: Kind, number: int = 0, value: int = 0, fds: Sequence[int] = ()
    ) -> None:
        say(self.ours, kind, number, value, fds)

    def add(self, number: int, klass: int = KLASS) -> None:
        ring, memory = Ring.create(klass)
        near, far = socket.socketpair()
        far.setblocking(False)
        ring.put_keys(Key.from_bytes(b"i" * 32), Key.from_bytes(b"r" * 32))
        with near:
            value = klass << 8 | Clock.CONSTANT
            self.say(Kind.ADD, number, value, fds=[near.fileno(), memory])
        os.close(memory)
        self.rings[number], self.far[number] = ring, far
        self.openers[number] = CellOpener(Key.from_bytes(b"i" * 32))

    def turns(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.loop.turn()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.turns()

    def told(self) -> list[int]:
        """What the pacer said since the last time."""
        told = []
        while _readable(self.ours):
            told.append(NUMBER.unpack(self.ours.recv(NUMBER.size))[0])
        return told

    def noted(self) -> list[int]:
        """Links of the instants since the last time, as the main process sees them."""
        return self.loop._board.looked() or []

    def left(self, number: int) -> list[bytes] | None:
        """Bodies that left on a link; None: it is closed, and all was read."""
        bodies = []
        try:
            while cell := self.far[number].recv(CELL_LEN):
                bodies.append(self.openers[number].open_untrusted(cell))
        except BlockingIOError:
            return bodies
        return bodies or None


def _readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


@pytest.fixture
def main() -> Iterator[Main]:
    made = Main()
    yield made
    for lane, _ in made.loop._lanes.values():
        lane.close(CLOSED)
    made.ours.close()
    made.theirs.close()
    for far in made.far.values():
        far.close()


def descriptors() -> int:
    gc.collect()  # what earlier tests have left goes now or later
    return len(list(Path("/proc/self/fd").iterdir()))


def test_hello_is_answered_when_the_trial_is_over(main: Main) -> None:
    main.late = 0.003
    histogram, memory = Histogram.create()
    before = descriptors()
    main.say(Kind.HELLO, 0, 50, fds=[memory])
    main.turns()
    assert main.told() == [0]
    row = histogram.row(TRIAL)
    assert sum(row) == row[12] == 50  # 2.0 to 4.1 ms
    assert descriptors() == before + 1  # the mapping's own
    os.close(memory)


def test_a_link_sends_at_its_instants_and_wakes_nobody_for_them(
    main: Main,
) -> None:
    histogram, memory = Histogram.create()
    main.say(Kind.HELLO, 0, 0, fds=[memory])
    os.close(memory)
    main.add(7)
    main.turns(2)
    main.told()
    main.late = 0.0001
    main.run(10)
    left = len(main.left(7) or [])
    assert left in (9, 10, 11)
    assert not main.told()
    assert histogram.board.looked() == [7] * left
    assert sum(histogram.row(KLASS)) == left
    assert sum(histogram.row(KLASS)[6:9]) == left  # about 100 us late


def test_without_a_histogram_it_sends_all_the_same(main: Main) -> None:
    main.add(1)
    main.run(3)
    assert main.left(1)


def test_the_keys_are_zeroed_in_the_ring_when_it_has_them(main: Main) -> None:
    main.add(1)
    memory = main.rings[1]._octets
    assert memory[KEYS_AT] == ord("i")
    main.turns()
    assert not any(memory[KEYS_AT : KEYS_AT + 64])


def test_all_links_leave_in_the_order_of_their_instants(main: Main) -> None:
    for number in range(1, 6):
        main.add(number)
    main.turns(5)
    dues = sorted((lane.due, number) for number, (lane, _) in main.loop._lanes.items())
    main.run(dues[-1][0] - main.now)
    main.turns()
    assert main.noted()[:5] == [number for _, number in dues]


def test_the_next_instant_of_all_is_shown(main: Main) -> None:
    main.turns()
    assert main.loop._board.due == math.inf
    for number in range(1, 6):
        main.add(number)
        main.turns()
        assert main.loop._board.due == main.loop._dues[0]
    for _ in range(20):
        main.turns()
        assert main.now < main.loop._board.due == main.loop._dues[0]


def test_words_are_listened_for_in_long_sleeps_and_now_and_then(main: Main) -> None:
    main.add(1, klass=12)  # 512 a second: no sleep is long
    main.turns()
    listened: list[float] = []

    def sleep(socks: Sequence[socket.socket], seconds: float) -> bool:
        if socks:
            listened.append(main.now)
        return main._sleep(socks, seconds)

    main.loop._sleep = sleep
    begin = main.now
    main.run(1.0)
    gaps = [b - a for a, b in itertools.pairwise([begin, *listened, begin + 1.0])]
    assert min(gaps[1:-1]) >= HEAR_SECONDS
    assert max(gaps) < HEAR_SECONDS + 0.004
    for number in (2, 3, 4):  # one after the other, when there are more
        main.add(number)
    main.run(HEAR_SECONDS + 0.01)
    assert len(main.loop._lanes) == 4


def test_an_end_with_cells_sends_them_and_a_last_one(main: Main) -> None:
    main.add(1)
    main.turns()
    main.rings[1].put(PADDING[:-1] + b"\1")
    main.say(Kind.END, 1, 3)
    main.run(10)
    assert main.left(1) == [PADDING, PADDING[:-1] + b"\1", PADDING, CLOSE_BODY]
    assert main.left(1) is None
    assert main.rings[1].ended == CLOSED
    assert not main.loop._lanes


def test_a_replaced_link_hears_the_other_side_out(main: Main) -> None:
    main.add(1)
    main.turns()
    main.say(Kind.REPLACE, 1, 2)
    main.run(10)
    assert len(main.left(1) or []) == 3
    main.far[1].close()
    main.run(2)
    assert main.rings[1].ended == CLOSED


def test_an_end_at_once_is_told_and_its_instant_is_skipped(main: Main) -> None:
    main.add(1)
    main.add(2)
    main.turns(2)
    main.say(Kind.END, 1, 0)
    main.turns()
    assert main.left(1) is None
    assert main.told() == [1]
    main.run(5)
    assert set(main.noted()) == {2}
    assert not main.told()


def test_a_number_that_comes_again_after_its_end_keeps_its_own_instants(
    main: Main,
) -> None:
    main.add(1)
    main.turns()
    main.say(Kind.END, 1, 0)
    main.turns()
    main.far[1].close()
    main.add(1)
    main.turns()
    main.run(10.5)
    assert len(main.left(1) or []) in (10, 11, 12)
    assert len(main.loop._dues) == 1


def test_words_about_links_that_are_gone_are_nothing(main: Main) -> None:
    for kind in (Kind.END, Kind.REPLACE):
        main.say(kind, 9, 3)
        main.turns()
    assert not main.told()


def test_an_end_is_told_again_until_it_fits(main: Main) -> None:
    main.add(1)
    main.turns()
    sent = 0
    while True:  # the main process is away: nobody reads what we say
        try:
            main.theirs.send(NUMBER.pack(8), socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        sent += 1
    main.say(Kind.END, 1, 0)
    main.turns(3)
    assert main.told() == [8] * sent
    main.turns()
    assert main.told() == [1]
    main.turns()
    assert not main.told()  # once


def test_a_link_that_did_not_arrive_whole_is_refused_and_closed(main: Main) -> None:
    near, far = socket.socketpair()
    before = descriptors()
    main.say(Kind.ADD, 5, KLASS << 8, fds=[near.fileno()])
    near.close()
    main.turns()
    assert main.told() == [5 | REFUSED]
    assert descriptors() == before - 1
    assert far.recv(1) == b""
    far.close()
    main.add(6)
    main.run(3)
    assert main.left(6)  # the others live


def test_a_ring_that_cannot_be_mapped_is_refused_too(main: Main) -> None:
    near, far = socket.socketpair()
    empty = os.pipe()  # no memory at all
    before = descriptors()
    main.say(Kind.ADD, 5, KLASS << 8, fds=[near.fileno(), empty[0]])
    main.turns()
    assert main.told() == [5 | REFUSED]
    assert descriptors() == before
    for each in (near, far):
        each.close()
    for fd in empty:
        os.close(fd)


def test_links_that_ended_leave_no_descriptor(main: Main) -> None:
    main.add(1)
    main.turns()
    main.say(Kind.END, 1, 0)
    main.turns()
    main.far[1].close()
    main.rings[1].close()
    before = descriptors()
    for number in range(2, 12):
        main.add(number)
        main.turns()
        main.say(Kind.END, number, 0)
        main.turns()
        main.far[number].close()
        main.rings[number].close()
    assert descriptors() == before


@pytest.mark.parametrize("how", ["clock", "short", "hello"])
def test_a_word_that_is_not_understood_ends_all_links_in_order(
    main: Main, how: str
) -> None:
    main.add(1)
    main.turns()
    if how == "clock":
        with open(os.devnull) as one, open(os.devnull) as other:  # noqa: PTH123
            main.say(Kind.ADD, 2, 99, fds=[one.fileno(), other.fileno()])
    elif how == "short":
        main.ours.send(b"?")
    else:
        main.say(Kind.HELLO)
    if how == "short":
        main.loop.run()
    else:
        with pytest.raises((ValueError, IndexError)):
            main.loop.run()
    assert main.left(1) is None
    assert main.rings[1].ended == STOPPED


def test_it_ends_with_the_main_process_and_says_fin(main: Main) -> None:
    main.add(1)
    main.turns()
    main.ours.close()
    main.loop.run()
    assert main.left(1) is None
    assert main.rings[1].ended == STOPPED


def test_it_ends_with_a_main_process_that_had_not_read_everything(main: Main) -> None:
    main.theirs.send(NUMBER.pack(1))
    main.ours.close()  # the kernel says ECONNRESET
    main.loop.run()


def test_nobody_to_tell_is_no_error(main: Main) -> None:
    main.add(1)
    main.turns()
    main.ours.close()
    main.now = main.loop._dues[0]
    main.loop._serve(main.now)
    assert len(main.left(1) or []) == 1


def test_a_machine_that_moved_sends_no_further_cell(main: Main) -> None:
    for number in (1, 2):
        main.add(number)
        main.turns()
    main.run(3)
    for number in (1, 2):
        main.left(number)
    main.add(3)  # a key that waits is as old as the others
    main.moves = True
    main.loop.run()
    for number in (1, 2):
        assert main.left(number) is None
        assert main.rings[number].ended == STOPPED
    assert not main.rings[3].ended
    assert main.rings[3]._octets[KEYS_AT] == ord("i")


def test_the_machine_is_looked_at_before_each_instant(main: Main) -> None:
    main.add(1)
    main.turns()
    main.late = 12.0
    due = main.loop._dues[0]
    main.turns()
    assert main.looked[-1] == pytest.approx((due, due + 12.0))


def test_a_word_is_heard_between_instants_however_many_are_due(main: Main) -> None:
    main.add(1, klass=9)
    main.turns()
    main.now += 1  # 64 instants are due
    busy = main.loop._serve
    served = 0

    def slow(now: float) -> None:
        nonlocal served
        served += 1
        assert served < 300
        main.now += 1 / 32  # twice what this class leaves us
        busy(now)

    main.loop._serve = slow  # type: ignore[method-assign]
    main.turns()
    main.say(Kind.END, 1, 0)
    main.turns()
    assert main.rings[1].ended == CLOSED


def test_without_links_it_looks_once_a_second(main: Main) -> None:
    before = main.now
    main.turns(3)
    assert main.now - before == 3 * LOOK_SECONDS


class Host:
    """What a Machine looks at."""

    def __init__(self, folder: Path) -> None:
        self.boot = folder / "boot_id"
        self.boot.write_text("one\n")
        self.now = 0.0
        self.slept = 100.0
        self.machine = Machine(self.boot, lambda: self.now + self.slept)

    def moved(self, due: float, now: float) -> bool:
        """Look, at a time of CLOCK_MONOTONIC."""
        self.now = now
        return self.machine.moved(due, now)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_machine_at_work_has_not_moved(host: Host) -> None:
    for now in range(20):
        assert not host.moved(now - GAP_SECONDS, now)
    assert not host.moved(30, 30)  # the longest sleep, and a load


def test_a_sleep_that_ended_too_late(host: Host) -> None:
    assert host.moved(0.0, GAP_SECONDS + 0.1)


def test_a_gap_with_nothing_due(host: Host) -> None:
    host.moved(0.0, 0.0)
    now = GAP_SECONDS + LOOK_SECONDS + 0.1
    assert host.moved(now, now)


def test_a_suspended_machine(host: Host) -> None:
    assert not host.moved(1.0, 1.0)
    host.slept += 1.1
    assert host.moved(1.0001, 1.0001)


def test_a_machine_that_was_suspended_a_little_each_time(host: Host) -> None:
    moved = []
    for now in range(3):
        moved.append(host.moved(now, now))
        host.slept += 0.6
    assert moved == [False, False, True]


def test_another_boot(host: Host) -> None:
    assert not host.moved(1.0, 1.0)
    host.boot.write_text("two\n")
    assert host.moved(1.0 + FRESH_SECONDS, 1.0 + FRESH_SECONDS)


def test_another_boot_after_a_sleep_that_one_clock_alone_has_counted(
    host: Host,
) -> None:
    assert not host.moved(1.0, 1.0)
    host.boot.write_text("two\n")
    host.slept += FRESH_SECONDS
    assert host.moved(1.0, 1.0)


def test_what_was_seen_just_now_is_not_looked_at_again(host: Host) -> None:
    looks = 0
    read = host.machine._read

    def counted() -> bytes:
        nonlocal looks
        looks += 1
        return read()

    host.machine._read = counted  # type: ignore[method-assign]
    for turn in range(1000):  # a second of 1,000 links
        now = 1.0 + turn / 1000
        assert not host.moved(now, now)
    assert 80 < looks <= 100


def test_a_sleep_that_ended_too_late_is_seen_however_short_ago_it_looked(
    host: Host,
) -> None:
    assert not host.moved(20.0, 20.0)
    assert host.moved(20.001 - GAP_SECONDS - 0.1, 20.001)


def test_without_proc_the_clocks_are_enough(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "nothing")
    assert not machine.moved(0.0, 0.0)
    assert machine.moved(0.0, 11.0)


def test_a_clock_that_went_back_is_another_machine_s(host: Host) -> None:
    """However short ago it looked: restored where the boot was later."""
    assert not host.moved(20.0, 20.0)
    host.slept = -19.5  # boottime falls from 120 to half a second
    assert host.moved(20.0, 20.0)
    assert not host.moved(20.1, 20.1)
