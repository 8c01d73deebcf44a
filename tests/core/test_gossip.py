# SPDX-License-Identifier: MIT
"""Two real ends of gossip, any cut of their octets between them; and hostile ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.frames import (
    BOXES_MAX,
    BUCKETS,
    CHUNK_MAX_LEN,
    NO_DOCUMENT,
    NO_HEAD,
    PAIRS_MAX,
    Box,
    Frame,
    FrameReader,
    Head,
    HeadFrame,
    Pairs,
    Part,
    WantBoxes,
    WantDocument,
    WantPairs,
    pair,
)
from mesh.core.gossip import (
    MUTE,
    BoxCame,
    Copy,
    Gossip,
    Heard,
    PartCame,
    Wanted,
)
from mesh.core.ledger import Ledger
from mesh.errors import CellError

LIMIT = 200_000
HEAD = Head(7, b"h" * 32)
LATER = Head(8, b"l" * 32)
NO_COPY = bytes(16)


def node(number: int) -> bytes:
    """Nodes of several buckets."""
    return bytes([number * 37 % 256]) + number.to_bytes(7, "big")


def box(which: bytes, serial: int) -> bytes:
    return bytes(64) + which + serial.to_bytes(8, "big")


ALPHA, BRAVO = node(1), node(2)


@dataclass
class Side:
    """A node's shelf of descriptors, and its end of the gossip with one peer."""

    us: bytes
    them: bytes
    head: Head
    shared: dict[bytes, int]
    private: dict[bytes, int] = field(default_factory=dict)
    serial: int = 1
    refuses: set[bytes] = field(default_factory=set)
    copy: Copy | None = None
    heard: list[Head] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    boxes: int = 0
    wanted: list[WantDocument] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.write_down()
        self.gossip = self.begin()

    def write_down(self) -> None:
        self.ledger = Ledger.of(
            self.us, self.serial, self.head, dict(self.shared), dict(self.private)
        )

    def begin(self, heard: Head = NO_HEAD) -> Gossip:
        self.gossip = Gossip(
            ledger=lambda: self.ledger,
            box_of=self.box_of,
            peer=self.them,
            document_max_len=LIMIT,
            heard=heard,
        )
        return self.gossip

    def box_of(self, which: bytes) -> bytes | None:
        serials = {self.us: self.serial, **self.private, **self.shared}
        return box(which, serials[which]) if which in serials else None

    def changed(self) -> None:
        self.write_down()
        self.gossip.changed()

    def attend(self) -> None:
        """Draw the consequences of what came in, as a node does."""
        gained = False
        while (event := self.gossip.next_event()) is not None:
            match event:
                case Heard(head):
                    self.heard.append(head)
                case PartCame(part):
                    self.parts.append(part)
                case Wanted(want):
                    self.wanted.append(want)
                    if self.copy:
                        self.gossip.hand_over(want, self.copy)
                case BoxCame(which, octets):
                    self.boxes += 1
                    serial = int.from_bytes(octets[-8:], "big")
                    assert octets == box(which, serial)
                    mine = self.shared if which in self.shared else self.private
                    if which not in self.refuses and serial > mine[which]:
                        mine[which] = serial
                        gained = True
                    self.gossip.judged()
        if gained:
            self.changed()


def two(
    ours: Mapping[bytes, int],
    theirs: Mapping[bytes, int],
    heads: tuple[Head, Head] = (HEAD, HEAD),
) -> tuple[Side, Side]:
    return (
        Side(ALPHA, BRAVO, heads[0], dict(ours)),
        Side(BRAVO, ALPHA, heads[1], dict(theirs)),
    )


def run(one: Side, other: Side, room: Callable[[], int] = lambda: 4075) -> int:
    """Body after body until neither has anything to say; how many it took."""
    bodies = 0
    while one.gossip.pending or other.gossip.pending:
        for near, far in ((one, other), (other, one)):
            limit = room()
            pending = near.gossip.pending
            octets = near.gossip.take(limit)
            assert bool(octets) == (pending and limit > 0)
            assert len(octets) <= limit
            far.gossip.receive_data(octets)
            far.attend()
        bodies += 1
        assert bodies < 20_000
    return bodies


