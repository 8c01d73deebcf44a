# SPDX-License-Identifier: MIT
"""Dialers and listeners over loopback: one link, whoever was first."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.cell import CELL_LEN
from mesh.core.election import we_are_smaller
from mesh.core.handshake import MESSAGE_SECONDS
from mesh.node.listener import bind
from tests.descriptors import link_key_of
from tests.harness import until
from tests.node.ends import End, end, keeps, keys_of
from tests.node.test_listener import free_port

SMALL, GREAT = sorted(("alpha", "bravo"), key=lambda name: keys_of(name).identity)


@asynccontextmanager
async def listening(
    bravo: End, nursery: trio.Nursery
) -> AsyncIterator[tuple[str, ...]]:
    """Give the addresses at which an end is answered within."""
    address = f"127.0.0.1:{free_port()}"
    (sock,) = bind([address])
    scope = trio.CancelScope()
    nursery.start_soon(_listen, bravo, sock, scope)
    try:
        yield (address,)
    finally:
        scope.cancel()
        sock.close()


async def _listen(bravo: End, sock: socket.socket, scope: trio.CancelScope) -> None:
    with scope:
        await bravo.listener.run(sock)


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[End, End, trio.Nursery]]:
    async with (
        end(folder, "alpha", "bravo") as alpha,
        end(folder, "bravo", "alpha") as bravo,
        trio.open_nursery() as nursery,
    ):
        yield alpha, bravo, nursery
        nursery.cancel_scope.cancel()


async def test_two_that_dial_at_once_end_with_one_link(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with (
        both(tmp_path) as (alpha, bravo, nursery),
        listening(alpha, nursery) as at_alpha,
        listening(bravo, nursery) as at_bravo,
    ):
        nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda: at_bravo)
        nursery.start_soon(bravo.dialer.keep, keeps("alpha"), lambda: at_alpha)
        await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=10)
        await trio.sleep(300)  # the one that loses has 64 cells more
        assert (alpha.links("bravo"), bravo.links("alpha")) == (1, 1)
        (one,) = alpha.half.exchange.peers["bravo"].ports
        (other,) = bravo.half.exchange.peers["alpha"].ports
        assert one.session.counter == other.session.counter
        assert one.session.we_initiated != other.session.we_initiated
        small = one if SMALL == "alpha" else other
        assert small.session.we_initiated
        nursery.cancel_scope.cancel()


async def test_a_lost_link_is_dialled_again_by_the_smaller_first(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with (
        both(tmp_path) as (alpha, bravo, nursery),
        listening(alpha, nursery) as at_alpha,
        listening(bravo, nursery) as at_bravo,
    ):
        nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda: at_bravo)
        nursery.start_soon(bravo.dialer.keep, keeps("alpha"), lambda: at_alpha)
        for _ in range(3):
            await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=20)
            await trio.sleep(10)
            alpha.half.exchange.peers["bravo"].close_links()
            await trio.sleep(0.01)
            assert not alpha.links("bravo")
        await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=10)
        await trio.sleep(300)  # until others have ended
        (port,) = alpha.half.exchange.peers["bravo"].ports
        ours = we_are_smaller(keys_of("alpha").identity, keys_of("bravo").identity)
        assert port.session.we_initiated == ours
        nursery.cancel_scope.cancel()


async def test_a_peer_that_comes_late_is_found(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with both(tmp_path) as (alpha, bravo, nursery):
        port = free_port()
        nowhere = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{port}")
        nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda: nowhere)
        await trio.sleep(300)
        (sock,) = bind([f"127.0.0.1:{port}"])
        nursery.start_soon(bravo.listener.run, sock)
        await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=35)
        nursery.cancel_scope.cancel()
    sock.close()


@pytest.mark.parametrize("known", ["older", "newer"])
async def test_of_two_link_keys_the_older_dials_first(
    tmp_path: Path, autojump_clock: MockClock, known: str
) -> None:
    """A peer that knows the newer alone is reached after one silence, each time."""
    async with both(tmp_path) as (alpha, bravo, nursery):
        older, newer = link_key_of("alpha"), link_key_of("nobody's")
        if known == "newer":
            older, newer = newer, older
        alpha.statics[:] = [newer, older]
        async with listening(bravo, nursery) as at_bravo:
            nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda: at_bravo)
            for _ in range(2):
                start = trio.current_time()
                await until(lambda: alpha.up("bravo") and bravo.up("alpha"), 40)
                waited = trio.current_time() - start
                assert (waited > MESSAGE_SECONDS) == (known == "newer")
                await trio.sleep(60)
                alpha.half.exchange.peers["bravo"].close_links()
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_without_an_address_it_waits_to_be_dialled(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with (
        both(tmp_path) as (alpha, bravo, nursery),
        listening(alpha, nursery) as at_alpha,
    ):
        nursery.start_soon(alpha.dialer.keep, keeps("bravo"), tuple[str, ...])
        await trio.sleep(100)
        nursery.start_soon(bravo.dialer.keep, keeps("alpha"), lambda: at_alpha)
        await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=10)
        nursery.cancel_scope.cancel()


class Mute:
    """A port where connections are taken: what each said and when it ended."""

    def __init__(self, answer: bytes = b"") -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.calls: list[tuple[float, float, int]] = []
        self.starts: list[float] = []
        self._answer = answer

    async def run(self) -> None:
        with self.sock:
            await self._run()

    async def _run(self) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.sock))
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        start, octets = trio.current_time(), 0
        self.starts.append(start)
        async for data in stream:
            octets += len(data)
            if octets == CELL_LEN and self._answer:
                await stream.send_all(self._answer)
        self.calls.append((start, trio.current_time(), octets))


async def test_a_wrong_answer_meets_silence_and_patience(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    for answer in (b"", b"x" * 100, bytes(CELL_LEN), bytes(5000)):
        folder = tmp_path / str(len(answer))
        folder.mkdir()
        async with both(folder) as (alpha, _, nursery):
            mute = Mute(answer)
            nursery.start_soon(mute.run)
            address = (mute.address,)
            nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda a=address: a)
            await until(lambda mute=mute: len(mute.calls) >= 3, seconds=900)  # type: ignore[misc]
            nursery.cancel_scope.cancel()
        # One message each, nothing more, and the end is drawn.
        assert {octets for _, _, octets in mute.calls} == {CELL_LEN}
        lengths = [ended - start for start, ended, _ in mute.calls[:3]]
        assert all(59 < seconds < 180 for seconds in lengths)
        assert not alpha.links("bravo")


async def test_no_dial_is_caused_by_mail(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    dials = []
    for mail in (False, True):
        folder = tmp_path / str(mail)
        folder.mkdir()
        async with both(folder) as (alpha, _, nursery):
            mute = Mute()
            nursery.start_soon(mute.run)
            address = (mute.address,)
            alpha.half.routes["mix@bravo"] = "bravo"
            start = trio.current_time()
            nursery.start_soon(alpha.dialer.keep, keeps("bravo"), lambda a=address: a)
            for number in range(100):
                if mail:
                    alpha.half.submit(b"%d\r\n" % number, "mix@bravo")
                await trio.sleep(2)
            dials.append([round(at - start, 3) for at in mute.starts])
            nursery.cancel_scope.cancel()
    assert dials[0] == dials[1]
    assert len(dials[0]) > 3


async def test_no_dial_while_the_node_ends(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with both(tmp_path) as (alpha, bravo, nursery):
        async with listening(bravo, nursery) as at_bravo:
            async with trio.open_nursery() as inner:
                inner.start_soon(alpha.dialer.keep, keeps("bravo"), lambda: at_bravo)
                await until(lambda: alpha.up("bravo"))
                alpha.half.exchange.close()  # the dialer's task comes to its end
            assert not alpha.links("bravo")
        nursery.cancel_scope.cancel()
