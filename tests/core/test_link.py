# SPDX-License-Identifier: MIT
"""Two links, a fake wire of bodies between them: streams, credit, fairness, ends."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core import streams as streams_
from mesh.core.cell import (
    BODY_LEN,
    CELL_LEN,
    CREDIT,
    PADDING,
    STREAMS_MAX,
    BodyWriter,
    Kind,
    parse_untrusted,
)
from mesh.core.command import DONE_IDS_MAX
from mesh.core.frames import NO_HEAD, Head
from mesh.core.gossip import Copy, Gossip, PartCame, Wanted
from mesh.core.ledger import Ledger, node_of
from mesh.core.link import (
    SMALL_MESSAGE_LEN,
    WINDOW,
    Answered,
    Done,
    Link,
    Received,
)
from mesh.core.raw import RawEnded
from mesh.core.reply import NO_SUCH_RECIPIENT, OK, Reply
from mesh.core.smtp import Finished, Outgoing
from mesh.core.streams import Tally
from mesh.errors import CellError, LocalProtocolError

MAX_MESSAGE = 2_000_000
MINE = "mix@bravo.test"


def accepts(path: str) -> Reply | None:
    return None if path == MINE else NO_SUCH_RECIPIENT


def make(name: str, peer: str) -> Link:
    return Link(name=name, peer=peer, accepts=accepts, max_message=MAX_MESSAGE)


def has_data(link: Link) -> bool:
    """Ask anew: a property changes between two questions."""
    return link.has_data


def has_done(link: Link) -> bool:
    """And here."""
    return link.has_done


def can_offer(link: Link) -> bool:
    """Ask anew here too."""
    return link.can_offer


class Pair:
    """alpha and bravo; what each said, and what bravo's messages were answered."""

    def __init__(self, answer: Callable[[Received], Reply] = lambda _: OK) -> None:
        self.alpha = make("alpha", "bravo")
        self.bravo = make("bravo", "alpha")
        self.answer = answer
        self.received: list[Received] = []
        self.finished: list[Finished] = []
        self.done: list[bytes] = []
        self.shown: list[tuple[int, int | bool]] = []
        self.bodies = 0
        for _ in range(2):
            self.bravo.receive_body(self.alpha.next_body())
            self.alpha.receive_body(self.bravo.next_body())

    def turn(self) -> None:
        """One body each way, and what follows from it."""
        self.bravo.receive_body(self.alpha.next_body())
        while (event := self.bravo.next_event()) is not None:
            if isinstance(event, Received):
                self.received.append(event)
                self.bravo.answer(event.stream, self.answer(event))
            elif isinstance(event, Done):
                self.done += event.ids
        body = self.bravo.next_body()
        assert len(body) == BODY_LEN
        self.alpha.receive_body(body)
        while (event := self.alpha.next_event()) is not None:
            if isinstance(event, Answered):
                of = event.event
                shown = of.code if isinstance(of, Reply) else of.by_quit
                self.shown.append((event.stream, shown))
                continue
            assert isinstance(event, Finished)
            self.finished.append(event)
        self.bodies += 1

    def run(self, limit: int = 4000) -> None:
        while self.alpha.has_data or self.bravo.has_data:
            self.turn()
            limit -= 1
            assert limit > 0


def message(token: object, content: bytes, to: str = MINE) -> Outgoing:
    return Outgoing(token, "from@alpha.test", (to,), content, bytes(15) + b"\1")


def test_a_message_crosses_and_is_answered() -> None:
    pair = Pair()
    content = b"Subject: x\r\n\r\n.dot\r\n\0\xff\r\n"
    pair.alpha.offer(message("t", content))
    pair.run()
    (received,) = pair.received
    assert received.message.content == content
    assert received.message.reverse_path == "from@alpha.test"
    assert received.message.recipients == (MINE,)
    assert received.message.id == bytes(15) + b"\1"
    assert pair.finished == [Finished("t", (OK,))]


@given(st.lists(st.binary(max_size=9000), min_size=1, max_size=STREAMS_MAX))
def test_many_at_once_arrive_as_they_were(contents: list[bytes]) -> None:
    lawful = [c.replace(b"\r", b"").replace(b"\n", b"\r\n") for c in contents]
    pair = Pair()
    for number, content in enumerate(lawful):
        pair.alpha.offer(message(number, content))
    pair.run()
    assert sorted(r.message.content for r in pair.received) == sorted(lawful)
    assert sorted(f.token for f in pair.finished) == list(range(len(lawful)))  # type: ignore[type-var]


def test_a_stream_serves_one_message_after_another() -> None:
    pair = Pair()
    for number in range(100):
        pair.alpha.offer(message(number, b"x\r\n"))
        pair.run()
    assert [f.token for f in pair.finished] == list(range(100))
    assert {r.stream for r in pair.received} == {0}


