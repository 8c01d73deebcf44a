# SPDX-License-Identifier: MIT
"""A lane instant by instant, on a socket and a clock of our own."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.cell import BODY_LEN, CELL_LEN, CLOSE_BODY, PADDING
from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Clock, law_of, period_of
from mesh.core.crypto import Key
from mesh.errors import LocalProtocolError
from mesh.node.bare import RECEIVE_MAX
from mesh.node.pacer.lane import (
    BROKEN,
    CLOSED,
    DEAD_PERIODS,
    DEAD_SECONDS,
    GRACE_SECONDS,
    LINGER_PERIODS,
    READ_CELLS,
    SILENT,
    STOPPED,
    Lane,
)
from mesh.node.pacer.ring import INTO_MIN, PAGE, Ring, length_of

KLASS = 3
SECOND = 1.0
"""T of class 3."""
PATIENCE = DEAD_PERIODS * SECOND + DEAD_SECONDS


def body(number: int) -> bytes:
    return number.to_bytes(4, "big").ljust(BODY_LEN, b"\1")


class Kernel:
    """A socket: what was sent, what is to be read, how much fits."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.sent = bytearray()
        self.inbox = bytearray()
        self.room = 1 << 30
        self.waiting = 0
        self.stuck = False
        """What is sent stays, and waits."""
        self.asked = 0
        self.ended = False
        self.fin = False
        self.closed = False

    def said_fin(self) -> bool:
        return self.fin

    def try_send(self, data: bytes | memoryview) -> int:
        assert not self.closed
        assert not self.fin
        took = bytes(data[: self.room])
        self.calls.append(f"send {len(took)}")
        self.sent += took
        if self.stuck:
            assert self.waiting <= CELL_LEN
            self.waiting += len(took)
        return len(took)

    def try_receive(self, limit: int) -> bytes | None:
        assert 0 < limit <= RECEIVE_MAX
        self.calls.append("receive")
        if self.inbox:
            data = bytes(self.inbox[:limit])
            del self.inbox[:limit]
            return data
        return b"" if self.ended else None

    def try_receive_into(self, place: memoryview, limit: int) -> int | None:
        data = self.try_receive(limit)
        if data is not None:
            place[: len(data)] = data
        return None if data is None else len(data)

    def unsent(self) -> int:
        self.asked += 1
        return self.waiting

    def end_sending(self) -> None:
        self.fin = True

    def close(self) -> None:
        self.closed = True


class Driven:
    """A lane, its main process's side of the ring, and the other end of the link."""

    def __init__(
        self,
        klass: int = KLASS,
        clock: Clock = Clock.CONSTANT,
        memory: bytearray | None = None,
    ) -> None:
        self.kernel = Kernel()
        self.memory = memory or bytearray(length_of(klass))
        self.ring = Ring(self.memory, klass)
        self.sealer = CellSealer(Key.from_bytes(b"i" * 32))
        self.lane = Lane(
            wire=self.kernel,
            sealer=self.sealer,
            opener=CellOpener(Key.from_bytes(b"r" * 32)),
            ring=self.ring,
            law=law_of(clock, klass, Key.from_bytes(b"l" * 32), 0.0),
            klass=klass,
            now=0.0,
        )
        self.theirs = CellSealer(Key.from_bytes(b"r" * 32))
        self.opener = CellOpener(Key.from_bytes(b"i" * 32))
        self._opened = 0

    def step(self, count: int = 1, late: float = 0.0) -> int:
        """Do so many instants; why the link ended."""
        for _ in range(count):
            assert self.lane.due < 1000 * SECOND  # else it would go on for ever
            if ended := self.lane.instant(self.lane.due + late):
                return ended
        return 0

    def say(self, *bodies: bytes) -> None:
        for each in bodies or (PADDING,):
            self.kernel.inbox += self.theirs.seal(each)

    def come(self) -> list[bytes]:
        return list(iter(self.ring.come, None))

    def left(self) -> list[bytes]:
        """What the other end opens of what has been sent since the last call."""
        whole = len(self.kernel.sent) - len(self.kernel.sent) % CELL_LEN
        cells = range(self._opened, whole, CELL_LEN)
        self._opened = whole
        return [
            self.opener.open_untrusted(self.kernel.sent[at : at + CELL_LEN])
            for at in cells
        ]


def test_one_cell_at_each_instant_then_one_read_with_mail_and_without() -> None:
    idle, busy = Driven(), Driven()
    for turn in range(70):  # past a rekey
        busy.ring.put(body(turn))
        busy.say(body(turn))
        idle.say()
        assert idle.step() == busy.step() == 0
        assert busy.come() == [body(turn)]
        assert idle.come() == [PADDING]
    assert idle.kernel.calls == busy.kernel.calls
    assert idle.kernel.calls[:4] == [f"send {CELL_LEN}", "receive"] * 2
    assert idle.left() == [PADDING] * 70
    assert busy.left() == [PADDING, *(body(turn) for turn in range(69))]


