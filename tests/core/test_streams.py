# SPDX-License-Identifier: MIT
"""Streams: who speaks on one of ours, and the credit that both kinds begin with."""

import pytest

from mesh.core.dialogue import Dialogue, DialogueKind
from mesh.core.raw import RawSender
from mesh.core.smtp import Sender, SenderDialect
from mesh.core.streams import WINDOW, Inbound, Outbound, Tally
from mesh.errors import LocalProtocolError


def test_mail_speaks_before_a_person() -> None:
    stream = Outbound()
    speakers = [stream.speaker]
    stream.raw = RawSender("alpha")
    speakers.append(stream.speaker)
    stream.sender = Sender(dialect=SenderDialect.LINK, helo="alpha")
    speakers.append(stream.speaker)
    assert speakers == [None, stream.raw, stream.sender]


def test_both_kinds_begin_with_a_window() -> None:
    assert Outbound().credit == WINDOW
    theirs = Inbound()
    assert (theirs.granted, theirs.received) == (WINDOW, 0)
    assert theirs.dialogue is None


def test_a_tally_is_what_it_counted() -> None:
    assert Tally() == Tally(0, 0) == Tally(commands=0, replies=0)
    said = Tally()
    said.commands += 3
    assert said == Tally(3, 0)
    assert said != Tally(0, 3)
    said.replies += 2
    assert said == Tally(commands=3, replies=2)
    assert said not in (Tally(2, 3), Tally(3, 1))


def test_a_chunk_is_counted_and_needs_its_dialogue() -> None:
    inbound = Inbound()
    with pytest.raises(LocalProtocolError):
        inbound.take_chunk(b"x")
    assert inbound.received == 0
    inbound.dialogue = Dialogue(
        name="n",
        kind=DialogueKind.LINK,
        accepts=lambda _: None,
        peer="p",
        max_message=9,
    )
    said = b"HELO p\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 5 LAST\r\n"
    inbound.dialogue.receive_data(said)
    inbound.take_chunk(b"abc")
    assert inbound.received == 3
    assert inbound.dialogue.content_octets == 3
