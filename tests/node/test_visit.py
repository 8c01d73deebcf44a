# SPDX-License-Identifier: MIT
"""What one visit carries, and where each record is whatever happens."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from mesh.core.reply import Reply
from mesh.node import visit as module
from mesh.node.outbound import UNREACHED
from mesh.node.routing import REFUSED
from mesh.node.spool import Ref
from tests.harness import until
from tests.node.exits import EHLO, WHO, exit_node, gone, here, stored, tick_of, visit_of
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
            await until(lambda: alpha.qmgr.queue("exit:x.test").ready, 15)
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
        assert not alpha.qmgr.queue("exit:x.test").ready
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
        assert not alpha.qmgr.queue("exit:x.test").ready
        await visit.take()
        await visit.take()
        visit.end()
        await until(lambda: len(alpha.qmgr.queue("exit:x.test").ready) == 4, 15)
        assert await alpha.arrived("exit:x.test") == [b"%d\r\n" % n for n in range(4)]


async def test_what_is_under_way_when_the_node_ends_is_found_again(
    tmp_path: Path,
) -> None:
    with scripted(b"220 x\r\n" + EHLO) as port:
        async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, outbound):
            await stored(alpha, b"x\r\n", WHO)
            await until(lambda: outbound._turns.visited, 15)
            await until(lambda: not alpha.qmgr.queue("exit:x.test").ready, 15)
    async with exit_node(tmp_path, {}, tick=3600.0) as (alpha, _):
        assert len(alpha.qmgr.queue("exit:x.test").ready) == 1
