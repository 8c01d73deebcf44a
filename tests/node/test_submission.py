# SPDX-License-Identifier: MIT
"""The local socket, by a client that writes octets and reads lines."""

import os
import pwd
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from trio.testing import MockClock

from mesh.core.dialogue import SENT_AHEAD_MAX
from mesh.core.reply import NO_SUCH_RECIPIENT, Reply
from mesh.errors import CannotCreateError, ConfigError
from mesh.node import caller as caller_
from mesh.node import pump as pump_
from mesh.node import submission as submission_
from mesh.node.intake import Group
from mesh.node.submission import Submission, allowed_uids, bind_unix
from tests.harness import Half, Patience, half, until

TO = "mix@alpha"
MAX = 3_000_000


class Client:
    """One connection; replies as their codes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def line(self) -> bytes:
        while b"\n" not in self._rest:
            data = await self.stream.receive_some()
            if not data:
                return b""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    async def code(self) -> int:
        """The next reply's code, 0 at the end."""
        line = await self.line()
        while line[3:4] == b"-":
            line = await self.line()
        return int(line[:3] or b"0")

    async def say(self, octets: bytes, replies: int = 1) -> list[int]:
        await self.stream.send_all(octets)
        return [await self.code() for _ in range(replies)]


class Local:
    """A submission on a real socket, over half a node."""

    def __init__(
        self,
        alpha: Half,
        path: Path,
        nursery: trio.Nursery,
        submission: Submission,
        sock: socket.socket,
    ) -> None:
        self.alpha = alpha
        self.path = path
        self.submission = submission
        self.sock = sock
        self.nursery = nursery
        self.streams: list[trio.SocketStream] = []

    async def connect(self, path: Path | None = None) -> Client:
        stream = await trio.open_unix_socket(str(path or self.path))
        self.streams.append(stream)
        return Client(stream)

    async def client(self, *greeting: bytes) -> Client:
        client = await self.connect()
        assert await client.code() == 220
        for line in greeting:
            await client.say(line)
        return client

    async def mail(self, to: str = TO) -> Client:
        """A client past its RCPT."""
        client = await self.client(b"EHLO x\r\n", b"MAIL FROM:<>\r\n")
        assert await client.say(b"RCPT TO:<%s>\r\n" % to.encode()) == [250]
        return client


@asynccontextmanager
async def local(folder: Path, **options: Any) -> AsyncIterator[Local]:
    def accepts(path: str) -> Reply | None:
        return None if path in alpha.routes else NO_SUCH_RECIPIENT

    async with half(folder, "alpha", {TO: "local:0"}) as alpha:
        made = Submission(
            name="alpha",
            qmgr=alpha.qmgr,
            accepts=accepts,
            max_message=MAX,
            uids=options.pop("uids", None),
        )
        path = folder / "local.sock"
        sock = bind_unix(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run, sock)
            here = Local(alpha, path, nursery, made, sock)
            yield here
            nursery.cancel_scope.cancel()
        for stream in here.streams:
            await stream.aclose()
        sock.close()


DATA = b"DATA\r\n"


@pytest.mark.parametrize("hello", [b"EHLO x\r\n", b"HELO x\r\n", b"lhlo x\r\n"])
async def test_a_message_line_by_line(
    tmp_path: Path, autojump_clock: MockClock, hello: bytes
) -> None:
    async with local(tmp_path) as here:
        client = await here.client()
        assert await client.say(hello) == [250]
        assert await client.say(b"mail from:<a@b> BODY=8BITMIME\r\n") == [250]
        assert await client.say(b"RCPT TO:<mix@alpha>\r\n") == [250]
        assert await client.say(DATA) == [354]
        assert await client.say(b"Subject: x\r\n\r\n..dot\r\n\0\xff\r\n.\r\n") == [250]
        assert await here.alpha.arrived() == [b"Subject: x\r\n\r\n.dot\r\n\0\xff\r\n"]
        assert await client.say(b"QUIT\r\n") == [221]
        assert await client.code() == 0


