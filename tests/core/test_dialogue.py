# SPDX-License-Identifier: MIT
"""One end of the conversation, by octets alone; two ends meet in test_smtp.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.command import LINE_MAX, Command, Verb, encode_command
from mesh.core.content import to_stuffed
from mesh.core.dialogue import (
    SENT_AHEAD_MAX,
    UNTAKEN_MAX,
    Closed,
    Dialogue,
    DialogueKind,
    Event,
    IdsDone,
    MessageReceived,
)
from mesh.core.envelope import Path
from mesh.core.reply import NO_ROOM, NO_SUCH_RECIPIENT, OK, Reply, ReplyReader
from mesh.core.state import TRANSITIONS, State
from mesh.core.transaction import RECIPIENTS_MAX
from mesh.errors import LocalProtocolError, RemoteProtocolError
from tests import strategies

LOCAL, LINK = DialogueKind.LOCAL, DialogueKind.LINK
ID = bytes(range(16))
MAIL = b"MAIL FROM:<from@a>\r\n"
RCPT = b"RCPT TO:<x@b>\r\n"
BAD_RCPT = b"RCPT TO:<no@b>\r\n"


def accepts(path: str) -> Reply | None:
    """Whom the node of these tests serves: everybody but no@ and full@."""
    if path.startswith("full@"):
        return NO_ROOM
    return NO_SUCH_RECIPIENT if "no@" in path else None


class Talk:
    """A dialogue, what it said and what it found."""

    def __init__(
        self,
        kind: DialogueKind = LOCAL,
        hello: bytes = b"EHLO peer\r\n",
        size: int = 1000,
    ) -> None:
        self.dialogue = Dialogue(
            name="node", kind=kind, accepts=accepts, peer="Peer", max_message=size
        )
        self.said = b""
        self.events: list[Event] = []
        self.codes(hello)

    def give(self, *pieces: bytes) -> None:
        """Octets in, and every message answered at once, by its content."""
        for piece in pieces:
            if len(piece) < self.dialogue.chunk_left:
                self.dialogue.take_chunk(memoryview(piece))
            else:
                self.dialogue.receive_data(piece)
            self.hear()
            while self.dialogue.behind:
                self.dialogue.go_on()
                self.hear()

    def hear(self) -> None:
        """Events and replies."""
        while (event := self.dialogue.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, MessageReceived):
                code = 250 + len(event.content) % 3
                self.dialogue.answer(Reply(code, "stored"))
        self.said += self.dialogue.data_to_send()

    def codes(self, *pieces: bytes) -> list[int]:
        """The codes of what is said to these octets."""
        before = len(self.said)
        self.give(*pieces)
        reader, found = ReplyReader(), []
        reader.receive_data(self.said[before:])
        while (reply := reader.next_reply()) is not None:
            found.append(reply.code)
        return found

    @property
    def messages(self) -> list[MessageReceived]:
        return [event for event in self.events if isinstance(event, MessageReceived)]


def message(content: bytes, *recipients: str, id_: bytes | None = None) -> Event:
    return MessageReceived("from@a", recipients or ("x@b",), id_, content)


# What the octets are


@given(st.data(), strategies.contents)
def test_data_and_bdat_bring_the_octets_in_any_split(
    data: st.DataObject, content: bytes
) -> None:
    half = len(content) // 2
    octets = b"".join(
        (
            MAIL + RCPT + b"DATA\r\n" + to_stuffed(content),
            MAIL + RCPT + b"BDAT %d LAST\r\n" % len(content) + content,
            MAIL + RCPT + b"BDAT %d\r\n" % half + content[:half],
            b"NOOP\r\nBDAT %d LAST\r\n" % (len(content) - half) + content[half:],
        )
    )
    talk = Talk(size=100_000)
    talk.give(*data.draw(strategies.splits(octets)))
    text = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert talk.events == [message(text), message(content), message(content)]


scripts = st.lists(
    st.one_of(
        st.sampled_from(
            [
                MAIL,
                RCPT,
                BAD_RCPT,
                b"RCPT TO:<y@b>\r\n",
                b"DATA\r\n",
                b"DATA\r\n.\r\n",
                b"DATA\r\n..x\r\n.\r\n",
                b"BDAT 5\r\n",
                b"BDAT 3\r\nabc",
                b"BDAT 3 LAST\r\nabc",
                b"BDAT 3 LAST\r\na\nc",
                b"BDAT 2000 LAST\r\n" + b"x" * 2000,
                b"DATA\r\n" + b"x" * 3000 + b"\r\n.\r\n",
                b"LHLO peer\r\n",
                b"HELO peer\r\n",
                b"RSET\r\n",
                b"y" * (LINE_MAX + 1) + b"\r\n",
                MAIL + RCPT + b"DATA\r\nx\r\n.\r\n",
                MAIL + RCPT + BAD_RCPT + b"BDAT 3 LAST\r\nabc",
            ]
        ),
        strategies.commands.map(encode_command),
        strategies.hostile,
    ),
    max_size=12,
).map(b"".join)


@given(st.data(), st.sampled_from(DialogueKind), scripts)
def test_any_split_gives_the_same_events_and_replies(
    data: st.DataObject, kind: DialogueKind, octets: bytes
) -> None:
    whole, split = Talk(kind), Talk(kind)
    whole.give(octets)
    split.give(*data.draw(strategies.splits(octets)))
    assert split.events == whole.events
    assert split.said == whole.said
    assert split.dialogue.buffered == whole.dialogue.buffered
    assert split.dialogue.content_octets == whole.dialogue.content_octets
    reader = ReplyReader()
    reader.receive_data(whole.said)
    while reader.next_reply() is not None:
        pass
    assert whole.said.endswith(b"\r\n")


def test_only_the_midst_of_a_chunk_that_is_kept_goes_the_short_way() -> None:
    dialogue = Talk().dialogue
    left = [dialogue.chunk_left]
    dialogue.receive_data(MAIL + RCPT + b"BDAT 5 LAST\r\na")
    left.append(dialogue.chunk_left)
    dialogue.take_chunk(b"bc")
    assert dialogue.content_octets == 3
    left.append(dialogue.chunk_left)
    dialogue.receive_data(b"de")  # with its last octet a chunk is answered
    left.append(dialogue.chunk_left)
    assert dialogue.next_event() == message(b"abcde")
    dialogue.answer(OK)
    dialogue.receive_data(MAIL + RCPT + b"BDAT 2000 LAST\r\na")
    left.append(dialogue.chunk_left)  # too big: what is thrown away makes nobody wait
    dialogue.receive_eof()
    assert [*left, dialogue.chunk_left] == [0, 4, 2, 0, 0, 0]
    ended = Talk().dialogue
    ended.receive_data(MAIL + RCPT + b"BDAT 5 LAST\r\na")
    ended.receive_eof()
    assert ended.chunk_left == 0


def test_a_message_concludes_from_its_last_chunk_to_its_answer() -> None:
    dialogue = Talk().dialogue
    said = []
    for octets in (MAIL + RCPT, b"BDAT 2\r\na", b"b", b"BDAT 2 LAST\r\nc", b"d"):
        dialogue.receive_data(octets)
        said.append(dialogue.concluding)
    dialogue.answer(OK)
    assert said == [False, False, False, True, True]
    assert dialogue.concluding is False


@pytest.mark.parametrize("line", [b"\r\n", b"NOOP\r\n", b"x\r\n", b"HELP\r\n", b"\n"])
def test_one_call_reads_so_many_lines_however_many_there_are(line: bytes) -> None:
    dialogue = Talk().dialogue
    count = 100_000 // len(line)
    dialogue.receive_data(line * count)
    said, calls = dialogue.data_to_send(), 1
    longest = len(said)
    while dialogue.behind:
        dialogue.go_on()
        more = dialogue.data_to_send()
        longest = max(longest, len(more))
        said += more
        calls += 1
    one = len(said) // count
    assert said == said[:one] * count
    assert UNTAKEN_MAX <= longest < UNTAKEN_MAX + one
    assert calls == -(-count // -(-UNTAKEN_MAX // one))
    assert not dialogue.buffered


def test_what_comes_while_lines_wait_is_in_its_place() -> None:
    talk = Talk()
    talk.dialogue.receive_data(b"\r\n" * 1000 + MAIL + RCPT)
    assert talk.dialogue.behind
    talk.dialogue.receive_data(b"DATA\r\nhello\r\n.")
    assert talk.dialogue.behind
    assert len(talk.codes(b"\r\n")) == 1000 + 4
    assert [event.content for event in talk.events] == [b"hello\r\n"]  # type: ignore[union-attr]
    assert not talk.dialogue.behind


def test_who_stops_in_the_midst_of_a_line_is_not_waited_for() -> None:
    dialogue = Talk().dialogue
    dialogue.receive_data(b"NOOP\r\n" * 1024)  # the last one's reply fills it
    assert len(dialogue.data_to_send()) == UNTAKEN_MAX
    assert not dialogue.behind


def test_one_octet_at_a_time() -> None:
    octets = MAIL + RCPT + b"DATA\r\n" + to_stuffed(b".a\r\n\r\n..\r\n") + b"QUIT\r\n"
    talk = Talk()
    talk.give(*[bytes([octet]) for octet in octets])
    assert talk.events == [message(b".a\r\n\r\n..\r\n"), Closed()]


# What is said


def test_greetings() -> None:
    dialogue = Dialogue(name="node", kind=LOCAL, accepts=accepts, max_message=77)
    assert dialogue.data_to_send() == b"220 node ESMTP mesh\r\n"
    assert dialogue.data_to_send() == b""
    dialogue.receive_data(b"helo \xe9tienne\r\n")
    assert dialogue.data_to_send() == b"250 node\r\n"
    for verb in (b"EHLO", b"LHLO"):
        dialogue.receive_data(verb + b" x\r\n")
        assert dialogue.data_to_send() == (
            b"250-node\r\n250-PIPELINING\r\n250-8BITMIME\r\n"
            b"250-CHUNKING\r\n250 SIZE 77\r\n"
        )


def test_small_talk() -> None:
    talk = Talk(hello=b"")
    lines = b"HELP\r\nNOOP x\r\nVRFY x\r\nTURN\r\nEXPN x\r\nRSET\r\nHELO\r\n\r\n"
    assert talk.codes(lines) == [214, 250, 252, 502, 500, 250, 501, 500]
    assert talk.codes(b"QUIT\r\nNOOP\r\n") == [221]
    assert talk.codes(b"NOOP\r\n") == []
    assert talk.events == [Closed()]


STATES = {
    State.CONNECTED: b"",
    State.READY: b"EHLO peer\r\n",
    State.SENDER: b"EHLO peer\r\n" + MAIL,
    State.RECIPIENTS: b"EHLO peer\r\n" + MAIL + RCPT,
    State.CHUNKS: b"EHLO peer\r\n" + MAIL + RCPT + b"BDAT 1\r\nx",
}
LINES = {
    Verb.HELO: Command(Verb.HELO, "peer"),
    Verb.EHLO: Command(Verb.EHLO, "peer"),
    Verb.LHLO: Command(Verb.LHLO, "peer"),
    Verb.MAIL: Command(Verb.MAIL, path=Path("from@a")),
    Verb.RCPT: Command(Verb.RCPT, path=Path("x@b")),
    Verb.BDAT: Command(Verb.BDAT, size=4),
}


IN_THE_TABLE = [
    verb for verb in Verb if any(verb in row for row in TRANSITIONS.values())
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", IN_THE_TABLE)
def test_the_table_is_obeyed(state: State, verb: Verb) -> None:
    talk = Talk(hello=STATES[state])
    line = encode_command(LINES.get(verb, Command(verb)))
    codes = talk.codes(line + (b"QUIT" if verb is Verb.BDAT else b""))
    after = TRANSITIONS[state].get(verb)
    assert talk.dialogue._state is (
        after
        or (
            State.CHUNKS
            if verb is Verb.BDAT and state is State.SENDER
            else State.READY
            if verb is Verb.DATA and state is not State.CONNECTED
            else state
        )
    )
    if after is None:
        assert codes == [503]
    else:
        assert codes[0] in {221, 250, 354}


# Recipients


def test_a_recipient_named_twice_is_one() -> None:
    talk = Talk(LINK)
    talk.give(MAIL + RCPT + b"RCPT TO:<y@b>\r\n" + RCPT + b"BDAT 0 LAST\r\n")
    assert talk.events == [message(b"", "x@b", "y@b")]


def test_at_most_a_hundred_recipients() -> None:
    talk = Talk(LINK)
    codes = talk.codes(MAIL + RCPT * (RECIPIENTS_MAX + 1) + b"BDAT 0 LAST\r\n")
    assert codes == [250] * (RECIPIENTS_MAX + 1) + [452, 250]


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (BAD_RCPT, 550),
        (b"RCPT TO:<full@b>\r\n", 452),
        (b"RCPT TO:<a>\r\n", 501),
        (b"RCPT TO:<a@b> NOTIFY=NEVER\r\n", 555),
        (b"rcpt TO:<\xe9@b>\r\n", 553),
        (b"RCPT " + b"x" * LINE_MAX + b"\r\n", 500),
        (b"RCPT TO:<a@b>\n", 500),
    ],
)
def test_locally_a_refused_recipient_refuses_the_message(
    refused: bytes, code: int
) -> None:
    talk = Talk()
    assert talk.codes(MAIL + RCPT + refused) == [250, 250, code]
    assert talk.codes(b"DATA\r\n") == [code]
    assert talk.codes(MAIL + refused + RCPT) == [250, code, 250]
    assert talk.codes(b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n") == [code, code]
    assert talk.codes(MAIL + refused + b"DATA\r\n") == [250, code, code]
    assert talk.codes(MAIL + refused + b"BDAT 6 LAST\r\nQUIT\r\n") == [250, code, code]
    assert talk.codes(MAIL + RCPT + b"BDAT 0 LAST\r\n") == [250, 250, 250]
    assert talk.events == [message(b"")]


def test_only_a_refused_recipient_refuses_the_message() -> None:
    talk = Talk()
    codes = talk.codes(MAIL + RCPT + MAIL + b"FOO\r\nMAIL\r\nVRFY x\r\nDATA\r\n.\r\n")
    assert codes == [250, 250, 503, 500, 501, 252, 354, 250]
    assert talk.codes(MAIL + BAD_RCPT + MAIL + b"RSET\r\n") == [250, 550, 503, 250]
    assert talk.codes(b"RCPT TO:<a>\r\nDATA\r\n") == [501, 503]


def test_a_recipient_out_of_order_refuses_nothing() -> None:
    talk = Talk()
    assert talk.codes(RCPT + b"RCPT TO:<a>\r\n" + MAIL + RCPT) == [503, 501, 250, 250]
    assert talk.codes(b"BDAT 0 LAST\r\n") == [250]


@pytest.mark.parametrize("talk", [Talk(LINK), Talk(hello=b"LHLO peer\r\n")])
def test_elsewhere_a_refused_recipient_is_refused_alone(talk: Talk) -> None:
    assert talk.codes(MAIL + BAD_RCPT + RCPT + b"DATA\r\n.\r\n") == [
        250,
        550,
        250,
        354,
        250,
    ]
    assert talk.codes(MAIL + BAD_RCPT + b"DATA\r\n") == [250, 550, 554]
    assert talk.codes(MAIL + BAD_RCPT + b"BDAT 6 LAST\r\nQUIT\r\n") == [250, 550, 554]
    codes = talk.codes(MAIL + BAD_RCPT + b"BDAT 6\r\nQUIT\r\nBDAT 1 LAST\r\nx")
    assert codes == [250, 550, 554, 554]
    assert talk.codes(MAIL + b"BDAT 6 LAST\r\nQUIT\r\n") == [250, 503]
    assert talk.codes(MAIL + b"DATA\r\n") == [250, 503]
    assert len(talk.messages) == 1


def test_lmtp_answers_for_each_rcpt() -> None:
    talk = Talk(hello=b"LHLO peer\r\n")
    dialogue = talk.dialogue
    talk.give(MAIL + RCPT + BAD_RCPT + b"RCPT TO:<y@b>\r\n" + RCPT)
    dialogue.receive_data(b"DATA\r\n.\r\n")
    dialogue.data_to_send()
    assert dialogue.next_event() == message(b"", "x@b", "y@b")
    with pytest.raises(LocalProtocolError):
        dialogue.answer(OK, OK, OK)
    dialogue.answer(OK, NO_ROOM)
    assert dialogue.data_to_send() == OK.encode() + NO_ROOM.encode() + OK.encode()
    codes = talk.codes(MAIL + RCPT + b"RCPT TO:<y@b>\r\nDATA\r\na\nb\r\n.\r\n")
    assert codes == [250, 250, 250, 354, 554, 554]


def test_a_source_route_counts_on_a_link_only() -> None:
    line = b"RCPT TO:<@node:no@b>\r\nRCPT TO:<@node:x@b>\r\n"
    assert Talk(LINK).codes(MAIL + line) == [250, 550, 250]
    link, local = Talk(LINK), Talk()
    for talk in (link, local):
        talk.give(MAIL + b"RCPT TO:<@node:x@b>\r\nBDAT 0 LAST\r\n")
    assert link.events == [message(b"", "@node:x@b")]
    assert local.events == [message(b"", "x@b")]


# Refusals


@pytest.mark.parametrize("bare", [b"a\nb\r\n", b"a\rb\r\n", b"\r\n.\n.\r\n"])
def test_a_bare_line_end_is_refused_at_the_end(bare: bytes) -> None:
    talk = Talk()
    assert talk.codes(MAIL + RCPT + b"DATA\r\n" + bare + b".\r\n")[2:] == [354, 554]
    bdat = b"BDAT 1\r\na" + b"BDAT %d LAST\r\n" % len(bare) + bare
    assert talk.codes(MAIL + RCPT + bdat)[2:] == [250, 554]
    assert talk.codes(MAIL + RCPT + b"BDAT 0 LAST\r\n") == [250, 250, 250]


def test_a_message_too_big() -> None:
    talk = Talk(size=1000)
    assert talk.codes(b"MAIL FROM:<a@b> SIZE=1001\r\n") == [552]
    assert talk.codes(b"MAIL FROM:<a@b> SIZE=1000\r\nRSET\r\n") == [250, 250]
    text = b"DATA\r\n" + b"x" * 1500 + b"\r\nQUIT\r\n.\r\n"
    assert talk.codes(MAIL + RCPT + text) == [250, 250, 354, 552]
    # Within the bound for stuffed octets, beyond it once they are unstuffed.
    text = b"DATA\r\n" + b"x" * 1001 + b"\r\n.\r\n"
    assert talk.codes(MAIL + RCPT + text) == [250, 250, 354, 552]
    assert talk.codes(MAIL + RCPT + b"BDAT 1001 LAST\r\n" + b"x" * 1001)[2:] == [552]
    chunks = b"BDAT 600\r\n" + b"x" * 600 + b"BDAT 401\r\n" + b"x" * 401
    last = b"BDAT 6 LAST\r\nQUIT\r\n"
    assert talk.codes(MAIL + RCPT + chunks + last)[2:] == [250, 552, 552]
    assert talk.messages == []
    assert talk.codes(MAIL + RCPT + b"BDAT 1000 LAST\r\n" + b"x" * 1000)[2:] == [251]
    dots = b"..\r\n" * 333
    assert talk.codes(MAIL + RCPT + b"DATA\r\n" + dots + b".\r\n")[3:] == [250]
    assert talk.messages[1:] == [message(b".\r\n" * 333)]


@pytest.mark.parametrize(
    "start", [b"DATA\r\n", b"BDAT 999999999999 LAST\r\n", b"NOOP "]
)
def test_memory_is_bounded_whatever_comes(start: bytes) -> None:
    talk = Talk(size=1000)
    talk.give(MAIL + RCPT + start)
    for _ in range(50):
        talk.give(b"x" * 500)
        assert talk.dialogue.buffered <= max(2000, LINE_MAX)


def test_parameters_of_links_are_not_local() -> None:
    id_ = b" ID=" + ID.hex().encode()
    line = b"MAIL FROM:<from@a>" + id_ + b"\r\n"
    done = b"NOOP DONE=" + ID.hex().encode() + b"\r\n"
    assert Talk().codes(line + done) == [555, 555]
    talk = Talk(LINK)
    assert talk.codes(done + line + RCPT + b"BDAT 0 LAST\r\n") == [250] * 4
    assert talk.events == [IdsDone((ID,)), message(b"", id_=ID)]


def test_a_peer_gives_its_proven_name() -> None:
    talk = Talk(LINK, hello=b"")
    lines = b"HELO other\r\nEHLO other\r\nLHLO peer\r\n" + MAIL + b"HELO PEER\r\n"
    assert talk.codes(lines) == [550, 550, 500, 503, 250]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"NOOP\n", 500),
        (b"NOOP\rx\r\n", 500),
        (b"\n", 500),
        (b"NOOP " + b"x" * (LINE_MAX - 6) + b"\r\n", 500),
        (b"NOOP " + b"x" * (LINE_MAX - 7) + b"\r\n", 250),
    ],
)
def test_lines(line: bytes, code: int) -> None:
    talk = Talk()
    assert talk.codes(line + b"NOOP\r\n") == [code, 250]


@pytest.mark.parametrize(
    "line",
    [b"BDAT x\r\n", b"bdat 5\n", b"BDAT 5 LAST x\r\n", b"BDAT" + b" " * LINE_MAX],
)
def test_a_bdat_that_cannot_be_counted_ends_the_conversation(line: bytes) -> None:
    talk = Talk()
    assert talk.codes(MAIL + RCPT + line + b"QUIT\r\n")[2:] in ([500], [501])
    assert talk.events == [Closed()]
    assert talk.dialogue.buffered == 0


@pytest.mark.parametrize("line", [b"RSET\r\n", b"HELO peer\r\n", b"DATA\r\n"])
def test_an_end_of_the_transaction_frees_its_chunks(line: bytes) -> None:
    talk = Talk()
    talk.give(MAIL + RCPT + b"BDAT 5\r\n12345")
    assert talk.dialogue.buffered == 5
    talk.give(line)
    assert talk.dialogue.buffered == 0


# Waiting for an answer


def test_what_is_sent_ahead_waits() -> None:
    dialogue = Talk(LINK).dialogue
    one = MAIL + RCPT + b"BDAT 1 LAST\r\n"
    dialogue.receive_data(one + b"1" + one + b"2")
    dialogue.receive_data(b"NOOP\r\n")
    assert dialogue.awaiting_answer
    assert dialogue.data_to_send() == OK.encode() * 2
    assert dialogue.next_event() == message(b"1")
    assert dialogue.next_event() is None
    dialogue.answer(NO_ROOM)
    assert dialogue.awaiting_answer
    assert dialogue.data_to_send() == NO_ROOM.encode() + OK.encode() * 2
    assert dialogue.next_event() == message(b"2")
    with pytest.raises(LocalProtocolError):
        dialogue.answer(OK, OK)
    dialogue.answer(OK)
    assert dialogue.data_to_send() == OK.encode() * 2
    with pytest.raises(LocalProtocolError):
        dialogue.answer(OK)


def test_too_much_sent_ahead_ends_it() -> None:
    dialogue = Talk(LINK).dialogue
    dialogue.receive_data(MAIL + RCPT + b"BDAT 0 LAST\r\n")
    dialogue.receive_data(b"x" * SENT_AHEAD_MAX)
    with pytest.raises(RemoteProtocolError):
        dialogue.receive_data(b"x")
    assert isinstance(dialogue.next_event(), MessageReceived)
    assert dialogue.next_event() == Closed()
    assert dialogue.buffered == 0
    dialogue.answer(OK)


def test_a_long_text_is_not_sent_ahead() -> None:
    talk = Talk(size=2 * SENT_AHEAD_MAX)
    content = (b"x" * 998 + b"\r\n") * (SENT_AHEAD_MAX // 900)
    talk.give(MAIL + RCPT + b"DATA\r\n" + content, b".\r\n")
    assert talk.events == [message(content)]


def test_but_on_lmtp_one_reply_is_for_all() -> None:
    dialogue = Talk().dialogue
    dialogue.receive_data(MAIL + RCPT + b"RCPT TO:<y@b>\r\nBDAT 0 LAST\r\n")
    with pytest.raises(LocalProtocolError):
        dialogue.answer(OK, OK)


def test_eof_ends_it_once_and_drops_what_is_unfinished() -> None:
    talk = Talk()
    talk.give(MAIL + RCPT + b"DATA\r\nhalf")
    talk.dialogue.receive_eof()
    talk.dialogue.receive_eof()
    talk.give(b"\r\n.\r\n")
    assert talk.events == [Closed()]


def test_octets_held() -> None:
    dialogue = Talk().dialogue
    dialogue.receive_data(MAIL + RCPT + b"BDAT 5\r\n12")
    assert (dialogue.buffered, dialogue.content_octets) == (2, 2)
    dialogue.receive_data(b"345NO")
    assert (dialogue.buffered, dialogue.content_octets) == (7, 5)
    dialogue.receive_data(b"OP\r\nRSET\r\n" + MAIL + RCPT + b"DATA\r\n123")
    assert (dialogue.buffered, dialogue.content_octets) == (5, 3)
