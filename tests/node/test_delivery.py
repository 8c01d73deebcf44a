# SPDX-License-Identifier: MIT
"""From the queue to a real Maildir and to a real LMTP server in this test."""

import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.dialogue import Closed, Dialogue, DialogueKind, MessageReceived
from mesh.core.reply import OK, TRY_LATER, Reply
from mesh.core.retry import GIVE_UP_SECONDS
from mesh.node.delivery import MaildirDelivery
from mesh.node.lmtp import (
    CONNECTIONS_MAX,
    IDLE_SECONDS,
    REPLY_SECONDS,
    LmtpDelivery,
)
from mesh.node.maildir import deliver
from mesh.node.pump import Seat, Served
from mesh.node.spool import Spool
from mesh.node.submission import bind_unix
from tests.disk import full_disk
from tests.harness import FixedEntropy, Half, Patience, half, until

TO, ALSO = "mix@alpha", "too@alpha"


@asynccontextmanager
async def alpha_half(folder: Path) -> AsyncIterator[Half]:
    async with half(folder, "alpha", {TO: "local:0", ALSO: "local:0"}) as made:
        yield made


def name_of(ident: bytes) -> str:
    return ident.hex()


def maildir_delivery(alpha: Half, maildir: Path) -> MaildirDelivery:
    return MaildirDelivery(
        maildir=maildir, destination="local:0", qmgr=alpha.qmgr, name_of=name_of
    )


def found(maildir: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (maildir / "new").glob("*"))


# Maildir


