# SPDX-License-Identifier: MIT
"""A link's inside and its connections, with a peer who says what no honest one does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.cell import CLOSE_BODY, PADDING, BodyWriter, Kind, parse_untrusted
from mesh.core.clock import Clock
from mesh.core.reply import Reply
from mesh.core.strand import HELD_MAX, Ident, hello_body
from mesh.node.inside import LAST_CELLS, REPLACED_CELLS
from mesh.node.peer import PORTS_MAX, Peer
from mesh.node.port import Ending
from tests.harness import Half, connect, half, inside, sessions, until, wire_pair
from tests.node.crossing import Cord, Tip

HERE = "mix@bravo"
BACK = "mix@alpha"


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Half, Half, list[Cord]]]:
    """Alpha, bravo, and one connection on which both have agreed."""
    async with (
        half(folder, "alpha", {HERE: "bravo", BACK: "local:0"}) as alpha,
        half(folder, "bravo", {HERE: "local:0", BACK: "alpha"}) as bravo,
    ):
        first = Cord(alpha, bravo, 1)
        for _ in range(4):
            first.turn()
        yield alpha, bravo, [first]


def heard(tip: Tip, *kinds: int) -> list[bytes]:
    """What segments of these kinds have left an end and not arrived."""
    return [
        bytes(segment.octets)
        for body in tip.way
        for segment in parse_untrusted(body)
        if segment.kind in kinds
    ]


def moved(commands: int = 0, replies: int = 0) -> bytes:
    writer = BodyWriter()
    octets = commands.to_bytes(8, "big") + replies.to_bytes(8, "big")
    writer.add(Kind.MOVE, 0, octets)
    return writer.finish()


def words(octets: bytes = b"HELO alpha\r\n", kind: int = Kind.COMMANDS) -> bytes:
    writer = BodyWriter()
    writer.add(kind, 0, octets)
    return writer.finish()


def ending(tip: Tip) -> Ending | None:
    """Ask anew: it changes between two questions."""
    return tip.ending


def say(tip: Tip, *bodies: bytes) -> None:
    """Let a peer of our own making say this on its end, and the other take it."""
    for body in bodies:
        tip.way.append(body)
        tip.other.receive()


async def goes_on(alpha: Half, bravo: Half, cords: list[Cord], counter: int) -> None:
    """What was made of lies is cut off, and by the next connection all works again."""
    for cord in cords:
        cord.cut()
        cord.turn()
    arrived = bravo.qmgr.queue("local:0").ready
    before = len(arrived)
    alpha.submit(b"after\r\n", HERE)
    cords.append(Cord(alpha, bravo, counter))
    for _ in range(400):
        for cord in cords:
            cord.turn()
        await trio.sleep(0.01)
    assert len(arrived) == before + 1
    (port,) = alpha.exchange.peers["bravo"].ports
    assert port.session.counter == counter


# honest


async def test_who_has_no_other_connection_says_so_in_its_first_cell(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, (old,)):
        link = inside(old.near.port).link
        new = Cord(alpha, bravo, 2)  # beside another one: when it is up
        new.turn()
        assert not any(tip.port.up for tip in new.tips)
        new.turn()
        assert inside(new.near.port).link is link
        for cord in (old, new):
            cord.cut()
            cord.turn()
        assert not alpha.exchange.peers["bravo"].ports
        alpha.submit(b"hello\r\n", HERE)
        await until(lambda: alpha.qmgr.queue("bravo").ready)
        lone = Cord(alpha, bravo, 3)
        for tip in lone.tips:
            tip.send()
            assert list(tip.way) == [hello_body()]
        for tip in lone.tips:
            tip.receive()
        assert all(tip.port.up for tip in lone.tips)
        lone.near.send()
        assert heard(lone.near, Kind.COMMANDS)  # and mail leaves in the second


async def test_who_lost_the_other_connection_hears_none_where_we_have_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A peer that began again: its "none" comes before our hello has left."""
    async with two(tmp_path) as (alpha, bravo, (old,)):
        link = inside(old.near.port).link
        old.far.die()
        assert not bravo.exchange.peers["alpha"].ports
        new = Cord(alpha, bravo, 2)
        for _ in range(3):
            new.turn()
        assert all(tip.port.up for tip in new.tips)
        assert inside(new.near.port).link is not link
        await goes_on(alpha, bravo, [old, new], 3)


