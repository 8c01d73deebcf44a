# SPDX-License-Identifier: MIT
"""Sessions that wait: for places, for their client, for answers that come at once."""

from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.dialogue import UNTAKEN_MAX, Dialogue
from mesh.core.reply import Reply
from mesh.node import caller as caller_
from mesh.node import submission as submission_
from mesh.node.caller import Caller
from mesh.node.pump import WRITE
from tests.harness import until
from tests.node.test_submission import TO, local

LARGE = b"0123456789abcd\r\n" * 50_000
OCTETS = b"BDAT %d LAST\r\n" % len(LARGE) + LARGE
MAIL = b"MAIL FROM:<>\r\nRCPT TO:<%s>\r\n" % TO.encode()


async def test_places_go_round_in_the_order_of_the_line(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_, "LARGE_MAX", 1)
    async with local(tmp_path) as here:
        clients = [await here.mail() for _ in range(4)]
        done: list[int] = []

        async def say(number: int) -> None:
            with suppress(trio.ClosedResourceError):
                assert await clients[number].say(OCTETS) == [250]
                done.append(number)

        await clients[0].stream.send_all(OCTETS[:600_000])
        await trio.sleep(1)
        for number in (1, 2, 3):
            here.nursery.start_soon(say, number)
            await trio.sleep(1)
        await clients[2].stream.aclose()  # it waits for a place, and reads nothing
        assert len(here.submission._sessions) == 4
        assert await clients[0].say(OCTETS[600_000:]) == [250]
        await until(lambda: len(here.submission._sessions) == 3)
        assert done == [1, 3]
        (user,) = here.submission._users.values()
        assert user.large.take(next(iter(here.submission._sessions)))  # none is lost


async def test_who_ends_in_the_line_leaves_it(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_, "LARGE_MAX", 1)
    async with local(tmp_path) as here:
        first = await here.mail()
        await first.stream.send_all(OCTETS[:600_000])
        await trio.sleep(1)
        (one,) = here.submission._sessions
        second = await here.mail()

        async def talk() -> None:
            with suppress(trio.BrokenResourceError):
                await second.stream.send_all(OCTETS)

        here.nursery.start_soon(talk)
        await trio.sleep(1)
        (other,) = here.submission._sessions - {one}
        with here.alpha.qmgr.guard():
            other.drop()
            other.drop()
        third = await here.mail()
        assert await first.say(OCTETS[600_000:]) == [250]
        with trio.fail_after(10):
            assert await third.say(OCTETS) == [250]


async def test_who_reads_no_replies_is_ended(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n")

        async def flood() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await client.stream.send_all(b"HELP\r\n" * 120_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.sleep(caller_.IDLE_SECONDS - 10)
            assert here.submission._sessions
            await trio.sleep(20)
            assert not here.submission._sessions


async def test_a_flood_of_lines_is_answered_a_few_at_a_time(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    attend = Caller._attend

    def count(caller: Caller) -> None:
        calls.append(caller.dialogue.buffered)
        attend(caller)

    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n")
        neighbour = await here.client(b"EHLO x\r\n")
        monkeypatch.setattr(Caller, "_attend", count)
        lines = b"\r\n" * 5000
        await client.stream.send_all(lines)
        assert await neighbour.say(b"NOOP\r\n") == [250]
        assert {await client.code() for _ in range(5000)} == {500}
        assert len(calls) > 5000 * 20 // UNTAKEN_MAX  # and not one for all of them
        await client.stream.send_all(lines + b"QUIT\r\n")
        await client.stream.send_eof()
        codes = [await client.code() for _ in range(5002)]
        assert codes[-2:] == [221, 0]


async def test_no_line_is_read_while_replies_wait(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads nothing makes us keep what one look at the lines answers, and no more."""
    waiting: list[int] = []
    go_on = Dialogue.go_on

    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n")
        (session,) = here.submission._sessions

        def watched(dialogue: Dialogue) -> None:
            waiting.append(session._outlet.waiting)
            go_on(dialogue)

        monkeypatch.setattr(Dialogue, "go_on", watched)
        await client.stream.send_all(b"\r\n" * 30_000)
        await trio.sleep(1)
        session._outlet.send(b"250 x\r\n" * 40_000)  # more than the kernel takes
        assert session._outlet.waiting
        session.serve(WRITE)
        assert {await client.code() for _ in range(70_000)} == {250, 500}
    assert len(waiting) > 30_000 * 20 // UNTAKEN_MAX
    assert not any(waiting)


async def test_who_reads_some_replies_has_its_time_anew(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The time of a wait does not count for the next one."""
    async with local(tmp_path) as here:
        client = await here.client(b"EHLO x\r\n")
        count = 40_000

        async def flood() -> None:
            await client.stream.send_all(b"HELP\r\n" * count)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.sleep(caller_.IDLE_SECONDS - 10)
            assert {await client.code() for _ in range(count)} == {214}
        await trio.sleep(caller_.IDLE_SECONDS - 10)
        assert await client.say(b"NOOP\r\n") == [250]


async def test_who_waited_for_us_has_its_time_then(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A disk that is slower than our patience with a client is no fault of his."""
    async with local(tmp_path) as here:
        client = await here.mail()
        (session,) = here.submission._sessions
        accept = here.alpha.qmgr.accept
        answers = []

        def late(**message: object) -> None:
            answers.append(message["answer"])

        here.alpha.qmgr.accept = late  # type: ignore[method-assign]
        await client.stream.send_all(b"BDAT 2 LAST\r\n\r\n")
        await trio.sleep(2 * caller_.IDLE_SECONDS)
        here.alpha.qmgr.accept = accept  # type: ignore[method-assign]
        answers[0](Reply(250, "ok"))  # type: ignore[operator]
        assert await client.code() == 250
        await trio.sleep(caller_.IDLE_SECONDS - 10)
        assert await client.say(b"NOOP\r\n") == [250]
        assert session in here.submission._sessions


async def test_answers_that_come_at_once_however_many(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused without the disk is answered from within; no call is in a call."""
    async with local(tmp_path) as here:
        monkeypatch.setattr(here.alpha.spool, "has_room", lambda *_: False)
        client = await here.client(b"EHLO x\r\n")
        count = 1_500
        octets = (MAIL + b"BDAT 0 LAST\r\n") * count + b"QUIT\r\n"
        here.nursery.start_soon(client.stream.send_all, octets)
        codes = [await client.code() for _ in range(3 * count + 1)]
        assert codes == [250, 250, 452] * count + [221]
        assert await client.code() == 0
        assert not here.alpha.qmgr.guard.bugs


async def test_who_handed_a_message_over_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What MAIL and RCPT are answered does not say that a next word comes at once."""
    said: list[bool] = []
    serve = Caller.serve

    def served(self: Caller, events: int) -> bool:
        said.append(serve(self, events))
        return said[-1]

    monkeypatch.setattr(Caller, "serve", served)
    async with local(tmp_path) as here:
        client = await here.mail()
        assert await client.say(b"NOOP\r\n") == [250]
        assert said[-1]
        said.clear()
        await client.stream.send_all(MAIL + b"BDAT 3 LAST\r\nx\r\n")
        await until(lambda: bool(said))
        assert said == [False]
        assert [await client.code() for _ in range(3)] == [503, 250, 250]
        said.clear()
        assert await client.say(b"QUIT\r\n") == [221]
        assert said == [False]
