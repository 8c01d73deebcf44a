# SPDX-License-Identifier: MIT
"""What leaves by port 25 goes through the pool: mixed, once, and after a crash not early."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.control import Ask
from mesh.core.pool import Manner
from mesh.core.reply import Reply
from tests.harness import Patience, until
from tests.node.exits import (
    WHO,
    exit_node,
    gone,
    here,
    stored,
    tick_of,
)
from tests.node.outside import mail_server, puppet
from tests.node.test_control import operated
from tests.node.test_outbound import tarpit

HALF = Manner(kind="timed", share=0.5)
NEVER = Manner(kind="timed", share=1e-9, max_delay=100.0)
HOUR = 3600.0


async def test_each_tick_lets_its_share_go(tmp_path: Path) -> None:
    left = []
    with mail_server() as server:
        places = {"x.test": here(server.port)}
        async with exit_node(tmp_path, places, tick=HOUR, manner=HALF) as (alpha, out):
            for number in range(32):
                alpha.submit(b"%d\r\n" % number, WHO)
            await gone(alpha, 32)
            while alpha.spool.waiting:
                await tick_of(out)
                left.append(alpha.spool.waiting)
    assert left[:5] == [16, 8, 4, 2, 1]
    contents = [letter.content for letter in server.letters]
    assert sorted(contents) == sorted(b"%d\r\n" % number for number in range(32))
    assert contents[:16] != sorted(contents[:16], key=int)  # nor in the order they came


async def test_deferred_mail_goes_back_into_the_pool(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    places = {"x.test": Reply(451, "later")}
    manner = Manner(kind="timed", share=1.0)
    async with exit_node(tmp_path, places, tick=HOUR * 100, manner=manner) as (
        alpha,
        outbound,
    ):
        for _ in range(4):
            await stored(alpha, b"x\r\n", WHO)
        assert len(alpha.qmgr.pool) == 4
        await tick_of(outbound)
        assert (len(alpha.qmgr.pool), alpha.qmgr.deferred) == (0, 4)
        await until(lambda: len(alpha.qmgr.pool) == 4, 2 * HOUR)
        assert not alpha.qmgr.exits()


async def test_after_a_restart_it_begins_anew_and_nothing_is_early(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """A message's time in the pool counts from the start: later, never earlier."""
    del autojump_clock, patience
    async with exit_node(tmp_path, {}, tick=HOUR * 100, manner=NEVER) as (alpha, out):
        await stored(alpha, b"x\r\n", WHO)
        await trio.sleep(90)
        await tick_of(out)
        assert alpha.spool.waiting == 1
    places = {"x.test": Reply(550, "never")}
    async with exit_node(tmp_path, places, tick=HOUR * 100, manner=NEVER) as (
        alpha,
        out,
    ):
        await until(lambda: len(alpha.qmgr.pool) == 1)
        await trio.sleep(99)
        await tick_of(out)
        assert len(alpha.qmgr.pool) == 1
        await trio.sleep(2)
        await tick_of(out)
        assert len(alpha.qmgr.pool) == 0


