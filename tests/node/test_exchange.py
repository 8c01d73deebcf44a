# SPDX-License-Identifier: MIT
"""Two exchanges, each on a spool of its own, joined by fake wires."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mesh.core.cell import (
    CELL_LEN,
    PADDING,
    STREAMS_MAX,
    BodyWriter,
    Kind,
    parse_untrusted,
)
from mesh.core.clock import Clock
from mesh.core.link import Link
from mesh.core.reply import NO_ROOM, NO_SUCH_RECIPIENT, OK
from mesh.core.smtp import Outgoing
from mesh.core.strand import hello_body
from mesh.errors import LocalProtocolError
from mesh.node import peer as peer_
from mesh.node.exchange import LIFE_SECONDS, Exchange
from mesh.node.pacing import BROKEN, CLOSED
from mesh.node.qmgr import STORED
from tests.harness import (
    Cable,
    FakeWire,
    FixedEntropy,
    Half,
    Patience,
    connect,
    half,
    inside,
    sessions,
    until,
    wire_pair,
)

HERE = "mix@bravo"
BACK = "@bravo:mix@alpha"


@asynccontextmanager
async def alpha_half(folder: Path, **routes: str) -> AsyncIterator[Half]:
    known = {HERE: "bravo", BACK: "bravo", "mix@alpha": "local:0"}
    async with half(folder, "alpha", known | routes) as made:
        yield made


@asynccontextmanager
async def bravo_half(folder: Path, **routes: str) -> AsyncIterator[Half]:
    known = {HERE: "local:0", "mix@alpha": "alpha", "mix@charlie": "charlie"}
    async with half(folder, "bravo", known | routes) as made:
        yield made


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Half, Half, trio.Nursery]]:
    """Alpha, bravo, and a nursery for links, which ends first."""
    async with (
        alpha_half(folder) as alpha,
        bravo_half(folder) as bravo,
        trio.open_nursery() as nursery,
    ):
        yield alpha, bravo, nursery
        nursery.cancel_scope.cancel()


class Stranger:
    """A listed peer of our own making: says what it likes in cells that open."""

    def __init__(
        self, nursery: trio.Nursery, bravo: Half, clock: Clock = Clock.GREEDY
    ) -> None:
        self.session, theirs = sessions("alpha", "bravo", clock=clock)
        self.wire, far = wire_pair()
        self.ended: list[str] = []
        nursery.start_soon(self._carry, bravo, theirs, far)
        self.wire.try_send(self.session.sealer.seal(hello_body()))

    async def _carry(self, bravo: Half, theirs: object, far: FakeWire) -> None:
        reason = await bravo.exchange.run_link(theirs, far)  # type: ignore[arg-type]
        self.ended.append(reason)

    def say(self, octets: bytes, stream: int = 0) -> None:
        rest = octets
        while rest:
            writer = BodyWriter()
            part, rest = rest[: writer.space], rest[writer.space :]
            writer.add(Kind.COMMANDS, stream, part)
            self.wire.try_send(self.session.sealer.seal(writer.finish()))

    def reply(self, octets: bytes, stream: int) -> None:
        """Answer what came on one of their streams."""
        writer = BodyWriter()
        writer.add(Kind.REPLIES, stream, octets)
        self.wire.try_send(self.session.sealer.seal(writer.finish()))

    def heard(self, kind: Kind = Kind.REPLIES) -> bytes:
        """What came in segments of that kind, on any stream."""
        octets = b""
        while cell := self.wire.try_receive(CELL_LEN):
            body = self.session.opener.open_untrusted(cell)
            for segment in parse_untrusted(body):
                if segment.kind == kind:
                    octets += bytes(segment.octets)
        return octets


def codes(octets: bytes) -> list[int]:
    return [int(line[:3]) for line in octets.splitlines() if line[3:4] != b"-"]


def transaction(to: str, content: bytes, ident: str = "") -> bytes:
    mail = b"MAIL FROM:<>" + (f" ID={ident}".encode() if ident else b"")
    size = b"BDAT %d LAST" % len(content)
    return b"\r\n".join([mail, b"RCPT TO:<" + to.encode() + b">", size, content])


async def test_a_message_crosses_and_both_ends_forget(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        await connect(nursery, alpha, bravo)
        replies = alpha.submit(b"hello\r\n", HERE)
        await until(lambda: bravo.spool.waiting)
        assert replies == [STORED]
        assert bravo.spool.known_ids(alpha.identity[:16]) == 1
        await until(lambda: alpha.quiet)
        await until(lambda: not bravo.spool.known_ids(alpha.identity[:16]))
        assert await bravo.arrived() == [b"hello\r\n"]


async def test_what_is_done_is_said_again_when_the_link_ended_meanwhile(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        cable = await connect(nursery, alpha, bravo)
        alpha.submit(b"hello\r\n", HERE)
        port = alpha.exchange.peers["bravo"].ports[0]
        await until(lambda: alpha.quiet and not inside(port).flying)
        cable.near.held = True
        await until(lambda: inside(port).link.untold())  # on its way, and never there
        cable.cut()
        await until(lambda: not alpha.exchange.peers["bravo"].ports)
        await trio.sleep(5)
        assert bravo.spool.known_ids(alpha.identity[:16]) == 1
        await connect(nursery, alpha, bravo, counter=2)
        await until(lambda: not bravo.spool.known_ids(alpha.identity[:16]), seconds=30)


@pytest.mark.parametrize("clock", [Clock.GREEDY, Clock.SLOTTED])
async def test_ids_that_are_done_wait_for_no_mail_that_flies(
    tmp_path: Path, autojump_clock: MockClock, clock: Clock
) -> None:
    async with two(tmp_path) as (_, bravo, nursery):
        stranger = Stranger(nursery, bravo, clock)
        for _ in range(2):
            bravo.submit(b"hello\r\n", "mix@alpha")
        heard = bytearray()

        def hears(what: bytes) -> int:
            heard.extend(stranger.heard(Kind.COMMANDS))
            return heard.count(what)

        await until(lambda: hears(b"LAST") == 2)
        stranger.reply(b"220 alpha\r\n" + OK.encode() * 4, 0)
        await until(lambda: hears(b"DONE="))
        (port,) = bravo.exchange.peers["alpha"].ports
        assert len(inside(port).flying) == 1


async def test_a_greedy_link_has_no_cell_for_ids_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        await connect(nursery, alpha, bravo)
        (port,) = alpha.exchange.peers["bravo"].ports
        woken = 0

        def wake() -> None:
            nonlocal woken
            woken += 1

        await until(lambda: not port.has_data)  # its first words are said
        port.on_data = wake
        seen = []
        for port.session.clock in (Clock.GREEDY, Clock.SLOTTED, Clock.GREEDY):
            assert inside(port).tell_done(bytes(16))
            seen.append((port.has_data, woken))
        assert seen == [(False, 0), (True, 1), (False, 1)]  # others' leave anyway
        port.close()  # the node ends: they are in its last words
        assert woken == 2
        assert b"NOOP DONE=" in port.next_body()
        inside(port).end()
        assert not inside(port).tell_done(bytes(16))


async def test_what_is_on_its_way_to_one_peer_is_bounded_link_after_link(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_, "FLYING_MAX", 10_000)
    async with two(tmp_path) as (alpha, bravo, nursery):
        for number in range(10):
            alpha.submit(b"%d\r\n" % number * 1000, HERE)
        await until(lambda: alpha.spool.waiting == 10)
        peer = alpha.exchange.peer("bravo", bravo.identity)
        agreed = peer.agreed
        cable = Cable(*wire_pair())

        def then_hold(port: Any, link: Any) -> None:
            cable.near.held = True
            agreed(port, link)

        monkeypatch.setattr(peer, "agreed", then_hold)
        for counter in range(1, 5):
            cable = Cable(*wire_pair())
            await connect(nursery, alpha, bravo, counter=counter, cable=cable)
            await until(lambda: peer.up and inside(peer.ports[0]).flying)
            flying = [len(r.content) for r in inside(peer.ports[0]).flying.values()]
            assert flying == [3000] * 4  # the last one passes the bound
            cable.cut()
            await until(lambda: not peer.ports)
        monkeypatch.setattr(peer, "agreed", agreed)
        await connect(nursery, alpha, bravo, counter=9)
        await until(lambda: bravo.spool.waiting == 10)


async def test_no_room_is_deferred_and_tried_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        await connect(nursery, alpha, bravo)
        with monkeypatch.context() as full:
            full.setattr(peer_, "PER_PEER_MAX", 0)
            alpha.submit(b"hello\r\n", HERE)
            await trio.sleep(1)
        assert alpha.spool.waiting == 1
        assert not bravo.spool.waiting
        await until(lambda: bravo.spool.waiting, seconds=60)
        await until(lambda: alpha.quiet)


async def test_refused_for_ever_is_told_and_gone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        await connect(nursery, alpha, bravo)
        del bravo.routes[HERE]
        alpha.submit(b"hello\r\n", HERE)
        await until(lambda: not alpha.spool.waiting)
        assert not bravo.spool.waiting


async def test_too_many_ids_are_refused_for_now(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_, "PER_PEER_MAX", 1)
    async with two(tmp_path) as (_, bravo, nursery):
        peer = Stranger(nursery, bravo)
        peer.say(b"HELO alpha\r\n" + transaction(HERE, b"1\r\n", "11" * 16))
        await until(lambda: bravo.spool.waiting)
        await until(lambda: peer.heard().endswith(OK.encode()))
        peer.say(transaction(HERE, b"2\r\n", "22" * 16))
        await trio.sleep(1)
        assert peer.heard().endswith(OK.encode() + NO_ROOM.encode())
        peer.say(transaction(HERE, b"1\r\n", "11" * 16))  # a known one still is
        await trio.sleep(1)
        assert peer.heard().endswith(OK.encode())
        peer.say(b"NOOP DONE=" + b"11" * 16 + b"\r\n")
        peer.say(transaction(HERE, b"2\r\n", "22" * 16))
        await until(lambda: bravo.spool.waiting == 2)
        assert await bravo.arrived() == [b"1\r\n", b"2\r\n"]


async def test_without_an_id_each_copy_is_stored(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (_, bravo, nursery):
        peer = Stranger(nursery, bravo)
        peer.say(b"HELO alpha\r\n" + transaction(HERE, b"1\r\n") * 2)
        await until(lambda: bravo.spool.waiting == 2)
        await trio.sleep(2)
        assert codes(peer.heard()) == [220, 250] + [250] * 6


async def test_a_lost_link_s_messages_go_again_and_are_stored_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        cable = await connect(nursery, alpha, bravo)
        await trio.sleep(1)
        cable.far.held = True  # the replies do not come through
        alpha.submit(b"hello\r\n", HERE)
        await until(lambda: bravo.spool.waiting)
        assert alpha.spool.waiting == 1
        cable.cut()
        await until(lambda: cable.reasons)
        await connect(nursery, alpha, bravo, counter=2)
        await until(lambda: alpha.quiet)
        assert await bravo.arrived() == [b"hello\r\n"]


async def test_a_message_that_breaks_us_ends_one_link_and_the_others_go(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = Link.offer

    def breaks(link: Link, mail: Outgoing) -> None:
        if mail.content == b"poison\r\n":
            raise RuntimeError("planted")
        offer(link, mail)

    monkeypatch.setattr(Link, "offer", breaks)
    async with two(tmp_path) as (alpha, bravo, nursery):
        for content in (b"poison\r\n", b"hello\r\n"):
            alpha.submit(content, HERE)
        await until(lambda: alpha.spool.waiting == 2)
        cable = await connect(nursery, alpha, bravo)
        await until(lambda: cable.reasons)
        assert alpha.qmgr.guard.bugs == 1
        assert alpha.qmgr.deferred == 1  # tried, and tried again in a while
        await connect(nursery, alpha, bravo, counter=2)
        await until(lambda: bravo.spool.waiting)
        assert await bravo.arrived() == [b"hello\r\n"]
        monkeypatch.setattr(Link, "offer", offer)
        await until(lambda: alpha.quiet, 1e6)
        assert sorted(await bravo.arrived()) == [b"hello\r\n", b"poison\r\n"]


async def test_a_second_copy_waits_for_the_first_one_s_commit(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        cable = await connect(nursery, alpha, bravo)
        await trio.sleep(1)
        with patience.slow_disk(bravo.spool):
            alpha.submit(b"hello\r\n", HERE)
            await trio.sleep(1)
            cable.cut()
            await until(lambda: len(cable.reasons) == 2)
            await connect(nursery, alpha, bravo, counter=2)
            await trio.sleep(5)
            assert len(bravo.exchange.peers["alpha"]._pending) == 1
            assert alpha.spool.waiting == 1
            assert not bravo.spool.waiting
        await until(lambda: alpha.quiet)
        assert await bravo.arrived() == [b"hello\r\n"]


async def test_a_copy_after_the_receiver_s_restart_is_stored_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        async with bravo_half(tmp_path) as bravo, trio.open_nursery() as nursery:
            cable = await connect(nursery, alpha, bravo)
            await trio.sleep(1)
            cable.far.held = True
            alpha.submit(b"hello\r\n", HERE)
            await until(lambda: bravo.spool.waiting)
            nursery.cancel_scope.cancel()
        assert alpha.spool.waiting == 1
        async with bravo_half(tmp_path) as bravo, trio.open_nursery() as nursery:
            assert bravo.spool.waiting == 1
            await connect(nursery, alpha, bravo, counter=2)
            await until(lambda: alpha.quiet)
            assert await bravo.arrived() == [b"hello\r\n"]
            nursery.cancel_scope.cancel()


async def test_we_are_nobody_s_relay_but_to_the_peer_itself(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (_, bravo, nursery):
        peer = Stranger(nursery, bravo)
        peer.say(b"HELO alpha\r\nMAIL FROM:<>\r\n")
        peer.say(b"RCPT TO:<mix@charlie>\r\n")
        peer.say(b"RCPT TO:<@bravo:mix@charlie>\r\n")
        peer.say(b"RCPT TO:<mix@alpha>\r\n")
        peer.say(b"RCPT TO:<@other:mix@alpha>\r\n")
        peer.say(b"RCPT TO:<mix@nowhere>\r\n")
        await trio.sleep(1)
        heard = peer.heard()
        assert codes(heard) == [220, 250, 250] + [550] * 5
        assert heard.endswith(NO_SUCH_RECIPIENT.encode())
        peer.say(b"RCPT TO:<@bravo:mix@bravo>\r\nRCPT TO:<" + BACK.encode() + b">\r\n")
        await trio.sleep(1)
        assert codes(peer.heard()) == [250, 250]


async def test_mail_goes_out_and_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        await connect(nursery, alpha, bravo)
        alpha.submit(b"ping\r\n", BACK)
        await until(lambda: alpha.qmgr.queue("local:0").ready)
        assert await alpha.arrived() == [b"ping\r\n"]
        await until(lambda: bravo.quiet)


async def test_a_flood_while_a_message_is_committed_ends_the_link_only(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        peer = Stranger(nursery, bravo)
        await trio.sleep(1)
        with patience.slow_disk(bravo.spool):
            peer.say(b"HELO alpha\r\n" + transaction(HERE, b"1\r\n", "11" * 16))
            peer.say(b"NOOP\r\n" * 40_000)
            await trio.sleep(1)
        await until(lambda: peer.ended)
        await connect(nursery, alpha, bravo, counter=2)
        alpha.submit(b"2\r\n", HERE)
        await until(lambda: bravo.spool.waiting == 2)


async def test_what_no_honest_peer_says_ends_the_link(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (_, bravo, nursery):
        peer = Stranger(nursery, bravo)
        writer = BodyWriter()
        writer.add(Kind.REPLIES, 3, b"250 what\r\n")
        peer.wire.try_send(peer.session.sealer.seal(writer.finish()))
        await until(lambda: peer.ended)
        assert peer.ended == [BROKEN]


async def test_a_link_that_breaks_is_offered_nothing_while_it_ends(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(tmp_path) as (_, bravo, nursery):
        peer = Stranger(nursery, bravo)
        peer.wire.try_send(peer.session.sealer.seal(PADDING))
        for number in range(STREAMS_MAX + 1):
            bravo.submit(b"%d\r\n" % number, "mix@alpha")
        await until(lambda: bravo.spool.waiting == STREAMS_MAX + 1)
        theirs = bravo.exchange.peers["alpha"]
        ended = theirs.ended

        def late(port: Any) -> None:
            theirs.fill()  # as a commit does that ends just then
            ended(port)

        monkeypatch.setattr(theirs, "ended", late)
        writer = BodyWriter()
        writer.add(Kind.REPLIES, 0, b"421 ending\r\n")
        peer.wire.try_send(peer.session.sealer.seal(writer.finish()))
        await until(lambda: peer.ended)
        assert peer.ended == [BROKEN]
        assert len(bravo.qmgr.queue("alpha").ready) == STREAMS_MAX + 1


async def test_what_is_pipelined_behind_a_message_is_not_forgotten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (_, bravo, nursery):
        peer = Stranger(nursery, bravo)
        for number in range(3):
            octets = transaction(HERE, b"%d\r\n" % number, f"{number}" * 32)
            peer.say((b"" if number else b"HELO alpha\r\n") + octets)
        started = trio.current_time()
        await until(lambda: bravo.spool.waiting == 3)
        assert trio.current_time() - started < 1  # nothing waits for the next cell


@pytest.mark.parametrize("first", ["alpha", "bravo"])
async def test_of_two_links_both_ends_keep_the_same_one(
    tmp_path: Path, autojump_clock: MockClock, first: str
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        cables: dict[str, Cable] = {}
        for name in (first, "alpha" if first == "bravo" else "bravo"):
            near, far = (alpha, bravo) if name == "alpha" else (bravo, alpha)
            cables[name] = await connect(
                nursery, near, far, counter=len(cables) + 1, klass=3
            )
        await trio.sleep(10)
        assert sorted(cables["bravo"].reasons) == ["alpha", "bravo"]
        assert "replaced" in cables["bravo"].reasons.values()
        assert not cables["alpha"].reasons
        alpha.submit(b"still here\r\n", HERE)
        await until(lambda: bravo.spool.waiting)


async def test_messages_of_the_link_that_loses_go_over_the_other(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        loser = await connect(nursery, bravo, alpha)
        await trio.sleep(1)
        loser.near.held = True  # bravo's replies
        for number in range(40):
            alpha.submit(b"%d\r\n" % number, HERE)
        await until(lambda: bravo.spool.waiting)
        await trio.sleep(5)  # what is silent so long is not gone on from
        await connect(nursery, alpha, bravo, counter=2)
        await until(lambda: alpha.quiet)
        assert sorted(await bravo.arrived()) == sorted(b"%d\r\n" % n for n in range(40))


async def test_old_mail_is_read_from_the_disk_also_large_and_damaged(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    large = b"0123456789abcd\r\n" * 600_000  # past FLYING_MAX: goes alone
    async with alpha_half(tmp_path) as alpha:
        for number in range(30):
            alpha.submit(b"%d\r\n" % number, HERE)
        alpha.submit(large, HERE)
        await until(lambda: alpha.spool.waiting == 31)
    damaged = tmp_path / "alpha" / "spool.db"
    async with alpha_half(tmp_path) as alpha, bravo_half(tmp_path) as bravo:
        bad = alpha.qmgr.queue("bravo").ready[3]
        assert alpha.spool.hot(bad) is None
        octets = damaged.read_bytes()
        assert octets
        async with trio.open_nursery() as nursery:
            await connect(nursery, alpha, bravo)
            await until(lambda: alpha.quiet)
            nursery.cancel_scope.cancel()
        assert bravo.spool.waiting == 31
        arrived = await bravo.arrived()
        assert large in arrived
        assert len(set(arrived)) == 31


async def test_a_record_that_does_not_open_stops_no_other(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        for number in range(3):
            alpha.submit(b"%d\r\n" % number * 40, HERE)
            await until(lambda count=number: alpha.spool.waiting == count + 1)  # type: ignore[misc]
    async with alpha_half(tmp_path) as alpha, bravo_half(tmp_path) as bravo:
        # The second one's row disappears behind the spool's back.
        alpha.spool._groups.delete(
            [
                alpha.spool._index.place(
                    alpha.qmgr.queue("bravo").ready[1] & 0xFFFFFFFF
                )[0]
            ]
        )
        async with trio.open_nursery() as nursery:
            await connect(nursery, alpha, bravo)
            await until(lambda: bravo.spool.waiting == 2)
            await until(lambda: alpha.spool.corrupt == 1)
            nursery.cancel_scope.cancel()


async def test_what_was_read_ahead_goes_back_when_the_link_is_lost(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        for number in range(60):
            alpha.submit(b"%d\r\n" % number, HERE)
        await until(lambda: alpha.spool.waiting == 60)
    async with alpha_half(tmp_path) as alpha, bravo_half(tmp_path) as bravo:
        async with trio.open_nursery() as nursery:
            cable = await connect(nursery, alpha, bravo)
            cable.far.held = True
            await trio.sleep(5)
            cable.cut()
            await until(lambda: len(cable.reasons) == 2)
            assert len(alpha.qmgr.queue("bravo").ready) == 60
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            await connect(nursery, alpha, bravo, counter=2)
            await until(lambda: alpha.quiet)
            nursery.cancel_scope.cancel()
        assert len(await bravo.arrived()) == 60


async def test_what_was_read_ahead_goes_where_its_address_moved(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The old peer's 550 would be a bounce, of mail that the new one takes."""
    async with alpha_half(tmp_path) as alpha:
        for number in range(60):
            alpha.submit(b"%d\r\n" % number, HERE)
        await until(lambda: alpha.spool.waiting == 60)
    async with two(tmp_path) as (alpha, bravo, nursery):
        cable = await connect(nursery, alpha, bravo)
        cable.far.held = True  # the replies do not come through
        old, new = alpha.qmgr.queue("bravo"), alpha.qmgr.queue("charlie")
        await until(lambda: bravo.spool.waiting)
        await trio.sleep(5)
        offered = bravo.spool.waiting
        assert len(old.ready) < 60 - offered  # some were read and are not offered yet
        alpha.routes[HERE] = "charlie"
        alpha.qmgr.reroute(lambda _: True, changed=True)
        cable.far.let_go()
        await until(lambda: len(new.ready) == 60 - offered)
        await until(lambda: alpha.spool.waiting == 60 - offered)
        assert bravo.spool.waiting == offered