async def test_the_old_one_takes_no_new_message_and_waits_for_the_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """However long that takes: its last words come when both have agreed."""
    async with two(tmp_path) as (alpha, bravo, (old,)):
        link = inside(old.near.port).link
        new = Cord(alpha, bravo, 2)
        for tip in new.tips:
            tip.send()
        for tip in new.tips:
            tip.receive()
        assert old.near.port.retired
        assert not old.near.port.can_offer
        peers = (alpha.exchange.peers["bravo"], bravo.exchange.peers["alpha"])
        assert [peer.up for peer in peers] == [True, True]  # all the while
        alpha.submit(b"hello\r\n", HERE)
        await until(lambda: alpha.spool.waiting)
        for _ in range(3 * REPLACED_CELLS):
            old.turn()
        assert ending(old.near) is None
        assert not inside(old.near.port).flying
        assert [peer.up for peer in peers] == [True, True]
        for _ in range(10):
            new.turn()
            old.turn()
            assert [peer.up for peer in peers] == [True, True]
        said = Ending(REPLACED_CELLS, linger=True)
        assert ending(old.near) == ending(old.far) == said
        assert inside(new.near.port).link is link
        assert not old.near.port.can_offer
        assert new.near.port.can_offer
        for _ in range(20):
            new.turn()
            await trio.sleep(0.01)
        assert await bravo.arrived() == [b"hello\r\n"]


async def test_a_node_that_ends_takes_no_new_message(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, (cord,)):
        port = cord.near.port
        port.close()
        assert not port.can_offer
        port.close()  # keeping.py says so each second
        alpha.submit(b"hello\r\n", HERE)
        await until(lambda: alpha.spool.waiting)
        for _ in range(LAST_CELLS + 1):
            assert not cord.near.way
            cord.near.send()
            cord.far.receive()
        assert cord.far.port.strand.peer_closed
        cord.far.send()
        assert cord.far.ending == Ending(LAST_CELLS)
        assert not inside(cord.near.port).flying
        assert not bravo.spool.waiting


async def test_a_greedy_one_says_so_many_bodies_more_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whatever waits, and however often it is told."""
    async with (
        half(tmp_path, "alpha", {HERE: "bravo"}) as alpha,
        half(tmp_path, "bravo", {HERE: "local:0"}) as bravo,
        trio.open_nursery() as nursery,
    ):
        await connect(nursery, alpha, bravo)
        await trio.sleep(5)
        (port,) = alpha.exchange.peers["bravo"].ports
        port.on_data = lambda: None  # its carrier's: we ask ourselves
        alpha.submit(b"0123456789abcd\r\n" * 10_000, HERE)
        await until(lambda: inside(port).flying)
        bodies: list[bytes] = []
        port.close()
        while port.has_data and not port.finished and len(bodies) < 9:
            port.close()
            bodies.append(port.next_body())
        assert len(bodies) == LAST_CELLS + 1
        assert bodies[-1] == CLOSE_BODY
        assert CLOSE_BODY not in bodies[:-1]
        nursery.cancel_scope.cancel()


async def test_what_is_not_agreed_on_ends_at_once_when_the_node_does(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, _):
        new = Cord(alpha, bravo, 2)
        new.near.port.close()
        new.near.send()
        assert new.near.ended
        assert not new.near.way


async def test_a_person_s_dialogue_moves_with_the_link(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Half a line before, half after; the reply to it comes on the third."""
    async with two(tmp_path) as (alpha, bravo, cords):
        peer = alpha.exchange.peers["bravo"]
        person = peer.converse()
        assert person is not None
        person.write(b"HELO alpha\r\nNO")
        for counter in (2, 3):
            cords.append(Cord(alpha, bravo, counter))
            for _ in range(200):
                for cord in cords:
                    cord.turn()
            assert len(peer.ports) == 1
        person.write(b"OP\r\n")
        cords.append(Cord(alpha, bravo, 4))
        for _ in range(200):
            for cord in cords:
                cord.turn()
        codes = []
        for _ in range(3):
            reply = await person.next()
            assert isinstance(reply, Reply)
            codes.append(reply.code)
        assert codes == [220, 250, 250]
        person.end(gone=True)
        for _ in range(10):
            cords[-1].turn()
        assert not inside(peer.ports[0]).people.open


# hostile