async def test_into_a_maildir_with_lf(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    maildir = tmp_path / "Maildir"
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        nursery.start_soon(maildir_delivery(alpha, maildir).run)
        for number in range(70):
            alpha.submit(b"%03d\r\n\0\xff\r\n" % number, TO)
        await until(lambda: len(found(maildir)) == 70)
        await until(lambda: alpha.quiet)
        assert found(maildir) == [b"%03d\n\0\xff\n" % n for n in range(70)]
        alpha.submit(b"", TO)
        await until(lambda: b"" in found(maildir))
        nursery.cancel_scope.cancel()


async def test_a_maildir_that_cannot_be_written_is_tried_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    maildir = tmp_path / "later" / "Maildir"
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        nursery.start_soon(maildir_delivery(alpha, maildir).run)
        alpha.submit(b"hello\r\n", TO)
        await trio.sleep(30)
        assert alpha.spool.waiting == 1
        maildir.parent.mkdir()
        await until(lambda: alpha.quiet, seconds=600)
        assert found(maildir) == [b"hello\n"]
        nursery.cancel_scope.cancel()


async def test_nothing_comes_twice_after_a_full_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    maildir = tmp_path / "Maildir"
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        alpha.submit(b"small\r\n", TO)
        await until(lambda: alpha.spool.waiting == 1)
        alpha.submit(b"more than ten octets\r\n", TO)
        await until(lambda: alpha.spool.waiting == 2)
        with full_disk():
            nursery.start_soon(maildir_delivery(alpha, maildir).run)
            await until(lambda: found(maildir) == [b"small\n"])
        for path in (maildir / "new").iterdir():  # the remailer takes what is there
            path.unlink()
        await until(lambda: alpha.quiet)
        assert found(maildir) == [b"more than ten octets\n"]
        nursery.cancel_scope.cancel()


async def test_nothing_comes_twice_when_it_is_not_sure_that_it_came(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    maildir = tmp_path / "Maildir"
    sync = os.fsync

    def not_new(fd: int) -> None:
        if os.fstat(fd).st_ino == (maildir / "new").stat().st_ino:
            raise OSError(errno.EIO, "not today")
        sync(fd)

    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        deliver(maildir, [])
        alpha.submit(b"hello\r\n", TO)
        await until(lambda: alpha.spool.waiting)
        monkeypatch.setattr(os, "fsync", not_new)
        nursery.start_soon(maildir_delivery(alpha, maildir).run)
        await until(lambda: found(maildir))
        await trio.sleep(1)
        assert alpha.spool.waiting == 1
        (file,) = (maildir / "new").iterdir()
        file.rename(maildir / "cur" / f"{file.name}:2,S")
        monkeypatch.undo()
        await until(lambda: alpha.quiet)
        assert found(maildir) == []
        nursery.cancel_scope.cancel()


async def test_a_delivery_repeated_after_a_crash_finds_its_file(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    maildir = tmp_path / "Maildir"
    async with alpha_half(tmp_path) as alpha:
        alpha.submit(b"hello\r\n", TO)
        await until(lambda: alpha.spool.waiting)
        ref = alpha.qmgr.queue("local:0").ready[0]
        record = alpha.spool.hot(ref)
        assert record is not None
        name = name_of(record.id)
    for folder in ("tmp", "new", "cur"):
        (maildir / folder).mkdir(parents=True)
    (maildir / "cur" / f"{name}:2,S").write_bytes(b"hello\n")  # then came the crash
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        assert alpha.spool.waiting == 1
        nursery.start_soon(maildir_delivery(alpha, maildir).run)
        await until(lambda: alpha.quiet)
        assert found(maildir) == []
        nursery.cancel_scope.cancel()


async def test_nothing_comes_twice_after_a_delivery_that_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a thread that writes: what it wrote is found by the next."""
    maildir = tmp_path / "Maildir"
    begun, goes_on, ended = (threading.Event() for _ in range(3))
    sync = os.fsync

    def slow(fd: int) -> None:
        if threading.current_thread() in writer:
            begun.set()
            assert goes_on.wait(30)
        sync(fd)

    writer: list[threading.Thread] = []

    def written(*args: object, **options: object) -> int:
        writer.append(threading.current_thread())
        try:
            return deliver(*args, **options)  # type: ignore[arg-type]
        finally:
            ended.set()

    async with alpha_half(tmp_path) as alpha:
        with trio.fail_after(30):
            alpha.submit(b"hello\r\n", TO)
            while not alpha.spool.waiting:  # noqa: ASYNC110  # the spool has no event
                await trio.sleep(0.01)
            async with trio.open_nursery() as nursery:
                with monkeypatch.context() as patch:
                    nursery.start_soon(maildir_delivery(alpha, maildir).run)
                    patch.setattr("mesh.node.delivery.deliver", written)
                    patch.setattr(os, "fsync", slow)
                    await trio.to_thread.run_sync(begun.wait, 20)
                    nursery.cancel_scope.cancel()
            goes_on.set()
            await trio.to_thread.run_sync(ended.wait, 20)
            (file,) = (maildir / "new").iterdir()
            file.rename(maildir / "cur" / f"{file.name}:2,S")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(maildir_delivery(alpha, maildir).run)
                while not alpha.quiet:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    assert found(maildir) == []


async def test_what_does_not_open_stops_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    maildir = tmp_path / "Maildir"
    async with alpha_half(tmp_path) as alpha:
        for number in range(2):
            alpha.submit(b"%d\r\n" % number, TO)
            await until(lambda count=number: alpha.spool.waiting == count + 1)  # type: ignore[misc]
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        slot = alpha.qmgr.queue("local:0").ready[0] & 0xFFFFFFFF
        alpha.spool._groups.delete([alpha.spool._index.place(slot)[0]])
        nursery.start_soon(maildir_delivery(alpha, maildir).run)
        await until(lambda: found(maildir) == [b"1\n"])
        assert alpha.spool.corrupt == 1
        nursery.cancel_scope.cancel()


# LMTP

Answers = Callable[[MessageReceived], tuple[Reply, ...]]


class Server:
    """An LMTP server: the receiving half of our own dialogue behind a socket."""

    def __init__(self, path: Path, answers: Answers = lambda _: (OK,)) -> None:
        self.answers = answers
        self.messages: list[MessageReceived] = []
        self.connections = 0
        self.open = 0
        self.ends_after = 10**9
        """Messages of one connection before it breaks without a word."""
        self.greets = True
        self.slow = 0.0
        """Seconds before the answer to a message."""
        self.deaf = 0.0
        """Seconds before anything is looked at."""
        self._sock = bind_unix(path)

    async def run(self) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._sock))
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open += 1
        try:
            if self.greets:
                with suppress(trio.BrokenResourceError):
                    await self._converse(stream)
        finally:
            self.open -= 1
            await stream.aclose()

    async def _converse(self, stream: trio.SocketStream) -> None:
        dialogue = Dialogue(
            name="sink",
            kind=DialogueKind.LOCAL,
            accepts=lambda _: None,
            max_message=10**8,
        )
        left = self.ends_after
        await stream.send_all(dialogue.data_to_send())
        async for data in stream:
            await trio.sleep(self.deaf)
            dialogue.receive_data(data)
            while (event := dialogue.next_event()) is not None:
                if isinstance(event, Closed):
                    return
                assert isinstance(event, MessageReceived)
                if not left:
                    return
                left -= 1
                self.messages.append(event)
                await trio.sleep(self.slow)
                dialogue.answer(*self.answers(event))
            await stream.send_all(dialogue.data_to_send())


@asynccontextmanager
async def lmtp(
    folder: Path, answers: Answers = lambda _: (OK,)
) -> AsyncIterator[tuple[Half, Server, trio.Nursery]]:
    async with alpha_half(folder) as alpha, trio.open_nursery() as nursery:
        server = Server(folder / "lmtp.sock", answers)
        nursery.start_soon(server.run)
        nursery.start_soon(lmtp_delivery(alpha, folder / "lmtp.sock").run)
        yield alpha, server, nursery
        nursery.cancel_scope.cancel()


def lmtp_delivery(alpha: Half, address: Path | tuple[str, int]) -> LmtpDelivery:
    return LmtpDelivery(
        address=address,
        destination="local:0",
        name="alpha",
        qmgr=alpha.qmgr,
        entropy=FixedEntropy("lmtp"),
    )


async def test_messages_share_kept_connections(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with lmtp(tmp_path) as (alpha, server, _):
        for number in range(10):
            alpha.submit(b"%d\r\n" % number, TO, ALSO, reverse_path="x@y")
            await trio.sleep(5)
        await until(lambda: alpha.quiet)
        assert [m.content for m in server.messages] == [
            b"%d\r\n" % n for n in range(10)
        ]
        assert {m.recipients for m in server.messages} == {(TO, ALSO)}
        assert {m.reverse_path for m in server.messages} == {"x@y"}
        assert server.connections == 1
        await trio.sleep(IDLE_SECONDS + 1)
        assert server.open == 0
        alpha.submit(b"again\r\n", TO)
        await until(lambda: alpha.quiet, seconds=5)
        assert server.connections == 2


async def test_at_most_so_many_connections(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with lmtp(tmp_path) as (alpha, server, _):
        server.slow = 3.0
        for number in range(300):
            alpha.submit(b"%d\r\n" % number, TO)
        await until(lambda: server.open == CONNECTIONS_MAX)
        await until(lambda: alpha.quiet, seconds=900)
        assert server.connections == CONNECTIONS_MAX
        assert len(server.messages) == 300


async def test_who_is_busy_is_not_asked_and_who_was_last_is_asked_first(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        server = Server(tmp_path / "lmtp.sock")
        server.slow = 3.0
        nursery.start_soon(server.run)
        delivery = lmtp_delivery(alpha, tmp_path / "lmtp.sock")
        nursery.start_soon(delivery.run)
        for number in range(200):
            alpha.submit(b"%d\r\n" % number, TO)
        await until(lambda: len(delivery._connections) == CONNECTIONS_MAX)
        await until(lambda: sum(len(c.flying) for c in delivery._connections) == 40)
        assert not delivery.free
        await until(lambda: alpha.quiet)
        assert set(delivery.free) == set(delivery._connections)
        last = list(delivery.free)[-1]
        alpha.submit(b"another\r\n", TO)
        await until(lambda: last.flying)
        await until(lambda: alpha.quiet)
        last.end()
        assert set(delivery.free) == set(delivery._connections)
        nursery.cancel_scope.cancel()


async def test_large_messages_pass_through_the_outlet(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = b"0123456789abcd\r\n" * 300_000
    async with lmtp(tmp_path) as (alpha, server, _):
        alpha.submit(content, TO)
        alpha.submit(b"small\r\n", TO)
        await until(lambda: alpha.quiet)
        assert sorted(len(m.content) for m in server.messages) == [7, len(content)]


async def test_a_server_that_dies_gets_the_rest_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with lmtp(tmp_path) as (alpha, server, _):
        server.ends_after = 2
        for number in range(7):
            alpha.submit(b"%d\r\n" % number, TO)
        await until(lambda: alpha.quiet)
        contents = {m.content for m in server.messages}
        assert contents == {b"%d\r\n" % n for n in range(7)}
        assert len(server.messages) == 7
        assert server.connections >= 4


async def test_a_server_that_takes_connections_and_nothing_else_is_left_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with lmtp(tmp_path) as (alpha, server, _):
        server.greets = False
        alpha.submit(b"1\r\n", TO)
        await trio.sleep(300)
        assert server.connections < 10
        server.greets = True
        await until(lambda: alpha.quiet, seconds=600)


async def test_one_recipient_of_two_is_deferred_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    def answers(message: MessageReceived) -> tuple[Reply, ...]:
        later = (TRY_LATER,) if len(server.messages) < 3 else (OK,)
        return (OK, TRY_LATER) if len(message.recipients) == 2 else later

    async with lmtp(tmp_path, answers) as (alpha, server, _):
        alpha.submit(b"x\r\n", TO, ALSO)
        await until(lambda: alpha.quiet)
        got = [m.recipients for m in server.messages]
        assert got == [(TO, ALSO), (ALSO,), (ALSO,)]


async def test_a_server_that_is_not_there_is_tried_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        nursery.start_soon(lmtp_delivery(alpha, tmp_path / "lmtp.sock").run)
        alpha.submit(b"x\r\n", TO)
        await trio.sleep(20)
        server = Server(tmp_path / "lmtp.sock")
        nursery.start_soon(server.run)
        await until(lambda: server.messages)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answers", [False, True])
async def test_what_waits_too_long_for_a_server_is_given_up(
    tmp_path: Path,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    answers: bool,
) -> None:
    """One that is not there, or takes a message and ends; its mail is on the disk."""
    age = 0
    monkeypatch.setattr(Spool, "running_seconds", property(lambda _: age))
    monkeypatch.setattr("mesh.core.retry.ATTEMPTS_MIN", 3)
    monkeypatch.setattr("mesh.node.lmtp.retry_delay", lambda *_: 10.0)
    async with alpha_half(tmp_path) as alpha:
        for _ in range(10):
            alpha.submit(b"x\r\n", TO)
        await until(lambda: alpha.spool.waiting == 10)
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        nursery.start_soon(lmtp_delivery(alpha, tmp_path / "lmtp.sock").run)
        if answers:
            server = Server(tmp_path / "lmtp.sock")
            server.ends_after = 0
            nursery.start_soon(server.run)
        age = GIVE_UP_SECONDS
        alpha.submit(b"y\r\n", TO)
        await trio.sleep(5)
        assert alpha.spool.waiting == 11
        await trio.sleep(600)
        assert (alpha.spool.waiting, alpha.qmgr.dropped) == (1, 10)
        age += GIVE_UP_SECONDS - 1
        await trio.sleep(600)
        assert alpha.spool.waiting == 1
        nursery.cancel_scope.cancel()


async def test_a_server_that_talks_nonsense_keeps_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    talked: list[bytes] = []

    async def talk(stream: trio.SocketStream) -> None:
        nonsense = (b"hello?\r\n", b"220 x\r\n250 x\r\n421 go\r\n")[len(talked) % 2]
        talked.append(nonsense)
        await stream.send_all(nonsense)
        async for _ in stream:
            pass

    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        nursery.start_soon(trio.serve_listeners, talk, [listener])
        nursery.start_soon(lmtp_delivery(alpha, sock.getsockname()).run)
        alpha.submit(b"x\r\n", TO)
        await until(lambda: len(talked) >= 4)
        assert alpha.spool.waiting == 1
        nursery.cancel_scope.cancel()


async def test_a_reply_may_take_its_time_also_on_an_old_connection(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with lmtp(tmp_path) as (alpha, server, _):
        alpha.submit(b"1\r\n", TO)
        await until(lambda: alpha.quiet)
        await trio.sleep(IDLE_SECONDS - 2)
        server.deaf = 100.0
        alpha.submit(b"2\r\n", TO)
        await until(lambda: alpha.quiet)
        assert len(server.messages) == 2
        assert server.connections == 1
        server.deaf = 0.0
        await trio.sleep(IDLE_SECONDS + 1)
        assert server.open == 0


async def test_a_reply_that_never_comes_is_not_waited_for_for_ever(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nor does an idle connection beside it live as long as a reply may take."""
    async with lmtp(tmp_path) as (alpha, server, _):
        alpha.submit(b"1\r\n", TO)
        await until(lambda: alpha.quiet)
        server.deaf = 1e6
        alpha.submit(b"2\r\n", TO)
        await trio.sleep(REPLY_SECONDS - 1)
        assert (server.connections, alpha.spool.waiting) == (1, 1)
        server.deaf = 0.0
        await until(lambda: alpha.quiet, seconds=30)
        assert server.connections == 2
        await trio.sleep(IDLE_SECONDS + 1)
        assert server.open == 1  # the deaf one, which has not looked yet
        assert [message.content for message in server.messages] == [b"1\r\n", b"2\r\n"]


async def test_old_mail_is_read_from_the_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        for number in range(50):
            alpha.submit(b"%d\r\n" % number, TO)
        await until(lambda: alpha.spool.waiting == 50)
    async with lmtp(tmp_path) as (alpha, server, _):
        await until(lambda: alpha.quiet)
        assert sorted(m.content for m in server.messages) == sorted(
            b"%d\r\n" % n for n in range(50)
        )


async def test_who_is_quicker_than_the_disk_goes_first(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with alpha_half(tmp_path) as alpha:
        alpha.submit(b"old\r\n", TO)
        await until(lambda: alpha.spool.waiting)
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        alpha.routes["later@alpha"] = "elsewhere"
        elsewhere = alpha.qmgr.queue("elsewhere").ready
        for number in range(2):
            alpha.submit(b"new %d\r\n" % number, "later@alpha")
        await until(lambda: len(elsewhere) == 2)
        server = Server(tmp_path / "lmtp.sock")
        server.slow = 50.0
        nursery.start_soon(server.run)
        with patience.slow_disk(alpha.spool):
            nursery.start_soon(lmtp_delivery(alpha, tmp_path / "lmtp.sock").run)
            await trio.sleep(1)
            alpha.routes["later@alpha"] = "local:0"
            alpha.qmgr.release("local:0", elsewhere)
            await trio.sleep(1)
        await until(lambda: alpha.quiet)
        got = [message.content for message in server.messages]
        assert got == [b"new 0\r\n", b"new 1\r\n", b"old\r\n"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("count", [1, 3])
async def test_what_is_under_way_stays_when_the_node_ends(
    tmp_path: Path, autojump_clock: MockClock, count: int
) -> None:
    async with lmtp(tmp_path) as (alpha, server, _):
        server.slow = 50.0
        for number in range(count):
            alpha.submit(b"%d\r\n" % number, TO)
        await until(lambda: server.messages)
    async with alpha_half(tmp_path) as alpha:
        assert alpha.spool.waiting == count


async def test_an_end_in_order_waits_for_replies_and_repeats_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        server = Server(tmp_path / "lmtp.sock")
        server.slow = 5.0
        nursery.start_soon(server.run)
        delivery = lmtp_delivery(alpha, tmp_path / "lmtp.sock")
        nursery.start_soon(delivery.run)
        for number in range(9):
            alpha.submit(b"%d\r\n" % number, TO)
        await until(lambda: server.messages)
        assert delivery.busy
        delivery.end()
        alpha.submit(b"too late\r\n", TO)
        await until(lambda: not delivery.busy)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    known = [message.content for message in server.messages]
    assert b"too late\r\n" not in known
    async with alpha_half(tmp_path) as alpha:
        left = await alpha.arrived()
        assert sorted(known + left) == sorted(
            [b"%d\r\n" % number for number in range(9)] + [b"too late\r\n"]
        )


async def test_a_maildir_that_ends_begins_nothing_new(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    maildir = tmp_path / "Maildir"
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        delivery = maildir_delivery(alpha, maildir)
        nursery.start_soon(delivery.run)
        alpha.submit(b"in time\r\n", TO)
        await until(lambda: alpha.quiet)
        delivery.end()
        alpha.submit(b"too late\r\n", TO)
        await trio.sleep(60)
        assert not delivery.busy
        assert found(maildir) == [b"in time\n"]
        assert alpha.spool.waiting == 1
        nursery.cancel_scope.cancel()


async def test_a_maildir_that_hangs_does_not_keep_the_node(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, hangs, gone = (threading.Event() for _ in range(3))

    def hang(*_: object, **_named: object) -> int:
        begun.set()
        hangs.wait(30)
        gone.set()
        return 0

    monkeypatch.setattr("mesh.node.delivery.deliver", hang)
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        delivery = maildir_delivery(alpha, tmp_path / "Maildir")
        nursery.start_soon(delivery.run)
        alpha.submit(b"x\r\n", TO)
        while not begun.is_set():
            await trio.lowlevel.checkpoint()
        assert delivery.busy
        nursery.cancel_scope.cancel()
    assert not gone.is_set()
    hangs.set()
    assert gone.wait(30)


async def test_a_bug_of_one_connection_is_not_the_commit_s_that_brings_mail(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A commit fills an idle connection; it has others to tell as well."""

    def breaks(_data: bytes) -> int:
        raise RuntimeError("in the wire")

    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        server = Server(tmp_path / "lmtp.sock")
        nursery.start_soon(server.run)
        delivery = lmtp_delivery(alpha, tmp_path / "lmtp.sock")
        nursery.start_soon(delivery.run)
        alpha.submit(b"one\r\n", TO)
        await until(lambda: server.messages and alpha.quiet)
        (idle,) = delivery._connections
        idle._wire.try_send = breaks  # type: ignore[method-assign,assignment]
        replies = alpha.submit(b"two\r\n", TO), alpha.submit(b"three\r\n", TO)
        await until(lambda: all(replies))
        assert [one.code for each in replies for one in each] == [250, 250]
        await until(lambda: alpha.quiet, 3000)
        assert alpha.qmgr.guard.bugs == 1
        came = sorted(message.content for message in server.messages)
        assert came == [b"one\r\n", b"three\r\n", b"two\r\n"]
        nursery.cancel_scope.cancel()


async def test_a_connection_that_cannot_be_served_is_not_made_again_at_once(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may refuse a place in the set (epoll_ctl(2): ENOSPC)."""
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        server = Server(tmp_path / "lmtp.sock")
        nursery.start_soon(server.run)
        delivery = lmtp_delivery(alpha, tmp_path / "lmtp.sock")
        add, tries = delivery.pump.add, list[float]()

        def refuse(sock: socket.socket, owner: Served) -> Seat:
            tries.append(trio.current_time())
            if len(tries) <= 3:
                raise OSError(errno.ENOSPC, "no room in the set")
            return add(sock, owner)

        monkeypatch.setattr(delivery.pump, "add", refuse)
        nursery.start_soon(delivery.run)
        alpha.submit(b"hello\r\n", TO)
        await until(lambda: server.messages and alpha.quiet, 3000)
        assert all(later - one > 0.1 for one, later in pairwise(tries))
        nursery.cancel_scope.cancel()
