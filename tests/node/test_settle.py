# SPDX-License-Identifier: MIT
"""What becomes of a message whose receiver said no: tried again, told, or counted."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.record import Record
from mesh.core.reply import NO_ROOM, OK, Reply
from mesh.core.retry import ATTEMPTS_MIN, GIVE_UP_SECONDS, INSIDE, OUTSIDE
from mesh.node import qmgr
from mesh.node.delivery import MaildirDelivery
from mesh.node.qmgr import NOBODY, SWEEP_SECONDS
from mesh.node.routing import UNROUTED
from mesh.node.spool import Ref, Spool
from tests.harness import Half, Patience, connect, half, until

US = "mix@alpha.test"
ROUTES = {US: "local:0", "a@x": "exit:x", "b@x": "exit:x", "c@x": "exit:x", "p@b": "b"}
NEVER = Reply(550, "5.1.1 no such user")
DAY = 86_400


async def taken(alpha: Half, place: str = "exit:x") -> tuple[Ref, Record]:
    """The oldest of a queue, as its worker takes it."""
    await until(lambda: alpha.qmgr.queue(place).ready or len(alpha.qmgr.pool))
    alpha.tick()
    ref = alpha.qmgr.queue(place).ready.popleft()
    record = alpha.spool.hot(ref)
    assert record is not None
    return ref, record


async def deferred(alpha: Half) -> tuple[Ref, Record, float]:
    """What is to be tried again, without waiting so long, and how long that is."""
    await until(lambda: alpha.qmgr._deferred)
    [(due, ref)] = alpha.qmgr._deferred
    alpha.qmgr._deferred.clear()
    record = alpha.spool.hot(ref)
    assert record is not None
    return ref, record, due - trio.current_time()


async def test_what_was_taken_is_the_callers(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "a@x", "b@x")
        ref, record = await taken(alpha)
        assert alpha.qmgr.settle(ref, record, (OK, OK))
        assert alpha.spool.waiting == 1
        assert not alpha.qmgr._deferred


async def test_each_recipient_has_its_own_end(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"octets\r\n", "a@x", "b@x", "c@x", reverse_path=US)
        ref, record = await taken(alpha)
        assert not alpha.qmgr.settle(ref, record, (OK, NO_ROOM, NEVER))
        [bounce] = await arrived(alpha, 1)
        assert b"550 5.1.1 no such user" in bounce
        assert b"c@x" in bounce
        assert b"a@x" not in bounce
        assert b"b@x" not in bounce
        assert b"octets" not in bounce
        assert (alpha.qmgr.bounced, alpha.qmgr.dropped) == (1, 0)
        _, rest, _ = await deferred(alpha)
        assert (rest.recipients, rest.content) == (("b@x",), b"octets\r\n")
        assert rest.accepted == record.accepted
        assert rest.id != record.id
        assert alpha.spool.waiting == 2


async def test_what_is_left_is_whole_also_when_only_its_head_was_read(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        for recipients in (("a@x", "b@x"), ("c@x", "a@x")):
            alpha.submit(b"octets\r\n", *recipients, reverse_path=US)
            ref, _ = await taken(alpha)
            alpha.spool._hot.drop(ref)
            [head] = await alpha.spool.heads([ref])
            assert head is not None
            assert not head.content
            if "c@x" in recipients:  # nothing of it can be read any more
                row, _ = alpha.spool._index.place(ref & 0xFFFFFFFF)
                alpha.spool._groups.delete([row])
            assert not alpha.qmgr.settle(ref, head, (NEVER, NO_ROOM))
        _, rest, _ = await deferred(alpha)
        assert (rest.recipients, rest.content) == (("b@x",), b"octets\r\n")
        await until(lambda: alpha.spool.corrupt)
        assert alpha.qmgr.bounced == 1


@pytest.mark.parametrize("replies", [(OK, NEVER), (OK, NO_ROOM), (NO_ROOM, NEVER)])
async def test_who_took_a_part_need_not_know_the_whole_any_more(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    replies: tuple[Reply, Reply],
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "a@x", "b@x")
        ref, record = await taken(alpha)
        forgotten: list[int] = []
        assert not alpha.qmgr.settle(
            ref, record, replies, durable=lambda: forgotten.append(alpha.spool.waiting)
        )
        await trio.sleep(3)
        assert forgotten == ([int(NO_ROOM in replies)] if OK in replies else [])


async def test_a_peer_hears_of_what_it_took_beside_what_it_refused(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with (
        half(tmp_path, "alpha", {"p@b": "bravo", "no@b": "bravo"}) as alpha,
        half(tmp_path, "bravo", {"p@b": "local:0"}) as bravo,
        trio.open_nursery() as nursery,
    ):
        await connect(nursery, alpha, bravo)
        for _ in range(5):
            alpha.submit(b"x", "p@b", "no@b")
        await until(lambda: alpha.qmgr.dropped == 5)
        assert len(await bravo.arrived()) == 5
        mark = alpha.identity[:16]
        await until(lambda: not bravo.spool.known_ids(mark), 30)
        nursery.cancel_scope.cancel()


async def arrived(alpha: Half, count: int) -> list[bytes]:
    await until(lambda: len(alpha.qmgr.queue("local:0").ready) >= count)
    return await alpha.arrived()


@pytest.mark.parametrize("reverse_path", ["", "who@elsewhere", "p@b", "a@x", "nobody"])
async def test_nobody_elsewhere_gets_a_bounce(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, reverse_path: str
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "a@x", "b@x", reverse_path=reverse_path)
        ref, record = await taken(alpha)
        assert not alpha.qmgr.settle(ref, record, (NEVER, NEVER))
        assert alpha.spool.waiting == 0
        assert (alpha.qmgr.bounced, alpha.qmgr.dropped) == (0, 2)


async def test_a_bounce_makes_no_bounce(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "a@x", reverse_path=US)
        ref, record = await taken(alpha)
        alpha.qmgr.settle(ref, record, (NEVER,))
        ref, record = await taken(alpha, "local:0")
        assert record.reverse_path == ""
        assert record.recipients == (US,)
        assert alpha.spool.waiting == 1
        alpha.qmgr.settle(ref, record, (NEVER,))
        assert alpha.spool.waiting == 0
        assert (alpha.qmgr.bounced, alpha.qmgr.dropped) == (1, 1)


async def test_without_room_for_the_bounce_all_stays(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "a@x", reverse_path=US)
        ref, record = await taken(alpha)
        monkeypatch.setattr(alpha.spool, "accept", lambda _, done: done(None))
        alpha.qmgr.settle(ref, record, (NEVER,))
        assert alpha.spool.waiting == 1
        assert (alpha.qmgr.bounced, alpha.qmgr.dropped) == (0, 0)
        assert (await deferred(alpha))[0] == ref


class Age:
    """The running time that the spool tells, as the test sets it."""

    seconds = 0


@pytest.fixture
def age(monkeypatch: pytest.MonkeyPatch) -> Age:
    told = Age()
    monkeypatch.setattr(Spool, "running_seconds", property(lambda _: told.seconds))
    return told


async def test_giving_up_needs_five_days_and_twenty_attempts(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, age: Age
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "a@x", reverse_path=US)
        ref, record = await taken(alpha)
        for _ in range(2 * ATTEMPTS_MIN):
            alpha.qmgr.settle(ref, record, (NO_ROOM,))
        age.seconds = GIVE_UP_SECONDS - 1
        alpha.qmgr.settle(ref, record, (NO_ROOM,))
        assert alpha.qmgr.bounced == 0
        assert len(alpha.qmgr._deferred) == 2 * ATTEMPTS_MIN + 1
        age.seconds += 1
        alpha.qmgr._deferred.clear()
        alpha.qmgr.settle(ref, record, (NO_ROOM,))
        await until(lambda: alpha.qmgr.bounced)
        assert b"given up after 5 days" in (await arrived(alpha, 1))[0]


async def test_old_mail_with_few_attempts_is_tried_on(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, age: Age
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "a@x", "b@x", reverse_path=US)
        ref, record = await taken(alpha)
        age.seconds = 6 * DAY
        for _ in range(ATTEMPTS_MIN - 2):
            alpha.qmgr.settle(ref, record, (NO_ROOM, NO_ROOM))
        alpha.qmgr._deferred.clear()
        # What is left of it has had its attempts too.
        alpha.qmgr.settle(ref, record, (OK, NO_ROOM))
        ref, record, _ = await deferred(alpha)
        assert record.recipients == ("b@x",)
        assert alpha.qmgr.bounced == 0
        alpha.qmgr.settle(ref, record, (NO_ROOM,))
        await until(lambda: alpha.qmgr.bounced)


async def test_outside_is_tried_less_often(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "a@x")
        ref, record = await taken(alpha)
        for patience_, attempt in ((OUTSIDE, 1), (INSIDE, 2)):
            alpha.qmgr.settle(ref, record, (NO_ROOM,), patience_)
            again, _, wait = await deferred(alpha)
            assert again == ref
            assert 0.74 <= wait / patience_.first / attempt <= 1.25


@pytest.mark.parametrize(("recipient", "place"), [("p@b", "b"), ("no@where", UNROUTED)])
async def test_what_waits_for_no_link_is_given_up(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    age: Age,
    monkeypatch: pytest.MonkeyPatch,
    recipient: str,
    place: str,
) -> None:
    monkeypatch.setattr(qmgr, "SWEEP_SECONDS", 10.0)
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", recipient, reverse_path=US)
        age.seconds = DAY
        alpha.submit(b"y", recipient, reverse_path=US)
        alpha.submit(b"outside", "a@x")
        await until(lambda: alpha.spool.waiting == 3)
        ready = alpha.qmgr.queue(place).ready
        age.seconds = GIVE_UP_SECONDS - 1
        await alpha.qmgr._sweep()
        assert not alpha.qmgr._waiting.attempts
        age.seconds = GIVE_UP_SECONDS
        alpha.qmgr._waiting.attempts[ready[0]] = ATTEMPTS_MIN - 2
        await alpha.qmgr._sweep()
        assert len(ready) == 2
        await until(lambda: alpha.qmgr.bounced)
        assert len(ready) == 1
        assert len(ready) == 1
        assert len(alpha.qmgr.pool) == 1
        assert alpha.qmgr.bounced == 1
        assert NOBODY.text.encode() in (await arrived(alpha, 1))[0]
        [left] = await alpha.spool.read(list(ready))
        assert left is not None
        assert left.content == b"y"
        assert 7 * DAY > GIVE_UP_SECONDS + (ATTEMPTS_MIN + 1) * SWEEP_SECONDS


async def test_a_long_queue_is_swept_whole_and_stays_in_order(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, age: Age
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        for number in range(150):
            alpha.submit(b"%d" % number, "p@b")
        await until(lambda: alpha.spool.waiting == 150)
        before = list(alpha.qmgr.queue("b").ready)
        age.seconds = GIVE_UP_SECONDS
        for _ in range(ATTEMPTS_MIN - 1):
            await alpha.qmgr._sweep()
            assert list(alpha.qmgr.queue("b").ready) == before
        await alpha.qmgr._sweep()
        assert alpha.spool.waiting == 0
        assert alpha.qmgr.dropped == 150


async def test_a_damaged_record_is_swept_out(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with half(tmp_path, "alpha", ROUTES) as alpha:
        alpha.submit(b"x", "p@b")
        await until(lambda: alpha.qmgr.queue("b").ready)

        async def damaged(refs: Sequence[Ref]) -> list[None]:
            return [None] * len(refs)

        monkeypatch.setattr(alpha.spool, "heads", damaged)
        await alpha.qmgr._sweep()
        assert not alpha.qmgr.queue("b").ready


async def test_places_outside(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with half(tmp_path, "alpha", dict(ROUTES)) as alpha:
        assert alpha.qmgr.exits() == []
        alpha.submit(b"x", "a@x", "p@b")
        await until(lambda: alpha.spool.waiting == 2)
        alpha.tick()
        assert alpha.qmgr.exits() == ["exit:x"]
        # A node that comes to serve the address gets what waits for port 25.
        alpha.routes["a@x"] = "b"
        alpha.qmgr.reroute(lambda _: True, changed=False)
        await trio.sleep(1)
        assert alpha.qmgr.exits() == ["exit:x"]
        alpha.qmgr.reroute(lambda _: True, changed=True)
        await until(lambda: len(alpha.qmgr.queue("b").ready) == 2)
        assert alpha.qmgr.exits() == []
        assert "exit:x" not in alpha.qmgr.queues


async def test_a_maildir_that_cannot_be_written_defers(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    (tmp_path / "Maildir").write_text("no folder")
    async with half(tmp_path, "alpha", ROUTES) as alpha, trio.open_nursery() as nursery:
        delivery = MaildirDelivery(
            maildir=tmp_path / "Maildir",
            destination="local:0",
            qmgr=alpha.qmgr,
            name_of=bytes.hex,
        )
        nursery.start_soon(delivery.run)
        alpha.submit(b"x", US)
        await until(lambda: alpha.qmgr._deferred)
        (tmp_path / "Maildir").unlink()
        await until(lambda: not alpha.spool.waiting)
        assert len(list((tmp_path / "Maildir/new").iterdir())) == 1
        nursery.cancel_scope.cancel()
