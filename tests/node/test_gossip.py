# SPDX-License-Identifier: MIT
"""Directories and descriptors from node to node, on links of fake wire."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.adoption import Verdict
from mesh.core.cell import CELL_LEN, PADDING, BodyWriter, Kind, parse_untrusted
from mesh.core.clock import Clock
from mesh.core.document import Document, to_octets
from mesh.core.frames import (
    NO_HEAD,
    Box,
    Frame,
    FrameReader,
    Head,
    HeadFrame,
    Part,
    WantBoxes,
    WantDocument,
)
from mesh.core.gossip import Gossip
from mesh.core.handshake import Session
from mesh.core.ledger import node_of
from mesh.core.pursuit import UNTIMELY_SECONDS
from mesh.core.strand import hello_body
from mesh.node import gossip as gossip_
from mesh.node.pacing import BROKEN
from tests.descriptors import DAY, NOW, signed
from tests.directories import directory, drafted, members
from tests.harness import until, wire_pair
from tests.node.gossips import Knower, adopt, connect, knower, public_of, real_sessions

Begin = Callable[[Session], gossip_.Talk]
NAMES = ("alpha", "bravo", "charlie")
FIRST = directory()
SECOND = directory(FIRST)
THIRD = directory(SECOND)
FORK = directory(FIRST, members("alpha", "bravo"))


@asynccontextmanager
async def mesh(
    folder: Path, *documents: Document | None
) -> AsyncIterator[tuple[list[Knower], trio.Nursery]]:
    """Alpha, bravo, charlie with these directories, and a nursery for links."""
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(knower(folder, name, document))
            for name, document in zip(NAMES, documents, strict=False)
        ]
        nursery = await stack.enter_async_context(trio.open_nursery())
        yield nodes, nursery
        nursery.cancel_scope.cancel()


def order(node: Knower) -> int:
    return node.registry.head[0] & 0xFFFFFFFF


async def test_a_version_adopted_at_one_reaches_all(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST, FIRST, FIRST) as ((alpha, bravo, charlie), links):
        await connect(links, alpha, bravo)
        await connect(links, bravo, charlie)
        await trio.sleep(5)
        adopt(alpha.registry, SECOND)
        await until(lambda: order(charlie) == 2)
        assert order(bravo) == 2
        adopt(charlie.registry, THIRD)
        await until(lambda: order(alpha) == 3)


@pytest.mark.parametrize("behind", ["dialler", "dialled"])
async def test_who_was_away_catches_up_with_its_first_link(
    tmp_path: Path, autojump_clock: MockClock, behind: str
) -> None:
    documents = (FIRST, THIRD) if behind == "dialler" else (THIRD, FIRST)
    async with mesh(tmp_path, *documents) as ((alpha, bravo), links):
        await connect(links, alpha, bravo)
        await until(lambda: order(alpha) == order(bravo) == 3)


async def test_the_dialled_one_asks_in_its_first_cell(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It knows from the handshake what the dialler has."""
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        liar = Hand(links, alpha, head=Head(*SECOND.head))
        liar.say()
        await trio.sleep(1)
        first = [type(frame) for frame in liar.heard()]
        assert first == [HeadFrame, WantDocument]


async def test_nobody_s_first_directory_comes_by_a_link(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST, None) as ((alpha, bravo), links):
        await connect(links, alpha, bravo)
        await trio.sleep(60)
        assert order(bravo) == 0
        adopt(bravo.registry, FIRST, begin=True)
        adopt(alpha.registry, SECOND)
        await until(lambda: order(bravo) == 2)


async def test_a_renewed_descriptor_reaches_all(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST, FIRST, FIRST) as ((alpha, bravo, charlie), links):
        await connect(links, alpha, bravo)
        await connect(links, bravo, charlie)
        await trio.sleep(5)
        alpha.registry.tell_own(signed("alpha", serial=8))
        await until(lambda: charlie.newest("alpha") == 8)
        assert [node.newest("alpha") for node in (alpha, bravo)] == [8, 8]


