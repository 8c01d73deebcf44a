# SPDX-License-Identifier: MIT
"""A link that moves from connection to connection, and what may go wrong on the way."""

import gc
import random
import weakref
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.cell import BODY_LEN, CELL_LEN, CLOSE_BODY, PADDING, BodyWriter, Kind
from mesh.core.link import Link, Received
from mesh.core.reply import OK
from mesh.core.smtp import Finished, Outgoing
from mesh.core.strand import HELD_MAX, NO_IDENT, Ident, Strand, hello_body
from mesh.errors import CellError

MINE = "mix@bravo.test"


def make(name: str, peer: str) -> Link:
    return Link(name=name, peer=peer, accepts=lambda _: None, max_message=2_000_000)


def awaited(strand: Strand) -> bool:
    """Ask anew: a property changes between two questions."""
    return strand.awaited


def waits(strand: Strand) -> bool:
    """Ask anew here too."""
    return strand.waits


def has_data(strand: Strand) -> bool:
    """And here."""
    return strand.has_data


class Connection:
    """Two strands and the bodies on their way between them, first in, first out."""

    def __init__(self, counter: int, begun: list[Link]) -> None:
        def begin(name: str, peer: str) -> Callable[[], Link]:
            def make_link() -> Link:
                begun.append(make(name, peer))
                return begun[-1]

            return make_link

        ident = Ident(by_smaller=True, counter=counter)
        self.ends = (
            Strand(ident, begin("alpha", "bravo")),
            Strand(ident, begin("bravo", "alpha")),
        )
        self.ways: tuple[deque[bytes], deque[bytes]] = (deque(), deque())

    def send(self, side: int) -> None:
        self.ways[side].append(self.ends[side].next_body())

    def deliver(self, side: int) -> None:
        """Give the oldest body on its way to this side."""
        if self.ways[1 - side]:
            self.ends[side].receive_body(self.ways[1 - side].popleft())


class World:
    """Alpha and bravo, the connections between them, and what crossed."""

    def __init__(self) -> None:
        self.begun: list[Link] = []
        self.connections: list[Connection] = []
        self.offers: list[Callable[[], None]] = []
        self.received: list[bytes] = []
        self.finished: list[object] = []

    def connect(self) -> Connection:
        """Make one more, which goes on from the one before if both ends say so."""
        connection = Connection(len(self.connections) + 1, self.begun)
        before = self.connections[-1] if self.connections else None
        for side in (0, 1):
            connection.ends[side].offer(before.ends[side] if before else None)
        self.connections.append(connection)
        return connection

    def link(self, side: int) -> Link | None:
        for connection in self.connections:
            strand = connection.ends[side]
            if strand.current:
                return strand.link
        return None

    def attend(self) -> None:
        for connection in self.connections:
            for strand in connection.ends:
                while strand.link and (event := strand.link.next_event()) is not None:
                    if isinstance(event, Received):
                        self.received.append(bytes(event.message.content))
                        strand.link.answer(event.stream, OK)
                    elif isinstance(event, Finished):
                        self.finished.append(event.token)

    def settle(self) -> None:
        """Let everything cross that is on its way, and all that follows from it."""
        quiet = 0
        while quiet < 3:
            quiet += 1
            for connection in self.connections:
                for side in (0, 1):
                    if connection.ends[side].has_data or any(connection.ways):
                        quiet = 0
                    connection.send(side)
                    while connection.ways[side]:
                        connection.deliver(1 - side)
            self.attend()


