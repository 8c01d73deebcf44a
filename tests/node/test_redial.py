# SPDX-License-Identifier: MIT
"""A dialer's waits: before its proof, and where links never come up."""

from pathlib import Path

import trio
from trio.testing import MockClock

from mesh.core.cell import CELL_LEN
from mesh.node.parking import Parking
from tests.harness import until, wire_pair
from tests.node.ends import keeps, keys_of
from tests.node.test_dialer import both, listening


async def test_a_link_that_never_came_up_is_a_failed_dial(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with (
        both(tmp_path) as (alpha, bravo, nursery),
        listening(bravo, nursery) as address,
    ):
        proofs: list[float] = []
        save = bravo.counters.save

        def noting(statement: bytes) -> None:
            proofs.append(trio.from_thread.run_sync(trio.current_time))
            save(statement)

        bravo.counters.save = noting  # type: ignore[method-assign]
        bravo.half.exchange.closing = True  # after each handshake it hangs up
        nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda: address)
        await trio.sleep(600)
        assert 600 / 35 < len(proofs) < 80  # one each half minute, once it waits so
        assert proofs[-1] - proofs[-2] > 6
        bravo.half.exchange.closing = False
        await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=60)
        nursery.cancel_scope.cancel()


async def test_the_proof_leaves_after_a_drawn_delay(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    waits: list[float] = []
    async with both(tmp_path) as (alpha, bravo, nursery):
        for _ in range(5):
            near, far = wire_pair()
            peer = alpha.half.exchange.peer("bravo", keys_of("bravo").identity)
            keys = keys_of("bravo")
            nursery.start_soon(alpha.dialer._handshake, near, peer, keys, 0)
            await trio.sleep(1)
            hello = far.try_receive(CELL_LEN)
            assert hello is not None
            now = trio.current_time()
            responder = bravo.gate.receive_message_1_untrusted(hello, now)
            far.try_send(responder.message_2)
            await trio.sleep(2)
            (_, first), (at, second) = near.sent
            assert (first, second) == (CELL_LEN, CELL_LEN)
            waits.append(at - now)
            responder.abandon()
        nursery.cancel_scope.cancel()
    assert all(0.1 <= wait < 1.1 for wait in waits)
    assert max(waits) - min(waits) > 0.1


class Counted(Parking):
    """A place to wait, and how often somebody came to it."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    async def park(self) -> None:
        self.times += 1
        assert self.times < 1000
        await super().park()


async def test_a_replacement_that_falls_due_while_the_node_ends_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The link's last cells take their time, in which nothing is dialled, nor asked for."""
    async with (
        both(tmp_path) as (alpha, bravo, nursery),
        listening(bravo, nursery) as address,
    ):
        peer = alpha.half.exchange.peer("bravo", keys_of("bravo").identity)
        peer.changed = Counted()
        nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda: address)
        await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=60)
        (port,) = peer.ports
        port.due = trio.current_time() + 1
        peer.changed.wake()
        alpha.half.exchange.closing = True
        await trio.sleep(5)
        assert alpha.links("bravo") == 1
        nursery.cancel_scope.cancel()
