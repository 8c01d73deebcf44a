# SPDX-License-Identifier: MIT
"""What one visit carries, and where each record is whatever happens."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from mesh.core.record import Record
from mesh.core.reply import Reply
from mesh.node import visit as module
from mesh.node.mx import Place
from mesh.node.outbound import UNREACHED
from mesh.node.routing import REFUSED
from mesh.node.spool import Ref
from mesh.node.visit import Cargo
from tests.harness import until
from tests.node.exits import (
    EHLO,
    WHO,
    exit_node,
    gone,
    here,
    outside,
    stored,
    tick_of,
    visit_of,
)
from tests.node.outside import mail_server, scripted


async def test_a_session_takes_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MESSAGES_MAX", 3)
    with mail_server() as server:
        async with exit_node(tmp_path, {"x.test": here(server.port)}, tick=3600.0) as (
            alpha,
            outbound,
        ):
            for number in range(7):
                alpha.submit(b"%d\r\n" % number, WHO)
            await gone(alpha, 7)
            for left in (4, 1, 0):
                await tick_of(outbound)
                assert alpha.spool.waiting == left
    assert len(server.letters) == 7


async def test_whom_a_node_serves_by_now_is_not_sent_from_here(tmp_path: Path) -> None:
    with mail_server() as server:
        async with exit_node(tmp_path, {"x.test": here(server.port)}, tick=3600.0) as (
            alpha,
            outbound,
        ):
            await stored(alpha, b"x\r\n", WHO, "peer@x.test")
            alpha.routes["peer@x.test"] = "bravo"
            await tick_of(outbound)
            await until(lambda: outside(alpha), 15)
            await tick_of(outbound)
            assert alpha.spool.waiting == 1
            assert await alpha.arrived("bravo") == [b"x\r\n"]
    assert [letter.recipients for letter in server.letters] == [[WHO]]


async def test_who_wants_no_mail_by_now_gets_none(tmp_path: Path) -> None:
    with mail_server() as server:
        async with exit_node(
            tmp_path,
            {"x.test": here(server.port)},
            refuses=lambda to: to.startswith("no"),
        ) as (alpha, _):
            await stored(alpha, b"x\r\n", WHO, "no@x.test")
            await until(lambda: alpha.qmgr.bounced, 15)
            [(_, ref)] = alpha.qmgr._deferred
            [rest] = await alpha.spool.read([ref])
            assert rest is not None
            assert rest.recipients == (WHO,)
            assert REFUSED.text.encode() in (await alpha.arrived())[0]
    assert server.letters == []


async def test_a_damaged_record_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exit_node(tmp_path, {"x.test": UNREACHED}, tick=3600.0) as (
        alpha,
        _outbound,
    ):
        await stored(alpha, b"x\r\n", WHO)

        async def damaged(refs: list[int]) -> list[None]:
            return [None] * len(refs)

        monkeypatch.setattr(alpha.spool, "heads", damaged)
        await visit_of(alpha).fail_all(UNREACHED)
        assert not outside(alpha)
        assert not alpha.qmgr._deferred


async def test_a_failure_that_is_cut_short_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exit_node(tmp_path, {"x.test": UNREACHED}, tick=3600.0) as (alpha, _):
        for _ in range(70):
            alpha.submit(b"x\r\n", WHO)
        await gone(alpha, 70)
        heads = alpha.spool.heads

        async def slow_at_last(refs: Sequence[Ref]) -> object:
            if len(refs) < module.BATCH:
                scope.cancel()
                await trio.sleep_forever()
            return await heads(refs)

        monkeypatch.setattr(alpha.spool, "heads", slow_at_last)
        visit = visit_of(alpha)
        with trio.CancelScope() as scope:
            await visit.fail_all(UNREACHED)
        monkeypatch.undo()
        visit.end()
        assert alpha.qmgr.deferred == module.BATCH
        queue = alpha.qmgr.queue("exit:x.test")
        await until(lambda: len(queue.ready) == 70 - module.BATCH, 15)


async def test_who_is_served_elsewhere_by_now_does_not_fail_with_the_domain(
    tmp_path: Path,
) -> None:
    async with exit_node(tmp_path, {}, tick=3600.0) as (alpha, _):
        await stored(alpha, b"x\r\n", WHO, "peer@x.test")
        visit = visit_of(alpha)
        alpha.routes["peer@x.test"] = "bravo"
        await visit.fail_all(Reply(550, "5.1.2 no such domain"))
        await until(lambda: alpha.qmgr.deferred and alpha.qmgr.bounced, 15)
        assert alpha.qmgr.bounced == 1
        alpha.qmgr.lead_back(alpha.qmgr.take_deferred())
        await until(lambda: alpha.qmgr.queue("bravo").ready, 15)
        assert await alpha.arrived("bravo") == [b"x\r\n"]


async def test_what_was_not_sent_is_given_back_in_its_order(tmp_path: Path) -> None:
    async with exit_node(tmp_path, {"x.test": UNREACHED}, tick=3600.0) as (alpha, _):
        for number in range(4):
            await stored(alpha, b"%d\r\n" % number, WHO)
        visit = visit_of(alpha)
        assert not outside(alpha)
        order = list(visit._own)  # as the pool drew it
        await visit.take()
        await visit.take()
        visit.end()
        await until(lambda: outside(alpha) == 4, 15)
        assert list(alpha.qmgr.queue("exit:x.test").ready) == order


async def test_what_is_under_way_when_the_node_ends_is_found_again(
    tmp_path: Path,
) -> None:
    with scripted(b"220 x\r\n" + EHLO) as port:
        async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, outbound):
            await stored(alpha, b"x\r\n", WHO)
            await until(lambda: outbound._turns.visited, 15)
            await until(lambda: not outside(alpha), 15)
    async with exit_node(tmp_path, {}, tick=3600.0) as (alpha, _):
        assert outside(alpha) == 1


def small_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE_LEN", 1000)
    monkeypatch.setattr(module, "CARGO_MAX", 5000)


SMALL, LARGE, HUGE = b"x\r\n", b"x" * 2998 + b"\r\n", b"x" * 9998 + b"\r\n"


async def test_large_messages_wait_for_room_and_small_ones_pass_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else 64 of the greatest size are in memory at once, and twice."""
    small_hold(monkeypatch)
    async with exit_node(tmp_path, {}, tick=3600.0) as (alpha, _):
        for content in (LARGE, LARGE, SMALL, LARGE, SMALL):
            await stored(alpha, content, WHO)
        visit, reads = visit_of(alpha), 0
        taken = []
        while (found := await visit.take()) is not None:
            taken.append(found)
        assert [record.content for _, record in taken] == [LARGE, SMALL, SMALL]
        laden = [visit.is_laden]
        assert visit.cargo.refused
        visit.finished(taken[0][0], [Reply(250, "ok")])
        assert [*laden, visit.is_laden] == [True, False]
        visit.end()
        await until(lambda: outside(alpha) == 4, 15)
        assert await alpha.arrived("exit:x.test") == [SMALL, SMALL, LARGE, LARGE]

        # What is known to be too large is not read for nothing.
        hot = alpha.spool.hot

        def counting(ref: Ref) -> object:
            nonlocal reads
            reads += 1
            return hot(ref)

        monkeypatch.setattr(alpha.spool, "hot", counting)
        cargo = visit.cargo
        assert cargo.load(Ref(0), 4000)
        visit = visit_of(alpha, cargo)
        assert [await visit.take() is not None for _ in range(3)] == [True, True, False]
        assert reads == 2
        assert not visit.is_laden
        visit.end()
        await until(lambda: outside(alpha) == 4, 15)
        cargo.unload(4000)
        visit = visit_of(alpha, cargo)
        assert [await visit.take() is not None for _ in range(4)] == [True] * 3 + [
            False
        ]