def message(number: int, length: int) -> Outgoing:
    content = b"%d" % number * length + b"\r\n"
    return Outgoing(number, "", (MINE,), content, number.to_bytes(16, "big"))


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_whatever_crosses_when_nothing_waits_doubled_or_begun_again(
    seed: int, moves: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  # the same at each run
    world = World()
    world.connect()
    world.settle()
    sent = []
    for number in range(moves):
        link = world.link(0)
        assert link is not None
        for each in (2 * number, 2 * number + 1):
            outgoing = message(each, chance.choice([1, 900, 60_000]))
            link.offer(outgoing)
            sent.append(outgoing)
        for _ in range(chance.randrange(40)):
            _any_step(world, chance)
        world.connect()
        for _ in range(chance.randrange(200)):
            _any_step(world, chance)
        ends = world.connections[-1].ends
        while not all(strand.movable for strand in ends):
            _any_step(world, chance)
    world.settle()
    assert sorted(world.received) == sorted(bytes(each.content) for each in sent)
    assert sorted(world.finished) == list(range(2 * moves))  # type: ignore[type-var]
    assert len(world.begun) == 2  # one link at each end, whatever carried it
    for connection in world.connections[:-1]:
        for strand in connection.ends:
            assert strand.heard_out
            assert not strand.current
            assert not strand.has_data


def _any_step(world: World, chance: random.Random) -> None:
    connection = chance.choice(world.connections)
    side = chance.randrange(2)
    if chance.random() < 0.5:
        connection.send(side)
    else:
        connection.deliver(side)
    world.attend()


def test_a_connection_that_one_end_does_not_know_is_gone_on_from_by_neither() -> None:
    world = World()
    world.connect()
    world.settle()
    second = Connection(2, world.begun)
    second.ends[0].offer(world.connections[0].ends[0])
    old = world.connections[0].ends[0]
    assert awaited(old)
    second.ends[1].offer(None)  # it has begun again
    world.connections.append(second)
    world.settle()
    assert len(world.begun) == 4
    assert not awaited(old)
    assert world.connections[0].ends[0].successor is None
    assert (
        second.ends[0].link is world.begun[2] or second.ends[0].link is world.begun[3]
    )


def test_what_has_no_link_has_ended_or_has_moved_is_not_gone_on_from() -> None:
    world = World()
    first = world.connect()
    fresh = Connection(9, world.begun).ends[0]
    fresh.offer(first.ends[0])  # not agreed on yet
    assert fresh.next_body() == hello_body()
    world.settle()
    world.connect()
    world.settle()
    for old in first.ends:
        fresh = Connection(9, world.begun).ends[0]
        fresh.offer(old)
        assert fresh.next_body() == hello_body()


def test_none_may_be_said_before_anything_was_heard() -> None:
    """And what the other side could go on from does not count then."""
    world = World()
    first = world.connect()
    world.settle()
    new = Connection(9, world.begun)
    said = [new.ends[0].has_said]
    new.ends[0].offer(None)
    said.append(new.ends[0].has_said)
    assert said == [False, True]
    assert new.ends[0].next_body() == hello_body()
    new.ends[1].offer(first.ends[1])
    new.ends[1].receive_body(hello_body())
    assert new.ends[1].link is world.begun[-1] is not first.ends[1].link
    assert first.ends[1].movable


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_connection_is_offered_to_one_other_at_a_time(order: tuple[int, int]) -> None:
    """Two at once could be agreed on in another order at each end: a link torn apart."""
    world = World()
    first = world.connect()
    world.settle()
    rivals = [Connection(number, world.begun) for number in (2, 3)]
    for side in (0, 1):
        for at in order if side else (0, 1):
            rivals[at].ends[side].offer(first.ends[side])
    world.connections += rivals
    world.settle()
    for side in (0, 1):
        moved = [rival.ends[side].link is first.ends[side].link for rival in rivals]
        assert moved == [order == (0, 1), False]
        assert first.ends[side].heard_out == moved[0]


def test_last_words_that_came_before_the_hello_are_not_waited_for() -> None:
    world = World()
    old = world.connect()
    world.settle()
    new = Connection(2, world.begun)
    for side in (0, 1):
        new.ends[side].offer(old.ends[side])
    new.ends[1].receive_body(new.ends[0].next_body())
    old.ends[0].receive_body(old.ends[1].next_body())
    assert old.ends[0].heard_out
    new.ends[0].receive_body(new.ends[1].next_body())
    assert new.ends[0].link is old.ends[0].link
    assert not waits(new.ends[0])


def test_what_waits_for_the_old_one_s_last_words_is_not_offered() -> None:
    """Else what a peer may make us hold would grow with each connection more."""
    world = World()
    old = world.connect()
    world.settle()
    new = Connection(2, world.begun)
    for side in (0, 1):
        new.ends[side].offer(old.ends[side])
    new.ends[0].receive_body(hello_body(old.ends[0].ident))
    assert waits(new.ends[0])
    third = Connection(3, world.begun).ends[0]
    third.offer(new.ends[0])
    assert third.next_body() == hello_body()


@pytest.mark.parametrize("side", [0, 1])
def test_what_falls_with_a_connection(side: int) -> None:
    world = World()
    old = world.connect()
    world.settle()
    new, other = Connection(2, world.begun), Connection(3, world.begun)
    other.ends[side].offer(None)
    new.ends[side].offer(old.ends[side])

    def falls() -> tuple[bool, bool]:
        """The old one with the new one; the new one with the old one."""
        both = old.ends[side], new.ends[side]
        for each in both:
            assert not each.falls_with(other.ends[side])
            assert not other.ends[side].falls_with(each)
        return both[0].falls_with(both[1]), both[1].falls_with(both[0])

    assert falls() == (True, True)  # offered, and no answer yet
    new.ends[side].receive_body(hello_body(old.ends[0].ident))
    assert falls() == (False, True)  # moved, and waits for the last words
    old.ends[side].receive_body(moved_body(0, 0))
    assert falls() == (False, False)


def test_nothing_falls_with_a_connection_that_was_not_gone_on_from() -> None:
    world = World()
    old = world.connect()
    world.settle()
    new = Connection(2, world.begun).ends[0]
    new.offer(old.ends[0])
    new.receive_body(hello_body())
    assert not new.falls_with(old.ends[0])
    assert not old.ends[0].falls_with(new)


def test_what_was_held_and_is_no_good_falls_with_the_old_one() -> None:
    world = World()
    old = world.connect()
    world.settle()
    new = Connection(2, world.begun)
    for side in (0, 1):
        new.ends[side].offer(old.ends[side])
    new.ends[0].receive_body(hello_body(old.ends[0].ident))
    for body in (hello_body(), words()):
        new.ends[0].receive_body(body)
    with pytest.raises(CellError):
        old.ends[0].receive_body(moved_body(0, 0))
    assert new.ends[0].falls_with(old.ends[0])


def test_words_of_the_next_connection_wait_for_the_last_of_the_old() -> None:
    world = World()
    old = world.connect()
    world.settle()
    link = world.link(0)
    assert link
    link.offer(message(1, 9_000))
    old.send(0)  # one body of several, which the network holds
    new = world.connect()
    for _ in range(4):
        for side in (0, 1):
            new.send(side)
            new.deliver(1 - side)
    world.attend()
    assert waits(new.ends[1])  # if the old one ended now
    assert not world.received
    old.send(0)  # `moved`
    for _ in range(2):
        old.deliver(1)
    world.attend()
    assert not waits(new.ends[1])
    assert len(world.received) == 1


def moved_body(said: int, replies: int) -> bytes:
    writer = BodyWriter()
    writer.add(Kind.MOVE, 0, said.to_bytes(8, "big") + replies.to_bytes(8, "big"))
    return writer.finish()


def beside_another() -> bytes:
    writer = BodyWriter()
    writer.add(Kind.MOVE, 0, bytes(9))
    writer.add(Kind.CLOSE, 0, b"")
    return writer.finish()


def close_beside_words() -> bytes:
    writer = BodyWriter()
    writer.add(Kind.CLOSE, 0, b"")
    writer.add(Kind.COMMANDS, 0, b"HELO alpha\r\n")
    return writer.finish()


def words() -> bytes:
    writer = BodyWriter()
    writer.add(Kind.COMMANDS, 0, b"HELO alpha\r\n")
    return writer.finish()


@pytest.mark.parametrize(
    "bodies",
    [
        [hello_body(), hello_body()],
        [words()],
        [moved_body(0, 0)],
        [hello_body(), moved_body(0, 0)],
        [beside_another()],
        [hello_body(), beside_another()],
        [close_beside_words()],
        [hello_body(), close_beside_words()],
    ],
)
def test_what_no_honest_peer_says(bodies: list[bytes]) -> None:
    strand = Connection(1, []).ends[0]
    strand.offer(None)
    *first, last = bodies
    for body in first:
        strand.receive_body(body)
    with pytest.raises(CellError):
        strand.receive_body(last)


def test_a_hello_before_ours_was_asked_for_is_our_caller_s_mistake() -> None:
    strand = Connection(1, []).ends[0]
    with pytest.raises(CellError):
        strand.receive_body(hello_body())


@pytest.mark.parametrize("after", ["offered", "moved"])
@pytest.mark.parametrize(
    "bodies",
    [
        [moved_body(1, 0)],
        [moved_body(0, 1)],
        [moved_body(0, 0), moved_body(0, 0)],
        [moved_body(0, 0), words()],
        [moved_body(0, 0), hello_body()],
    ],
)
def test_no_honest_peer_says_on_a_connection_that_it_leaves(
    after: str, bodies: list[bytes]
) -> None:
    world = World()
    old = world.connect()
    world.settle()
    new = Connection(2, world.begun)
    new.ends[0].offer(old.ends[0])
    if after == "moved":
        new.ends[0].receive_body(hello_body(old.ends[0].ident))
    *first, last = bodies
    for body in first:
        old.ends[0].receive_body(body)
    with pytest.raises(CellError):
        old.ends[0].receive_body(last)


def test_moving_again_and_again_keeps_nothing_of_what_was() -> None:
    world = World()
    world.connect()
    for _ in range(5):
        world.settle()
        world.connect()
    world.settle()
    last = weakref.ref(world.connections[0].ends[0])
    del world.connections[:-1]
    gc.collect()
    assert last() is None


def test_a_move_among_other_words_ends_the_link() -> None:
    strand = Connection(1, []).ends[0]
    strand.offer(None)
    strand.receive_body(hello_body())
    writer = BodyWriter()
    writer.add(Kind.COMMANDS, 0, b"HELO alpha\r\n")
    writer.add(Kind.MOVE, 0, bytes(16))
    with pytest.raises(CellError):
        strand.receive_body(writer.finish())


def test_the_old_one_s_last_words_do_not_take_for_ever() -> None:
    world = World()
    old = world.connect()
    world.settle()
    new = Connection(2, world.begun)
    for side in (0, 1):
        new.ends[side].offer(old.ends[side])
    new.ends[1].receive_body(hello_body(old.ends[0].ident))
    for _ in range(HELD_MAX):
        new.ends[1].receive_body(words())
    with pytest.raises(CellError):
        new.ends[1].receive_body(words())


def test_the_last_cell_of_an_old_connection_ends_it_and_not_the_link() -> None:
    world = World()
    old = world.connect()
    world.settle()
    world.connect()
    world.settle()
    link = world.link(1)
    assert link
    old.ends[1].receive_body(CLOSE_BODY)
    assert old.ends[1].peer_closed
    assert not link.peer_closed
    link.offer(message(5, 100))
    current = world.connections[-1].ends[1]
    current.receive_body(CLOSE_BODY)
    assert current.peer_closed
    assert link.peer_closed


def test_ids_leave_where_the_words_do() -> None:
    world = World()
    (strand, _) = world.connect().ends
    world.settle()
    assert strand.link is not None
    strand.link.done([bytes(16)])
    assert not has_data(strand)
    assert strand.has_done
    assert b"NOOP DONE=" in strand.next_body()
    assert not any(each.has_done for each in world.connections[-1].ends)


def test_before_it_is_agreed_on_all_is_padding() -> None:
    strand = Connection(1, []).ends[0]
    assert strand.next_body() == PADDING
    assert not has_data(strand)
    strand.receive_body(PADDING)
    assert strand.up
    strand.receive_body(CLOSE_BODY)
    assert strand.peer_closed
    strand.offer(None)
    assert has_data(strand)
    assert NO_IDENT.counter == 0


def test_bodies_side_by_side_are_taken_and_written_as_one_by_one() -> None:
    begun: list[Link] = []
    near, far = Connection(1, begun).ends
    room = memoryview(bytearray(b"\xff" * 3 * CELL_LEN))
    near.offer(None)
    far.offer(None)
    assert near.write_bodies(room) == CELL_LEN
    assert room[:BODY_LEN] == hello_body()
    assert near.write_bodies(room[CELL_LEN:]) == CELL_LEN  # no link yet: padding
    far.receive_bodies(room[: 2 * CELL_LEN])
    near.receive_body(far.next_body())
    content = b"0123456789abcd\r\n" * 600
    assert near.link is not None
    near.link.offer(Outgoing("t", "a@alpha.test", (MINE,), content, bytes(16)))
    at = 0
    while near.has_data:
        at += near.write_bodies(room[at:])
    assert at == len(room)
    far.receive_bodies(room)
    assert far.link is not None
    event = far.link.next_event()
    assert isinstance(event, Received)
    assert event.message.content == content


def begun_by_bravo() -> tuple[World, Connection]:
    """Bravo is in the midst of a chunk to alpha."""
    world = World()
    old = world.connect()
    world.settle()
    link = old.ends[1].link
    assert link is not None
    content = b"0123456789abcd\r\n" * 4000
    link.offer(Outgoing("t", "b@bravo.test", ("mix@alpha.test",), content, bytes(16)))
    for _ in range(3):
        old.send(1)
        old.deliver(0)
    return world, old


def moved(world: World, old: Connection) -> Connection:
    """Both have said hello on the next one; none has said its last words here."""
    new = Connection(2, world.begun)
    world.connections.append(new)
    for side in (0, 1):
        new.ends[side].offer(old.ends[side])
    hellos = [end.next_body() for end in new.ends]
    for side in (0, 1):
        new.ends[side].receive_body(hellos[1 - side])
    return new


def test_full_bodies_leave_where_the_link_is() -> None:
    world, old = begun_by_bravo()
    new = moved(world, old)
    room = memoryview(bytearray(9 * CELL_LEN))
    assert old.ends[1].write_bodies(room) == CELL_LEN  # its last words
    old.ends[0].receive_bodies(room[:CELL_LEN])
    assert old.ends[0].heard_out
    assert old.ends[1].write_bodies(room) == CELL_LEN
    assert room[:BODY_LEN] == PADDING
    assert new.ends[1].write_bodies(room) == len(room)


def test_full_bodies_wait_for_the_old_one_s_last_words() -> None:
    world, old = begun_by_bravo()
    new = moved(world, old)
    room = memoryview(bytearray(3 * CELL_LEN))
    new.ends[1].write_bodies(room)
    heard = new.ends[0].link.heard.commands if new.ends[0].link else 0
    new.ends[0].receive_bodies(room)
    assert waits(new.ends[0])
    assert len(new.ends[0]._held) == 3
    assert new.ends[0].link is not None
    assert new.ends[0].link.heard.commands == heard
    world.settle()
    assert world.received == [b"0123456789abcd\r\n" * 4000]


def test_full_bodies_after_the_last_words_are_refused() -> None:
    world, old = begun_by_bravo()
    new = moved(world, old)
    old.send(1)
    old.deliver(0)
    assert old.ends[0].heard_out
    room = memoryview(bytearray(3 * CELL_LEN))
    new.ends[1].write_bodies(room)
    with pytest.raises(CellError):
        old.ends[0].receive_bodies(room)
