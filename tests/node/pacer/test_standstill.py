# SPDX-License-Identifier: MIT
"""A machine that may be a clone uses no key that was made before: nothing more leaves."""

import gc
import socket
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock, period_of
from mesh.errors import LocalProtocolError
from mesh.node.exchange import Exchange
from mesh.node.listener import bind
from mesh.node.pacer.client import GONE, Pacer
from mesh.node.pacer.loop import GAP_SECONDS, Machine
from mesh.node.pacer.standstill import LOOK_SECONDS, Standstill
from mesh.node.wire import SocketWire
from tests.harness import FixedEntropy, connect, half, sessions, until, wire_pair
from tests.node.ends import end, hand, keeps
from tests.node.pacer.test_client import Box, tcp_pair
from tests.system.nodes import free_port

T = period_of(3)


class Host:
    """What is looked at."""

    def __init__(self, folder: Path) -> None:
        self.boot = folder / "boot_id"
        self.boot.write_text("one\n")
        self.now = 0.0
        self.slept = 0.0
        self.made = 0
        self.standstill = Standstill(self._machine, lambda: self.now)

    def _machine(self) -> Machine:
        self.made += 1
        return Machine(self.boot, lambda: self.now + self.slept)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_each_sign_counts_once(host: Host) -> None:
    looks = [host.standstill.moves()]
    host.now += 1
    looks.append(host.standstill.moves())
    host.now += GAP_SECONDS + LOOK_SECONDS + 0.1
    looks += [host.standstill.moves(), host.standstill.moves()]
    host.slept += 1.1
    looks += [host.standstill.moves(), host.standstill.moves()]
    host.now += 1
    host.boot.write_text("two\n")
    looks += [host.standstill.moves(), host.standstill.moves()]
    assert looks == [0, 0, 1, 1, 2, 2, 3, 3]


def test_looking_for_ever_leaves_no_file_open(host: Host) -> None:
    files = Path("/proc/self/fd")
    gc.collect()  # what earlier tests have left goes now
    before = len(list(files.iterdir()))
    for _ in range(20):
        host.now += 100
        host.standstill.moves()
    assert host.made == 21
    assert len(list(files.iterdir())) == before
    host.standstill._machine.close()
    host.standstill._machine.close()  # again is no error


async def test_a_quiet_hour_is_no_gap(host: Host, autojump_clock: MockClock) -> None:
    host.standstill = Standstill(host._machine, trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.standstill.watch)
        await trio.sleep(3600)
        assert host.standstill.moves() == 0
        nursery.cancel_scope.cancel()


async def test_a_node_with_a_pacer_looks(host: Host, tmp_path: Path) -> None:
    """The pacer's client does, each second, and its links ask it."""
    pacer = Pacer()
    looked = trio.Event()
    pacer.standstill = host.standstill

    async def watch() -> None:
        looked.set()

    host.standstill.watch = watch  # type: ignore[method-assign]
    async with half(tmp_path, "alpha", {}) as alpha:
        exchange = Exchange(
            name="alpha",
            identity=alpha.identity,
            qmgr=alpha.qmgr,
            max_message=1,
            entropy=FixedEntropy(),
            pacer=pacer,
        )
    host.now += 100
    assert exchange.moves() == 1
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(pacer.run)
            await looked.wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("moved", [False, True])
async def test_a_link_that_waits_for_a_pacer_ends_when_the_machine_moved(
    host: Host, moved: bool
) -> None:
    """The pacer that starts meanwhile has never seen the machine that it was."""
    pacer = Pacer()
    pacer.standstill = host.standstill
    sides = sessions("alpha", "bravo", clock=Clock.RENEWAL, klass=9)
    boxes, reasons = (Box(), Box()), []

    async def carry(side: int, sock: socket.socket) -> None:
        wire = SocketWire(sock)
        reasons.append(await pacer.carry(wire, sides[side], boxes[side]))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for side, sock in enumerate(tcp_pair()):
                nursery.start_soon(carry, side, sock)
            await trio.testing.wait_all_tasks_blocked()
            host.now += 100 if moved else 0
            await nursery.start(pacer.run)
            if moved:
                await until(lambda: reasons == [GONE, GONE])
            else:
                await boxes[0].until(lambda: boxes[0].came)
            nursery.cancel_scope.cancel()
    for each in sides:
        with pytest.raises(LocalProtocolError):
            each.sealer.surrender()