def test_what_lies_in_the_ring_at_its_birth_is_in_the_first_cell() -> None:
    memory = bytearray(length_of(KLASS))
    Ring(memory, KLASS).put(body(7))
    link = Driven(memory=memory)
    link.step(2)
    assert link.left() == [body(7), PADDING]


def test_it_steps_by_its_law_however_late_it_is() -> None:
    prompt, late = Driven(clock=Clock.RENEWAL), Driven(clock=Clock.RENEWAL)
    for _ in range(50):
        assert prompt.lane.due == late.lane.due
        prompt.say()
        late.say()
        prompt.step()
        late.step(late=0.3)


def test_a_remainder_goes_first_and_alone() -> None:
    link = Driven()
    link.kernel.room = 3000
    link.ring.put(body(1))
    link.step()
    link.kernel.room = 1 << 30
    link.step(3)
    sends = [call for call in link.kernel.calls if call != "receive"]
    assert sends == ["send 3000", "send 1096", "send 4096", "send 4096"]
    assert link.left() == [PADDING, body(1), PADDING]


def test_nothing_is_added_while_the_kernel_holds_more_than_a_cell() -> None:
    link = Driven()
    link.kernel.waiting = CELL_LEN + 1
    link.say(body(1))
    link.step(2)
    assert link.kernel.calls.count(f"send {CELL_LEN}") == 0
    assert link.lane.skipped == 2
    assert link.come() == [body(1)]  # and it reads all the same
    link.kernel.waiting = CELL_LEN
    link.step()
    assert link.left() == [PADDING]


@given(st.lists(st.integers(0, 3 * CELL_LEN), max_size=40), st.integers(1, 5000))
def test_the_kernel_is_asked_often_enough(leaves: Sequence[int], room: int) -> None:
    """Whatever leaves it between two instants; it looks at what it holds when we send."""
    link = Driven()
    link.kernel.stuck = True
    link.kernel.waiting, link.kernel.room = leaves[0] if leaves else 0, room
    for each in leaves:
        link.say()
        if link.step():
            break  # a cell that takes too long in its pieces
        link.come()
        link.kernel.waiting = max(0, link.kernel.waiting - each)


def test_a_kernel_that_holds_nothing_is_asked_at_every_second_instant() -> None:
    link = Driven()
    link.step(17)
    assert link.kernel.asked == 9


def test_what_waits_in_the_ring_stays_there_while_nothing_leaves() -> None:
    link = Driven()
    link.ring.put(body(1))
    link.kernel.waiting = 2 * CELL_LEN
    link.step(5)
    assert link.ring.room == 1
    link.kernel.waiting = 0
    link.step(2)
    assert link.left() == [PADDING, body(1)]


def test_a_peer_that_takes_nothing_is_as_dead_as_a_silent_one() -> None:
    link = Driven()
    link.step(3)
    link.kernel.stuck = True
    stopped = sent = 0.0
    while True:
        link.say()
        due = link.lane.due
        if ended := link.step():
            break
        if sent < len(link.kernel.sent):
            stopped, sent = due, len(link.kernel.sent)
        link.come()
    assert CELL_LEN < link.kernel.waiting <= 2 * CELL_LEN
    assert ended == SILENT
    assert PATIENCE < due - stopped <= PATIENCE + SECOND
    assert link.kernel.closed


def test_a_peer_that_takes_a_cell_in_pieces_is_dead_too_if_it_takes_too_long() -> None:
    link = Driven()
    link.kernel.room = 100
    while not (ended := link.step()):
        link.say()
        link.come()
    assert ended == SILENT
    assert len(link.kernel.sent) < CELL_LEN


def test_a_peer_that_takes_slowly_lives() -> None:
    link = Driven()
    link.kernel.room = 1024
    for turn in range(200):
        link.say()
        assert link.step() == 0, turn
        link.come()
    assert link.left() == [PADDING] * 50


@pytest.mark.parametrize("said", [0, 5])
def test_a_silent_peer_is_dead(said: int) -> None:
    link = Driven()
    for _ in range(said):
        link.say()
        link.step()
    heard = link.lane.due - SECOND if said else 0.0
    due = link.lane.due
    while not (ended := link.step()):
        due = link.lane.due
    assert ended == SILENT
    assert PATIENCE < due - heard <= PATIENCE + SECOND
    assert link.ring.ended == SILENT


def test_octets_without_a_whole_cell_are_a_sign_of_life() -> None:
    link = Driven()
    cell = link.theirs.seal(body(1))
    for at in range(0, CELL_LEN, 100):
        link.kernel.inbox += cell[at : at + 100]
        assert link.step() == 0
        assert link.come() == ([body(1)] if at + 100 >= CELL_LEN else [])