async def test_without_a_directory_a_node_still_renews_itself_at_its_peers(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with (
        knower(tmp_path, "alpha", by_hand=[signed("bravo")]) as alpha,
        knower(tmp_path, "bravo", by_hand=[signed("alpha")]) as bravo,
        trio.open_nursery() as links,
    ):
        await connect(links, alpha, bravo)
        await trio.sleep(5)
        alpha.registry.tell_own(signed("alpha", serial=8))
        known = bravo.registry.private
        assert known[public_of("alpha")].serial == 7
        await until(
            lambda: bravo.registry.private[public_of("alpha")].serial == 8, seconds=9
        )
        links.cancel_scope.cancel()


async def test_of_two_versions_with_one_number_both_are_kept_and_none_adopted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST, FIRST) as ((alpha, bravo), links):
        adopt(alpha.registry, SECOND)
        adopt(bravo.registry, FORK)
        await connect(links, alpha, bravo)
        await until(lambda: alpha.registry.evidence and bravo.registry.evidence)
        await trio.sleep(30)
        assert alpha.registry.head == SECOND.head
        assert bravo.registry.head == FORK.head
        assert len(alpha.registry.evidence) == len(bravo.registry.evidence) == 2
        # And it is known: a third link brings nobody to fetch it again.
        came = await connect(links, alpha, bravo, counter=2)
        await trio.sleep(30)
        assert sum(length for _, length in came.near.sent) < 100 * CELL_LEN


# hostile peers


class Hand:
    """A listed peer of our own making: says what it likes in cells that open."""

    def __init__(
        self,
        nursery: trio.Nursery,
        node: Knower,
        name: str = "bravo",
        *,
        head: Head = NO_HEAD,
        counter: int = 1,
        clock: Clock = Clock.GREEDY,
    ) -> None:
        self.session, theirs = real_sessions(name, node.name, counter, clock, 3, head)
        self.wire, far = wire_pair()
        self.ended: list[str] = []
        self.reader = FrameReader(1 << 24)

        async def carry() -> None:
            self.ended.append(await node.half.exchange.run_link(theirs, far))

        nursery.start_soon(carry)
        self.wire.try_send(self.session.sealer.seal(hello_body()))

    def say(self, *frames: Frame) -> None:
        """Whole cells, one at least."""
        octets = b"".join(frame.encode() for frame in frames)
        bodies = [PADDING] if not octets else []
        while octets:
            writer = BodyWriter()
            part, octets = octets[: writer.space], octets[writer.space :]
            writer.add(Kind.GOSSIP, 0, part)
            bodies.append(writer.finish())
        for body in bodies:
            self.wire.try_send(self.session.sealer.seal(body))

    def heard(self) -> list[Frame]:
        while cell := self.wire.try_receive(CELL_LEN):
            body = self.session.opener.open_untrusted(cell)
            for segment in parse_untrusted(body):
                if segment.kind == Kind.GOSSIP:
                    self.reader.receive_data(segment.octets)
        found = []
        while (frame := self.reader.next_frame()) is not None:
            found.append(frame)
        return found

    def wants(self) -> list[WantDocument]:
        return [frame for frame in self.heard() if isinstance(frame, WantDocument)]


SUMS = bytes(512)


def said(document: Document, order: int | None = None) -> Head:
    return Head(order or document.head[0], document.head[1])


def part(head: Head, octets: bytes, offset: int = 0, total: int = 0) -> Part:
    return Part(head, b"c" * 16, total or offset + len(octets), offset, octets)