SERIALS = st.dictionaries(st.integers(3, 400).map(node), st.integers(1, 9), max_size=40)
ROOMS = st.lists(st.integers(1, 4075), max_size=7).map(lambda rooms: [*rooms, 4075])


@given(SERIALS, st.data(), ROOMS)
def test_two_with_one_directory_end_with_the_newest_of_each(
    ours: dict[bytes, int], data: st.DataObject, rooms: list[int]
) -> None:
    theirs = {which: data.draw(st.integers(1, 9)) for which in ours}
    one, other = two(ours, theirs)
    turn = iter(range(10**9))
    run(one, other, lambda: rooms[next(turn) % len(rooms)])
    newest = {which: max(ours[which], theirs[which]) for which in ours}
    assert one.shared == other.shared == newest
    # Each was sent once, to whom it was new.
    assert one.boxes == sum(ours[n] < theirs[n] for n in ours)
    assert other.boxes == sum(theirs[n] < ours[n] for n in ours)


def test_a_descriptor_that_changes_later_is_asked_for_by_itself() -> None:
    nodes = {node(n): 1 for n in range(3, 2003)}
    one, other = two(nodes, nodes)
    run(one, other)
    one.shared[node(55)] = 2
    one.changed()
    # sums, a question, the pairs of one bucket, a question, a descriptor, sums
    assert run(one, other) <= 6
    assert other.shared[node(55)] == 2


def test_a_whole_list_is_compared_in_frames_of_bounded_size() -> None:
    close = {bytes(4) + n.to_bytes(4, "big"): 1 for n in range(PAIRS_MAX + 99)}
    one, other = two(close, dict.fromkeys(close, 2))
    run(one, other)
    assert one.shared == other.shared


def test_two_with_different_directories_do_not_compare_serials() -> None:
    one, other = two({node(3): 1}, {node(3): 2}, (HEAD, LATER))
    run(one, other)
    assert (one.shared, other.shared) == ({node(3): 1}, {node(3): 2})
    assert (one.heard, other.heard) == ([LATER], [HEAD])
    one.head = LATER  # adopted, from whomever
    one.changed()
    run(one, other)
    assert one.shared == {node(3): 2}


def test_without_a_directory_each_still_learns_the_newest_of_the_other() -> None:
    one, other = two({}, {}, (NO_HEAD, NO_HEAD))
    one.private = {BRAVO: 1, node(9): 1}
    other.private = {ALPHA: 5, node(9): 4}
    other.serial = 2
    for side in (one, other):
        side.changed()
    run(one, other)
    assert one.private == {BRAVO: 2, node(9): 1}  # of third parties nobody speaks
    assert other.private == {ALPHA: 5, node(9): 4}


def test_who_is_only_in_peers_d_is_told_to_nobody() -> None:
    one, other = two({node(3): 1}, {node(3): 1})
    other.private = {node(9): 4}
    other.changed()
    run(one, other)
    asks = Hand(other)
    asks.say(WantPairs(2**BUCKETS - 1), WantBoxes((node(9), BRAVO, node(3), node(4))))
    heard = asks.heard()
    assert [f for f in heard if isinstance(f, Box)] == [
        Box(b""), Box(box(BRAVO, 1)), Box(box(node(3), 1)), Box(b"")
    ]  # fmt: skip
    assert [f for f in heard if isinstance(f, Pairs)] == [
        Pairs(pair(node(3), 1)), Pairs(b"")
    ]  # fmt: skip


def test_who_is_only_in_peers_d_is_not_asked_for_either() -> None:
    """A question for him would say that we list him."""
    side, _ = two({node(3): 1}, {})
    side.private = {node(9): 1}
    side.changed()
    bravo = Hand(side)
    bravo.say(HeadFrame(HEAD, 1, OTHER_SUMS))
    bravo.heard()
    bravo.say(Pairs(pair(node(9), 5) + pair(node(3), 5)), Pairs(b""))
    (asked,) = bravo.heard()
    assert isinstance(asked, WantBoxes)
    assert asked.nodes == (node(3),)


