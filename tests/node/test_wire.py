# SPDX-License-Identifier: MIT
"""Real sockets behind the one interface, and the outlet before them."""

import socket

import pytest
import trio
from trio.testing import MockClock

from mesh.node import bare
from mesh.node.wire import (
    OUTLET_MAX,
    SOCKET_BUFFER,
    Outlet,
    SocketWire,
    close_quietly,
    receive,
    receive_exactly,
)
from tests.harness import wire_pair


def unix_pair() -> tuple[SocketWire, SocketWire]:
    near, far = socket.socketpair()
    return SocketWire(near), SocketWire(far)


def tcp_pair() -> tuple[SocketWire, SocketWire]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return SocketWire(near), SocketWire(server.accept()[0])


async def test_octets_pass_and_nobody_waits(autojump_clock: MockClock) -> None:
    near, far = unix_pair()
    assert far.try_receive(10) is None
    assert near.try_send(b"hello") == 5
    assert far.try_receive(3) == b"hel"
    assert await receive(far) == b"lo"
    near.close()
    near.close()
    assert far.try_receive(10) == b""
    assert await receive(far) == b""
    far.close()


async def test_nothing_is_kept_of_what_was_read(autojump_clock: MockClock) -> None:
    near, far = unix_pair()
    near.try_send(b"a secret")
    assert far.try_receive(100) == b"a secret"
    assert not any(bare._place)
    near.close()
    far.close()


async def test_octets_come_into_a_place(autojump_clock: MockClock) -> None:
    near, far = unix_pair()
    place = memoryview(bytearray(8))
    assert far.try_receive_into(place, 8) is None
    near.try_send(b"hello")
    assert far.try_receive_into(place[1:], 3) == 3
    assert far.try_receive_into(place[4:], 3) == 2
    assert bytes(place) == b"\0hello\0\0"
    near.close()
    assert far.try_receive_into(place, 8) == 0
    far.close()
    assert far.try_receive_into(place, 8) == 0


async def test_a_link_s_socket(autojump_clock: MockClock) -> None:
    near, far = tcp_pair()
    near.fix_buffers()
    sock = near.socket
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        limit = min(SOCKET_BUFFER, 212_992)  # what a kernel gives without asking root
        assert sock.getsockopt(socket.SOL_SOCKET, option) >= limit
    assert near.unsent() == 0
    while near.try_send(bytes(65_536)):
        pass
    assert near.unsent() > 0
    near.close()
    assert near.unsent() == 0
    far.close()


async def test_a_broken_connection_takes_all_and_shows_at_reading(
    autojump_clock: MockClock,
) -> None:
    near, far = tcp_pair()
    assert near.try_send(b"unread") == 6
    far.socket.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    )  # a reset
    far.close()
    assert await receive(near) == b""
    assert near.try_send(b"lost") == 4
    near.close()
    assert near.try_send(b"lost") == 4
    assert near.try_receive(1) == b""
    await near.wait_readable()
    await near.wait_writable()


async def test_closing_wakes_the_reader(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    near, far = unix_pair()
    ended: list[bytes] = []

    async def read() -> None:
        ended.append(await receive(near))

    nursery.start_soon(read)
    await trio.sleep(1)
    near.close()
    await trio.sleep(1)
    assert ended == [b""]
    far.close()


async def test_who_sends_without_end_stops_nobody(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    _, far = wire_pair()
    reads = 0

    def endless(limit: int) -> bytes:
        nonlocal reads
        reads += 1
        assert reads < 100, "nobody else had a turn"
        return bytes(limit)

    far.try_receive = endless  # type: ignore[method-assign]

    async def read() -> None:
        while await receive(far):
            pass

    nursery.start_soon(read)
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    assert reads
    nursery.cancel_scope.cancel()


async def test_exactly_so_many_octets(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    near, far = wire_pair()

    async def say() -> None:
        for part in (b"ab", b"cd", b"efgh"):
            near.try_send(part)
            await trio.sleep(1)
        near.close()

    nursery.start_soon(say)
    assert await receive_exactly(far, 5) == b"abcde"
    assert await receive_exactly(far, 5) is None


async def test_a_quiet_close_reads_what_lies_there_but_not_for_ever(
    autojump_clock: MockClock,
) -> None:
    near, far = wire_pair()
    near.try_send(bytes(100_000))
    close_quietly(far)
    assert (far.closed, far.unread_at_close) == (True, 0)
    near, far = wire_pair()
    near.capacity = 10**9
    near.try_send(bytes(10_000_000))
    close_quietly(far)
    assert (far.closed, far.unread_at_close > 0) == (True, True)


async def test_an_outlet_keeps_what_does_not_fit_in_order(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    near, far = unix_pair()
    room: list[int] = []
    outlet = Outlet(near, lambda: room.append(outlet.waiting))
    nursery.start_soon(outlet.flush_forever)
    sent = b""
    while not outlet.full:
        part = len(sent).to_bytes(4, "big") * 25_000
        outlet.send(part)
        sent += part
    outlet.send(b"end")
    sent += b"end"
    assert outlet.waiting >= OUTLET_MAX
    came = b""
    while len(came) < len(sent):
        came += await receive(far)
        await trio.sleep(0.1)
    assert came == sent
    await outlet.drained()
    assert not outlet.waiting
    assert len(room) == 1
    assert room[0] < OUTLET_MAX
    near.close()
    far.close()


async def test_drained_waits_for_the_kernel(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    near, far = wire_pair()
    near.capacity, near.held = 10, True
    outlet = Outlet(near)
    nursery.start_soon(outlet.flush_forever)
    outlet.send(bytes(25))
    done: list[float] = []

    async def wait() -> None:
        await outlet.drained()
        done.append(trio.current_time())

    nursery.start_soon(wait)
    await trio.sleep(1)
    assert not done
    near.let_go()
    await trio.sleep(1)
    assert done
    far.close()


async def test_the_flusher_ends_with_its_wire(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    near, far = unix_pair()
    outlet = Outlet(near)
    ended: list[bool] = []

    async def flush() -> None:
        await outlet.flush_forever()
        ended.append(True)

    nursery.start_soon(flush)
    while not outlet.full:
        outlet.send(bytes(100_000))
    await trio.sleep(1)
    near.close()
    await trio.sleep(1)
    assert ended
    far.close()


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
async def test_the_kernel_full_is_no_error(
    pair: object, autojump_clock: MockClock
) -> None:
    near, far = pair()  # type: ignore[operator]
    total = 0
    while taken := near.try_send(bytes(100_000)):
        total += taken
    assert near.try_send(b"x") in {0, 1}
    assert total > 0
    near.close()
    far.close()