class Count:
    """What `moves` gives: so many times as before, then another number."""

    def __init__(self, same: int) -> None:
        self.same = same

    def __call__(self) -> int:
        self.same -= 1
        return int(self.same < 0)


@pytest.mark.parametrize("busy", [False, True])
async def test_a_greedy_link_ends_before_its_next_cell(
    tmp_path: Path, autojump_clock: MockClock, busy: bool
) -> None:
    async with (
        half(tmp_path, "alpha", {"mix@bravo": "bravo"}) as alpha,
        half(tmp_path, "bravo", {"mix@bravo": "local:0"}) as bravo,
        trio.open_nursery() as nursery,
    ):
        moves = 0
        alpha.exchange.moves = lambda: moves
        cable = await connect(nursery, alpha, bravo)
        alpha.submit(b"before\r\n", "mix@bravo")
        await until(lambda: bravo.qmgr.queue("local:0").ready)
        await trio.sleep(3 * T)
        sent = len(cable.near.octets_sent)
        moves = 1
        if busy:
            alpha.submit(b"after\r\n", "mix@bravo")
        await until(lambda: len(cable.reasons) == 2, seconds=2 * T)
        assert len(cable.near.octets_sent) == sent
        assert cable.reasons["alpha"] == "stalled"
        await connect(nursery, alpha, bravo, counter=2)  # with keys of now
        alpha.submit(b"again\r\n", "mix@bravo")
        count = 3 if busy else 2
        await until(lambda: len(bravo.qmgr.queue("local:0").ready) == count)
        nursery.cancel_scope.cancel()


async def test_a_dial_ends_before_its_proof(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with (
        end(tmp_path, "alpha", "bravo") as alpha,
        end(tmp_path, "bravo", "alpha") as bravo,
        trio.open_nursery() as nursery,
    ):
        where = (f"127.0.0.1:{free_port()}",)
        (sock,) = bind(where)
        nursery.start_soon(bravo.listener.run, sock)
        alpha.half.exchange.moves = Count(1)
        dials = 0
        following = alpha.dialer._counter.next

        def counted() -> int:
            nonlocal dials
            dials += 1
            return following()

        alpha.dialer._counter.next = counted  # type: ignore[method-assign]
        nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda: where)
        await until(lambda: dials == 2)
        assert not bravo.half.exchange.peers  # the first one proved nothing
        await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=60)
        nursery.cancel_scope.cancel()
    sock.close()


@pytest.mark.parametrize("messages", [0, 1])
async def test_a_handshake_that_is_answered_ends_too(
    tmp_path: Path, autojump_clock: MockClock, messages: int
) -> None:
    """Before message 2 leaves, or before what message 3 proved counts: silence."""
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        bravo.half.exchange.moves = Count(1 + messages)
        near, far = wire_pair()
        nursery.start_soon(bravo.listener.serve, far)
        one = hand("alpha", "bravo")
        near.try_send(one.message_1())
        await trio.sleep(1.2)
        assert len(far.octets_sent) == messages * CELL_LEN
        if messages:
            message_2 = near.try_receive(CELL_LEN)
            assert message_2
            near.try_send(one.receive_message_2_untrusted(message_2))
            one.session().wipe()
        await trio.sleep(50)
        assert not bravo.half.exchange.peers
        assert len(far.octets_sent) == messages * CELL_LEN
        assert not far.closed  # silence
        nursery.cancel_scope.cancel()
