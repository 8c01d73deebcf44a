# SPDX-License-Identifier: MIT
"""Whole nodes in this process: their start, their peers, their end."""

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.reply import NO_SUCH_RECIPIENT
from mesh.errors import CannotCreateError, ConfigError, IoError, UnavailableError
from mesh.node import node as node_
from mesh.node.node import Node
from mesh.node.routing import UNROUTED
from mesh.node.service import lock_state, notify
from tests.harness import Patience, until
from tests.node.homes import Home, mesh, running
from tests.node.test_delivery import Server
from tests.node.test_submission import Client

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd would hear."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


async def test_a_message_from_socket_to_maildir(
    tmp_path: Path, autojump_clock: MockClock, service: socket.socket
) -> None:
    alpha, bravo = Home(tmp_path, "alpha"), Home(tmp_path, "bravo")
    alpha.add(bravo)
    bravo.add(alpha)
    async with running(alpha, bravo):
        assert service.recv(99) == b"READY=1"
        await until(lambda: alpha.up(bravo) and bravo.up(alpha), seconds=10)
        assert await alpha.submit("mix@bravo.test", b"hello\r\n") == [250, 250]
        assert await alpha.submit("mix@alpha.test", b"here\r\n") == [250, 250]
        assert (await alpha.submit("mix@nowhere.test"))[0] == 550
        await until(lambda: bravo.found() == [b"hello\n"])
        await until(lambda: alpha.found() == [b"here\n"])
    assert b"STOPPING=1" in (service.recv(99), service.recv(99), service.recv(99))
    for home in (alpha, bravo):
        assert not home.socket.exists()
        os.close(lock_state(home.path / "state"))  # nobody holds it


async def hear(call: trio.SocketStream) -> None:
    """Wait for what comes, or for our own end."""
    with contextlib.suppress(trio.ClosedResourceError):
        await call.receive_some()