@given(st.lists(st.integers(1, 3 * CELL_LEN), max_size=8))
def test_cells_arrive_however_they_are_cut(cuts: Sequence[int]) -> None:
    link = Driven()
    stream = b"".join(link.theirs.seal(body(number)) for number in range(5))
    for begin, end in itertools.pairwise([0, *itertools.accumulate(cuts), 1 << 30]):
        link.kernel.inbox += stream[begin:end]
        link.step()
    assert link.come() == [body(number) for number in range(5)]


def test_a_flood_is_read_as_far_as_the_ring_has_room() -> None:
    link = Driven()
    link.say(*(body(number) for number in range(3 * INTO_MIN)))
    link.kernel.inbox += link.theirs.seal(body(99))[:50]
    for turn in range(3):
        link.kernel.calls.clear()
        link.step()
        assert link.kernel.calls.count("receive") == 1
        assert link.come() == [body(turn * INTO_MIN + at) for at in range(INTO_MIN)]
    link.step()
    assert not link.come()


def test_a_flood_is_read_in_small_parts_however_much_room_there_is() -> None:
    """Other links' cells wait for as long as it takes to open what was read."""
    link = Driven(klass=9)
    link.say(*[PADDING] * 64)
    for _ in range(4):
        link.step()
        assert len(link.come()) == READ_CELLS
    assert not link.kernel.inbox


def test_a_main_process_that_stands_still_costs_no_cell() -> None:
    link = Driven()
    link.say(*[body(1)] * (INTO_MIN + 4))
    assert link.step(10) == 0
    assert len(link.kernel.inbox) == 4 * CELL_LEN  # the kernel keeps the rest
    assert len(link.left()) == 10
    assert len(link.come()) == INTO_MIN
    link.step()
    assert len(link.come()) == 4


def test_a_full_ring_leaves_room_for_the_rest_of_a_cell_only() -> None:
    link = Driven()
    first = link.theirs.seal(body(0))
    link.kernel.inbox += first[:-1]
    link.step()
    link.kernel.inbox += first[-1:]
    link.say(*(body(number) for number in range(1, INTO_MIN + 1)))
    link.step()
    assert link.come() == [body(number) for number in range(INTO_MIN)]
    link.step()
    assert link.come() == [body(INTO_MIN)]


@pytest.mark.parametrize("bad", ["flipped", "dropped", "repeated"])
def test_a_cell_that_is_not_the_next_one_ends_the_link(bad: str) -> None:
    link = Driven()
    cells = [link.theirs.seal(body(number)) for number in range(3)]
    if bad == "flipped":
        cells[1] = cells[1][:-1] + bytes([cells[1][-1] ^ 1])
    elif bad == "dropped":
        del cells[1]
    else:
        cells[1] = cells[0]
    link.kernel.inbox += b"".join(cells)
    assert link.step() == BROKEN
    assert link.come() == [body(0)]
    assert link.kernel.closed


def test_so_many_cells_and_a_last_one_and_a_fin() -> None:
    link = Driven()
    link.step(2)
    link.left()
    link.ring.put(body(1))
    link.lane.end_after(4, linger=False)
    assert link.step(4) == 0
    assert not link.kernel.said_fin()
    assert link.step() == CLOSED
    assert link.kernel.said_fin()
    # One was sealed already, then the ring's, padding, and the last one.
    assert link.left() == [PADDING, body(1), PADDING, PADDING, CLOSE_BODY]
    assert link.ring.ended == CLOSED


def test_an_end_after_nothing_still_sends_the_cell_that_is_sealed() -> None:
    link = Driven()
    link.lane.end_after(0, linger=False)
    assert link.step(3) == CLOSED
    assert link.left() == [PADDING, CLOSE_BODY]


def test_a_second_word_about_the_end_changes_nothing() -> None:
    link = Driven()
    link.lane.end_after(1, linger=False)
    link.lane.end_after(50, linger=True)
    assert link.step(3) == CLOSED


def test_the_last_cell_s_remainder_leaves_before_the_fin() -> None:
    link = Driven()
    link.lane.end_after(1, linger=False)
    link.step()
    link.kernel.room = 2000
    for _ in range(2):
        link.say()
        assert link.step() == 0
    assert not link.kernel.said_fin()
    link.say()
    assert link.step() == CLOSED
    assert link.kernel.said_fin()
    assert link.left() == [PADDING, CLOSE_BODY]