def test_what_was_refused_is_not_asked_for_again() -> None:
    one, other = two({node(3): 1, node(4): 1}, {node(3): 9, node(4): 1})
    one.refuses = {node(3)}
    run(one, other)
    assert one.boxes == 1
    for serial in (2, 3):
        other.shared[node(4)] = serial
        other.changed()
        run(one, other)
    assert one.shared == {node(3): 1, node(4): 3}
    assert one.boxes == 3
    other.shared[node(3)] = 10  # another one is
    other.changed()
    run(one, other)
    assert one.boxes == 4


def test_what_came_meanwhile_from_another_is_not_asked_for() -> None:
    many = {node(n): 1 for n in range(3, 3 + 3 * BOXES_MAX)}
    one, other = two(many, dict.fromkeys(many, 2))
    while not one.boxes:
        other.gossip.receive_data(one.gossip.take(4075))
        other.attend()
        one.gossip.receive_data(other.gossip.take(1000))
        one.attend()
    one.shared = dict.fromkeys(many, 2)
    one.changed()
    run(one, other)
    assert one.boxes <= BOXES_MAX


def test_the_next_are_asked_for_when_the_last_were_judged() -> None:
    many = {node(n): 1 for n in range(3, 3 + 2 * BOXES_MAX)}
    one, _ = two(many, {})
    bravo = Hand(one)
    bravo.say(HeadFrame(HEAD, 1, Ledger.of(BRAVO, 1, HEAD, {node(3): 2}).sums))
    bravo.heard()
    bravo.say(Pairs(b"".join(pair(n, 2) for n in many)), Pairs(b""))
    (asked,) = bravo.heard()
    assert isinstance(asked, WantBoxes)
    assert len(asked.nodes) == BOXES_MAX
    bravo.say(*(Box(box(n, 2)) for n in asked.nodes))
    assert not one.gossip.pending
    for _ in asked.nodes:
        assert not bravo.heard()
        one.gossip.judged()
    (rest,) = bravo.heard()
    assert isinstance(rest, WantBoxes)
    assert {*asked.nodes, *rest.nodes} == set(many)
    bravo.say(*(Box(b"") for _ in rest.nodes))
    assert not one.gossip.pending


# documents


def copy_of(head: Head, length: int, seed: int = 1) -> Copy:
    return Copy.of(head, bytes(n * seed % 251 for n in range(length)))


@given(st.integers(1, 3 * CHUNK_MAX_LEN), ROOMS)
def test_a_document_is_handed_over_whole(length: int, rooms: list[int]) -> None:
    one, other = two({}, {}, (HEAD, LATER))
    other.copy = copy_of(LATER, length)
    one.gossip.want(LATER, NO_COPY, 0)
    turn = iter(range(10**9))
    run(one, other, lambda: rooms[next(turn) % len(rooms)])
    assert b"".join(part.octets for part in one.parts) == other.copy.octets
    assert [part.offset for part in one.parts] == list(range(0, length, CHUNK_MAX_LEN))
    assert {(part.total, part.copy, part.head) for part in one.parts} == {
        (length, other.copy.name, LATER)
    }


@given(st.integers(1, 50_000), st.integers(0, 60_000))
def test_it_goes_on_at_its_octet_on_the_next_link(length: int, offset: int) -> None:
    one, other = two({}, {}, (HEAD, LATER))
    other.copy = copy_of(LATER, length)
    one.gossip.want(LATER, other.copy.name, offset)
    run(one, other)
    came = b"".join(part.octets for part in one.parts)
    start = offset if offset < length else 0
    assert came == other.copy.octets[start:]
    assert one.parts[0].offset == start