@pytest.mark.parametrize(
    "named",
    [
        Ident(by_smaller=True, counter=7),  # nobody knows it
        Ident(by_smaller=False, counter=2),  # dialled by the other one
        Ident(by_smaller=True, counter=1),  # from which the link has moved already
        Ident(by_smaller=True, counter=3),  # this one itself
    ],
)
async def test_a_connection_that_is_not_the_one_that_was_offered(
    tmp_path: Path, autojump_clock: MockClock, named: Ident
) -> None:
    async with two(tmp_path) as (alpha, bravo, cords):
        cords.append(Cord(alpha, bravo, 2))
        for _ in range(200):
            for cord in cords:
                cord.turn()
        second = cords[-1]
        link = inside(second.far.port).link
        third = Cord(alpha, bravo, 3)
        say(third.near, hello_body(named))
        assert inside(third.far.port).link is not link
        assert not second.far.port.strand.awaited
        third.far.die()
        assert not bravo.exchange.peers["alpha"].up  # what is about to end is not
        for _ in range(REPLACED_CELLS + 2):
            second.turn()
        assert second.far.ended
        await goes_on(alpha, bravo, [second, third], 4)


@pytest.mark.parametrize(
    "bodies",
    [
        [moved()],  # it does not go anywhere
        [hello_body()],
        [CLOSE_BODY, moved()],
    ],
)
async def test_a_move_out_of_nothing(
    tmp_path: Path, autojump_clock: MockClock, bodies: list[bytes]
) -> None:
    async with two(tmp_path) as (alpha, bravo, (cord,)):
        say(cord.near, *bodies)
        assert cord.far.broken
        await goes_on(alpha, bravo, [cord], 2)