async def test_garbage_under_a_head_is_refused_and_not_asked_for_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        head = said(SECOND)
        liar = Hand(links, alpha)
        liar.say(HeadFrame(head, 1, SUMS))
        await trio.sleep(1)
        assert [want.head for want in liar.wants()] == [head]
        liar.say(part(head, b"x" * 4000))
        await trio.sleep(1)
        again = Hand(links, alpha, counter=2)
        for _ in range(50):
            liar.say(HeadFrame(head, 1, SUMS))
            again.say(HeadFrame(head, 1, SUMS))
            await trio.sleep(10)
            if liar.ended:
                break
        assert not liar.wants()
        assert not again.wants()
        assert order(alpha) == 1
        honest = Hand(links, alpha, "charlie")
        honest.say(HeadFrame(head, 1, SUMS))
        await trio.sleep(1)
        assert [want.head for want in honest.wants()] == [head]


async def test_another_s_directory_under_a_head_is_a_lie(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """However well it is signed: else one old directory would answer every head."""
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        head = said(SECOND, order=SECOND.head[0] + 7)
        octets = alpha.registry.octets()
        liar = Hand(links, alpha)
        liar.say(HeadFrame(head, 1, SUMS))
        await trio.sleep(1)
        liar.say(part(head, octets))
        await trio.sleep(1)
        assert alpha.gossip._pursuit._peers[public_of("bravo")].failures == 1


async def test_a_directory_that_too_few_signed_is_refused(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        unsigned = drafted(FIRST)
        head = said(unsigned)
        liar = Hand(links, alpha)
        liar.say(HeadFrame(head, 1, SUMS))
        await trio.sleep(1)
        liar.say(part(head, to_octets(unsigned)))
        await trio.sleep(1)
        assert alpha.gossip._pursuit._peers[public_of("bravo")].failures == 1
        assert order(alpha) == 1


async def test_who_asks_for_what_we_do_not_have_gets_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, SECOND) as ((alpha,), links):
        hand = Hand(links, alpha)
        for document in (FIRST, THIRD, FORK):
            hand.say(WantDocument(said(document), bytes(16), 0))
            await trio.sleep(1)
        assert not [frame for frame in hand.heard() if isinstance(frame, Part)]
        hand.say(WantDocument(said(SECOND), bytes(16), 0))
        await trio.sleep(1)
        assert [frame for frame in hand.heard() if isinstance(frame, Part)]


async def test_what_one_cannot_finish_another_does(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST, SECOND) as ((alpha, bravo), links):
        head = said(SECOND)
        hand = Hand(links, alpha, "charlie")
        hand.say(HeadFrame(head, 1, SUMS))
        await trio.sleep(1)
        assert hand.wants()
        await connect(links, bravo, alpha)
        hand.wire.close()
        await until(lambda: order(alpha) == 2, seconds=130)


async def test_a_head_that_is_nobody_s_does_not_stop_the_true_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST, SECOND) as ((alpha, bravo), links):
        for number, name in enumerate(("charlie", "dora", "eve", "fred")):
            liar = Hand(links, alpha, name)
            liar.say(HeadFrame(Head(2**64 - 1 - number, bytes(32)), 1, SUMS))
        await trio.sleep(1)
        await connect(links, bravo, alpha)
        await until(lambda: order(alpha) == 2, seconds=1300)


async def test_a_slow_drip_gives_its_place_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        head = said(SECOND)
        liar, other = Hand(links, alpha), Hand(links, alpha, "charlie")
        for hand in (liar, other):
            hand.say(HeadFrame(head, 1, SUMS))
            await trio.sleep(1)
        assert liar.wants()
        started, offset = trio.current_time(), 0
        while not other.wants():
            liar.say(part(head, b"x", offset, 1_000_000))
            other.say()
            liar.heard()
            offset += 1
            await trio.sleep(5)
            assert trio.current_time() < started + 1300
        assert offset > 100


