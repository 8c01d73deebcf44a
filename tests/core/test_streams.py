# SPDX-License-Identifier: MIT
"""Streams: who speaks on one of ours, and the credit that both kinds begin with."""

from mesh.core.raw import RawSender
from mesh.core.smtp import Sender, SenderDialect
from mesh.core.streams import WINDOW, Inbound, Outbound


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
