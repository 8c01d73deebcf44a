# SPDX-License-Identifier: MIT
"""Streams: who speaks on one of ours, and the credit that both kinds begin with."""

from mesh.core.raw import RawSender
from mesh.core.smtp import Sender, SenderDialect
from mesh.core.streams import WINDOW, Inbound, Outbound, Tally


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