async def test_all_at_once_and_several_messages(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n")
        one = b"MAIL FROM:<>\r\nRCPT TO:<mix@alpha>\r\nBDAT 5 LAST\r\n%03d\r\n"
        octets = b"".join(one % number for number in range(100))
        assert await client.say(octets, 300) == [250] * 300
        assert await here.alpha.arrived() == [b"%03d\r\n" % n for n in range(100)]


async def test_what_many_send_at_once_is_one_commit(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_, "TURN_SECONDS", 60.0)  # however busy this machine is
    async with local(tmp_path) as here:
        clients = [await here.mail() for _ in range(20)]
        groups: list[int] = []
        intake = here.alpha.spool._intake
        stored = intake._stored

        def count(group: Group) -> None:
            groups.append(len(group.refs))
            stored(group)

        intake._stored = count
        for client in clients:  # with no turn of the loop between
            with socket.socket(fileno=os.dup(client.stream.socket.fileno())) as sock:
                sock.send(b"BDAT 2 LAST\r\n\r\n")
        assert [await client.code() for client in clients] == [250] * 20
        assert groups == [20]


async def test_sent_far_ahead_of_a_slow_disk(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    content = b"0123456789abcd\r\n" * 12_500
    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n")
        one = b"MAIL FROM:<>\r\nRCPT TO:<mix@alpha>\r\nBDAT %d LAST\r\n%s"
        octets = one % (len(content), content)

        async def talk() -> None:
            await client.stream.send_all(octets * 10 + b"QUIT\r\n")

        async with trio.open_nursery() as nursery:
            with patience.slow_disk(here.alpha.spool):
                nursery.start_soon(talk)
                await trio.sleep(5)
            assert [await client.code() for _ in range(31)] == [250] * 30 + [221]
        assert await client.code() == 0
        assert len(await here.alpha.arrived()) == 10


async def test_more_than_anybody_may_send_ahead_ends_the_session_only(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert caller_.AHEAD_MAX + caller_.READ_MAX <= SENT_AHEAD_MAX
    monkeypatch.setattr(caller_, "AHEAD_MAX", 10**9)
    async with local(tmp_path) as here:
        client = await here.mail()
        octets = b"BDAT 2 LAST\r\n\r\n" + b"NOOP\r\n" * 200_000
        with (
            patience.slow_disk(here.alpha.spool),
            pytest.raises(trio.BrokenResourceError),
        ):
            await client.stream.send_all(octets)
        await until(lambda: here.alpha.spool.waiting)  # the message was whole
        assert (await (await here.mail()).say(b"BDAT 2 LAST\r\n\r\n")) == [250]


async def test_whatever_the_octets_are(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    contents = [
        b"",
        b"\r\n",
        b"." * 100_000 + b"\r\n",
        b"\0\x80\xff\x1a\r\n" * 1000,
        (b".\r\n" * 3 + b"..\r\n") * 100,
    ]
    async with local(tmp_path) as here:
        for content in contents:
            client = await here.mail()
            assert await client.say(DATA) == [354]
            stuffed = content.replace(b"\r\n.", b"\r\n..")
            if content.startswith(b"."):
                stuffed = b"." + stuffed
            assert await client.say(stuffed + b".\r\n") == [250]
            counted = await here.mail()
            octets = b"BDAT %d LAST\r\n" % len(content) + content
            assert await counted.say(octets) == [250]
        twice = [content for content in contents for _ in range(2)]
        assert await here.alpha.arrived() == twice


@pytest.mark.parametrize("bare", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\r\n", b"\n"])
async def test_a_bare_cr_or_lf_is_refused(
    tmp_path: Path, autojump_clock: MockClock, bare: bytes
) -> None:
    async with local(tmp_path) as here:
        client = await here.mail()
        assert await client.say(DATA) == [354]
        assert await client.say(bare + b"\r\n.\r\n") == [554]
        client = await here.mail()
        assert await client.say(b"BDAT %d LAST\r\n" % len(bare) + bare) == [554]
        assert await client.say(b"NOOP\r\n") == [250]
        assert not here.alpha.spool.waiting


async def test_too_big_is_refused_at_its_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n")
        assert await client.say(b"MAIL FROM:<> SIZE=%d\r\n" % (MAX + 1)) == [552]
        client = await here.mail()
        assert await client.say(DATA) == [354]
        for _ in range(5):
            await client.stream.send_all(b"0123456789abcd\r\n" * 50_000)
        assert await client.say(b".\r\n") == [552]
        client = await here.mail()
        large = b"x" * (MAX - 1) + b"\r\n"
        assert await client.say(b"BDAT %d LAST\r\n" % len(large) + large) == [552]
        assert not here.alpha.spool.waiting
        client = await here.mail()
        fits = large[1:]
        assert await client.say(b"BDAT %d LAST\r\n" % len(fits) + fits) == [250]


async def test_a_recipient_of_nobody_is_refused_and_again_at_data(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n", b"MAIL FROM:<>\r\n")
        assert await client.say(b"RCPT TO:<x@nowhere>\r\n") == [550]
        assert await client.say(DATA) == [550]
        client = await here.client(b"EHLO x\r\n", b"MAIL FROM:<>\r\n")
        assert await client.say(b"RCPT TO:<mix@alpha>\r\n") == [250]
        assert await client.say(b"RCPT TO:<x@nowhere>\r\n") == [550]
        assert await client.say(DATA) == [550]
        client = await here.client(b"LHLO x\r\n", b"MAIL FROM:<>\r\n")
        assert await client.say(b"RCPT TO:<x@nowhere>\r\n") == [550]
        assert await client.say(b"RCPT TO:<mix@alpha>\r\n") == [250]
        assert await client.say(DATA) == [354]
        assert await client.say(b"lmtp\r\n.\r\n") == [250]
        assert await here.alpha.arrived() == [b"lmtp\r\n"]


async def test_a_client_may_leave_at_any_time(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with local(tmp_path) as here:
        for _ in range(3):  # before the banner
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(here.path))
            sock.close()
        await trio.sleep(1)
        client = await here.mail()
        await client.say(DATA)
        await client.stream.send_all(b"half a mess")
        await client.stream.aclose()
        await trio.sleep(1)
        assert not here.alpha.spool.waiting
        client = await here.mail()
        with patience.slow_disk(here.alpha.spool):  # before the reply
            await client.stream.send_all(b"BDAT 2 LAST\r\n\r\nQUIT\r\n")
            await trio.sleep(1)
            await client.stream.aclose()
            await trio.sleep(1)
        await until(lambda: here.alpha.spool.waiting)
        again = await here.mail()
        assert await again.say(b"BDAT 2 LAST\r\n\r\n") == [250]


async def test_a_session_that_ended_takes_nothing_more_in(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """Its client has no reply and hands it over again: once would be twice."""
    async with local(tmp_path) as here:
        more = b"MAIL FROM:<>\r\nRCPT TO:<mix@alpha>\r\nBDAT 2 LAST\r\n\r\n"
        with (
            patience.slow_disk(here.alpha.spool),
            bind_unix(tmp_path / "other.sock") as sock,
        ):
            async with trio.open_nursery() as serving:
                serving.start_soon(here.submission.run, sock)
                client = await here.connect(tmp_path / "other.sock")
                await client.stream.send_all(b"EHLO x\r\n" + more * 3)
                await until(lambda: here.submission.unanswered)
                serving.cancel_scope.cancel()
            await trio.sleep(1)
        await until(lambda: here.alpha.spool.waiting)
        await trio.sleep(5)
        assert here.alpha.spool.waiting == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_user_of_any_number_is_known() -> None:
    was = os.geteuid()
    os.seteuid(4_000_000_000)
    try:
        near, far = socket.socketpair()
    finally:
        os.seteuid(was)
    with near, far:
        assert submission_._uid_of(near) == 4_000_000_000


async def test_who_closes_its_sending_side_still_gets_replies(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with local(tmp_path) as here:
        client = await here.mail()
        with patience.slow_disk(here.alpha.spool):
            await client.stream.send_all(b"BDAT 2 LAST\r\n\r\n")
            await client.stream.send_eof()
            await trio.sleep(5)
        assert await client.code() == 250
        assert await client.code() == 0


async def test_replies_that_nobody_reads_stop_the_reading(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n")
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for _ in range(120):
                await client.stream.send_all(b"HELP\r\n" * 1000)
                sent += 1000

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.sleep(5)
            assert sent < 100_000
            codes = {await client.code() for _ in range(120_000)}
        assert codes == {214}


async def test_nonsense_is_answered_and_ends_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with local(tmp_path) as here:
        client = await here.client()
        codes = await client.say(b"FOO\r\n\xff\0\r\nTURN\r\nVRFY x\r\nRCPT\r\n", 5)
        assert codes == [500, 500, 502, 252, 501]


async def test_large_messages_wait_for_a_place(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_, "LARGE_MAX", 1)
    large = b"0123456789abcd\r\n" * 100_000
    octets = b"BDAT %d LAST\r\n" % len(large) + large
    async with local(tmp_path) as here:
        first, second = await here.mail(), await here.mail()
        await first.stream.send_all(octets[:1_200_000])
        await trio.sleep(1)
        got: list[int] = []

        async def say() -> None:
            got.extend(await second.say(octets))

        here.nursery.start_soon(say)
        await trio.sleep(100)
        assert not got  # late, and not refused
        small = await here.mail()
        assert await small.say(b"BDAT 2 LAST\r\n\r\n") == [250]
        assert await first.say(octets[1_200_000:]) == [250]
        await until(lambda: got == [250])
        # Whoever stalls with a place loses it.
        third = await here.mail()
        await third.stream.send_all(octets[:1_200_000])
        await trio.sleep(caller_.LARGE_SECONDS + 10)
        with trio.fail_after(1):
            assert [await third.code(), await third.code()] == [421, 0]
        fourth = await here.mail()
        assert await fourth.say(octets) == [250]


async def test_a_large_message_keeps_its_place_until_it_is_on_the_disk(
    tmp_path: Path,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    patience: Patience,
) -> None:
    monkeypatch.setattr(submission_, "LARGE_MAX", 1)
    large = b"0123456789abcd\r\n" * 100_000
    octets = b"BDAT %d LAST\r\n" % len(large) + large
    async with local(tmp_path) as here:
        first, second = await here.mail(), await here.mail()
        with patience.slow_disk(here.alpha.spool):
            await first.stream.send_all(octets)
            await trio.sleep(1)
            here.nursery.start_soon(second.stream.send_all, octets)
            await trio.sleep(1)
            held = sorted(s.dialogue.content_octets for s in here.submission._sessions)
            assert here.submission.unanswered
        assert held[0] == 0
        assert 0 < held[1] <= caller_.SMALL_MESSAGE_LEN + caller_.READ_MAX
        assert [await first.code(), await second.code()] == [250, 250]


async def test_who_comes_when_all_places_are_taken_waits_for_one(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_, "SESSIONS_MAX", 2)
    async with local(tmp_path) as here:
        first, _ = await here.client(), await here.client()
        third = await here.connect()
        with trio.move_on_after(60) as waiting:
            await third.code()
        assert waiting.cancelled_caught
        assert await first.say(b"QUIT\r\n") == [221]
        with trio.fail_after(10):
            assert await third.code() == 220


async def test_one_user_leaves_room_for_the_others(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_, "USER_MAX", 2)
    monkeypatch.setattr(submission_, "LARGE_MAX", 1)
    large = b"0123456789abcd\r\n" * 100_000
    octets = b"BDAT %d LAST\r\n" % len(large) + large
    uids = iter([1000, 1000, 1000, 2000, 1000])
    monkeypatch.setattr(submission_, "_uid_of", lambda _: next(uids))
    async with local(tmp_path) as here:
        greedy, other = await here.mail(), await here.client()
        refused = await here.connect()
        assert [await refused.code(), await refused.code()] == [421, 0]
        await greedy.stream.send_all(octets[:1_200_000])
        await trio.sleep(1)
        neighbour = await here.mail()
        with trio.fail_after(10):
            assert await neighbour.say(octets) == [250]
        assert await other.say(b"QUIT\r\n") == [221]
        await trio.sleep(1)
        assert await (await here.connect()).code() == 220
        for stream in here.streams:
            await stream.aclose()
        await trio.sleep(1)
        assert not here.submission._users


async def test_whoever_forgot_to_close_is_closed(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with local(tmp_path) as here:
        idle, waiting = await here.client(), await here.mail()
        with patience.slow_disk(here.alpha.spool):
            await waiting.stream.send_all(b"BDAT 2 LAST\r\n\r\n")
            await trio.sleep(caller_.IDLE_SECONDS - 10)
            assert await idle.say(b"NOOP\r\n") == [250]
            await trio.sleep(20)
            assert await idle.say(b"NOOP\r\n") == [250]
            with trio.fail_after(caller_.IDLE_SECONDS + 10):
                assert [await idle.code(), await idle.code()] == [421, 0]
        assert await waiting.code() == 250  # it waited for us, not we for it


async def test_who_is_silent_is_told_once_however_many_doors_there_are(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with local(tmp_path) as here:
        with bind_unix(tmp_path / "other.sock") as other:
            here.nursery.start_soon(here.submission.run, other)
            idle = await here.client()
            await trio.sleep(caller_.IDLE_SECONDS + 10)
            assert [await idle.code(), await idle.code()] == [421, 0]
            trio.lowlevel.notify_closing(other)


async def test_who_is_not_named_may_not_submit(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with local(tmp_path, uids=frozenset({os.geteuid() + 1})) as here:
        client = await here.connect()
        assert await client.code() == 554
        assert await client.code() == 0
    async with local(tmp_path, uids=frozenset({os.geteuid()})) as here:
        assert await (await here.mail()).say(b"BDAT 2 LAST\r\n\r\n") == [250]


def test_users_are_looked_up() -> None:
    me = pwd.getpwuid(os.geteuid())
    assert allowed_uids([]) == frozenset({0, me.pw_uid})
    assert allowed_uids([me.pw_name, ""]) is None
    assert allowed_uids([me.pw_name]) == frozenset({0, me.pw_uid})
    with pytest.raises(ConfigError, match="nobody-here"):
        allowed_uids(["nobody-here"])


async def test_a_closed_socket_lets_sessions_end(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with local(tmp_path) as here:
        made, sock = here.submission, here.sock
        client, idle = await here.mail(), await here.client()
        trio.lowlevel.notify_closing(sock)
        sock.close()
        with patience.slow_disk(here.alpha.spool):
            await client.stream.send_all(b"BDAT 2 LAST\r\n\r\n")
            await trio.sleep(1)
            before = made.unanswered
        assert await client.code() == 250
        assert (before, made.unanswered) == (True, False)
        made.end()
        assert await idle.code() == 421
        assert await client.code() == 421


async def test_an_accept_that_fails_is_tried_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    class Tired(socket.socket):
        failures: ClassVar[list[OSError]] = [
            OSError("no descriptors"),
            BlockingIOError(),
        ]

        def accept(self) -> Any:
            if self.failures:
                raise self.failures.pop()
            return super().accept()

    async with local(tmp_path) as here:
        path = tmp_path / "other.sock"
        with bind_unix(path) as sock:
            tired = Tired(fileno=sock.detach())
        here.nursery.start_soon(here.submission.run, tired)
        client = await here.connect(path)
        assert await client.code() == 220
        trio.lowlevel.notify_closing(tired)
        tired.close()


def test_a_stale_socket_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "local.sock"
    first = bind_unix(path)
    assert path.stat().st_mode & 0o777 == 0o660
    with pytest.raises(CannotCreateError, match=r"local\.sock") as caught:
        bind_unix(path)  # somebody answers there
    assert caught.value.exit_code == 73
    first.close()
    bind_unix(path).close()
    path.unlink()
    path.write_bytes(b"not a socket")
    with pytest.raises(CannotCreateError):
        bind_unix(path)
    assert path.read_bytes() == b"not a socket"
    with pytest.raises(CannotCreateError):
        bind_unix(tmp_path / "missing" / "local.sock")
    long = tmp_path / ("long" * 20) / ("long" * 20)
    long.mkdir(parents=True)
    bind_unix(long / "local.sock").close()


async def test_a_bug_found_by_an_answer_ends_that_session_only(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Commits call it, and they have others to tell."""
    async with local(tmp_path) as here:
        client = await here.mail()
        (session,) = here.submission._sessions
        other = await here.mail()
        session._answer(Reply(250, "nobody has asked"))
        assert here.alpha.qmgr.guard.bugs == 1
        assert await client.code() == 0
        assert await other.say(b"BDAT 3 LAST\r\nx\r\n") == [250]
        await until(lambda: len(here.submission._sessions) == 1)