def test_one_that_is_replaced_hears_the_other_side_out() -> None:
    link = Driven()
    link.lane.end_after(2, linger=True)
    for number in range(20):
        link.say(body(number))
        assert link.step() == 0
    assert link.kernel.said_fin()
    assert len(link.left()) == 3
    assert link.come()[-1] == body(INTO_MIN - 1)
    link.step()
    assert link.come()[-1] == body(19)
    link.say(body(20))
    link.kernel.ended = True
    assert link.step(2) == CLOSED
    assert link.come() == [body(20)]


def test_one_that_is_replaced_does_not_hear_for_ever() -> None:
    link = Driven()
    link.lane.end_after(1, linger=True)
    link.step(2)
    begin = link.lane.due
    due = begin
    while not (ended := link.step()):
        due = link.lane.due
        link.say()
        link.come()
    assert ended == CLOSED
    assert due - begin == pytest.approx(LINGER_PERIODS * SECOND + PATIENCE, abs=SECOND)


def test_one_that_is_replaced_does_not_wait_for_a_silent_peer() -> None:
    link = Driven()
    link.lane.end_after(1, linger=True)
    assert link.step(30) == SILENT


def test_one_that_was_replaced_and_heard_the_end_is_not_silent() -> None:
    link = Driven()
    link.say()
    link.kernel.ended = True
    link.lane.end_after(64, linger=True)
    assert link.step(64) == 0  # 64 s, and the peer has said all it had
    assert link.step(2) == CLOSED
    assert len(link.left()) == 65


@pytest.mark.parametrize("klass", [3, 9])
def test_after_the_other_side_s_end_cells_of_half_a_second_leave(klass: int) -> None:
    link = Driven(klass)
    link.kernel.ended = True
    steps = 1
    while not link.step():
        steps += 1
    grace = int(GRACE_SECONDS / period_of(klass))
    # At low rates the main process has had its time already: none.
    assert steps == (grace + 2 if grace else 1)
    assert link.left() == [PADDING] * (1 + grace) + [CLOSE_BODY] * bool(grace)
    assert link.kernel.calls.count("receive") <= 2  # the end is not read twice


@pytest.mark.parametrize("gaps", [1, 2])
def test_at_low_rates_the_gap_before_the_end_is_the_main_process_s_time(
    gaps: int,
) -> None:
    """It hears in a cell that the other side ends; FIN comes an instant later or two."""
    link = Driven(3)
    link.say(CLOSE_BODY)
    assert link.step() == 0  # what was said has been heard
    link.lane.end_after(2, linger=False)
    for turn in itertools.count(1):
        link.kernel.ended = turn >= gaps
        if link.step():
            break
    assert turn == 3
    assert link.left()[-1] == CLOSE_BODY


@pytest.mark.parametrize("said", [*range(1, 8), 20, 31])
def test_when_the_main_process_says_that_it_ends_too_makes_no_difference(
    said: int,
) -> None:
    """It hears that the other side does when it comes to that; mail keeps it busy."""
    link = Driven(9)
    for turn in itertools.count():
        if turn == said:
            link.lane.end_after(2, linger=False)
        link.kernel.ended = turn >= 2
        if link.step():
            break
    assert turn == 2 + 32 + 1
    assert link.left()[-1] == CLOSE_BODY


def test_in_that_half_second_the_main_process_may_say_that_it_has_more() -> None:
    link = Driven(9)
    link.kernel.ended = True
    link.step()
    link.ring.put(body(1))
    link.lane.end_after(64, linger=True)
    assert link.step(64) == 0
    assert link.step(1) == CLOSED
    assert [each for each in link.left() if each != PADDING] == [body(1), CLOSE_BODY]


def test_at_the_end_everything_is_read_so_that_the_kernel_says_fin() -> None:
    link = Driven()
    link.kernel.inbox += bytes(3 * RECEIVE_MAX)
    link.lane.close(STOPPED)
    assert not link.kernel.inbox
    assert link.ring.ended == STOPPED


def test_at_the_end_a_flood_is_not_read_for_ever() -> None:
    link = Driven()
    link.kernel.inbox += bytes(20 * RECEIVE_MAX)
    link.lane.close(STOPPED)
    assert link.kernel.closed
    assert link.kernel.inbox


def test_a_body_is_sealed_where_it_is_copied_to_so_none_is_left() -> None:
    link = Driven()
    link.ring.put(body(7))
    link.step()
    assert b"\1\1\1\1" not in bytes(link.lane._cell)
    assert not any(link.memory[PAGE : PAGE + BODY_LEN])
    link.step()
    assert link.left() == [PADDING, body(7)]


def test_at_the_end_the_keys_are_gone_and_a_body_that_was_not_sealed() -> None:
    link = Driven()
    link.step()
    assert any(link.lane._cell)
    link.lane.close(CLOSED)
    assert not any(link.lane._cell)
    with pytest.raises(LocalProtocolError):
        link.sealer.seal(PADDING)
