# SPDX-License-Identifier: MIT
"""The sender alone against written replies, then against a real Dialogue."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.dialogue import (
    Closed,
    Dialogue,
    DialogueKind,
    IdsDone,
    MessageReceived,
)
from mesh.core.reply import NO_ROOM, NO_SUCH_RECIPIENT, OK, TRY_LATER, Reply
from mesh.core.smtp import (
    CHUNK_LEN,
    CHUNKS_UNREPLIED,
    Event,
    Finished,
    Outgoing,
    Sender,
    SenderClosed,
    SenderDialect,
    StartTls,
)
from mesh.errors import LocalProtocolError
from tests import strategies

LINK, LMTP, SMTP = SenderDialect.LINK, SenderDialect.LMTP, SenderDialect.SMTP
ID = bytes(range(16))
EHLO = b"250-x\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 8BITMIME\r\n"


def outgoing(
    content: bytes = b"x\r\n",
    *recipients: str,
    token: object = 1,
    id_: bytes | None = None,
) -> Outgoing:
    return Outgoing(token, "from@a", recipients or ("x@b",), content, id_)


def sender(dialect: SenderDialect, *replies: bytes) -> Sender:
    """A sender past its greeting, if the replies bring it there."""
    made = Sender(dialect=dialect, helo="me")
    for reply in replies:
        made.take(10_000)
        made.receive_data(reply)
    return made


def out(one: Sender) -> bytes:
    return one.take(10**9)


def can_send(one: Sender) -> bool:
    return one.can_send


def idle(one: Sender) -> bool:
    return one.idle


def pending(one: Sender) -> bool:
    return one.pending


def events(one: Sender) -> list[Event]:
    found = []
    while (event := one.next_event()) is not None:
        found.append(event)
    return found


def codes(one: Sender) -> list[tuple[object, list[int]]]:
    """Token and codes of every Finished that there is."""
    return [
        (event.token, [reply.code for reply in event.replies])
        for event in events(one)
        if isinstance(event, Finished)
    ]


# Two real ends


class Wire:
    """A Sender and a Dialogue, joined by octets that arrive in the given pieces."""

    def __init__(
        self,
        dialect: SenderDialect,
        room: Callable[[], int],
        accepts: Callable[[str], Reply | None],
        answer: Callable[[MessageReceived], tuple[Reply, ...]],
    ) -> None:
        self.sender = Sender(dialect=dialect, helo="me")
        kind = DialogueKind.LINK if dialect is LINK else DialogueKind.LOCAL
        self.dialogue = Dialogue(
            name="you", kind=kind, accepts=accepts, peer="me", max_message=1_000_000
        )
        self.room, self.answer = room, answer
        self.received: list[MessageReceived] = []
        self.done: list[bytes] = []
        self.outcomes: list[Finished] = []
        self.closed = 0

    def carry(self) -> bool:
        """Some octets each way; False when there was nothing left to carry."""
        octets = self.sender.take(self.room())
        self.dialogue.receive_data(octets)
        while (event := self.dialogue.next_event()) is not None:
            if isinstance(event, MessageReceived):
                self.received.append(event)
                self.dialogue.answer(*self.answer(event))
            elif isinstance(event, IdsDone):
                self.done += event.ids
            else:
                self.closed += 1
        replies = self.dialogue.data_to_send()
        room = self.room()
        self.sender.receive_data(replies[:room])
        self.sender.receive_data(replies[room:])
        for said in events(self.sender):
            if isinstance(said, Finished):
                self.outcomes.append(said)
            else:
                self.closed += 1
        return bool(octets or replies)

    def run(self, *messages: Outgoing) -> None:
        """All messages across, each as soon as the sender takes it."""
        left = list(messages)
        while self.carry() or left:
            while left and self.sender.can_send:
                self.sender.send(left.pop(0))


rooms = st.lists(
    st.sampled_from([1, 2, 3, 7, 100, 4076, 70_000, 10**9]), min_size=1, max_size=8
)


def in_turn(values: list[int]) -> Callable[[], int]:
    """The values round and round; the last makes sure that the end is reached."""
    state = {"next": 0}

    def room() -> int:
        state["next"] += 1
        return [*values, 4076][state["next"] % (len(values) + 1)]

    return room


envelopes = st.lists(
    st.sampled_from(["x@b", "y@b", '"a b"@c', "no@b", "full@b"]),
    min_size=1,
    max_size=4,
)


def accepts(path: str) -> Reply | None:
    return {"no@b": NO_SUCH_RECIPIENT, "full@b": NO_ROOM}.get(path)


@given(
    rooms,
    st.sampled_from(SenderDialect),
    st.lists(st.tuples(envelopes, strategies.contents), min_size=1, max_size=4),
    strategies.final_replies,
)
def test_two_ends_carry_the_same_octets(
    rooms: list[int],
    dialect: SenderDialect,
    mails: list[tuple[list[str], bytes]],
    final: Reply,
) -> None:
    wire = Wire(dialect, in_turn(rooms), accepts, lambda _: (final,))
    messages = [
        outgoing(content, *recipients, token=token, id_=ID if dialect is LINK else None)
        for token, (recipients, content) in enumerate(mails)
    ]
    wire.run(*messages)
    wire.sender.quit()
    wire.run()

    expected, outcomes = [], []
    for message in messages:
        refusals = [accepts(path) for path in message.recipients]
        first = next((refusal for refusal in refusals if refusal), None)
        taken = tuple(
            dict.fromkeys(path for path in message.recipients if not accepts(path))
        )
        if dialect is SMTP and first:  # a local SMTP transaction is all or nothing
            last = first
        else:
            last = final
            if taken:
                content = message.content
                if dialect is not LINK and content and not content.endswith(b"\r\n"):
                    content += b"\r\n"
                expected.append(MessageReceived("from@a", taken, message.id, content))
        replies = tuple([refusal or last for refusal in refusals])
        outcomes.append(Finished(message.token, replies))
    assert wire.received == expected
    assert wire.outcomes == outcomes
    assert wire.closed == 2
    assert wire.sender.idle


@pytest.mark.parametrize("dialect", SenderDialect)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".\r\n",
        b"." * 5000 + b"\r\n",
        b"\x00" * 5000 + b"\r\n",
        bytes(set(range(256)) - {10, 13}) + b"\r\n",
        b"\r\n.\r\n..\r\n...\r\n",
        (b"y" * 4998 + b"\r\n") * 66,
    ],
    ids=["empty", "dot", "dots", "nul", "eight", "ends", "long"],
)
def test_octets_that_hurt(dialect: SenderDialect, content: bytes) -> None:
    wire = Wire(dialect, lambda: 4076, accepts, lambda _: (OK,))
    wire.run(outgoing(content), outgoing(content))
    assert [message.content for message in wire.received] == [content, content]
    assert [outcome.replies for outcome in wire.outcomes] == [(OK,), (OK,)]


def test_lmtp_brings_each_recipient_its_own_reply() -> None:
    replies = (OK, NO_ROOM)
    wire = Wire(LMTP, lambda: 50, accepts, lambda _: replies)
    wire.run(outgoing(b"", "x@b", "no@b", "y@b", "x@b"))
    assert wire.outcomes == [Finished(1, (OK, NO_SUCH_RECIPIENT, NO_ROOM, OK))]


def test_a_message_too_big_refuses_itself_and_no_other() -> None:
    wire = Wire(LINK, lambda: 4076, accepts, lambda _: (OK,))
    wire.run(outgoing(b"x" * 20 * CHUNK_LEN), outgoing(b"small"))
    assert [outcome.replies[0].code for outcome in wire.outcomes] == [552, 250]
    assert [message.content for message in wire.received] == [b"small"]


def test_ids_are_done() -> None:
    wire = Wire(LINK, lambda: 4076, accepts, lambda _: (OK,))
    ids = tuple([number.to_bytes(16, "big") for number in range(120)])
    wire.sender.done(ids)
    wire.run(outgoing())
    wire.sender.done(())
    assert tuple(wire.done) == ids
    assert wire.sender.idle


# The link's dialect


def test_a_link_waits_for_nothing() -> None:
    one = Sender(dialect=LINK, helo="me")
    assert can_send(one)
    one.send(outgoing(b"abc", id_=ID))
    assert not can_send(one)
    assert pending(one)
    assert out(one) == (
        b"HELO me\r\nMAIL FROM:<from@a> SIZE=3 ID=" + ID.hex().encode() + b"\r\n"
        b"RCPT TO:<x@b>\r\nBDAT 3 LAST\r\nabc"
    )
    assert not pending(one)
    one.receive_data(b"220 x\r\n250 x\r\n" + OK.encode() * 2)
    assert not idle(one)
    assert events(one) == []
    one.receive_data(OK.encode())
    assert events(one) == [Finished(1, (OK,))]
    assert idle(one)
    assert can_send(one)


def test_chunks_wait_for_their_replies() -> None:
    one = sender(LINK, b"220 x\r\n250 x\r\n")
    content = b"begin" + bytes(6 * CHUNK_LEN)
    one.send(outgoing(content))
    octets = out(one)
    assert octets.count(b"BDAT") == CHUNKS_UNREPLIED
    assert b"BDAT 5\r\nbeginBDAT 65536\r\n\x00" in octets
    one.receive_data(OK.encode() * 2)
    assert out(one) == b""
    one.receive_data(OK.encode())
    assert out(one) == b"BDAT 65536\r\n" + bytes(CHUNK_LEN)
    one.receive_data(OK.encode() * 2)
    assert out(one).endswith(b"BDAT 65536 LAST\r\n" + bytes(CHUNK_LEN))
    one.receive_data(OK.encode() * 3)
    assert events(one) == []
    one.receive_data(NO_ROOM.encode())
    assert codes(one) == [(1, [452])]


def test_no_chunk_follows_a_refused_one() -> None:
    one = sender(LINK, b"220 x\r\n250 x\r\n")
    one.send(outgoing(bytes(6 * CHUNK_LEN), "x@b", "no@b"))
    out(one)
    one.receive_data(OK.encode() * 2 + NO_SUCH_RECIPIENT.encode())
    one.receive_data(OK.encode() + NO_ROOM.encode() + TRY_LATER.encode())
    assert out(one).count(b"BDAT") == 1
    assert events(one) == []
    one.receive_data(OK.encode() * 2)
    assert out(one) == b"RSET\r\n"
    assert codes(one) == [(1, [452, 550])]
    one.receive_data(OK.encode())
    assert idle(one)


def test_a_refused_mail_refuses_every_recipient() -> None:
    one = sender(LINK, b"220 x\r\n250 x\r\n")
    one.send(outgoing(b"", "x@b", "y@b"))
    one.receive_data(b"452 full\r\n503 x\r\n503 x\r\n")
    assert events(one) == []
    one.receive_data(b"503 x\r\n")
    assert codes(one) == [(1, [452, 452])]


# LMTP and SMTP


def test_nothing_is_said_before_the_greeting() -> None:
    one = Sender(dialect=LMTP, helo="me")
    one.send(outgoing(b"\xff\r\n", id_=ID))
    assert out(one) == b""
    one.receive_data(b"220 x\r\n")
    assert out(one) == b"LHLO me\r\n"
    one.receive_data(EHLO)
    assert out(one) == (
        b"MAIL FROM:<from@a> SIZE=3 BODY=8BITMIME\r\nRCPT TO:<x@b>\r\nDATA\r\n"
    )


def test_parameters_are_for_those_who_offer_them() -> None:
    one = sender(SMTP, b"220 x\r\n", b"250-x\r\n250 PIPELINING\r\n")
    one.send(outgoing(b"\xff\r\n"))
    assert out(one).startswith(b"MAIL FROM:<from@a>\r\n")
    one = sender(SMTP, b"220 x\r\n", EHLO)
    one.send(outgoing(b"x\r\n"))
    assert out(one).startswith(b"MAIL FROM:<from@a> SIZE=3\r\n")


def test_the_next_message_follows_the_dot_in_one_write() -> None:
    one = sender(LMTP, b"220 x\r\n", EHLO)
    one.send(outgoing(b"one\r\n", token=1))
    assert not can_send(one)
    assert out(one).endswith(b"DATA\r\n")
    one.receive_data(OK.encode() * 2 + b"354 x\r\n")
    assert can_send(one)
    one.send(outgoing(b"two\r\n", token=2))
    assert not can_send(one)
    assert out(one) == (
        b"one\r\n.\r\nMAIL FROM:<from@a> SIZE=5\r\nRCPT TO:<x@b>\r\nDATA\r\n"
    )
    one.receive_data(OK.encode() * 3 + b"354 x\r\n")
    assert codes(one) == [(1, [250])]
    assert out(one) == b"two\r\n.\r\n"
    one.receive_data(NO_ROOM.encode())
    assert codes(one) == [(2, [452])]


def test_without_pipelining_one_line_a_reply() -> None:
    one = sender(SMTP, b"220 x\r\n", b"250 x\r\n")
    one.send(outgoing(b"x\r\n", "x@b", "y@b"))
    said = []
    for reply in (OK, NO_ROOM, OK, Reply(354, "x"), OK):
        said.append(out(one))
        assert not can_send(one)
        one.receive_data(reply.encode())
    assert said == [
        b"MAIL FROM:<from@a>\r\n",
        b"RCPT TO:<x@b>\r\n",
        b"RCPT TO:<y@b>\r\n",
        b"DATA\r\n",
        b"x\r\n.\r\n",
    ]
    assert codes(one) == [(1, [452, 250])]


def test_without_pipelining_what_is_in_vain_is_not_said() -> None:
    one = sender(SMTP, b"220 x\r\n", b"250 x\r\n")
    one.send(outgoing(b"x\r\n", "x@b", "y@b", token=1))
    one.receive_data(b"552 x\r\n")
    assert codes(one) == [(1, [552, 552])]
    one.send(outgoing(b"x\r\n", "x@b", "y@b", token=2))
    one.receive_data(OK.encode() + NO_ROOM.encode() + NO_SUCH_RECIPIENT.encode())
    assert codes(one) == [(2, [452, 550])]
    one.quit()
    assert out(one).endswith(b"RCPT TO:<y@b>\r\nRSET\r\n")
    one.receive_data(OK.encode())
    assert out(one) == b"QUIT\r\n"


def test_helo_where_ehlo_is_not_known() -> None:
    one = sender(SMTP, b"220 x\r\n", b"500 x\r\n")
    assert out(one) == b"HELO me\r\n"
    one.receive_data(b"250 x\r\n")
    one.send(outgoing())
    assert out(one) == b"MAIL FROM:<from@a>\r\n"
    for again in (sender(SMTP, b"220 x\r\n", b"500 x\r\n", b"500 x\r\n"),):
        assert events(again) == [SenderClosed()]
    assert events(sender(SMTP, b"220 x\r\n", b"450 x\r\n")) == [SenderClosed()]
    assert events(sender(LMTP, b"220 x\r\n", b"500 x\r\n")) == [SenderClosed()]


def test_a_refused_data_is_followed_by_a_reset() -> None:
    one = sender(LMTP, b"220 x\r\n", EHLO)
    one.send(outgoing(b"x\r\n", "no@b", "x@b"))
    one.receive_data(OK.encode() + NO_SUCH_RECIPIENT.encode() + OK.encode())
    out(one)
    one.receive_data(b"451 x\r\n")
    assert codes(one) == [(1, [550, 451])]
    one.send(outgoing())
    assert out(one).startswith(b"RSET\r\nMAIL ")


@pytest.mark.parametrize(
    ("dialect", "final"), [(LMTP, b""), (SMTP, b"554 no valid recipients\r\n")]
)
def test_a_354_for_nobody_is_answered_by_a_dot(
    dialect: SenderDialect, final: bytes
) -> None:
    one = sender(dialect, b"220 x\r\n", EHLO)
    one.send(outgoing(b"secret\r\n", "no@b", "full@b"))
    out(one)
    one.receive_data(OK.encode() + NO_SUCH_RECIPIENT.encode() + NO_ROOM.encode())
    one.receive_data(b"354 x\r\n")
    assert out(one) == b".\r\n"
    one.receive_data(final)
    assert codes(one) == [(1, [550, 452])]


def test_a_mail_refused_and_all_the_rest_taken_is_still_refused() -> None:
    one = sender(SMTP, b"220 x\r\n", EHLO)
    one.send(outgoing(b"secret\r\n"))
    out(one)
    one.receive_data(b"550 x\r\n503 x\r\n354 x\r\n")
    assert out(one) == b".\r\n"
    one.receive_data(OK.encode())
    assert codes(one) == [(1, [550])]


def test_quit_comes_last() -> None:
    one = sender(LMTP, b"220 x\r\n", EHLO)
    one.send(outgoing())
    one.quit()
    one.quit()
    assert not can_send(one)
    with pytest.raises(LocalProtocolError):
        one.send(outgoing())
    assert b"QUIT" not in out(one)
    one.receive_data(OK.encode() * 2 + b"354 x\r\n" + OK.encode())
    one.quit()
    assert out(one) == b"x\r\n.\r\nQUIT\r\n"
    one.receive_data(b"221 x\r\n")
    assert events(one) == [Finished(1, (OK,)), SenderClosed()]
    early = Sender(dialect=LMTP, helo="me")
    early.send(outgoing())
    early.quit()
    assert events(early) == [Finished(1, (TRY_LATER,)), SenderClosed()]


# STARTTLS

OFFER = b"250-x\r\n250-STARTTLS\r\n250 PIPELINING\r\n"


def encrypting(*replies: bytes) -> Sender:
    """An SMTP sender that wants TLS, behind its EHLO and these replies."""
    one = Sender(dialect=SMTP, helo="me", tls=True)
    one.send(outgoing(token=1))
    for reply in (b"220 x\r\n", *replies):
        one.receive_data(reply)
    return one


def test_what_is_offered_is_encrypted_and_all_begins_anew() -> None:
    one = encrypting(OFFER)
    assert out(one) == b"EHLO me\r\nSTARTTLS\r\n"
    assert not is_ready(one)
    one.receive_data(b"220 go\r\n")
    assert events(one) == [StartTls()]
    assert out(one) == b""
    one.tls_started()
    assert out(one) == b"EHLO me\r\n"
    assert not is_ready(one)
    # A second offer is no offer, and PIPELINING from before is forgotten.
    one.receive_data(b"250-x\r\n250 STARTTLS\r\n")
    assert is_ready(one)
    assert out(one) == b"MAIL FROM:<from@a>\r\n"


def is_ready(one: Sender) -> bool:
    return one.ready


@pytest.mark.parametrize("behind", [b"250 injected\r\n", b"2", b"\r\n"])
def test_octets_behind_the_220_end_it(behind: bytes) -> None:
    closed = [Finished(1, (TRY_LATER,)), SenderClosed()]
    at_once = encrypting(OFFER, b"220 go\r\n" + behind)
    assert events(at_once) == closed
    assert not is_ready(at_once)
    later = encrypting(OFFER, b"220 go\r\n")
    later.receive_data(behind)
    assert events(later) == [StartTls(), *closed]
    before = encrypting(OFFER + b"220 go\r\n250-", b"x")
    assert events(before) == closed


@pytest.mark.parametrize("refusal", [b"454 x\r\n", b"502 x\r\n"])
def test_a_refusal_leaves_it_in_clear(refusal: bytes) -> None:
    one = encrypting(OFFER, refusal)
    assert out(one) == (
        b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<from@a>\r\nRCPT TO:<x@b>\r\nDATA\r\n"
    )


def test_tls_is_for_those_who_offer_and_those_who_want_it() -> None:
    assert b"STARTTLS" not in out(encrypting(EHLO))
    assert b"STARTTLS" not in out(encrypting(b"500 x\r\n", OFFER.replace(b"-", b" ")))
    unwilling = sender(SMTP, b"220 x\r\n", OFFER)
    assert is_ready(unwilling)
    assert out(unwilling) == b""
    with pytest.raises(LocalProtocolError):
        unwilling.tls_started()


def test_a_connection_that_ends_while_it_is_encrypted() -> None:
    one = encrypting(OFFER, b"220 go\r\n")
    one.receive_eof()
    assert events(one) == [StartTls(), Finished(1, (TRY_LATER,)), SenderClosed()]


# Ends before their time

BREAKS = {
    "421": b"421 going\r\n",
    "garbage": b"hello\r\n",
    "354": b"354 x\r\n",
    "eof": None,
}


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("at", range(7))
def test_whatever_breaks_each_message_comes_back_once(broken: str, at: int) -> None:
    one = Sender(dialect=LMTP, helo="me")
    one.send(outgoing(b"x\r\n", "x@b", "y@b", token=1))
    good = [b"220 x\r\n", EHLO, b"250 x\r\n", b"550 x\r\n", b"250 x\r\n", b"354 x\r\n"]
    for reply in good[:at]:
        one.receive_data(reply)
    if at == len(good):
        one.send(outgoing(token=2))
    octets = BREAKS[broken]
    if broken == "354" and at == 5:
        octets = b"250 x\r\n"  # the one place where a 354 is right and this is wrong
    if octets is None:
        one.receive_eof()
    else:
        one.receive_data(octets + b"250 x\r\n")
    code = 421 if broken == "421" else 451
    outcome: list[tuple[object, list[int]]]
    outcome = [(1, [550 if at > 3 else code, code])]
    if at == len(good):
        outcome.append((2, [code]))
    found = events(one)
    assert found.pop() == SenderClosed()
    assert [
        (event.token, [reply.code for reply in event.replies])
        for event in found
        if isinstance(event, Finished)
    ] == outcome
    held = len(one._reader._buffer)
    one.receive_data(b"250 x\r\n")
    one.receive_eof()
    assert len(one._reader._buffer) == held
    assert not can_send(one)
    assert not pending(one)
    assert idle(one)
    assert events(one) == []


def test_a_recipient_that_was_answered_for_keeps_its_answer() -> None:
    one = sender(LMTP, b"220 x\r\n", EHLO)
    one.send(outgoing(b"", "x@b", "y@b"))
    one.receive_data(OK.encode() * 3 + b"354 x\r\n" + OK.encode())
    one.receive_eof()
    assert codes(one) == [(1, [250, 451])]


@pytest.mark.parametrize(
    "replies",
    [b"554 go away\r\n", b"220 x\r\n550 not you\r\n", b"220 x\r\n250 x\r\n250 x\r\n"],
)
def test_a_link_that_does_not_greet_or_says_too_much(replies: bytes) -> None:
    one = Sender(dialect=LINK, helo="me")
    one.receive_data(replies)
    assert events(one) == [SenderClosed()]
    one.done((ID,))
    assert not pending(one)


@given(st.data(), st.sampled_from(SenderDialect))
def test_any_split_of_any_replies_gives_the_same(
    data: st.DataObject, dialect: SenderDialect
) -> None:
    replies = data.draw(
        st.lists(
            st.sampled_from(
                [OK.encode()] * 4
                + [EHLO, b"220 x\r\n", b"354 x\r\n", b"550 x\r\n", b"452 x\r\n"]
            )
            | strategies.hostile,
            max_size=12,
        ).map(b"".join)
    )
    octets = b"220 x\r\n" + EHLO + replies
    whole, split = (
        Sender(dialect=dialect, helo="me"),
        Sender(dialect=dialect, helo="me"),
    )
    for one in (whole, split):
        one.send(outgoing(b"x\r\n", "x@b", "y@b"))
    whole.receive_data(octets)
    for piece in data.draw(strategies.splits(octets)):
        split.receive_data(piece)
    assert events(split) == events(whole)
    assert out(split) == out(whole)


# Our own mistakes


def test_our_own_mistakes() -> None:
    one = sender(LMTP, b"220 x\r\n", EHLO)
    for wrong in (
        Outgoing(1, "", (), b""),
        Outgoing(1, "a\r\nb", ("x@b",), b""),
        Outgoing(1, "", ("x\xe9@b",), b""),
    ):
        with pytest.raises(LocalProtocolError):
            one.send(wrong)
    with pytest.raises(LocalProtocolError):
        one.done((ID,))
    one.send(outgoing(b"bare\n"))
    with pytest.raises(LocalProtocolError):
        one.send(outgoing())
    with pytest.raises(LocalProtocolError):
        one.receive_data(OK.encode() * 2 + b"354 x\r\n")


def test_the_other_end_is_told_when_it_is_over() -> None:
    wire = Wire(LINK, lambda: 4076, accepts, lambda _: (OK,))
    wire.sender.quit()
    assert not can_send(wire.sender)
    wire.run()
    assert wire.dialogue.next_event() is None
    assert wire.closed == 2
    assert Closed() == Closed()