async def test_a_change_of_peers_takes_nobodys_time_away(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """A peer who changes each minute could keep mail here for ever."""
    del autojump_clock, patience
    places = {"x.test": Reply(550, "never")}
    async with exit_node(tmp_path, places, tick=HOUR * 100, manner=NEVER) as (
        alpha,
        out,
    ):
        await stored(alpha, b"x\r\n", WHO)
        for _ in range(11):
            await trio.sleep(9)
            await tick_of(out)
            alpha.qmgr.reroute(lambda _: True, changed=True)
            await until(lambda: len(alpha.qmgr.pool) == 1)
        await trio.sleep(2)
        await tick_of(out)
        assert len(alpha.qmgr.pool) == 0


async def test_whom_a_peer_serves_now_does_not_leave_by_port_25(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with exit_node(tmp_path, {}, tick=HOUR * 100, manner=NEVER) as (alpha, _):
        await stored(alpha, b"x\r\n", WHO)
        assert len(alpha.qmgr.pool) == 1
        alpha.routes[WHO] = "bravo"
        alpha.qmgr.reroute(lambda _: True, changed=True)
        await until(lambda: alpha.qmgr.queue("bravo").ready)
        assert len(alpha.qmgr.pool) == 0
        assert not alpha.qmgr._waiting._since


async def test_too_small_a_crowd_is_held_and_a_flood_from_one_is_none(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    manner = Manner(kind="timed", share=1.0, max_delay=1000.0)
    places = {"x.test": Reply(550, "never")}
    async with exit_node(
        tmp_path, places, tick=HOUR * 100, manner=manner, min_entropy=2.0
    ) as (alpha, out):

        async def came(count: int, origin: bytes) -> None:
            waiting = len(alpha.qmgr.pool)
            for _ in range(count):
                alpha.submit(b"x\r\n", WHO, origin=origin)
            await until(lambda: len(alpha.qmgr.pool) == waiting + count)

        await came(3, b"a" * 16)
        await came(50, b"f" * 16)
        await tick_of(out)
        assert len(alpha.qmgr.pool) == 53  # without the flood they are three
        await came(1, b"b" * 16)
        await tick_of(out)
        assert len(alpha.qmgr.pool) == 0  # four are two bits
        await came(3, b"a" * 16)
        await trio.sleep(1001)
        await tick_of(out)
        assert len(alpha.qmgr.pool) == 0  # nobody is held for longer


@pytest.mark.parametrize("kind", ["timed", "binomial", "poisson"])
async def test_nobody_grows_older_in_an_alarm(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, kind: str
) -> None:
    """Or the first tick after it would flush the pool, and who ends it chooses when."""
    del autojump_clock, patience
    manner = Manner(kind=kind, share=0.5, delay=100.0, max_delay=1000.0)
    places = {"x.test": Reply(550, "never")}
    alarm = [True]
    async with exit_node(
        tmp_path, places, tick=HOUR * 100, manner=manner, is_alarmed=lambda: alarm[0]
    ) as (alpha, out):
        for _ in range(64):
            alpha.submit(b"x\r\n", WHO)
        await until(lambda: len(alpha.qmgr.pool) == 64)
        for _ in range(10):
            await trio.sleep(600)
            await tick_of(out)
        assert len(alpha.qmgr.pool) == 64
        alarm[0] = False
        await trio.sleep(50)
        await tick_of(out)
        assert 16 <= len(alpha.qmgr.pool) <= 56


async def test_a_visit_that_ended_early_does_not_mix_anew(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """What left the pool goes at its domain's next turn."""
    del autojump_clock, patience
    async with puppet(tarpit()) as tar:
        places = {"x.test": here(tar)}
        manner = Manner(kind="timed", share=1.0)
        async with exit_node(tmp_path, places, tick=10.0, manner=manner) as (alpha, _):
            for _ in range(3):
                await stored(alpha, b"x\r\n", WHO)
            await until(lambda: not len(alpha.qmgr.pool), 30)
            await trio.sleep(30)
            assert alpha.qmgr.deferred == 0


async def test_status_says_how_well_it_mixes(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path, manner=NEVER) as (operator, alpha, _, nursery):
        alpha.routes[WHO] = "exit:x.test"
        for origin in (b"a" * 16, b"a" * 16, b"b" * 16, b"b" * 16):
            alpha.submit(b"x\r\n", WHO, origin=origin)
        await until(lambda: len(alpha.qmgr.pool) == 4)
        nursery.start_soon(operator.control._tick_forever)
        await trio.sleep(1)
        said = "port 25: 2 bits of mixing, 1 without the largest source, 0 guaranteed"
        assert (await operator.ask(Ask.STATUS))["status"]["notices"] == [said]