@pytest.mark.parametrize(
    "frames",
    [
        [Box(b"")],
        [Part(Head(1, bytes(32)), bytes(16), 2**32 - 1, 0, b"x")],
        [WantBoxes((bytes(8),) * 16), WantBoxes((bytes(8),))],
    ],
)
async def test_what_no_honest_peer_says_ends_its_link_only(
    tmp_path: Path, autojump_clock: MockClock, frames: list[Frame]
) -> None:
    async with mesh(tmp_path, FIRST, SECOND) as ((alpha, bravo), links):
        liar = Hand(links, alpha, "charlie")
        liar.say(*frames)
        await until(lambda: liar.ended)
        assert liar.ended == [BROKEN]
        await connect(links, bravo, alpha)
        await until(lambda: order(alpha) == 2)


async def test_unasked_octets_without_end_are_dropped(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST, SECOND) as ((alpha, bravo), links):
        liar = Hand(links, alpha, "charlie")
        for offset in range(0, 400_000, 4000):
            liar.say(part(Head(99, bytes(32)), b"x" * 4000, offset, 16_000_000))
            await trio.sleep(0.1)
        assert not liar.ended
        assert not alpha.gossip._pursuit._fetches
        await connect(links, bravo, alpha)
        await until(lambda: order(alpha) == 2)


async def test_a_false_descriptor_changes_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        liar = Hand(links, alpha)
        liar.say(HeadFrame(said(FIRST), 9, SUMS))
        await trio.sleep(1)
        assert WantBoxes in [type(frame) for frame in liar.heard()]
        liar.say(Box(signed("bravo", serial=6).box))
        await trio.sleep(2)
        liar.say(HeadFrame(said(FIRST), 10, SUMS))
        await trio.sleep(1)
        asked = [f for f in liar.heard() if isinstance(f, WantBoxes)]
        assert [f.nodes for f in asked] == [(node_of(public_of("bravo")),)]
        liar.say(Box(signed("bravo", seed="eve", serial=10).box))
        await trio.sleep(2)
        assert alpha.newest("bravo") == 7
        liar.say(HeadFrame(said(FIRST), 11, SUMS))
        await trio.sleep(1)
        liar.say(Box(signed("bravo", serial=11).box))
        await until(lambda: alpha.newest("bravo") == 11, seconds=5)


