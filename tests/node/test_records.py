# SPDX-License-Identifier: MIT
"""A worker gets what waits in order, from memory or from the disk, and loses nothing."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.node import records
from mesh.node.records import Records
from mesh.node.spool import Ref
from tests.harness import Half, Patience, half, until


async def filled(alpha: Half, count: int) -> Records:
    for number in range(count):
        alpha.submit(b"%d" % number, "mix@a")
    await until(lambda: alpha.spool.waiting == count)
    return Records(alpha.qmgr, alpha.qmgr.queue("local:0"))


def cool(alpha: Half) -> None:
    """Let the spool's memory forget what waits."""
    for ref in alpha.qmgr.queue("local:0").ready:
        alpha.spool._hot.drop(ref)


@pytest.mark.parametrize("cold", [True, False])
async def test_the_oldest_first(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, cold: bool
) -> None:
    async with half(tmp_path, "alpha", {"mix@a": "local:0"}) as alpha:
        waiting = await filled(alpha, 5)
        if cold:
            cool(alpha)
        assert waiting
        first = await waiting.take(3)
        assert [record.content for _, record in first] == [b"0", b"1", b"2"]
        assert [r.content for _, r in await waiting.take(9)] == [b"3", b"4"]
        assert not waiting
        assert await waiting.take(1) == []


async def test_a_group_is_of_bounded_length(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "GROUP_LEN_MAX", 2)
    async with half(tmp_path, "alpha", {"mix@a": "local:0"}) as alpha:
        waiting = await filled(alpha, 5)
        assert len(await waiting.take(5)) == 2


async def test_what_is_damaged_is_passed_over(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with half(tmp_path, "alpha", {"mix@a": "local:0"}) as alpha:
        waiting = await filled(alpha, 2)
        cool(alpha)

        async def damaged(refs: list[Ref]) -> list[None]:
            return [None] * len(refs)

        monkeypatch.setattr(alpha.spool, "read", damaged)
        assert await waiting.take(2) == []
        assert not waiting


async def test_who_is_cancelled_puts_all_back_in_order(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with half(tmp_path, "alpha", {"mix@a": "local:0"}) as alpha:
        waiting = await filled(alpha, 4)
        ready = alpha.qmgr.queue("local:0").ready
        before = list(ready)
        alpha.spool._hot.drop(before[2])

        async def never(refs: list[Ref]) -> list[None]:
            await trio.sleep_forever()

        monkeypatch.setattr(alpha.spool, "read", never)
        with trio.move_on_after(1):
            await waiting.take(4)
        assert list(ready) == before


async def test_what_is_put_back_outside_is_still_in_a_queue(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with half(tmp_path, "alpha", {"who@x": "exit:x"}) as alpha:
        ready = alpha.qmgr.queue("exit:x").ready
        alpha.submit(b"x", "who@x")
        await until(lambda: len(alpha.qmgr.pool))
        for _ in alpha.qmgr.depart():
            pass
        [ref] = ready
        alpha.spool._hot.drop(ref)

        async def slow(refs: list[Ref]) -> None:
            assert alpha.qmgr.exits() == []  # a tick, while the disk is read
            await trio.sleep_forever()

        monkeypatch.setattr(alpha.spool, "read", slow)
        with trio.move_on_after(1):
            await Records(alpha.qmgr, alpha.qmgr.queue("exit:x")).take(4)
        assert alpha.qmgr.exits() == ["exit:x"]
        assert list(alpha.qmgr.queue("exit:x").ready) == [ref]
        ready.clear()
        assert alpha.qmgr.exits() == []
        assert "exit:x" not in alpha.qmgr.queues