async def test_the_local_socket_comes_last_and_goes_first(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    alpha = Home(tmp_path, "alpha")
    started: list[bool] = []
    async with trio.open_nursery() as nursery:
        send, signals = trio.open_memory_channel[int](0)

        def ready() -> None:
            started.append(alpha.socket.exists())
            socket.create_connection(("127.0.0.1", alpha.port)).close()

        nursery.start_soon(alpha.make().run, signals, ready)
        await until(lambda: started)
        assert started == [True]
        async with await trio.open_unix_socket(str(alpha.socket)) as stream:
            client = Client(stream)
            await client.code()
            await client.say(b"EHLO x\r\nMAIL FROM:<>\r\n", 2)
            await client.say(b"RCPT TO:<mix@alpha.test>\r\n")
            with patience.slow_disk(alpha.node._spool):
                await stream.send_all(b"BDAT 2 LAST\r\n\r\n")
                await trio.sleep(0.5)
                send.close()
                await trio.sleep(0.5)
                assert not alpha.socket.exists()
                # Its descriptor's number may be another's now.
                calls = [
                    await trio.open_tcp_stream("127.0.0.1", alpha.port)
                    for _ in range(3)
                ]
                for call in calls:
                    nursery.start_soon(hear, call)
                await trio.sleep(0.5)
            assert await client.code() == 250  # accepted, so answered
            assert await client.code() == 421
        for call in calls:
            await call.aclose()


async def test_the_end_takes_no_longer_than_the_contract(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    alpha, bravo = Home(tmp_path, "alpha"), Home(tmp_path, "bravo")
    for home, other in ((alpha, bravo), (bravo, alpha)):
        home.set(cells_per_second="0.125")
        home.add(other)
    async with running(alpha, bravo):
        await until(lambda: alpha.up(bravo) and bravo.up(alpha), seconds=100)
        for home in (alpha, bravo):
            home.node._exchange.close = lambda: None  # type: ignore[method-assign]
        async with await trio.open_unix_socket(str(alpha.socket)) as stream:
            client = Client(stream)
            await client.code()
            await client.say(b"EHLO x\r\nMAIL FROM:<>\r\n", 2)
            await client.say(b"RCPT TO:<mix@alpha.test>\r\n")
        ends = trio.current_time()
    assert trio.current_time() - ends <= 10


async def test_peers_come_and_go(tmp_path: Path, autojump_clock: MockClock) -> None:
    alpha, bravo = Home(tmp_path, "alpha"), Home(tmp_path, "bravo")
    async with running(alpha, bravo) as (signals, _):
        assert (await alpha.submit("mix@bravo.test"))[0] == 550
        alpha.add(bravo)
        await signals.send(signal.SIGHUP)
        await trio.sleep(0.01)
        assert (await alpha.submit("mix@bravo.test", b"early\r\n"))[1] == 250
        bravo.add(alpha)  # found by looking, within 2 s
        await until(lambda: alpha.up(bravo) and bravo.up(alpha), seconds=10)
        await until(lambda: bravo.found() == [b"early\n"])
        await signals.send(signal.SIGHUP)  # nothing has changed
        alpha.remove(bravo)
        await until(lambda: not alpha.up(bravo), seconds=2)
        # The other end reads at instants of its clock: one a second, drawn.
        await until(lambda: not bravo.up(alpha), seconds=10)
        assert (await alpha.submit("mix@bravo.test"))[0] == 550
        await trio.sleep(60)
        assert not alpha.node._exchange.peers["bravo"].ports
        alpha.add(bravo)
        await until(lambda: alpha.up(bravo) and bravo.up(alpha), seconds=60)
        await alpha.submit("mix@bravo.test", b"late\r\n")
        await until(lambda: bravo.found() == [b"early\n", b"late\n"])


async def test_mail_of_a_removed_peer_goes_to_who_serves_it_next(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    alpha, bravo = Home(tmp_path, "alpha"), Home(tmp_path, "bravo")
    alpha.add(bravo)
    async with running(alpha):
        assert await alpha.submit("mix@bravo.test", b"wait\r\n") == [250, 250]
        alpha.remove(bravo)
        queue = alpha.node._qmgr.queue(UNROUTED)
        await until(lambda: queue.ready, seconds=3)
    bravo.add(alpha)
    alpha.add(bravo)
    async with running(alpha, bravo):
        await until(lambda: bravo.found() == [b"wait\n"], seconds=30)


async def test_lmtp_is_another_way_out(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    alpha = Home(tmp_path, "alpha", f"lmtp:{tmp_path}/sink.sock")
    bravo = Home(tmp_path, "bravo", "lmtp:127.0.0.1:9")
    async with trio.open_nursery() as nursery:
        server = Server(tmp_path / "sink.sock")
        nursery.start_soon(server.run)
        async with running(alpha, bravo):
            assert await alpha.submit("mix@alpha.test") == [250, 250]
            await until(lambda: server.messages)
            assert await bravo.submit("mix@bravo.test") == [250, 250]
        nursery.cancel_scope.cancel()


async def test_routes(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, bravo = Home(tmp_path, "alpha"), Home(tmp_path, "bravo")
    charlie = Home(tmp_path, "charlie")
    alpha.add(bravo)
    async with running(alpha):
        node = alpha.node
        assert node._routing.route("MIX@Alpha.Test") == "local:0"
        assert node._routing.route("mix@bravo.test") == "bravo"
        assert node._routing.route("x@nowhere.test") is None
        assert node._routing.route("no address") is None
        assert node._routing.accepts("x@nowhere.test") == NO_SUCH_RECIPIENT
        # Two claims to one address: neither is used, mail waits.
        text = charlie.toml.read_text()
        charlie.toml.write_text(text.replace("mix@charlie.test", "mix@bravo.test"))
        file = alpha.path / "peers.d" / "charlie.mesh"
        claim = "Serves-Confirmed: mix@bravo.test\n"
        file.write_text(claim + mesh("export", "-c", str(charlie.toml)))
        await trio.sleep(2)
        assert node._routing.route("mix@bravo.test") == UNROUTED
        assert node._keeping.endpoints("charlie") == (f"127.0.0.1:{charlie.port}",)
        assert node._keeping.endpoints("nobody") == ()
        # The machine's clock is set: not believed.  The years go by: believed.
        years = 10 * 365 * 86_400
        later = time.time() + years
        monkeypatch.setattr(time, "time", lambda: later)
        await trio.sleep(2)
        assert node._keeping.endpoints("charlie")
        assert any("clock was set" in line for line in node._notices())
        ran = time.clock_gettime(time.CLOCK_BOOTTIME) + years
        monkeypatch.setattr(time, "clock_gettime", lambda _: ran)
        assert node._keeping.endpoints("charlie") == ()
        monkeypatch.undo()


def test_one_node_a_state(tmp_path: Path) -> None:
    alpha = Home(tmp_path, "alpha")
    lock = lock_state(alpha.path / "state")
    with pytest.raises(UnavailableError, match="in use") as caught:
        alpha.make()
    assert caught.value.exit_code == 69
    os.close(lock)
    with pytest.raises(CannotCreateError, match="mesh init"):
        lock_state(tmp_path / "nowhere")


async def test_a_start_that_fails_leaves_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    alpha = Home(tmp_path, "alpha")
    send, signals = trio.open_memory_channel[int](0)
    with (
        socket.create_server(("127.0.0.1", alpha.port)),
        pytest.RaisesGroup(CannotCreateError),
    ):
        await alpha.make().run(signals)
    alpha.socket.write_bytes(b"in the way")
    with pytest.RaisesGroup(CannotCreateError, flatten_subgroups=True):
        await alpha.make().run(signals)
    alpha.socket.unlink()
    key = alpha.path / "state" / "link.key"
    good = key.read_text()
    key.write_text("rubbish")
    with pytest.raises(ConfigError):
        alpha.make()
    key.write_text(good)
    folder = alpha.path / "peers.d"
    folder.rename(alpha.path / "elsewhere")  # who is a peer, and not for port 25?
    with pytest.raises(ConfigError, match=r"peers\.d: No such file"):
        alpha.make()
    folder.mkdir()
    async with running(alpha):
        assert await alpha.submit("mix@alpha.test") == [250, 250]
    send.close()


async def test_a_disk_that_fails_ends_the_node(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha = Home(tmp_path, "alpha")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    with pytest.RaisesGroup(IoError, flatten_subgroups=True):
        async with running(alpha):
            monkeypatch.setattr(alpha.node._spool._groups, "insert", fail)
            codes = await alpha.submit("mix@alpha.test")
            assert codes == [250, 0]  # taken by nobody: no 250
            await trio.sleep_forever()
    async with running(alpha):
        assert await alpha.submit("mix@alpha.test") == [250, 250]


async def test_what_waits_is_sent_after_a_restart(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    alpha, bravo = Home(tmp_path, "alpha"), Home(tmp_path, "bravo")
    alpha.add(bravo)
    bravo.add(alpha)
    async with running(alpha):
        assert await alpha.submit("mix@bravo.test", b"old\r\n") == [250, 250]
    async with running(alpha, bravo):
        await until(lambda: bravo.found() == [b"old\n"], seconds=30)


def test_systemd_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0mesh test {os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@mesh test {os.getpid()}")
        notify("READY=1")
        assert sock.recv(99) == b"READY=1"
    assert node_.Node is Node