async def test_what_is_being_read_goes_back_too(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with alpha_half(tmp_path) as alpha:
        alpha.submit(b"1\r\n", HERE)
        await until(lambda: alpha.spool.waiting)
    async with two(tmp_path) as (alpha, bravo, nursery):
        with patience.slow_disk(alpha.spool):
            cable = await connect(nursery, alpha, bravo)
            await trio.sleep(5)
            assert not alpha.qmgr.queue("bravo").ready
            cable.cut()
            await until(lambda: len(cable.reasons) == 2)
        await until(lambda: alpha.qmgr.queue("bravo").ready)


async def test_close_says_so_and_makes_no_link_afterwards(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        cable = await connect(nursery, alpha, bravo)
        await trio.sleep(1)
        alpha.exchange.close()
        await until(lambda: len(cable.reasons) == 2)
        assert cable.reasons == {"alpha": CLOSED, "bravo": CLOSED}
        assert not alpha.exchange.peers["bravo"].up
        late = await connect(nursery, bravo, alpha, counter=2)
        await until(lambda: len(late.reasons) == 2)
        assert late.reasons["alpha"] == "closing"


async def test_the_age_of_replacement_is_drawn_at_birth_and_stays(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        ages = []
        for counter in range(1, 31):
            birth = trio.current_time()
            cable = await connect(nursery, alpha, bravo, counter=counter)
            (port,) = alpha.exchange.peers["bravo"].ports
            due = port.due
            await trio.sleep(1)
            assert alpha.exchange.peers["bravo"].due == due == port.due
            assert bravo.exchange.peers["alpha"].due == math.inf  # who dialled it dials
            ages.append(due - birth)
            cable.cut()
            await until(lambda cable=cable: len(cable.reasons) == 2)  # type: ignore[misc]
        low, high = LIFE_SECONDS
        assert all(low <= age < high for age in ages)
        assert (low, high) == (1800, 3600)
        assert min(ages) < 2100
        assert max(ages) > 3300


async def test_a_removed_peer_s_links_end_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, nursery):
        cable = await connect(nursery, alpha, bravo)
        await trio.sleep(1)
        alpha.exchange.peers["bravo"].close_links()
        await until(lambda: len(cable.reasons) == 2, seconds=1)
        assert cable.reasons["alpha"] == "replaced"


async def test_another_identity_is_another_peer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        first = alpha.exchange.peer("bravo", b"1" * 32)
        assert alpha.exchange.peer("bravo", b"1" * 32) is first
        assert alpha.exchange.peer("bravo", b"2" * 32) is not first


async def test_a_peer_needs_a_running_exchange(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        idle = Exchange(
            name="x",
            identity=bytes(32),
            qmgr=alpha.qmgr,
            max_message=1,
            entropy=FixedEntropy(),
        )
        with pytest.raises(LocalProtocolError):
            idle.peer("bravo", bytes(32))