def test_a_large_message_needs_and_gets_credit() -> None:
    pair = Pair()
    content = b"0123456789abcd\r\n" * (MAX_MESSAGE // 16)
    pair.alpha.offer(message("large", content))
    pair.run()
    assert pair.received[0].message.content == content


def test_ten_large_messages_at_once_all_arrive() -> None:
    pair = Pair()
    content = b"0123456789abcd\r\n" * (600_000 // 16)
    for number in range(10):
        pair.alpha.offer(message(number, content))
    pair.run()
    assert sorted(f.token for f in pair.finished) == list(range(10))  # type: ignore[type-var]
    assert all(f.replies == (OK,) for f in pair.finished)


def test_memory_of_messages_in_arrival_is_bounded() -> None:
    pair = Pair()
    content = b"0123456789abcd\r\n" * (MAX_MESSAGE // 16)
    for number in range(STREAMS_MAX):
        pair.alpha.offer(message(number, content))
    most = 0
    for _ in range(3000):
        pair.turn()
        held = sum(s.dialogue.buffered for s in pair.bravo._in.values() if s.dialogue)
        most = max(most, held)
    assert most <= STREAMS_MAX * (WINDOW + SMALL_MESSAGE_LEN) + MAX_MESSAGE


class Unanswered:
    """Large messages from alpha, of which bravo answers none by itself."""

    def __init__(self, *lengths: int) -> None:
        self.pair = Pair()
        self.whole: list[int] = []  # streams, as their messages came
        self.held: dict[int, int] = {}  # by place in `whole`: octets, not yet answered
        for number, length in enumerate(lengths):
            content = b"0123456789abcd\r\n" * (length // 16)
            self.pair.alpha.offer(message(number, content))

    def run(self) -> None:
        """Until nothing moves any more: either end has only padding."""
        alpha, bravo = self.pair.alpha, self.pair.bravo
        while alpha.has_data or bravo.has_data:
            bravo.receive_body(alpha.next_body())
            while (event := bravo.next_event()) is not None:
                assert isinstance(event, Received)
                self.held[len(self.whole)] = len(event.message.content)
                self.whole.append(event.stream)
            alpha.receive_body(bravo.next_body())

    def answer(self, place: int) -> None:
        del self.held[place]
        self.pair.bravo.answer(self.whole[place], OK)
        self.run()


def test_while_a_large_message_is_stored_the_next_comes_and_no_third() -> None:
    sent = Unanswered(600_000, 600_000, 600_000, 600_000)
    sent.run()
    assert len(sent.whole) == 2
    sent.answer(1)  # the second, which has the place: the first is still stored
    assert len(sent.whole) == 3
    sent.answer(2)
    assert len(sent.whole) == 4
    sent.answer(0)
    sent.answer(3)


def test_when_the_stored_one_is_answered_another_is_stored() -> None:
    sent = Unanswered(600_000, 600_000, 600_000, 600_000)
    sent.run()
    sent.answer(0)
    assert len(sent.whole) == 2  # the second has the place until it is answered
    sent.answer(1)
    assert len(sent.whole) == 4
    sent.answer(2)
    sent.answer(3)


@given(st.data(), st.lists(st.sampled_from((16, 90_000, 300_000, 400_000)), max_size=6))
@settings(max_examples=30)
def test_in_whatever_order_they_are_answered_all_arrive(
    data: st.DataObject, lengths: list[int]
) -> None:
    beside = data.draw(st.sampled_from((0, 300_000, 500_000)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams_, "STORED_MAX", beside)
        sent = Unanswered(*lengths)
        sent.run()
        for _ in lengths:
            large = [length for length in sent.held.values() if length > WINDOW]
            assert len(large) <= 1 + any(length <= beside for length in large)
            place = data.draw(st.sampled_from(sorted(sent.held)))
            sent.answer(place)
    assert len(sent.whole) == len(lengths)
    assert not sent.held


def test_who_has_waited_longest_for_the_place_has_it_next() -> None:
    pair = Pair()
    content = b"0123456789abcd\r\n" * (400_000 // 16)
    for number in range(6):
        pair.alpha.offer(message(number, content))
    while len(pair.finished) < 6:
        before = len(pair.finished)
        pair.turn()
        for _ in pair.finished[before:]:  # there is always another large one
            pair.alpha.offer(message("later", content))
    assert [f.token for f in pair.finished] == list(range(6))


def test_an_answer_that_is_none_gives_no_place_away() -> None:
    sent = Unanswered(600_000, 600_000, 600_000, 600_000)
    sent.run()
    with pytest.raises(LocalProtocolError, match="not one reply"):
        sent.pair.bravo.answer(sent.whole[0], OK, OK)
    sent.answer(1)
    assert len(sent.whole) == 3  # the first is still stored, so the third is the last


LARGE = b"0123456789abcd\r\n" * (80_000 // 16)


BEGUN = 9_000
"""Octets before the end: its last chunk has not begun."""


@pytest.mark.parametrize("first", [0, 1])
def test_a_small_message_behind_a_large_one_keeps_no_place(first: int) -> None:
    """From a peer that sends ahead, as ours never does."""
    link = make("bravo", "alpha")
    for number in range(2):
        tell(link, number, HELLO + said(LARGE) + said(b"x\r\n"))
    tell(link, 2, HELLO + said(LARGE)[:-BEGUN])
    assert link._large._coming == 1  # 0 is stored
    link.answer(first, OK)
    link.answer(1 - first, OK)
    assert link._large._coming == 2
    tell(link, 2, said(LARGE)[-BEGUN:])
    tell(link, 3, HELLO + said(LARGE)[:-BEGUN])
    # What is stored is large: the small ones are not it.
    assert link._large._coming == 3


def test_the_next_has_the_place_as_soon_as_the_last_chunk_has_begun() -> None:
    link = make("bravo", "alpha")
    tell(link, 0, HELLO + said(LARGE)[:-BEGUN])
    tell(link, 1, HELLO + said(LARGE)[:-BEGUN])
    assert link._large._coming == 0
    tell(link, 0, said(LARGE)[-BEGUN:-1_000])
    assert link._large._coming == 1
    tell(link, 2, HELLO + said(LARGE)[:-1])
    assert link._large._coming == 1  # and no third one
    tell(link, 0, said(LARGE)[-1_000:])
    link.answer(0, OK)
    assert link._large._ending is None


def test_a_last_chunk_that_wants_more_credit_keeps_the_place() -> None:
    """A chunk may be as long as a message: there must be credit for all that is left."""
    link = make("bravo", "alpha")
    content = b"0123456789abcd\r\n" * 40_000
    tell(link, 0, HELLO + said(content)[:100_000])
    tell(link, 1, HELLO + said(LARGE)[:-BEGUN])
    assert link._large._coming == 0
    tell(link, 0, said(content)[100_000 : -WINDOW - 4_000])
    assert link._large._coming == 0
    tell(link, 0, said(content)[-WINDOW - 4_000 :])
    link.answer(0, OK)
    assert link._large._coming == 1


def test_a_large_message_that_is_refused_in_its_last_chunk_is_not_waited_for() -> None:
    link = make("bravo", "alpha")
    bare = LARGE[:-1] + b"\n"
    tell(link, 0, HELLO + said(bare[:-2] + b"\n\n"))
    assert link._large._ending is None
    assert link._large._coming is None


def test_a_refused_chunk_has_credit_to_its_end() -> None:
    """Nobody wants its octets, and its sender must get rid of them."""
    link = make("bravo", "alpha")
    tell(
        link, 0, HELLO + b"MAIL FROM:<a@alpha.test>\r\nRCPT TO:<%b>\r\n" % MINE.encode()
    )
    tell(link, 0, b"BDAT %d LAST\r\n" % (2 * MAX_MESSAGE))
    for _ in range(2 * WINDOW // 4_000):
        tell(link, 0, bytes(4_000))


def test_a_small_message_elsewhere_makes_no_large_one_small() -> None:
    link = make("bravo", "alpha")
    for number in range(2):
        tell(link, number, HELLO + said(LARGE))
    tell(link, 2, HELLO + said(b"x\r\n"))
    tell(link, 1, b"NOOP\r\n")
    assert link._large._coming == 1


HELLO = b"EHLO alpha\r\n"


def said(content: bytes, first: int = 72_000) -> bytes:
    """A message in two chunks, if it is as long as that."""
    begin, end = content[:first], content[first:]
    chunks = b"BDAT %d LAST\r\n%b" % (len(end or begin), end or begin)
    if end:
        chunks = b"BDAT %d\r\n%b" % (len(begin), begin) + chunks
    return f"MAIL FROM:<a@alpha.test>\r\nRCPT TO:<{MINE}>\r\n".encode() + chunks


def tell(link: Link, stream: int, octets: bytes) -> None:
    for at in range(0, len(octets), 4000):
        writer = BodyWriter()
        writer.add(Kind.COMMANDS, stream, octets[at : at + 4000])
        link.receive_body(writer.finish())


def test_a_small_message_that_is_stored_takes_no_place() -> None:
    sent = Unanswered(1_008, 600_000, 600_000)
    sent.run()
    assert len(sent.whole) == 3
    for place in range(3):
        sent.answer(place)


def test_a_message_beyond_what_may_be_stored_beside_is_held_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams_, "STORED_MAX", 600_000)
    sent = Unanswered(600_016, 600_000, 600_000)
    sent.run()
    assert len(sent.whole) == 1
    sent.answer(0)
    assert len(sent.whole) == 3  # 600,000 are few enough
    sent.answer(1)
    sent.answer(2)


def test_a_large_message_does_not_stop_small_ones() -> None:
    pair = Pair()
    pair.alpha.offer(message("large", b"0123456789abcd\r\n" * 60_000))
    for _ in range(10):
        pair.turn()
    before = pair.bodies
    pair.alpha.offer(message("small", b"x" * 9998 + b"\r\n"))
    while not any(f.token == "small" for f in pair.finished):
        pair.turn()
    assert pair.bodies - before <= 8
    assert not any(f.token == "large" for f in pair.finished)


def test_a_refused_recipient_is_refused_for_that_message_only() -> None:
    pair = Pair()
    pair.alpha.offer(message("no", b"x\r\n", to="who@else.test"))
    pair.run()
    pair.alpha.offer(message("yes", b"x\r\n"))
    pair.run()
    assert [f.replies[0].code for f in pair.finished] == [550, 250]


def test_an_answer_may_come_much_later() -> None:
    pair = Pair()
    kept: list[Received] = []
    bravo = pair.bravo
    pair.alpha.offer(message("t", b"x\r\n"))
    for _ in range(5):
        bravo.receive_body(pair.alpha.next_body())
        while (event := bravo.next_event()) is not None:
            assert isinstance(event, Received)
            kept.append(event)
        pair.alpha.receive_body(bravo.next_body())
    assert has_data(bravo) is False
    bravo.answer(kept[0].stream, Reply(452, "no"))
    assert has_data(bravo) is True
    pair.run()
    assert pair.finished[0].replies[0].code == 452


def test_what_no_peer_waits_for_goes_with_the_answer_and_answers_wait_for_nobody() -> (
    None
):
    one = b"MAIL FROM:<>\r\nRCPT TO:<%b>\r\nBDAT 2 LAST\r\n\r\n" % MINE.encode()
    link = make("bravo", "alpha")
    link.receive_body(body((Kind.COMMANDS, 0, b"HELO alpha\r\n")))
    link.next_body()
    link.receive_body(body((Kind.COMMANDS, 0, one[:30])))
    assert has_data(link) is True  # its end has not come: nobody knows when it will
    for part in (one[30:-1], one[-1:]):
        link.receive_body(body((Kind.COMMANDS, 0, part)))
        assert has_data(link) is False
    assert link.next_event() is not None
    link.answer(0, OK)
    link.receive_body(body((Kind.COMMANDS, 0, one)))  # before it has heard the answer
    assert has_data(link) is True
    (segment,) = parse_untrusted(link.next_body())
    assert bytes(segment.octets) == b"250 ok\r\n" * 5
    link.receive_body(body((Kind.COMMANDS, 0, one)))
    assert has_data(link) is False  # and then as before


def test_done_ids_travel_with_and_without_mail() -> None:
    pair = Pair()
    ids = [bytes([n]) * 16 for n in range(DONE_IDS_MAX + 5)]
    pair.alpha.done(ids)
    assert not has_data(pair.alpha)  # for them alone no body need leave
    assert has_done(pair.alpha)
    pair.turn()
    assert not has_done(pair.alpha)
    pair.run()
    assert pair.done == ids
    pair.alpha.done(ids[:2])
    pair.alpha.offer(message("t", b"x\r\n"))
    pair.run()
    assert pair.done == ids + ids[:2]
    assert pair.finished


def test_ids_that_the_peer_may_not_have_heard_are_kept_for_the_next_link() -> None:
    pair = Pair()
    link = pair.alpha
    ids = [bytes([n]) * 16 for n in range(DONE_IDS_MAX + 5)]
    link.done(ids)
    assert link.untold() == ids
    link.next_body()  # on its way, and perhaps lost
    link.done([bytes(16)])
    assert link.untold() == [*ids, bytes(16)]
    link.offer(message("t", b"x\r\n"))
    assert link.untold() == [*ids, bytes(16)]
    link.receive_body(body((Kind.REPLIES, 0, b"220 hi\r\n" + b"250 ok\r\n" * 6)))
    assert link.untold() == [*ids, bytes(16)]
    link.receive_body(body((Kind.REPLIES, 0, b"250 ok\r\n")))
    assert isinstance(link.next_event(), Finished)
    assert link.untold() == []


def test_nothing_is_offered_before_the_other_side_is_proven() -> None:
    alone = make("alpha", "bravo")
    assert not alone.can_offer
    with pytest.raises(LocalProtocolError):
        alone.offer(message("t", b""))
    alone.done([bytes(16)])
    assert not alone.has_data
    assert alone.next_body() == PADDING
    alone.receive_body(PADDING)
    assert alone.up
    assert alone.can_offer


def test_no_more_than_the_streams_at_once() -> None:
    pair = Pair()
    for number in range(STREAMS_MAX):
        pair.alpha.offer(message(number, b""))
    assert not pair.alpha.can_offer
    pair.run()
    assert pair.alpha.can_offer


def test_a_close_ends_offers_and_says_nothing() -> None:
    pair = Pair()
    pair.alpha.offer(message("t", b"x\r\n"))
    pair.alpha.close()
    assert not pair.alpha.can_offer
    pair.run()
    assert pair.finished  # what was begun goes on while it may
    assert pair.alpha.next_body() == PADDING
    assert pair.bravo.can_offer
    pair.bravo.peer_closed = True
    assert not can_offer(pair.bravo)


def body(*segments: tuple[int, int, bytes]) -> bytes:
    writer = BodyWriter()
    for kind, stream, octets in segments:
        writer.add(kind, stream, octets)
    return writer.finish()


def test_quit_lets_a_stream_begin_anew() -> None:
    link = make("bravo", "alpha")
    link.receive_body(body((Kind.COMMANDS, 4, b"HELO alpha\r\nQUIT\r\n")))
    link.receive_body(body((Kind.COMMANDS, 4, b"HELO alpha\r\nNOOP\r\n")))
    said = bytes(link._in[4].replies)
    assert said.count(b"220 ") == 2
    assert said.count(b"221 ") == 1
    with pytest.raises(LocalProtocolError):
        link.answer(4, OK)


def test_replies_longer_than_a_body_take_several() -> None:
    link = make("bravo", "alpha")
    link.receive_body(body((Kind.COMMANDS, 0, b"NOOP\r\n" * 600)))
    said = b""
    while link.has_data:
        said += b"".join(
            bytes(segment.octets) for segment in parse_untrusted(link.next_body())
        )
    assert said.count(b"250 ") == 600


def test_an_answer_on_a_stream_that_ended_is_our_mistake() -> None:
    link = make("bravo", "alpha")
    link.receive_body(body((Kind.COMMANDS, 4, b"QUIT\r\n")))
    with pytest.raises(LocalProtocolError):
        link.answer(4, OK)


def flood(link: Any, octets: bytes, times: int) -> None:
    for _ in range(times):
        link.receive_body(body((Kind.COMMANDS, 0, octets)))


@pytest.mark.parametrize(
    "attack",
    [
        lambda link: link.receive_body(body((Kind.REPLIES, 3, b"250 ok\r\n"))),
        lambda link: link.receive_body(body((Kind.CREDIT, 3, CREDIT.pack(1)))),
        lambda link: flood(link, b"NOOP\r\n" * 600, 40),
        lambda link: link.receive_body(b"\xff" * BODY_LEN),
    ],
    ids=["reply", "credit", "noops", "garbage"],
)
def test_what_no_honest_peer_does_ends_the_link(attack: Callable[[Link], None]) -> None:
    link = make("bravo", "alpha")
    with pytest.raises(CellError):
        attack(link)


def test_a_stream_that_ends_gets_its_credit_back_all_the_same() -> None:
    link = make("bravo", "alpha")
    line = b"NOOP " + b"x" * 1990 + b"\r\n"
    link.receive_body(body((Kind.COMMANDS, 7, b"HELO alpha\r\n")))
    for _ in range(16):
        link.receive_body(body((Kind.COMMANDS, 7, line * 2)))
    link.receive_body(body((Kind.COMMANDS, 7, line + b"QUIT\r\n")))
    credit = parse_untrusted(link.next_body())[0]
    spent = 12 + 33 * len(line) + 6
    assert (credit.kind, credit.stream) == (Kind.CREDIT, 7)
    assert credit.octets == CREDIT.pack(spent)


def test_octets_past_the_credit_end_the_link() -> None:
    link = make("bravo", "alpha")
    link.receive_body(
        body(
            (
                Kind.COMMANDS,
                0,
                b"HELO alpha\r\nMAIL FROM:<>\r\nRCPT TO:<%b>\r\nBDAT 2 LAST\r\n\r\n"
                % MINE.encode(),
            )
        )
    )
    with pytest.raises(CellError):
        flood(link, b"NOOP\r\n" * 600, 1 + WINDOW // 3600)


def test_credit_past_the_window_ends_the_link() -> None:
    pair = Pair()
    pair.alpha.offer(message("t", b"x\r\n"))
    pair.turn()
    with pytest.raises(CellError):
        pair.alpha.receive_body(body((Kind.CREDIT, 0, CREDIT.pack(WINDOW + 1))))


def test_a_reply_that_answers_nothing_ends_the_link() -> None:
    pair = Pair()
    pair.alpha.offer(message("t", b"x\r\n"))
    pair.run()
    with pytest.raises(CellError):
        pair.alpha.receive_body(body((Kind.REPLIES, 0, b"250 ok\r\n")))


@pytest.mark.parametrize("said", [b"421 ending\r\n", b"what\r\n"])
def test_a_broken_link_takes_nothing_and_gives_nothing_more(said: bytes) -> None:
    pair = Pair()
    link = pair.alpha
    ask = b"HELO bravo\r\nMAIL FROM:<>\r\nRCPT TO:<%b>\r\nBDAT 2 LAST\r\n\r\n"
    link.receive_body(body((Kind.COMMANDS, 5, ask % MINE.encode())))
    link.offer(message("t", b"x\r\n"))
    link.done([bytes(16)])
    assert can_offer(link)
    with pytest.raises(CellError):
        link.receive_body(body((Kind.REPLIES, 0, said)))
    assert not can_offer(link)
    with pytest.raises(LocalProtocolError):
        link.offer(message("u", b"x\r\n"))
    link.answer(5, OK)  # a commit that ends meanwhile has nobody to tell
    assert not has_data(link)
    assert link.next_body() == PADDING


def test_ids_do_not_wait_for_full_bodies() -> None:
    pair = Pair()
    pair.alpha.offer(message("t", b"0123456789abcd\r\n" * 2000))
    pair.turn()
    pair.alpha.done([bytes(16)])
    room = memoryview(bytearray(3 * CELL_LEN))
    assert pair.alpha.write_bodies(room) == CELL_LEN  # the message's turn
    assert pair.alpha.write_bodies(room) == CELL_LEN
    assert b"NOOP DONE=" in bytes(room[:BODY_LEN])
    assert pair.alpha.write_bodies(room) == 3 * CELL_LEN


def test_a_broken_link_writes_no_full_bodies() -> None:
    pair = Pair()
    pair.alpha.offer(message("t", b"0123456789abcd\r\n" * 2000))
    pair.turn()
    room = memoryview(bytearray(3 * CELL_LEN))
    assert pair.alpha.write_bodies(room[:CELL_LEN]) == CELL_LEN
    assert room[:BODY_LEN] != PADDING
    with pytest.raises(CellError):
        pair.alpha.receive_body(body((Kind.CREDIT, 0, CREDIT.pack(WINDOW + 1))))
    assert pair.alpha.write_bodies(room) == CELL_LEN
    assert room[:BODY_LEN] == PADDING


def test_what_was_sent_ahead_is_read_to_its_end_or_the_link_ends() -> None:
    """An answer frees so many lines; of a flood no more are read than end the link."""
    for count, ends in ((3000, False), (20_000, True)):
        link = make("bravo", "alpha")
        talk = (
            b"HELO alpha\r\nMAIL FROM:<>\r\nRCPT TO:<mix@bravo.test>\r\nBDAT 0 LAST\r\n"
        )
        link.receive_body(body((Kind.COMMANDS, 0, talk)))
        for _ in range(count // 500):
            link.receive_body(body((Kind.COMMANDS, 0, b"NOOP\r\n" * 500)))
        received = link.next_event()
        assert isinstance(received, Received)
        if not ends:
            link.answer(received.stream, OK)
            assert len(link._in[0].replies) > 3000 * len(OK.encode())
            assert link._in[0].dialogue is not None
            assert not link._in[0].dialogue.buffered
            continue
        dialogue = link._in[0].dialogue
        assert dialogue is not None
        with pytest.raises(CellError):
            link.answer(received.stream, OK)
        assert dialogue.buffered > 60_000


def test_an_answer_that_frees_a_flood_ends_the_link() -> None:
    link = make("bravo", "alpha")
    ask = b"HELO alpha\r\nMAIL FROM:<>\r\nRCPT TO:<%b>\r\nBDAT 2 LAST\r\n\r\n"
    link.receive_body(body((Kind.COMMANDS, 0, ask % MINE.encode())))
    flood(link, b"NOOP\r\n" * 600, 20)
    with pytest.raises(CellError):
        link.answer(0, OK)
    assert not has_data(link)


def test_busy_or_idle_a_body_has_one_length() -> None:
    pair = Pair()
    assert {len(pair.alpha.next_body()) for _ in range(3)} == {BODY_LEN}
    for number in range(STREAMS_MAX):
        pair.alpha.offer(message(number, b"x" * 5000 + b"\r\n"))
    assert {len(pair.alpha.next_body()) for _ in range(60)} == {BODY_LEN}


def test_a_person_speaks_on_a_stream_of_his_own() -> None:
    pair = Pair()
    number = pair.alpha.open_raw()
    assert pair.alpha.has_data
    pair.run()
    assert pair.shown == [(number, 220)]
    pair.alpha.offer(message("mail", b"x\r\n"))
    pair.alpha.write_raw(number, b"MAIL FROM:<>\r\nRCPT TO:<%b>\r\n" % MINE.encode())
    pair.run()
    assert pair.alpha.raw_room(number) > 0
    pair.alpha.write_raw(number, b"BDAT 2 LAST\r\n\r\nQUIT\r\n")
    pair.run()
    codes = [220, 250, 250, 250, 221, True]
    assert pair.shown == [(number, code) for code in codes]
    assert len(pair.received) == 2
    pair.alpha.write_raw(number, b"NOOP\r\n")
    pair.alpha.end_raw(number, gone=True)
    assert not has_data(pair.alpha)
    assert pair.alpha.open_raw() == number
    pair.run()
    assert pair.shown[-1] == (number, 220)


def test_a_persons_stream_is_free_only_after_its_221() -> None:
    pair = Pair()
    numbers = [pair.alpha.open_raw() for _ in range(STREAMS_MAX)]
    assert sorted(numbers) == list(range(STREAMS_MAX))
    with pytest.raises(LocalProtocolError):
        pair.alpha.open_raw()
    pair.alpha.end_raw(numbers[3], gone=True)
    assert not pair.alpha.can_offer
    pair.run()
    pair.alpha.offer(message("mail", b"x\r\n"))
    pair.run()
    assert [f.token for f in pair.finished] == ["mail"]
    assert pair.received[0].stream == numbers[3]


def test_where_mail_has_spoken_a_person_waits_for_its_221() -> None:
    pair = Pair()
    for token in range(STREAMS_MAX):
        pair.alpha.offer(message(token, b"x\r\n"))
    pair.run()
    number = pair.alpha.open_raw()
    pair.alpha.write_raw(number, b"NOOP\r\nQUIT\r\n")
    pair.run()
    assert [code for _, code in pair.shown] == [220, 250, 221, True]
    pair.alpha.offer(message("after", b"x\r\n"))
    pair.run()
    assert pair.finished[-1].token == "after"


def test_a_reply_to_a_person_who_left_ends_the_link() -> None:
    pair = Pair()
    number = pair.alpha.open_raw()
    pair.alpha.end_raw(number, gone=False)
    pair.run()
    assert [code for _, code in pair.shown] == [220, 221, True]
    assert pair.shown[-1] == (number, RawEnded(by_quit=True).by_quit)
    with pytest.raises(CellError):
        pair.alpha.receive_body(body((Kind.REPLIES, number, b"250 ok\r\n")))


def test_a_person_has_no_stream_before_the_link_is_up() -> None:
    with pytest.raises(LocalProtocolError):
        make("alpha", "bravo").open_raw()
    assert make("alpha", "bravo").raw_room(0) == 0


# gossip


class Whole:
    """Collects the octets of the directory that was asked for."""

    def __init__(self) -> None:
        self.octets = bytearray()

    def hear(self, gossip: Gossip) -> None:
        while (event := gossip.next_event()) is not None:
            if isinstance(event, PartCame):
                assert event.part.offset == len(self.octets)
                self.octets += event.part.octets


HEAD = Head(2, bytes(32))
DOCUMENT = b"0123456789abcdef" * (10_485_760 // 16)


def talker(us: str, them: str, head: Head) -> Gossip:
    ledger = Ledger.of(node_of(us.encode()), 1, head)
    return Gossip(
        ledger=lambda: ledger,
        box_of=lambda _: None,
        peer=node_of(them.encode()),
        document_max_len=len(DOCUMENT),
    )


class Talking:
    """Two links, mail both ways; bravo may hand its directory over to alpha."""

    def __init__(self) -> None:
        self.alpha, self.bravo = make("alpha", "bravo"), make("bravo", "alpha")
        self.alpha_gossip = talker("alpha", "bravo", NO_HEAD)
        self.bravo_gossip = talker("bravo", "alpha", HEAD)
        self.alpha.gossip, self.bravo.gossip = self.alpha_gossip, self.bravo_gossip
        self.finished: list[object] = []
        self.whole = Whole()
        self.bodies = 0
        self.turn()
        self.turn()

    def hand_over(self) -> None:
        self.alpha_gossip.want(HEAD, bytes(16), 0)

    def turn(self) -> None:
        for near, far in ((self.alpha, self.bravo), (self.bravo, self.alpha)):
            far.receive_body(near.next_body())
            while (event := far.next_event()) is not None:
                if isinstance(event, Received):
                    far.answer(event.stream, OK)
                elif isinstance(event, Finished):
                    assert event.replies == (OK,)
                    self.finished.append(event.token)
        self.whole.hear(self.alpha_gossip)
        while (asked := self.bravo_gossip.next_event()) is not None:
            if isinstance(asked, Wanted):
                self.bravo_gossip.hand_over(asked.want, Copy.of(HEAD, DOCUMENT))
        self.bodies += 1

    def run(self) -> None:
        while self.alpha.has_data or self.bravo.has_data:
            self.turn()

    def until(self, token: object) -> int:
        """Turn until a message was answered; how many bodies it took."""
        before = self.bodies
        while token not in self.finished:
            self.turn()
        return self.bodies - before


def test_a_directory_of_10_mb_crosses_in_the_cells_that_it_needs() -> None:
    pair = Talking()
    pair.hand_over()
    pair.run()
    assert pair.whole.octets == DOCUMENT
    assert pair.bodies < 1.02 * len(DOCUMENT) / BODY_LEN


def test_mail_goes_on_beside_it_both_ways_and_it_beside_mail() -> None:
    large = b"0123456789abcd\r\n" * 60_000
    pair = Talking()
    pair.run()
    pair.bravo.offer(message("alone", large))
    alone = pair.until("alone")
    pair.hand_over()
    for _ in range(10):
        pair.turn()
    before = len(pair.whole.octets)
    assert before
    pair.bravo.offer(message("large", large))
    pair.alpha.offer(message("back", b"x" * 9998 + b"\r\n"))
    assert pair.until("back") <= 8
    assert pair.until("large") <= 2.1 * alone  # each has a half of the cells
    assert len(pair.whole.octets) - before > 0.9 * len(large)
    pair.run()
    assert pair.whole.octets == DOCUMENT


def gossip_in(octets: bytes) -> list[int]:
    return [len(s.octets) for s in parse_untrusted(octets) if s.kind == Kind.GOSSIP]


def test_gossip_has_half_of_a_body_while_commands_wait_and_all_without() -> None:
    pair = Talking()
    pair.run()
    pair.hand_over()
    pair.turn()
    pair.turn()
    assert gossip_in(pair.bravo.next_body()) == [BODY_LEN - 5]
    pair.bravo.offer(message("t", b"0123456789abcd\r\n" * 1000))
    (length,) = gossip_in(pair.bravo.next_body())
    assert (BODY_LEN - 5) // 2 - 20 <= length <= (BODY_LEN - 5) // 2


def test_gossip_waits_for_room_beside_replies() -> None:
    pair = Talking()
    pair.run()
    pair.hand_over()
    pair.turn()
    pair.bravo.receive_body(body((Kind.COMMANDS, 3, b"NOOP\r\n" * 600)))
    assert not gossip_in(pair.bravo.next_body())  # replies fill it
    assert has_data(pair.bravo)


def test_gossip_says_nothing_before_the_other_side_is_proven_nor_after_a_close() -> (
    None
):
    link = make("alpha", "bravo")
    link.gossip = talker("alpha", "bravo", NO_HEAD)
    assert not has_data(link)
    assert link.next_body() == PADDING
    link.receive_body(PADDING)
    assert has_data(link)
    link.close()
    assert not gossip_in(link.next_body())
    assert not has_data(link)


def test_gossip_that_no_honest_peer_sends_ends_the_link() -> None:
    link = make("alpha", "bravo")
    link.receive_body(body((Kind.GOSSIP, 0, b"\xff\0\0")))  # none of it is heard here
    link.gossip = talker("alpha", "bravo", NO_HEAD)
    with pytest.raises(CellError):
        link.receive_body(body((Kind.GOSSIP, 0, b"\xff\0\0")))
    assert not has_data(link)


def test_when_all_is_said_a_link_with_gossip_pads() -> None:
    pair = Talking()
    pair.run()
    assert pair.alpha.next_body() == pair.bravo.next_body() == PADDING


@given(st.lists(st.integers(0, 9_000), min_size=1, max_size=8))
def test_what_one_end_has_said_the_other_has_heard(lengths: list[int]) -> None:
    """Octets of commands and of replies, and of nothing else, body by body."""
    pair = Pair()
    assert (pair.alpha.said, pair.alpha.heard) == (Tally(), Tally())
    for number, length in enumerate(lengths):
        pair.alpha.offer(message(number, b"x" * length + b"\r\n"))
    pair.alpha.done([b"i" * 16])
    while pair.alpha.has_data or pair.bravo.has_data:
        pair.turn()
        assert pair.alpha.said == pair.bravo.heard
        assert pair.bravo.said == pair.alpha.heard
    assert pair.alpha.said.commands > sum(lengths)
    assert pair.alpha.said.replies == pair.bravo.said.commands == 0
    assert pair.bravo.said.replies >= len(b"250 ok\r\n") * len(lengths)


def test_a_link_does_not_move_or_end_by_itself() -> None:
    """A move or a close, alone or among others, is the connection's matter."""
    for segment in (
        (Kind.MOVE, 0, bytes(9)),
        (Kind.MOVE, 0, bytes(16)),
        (Kind.CLOSE, 0, b""),
    ):
        link = make("alpha", "bravo")
        with pytest.raises(CellError):
            link.receive_body(body((Kind.COMMANDS, 0, b"HELO alpha\r\n"), segment))
        assert link.broken


def test_many_bodies_at_once_are_what_they_are_one_by_one() -> None:
    pair = Pair()
    alpha, bravo = pair.alpha, pair.bravo
    large = b"0123456789abcd\r\n" * 20_000
    alpha.offer(message("t", large))
    room, at = memoryview(bytearray(80 * CELL_LEN)), 0
    while at < len(room) and alpha.has_data:
        at += alpha.write_bodies(room[at:])
    end = at
    at = full = 0
    while at < end:
        stop = bravo.receive_full(room[:end], at)
        full += stop - at
        if stop < end:
            bravo.receive_body(bytes(room[stop : stop + BODY_LEN]))
        at = stop + CELL_LEN
    assert full > 50 * CELL_LEN
    assert bravo.heard == alpha.said
    assert not has_data(alpha)  # the window is full
    assert has_data(bravo)  # and credit is granted for what came
    pair.run()
    assert [event.message.content for event in pair.received] == [large]
    assert pair.finished[0].token == "t"
