# SPDX-License-Identifier: MIT
"""Full bodies: those that would have been written one by one, and read as such."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.bodies import FULL_LEN, write_full, write_replies
from mesh.core.cell import (
    BODY_LEN,
    CELL_LEN,
    HEADER,
    PADDING,
    BodyWriter,
    Kind,
    parse_untrusted,
)
from mesh.core.link import Link
from mesh.core.reply import OK
from mesh.core.smtp import Finished, Outgoing, Sender, SenderDialect
from mesh.core.strand import Ident, Strand
from mesh.core.streams import Inbound, Outbound, Received, Tally
from mesh.errors import CellError, LocalProtocolError

TO = "mix@bravo.test"
MAX_MESSAGE = 400_000
LENGTHS = st.sampled_from((2, 4_000, 70_000, 300_000))
HELO = b"HELO alpha\r\nMAIL FROM:<a@alpha.test>\r\nRCPT TO:<mix@bravo.test>\r\n"


def strand(name: str, peer: str) -> Strand:
    """One end of a connection whose link goes on from none."""

    def begin() -> Link:
        return Link(
            name=name, peer=peer, accepts=lambda _: None, max_message=MAX_MESSAGE
        )

    made = Strand(Ident(by_smaller=True, counter=1), begin)
    made.offer(None)
    return made


def link_of(end: Strand) -> Link:
    assert end.link is not None
    return end.link


def two() -> tuple[Strand, Strand]:
    alpha, bravo = strand("alpha", "bravo"), strand("bravo", "alpha")
    bravo.receive_body(alpha.next_body())
    alpha.receive_body(bravo.next_body())
    return alpha, bravo


def content(length: int, seed: int) -> bytes:
    line = bytes([65 + seed]) * 60 + b"\r\n"
    return (line * (length // len(line) + 1))[: length - 2] + b"\r\n"


def offer(link: Link, lengths: list[int]) -> list[bytes]:
    contents = [content(length, seed) for seed, length in enumerate(lengths)]
    for each in contents:
        link.offer(Outgoing(each, "a@alpha.test", (TO,), each, bytes(16)))
    return contents


def write(end: Strand, cells: int) -> memoryview:
    """What a carrier does: as many bodies as there are, in one place."""
    room, at = memoryview(bytearray(b"\xff" * cells * CELL_LEN)), 0
    while at < len(room) and (not at or end.has_data):
        at += end.write_bodies(room[at:])
    return room[:at]


def bodies(room: memoryview) -> list[bytes]:
    return [bytes(room[at : at + BODY_LEN]) for at in range(0, len(room), CELL_LEN)]


def answers(link: Link) -> list[bytes]:
    """Answer all messages that came; their contents."""
    came = []
    while (event := link.next_event()) is not None:
        assert isinstance(event, Received)
        came.append(event.message.content)
        link.answer(event.stream, OK)
    return came


def replies(link: Link) -> list[object]:
    """Whose messages were taken."""
    tokens = []
    while (event := link.next_event()) is not None:
        assert isinstance(event, Finished)
        assert event.replies == (OK,) or event.replies[0].code == OK.code
        tokens.append(event.token)
    return tokens


def written_as_one_by_one(lengths: list[int], cells: int, *, early: bool) -> None:
    (many, bravo), (one, _) = two(), two()
    for end in (many, one):
        offer(link_of(end), lengths[: 1 if early else None])
    for turn in range(1000):
        if turn == 3 and early:
            for end in (many, one):
                offer(link_of(end), lengths[1:])
        if not many.has_data:
            break
        for body in bodies(write(many, cells)):
            assert body == one.next_body()
            bravo.receive_body(body)
        assert (many.has_data, link_of(many).said) == (one.has_data, link_of(one).said)
        answers(link_of(bravo))
        while bravo.has_data:
            back = bravo.next_body()
            many.receive_body(back)
            one.receive_body(back)
    assert not many.has_data


def read_as_one_by_one(lengths: list[int], cells: int) -> None:
    alpha, bravo = two()
    sent, came, finished = offer(link_of(alpha), lengths), [], []
    while alpha.has_data or bravo.has_data:
        bravo.receive_bodies(write(alpha, cells))
        assert link_of(bravo).heard == link_of(alpha).said
        came += answers(link_of(bravo))
        alpha.receive_bodies(write(bravo, cells))
        assert link_of(alpha).heard == link_of(bravo).said
        finished += replies(link_of(alpha))
    assert sorted(came) == sorted(sent)
    assert len(finished) == len(sent)


@pytest.mark.parametrize("lengths", [[2], [70_000], [300_000, 70_000, 4_000]])
@pytest.mark.parametrize("cells", [1, 64])
def test_many_are_what_they_are_one_by_one(lengths: list[int], cells: int) -> None:
    written_as_one_by_one(lengths, cells, early=False)
    read_as_one_by_one(lengths, cells)


@settings(max_examples=20)
@given(st.lists(LENGTHS, min_size=1, max_size=4), st.integers(1, 70), st.booleans())
def test_so_are_any_messages_in_any_room(
    lengths: list[int], cells: int, early: bool
) -> None:
    written_as_one_by_one(lengths, cells, early=early)
    read_as_one_by_one(lengths, cells)


def full(octets: bytes, stream: int = 0) -> bytes:
    return HEADER.pack(Kind.COMMANDS, stream, FULL_LEN) + octets[:FULL_LEN]


def laid(*each: bytes) -> memoryview:
    return memoryview(b"".join([body.ljust(CELL_LEN, b"\xff") for body in each]))


def begun(size: int, last: bytes = b" LAST") -> tuple[Strand, bytes]:
    """A link on whose stream 0 a chunk has begun, and its first body."""
    _, bravo = two()
    head = HELO + b"BDAT %d%b\r\n" % (size, last)
    return bravo, full(head.ljust(FULL_LEN, b"x"))


def test_more_than_credit_is_refused_as_ever() -> None:
    bravo, first = begun(MAX_MESSAGE)
    bravo.receive_bodies(laid(first))
    link, more = link_of(bravo), laid(full(bytes(FULL_LEN)))
    inbound = link._in[0]
    inbound.granted = inbound.received + FULL_LEN
    assert link.receive_full(more, 0) == CELL_LEN
    inbound.granted = inbound.received + FULL_LEN - 1
    assert link.receive_full(more, 0) == 0
    with pytest.raises(CellError):
        bravo.receive_bodies(more)
    assert link.broken


def test_what_is_too_big_is_not_kept_and_nobody_else_s_is_taken() -> None:
    bravo, first = begun(MAX_MESSAGE + 1)
    bravo.receive_bodies(laid(first, *[full(bytes(FULL_LEN))] * 9))
    link = link_of(bravo)
    assert link._in[0].dialogue is not None
    assert link._in[0].dialogue.content_octets == 0
    assert link.receive_full(laid(full(bytes(FULL_LEN))), 0) == 0
    assert link.receive_full(laid(full(bytes(FULL_LEN), 1)), 0) == 0
    assert link.receive_full(laid(full(bytes(FULL_LEN), 60_000)), 0) == 0
    assert link.receive_full(laid(PADDING), 0) == 0
    link._in[0].dialogue = None
    assert link.receive_full(laid(full(bytes(FULL_LEN))), 0) == 0
    with pytest.raises(LocalProtocolError):
        Inbound().take_chunk(b"x")


def test_the_end_of_a_chunk_is_not_its_midst() -> None:
    head = len(HELO) + len(b"BDAT 99999 LAST\r\n")
    size = FULL_LEN - head + 6 * FULL_LEN
    bravo, first = begun(size)
    room = laid(first, *[full(b"y" * FULL_LEN)] * 6)
    link = link_of(bravo)
    bravo.receive_bodies(room[:CELL_LEN])
    assert link.receive_full(room, CELL_LEN) == 6 * CELL_LEN
    bravo.receive_bodies(room[6 * CELL_LEN :])
    event = link.next_event()
    assert isinstance(event, Received)
    assert len(event.message.content) == size


def test_a_person_s_words_and_a_broken_link_s_are_no_full_bodies() -> None:
    alpha, _ = two()
    link = link_of(alpha)
    number = link.open_raw()
    link.write_raw(number, b"NOOP\r\n" * 1000)
    room = write(alpha, 1)
    assert parse_untrusted(bodies(room)[0])[0].stream == number
    alpha, _ = two()
    link = link_of(alpha)
    offer(link, [70_000])
    with pytest.raises(CellError):
        link.receive_body(b"\xff" * BODY_LEN)
    assert bodies(write(alpha, 3)) == [PADDING]


def test_credit_ends_a_stream_s_turn_and_room_a_reply() -> None:
    stream, said = Outbound(), Tally()
    stream.sender = Sender(dialect=SenderDialect.LINK, helo="alpha")
    stream.sender.send(Outgoing(1, "a@alpha.test", (TO,), bytes(9_000), bytes(16)))
    stream.credit = 2 * FULL_LEN
    turns: dict[int, None] = {7: None}
    room = memoryview(bytearray(4 * CELL_LEN))
    assert write_full(room, turns, {7: stream}, said) == 2 * CELL_LEN
    assert (turns, stream.credit, said.commands) == ({}, 0, 2 * FULL_LEN)
    theirs = Inbound()
    theirs.replies += bytes(5_000)
    turns = {3: None}
    for left in (5_000 - FULL_LEN, 0):
        write_replies(BodyWriter(), turns, {3: theirs}, said)
        assert len(theirs.replies) == left
    assert (turns, said.replies) == ({}, 5_000)
