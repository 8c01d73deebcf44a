# SPDX-License-Identifier: MIT
"""What the clock asks of the spool: growth, running time, the hourly key."""

import errno
from pathlib import Path

import pytest

from mesh.errors import SpoolFullError
from mesh.node import restore
from mesh.node.groups import Groups
from mesh.node.spool import Spool
from tests.node.spooling import (
    flushed,
    forgotten,
    message,
    offered,
    reopen,
    running,
    stored,
    waiting,
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(restore, "SLOTS_MIN", 64)
    monkeypatch.setattr("mesh.node.upkeep.FREE_MIN", 8)
    monkeypatch.setattr("mesh.node.upkeep.STEP_SLOTS", 32)
    return tmp_path / "spool"


async def test_running_time_goes_on_after_a_kill(path: Path) -> None:
    now = [1000.0]
    async with running(path, clock=lambda: now[0]) as spool:
        assert spool.running_seconds == 0
        now[0] += 599
        await flushed(spool)
        await flushed(spool)
        assert spool._arena.keys.running == 0
        now[0] += 1
        await flushed(spool)
        await flushed(spool)
        assert spool.running_seconds == 600
        killed = reopen_keys(path)
        now[0] += 50
    assert killed == 600
    again = reopen(path, clock=lambda: 5.0)
    assert again.running_seconds == 650
    again.close()


def reopen_keys(path: Path) -> int:
    """Read the running time that the key file has, beside the running spool."""
    from mesh.core.slot import KEYS_LEN, open_keys_untrusted
    from tests.node.spooling import spool_key

    box = (path / "arena.key").read_bytes()[:KEYS_LEN]
    return open_keys_untrusted(spool_key(), box).running


async def test_the_arena_gets_a_new_key_each_hour(path: Path) -> None:
    now = [0.0]
    async with running(path, clock=lambda: now[0]) as spool:
        (ref,) = await stored(spool, message(1))
        seen = [spool._arena.keys.current.copy()]
        for hour in (1, 2):
            now[0] = 3600.0 * hour
            for _ in range(3):
                await flushed(spool)
            assert spool._arena.keys.previous is None
            assert spool._arena.keys.current not in seen
            seen.append(spool._arena.keys.current.copy())
        assert spool._arena.is_held(ref & 0xFFFFFFFF, ref >> 32)
    assert waiting(path) == [1]


async def test_without_room_for_the_arena_messages_wait_outside(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    async with running(path) as spool:
        refs = await stored(spool, *(message(n) for n in range(60)))
        with monkeypatch.context() as patch:
            patch.setattr("mesh.node.copies.os.posix_fallocate", fail)
            assert await offered(spool, *(message(n) for n in range(60, 80))) is None
            assert spool._arena.capacity == 64
        # What is forgotten makes room for trying again.
        await forgotten(spool, *refs[:20])
        await stored(spool, *(message(n) for n in range(60, 80)))
    assert waiting(path) == list(range(20, 80))


async def test_two_that_wait_for_slots_are_both_served(path: Path) -> None:
    async with running(path) as spool:
        await stored(spool, *(message(n) for n in range(60)))
        heard: list[bool] = []
        for at in (60, 80):
            spool.accept(
                [message(n) for n in range(at, at + 20)],
                lambda refs: heard.append(refs is not None),
            )
        assert await offered(spool, message(100)) is not None
        assert heard == [True, True]
    assert waiting(path) == list(range(101))


async def test_a_deletion_without_room_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SpoolFullError("full")

    async with running(path) as spool:
        refs = await stored(spool, message(1))
        with monkeypatch.context() as patch:
            patch.setattr(Groups, "delete", fail)
            patch.setattr(Groups, "checkpoint", fail)
            await forgotten(spool, *refs)
            await flushed(spool)
            await flushed(spool)
        assert rows(spool) == 1
        await flushed(spool)
        await flushed(spool)
        assert rows(spool) == 0


def rows(spool: Spool) -> int:
    return len(list(spool._groups.scan()))


async def test_a_checkpoint_that_fails_ends_the_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "gone")

    async def work() -> None:
        async with running(path) as spool:
            await stored(spool, message(1))
            monkeypatch.setattr(Groups, "checkpoint", fail)
            spool._tidying.checkpoint()
            await flushed(spool)
            await flushed(spool)

    with pytest.raises(ExceptionGroup):
        await work()
