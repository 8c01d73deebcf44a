# SPDX-License-Identifier: MIT
"""What a snooper sees of gossip: nothing.  Instants and lengths are the same without."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock, Renewal, period_of
from mesh.node.inside import Port
from mesh.node.pacer.lane import Lane
from mesh.node.pacer.ring import Ring, slots_of
from tests import harness
from tests.descriptors import signed
from tests.directories import directory, members
from tests.node.gossips import Knower, adopt, connect, knower

FIRST = directory()
LARGE = directory(
    FIRST, members("alpha", "bravo", *(f"n{number}" for number in range(300)))
)
CELLS = 300
KLASS = 3
T = period_of(KLASS)
ROUTES = {"mix@bravo": "local:0", "mix@alpha": "local:0"}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("none", "idle", "some", "both"):
        (tmp_path / name).mkdir()


Seen = list[list[tuple[float, int]]]


def nothing(_: Knower, _other: Knower) -> None:
    """Two that have the same."""


def gossip(alpha: Knower, bravo: Knower) -> None:
    """A directory one way, a descriptor the other."""
    adopt(alpha.registry, LARGE)
    bravo.registry.tell_own(signed("bravo", serial=8))


def gossip_and_mail(alpha: Knower, bravo: Knower) -> None:
    gossip(alpha, bravo)
    for number in range(20):
        alpha.half.submit(b"%d\r\n" % number * 500, "mix@bravo")
        bravo.half.submit(b"%d\r\n" % number * 500, "mix@alpha")


async def snoop(
    folder: Path,
    happens: Callable[[Knower, Knower], None],
    clock: Clock = Clock.RENEWAL,
) -> tuple[Seen, Sequence[int]]:
    """What is seen, from the link's start; and what crossed."""
    async with (
        knower(folder, "alpha", FIRST, ROUTES | {"mix@bravo": "bravo"}) as alpha,
        knower(folder, "bravo", FIRST, ROUTES | {"mix@alpha": "alpha"}) as bravo,
        trio.open_nursery() as nursery,
    ):
        start = trio.current_time()
        cable = await connect(nursery, alpha, bravo, clock=clock, klass=KLASS)
        await trio.sleep(10 * T)
        happens(alpha, bravo)
        await trio.sleep_until(start + CELLS * T)
        seen = [
            [(round(at - start, 6), length) for at, length in wire.sent]
            for wire in (cable.near, cable.far)
        ]
        nodes = (alpha, bravo)
        mail = sum(len(node.half.qmgr.queue("local:0").ready) for node in nodes)
        version = bravo.registry.head[0] & 0xFFFFFFFF
        crossed = (mail, version, alpha.newest("bravo"))
        nursery.cancel_scope.cancel()
    return seen, crossed


async def without_gossip(folder: Path) -> Seen:
    """Two halves that have no gossip at all, the same link between them."""
    async with (
        harness.half(folder, "alpha", {}) as alpha,
        harness.half(folder, "bravo", {}) as bravo,
        trio.open_nursery() as nursery,
    ):
        start = trio.current_time()
        cable = await harness.connect(
            nursery, alpha, bravo, clock=Clock.RENEWAL, klass=KLASS
        )
        await trio.sleep_until(start + CELLS * T)
        seen = [
            [(round(at - start, 6), length) for at, length in wire.sent]
            for wire in (cable.near, cable.far)
        ]
        nursery.cancel_scope.cancel()
    return seen


async def test_the_wire_is_the_same_with_gossip_and_without(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    none = await without_gossip(tmp_path / "none")
    idle, nothing_crossed = await snoop(tmp_path / "idle", nothing)
    some, crossed = await snoop(tmp_path / "some", gossip)
    both, all_crossed = await snoop(tmp_path / "both", gossip_and_mail)
    assert nothing_crossed == (0, 1, 7)
    assert crossed == (0, 2, 8)
    assert all_crossed == (40, 2, 8)
    assert len(none[0]) > CELLS - 80
    assert {length for wire in none for _, length in wire} == {CELL_LEN}
    assert none == idle == some == both


# Three ways of breaking it: each shows in this very comparison.


def sends_at_once(patch: pytest.MonkeyPatch) -> None:
    """Gossip leaves when there is some, and not when a cell is due."""
    put = Ring.put
    instant = Lane.instant

    def putting(ring: Ring, body: bytes) -> None:
        put(ring, body)
        asked.append(ring)

    def doing(lane: Lane, now: float) -> int:
        ended = instant(lane, now)
        if lane._ring in asked and lane._sealed:
            asked.clear()
            lane._wire.try_send(lane._cell)
            lane._next(now)
        return ended

    asked: list[Ring] = []
    patch.setattr(Ring, "put", putting)
    patch.setattr(Lane, "instant", doing)


def sends_no_padding(patch: pytest.MonkeyPatch) -> None:
    """Once a link is up, a cell leaves only when there is something to say."""
    seal, sealed = Lane._next, Counter[Lane]()

    def sealing(lane: Lane, now: float) -> int:
        sealed[lane] += 1
        nothing = lane._ring.room == slots_of(KLASS)[0]
        return 0 if nothing and sealed[lane] > 5 else seal(lane, now)

    patch.setattr(Lane, "_next", sealing)


def waits_for_gossip(patch: pytest.MonkeyPatch) -> None:
    """Writing gossip takes a millisecond, and the next cell is as much later."""
    busy: list[bool] = []
    advance, body = Renewal.advance, Port.next_body

    def writing(port: Port) -> bytes:
        if port.inside and port.inside.link.gossip.pending:
            busy.append(True)
        return body(port)

    def advancing(clock: Renewal) -> float:
        advance(clock)
        if busy:
            busy.clear()
            clock.due += 0.001
        return clock.due

    patch.setattr(Port, "next_body", writing)
    patch.setattr(Renewal, "advance", advancing)


@pytest.mark.parametrize("broken", [sends_at_once, sends_no_padding, waits_for_gossip])
async def test_this_test_can_tell(
    tmp_path: Path,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
) -> None:
    with monkeypatch.context() as patch:
        broken(patch)
        idle, _ = await snoop(tmp_path / "idle", nothing)
        some, _ = await snoop(tmp_path / "some", gossip)
    assert idle != some


async def test_a_greedy_link_shows_it_so_this_test_can_tell(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    idle, _ = await snoop(tmp_path / "idle", nothing, Clock.GREEDY)
    some, crossed = await snoop(tmp_path / "some", gossip, Clock.GREEDY)
    assert crossed == (0, 2, 8)
    assert idle != some