async def test_a_removed_link_is_asked_for_nothing_more(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        hand = Hand(links, alpha)
        hand.say(HeadFrame(said(SECOND), 1, SUMS))
        await trio.sleep(1)
        hand.wire.close()
        await until(lambda: hand.ended)
        assert not alpha.gossip._talks
        assert not alpha.gossip._asked


# what is cut off goes on


async def test_a_hand_over_goes_on_at_its_octet_on_the_next_link(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    large = directory(FIRST, members(*(f"n{number}" for number in range(400))))
    async with mesh(tmp_path, FIRST, FIRST) as ((alpha, bravo), links):
        adopt(bravo.registry, large)
        counter, had = 0, [0]
        while order(alpha) == 1:
            counter += 1
            cable = await connect(
                links, alpha, bravo, counter=counter, clock=Clock.RENEWAL, klass=6
            )
            await trio.sleep(2.2)
            cable.cut()
            await until(lambda: len(cable.reasons) == 2, seconds=5)  # noqa: B023
            fetch = alpha.gossip._pursuit._fetches.get(public_of("bravo"))
            had.append(len(fetch.octets) if fetch else 0)
        assert counter > 2
        assert had[-1] == 0  # it is whole
        assert had[:-1] == sorted(set(had[:-1]))  # each link brought some


async def test_mail_and_a_large_directory_go_on_beside_each_other(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """1.2 MB each, the same way, 64 cells a second: each has half of them."""
    domain = ".".join(["d" * 60] * 2) + ".test"
    large = directory(
        FIRST,
        members("alpha", "bravo")
        + [
            signed(f"n{n}", serves=tuple(f"{i:050}@n{n}.{domain}" for i in range(128)))
            for n in range(50)
        ],
    )
    async with (
        knower(tmp_path, "alpha", FIRST, {"mix@bravo": "bravo"}) as alpha,
        knower(tmp_path, "bravo", FIRST, {"mix@bravo": "local:0"}) as bravo,
        trio.open_nursery() as links,
    ):
        await connect(links, alpha, bravo, clock=Clock.RENEWAL, klass=9)
        await trio.sleep(1)
        adopt(alpha.registry, large)
        octets = len(alpha.registry.octets())
        assert octets > 1_000_000
        alpha.half.submit(b"0123456789abcd\r\n" * (octets // 16), "mix@bravo")
        start, times = trio.current_time(), []
        arrived = bravo.half.qmgr.queue("local:0").ready
        for holds in (lambda: arrived, lambda: order(bravo) == 2):
            await until(holds)
            times.append((trio.current_time() - start) * 64 * 4080 / octets)
        assert all(1.5 < each < 2.6 for each in times)
        alpha.half.submit(b"after\r\n", "mix@bravo")
        await until(lambda: len(arrived) == 2, seconds=5)
        links.cancel_scope.cancel()


async def test_of_two_links_the_later_is_asked(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The peer began again; its old link has a minute of cells to end in."""
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        head = said(SECOND)
        first = Hand(links, alpha, clock=Clock.RENEWAL)
        first.say(HeadFrame(head, 1, SUMS))
        await trio.sleep(9)
        assert len(first.wants()) == 1
        second = Hand(links, alpha, counter=2)
        await trio.sleep(0.1)
        first.say(HeadFrame(head, 2, SUMS))
        await trio.sleep(9)
        assert [want.head for want in first.wants()] == [NO_HEAD]
        second.say()
        await trio.sleep(1)
        assert [want.head for want in second.wants()] == [head]
        assert not first.ended


async def test_what_was_asked_for_comes_on_the_next_connection(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The link moves, its gossip with it: nothing is asked for twice or begun again."""
    large = directory(FIRST, members(*(f"n{number}" for number in range(400))))
    async with mesh(tmp_path, FIRST, FIRST) as ((alpha, bravo), links):
        begun: list[int] = []
        for node in (alpha, bravo):
            begin = node.gossip.begin

            def noting(session: Session, begin: Begin = begin) -> gossip_.Talk:
                begun.append(session.counter)
                return begin(session)

            node.gossip.begin = noting  # type: ignore[method-assign]
        clock = Clock.RENEWAL
        await connect(links, alpha, bravo, clock=clock, klass=3)
        await trio.sleep(5)
        adopt(bravo.registry, large)
        octets = len(bravo.registry.octets())
        assert octets > 25 * CELL_LEN
        await trio.sleep(9)
        peer = public_of("bravo")
        for counter in (2, 3):
            fetch = alpha.gossip._pursuit._fetches[peer]
            had = len(fetch.octets)
            assert 0 < had < octets
            await connect(links, alpha, bravo, counter=counter, clock=clock, klass=3)
            await trio.sleep(11)  # both ends have agreed; drawn, but ever the same
            assert alpha.gossip._pursuit._fetches[peer] is fetch
            assert len(fetch.octets) > had
        await until(lambda: order(alpha) == 2)
        assert begun == [1, 1]


async def test_what_a_wrong_clock_refused_is_fetched_when_it_is_right(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """By an hour later, though nobody has anything newer; and the peer is no liar."""
    wrong = SECOND.roster.issued - 3 * DAY
    async with mesh(tmp_path, FIRST, SECOND) as ((alpha, bravo), links):
        clock = [float(wrong)]
        alpha.gossip._now = lambda: clock[0]
        await connect(links, alpha, bravo)
        await trio.sleep(600)
        assert order(alpha) == 1
        clock[0] = NOW
        await trio.sleep(UNTIMELY_SECONDS - 600)  # until it may ask once more
        await until(lambda: order(alpha) == 2, seconds=UNTIMELY_SECONDS)
        assert not alpha.gossip._pursuit._peers[public_of("bravo")].failures


async def test_five_megabytes_of_directory_cross_replacements_once(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = ".".join(["d" * 60] * 2) + ".test"
    large = directory(
        FIRST,
        members("alpha", "bravo")
        + [
            signed(f"n{n}", serves=tuple(f"{i:050}@n{n}.{domain}" for i in range(128)))
            for n in range(215)
        ],
    )
    told = [0]
    take = Gossip.take

    def counting(gossip: Gossip, limit: int) -> bytes:
        octets = take(gossip, limit)
        told[0] += len(octets)
        return octets

    monkeypatch.setattr(Gossip, "take", counting)
    async with mesh(tmp_path, FIRST, FIRST) as ((alpha, bravo), links):
        clock, klass = Clock.RENEWAL, 9
        await connect(links, alpha, bravo, clock=clock, klass=klass)
        await trio.sleep(2)
        adopt(bravo.registry, large)
        octets = len(bravo.registry.octets())
        assert octets > 5_000_000
        for counter in (2, 3, 4, 5):
            await trio.sleep(4)
            assert order(alpha) == 1
            await connect(
                links, alpha, bravo, counter=counter, clock=clock, klass=klass
            )
        await until(lambda: order(alpha) == 2, seconds=30)
        assert told[0] < octets * 1.02


# our own disk


async def test_a_disk_that_fails_costs_the_directory_and_nothing_else(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST, SECOND) as ((alpha, bravo), links):
        lock = tmp_path / "alpha state" / "directory.lock"
        lock.unlink()
        lock.mkdir()
        cable = await connect(links, alpha, bravo)
        bravo.registry.tell_own(signed("bravo", serial=9))
        await trio.sleep(90)
        assert order(alpha) == 1
        assert not cable.reasons
        lock.rmdir()
        await until(lambda: order(alpha) == 2, seconds=1000)
        await until(lambda: alpha.newest("bravo") == 9)


# how much at once


async def test_what_is_judged_in_one_hop_is_bounded(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossip_, "BATCH", 2)
    names = [f"n{number}" for number in range(9)]
    document = directory(None, members("alpha", "bravo", *names))
    async with mesh(tmp_path, document, document) as ((alpha, bravo), links):
        seen: list[int] = []
        consider = alpha.gossip._consider_boxes

        def noting(boxes: list[bytes]) -> None:
            seen.append(len(boxes))
            consider(boxes)

        monkeypatch.setattr(alpha.gossip, "_consider_boxes", noting)
        for name in names:
            bravo.registry.consider_descriptors([signed(name, serial=8).box], NOW)
        await connect(links, alpha, bravo)
        await until(lambda: {alpha.newest(name) for name in names} == {8})
        assert sum(seen) == 9
        assert max(seen) == 2


async def test_one_thread_verifies_at_a_time(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        together, met = threading.Barrier(2), []

        def meeting(*_: object) -> Verdict:
            with suppress(threading.BrokenBarrierError):
                met.append(together.wait(0.05))
            return Verdict.REFUSED

        monkeypatch.setattr(alpha.gossip, "_consider_document", meeting)
        hands = {Head(2**40 + n, bytes(32)): "bc"[n] for n in range(2)}
        said_by = {head: Hand(links, alpha, name) for head, name in hands.items()}
        for head, hand in said_by.items():
            hand.say(HeadFrame(head, 1, SUMS))
        await trio.sleep(1)
        for head, hand in said_by.items():
            hand.say(part(head, b"x"))
        await until(lambda: not alpha.gossip._pursuit._fetches)
        assert not met


async def test_many_changes_at_once_are_said_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with mesh(tmp_path, FIRST) as ((alpha,), links):
        hand = Hand(links, alpha)
        hand.say()
        await trio.sleep(3)
        hand.heard()
        for serial in range(8, 58):
            alpha.registry.tell_own(signed("alpha", serial=serial))
            await trio.sleep(0.02)
        await trio.sleep(3)
        said = [frame for frame in hand.heard() if isinstance(frame, HeadFrame)]
        assert said[-1].serial == 57
        assert len(said) <= 3