def test_of_another_copy_it_begins_anew() -> None:
    one, other = two({}, {}, (HEAD, LATER))
    other.copy = copy_of(LATER, 40_000)
    one.gossip.want(LATER, copy_of(LATER, 40_000, 3).name, 20_000)
    run(one, other)
    assert one.parts[0].offset == 0


def test_it_is_asked_for_once_until_it_came() -> None:
    one, other = two({}, {}, (HEAD, LATER))
    run(one, other)
    for offset in range(3):  # as octets come
        one.gossip.want(LATER, NO_COPY, offset)
        run(one, other)
    assert len(other.wanted) == 1
    other.copy = copy_of(LATER, 5)
    one.begin()
    one.gossip.want(LATER, NO_COPY, 0)
    run(one, other)
    one.gossip.want(LATER, NO_COPY, 0)
    run(one, other)
    assert len(one.parts) == 2


def test_what_is_not_wanted_any_more_stops() -> None:
    one, other = two({}, {}, (HEAD, LATER))
    other.copy = copy_of(LATER, 150_000)
    one.gossip.want(LATER, NO_COPY, 0)
    while not one.parts:
        for near, far in ((one, other), (other, one)):
            far.gossip.receive_data(near.gossip.take(4075))
            far.attend()
    one.gossip.want_nothing()
    one.gossip.want_nothing()
    assert run(one, other) <= 6  # what was under way, and no more
    assert len(one.parts) == 1
    assert other.gossip._copy is None


def test_what_is_not_wanted_before_it_was_said_is_not_said() -> None:
    one, other = two({}, {}, (HEAD, LATER))
    run(one, other)
    one.gossip.want(LATER, NO_COPY, 0)
    one.gossip.want_nothing()
    assert not one.gossip.pending


def test_another_head_takes_the_place_of_the_first() -> None:
    one, other = two({}, {}, (HEAD, LATER))
    other.copy = copy_of(LATER, 100)
    one.gossip.want(Head(9, bytes(32)), NO_COPY, 0)
    one.gossip.want(LATER, NO_COPY, 0)
    run(one, other)
    assert [want.head for want in other.wanted] == [LATER]
    assert len(one.parts) == 1


def test_the_handshake_s_head_is_heard_at_once() -> None:
    one, _ = two({}, {})
    one.begin(LATER)
    assert one.gossip.next_event() == Heard(LATER)
    assert one.gossip.next_event() is None


def test_the_head_goes_first_and_a_document_last() -> None:
    one, other = two({node(3): 1}, {node(3): 1})
    alpha = Hand(other)
    alpha.say(
        WantDocument(HEAD, NO_COPY, 0),
        WantPairs(2**BUCKETS - 1),
        WantBoxes((node(3), node(4))),
        HeadFrame(HEAD, 2, one.ledger.sums),
    )
    other.copy = copy_of(HEAD, 5)
    other.attend()
    names = [type(frame).__name__ for frame in alpha.heard()]
    assert names == ["HeadFrame", "Box", "Box", "Pairs", "Pairs", "Part"]


# hostile peers


