# SPDX-License-Identifier: MIT
"""Port 25 against real servers: names by DNS, routes, ticks and rests.

Real time, since the servers have threads of their own; ticks are short.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mesh.core.reply import Reply
from mesh.core.retry import OUTSIDE
from mesh.core.turns import CUT_SECONDS, NETWORK_MAX, VISITS_MAX
from mesh.node import visit
from mesh.node.mx import Lookup, Place
from mesh.node.outbound import UNREACHED
from mesh.node.resolver import Resolver
from mesh.node.session import REPLY_SECONDS
from mesh.node.visit import PROGRESS_SECONDS, VISIT_SECONDS
from tests.harness import FixedEntropy, until
from tests.node.exits import WHO, exit_node, gone, here, stored, tick_of
from tests.node.outside import converse, mail_server, name_server, puppet


async def test_dns_then_the_first_host_that_answers(tmp_path: Path) -> None:
    with mail_server(host="127.0.0.2") as server:
        zone = {
            ("x.test", "MX"): ["10 dead.test.", "20 mx.test."],
            ("dead.test", "A"): ["127.0.0.3"],
            ("mx.test", "A"): ["127.0.0.2"],
            ("null.test", "MX"): ["0 ."],
        }
        async with name_server(zone) as names:
            entropy = FixedEntropy()
            lookup = Lookup(
                Resolver(entropy, servers=[names.address]), entropy,
                port=server.port, own=lambda _: False, public=lambda _: True,
            )  # fmt: skip
            async with exit_node(tmp_path, lookup) as (alpha, _):
                await stored(alpha, b"x\r\n", WHO, "a@null.test", "b@none.test")
                await until(lambda: alpha.qmgr.bounced == 2, 15)
                await gone(alpha, 2)
                bounces = b"".join(await alpha.arrived())
    assert [letter.recipients for letter in server.letters] == [[WHO]]
    assert b"rfc822; a@null.test\r\nAction: failed\r\nStatus: 5.1.10" in bounces
    assert b"rfc822; b@none.test\r\nAction: failed\r\nStatus: 5.1.2" in bounces


async def test_one_session_for_what_waits_for_a_domain(tmp_path: Path) -> None:
    with mail_server() as server:
        async with exit_node(tmp_path, {"x.test": here(server.port)}, tick=3600.0) as (
            alpha,
            outbound,
        ):
            for number in range(30):
                alpha.submit(b"%d\r\n" % number, WHO)
            await gone(alpha, 30)
            await tick_of(outbound)
            assert not alpha.spool.waiting
    assert sorted(letter.content for letter in server.letters) == sorted(
        b"%d\r\n" % number for number in range(30)
    )
    assert len({letter.session for letter in server.letters}) == 1


async def test_each_reply_has_its_consequence(tmp_path: Path) -> None:
    replies = {
        "never@x.test": "550 5.1.1 no such user",
        "later@x.test": "450 greylisted",
    }
    with mail_server(replies) as server:
        async with exit_node(tmp_path, {"x.test": here(server.port)}) as (alpha, _):
            await stored(alpha, b"x\r\n", "never@x.test", "later@x.test", WHO)
            await until(lambda: alpha.qmgr._deferred and alpha.qmgr.bounced, 15)
            [(due, _ref)] = alpha.qmgr._deferred
            wait = due - trio.current_time()
            assert 0.7 * OUTSIDE.first < wait < 1.25 * OUTSIDE.first
            assert b"5.1.1 no such user" in (await alpha.arrived())[0]
    assert [letter.recipients for letter in server.letters] == [[WHO]]


async def test_a_refused_content_bounces(tmp_path: Path) -> None:
    with mail_server({"data": "554 5.7.1 spam"}) as server:
        async with exit_node(tmp_path, {"x.test": here(server.port)}) as (alpha, _):
            await stored(alpha, b"x\r\n", WHO, rp="")
            await gone(alpha)
            assert (alpha.qmgr.bounced, alpha.qmgr.dropped) == (0, 1)
    assert server.letters == []


async def test_nobody_there_defers_all_and_the_domain_rests(tmp_path: Path) -> None:
    places: dict[str, list[Place] | Reply] = {
        "x.test": here(1, 1),
        "y.test": UNREACHED,
        "z.test": here(),
    }
    async with exit_node(tmp_path, places, tick=3600.0) as (alpha, outbound):
        for domain in ("x", "y", "z"):
            for number in range(70):
                alpha.submit(b"%d\r\n" % number, f"who@{domain}.test")
        await gone(alpha, 210)
        await tick_of(outbound)
        assert len(alpha.qmgr._deferred) == 210
        domains = outbound._turns._domains
        assert {domain.failures for domain in domains.values()} == {1}
        rests = domains["exit:x.test"].rests_until - trio.current_time()
        assert 0.7 * OUTSIDE.first < rests < 1.25 * OUTSIDE.first
        # What comes meanwhile waits for the end of the rest.
        await stored(alpha, b"x\r\n", WHO)
        await tick_of(outbound)
        assert len(alpha.qmgr._deferred) == 210
        assert len(alpha.qmgr.queue("exit:x.test").ready) == 1


async def test_a_smarthost_takes_all_but_the_fixed_routes(tmp_path: Path) -> None:
    with mail_server() as smart, mail_server() as fixed:
        async with exit_node(
            tmp_path,
            {},
            smarthost=f"localhost:{smart.port}",
        ) as (alpha, outbound):
            outbound._routes["fixed.test"] = f"127.0.0.1:{fixed.port}"
            alpha.routes["a@fixed.test"] = "exit:fixed.test"
            await stored(alpha, b"x\r\n", WHO, "a@y.test", "a@fixed.test")
            await gone(alpha)
    assert [letter.recipients for letter in smart.letters] == [[WHO, "a@y.test"]]
    assert [letter.recipients for letter in fixed.letters] == [["a@fixed.test"]]


async def test_work_begins_on_ticks_only(tmp_path: Path) -> None:
    with mail_server() as server:
        async with exit_node(tmp_path, {"x.test": here(server.port)}, tick=3600.0) as (
            alpha,
            outbound,
        ):
            await stored(alpha, b"x\r\n", WHO)
            await trio.sleep(0.3)
            assert not outbound._turns.known
            assert not server.letters
            await tick_of(outbound)
            assert len(server.letters) == 1


async def test_a_visit_takes_nothing_that_came_after_its_tick(tmp_path: Path) -> None:
    """Else a message would choose the instant at which it leaves."""
    rounds = [b"0\r\n", b"1\r\n", b"2\r\n"]

    async def hear(stream: trio.SocketStream) -> None:
        async def said(verb: str, _line: bytes) -> bytes | None:
            if verb == "." and rounds:
                await stored(alpha, rounds.pop(), WHO)
            return b""

        heard.extend(await converse(stream, said))

    heard: list[bytes] = []
    async with (
        puppet(hear) as port,
        exit_node(tmp_path, {"x.test": here(port)}, tick=3600.0) as (alpha, outbound),
    ):
        await stored(alpha, b"first\r\n", WHO)
        await stored(alpha, b"second\r\n", WHO)
        await tick_of(outbound)
        assert sorted(heard) == [b"first\r\n", b"second\r\n"]
        assert alpha.spool.waiting == 2
        await tick_of(outbound)
        assert sorted(heard[2:]) == [b"1\r\n", b"2\r\n"]
        assert alpha.spool.waiting == 1


def tarpit(seconds: float = float("inf")) -> Callable[[trio.SocketStream], Any]:
    """A server that greets after so long, and whose every reply takes as long."""

    async def serve(stream: trio.SocketStream) -> None:
        async def said(_verb: str, _line: bytes) -> bytes:
            await trio.sleep(seconds)
            return b""

        await converse(stream, said)

    return serve


@pytest.mark.parametrize(
    ("answered", "reply", "deferred"),
    [(0, b"", 4), (1, b"250 ok\r\n", 1), (1, b"451 later\r\n", 2)],
)
async def test_a_session_that_breaks_before_any_answer_counts_for_all_that_wait(
    tmp_path: Path, answered: int, reply: bytes, deferred: int
) -> None:
    """Else what lies behind would wait for ever, and never be given up."""
    finished: list[bytes] = []

    async def breaks(stream: trio.SocketStream) -> None:
        async def said(verb: str, line: bytes) -> bytes | None:
            if verb == ".":
                finished.append(line)
                return reply
            return None if verb == "RCPT" and len(finished) == answered else b""

        await converse(stream, said)

    async with (
        puppet(breaks) as port,
        exit_node(tmp_path, {"x.test": here(port)}, tick=3600.0) as (alpha, outbound),
    ):
        for _ in range(4):
            await stored(alpha, b"x\r\n", WHO)
        await tick_of(outbound)
        assert len(finished) == answered
        assert alpha.qmgr.deferred == deferred


async def test_a_place_that_answered_and_broke_off_is_the_last_one(
    tmp_path: Path,
) -> None:
    """It has had enough for now; the backup is for when it is not there."""
    calls: list[str] = []

    async def breaks(stream: trio.SocketStream) -> None:
        async def said(verb: str, _line: bytes) -> bytes | None:
            calls.append(verb)
            return b"421 enough\r\n" if calls.count("MAIL") == 2 else b""

        await converse(stream, said)

    async def backup(_: trio.SocketStream) -> None:
        calls.append("backup")

    async with (
        puppet(breaks) as port,
        puppet(backup) as other,
        exit_node(tmp_path, {"x.test": here(port, other)}, tick=3600.0) as (
            alpha,
            outbound,
        ),
    ):
        for _ in range(3):
            await stored(alpha, b"x\r\n", WHO)
        await tick_of(outbound)
        assert (alpha.spool.waiting, alpha.qmgr.deferred) == (2, 1)
        assert "backup" not in calls


async def test_who_carries_something_large_gives_way_in_the_end(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tarpit does not keep the room of others' large messages, nor small mail's way."""
    monkeypatch.setattr(visit, "LARGE_LEN", 1000)
    monkeypatch.setattr(visit, "CARGO_MAX", 5000)
    large = b"x" * 2998 + b"\r\n"
    async with puppet(tarpit()) as tar, puppet(tarpit(0.0)) as port:
        places = {"tar.test": here(tar), "s.test": here(tar), "x.test": here(port)}
        async with exit_node(tmp_path, places, tick=10.0) as (alpha, _):
            await stored(alpha, large, "who@tar.test")
            await stored(alpha, b"x\r\n", "who@s.test")
            await trio.sleep(15)
            await stored(alpha, large, WHO)
            await stored(alpha, b"x\r\n", WHO)
            await trio.sleep(15)
            assert alpha.spool.waiting == 3  # the small one has gone
            await trio.sleep(CUT_SECONDS)
            assert alpha.spool.waiting == 2
            assert alpha.qmgr.deferred == 1  # who carries nothing large stays


