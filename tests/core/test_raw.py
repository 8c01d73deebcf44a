# SPDX-License-Identifier: MIT
"""A person on a stream, and the real receiver at the other end of it."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.dialogue import Dialogue, DialogueKind, MessageReceived
from mesh.core.raw import (
    CHUNK_LEN,
    CHUNKS_UNREPLIED,
    ROOM,
    UNREPLIED_MAX,
    RawEnded,
    RawSender,
)
from mesh.core.reply import NO_SUCH_RECIPIENT, OK, Reply
from mesh.errors import RemoteProtocolError

MINE = "mix@bravo.test"
MAIL = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<mix@bravo.test>\r\n"


def accepts(path: str) -> Reply | None:
    return None if path == MINE else NO_SUCH_RECIPIENT


class Talk:
    """alpha's person, bravo's dialogue, octets between them in small pieces."""

    def __init__(self, step: int = 1000) -> None:
        self.raw = RawSender("alpha")
        self.peer = Dialogue(
            name="bravo",
            kind=DialogueKind.LINK,
            accepts=accepts,
            peer="alpha",
            max_message=1_000_000,
        )
        self.step = step
        self.shown: list[int] = []
        self.ended: list[RawEnded] = []
        self.messages: list[bytes] = []
        self.sent = b""

    def run(self) -> "Talk":
        while octets := self.raw.take(self.step):
            self.sent += octets
            self.peer.receive_data(octets)
            self._attend()
            replies = self.peer.data_to_send()
            for at in range(0, len(replies), 7):
                self.raw.receive_data(replies[at : at + 7])
            while (event := self.raw.next_event()) is not None:
                if isinstance(event, Reply):
                    self.shown.append(event.code)
                else:
                    self.ended.append(event)
        return self

    def _attend(self) -> None:
        while (event := self.peer.next_event()) is not None:
            if isinstance(event, MessageReceived):
                self.messages.append(event.content)
                self.peer.answer(OK)

    def say(self, *pieces: bytes) -> "Talk":
        for piece in pieces:
            self.raw.write(piece)
            self.run()
        return self


def test_a_greeting_comes_before_a_word() -> None:
    talk = Talk().run()
    assert talk.shown == [220]
    assert talk.sent == b"HELO alpha\r\n"


def test_a_message_by_data_with_anybodys_name() -> None:
    talk = Talk().say(
        b"EHLO laptop.example\r\n", MAIL, b"DATA\r\n", b".. x\r\n.\r\nQUIT\r\nmore"
    )
    assert talk.shown == [220, 250, 250, 250, 354, 250, 221]
    assert talk.messages == [b". x\r\n"]
    assert talk.ended == [RawEnded(by_quit=True)]
    assert b"EHLO alpha\r\n" in talk.sent
    assert b"laptop" not in talk.sent
    assert b"more" not in talk.sent


@pytest.mark.parametrize("text", [b".\r\n", b"\r\n.\r\n", b"x\r\n.\r\r\n.\r\n"])
def test_where_a_text_ends(text: bytes) -> None:
    talk = Talk().say(MAIL + b"DATA\r\n" + text + b"NOOP\r\n")
    assert talk.shown[:4] == [220, 250, 250, 354]
    assert len(talk.shown) == 6
    assert talk.shown[-1] == 250


@given(st.lists(st.integers(0, 160), max_size=8), st.integers(1, 90))
def test_any_split_is_the_same_talk(cuts: Sequence[int], step: int) -> None:
    script = (
        b"HELO x\r\n"
        + MAIL
        + b"DATA\r\na\r\n..\r\n.\r\n"
        + MAIL
        + b"BDAT 4\r\nb\r\nxBDAT 2 LAST\r\n\r\nNOOP\r\n"
    )
    edges = [0, *sorted(min(cut, len(script)) for cut in cuts), len(script)]
    talk = Talk(step)
    for low, high in pairwise(edges):
        talk.say(script[low:high])
    assert talk.messages == [b"a\r\n.\r\n", b"b\r\nx\r\n"]
    assert talk.shown == [220, 250, 250, 250, 354, 250, 250, 250, 250, 250, 250]


def test_refusals_are_shown_and_end_nothing() -> None:
    talk = Talk().say(
        b"XYZZY\r\n",
        b"TURN\r\n",
        b"MAIL FROM:<a@b.test>\r\nRCPT TO:<who@else.test>\r\n",
        b"DATA\r\n",
        b"NOOP\n",
        b"x" * 5000 + b"\r\n",
        b"NOOP\r\n",
    )
    assert talk.shown == [220, 500, 502, 250, 550, 554, 500, 500, 250]
    assert not talk.ended


def test_a_text_is_held_until_the_peer_wants_it() -> None:
    """What follows a refused DATA is commands."""
    talk = Talk().say(b"DATA\r\nNOOP\r\n")
    assert talk.shown == [220, 503, 250]


def test_large_pieces_go_as_mails_do() -> None:
    content = b"0123456789abcd\r\n" * (5 * CHUNK_LEN // 16) + b"\r\n"
    talk = Talk()
    talk.raw.write(MAIL + b"BDAT %d LAST\r\n" % len(content))
    most = 0
    while content:
        room = talk.raw.room
        talk.raw.write(content[:room])
        content = content[room:]
        talk.run()
        most = max(most, room)
    assert talk.sent.count(b"BDAT 65536\r\n") == 5
    assert talk.sent.count(b"BDAT 2 LAST\r\n") == 1
    assert talk.shown == [220, 250, 250, 250]
    assert len(talk.messages[0]) == 5 * CHUNK_LEN + 2
    assert most <= ROOM


def test_pieces_wait_for_replies_and_room_ends() -> None:
    raw = RawSender("alpha")
    raw.write(MAIL + b"BDAT 10000000\r\n")
    taken = 0
    for _ in range(100):
        raw.write(bytes(raw.room))
        taken += len(raw.take(1 << 20))
    assert taken < (CHUNKS_UNREPLIED + 1) * CHUNK_LEN
    assert raw.room == 0
    raw.receive_data(b"220 hi\r\n" + b"250 ok\r\n" * 4)
    assert raw.take(1 << 20)[:12] == b"BDAT 65536\r\n"


def test_lines_wait_for_replies() -> None:
    raw = RawSender("alpha")
    raw.write(b"NOOP\r\n" * 200)
    assert raw.take(1 << 20).count(b"NOOP") == UNREPLIED_MAX - 2
    raw.end(gone=False)
    raw.receive_data(b"220 hi\r\n")
    assert raw.take(1 << 20) == b"NOOP\r\n"
    raw.end(gone=True)
    assert raw.take(1 << 20) == b""
    raw.receive_data(b"250 ok\r\n")
    assert raw.take(1 << 20) == b"QUIT\r\n"


def test_a_refused_piece_is_one_refusal() -> None:
    talk = Talk(1 << 20).say(
        b"MAIL FROM:<a@b.test>\r\nRCPT TO:<who@else.test>\r\nBDAT 100000 LAST\r\n",
        bytes(70_000),
        bytes(30_000),
    )
    assert talk.shown == [220, 250, 550, 554]
    assert not talk.messages


@pytest.mark.parametrize("line", [b"BDAT x\r\n", b"bdat 1\n", b"BDAT" + b" " * 4000])
def test_a_count_that_nobody_can_read_ends_the_dialogue(line: bytes) -> None:
    talk = Talk().say(line + b"\r\nNOOP\r\n")
    assert talk.shown[0] == 220
    assert talk.shown[1] in (500, 501)
    assert len(talk.shown) == 2
    assert talk.ended == [RawEnded(by_quit=False)]


def test_the_end_of_what_is_said_is_a_quit() -> None:
    talk = Talk()
    talk.raw.write(b"NOOP\r\nNO")
    talk.raw.end(gone=False)
    talk.raw.write(b"OP\r\n")
    talk.run()
    assert talk.shown == [220, 250, 221]
    assert talk.ended == [RawEnded(by_quit=True)]
    talk.raw.end(gone=True)
    assert not talk.raw.pending


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize(
    "half",
    [
        b"DATA\r\nhalf",
        b"DATA\r\n",
        b"DATA\r\nhalf\r\n.",
        b"DATA\r\nhalf\r\n.\r",
        b"BDAT 5 LAST\r\nha",
        b"BDAT 70000 LAST\r\n" + bytes(69_999),
    ],
)
def test_half_a_message_is_none(half: bytes, gone: bool) -> None:
    talk = Talk().say(MAIL, half)
    talk.raw.end(gone=gone)
    talk.run()
    assert not talk.messages
    assert talk.ended == [RawEnded(by_quit=False)]
    assert 221 not in talk.shown


def test_who_leaves_while_data_waits_for_its_reply() -> None:
    talk = Talk()
    talk.raw.write(MAIL + b"DATA\r\n")
    talk.raw.end(gone=True)
    talk.run()
    assert talk.shown == []
    assert not talk.messages
    assert talk.ended == [RawEnded(by_quit=False)]


@pytest.mark.parametrize(
    "replies",
    [
        b"550 go away\r\n",
        b"220 hi\r\n550 that is not your name\r\n",
        b"220 hi\r\n354 go on\r\n",
        b"421 ending\r\n",
        b"220 hi\r\n250 ok\r\n250 what\r\n",
        b"220 hi\r\n250 ok\r\n" + b"x" * 5000,
    ],
)
def test_what_no_honest_peer_says(replies: bytes) -> None:
    raw = RawSender("alpha")
    with pytest.raises(RemoteProtocolError):
        raw.receive_data(replies)


def test_a_reply_of_a_text_is_no_start() -> None:
    raw = RawSender("alpha")
    raw.write(b"NOOP\r\n")
    with pytest.raises(RemoteProtocolError):
        raw.receive_data(b"220 hi\r\n250 ok\r\n354 go on\r\n")
