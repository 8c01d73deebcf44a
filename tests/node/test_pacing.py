# SPDX-License-Identifier: MIT
"""What a snooper sees of a link: instants and lengths, the same with mail and without."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.cell import BODY_LEN, CELL_LEN, PADDING
from mesh.core.clock import Clock, period_of
from mesh.errors import LocalProtocolError
from mesh.node import pacing
from mesh.node.pacer.ring import INTO_MIN
from mesh.node.pacing import BROKEN, CLOSED, GREEDY_CELLS, SILENT, carry
from mesh.node.port import Ending
from tests.harness import (
    FakeWire,
    FixedEntropy,
    Half,
    connect,
    half,
    sessions,
    until,
    wire_pair,
)

LARGE = b"0123456789abcd\r\n" * 40_000
"""640 kB: 157 cells, and several turns of credit."""
CELLS = 400
KLASS = 3
T = period_of(KLASS)

Seen = tuple[list[tuple[float, int]], list[tuple[float, int]]]


def nothing(_: Half, _other: Half) -> None:
    """An idle link."""


def mail_both_ways(alpha: Half, bravo: Half) -> None:
    alpha.submit(LARGE, "mix@bravo")
    for number in range(30):
        alpha.submit(b"%d\r\n" % number * 500, "mix@bravo")
        bravo.submit(b"%d\r\n" % number * 500, "mix@alpha")


async def snoop(
    folder: Path, clock: Clock, mail: Callable[[Half, Half], None]
) -> tuple[Seen, int]:
    """What is seen of the first cells, and how many messages crossed."""
    async with (
        half(folder, "alpha", {"mix@bravo": "bravo", "mix@alpha": "local:0"}) as alpha,
        half(folder, "bravo", {"mix@bravo": "local:0", "mix@alpha": "alpha"}) as bravo,
        trio.open_nursery() as nursery,
    ):
        cable = await connect(nursery, alpha, bravo, clock=clock, klass=KLASS)
        start = trio.current_time()
        await trio.sleep(10 * T)
        mail(alpha, bravo)
        await trio.sleep_until(start + CELLS * T)
        seen = list(cable.near.sent), list(cable.far.sent)
        assert not cable.reasons
        crossed = sum(len(end.qmgr.queue("local:0").ready) for end in (alpha, bravo))
        nursery.cancel_scope.cancel()
    return seen, crossed


async def test_renewal_is_the_same_with_mail_and_without(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    begin = trio.current_time()
    idle, none = await snoop(tmp_path / "idle", Clock.RENEWAL, nothing)
    # The same draws and the same start: what differs is the mail alone.
    offset = trio.current_time() - begin
    busy, crossed = await snoop(tmp_path / "busy", Clock.RENEWAL, mail_both_ways)
    assert (none, crossed) == (0, 61)
    for quiet, loud in zip(idle, busy, strict=True):
        assert len(quiet) > CELLS - 100
        assert [length for _, length in quiet] == [CELL_LEN] * len(quiet)
        assert [length for _, length in loud] == [length for _, length in quiet]
        assert [at - offset for at, _ in loud] == pytest.approx(
            [at for at, _ in quiet], abs=1e-6
        )


async def test_greedy_is_not_so_this_test_can_tell(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    idle, _ = await snoop(tmp_path / "idle", Clock.GREEDY, nothing)
    busy, crossed = await snoop(tmp_path / "busy", Clock.GREEDY, mail_both_ways)
    assert crossed == 61
    assert [length for _, length in idle[0]] == [CELL_LEN] * len(idle[0])
    assert max(length for _, length in busy[0]) > CELL_LEN
    assert all(length % CELL_LEN == 0 for _, length in busy[0])


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("idle", "busy"):
        (tmp_path / name).mkdir()


class Box:
    """The least inside that a carrier can have: bodies to send, bodies that came."""

    def __init__(self) -> None:
        self.to_send: list[bytes] = []
        self.came: list[bytes] = []
        self.reads = 0
        self.finished = False
        self.ending: Ending | None = None
        self.on_data: Callable[[], None] = lambda: None

    @property
    def has_data(self) -> bool:
        return bool(self.to_send)

    def next_body(self) -> bytes:
        return self.to_send.pop(0) if self.to_send else PADDING

    def receive_body(self, body: bytes) -> None:
        self.came.append(body)

    def write_bodies(self, room: memoryview) -> int:
        room[:BODY_LEN] = self.next_body()
        return CELL_LEN

    def receive_bodies(self, room: memoryview) -> None:
        for at in range(0, len(room), CELL_LEN):
            self.receive_body(bytes(room[at : at + BODY_LEN]))

    def received(self) -> None:
        self.reads += 1


class Carried:
    """A carrier at one end of a wire, our own hand at the other."""

    def __init__(self, nursery: trio.Nursery, clock: Clock) -> None:
        self.box = Box()
        self.wire, self.far = wire_pair()
        ours, self.theirs = sessions("alpha", "bravo", clock=clock, klass=KLASS)
        self.ours = ours
        self.reason: str | None = None
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        self.reason = await carry(self.wire, self.ours, self.box, FixedEntropy("p"))

    def say(self, count: int = 1) -> None:
        for _ in range(count):
            self.far.try_send(self.theirs.sealer.seal(PADDING))


BOTH = pytest.mark.parametrize("clock", [Clock.RENEWAL, Clock.GREEDY])


@BOTH
async def test_the_end_of_the_stream_ends_the_link(
    autojump_clock: MockClock, nursery: trio.Nursery, clock: Clock
) -> None:
    link = Carried(nursery, clock)
    link.say(3)
    await trio.sleep(5)
    assert len(link.box.came) == 3
    link.far.close()
    await until(lambda: link.reason)
    assert link.reason == CLOSED
    assert link.wire.closed


@BOTH
async def test_a_cell_that_does_not_open_ends_the_link(
    autojump_clock: MockClock, nursery: trio.Nursery, clock: Clock
) -> None:
    link = Carried(nursery, clock)
    link.say()
    link.far.try_send(bytes(CELL_LEN))
    link.say()
    await until(lambda: link.reason)
    assert link.reason == BROKEN
    assert len(link.box.came) == 1


@BOTH
async def test_a_silent_peer_is_dead_after_8_periods_and_10_seconds(
    autojump_clock: MockClock, nursery: trio.Nursery, clock: Clock
) -> None:
    link = Carried(nursery, clock)
    await trio.sleep(5)
    link.say()
    await trio.sleep(2)
    heard = trio.current_time()
    await until(lambda: link.reason)
    assert link.reason == SILENT
    assert 8 * T + 10 - 2 <= trio.current_time() - heard <= 8 * T + 10 + 4 * T


@BOTH
async def test_octets_in_pieces_make_whole_cells(
    autojump_clock: MockClock, nursery: trio.Nursery, clock: Clock
) -> None:
    link = Carried(nursery, clock)
    cell = link.theirs.sealer.seal(PADDING)
    link.far.try_send(cell[:1000])
    await trio.sleep(3)
    assert link.box.reads == 0
    link.far.try_send(cell[1000:])
    await trio.sleep(3)
    assert (link.box.came, link.box.reads) == ([PADDING], 1)


async def test_greedy_keeps_nothing_of_what_it_opened(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.GREEDY)
    body = bytes(range(1, 256)) * 16
    for _ in range(3):
        link.far.try_send(link.theirs.sealer.seal(body))
    await until(lambda: len(link.box.came) == 3)
    assert link.box.came == [body] * 3
    assert not any(pacing._opened.octets)


@BOTH
async def test_a_port_that_has_finished_ends_the_link(
    autojump_clock: MockClock, nursery: trio.Nursery, clock: Clock
) -> None:
    link = Carried(nursery, clock)
    await trio.sleep(3)
    link.box.finished = True
    link.box.ending = Ending(4)
    link.box.on_data()
    if clock is not Clock.GREEDY:
        for _ in range(3):
            link.say()
            await trio.sleep(7 * T)
        link.far.close()
    await until(lambda: link.reason)
    assert link.reason == CLOSED
    assert not link.wire.unsent()


async def test_renewal_reads_at_its_own_instants_only(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.RENEWAL)
    reads: list[float] = []
    take = link.wire.try_receive

    def noting(limit: int) -> bytes | None:
        reads.append(trio.current_time())
        return take(limit)

    link.wire.try_receive = noting  # type: ignore[method-assign]
    for _ in range(200):
        link.say()
        await trio.sleep(T / 7)
    assert set(reads) == {at for at, _ in link.wire.sent}


async def test_renewal_reads_what_the_ring_holds_and_no_more(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.RENEWAL)
    at: list[float] = []
    take = link.box.receive_body

    def noting(body: bytes) -> None:
        at.append(trio.current_time())
        take(body)

    link.box.receive_body = noting  # type: ignore[method-assign]
    for _ in range(3):
        link.say(GREEDY_CELLS)
    link.say()
    await trio.sleep(20 * T)
    assert list(Counter(at).values()) == [INTO_MIN] * 12 + [1]


async def test_renewal_sends_the_rest_of_a_cell_first(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.RENEWAL)
    link.wire.held = True
    link.wire.capacity = 3000
    await trio.sleep(4 * T)
    assert [length for _, length in link.wire.sent] == [3000]
    link.wire.let_go()
    link.wire.capacity = 524_288
    await trio.sleep(8 * T)
    lengths = [length for _, length in link.wire.sent]
    assert lengths[:3] == [3000, CELL_LEN - 3000, CELL_LEN]
    octets = bytes(link.wire.octets_sent)
    for at in range(0, len(octets), CELL_LEN):
        link.theirs.opener.open_untrusted(octets[at : at + CELL_LEN])


async def test_renewal_adds_nothing_to_what_the_kernel_cannot_send(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.RENEWAL)
    link.wire.held = True
    await trio.sleep(12 * T)
    assert link.wire.unsent() == 2 * CELL_LEN  # more than one is the sign to stop
    link.say()
    await trio.sleep(2 * T)
    assert link.box.came == [PADDING]  # and it reads all the same


async def test_greedy_sends_padding_only_after_a_period_of_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.GREEDY)
    start = trio.current_time()
    await trio.sleep(3.5 * T)
    assert [at - start for at, _ in link.wire.sent] == [0, T, 2 * T, 3 * T]
    link.box.to_send = [b"\1".ljust(len(PADDING), b"\0")] * 200
    link.box.on_data()
    await trio.sleep(T / 10)
    lengths = [length // CELL_LEN for _, length in link.wire.sent[4:]]
    assert lengths == [GREEDY_CELLS] * 3 + [200 - 3 * GREEDY_CELLS]


async def test_greedy_begins_with_one_call_whatever_was_there_to_read(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.GREEDY)
    link.say()
    link.box.to_send = [PADDING] * 2
    await trio.sleep(T / 10)
    assert link.box.reads == 1
    assert [length for _, length in link.wire.sent] == [2 * CELL_LEN]


async def test_greedy_answers_a_read_by_one_call(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.GREEDY)
    await trio.sleep(T / 10)
    came = link.box.receive_body

    def answering(body: bytes) -> None:
        came(body)
        link.box.to_send.append(body)
        link.box.on_data()

    link.box.receive_body = answering  # type: ignore[method-assign]
    before = len(link.wire.sent)
    link.say(5)
    await trio.sleep(T / 10)
    assert [length for _, length in link.wire.sent[before:]] == [5 * CELL_LEN]
    link.box.to_send.append(PADDING)
    link.box.on_data()  # and a call that no read has made wakes it, as before
    await trio.sleep(T / 10)
    assert link.wire.sent[-1][1] == CELL_LEN


async def test_greedy_waits_for_room_and_goes_on(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.GREEDY)
    link.wire.held = True
    link.box.to_send = [PADDING] * 2000
    await trio.sleep(3 * T)
    assert link.box.to_send  # the outlet is full: the rest stays where it is
    kept = len(link.box.to_send)
    await trio.sleep(3 * T)
    assert len(link.box.to_send) == kept  # no padding is added either
    while link.box.to_send or link.wire.unsent():
        link.wire.let_go()
        await trio.sleep(T / 100)
    octets = bytes(link.wire.octets_sent)
    for at in range(0, len(octets), CELL_LEN):
        link.theirs.opener.open_untrusted(octets[at : at + CELL_LEN])


async def test_greedy_keeps_nothing_of_what_it_sealed(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Carried(nursery, Clock.GREEDY)
    link.box.to_send = [bytes(range(1, 256)) * 16] * 3
    await until(lambda: not link.box.to_send)
    assert len(link.wire.octets_sent) >= 3 * CELL_LEN
    assert not any(pacing._written.octets)


async def test_cancelled_or_not_the_keys_are_wiped(autojump_clock: MockClock) -> None:
    wire: FakeWire
    async with trio.open_nursery() as nursery:
        link = Carried(nursery, Clock.RENEWAL)
        wire = link.wire
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert wire.closed
    with pytest.raises(LocalProtocolError):
        link.ours.sealer.seal(PADDING)


async def test_what_was_to_be_sealed_and_is_not_is_wiped() -> None:
    class Failing(Box):
        def write_bodies(self, room: memoryview) -> int:
            room[:BODY_LEN] = b"\1" * BODY_LEN
            raise KeyError

    ours, _ = sessions("alpha", "bravo", clock=Clock.GREEDY, klass=KLASS)
    carrier = pacing._Carrier(wire_pair()[0], ours, Failing())
    with pytest.raises(KeyError):
        pacing._GreedySender(carrier, lambda: 0)._seal()
    assert not any(pacing._written.octets)