async def test_who_had_his_turn_makes_room_without_a_failure(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppet(tarpit(20.0)) as tar, puppet(tarpit(0.0)) as port:
        places = {f"{n}.test": here(tar) for n in range(NETWORK_MAX)}
        places["x.test"] = here(port)
        async with exit_node(tmp_path, places, tick=10.0) as (alpha, outbound):
            for domain in [*places][:-1]:
                for _ in range(4):
                    await stored(alpha, b"x\r\n", f"who@{domain}")
            await trio.sleep(15)
            assert outbound._turns.visited == NETWORK_MAX
            await stored(alpha, b"x\r\n", WHO)
            waiting = alpha.spool.waiting
            await until(lambda: alpha.spool.waiting < waiting, 160)
            assert not alpha.qmgr.deferred
            assert alpha.spool.waiting > NETWORK_MAX  # they had more to say
            await until(lambda: not alpha.spool.waiting, 1000)


async def test_one_network_has_a_share_of_the_visits(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """So a tarpit with many domains leaves room for all others."""
    async with puppet(tarpit()) as tar, puppet(tarpit(0.0), "127.0.1.1") as port:
        places = {f"{n}.test": here(tar) for n in range(VISITS_MAX + 10)}
        places["x.test"] = [Place("mx.x.test", "127.0.1.1", port)]
        async with exit_node(tmp_path, places, tick=10.0) as (alpha, outbound):
            for n in range(VISITS_MAX + 10):
                await stored(alpha, b"x\r\n", f"who@{n}.test")
            await trio.sleep(25)
            assert outbound._turns.visited == NETWORK_MAX
            await stored(alpha, b"x\r\n", WHO)
            await trio.sleep(15)
            assert alpha.spool.waiting == VISITS_MAX + 10
            assert not alpha.qmgr.deferred


async def test_a_tarpit_gives_way_to_those_in_line(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """However many addresses it has."""
    count = VISITS_MAX + 1
    hosts = [f"127.0.{n}.1" for n in range(1, count + 1)]
    async with puppet(tarpit(), *hosts) as tar, puppet(tarpit(0.0)) as port:
        places = {
            f"{n}.test": [Place("tar", host, tar)] for n, host in enumerate(hosts)
        }
        places["x.test"] = here(port)
        async with exit_node(tmp_path, places, tick=10.0) as (alpha, outbound):
            for domain in [*places][:-1]:
                await stored(alpha, b"x\r\n", f"who@{domain}")
            await trio.sleep(20)
            assert outbound._turns.visited == VISITS_MAX
            await stored(alpha, b"x\r\n", WHO)
            began = trio.current_time()
            await until(lambda: alpha.spool.waiting == count, 2 * CUT_SECONDS)
            assert CUT_SECONDS / 2 < trio.current_time() - began < CUT_SECONDS + 30
            assert 1 <= alpha.qmgr.deferred <= 3  # as many as were in the way


@pytest.mark.parametrize(
    ("seconds", "lasts"),
    [
        (float("inf"), REPLY_SECONDS),  # never says anything
        (500.0, PROGRESS_SECONDS),  # in time for each reply, never for a message
    ],
)
async def test_a_visit_without_progress_ends_and_counts_for_all_that_wait(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    seconds: float,
    lasts: float,
) -> None:
    async with (
        puppet(tarpit(seconds)) as port,
        exit_node(tmp_path, {"x.test": here(port)}, tick=10.0) as (alpha, outbound),
    ):
        for _ in range(3):
            await stored(alpha, b"x\r\n", WHO)
        await trio.sleep(lasts + 30)
        assert alpha.qmgr.deferred == 3
        assert not outbound._turns.visited


async def test_a_slow_server_that_goes_on_has_its_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        puppet(tarpit(150.0)) as port,
        exit_node(tmp_path, {"x.test": here(port)}, tick=10.0) as (alpha, _),
    ):
        for _ in range(20):
            await stored(alpha, b"x\r\n", WHO)
        await trio.sleep(VISIT_SECONDS + 30)
        assert alpha.spool.waiting == 20 - (VISIT_SECONDS - 300) // 600
        # What was under way has failed; what had no turn has not.
        assert alpha.qmgr.deferred == 1
