# SPDX-License-Identifier: MIT
"""Port 25 against real servers: names by DNS, routes, ticks and rests.

Real time, since the servers have threads of their own; ticks are short.
"""

from pathlib import Path

import pytest
import trio

from mesh.core.reply import Reply
from mesh.core.retry import OUTSIDE
from mesh.node import outbound as module
from mesh.node.mx import Lookup, Place
from mesh.node.outbound import UNREACHED
from tests.harness import until
from tests.node.exits import TICK, WHO, exit_node, gone, here, stored, tick_of
from tests.node.outside import converse, mail_server, name_server, puppet, scripted


async def test_dns_then_the_first_host_that_answers(tmp_path: Path) -> None:
    with mail_server(host="127.0.0.2") as server:
        zone = {
            ("x.test", "MX"): ["10 dead.test.", "20 mx.test."],
            ("dead.test", "A"): ["127.0.0.3"],
            ("mx.test", "A"): ["127.0.0.2"],
            ("null.test", "MX"): ["0 ."],
        }
        async with name_server(zone) as names:
            lookup = Lookup(
                name_servers=[names.address], port=server.port,
                own=lambda _: False, public=lambda _: True,
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
    assert [letter.content for letter in server.letters] == [
        b"%d\r\n" % number for number in range(30)
    ]
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
        sites = outbound._sites
        assert {site.failures for site in sites.values()} == {1}
        rests = sites["exit:x.test"].rests_until - trio.current_time()
        assert 0.7 * OUTSIDE.first < rests < 1.25 * OUTSIDE.first
        # What comes meanwhile waits for the end of the rest.
        await stored(alpha, b"x\r\n", WHO)
        await tick_of(outbound)
        assert len(alpha.qmgr._deferred) == 210
        assert len(alpha.qmgr.queue("exit:x.test").ready) == 1


async def test_quiet_domains_are_forgotten(tmp_path: Path) -> None:
    async with exit_node(tmp_path, {"x.test": UNREACHED}) as (alpha, outbound):
        await stored(alpha, b"x\r\n", WHO)
        await until(lambda: alpha.qmgr._deferred, 15)
        [site] = outbound._sites.values()
        site.rests_until = trio.current_time() - 3 * OUTSIDE.longest
        await until(lambda: not outbound._sites, 15)


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
            assert not outbound._sites
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
        assert heard == [b"first\r\n", b"second\r\n"]
        assert alpha.spool.waiting == 2
        await tick_of(outbound)
        assert heard[2:] == [b"2\r\n", b"1\r\n"]
        assert alpha.spool.waiting == 1


async def test_no_more_visits_than_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VISITS_MAX", 2)
    with scripted(b"", b"") as port:
        places = {f"{n}.test": here(port) for n in range(5)}
        async with exit_node(tmp_path, places) as (alpha, outbound):
            await stored(alpha, b"x\r\n", *(f"x@{n}.test" for n in range(5)))
            await until(lambda: sum(s.busy for s in outbound._sites.values()) == 2, 15)
            await trio.sleep(4 * TICK)
            assert sum(site.busy for site in outbound._sites.values()) == 2
