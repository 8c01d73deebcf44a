# SPDX-License-Identifier: MIT
"""A peer or a user that sends without end is refused, alone; the others go on."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.reply import NO_ROOM, OK, Reply
from mesh.node.qmgr import FULL, STORED
from mesh.node.shares import NOBODY, user_mark, user_of
from mesh.node.submission import Submission, bind_unix
from tests.harness import Half, Patience, connect, half, until
from tests.node.besides import Reader
from tests.node.test_exchange import HERE, Stranger, codes, transaction
from tests.node.test_submission import Client

SLOTS = 40
"""Room for so many records."""
IDENT = "11" * 16


@asynccontextmanager
async def node(folder: Path, name: str) -> AsyncIterator[Half]:
    routes = {HERE: "local:0" if name == "bravo" else "bravo"}
    async with half(folder, name, routes) as made:
        yield made


def submit(bravo: Half, uid: int) -> list[Reply]:
    replies: list[Reply] = []
    bravo.qmgr.accept(
        reverse_path="",
        recipients=[HERE],
        content=b"x\r\n",
        answer=replies.append,
        origin=user_mark(uid),
    )
    return replies


async def submitted(bravo: Half, uid: int) -> Reply:
    replies = submit(bravo, uid)
    await until(lambda: replies)
    return replies[0]


def held(bravo: Half, *origins: bytes) -> list[int]:
    return [bravo.spool._shares.of(origin).records for origin in origins]


async def test_two_flood_and_two_go_on_also_after_a_start(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    del autojump_clock
    monkeypatch.setattr("mesh.node.spool.SLOTS_MAX", SLOTS)
    async with node(tmp_path, "alpha") as alpha, node(tmp_path, "charlie") as charlie:
        marks = [alpha.identity[:16], charlie.identity[:16], user_mark(1), user_mark(2)]
        async with node(tmp_path, "bravo") as bravo, trio.open_nursery() as nursery:
            await connect(nursery, alpha, bravo)
            await connect(nursery, charlie, bravo, counter=2)
            for _ in range(30):
                alpha.submit(b"flood\r\n", HERE)
            await until(lambda: alpha.qmgr.deferred)
            refused = 0
            for _ in range(30):
                refused += await submitted(bravo, 1) == FULL
            one, two, three, four = held(bravo, *marks)
            assert (two, four) == (0, 0)
            assert one <= SLOTS // 2
            assert three == 30 - refused
            assert SLOTS - one - three >= SLOTS // 4 - 1  # what is left for others
            assert alpha.spool.waiting == 30 - one  # nothing of it is lost
            for _ in range(3):
                assert await submitted(bravo, 2) == STORED
                charlie.submit(b"hello\r\n", HERE)
            await until(lambda: held(bravo, *marks)[1] == 3)
            assert bravo.spool.take_refused() == {marks[0], marks[2]}
            before = held(bravo, *marks)
            nursery.cancel_scope.cancel()
        async with node(tmp_path, "bravo") as bravo, trio.open_nursery() as nursery:
            assert held(bravo, *marks) == before
            assert await submitted(bravo, 1) == FULL
            assert await submitted(bravo, 2) == STORED
            # What the remailer takes makes room, and all arrives in the end.
            ready = bravo.qmgr.queue("local:0").ready
            await connect(nursery, alpha, bravo, counter=3)
            delivered = 0
            while alpha.spool.waiting or ready:
                while ready:
                    bravo.qmgr.delivered(ready.popleft())
                    delivered += 1
                await trio.sleep(5)
            assert delivered == 30 + 3 + 3 + 1 + before[2]
            nursery.cancel_scope.cancel()


async def test_what_becomes_of_a_message_is_never_refused(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    del autojump_clock
    async with half(tmp_path, "bravo", {HERE: "local:0", "b@b": "local:0"}) as bravo:
        replies = bravo.submit(b"x\r\n", HERE, "b@b", reverse_path=HERE)
        await until(lambda: replies)
        [ref] = bravo.qmgr.queue("local:0").ready
        bravo.qmgr.queue("local:0").ready.clear()
        record = bravo.spool.hot(ref)
        assert record is not None
        monkeypatch.setattr("mesh.node.spool.SLOTS_MAX", 0)
        bravo.qmgr.settle(ref, record, [Reply(550, "no"), Reply(451, "later")])
        await until(lambda: bravo.qmgr.bounced)
        assert bravo.spool.waiting == 2  # the rest, and the bounce


async def test_the_kernel_says_whose_a_message_is(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    del autojump_clock
    uids = iter([1000, 1000, 1001])
    monkeypatch.setattr("mesh.node.submission._uid_of", lambda _: next(uids))
    async with node(tmp_path, "bravo") as bravo, trio.open_nursery() as nursery:
        made = Submission(
            name="bravo",
            qmgr=bravo.qmgr,
            accepts=lambda _: None,
            max_message=1000,
            uids=None,
        )
        sock = bind_unix(tmp_path / "local.sock")
        nursery.start_soon(made.run, sock)
        for _ in range(3):
            stream = await trio.open_unix_socket(str(tmp_path / "local.sock"))
            async with stream:
                client = Client(stream)
                await client.code()
                await client.say(b"HELO x\r\n")
                await client.say(b"MAIL FROM:<>\r\n")
                await client.say(b"RCPT TO:<%s>\r\n" % HERE.encode())
                assert await client.say(b"BDAT 3 LAST\r\nx\r\n") == [250]
        assert held(bravo, user_mark(1000), user_mark(1001)) == [2, 1]
        sock.close()
        nursery.cancel_scope.cancel()


def test_a_port_s_users_are_nobody() -> None:
    from mesh.node.submission import _uid_of

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
        server.accept()[0] as accepted,
    ):
        assert user_of(user_mark(_uid_of(accepted))) == NOBODY


async def test_a_message_with_an_id_waits_until_all_ids_are_known(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    async with node(tmp_path, "bravo") as bravo, trio.open_nursery() as nursery:
        peer = Stranger(nursery, bravo)
        peer.say(b"HELO alpha\r\n" + transaction(HERE, b"1\r\n", IDENT))
        await until(lambda: bravo.spool.waiting)
        nursery.cancel_scope.cancel()
    reader = Reader(monkeypatch)
    async with node(tmp_path, "bravo") as bravo, trio.open_nursery() as nursery:
        peer = Stranger(nursery, bravo)
        assert not bravo.spool.is_indexed
        peer.say(b"HELO alpha\r\n" + transaction(HERE, b"1\r\n", IDENT))
        # Without an id: at once.
        peer.say(b"HELO alpha\r\n" + transaction(HERE, b"2\r\n"), stream=1)
        await until(lambda: bravo.spool.waiting == 2)
        await trio.sleep(2)
        assert codes(peer.heard())[-1] == 250
        assert bravo.spool.waiting == 2
        reader.go_on()
        await until(lambda: bravo.spool.is_indexed)
        await until(lambda: peer.heard().endswith(OK.encode()))
        assert bravo.spool.waiting == 2  # it was known
        nursery.cancel_scope.cancel()


async def test_no_more_is_held_of_a_peer_than_an_honest_one_has_on_its_way(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    monkeypatch.setattr("mesh.node.peer.HELD_MAX", 100)
    reader = Reader(monkeypatch)
    async with node(tmp_path, "bravo") as bravo, trio.open_nursery() as nursery:
        peer = Stranger(nursery, bravo)
        for stream, length in enumerate((120, 1)):  # the first, however large
            content = b"x" * length + b"\r\n"
            ident = f"{stream + 1:02}" * 16
            said = b"HELO alpha\r\n" + transaction(HERE, content, ident)
            peer.say(said, stream=stream)
        await until(lambda: peer.heard().endswith(NO_ROOM.encode()))
        reader.go_on()
        await until(lambda: peer.heard().endswith(STORED.encode()))
        assert bravo.spool.waiting == 1
        peer.say(transaction(HERE, b"x\r\n", "02" * 16), stream=1)
        await until(lambda: bravo.spool.waiting == 2)
        nursery.cancel_scope.cancel()


async def test_what_is_held_goes_with_its_link(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    reader = Reader(monkeypatch)
    async with node(tmp_path, "bravo") as bravo, trio.open_nursery() as nursery:
        first = Stranger(nursery, bravo)
        first.say(b"HELO alpha\r\n" + transaction(HERE, b"1\r\n", IDENT))
        await until(lambda: bravo.exchange.peers)
        peer = bravo.exchange.peers["alpha"]
        await until(lambda: peer._held)
        first.wire.close()
        await until(lambda: first.ended)
        assert not peer._held  # its sender has it, and will offer it again
        reader.go_on()
        await until(lambda: bravo.spool.is_indexed)
        assert not bravo.spool.waiting
        nursery.cancel_scope.cancel()


async def test_a_bug_in_taking_what_was_held_ends_its_link_and_the_next_brings_it(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    reader = Reader(monkeypatch)
    async with node(tmp_path, "bravo") as bravo, trio.open_nursery() as nursery:
        places = bravo.qmgr._parting.places

        def breaks(_: object) -> dict[str, list[str]]:
            raise RuntimeError("planted")

        monkeypatch.setattr(bravo.qmgr._parting, "places", breaks)
        first = Stranger(nursery, bravo)
        first.say(b"HELO alpha\r\n" + transaction(HERE, b"1\r\n", IDENT))
        await until(lambda: bravo.exchange.peers)
        peer = bravo.exchange.peers["alpha"]
        await until(lambda: peer._held)
        reader.go_on()
        await until(lambda: first.ended)
        assert bravo.qmgr.guard.bugs == 1
        monkeypatch.setattr(bravo.qmgr._parting, "places", places)
        second = Stranger(nursery, bravo)
        second.say(b"HELO alpha\r\n" + transaction(HERE, b"1\r\n", IDENT))
        await until(lambda: second.heard().endswith(STORED.encode()))
        assert bravo.spool.waiting == 1
        nursery.cancel_scope.cancel()
