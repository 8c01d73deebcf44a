# SPDX-License-Identifier: MIT
"""When an unproven connection is looked at, and that nothing on it has a say in that."""

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from mesh.core.handshake import LOOK_SECONDS
from mesh.node.looks import FIRST_SCALE, Looks
from mesh.node.wire import DRAIN_READS, RECEIVE_MAX
from tests.harness import FakeWire, FixedEntropy, wire_pair


class Watched(FakeWire):
    """Says when it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_at: list[float] = []

    def try_receive(self, limit: int) -> bytes | None:
        if self.read_at[-1:] != [trio.current_time()]:
            self.read_at.append(trio.current_time())
        return super().try_receive(limit)


def watched_pair() -> tuple[FakeWire, Watched]:
    near, far = FakeWire(), Watched()
    near.other, far.other = far, near
    return near, far


@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([1, 4095, 4096])), max_size=6),
    st.none() | st.floats(0, 3),
    st.floats(0, 0.01),
)
def test_what_comes_changes_no_instant(
    comes: list[tuple[float, int]], ends: float | None, work: float
) -> None:
    async def look() -> None:
        near, far = watched_pair()
        quiet = wire_pair()[1]
        start = trio.current_time()

        async def speak() -> None:
            for pause, octets in comes:
                await trio.sleep(pause)
                near.try_send(bytes(octets))

        async def end() -> None:
            if ends is not None:
                await trio.sleep(ends)
                near.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            nursery.start_soon(end)
            looks, other = (Looks(wire, FixedEntropy()) for wire in (far, quiet))
            expected: list[float] = []
            while not looks.over and len(expected) < 12:
                async with trio.open_nursery() as both:
                    both.start_soon(other.next)
                    found = await looks.next()
                expected.append(trio.current_time())
                await trio.sleep(work if found else 0)
            closes = trio.current_time()
            nursery.cancel_scope.cancel()
        assert far.read_at == expected
        if looks.over:
            assert ends is not None
            seen = [at for at in expected if at > start + ends]
            assert closes == seen[1]  # a look later

    trio.run(look, clock=MockClock(autojump_threshold=0))


async def test_the_first_looks_come_soon_and_all_are_drawn(
    autojump_clock: MockClock,
) -> None:
    near, far = watched_pair()
    with trio.move_on_after(60):
        await Looks(far, FixedEntropy()).ignore()
    low, high = LOOK_SECONDS
    gaps = [after - at for at, after in zip(far.read_at, far.read_at[1:], strict=False)]
    first = far.read_at[0] - (trio.current_time() - 60)
    assert FIRST_SCALE * low <= first <= FIRST_SCALE * high
    assert all(low <= gap <= high for gap in gaps[3:])
    assert len({round(gap, 3) for gap in gaps}) > 50
    assert not near.closed


async def test_a_flood_is_not_read_for_ever(autojump_clock: MockClock) -> None:
    class Flood(FakeWire):
        reads = 0

        def try_receive(self, limit: int) -> bytes | None:
            self.reads += 1
            return bytes(limit)

    flood = Flood()
    assert len(await Looks(flood, FixedEntropy()).next()) == DRAIN_READS * RECEIVE_MAX
    assert flood.reads == DRAIN_READS
