# SPDX-License-Identifier: MIT
"""The port as strangers and peers find it."""

import errno
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from trio.testing import MockClock

from mesh.core.cell import CELL_LEN, PADDING
from mesh.core.handshake import PeerKeys
from mesh.core.strand import hello_body
from mesh.errors import CannotCreateError
from mesh.node.counters import PeerCounters
from mesh.node.listener import UNPROVEN_MAX, bind
from tests.harness import until, wire_pair
from tests.node.ends import End, end, hand, keys_of


class Caller:
    """Somebody who connected."""

    def __init__(self, nursery: trio.Nursery, bravo: End) -> None:
        self.wire, self.far = wire_pair()
        self.at = trio.current_time()
        nursery.start_soon(bravo.listener.serve, self.far)

    @property
    def heard(self) -> int:
        return len(self.far.octets_sent)

    @property
    def silent_for(self) -> float:
        assert self.far.closed_at is not None
        return self.far.closed_at - self.at


async def answered(caller: Caller) -> bytes:
    """Message 2."""
    await until(lambda: caller.heard >= CELL_LEN, seconds=5)
    data = caller.wire.try_receive(CELL_LEN)
    assert data is not None
    return data


JUNK = [0, 1, 4095, 4096, 4097, 20_000]


@pytest.mark.parametrize("length", JUNK)
async def test_junk_meets_silence(
    tmp_path: Path, autojump_clock: MockClock, length: int
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        callers = [Caller(nursery, bravo) for _ in range(8)]
        for caller in callers:
            caller.wire.try_send(os.urandom(length))
        gone = callers.pop()
        await trio.sleep(20)
        gone.wire.close()
        await trio.sleep(0.05)
        assert gone.far.closed_at is None  # at no instant that a stranger chooses
        await trio.sleep(0.95)
        assert gone.far.closed  # but when the other side ends, we do
        for caller in callers:
            caller.wire.try_send(b"more")  # read, and thrown away
        await until(lambda: all(caller.far.closed for caller in callers))
        assert all(caller.heard == 0 for caller in [*callers, gone])
        times = [caller.silent_for for caller in callers]
        assert all(60 <= seconds < 180 for seconds in times)
        assert max(times) - min(times) > 20  # drawn, not fixed
        assert all(caller.far.unread_at_close == 0 for caller in callers)


async def silence(bravo: End, nursery: trio.Nursery, message: bytes) -> None:
    caller = Caller(nursery, bravo)
    caller.wire.try_send(message)
    await until(lambda: caller.far.closed)
    assert caller.heard == 0
    assert 60 <= caller.silent_for < 180


async def test_a_bug_of_ours_meets_silence(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whoever can break us learns nothing by it, not even that he has."""

    def breaks(name: str) -> PeerKeys:
        raise KeyError(name)

    async with (
        end(tmp_path, "bravo", "alpha", keys_of=breaks) as bravo,
        trio.open_nursery() as nursery,
    ):
        await silence(bravo, nursery, hand("alpha", "bravo").message_1())
        assert bravo.half.qmgr.guard.bugs == 1


async def test_who_is_not_listed_meets_silence(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        await silence(bravo, nursery, hand("mallory", "bravo").message_1())
        wrong = hand("alpha", "bravo", link="alpha's old one")
        await silence(bravo, nursery, wrong.message_1())
        await silence(bravo, nursery, hand("alpha", "charlie").message_1())
        stolen = hand("mallory", "bravo", link="alpha")
        await silence(bravo, nursery, stolen.message_1())
        bravo.listed.clear()
        await silence(bravo, nursery, hand("alpha", "bravo").message_1())


async def test_a_replay_meets_silence(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        first = Caller(nursery, bravo)
        hello = hand("alpha", "bravo").message_1()
        first.wire.try_send(hello)
        await answered(first)
        await silence(bravo, nursery, hello)


@pytest.mark.parametrize("third", [b"", b"x" * 4095, b"x" * 4096])
async def test_a_wrong_third_message_meets_silence(
    tmp_path: Path, autojump_clock: MockClock, third: bytes
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        caller = Caller(nursery, bravo)
        caller.wire.try_send(hand("alpha", "bravo").message_1())
        await answered(caller)
        caller.wire.try_send(third)
        await until(lambda: caller.far.closed)
        assert caller.heard == CELL_LEN
        assert 60 <= caller.silent_for < 180
        again = Caller(nursery, bravo)  # the pending place is free again
        again.wire.try_send(hand("alpha", "bravo", 2).message_1())
        await answered(again)


async def proven(nursery: trio.Nursery, bravo: End, name: str, counter: int = 1) -> Any:
    caller = Caller(nursery, bravo)
    one = hand(name, "bravo", counter)
    hello_at = trio.current_time()
    caller.wire.try_send(one.message_1())
    message_2 = await answered(caller)
    assert 0.1 <= caller.far.sent[0][0] - hello_at <= 1.6  # a look, then the delay
    caller.wire.try_send(one.receive_message_2_untrusted(message_2))
    return caller, one.session()


async def test_a_peer_gets_a_link(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        caller, session = await proven(nursery, bravo, "alpha", counter=7)
        caller.wire.try_send(session.sealer.seal(PADDING))
        caller.wire.try_send(session.sealer.seal(hello_body()))
        await until(lambda: bravo.up("alpha"))
        cell = caller.wire.try_receive(CELL_LEN)
        assert session.opener.open_untrusted(cell) == hello_body()
        (key,) = keys_of("alpha").link_keys
        assert PeerCounters(tmp_path / "bravo counters" / "peers").last == {key: 7}
        await trio.sleep(17)
        assert not caller.far.closed  # a link has no hour of silence
        caller.wire.close()
        await until(lambda: not bravo.links("alpha"))
        nursery.cancel_scope.cancel()


async def test_many_peers_prove_themselves_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    names = [f"peer{number}" for number in range(12)]
    async with (
        end(tmp_path, "bravo", *names) as bravo,
        trio.open_nursery() as nursery,
    ):
        async with trio.open_nursery() as together:
            for name in names:
                together.start_soon(proven, nursery, bravo, name)
        await until(lambda: all(bravo.links(name) for name in names))
        saved = PeerCounters(tmp_path / "bravo counters" / "peers").last
        assert len(saved) == len(names)
        nursery.cancel_scope.cancel()


async def test_a_peer_removed_while_its_proof_is_written_gets_no_link(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        save = bravo.counters.save

        def removing(statement: bytes) -> None:
            save(statement)
            bravo.listed.clear()

        bravo.counters.save = removing  # type: ignore[method-assign]
        caller, _ = await proven(nursery, bravo, "alpha")
        await until(lambda: caller.far.closed)
        assert not bravo.half.exchange.peers
        assert caller.silent_for >= 60


@pytest.mark.parametrize(
    "other",
    [replace(keys_of("alpha"), identity=keys_of("mallory").identity),
     replace(keys_of("alpha"), name="zulu")],
)  # fmt: skip
async def test_a_link_key_that_is_anothers_by_then_gets_no_link(
    tmp_path: Path, autojump_clock: MockClock, other: PeerKeys
) -> None:
    """Removed, and listed again under another name or key, while the disk worked."""
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        save = bravo.counters.save

        def changing(statement: bytes) -> None:
            save(statement)
            bravo.gate.find_peer = lambda _: other

        bravo.counters.save = changing  # type: ignore[method-assign]
        caller, _ = await proven(nursery, bravo, "alpha")
        await until(lambda: caller.far.closed)
        assert not bravo.half.exchange.peers


async def test_a_peer_whose_connection_broke_may_come_again_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        first = Caller(nursery, bravo)
        first.wire.try_send(hand("alpha", "bravo").message_1())
        await answered(first)
        first.wire.close()
        await trio.sleep(0.1)
        again = Caller(nursery, bravo)
        again.wire.try_send(hand("alpha", "bravo", 2).message_1())
        await answered(again)
        nursery.cancel_scope.cancel()


async def test_a_proof_that_cannot_be_written_counts_for_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        (tmp_path / "bravo counters" / "peers.new").mkdir()
        caller, _ = await proven(nursery, bravo, "alpha")
        await until(lambda: caller.far.closed)
        assert not bravo.half.exchange.peers


async def test_the_oldest_stranger_makes_room(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        callers = []
        for _ in range(UNPROVEN_MAX):
            callers.append(Caller(nursery, bravo))
            await trio.sleep(0.01)
        assert not any(caller.far.closed for caller in callers)
        for number in range(3):
            Caller(nursery, bravo)
            await trio.sleep(0.01)
            assert [caller.far.closed for caller in callers].count(True) == number + 1
        assert all(caller.far.closed for caller in callers[:3])
        caller, _ = await proven(nursery, bravo, "alpha")
        await until(lambda: bravo.links("alpha"))
        assert not caller.far.closed
        nursery.cancel_scope.cancel()


async def test_who_makes_room_hears_a_fin_and_no_reset(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        first = Caller(nursery, bravo)
        first.wire.try_send(b"x" * 100)
        await trio.sleep(0.05)
        for _ in range(UNPROVEN_MAX):
            Caller(nursery, bravo)
        await trio.sleep(0.01)
        assert (first.far.closed, first.far.unread_at_close) == (True, 0)
        nursery.cancel_scope.cancel()


async def test_no_crowd_pushes_out_a_peer_whose_hello_is_being_answered(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        first = Caller(nursery, bravo)
        first.wire.try_send(hand("alpha", "bravo").message_1())
        await trio.sleep(0.05)
        for _ in range(2 * UNPROVEN_MAX):
            Caller(nursery, bravo)
        await trio.sleep(1.2)
        assert not first.far.closed
        assert len(first.wire.try_receive(2 * CELL_LEN) or b"") == CELL_LEN
        nursery.cancel_scope.cancel()


async def test_on_a_real_port(tmp_path: Path, autojump_clock: MockClock) -> None:
    class Tired(socket.socket):
        failures: ClassVar[list[OSError]] = [OSError("tired"), BlockingIOError()]

        def accept(self) -> Any:
            if self.failures:
                raise self.failures.pop()
            return super().accept()

    (bound,) = bind([f"127.0.0.1:{free_port()}"])
    tired = Tired(fileno=bound.detach())
    async with end(tmp_path, "bravo", "alpha") as bravo, trio.open_nursery() as nursery:
        nursery.start_soon(bravo.listener.run, tired)
        stream = await trio.open_tcp_stream(*tired.getsockname())
        await stream.send_all(bytes(5000))
        start = trio.current_time()
        assert await stream.receive_some() == b""  # a FIN and no reset
        assert 59 <= trio.current_time() - start < 180
        await stream.aclose()
        nursery.cancel_scope.cancel()
    tired.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotCreateError, match=address) as caught:
            bind([f"127.0.0.1:{free_port()}", address])
        assert caught.value.exit_code == 73


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(CannotCreateError, match=r"192\.0\.2\.1"):
        bind([f"192.0.2.1:{free_port()}"])


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()

    class OnlyOld(socket.socket):
        def __init__(self, family: int = -1, *rest: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no such family")
            super().__init__(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", OnlyOld)
    socks = bind([f"127.0.0.1:{port}", f"[::]:{port}"])
    assert [sock.family for sock in socks] == [socket.AF_INET]
    socks[0].close()
    for only in ([f"[::]:{port}"], [f"127.0.0.1:{port}", f"[::1]:{port}"]):
        with pytest.raises(CannotCreateError):
            bind(only)