class Hand:
    """A peer of our own making at the other end of a side's gossip."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.reader = FrameReader(LIMIT)

    def say(self, *frames: Frame) -> None:
        for frame in frames:
            self.side.gossip.receive_data(frame.encode())

    def heard(self) -> list[Frame]:
        found = []
        while octets := self.side.gossip.take(4075):
            self.reader.receive_data(octets)
        while (frame := self.reader.next_frame()) is not None:
            found.append(frame)
        return found


SUMS = bytes(8 * BUCKETS)
OTHER_SUMS = b"\1" * (8 * BUCKETS)


@pytest.mark.parametrize(
    "frames",
    [
        [Pairs(b"")],
        [Pairs(pair(node(3), 9))],
        [Box(b"")],
        [Box(box(node(3), 9))],
        [WantBoxes((node(3),)), WantBoxes((node(3),))],
        [WantPairs(1), WantPairs(1)],
        [Part(LATER, NO_COPY, LIMIT + 1, 0, b"x")],
    ],
)
def test_what_no_honest_peer_says_ends_the_link(frames: list[Frame]) -> None:
    side, _ = two({node(3): 1}, {})
    with pytest.raises(CellError):
        Hand(side).say(*frames)


def test_an_answer_too_many_ends_the_link() -> None:
    side, _ = two({node(3): 1}, {})
    bravo = Hand(side)
    bravo.say(HeadFrame(HEAD, 1, OTHER_SUMS))
    bravo.heard()
    bravo.say(Pairs(pair(node(3), 2)), Pairs(b""))
    bravo.heard()
    bravo.say(Box(box(node(3), 2)))
    with pytest.raises(CellError):
        bravo.say(Box(b""))
    with pytest.raises(CellError):
        bravo.say(Pairs(b""))


def test_a_document_that_nobody_wants_is_dropped() -> None:
    side, _ = two({}, {})
    bravo = Hand(side)
    for offset in range(0, 100_000, 1000):
        bravo.say(Part(LATER, NO_COPY, LIMIT, offset, b"x" * 1000))
    assert side.gossip.next_event() is None
    side.gossip.want(LATER, NO_COPY, 0)
    bravo.say(Part(HEAD, NO_COPY, 9, 0, b"x"))
    assert side.gossip.next_event() is None


def test_endless_pairs_take_no_memory() -> None:
    side, _ = two({node(3): 1}, {})
    bravo = Hand(side)
    bravo.say(HeadFrame(HEAD, 1, OTHER_SUMS))
    assert isinstance(bravo.heard()[-1], WantPairs)
    for round_ in range(1, 40):
        lies = (pair(node(n), round_) for n in range(PAIRS_MAX))
        bravo.say(Pairs(b"".join(lies)))
    assert side.gossip._sought.keys() <= {node(3)}
    assert len(side.gossip._events) <= 1


def test_endless_heads_ask_one_question() -> None:
    side, _ = two({node(3): 1}, {})
    bravo = Hand(side)
    for number in range(100):
        bravo.say(HeadFrame(HEAD, number, bytes([number + 1]) * 8 * BUCKETS))
        side.attend()
    questions = [f for f in bravo.heard() if not isinstance(f, HeadFrame)]
    assert questions == [WantPairs(2**BUCKETS - 1)]


def test_a_head_that_lies_about_serials_costs_a_question_each() -> None:
    side, _ = two({node(3): 1}, {})
    side.private = {BRAVO: 1}
    side.changed()
    bravo = Hand(side)
    bravo.say(HeadFrame(NO_HEAD, 2**64 - 1, SUMS))
    asked = bravo.heard()[-1]
    assert isinstance(asked, WantBoxes)
    assert asked.nodes == (BRAVO,)
    bravo.say(Box(b""))
    bravo.say(HeadFrame(NO_HEAD, 2**64 - 1, SUMS))
    assert not bravo.heard()


def test_questions_for_documents_cost_nothing_until_they_are_handed_over() -> None:
    side, _ = two({}, {})
    bravo = Hand(side)
    bravo.heard()
    side.copy = copy_of(HEAD, 100_000)
    for offset in range(100):
        bravo.say(WantDocument(HEAD, side.copy.name, offset))
    side.attend()
    said = bravo.heard()
    assert next(part.offset for part in said if isinstance(part, Part)) == 99
    bravo.say(WantDocument(HEAD, NO_COPY, 2**32 - 1))
    side.attend()
    bravo.say(NO_DOCUMENT)
    assert not bravo.heard()


@given(st.binary(max_size=300))
def test_garbage_is_gossip_or_raises_its_own_error(octets: bytes) -> None:
    side, _ = two({node(3): 1}, {})
    try:
        side.gossip.receive_data(octets)
    except CellError:
        return
    side.attend()


def test_a_link_may_have_none() -> None:
    assert not MUTE.pending
    assert MUTE.take(9) == b""
    MUTE.receive_data(b"\xff")