@pytest.mark.parametrize(
    "bodies",
    [
        [moved(), moved()],
        [moved(commands=1)],
        [moved(replies=1)],
        [moved(), words()],
        [moved(), hello_body()],
        [words(b"250 what\r\n", Kind.REPLIES)],  # no move at all: the link breaks
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_false_move_ends_the_link_and_no_more(
    tmp_path: Path, autojump_clock: MockClock, bodies: list[bytes], when: str
) -> None:
    """Said before the hello on the new connection, or after it.

    Once what had to come has come, the link has left: the rest does it no harm.
    """
    has_left = when == "after" and len(bodies) == 2
    async with two(tmp_path) as (alpha, bravo, (old,)):
        new = Cord(alpha, bravo, 2)
        say(new.near, PADDING)
        hello = hello_body(old.far.port.strand.ident)
        if when == "after":
            say(new.near, hello)
            assert inside(new.far.port).link is inside(old.far.port).link
        say(old.near, *bodies)
        assert old.far.broken
        new.far.receive()
        assert new.far.ended != has_left
        assert bravo.exchange.peers["alpha"].up == has_left
        await goes_on(alpha, bravo, [old, new], 3)


@pytest.mark.parametrize("ends", ["by counting", "by itself", "by too much"])
async def test_what_never_moves_is_not_waited_for_for_ever(
    tmp_path: Path, autojump_clock: MockClock, ends: str
) -> None:
    async with two(tmp_path) as (alpha, bravo, (old,)):
        new = Cord(alpha, bravo, 2)
        say(new.near, PADDING, hello_body(old.far.port.strand.ident))
        say(new.near, words())
        assert new.far.port.strand.waits
        if ends == "by counting":
            for _ in range(REPLACED_CELLS + 1):
                say(old.near, PADDING)
                old.far.send()
            assert old.far.ending
            say(old.near, CLOSE_BODY)
            old.near.die()
            old.far.receive()
        elif ends == "by itself":
            old.near.die()
            old.near.way.clear()
            old.far.receive()
        else:
            say(new.near, *[words()] * HELD_MAX)
            assert new.far.broken
        new.far.receive()
        assert new.far.ended
        assert not bravo.exchange.peers["alpha"].up
        await goes_on(alpha, bravo, [old, new], 3)


async def test_two_replacements_at_once_of_which_both_name_the_old_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, (old,)):
        link = inside(old.far.port).link
        hello = hello_body(old.far.port.strand.ident)
        news = [Cord(alpha, bravo, counter) for counter in (2, 3)]
        for new in news:
            say(new.near, PADDING)
        for new in reversed(news):
            say(new.near, hello)
        links = [inside(new.far.port).link for new in news]
        assert links[0] is link  # it was offered to the first one
        assert links[1] is not link
        await goes_on(alpha, bravo, [old, *news], 4)


async def test_words_for_a_link_that_is_gone_reach_nobody(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The new connection ends; on the old one the peer speaks on."""
    async with two(tmp_path) as (alpha, bravo, (old,)):
        new = Cord(alpha, bravo, 2)
        say(new.near, PADDING, hello_body(old.far.port.strand.ident))
        new.far.die()
        say(old.near, words(b"HELO alpha\r\nMAIL FROM:<>\r\nRCPT TO:<mix@bravo>\r\n"))
        say(old.near, words(b"BDAT 3 LAST\r\nx\r\n"))
        await trio.sleep(1)
        assert not bravo.spool.waiting
        await goes_on(alpha, bravo, [old, new], 3)


@pytest.mark.parametrize("clock", [Clock.RENEWAL, Clock.GREEDY])
@pytest.mark.parametrize("up", [False, True])
async def test_a_hundred_connections_leave_eight_and_the_link(
    tmp_path: Path, autojump_clock: MockClock, clock: Clock, up: bool
) -> None:
    async with (
        half(tmp_path, "alpha", {HERE: "bravo"}) as alpha,
        half(tmp_path, "bravo", {HERE: "local:0"}) as bravo,
        trio.open_nursery() as nursery,
    ):
        await connect(nursery, alpha, bravo, clock=clock, klass=6, counter=1_000)
        await trio.sleep(5)
        peer = bravo.exchange.peers["alpha"]
        (port,) = peer.ports
        fars = []
        most = 0
        for counter in range(2, 102):
            ours, theirs = sessions(
                "alpha", "bravo", clock=clock, klass=6, counter=counter
            )
            near, far = wire_pair()
            fars.append(far)
            nursery.start_soon(bravo.exchange.run_link, theirs, far)
            if up:
                near.try_send(ours.sealer.seal(hello_body()))
            await trio.sleep(0.05)
            most = max(most, len(peer.ports))
        assert most == PORTS_MAX if not up else most <= PORTS_MAX + 1
        assert port in peer.ports
        assert sum(not far.closed for far in fars) < PORTS_MAX
        alpha.submit(b"hello\r\n", HERE)
        await until(lambda: bravo.spool.waiting)
        await until(lambda: peer.ports == [port], seconds=60)
        nursery.cancel_scope.cancel()


async def test_too_many_end_the_oldest_that_never_came_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, bravo, (first,)):
        peer: Peer = bravo.exchange.peers["alpha"]
        cords = [Cord(alpha, bravo, counter) for counter in range(2, PORTS_MAX + 1)]
        assert not any(each.scope.cancel_called for each in peer.ports)
        Cord(alpha, bravo, PORTS_MAX + 1)
        ended = [each.far.port.scope.cancel_called for each in [first, *cords]]
        assert ended == [False, True] + [False] * (PORTS_MAX - 2)
        Cord(alpha, bravo, PORTS_MAX + 2)  # what is about to go does not count
        ended = [each.far.port.scope.cancel_called for each in [first, *cords]]
        assert ended == [False, True, True] + [False] * (PORTS_MAX - 3)


async def test_a_bug_found_by_an_answer_ends_that_link_only(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Commits call it, and they have others to tell."""
    async with two(tmp_path) as (alpha, bravo, cords):
        port = cords[0].far.port
        inside(port).answer(0, Reply(250, "nobody has asked"))
        assert port.scope.cancel_called
        assert bravo.qmgr.guard.bugs == 1
        await goes_on(alpha, bravo, cords, 2)


async def test_a_bug_of_a_carrier_ends_its_connection_only(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whoever has something for a link calls it: a commit, gossip, a user's dialogue."""

    def breaks() -> None:
        raise RuntimeError("in the carrier")

    async with two(tmp_path) as (alpha, bravo, cords):
        port = cords[0].near.port
        port.on_data = breaks
        assert alpha.exchange.peers["bravo"].converse()
        assert port.scope.cancel_called
        assert alpha.qmgr.guard.bugs == 1
        first, second = alpha.submit(b"x\r\n", HERE), alpha.submit(b"y\r\n", BACK)
        await until(lambda: first and second)
        assert [reply.code for reply in first + second] == [250, 250]
        assert bravo.qmgr.guard.bugs == 0


async def test_a_bug_in_what_is_filled_ends_that_link_only(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with two(tmp_path) as (alpha, _, cords):
        peer = alpha.exchange.peers["bravo"]
        peer._done = 5  # type: ignore[assignment]  # no list of ids
        first = alpha.submit(b"x\r\n", HERE)
        second = alpha.submit(b"y\r\n", BACK)  # in the same commit, or the next
        await until(lambda: first and second)
        assert [reply.code for reply in first + second] == [250, 250]
        assert cords[0].near.port.scope.cancel_called
        assert not cords[0].near.port.can_offer  # else the second one meets it, too
        assert alpha.qmgr.guard.bugs == 1
