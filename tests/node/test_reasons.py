# SPDX-License-Identifier: MIT
"""What a failed dial leaves for the operator: one reason, and no more."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock
from mesh.core.crypto import MlKem768
from mesh.core.handshake import PeerKeys
from mesh.node.counters import OwnCounter
from mesh.node.dialer import NO_CONNECTION, WRONG_ANSWER, Dialer
from tests.descriptors import identity_of, link_key_of, signed
from tests.harness import FixedEntropy, Half, Patience, half, until


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A listening socket that nobody serves yet."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield listening


def dialer(alpha: Half, folder: Path) -> Dialer:
    return Dialer(
        network="main",
        identity=identity_of("alpha"),
        statics=lambda: [link_key_of("alpha")],
        counter=OwnCounter(folder / "counter", 1),
        clock=Clock.RENEWAL,
        klass=3,
        kem=MlKem768(),
        exchange=alpha.exchange,
        entropy=FixedEntropy("dialer"),
    )


def bravo() -> PeerKeys:
    descriptor = signed("bravo")
    return PeerKeys("bravo", descriptor.identity, descriptor.link_keys)


async def reason(
    alpha: Half, folder: Path, addresses: tuple[str, ...], wanted: str
) -> None:
    """Dial until the reason is the wanted one."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer(alpha, folder).keep, bravo, lambda: addresses)
        await until(lambda: alpha.exchange.peers.get("bravo"))
        peer = alpha.exchange.peers["bravo"]
        await until(lambda: peer.reason == wanted, 60)
        nursery.cancel_scope.cancel()


async def test_nobody_answers_the_port(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, port: socket.socket
) -> None:
    del autojump_clock, patience
    address = f"127.0.0.1:{port.getsockname()[1]}"
    port.close()
    async with half(tmp_path, "alpha", {}) as alpha:
        await reason(alpha, tmp_path, (), "")
        await reason(alpha, tmp_path, (address,), NO_CONNECTION)


async def test_silence_is_what_a_stranger_gets(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, port: socket.socket
) -> None:
    del autojump_clock, patience
    address = f"127.0.0.1:{port.getsockname()[1]}"
    silence = "no answer: is our descriptor at bravo?"
    async with half(tmp_path, "alpha", {}) as alpha:
        await reason(alpha, tmp_path, (address,), silence)


async def test_an_answer_of_somebody_else(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, port: socket.socket
) -> None:
    del autojump_clock, patience
    address = f"127.0.0.1:{port.getsockname()[1]}"

    async def lie() -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(port))
        async with await listener.accept() as stream:
            await stream.send_all(bytes(CELL_LEN))
            await trio.sleep_forever()

    port.setblocking(False)
    async with half(tmp_path, "alpha", {}) as alpha, trio.open_nursery() as nursery:
        nursery.start_soon(lie)
        await reason(alpha, tmp_path, (address,), WRONG_ANSWER)
        nursery.cancel_scope.cancel()