async def test_a_message_larger_than_the_room_goes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_hold(monkeypatch)
    async with exit_node(tmp_path, {}, tick=3600.0) as (alpha, _):
        await stored(alpha, HUGE, WHO)
        visit = visit_of(alpha)
        found = await visit.take()
        assert found is not None
        await stored(alpha, LARGE, WHO)
        other = visit_of(alpha, visit.cargo)
        assert await other.take() is None
        other.end()
        visit.end()
        await until(lambda: outside(alpha) == 2, 15)
        again = visit_of(alpha, visit.cargo)
        assert await again.take() is not None


async def test_what_is_remembered_of_sizes_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KNOWN_MAX", 3)
    small_hold(monkeypatch)
    cargo = Cargo()
    assert cargo.load(Ref(0), 4000)
    for number in range(1, 9):
        assert not cargo.load(Ref(number), 4000)
        assert not cargo.has_room(Ref(number))
        assert len(cargo._known) <= 3


async def test_who_is_served_by_now_is_not_sent_from_here_however_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message was read before the connection was made."""
    small_hold(monkeypatch)
    async with exit_node(tmp_path, {}, tick=3600.0) as (alpha, _):
        await stored(alpha, LARGE, WHO)
        visit = visit_of(alpha)
        assert await visit.has_more()
        alpha.routes[WHO] = "bravo"
        assert await visit.take() is None
        assert visit.cargo.load(Ref(0), 5000)  # its room is free
        await until(lambda: alpha.qmgr.queue("bravo").ready, 15)


async def test_one_message_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading: list[int] = []
    async with exit_node(tmp_path, {}, tick=3600.0) as (alpha, _):
        cargo, visits = Cargo(), []
        for _ in range(4):
            await stored(alpha, b"x\r\n", WHO)
            visits.append(visit_of(alpha, cargo))
        read = alpha.spool.read

        async def slow(refs: Sequence[Ref]) -> list[Record | None]:
            reading.append(1)
            await trio.sleep(0.01)
            assert len(reading) == 1
            reading.pop()
            return await read(refs)

        monkeypatch.setattr(alpha.spool, "hot", lambda _: None)
        monkeypatch.setattr(alpha.spool, "read", slow)
        async with trio.open_nursery() as nursery:
            for visit in visits:
                nursery.start_soon(visit.take)
        assert [visit.flying for visit in visits] == [1] * 4


async def test_who_has_nothing_to_say_asks_nobody(tmp_path: Path) -> None:
    places: dict[str, list[Place] | Reply] = {}  # a look-up would be a KeyError
    async with exit_node(tmp_path, places, tick=3600.0, refuses=lambda _: True) as (
        alpha,
        outbound,
    ):
        await stored(alpha, b"x\r\n", WHO)
        await tick_of(outbound)
        await until(lambda: alpha.qmgr.bounced, 15)
        assert not outbound._turns.visited
