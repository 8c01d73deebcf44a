# SPDX-License-Identifier: MIT
"""Port 25 against real servers: names by DNS, sessions by aiosmtpd, TLS by trustme.

Real time, since the servers have threads of their own; ticks are short.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mesh.core.pool import Ticks
from mesh.core.reply import Reply
from mesh.core.retry import OUTSIDE
from mesh.core.smtp import Sender
from mesh.node import outbound as module
from mesh.node.mx import Lookup, Place
from mesh.node.outbound import UNREACHED, Outbound
from mesh.node.routing import REFUSED
from tests.harness import FixedEntropy, Half, half, until
from tests.node.outside import mail_server, name_server, scripted

US = "mix@alpha.test"
WHO = "who@x.test"
TICK = 0.05


class Routes(dict[str, str]):
    """Who is not a key goes outside, as long as there is a domain."""

    smarthost = False

    def get(self, address: str, default: object = None) -> str | None:  # type: ignore[override]
        domain = address.rpartition("@")[2]
        if address in self:
            return self[address]
        return ("exit:" if self.smarthost else f"exit:{domain}") if domain else None


@asynccontextmanager
async def exit_node(
    folder: Path,
    places: Mapping[str, list[Place] | Reply] | Lookup,
    *,
    tick: float = TICK,
    **options: object,
) -> AsyncIterator[tuple[Half, Outbound]]:
    async def of(domain: str) -> list[Place] | Reply:
        return (
            await places.places(domain)
            if isinstance(places, Lookup)
            else places[domain]
        )

    routes = Routes({US: "local:0"})
    routes.smarthost = bool(options.get("smarthost"))
    async with half(folder, "alpha", routes) as alpha, trio.open_nursery() as nursery:
        entropy = FixedEntropy()
        outbound = Outbound(
            qmgr=alpha.qmgr,
            places=of,
            ticks=Ticks(tick, entropy),
            entropy=entropy,
            helo="alpha.test",
            **options,  # type: ignore[arg-type]
        )
        nursery.start_soon(outbound.run)
        yield alpha, outbound
        nursery.cancel_scope.cancel()


def here(*ports: int) -> list[Place]:
    return [Place("mx.elsewhere.test", "127.0.0.1", port) for port in ports]


async def gone(alpha: Half, count: int = 0) -> None:
    """Wait until so many records are left."""
    await until(lambda: alpha.spool.waiting == count, 15)


async def stored(alpha: Half, content: bytes, *to: str, rp: str = US) -> None:
    replies = alpha.submit(content, *to, reverse_path=rp)
    await until(lambda: replies, 15)
    assert replies[0].code == 250


async def tick_of(outbound: Outbound) -> None:
    """One tick now, and the end of all that it began."""
    async with trio.open_nursery() as nursery:
        outbound._tick(nursery)


CONTENTS = [
    b"From: x\r\n\r\n.\r\n..\r\n.dot\r\n",
    b"\0\xff8-bit\r\n",
    b"long " * 100 + b"\r\n",
    b"no line end",
    b"." * 500 + b"\r\n" + b"x\r\n" * 40_000,
]


@pytest.mark.parametrize("tls", [True, False])
async def test_octets_leave_as_they_came_and_nothing_else(
    tmp_path: Path, tls: bool
) -> None:
    with mail_server(tls=tls) as server:
        async with exit_node(tmp_path, {"x.test": here(server.port)}) as (alpha, _):
            for content in CONTENTS:
                await stored(alpha, content, WHO, "too@x.test")
            await gone(alpha)
    whole = [c if c.endswith(b"\r\n") else c + b"\r\n" for c in CONTENTS]
    assert sorted(letter.content for letter in server.letters) == sorted(whole)
    for letter in server.letters:
        assert letter.encrypted is tls
        assert letter.helo == "alpha.test"
        assert letter.reverse_path == US
        assert letter.recipients == [WHO, "too@x.test"]


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1", "::1", "x" * 64 + ".test", "\\255.test", ".x", "a..b", "é"],
)
async def test_a_host_that_is_no_name_is_not_named(tmp_path: Path, host: str) -> None:
    with mail_server(tls=True) as server:
        places = {"x.test": [Place(host, "127.0.0.1", server.port)]}
        async with exit_node(tmp_path, places) as (alpha, _):
            await stored(alpha, b"x\r\n", WHO)
            await gone(alpha)
    assert [letter.encrypted for letter in server.letters] == [True]


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
        assert len(alpha.qmgr.exits()) == 5


EHLO = b"250-x\r\n250-PIPELINING\r\n250 SIZE\r\n"
BROKEN = {
    "no greeting": (None, 1),
    "refused": (b"554 go away\r\n", 1),
    "garbage": (b"hello\r\n", 1),
    "421 behind EHLO": (b"220 x\r\n" + EHLO + b"421 bye\r\n", 1),
    "injected": (b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 x\r\n", 1),
}


@pytest.mark.parametrize("said", BROKEN)
async def test_a_server_that_breaks_loses_nothing(tmp_path: Path, said: str) -> None:
    script, count = BROKEN[said]
    with scripted(script) as port:
        async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, outbound):
            await stored(alpha, b"x\r\n", WHO)
            await until(lambda: len(alpha.qmgr._deferred) == count, 15)
            [site] = outbound._sites.values()
            await until(lambda: site.failures == 1 and not site.busy, 15)
            assert alpha.spool.waiting == 1


async def test_a_handshake_that_fails_is_followed_by_clear(tmp_path: Path) -> None:
    offer = b"220 x\r\n250-x\r\n250 STARTTLS\r\n"

    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        heard: list[bytes] = []

        async def serve() -> None:
            for reply in (b"220 go\r\n", b"250 x\r\n"):
                connection, _ = await listener.accept()
                with connection:
                    await connection.send(offer[:7])
                    heard.append(await connection.recv(1000))
                    await connection.send(offer[7:])
                    heard.append(await connection.recv(1000))
                    await connection.send(reply)
                    heard.append(await connection.recv(1000))
                    await connection.send(b"no TLS at all\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, _):
                await stored(alpha, b"x\r\n", WHO)
                await until(lambda: len(heard) == 6, 15)
                await until(lambda: alpha.qmgr._deferred, 15)
    assert heard[1] == b"STARTTLS\r\n"
    assert heard[2].startswith(b"\x16\x03")
    assert heard[4].startswith(b"MAIL FROM:")


@pytest.mark.parametrize(
    ("limit", "script"),
    [
        ("CONNECT_SECONDS", b""),
        ("REPLY_SECONDS", b"220 x\r\n"),
        ("TLS_SECONDS", b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n"),
        ("VISIT_SECONDS", b"220 x\r\n"),
    ],
)
async def test_who_says_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, script: bytes
) -> None:
    monkeypatch.setattr(module, limit, 0.0 if limit == "CONNECT_SECONDS" else 0.3)
    if limit == "TLS_SECONDS":
        monkeypatch.setattr(Sender, "receive_data", _line_by_line)
    with scripted(script, None) as port:
        async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, outbound):
            await stored(alpha, b"x\r\n", WHO)
            await until(lambda: any(s.failures for s in outbound._sites.values()), 15)
            assert alpha.spool.waiting == 1


def _line_by_line(sender: Sender, data: bytes) -> None:
    """What a server that waits for each command would have sent."""
    for line in data.splitlines(keepends=True):
        sender._reader.receive_data(line)
        while (reply := sender._reader.next_reply()) is not None:
            sender._receive_reply_untrusted(reply)


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


async def test_parting_recipients_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exit_node(tmp_path, {"x.test": here(1)}, tick=3600.0) as (
        alpha,
        outbound,
    ):
        await stored(alpha, b"x\r\n", WHO)
        ref = alpha.qmgr.queue("exit:x.test").ready.popleft()
        record = alpha.spool.hot(ref)
        assert record is not None
        monkeypatch.setattr(alpha.spool, "accept", lambda _, done: done(None))
        outbound.divide(ref, record)
        assert [deferred for _, deferred in alpha.qmgr._deferred] == [ref]
        assert alpha.spool.waiting == 1


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
        outbound,
    ):
        await stored(alpha, b"x\r\n", WHO)

        async def damaged(refs: list[int]) -> list[None]:
            return [None] * len(refs)

        monkeypatch.setattr(alpha.spool, "heads", damaged)
        await outbound._fail_all("exit:x.test", UNREACHED)
        assert not alpha.qmgr.queue("exit:x.test").ready
        assert not alpha.qmgr._deferred


async def test_what_was_under_way_is_given_back_at_the_end(tmp_path: Path) -> None:
    with scripted(b"220 x\r\n" + EHLO) as port:
        async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, outbound):
            await stored(alpha, b"x\r\n", WHO)
            await until(lambda: outbound._sites, 15)
            await until(lambda: not alpha.qmgr.queue("exit:x.test").ready, 15)
    assert len(alpha.qmgr.queue("exit:x.test").ready) == 1
