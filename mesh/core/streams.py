# SPDX-License-Identifier: MIT
"""The streams of a link, each with its credit, and what comes out of them.

    theirs   a Dialogue, its replies that wait, octets received and granted so far
    ours     whoever speaks, mail (Sender) or a person (RawSender), and the credit left

Credit is counted in octets of commands and message; both ends begin with WINDOW.
Nothing here decides: link.py does.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from mesh.core.dialogue import Dialogue, MessageReceived
from mesh.core.raw import RawEnded, RawSender
from mesh.core.reply import Reply
from mesh.core.smtp import Finished, Sender
from mesh.errors import LocalProtocolError

WINDOW: Final = 4 * 65_536 + 4_096
"""Octets of credit: four chunks that may be unreplied, and the commands beside them."""


GRANT_STEP: Final = 65_536
"""Credit is granted in steps of a chunk: 9 octets of a cell in 64 KiB."""


class Received(NamedTuple):
    """A whole message of the peer's, to be answered with `Link.answer`."""

    stream: int
    message: MessageReceived


class Done(NamedTuple):
    """Ids that the peer will not offer again."""

    ids: tuple[bytes, ...]


class Answered(NamedTuple):
    """For whoever writes on a stream of ours: a reply, or the end of his dialogue."""

    stream: int
    event: Reply | RawEnded


Event: TypeAlias = Received | Done | Finished | Answered


@dataclass
class Tally:
    """Octets that one side of a link has said since it began."""

    commands: int = 0
    replies: int = 0


class Inbound:
    """A stream of theirs: the dialogue, its replies, the credit that it has."""

    __slots__ = ("dialogue", "due", "granted", "received", "replies")

    def __init__(self) -> None:
        self.dialogue: Dialogue | None = None
        self.replies = bytearray()
        self.due = False
        """Somebody waits for them: the answer to a message is among them."""
        self.received = 0
        self.granted = WINDOW

    def take_chunk(self, octets: bytes | memoryview) -> None:
        """Take octets from the midst of a chunk, which the dialogue is in."""
        if self.dialogue is None:
            raise LocalProtocolError("a chunk in no dialogue")
        self.received += len(octets)
        self.dialogue.take_chunk(octets)


class Outbound:
    """A stream of ours: who speaks on it, and the credit that it has left."""

    __slots__ = ("credit", "raw", "sender")

    def __init__(self) -> None:
        self.sender: Sender | None = None
        self.raw: RawSender | None = None
        """A person: speaks when there is no `sender`, whose 221 it awaits."""
        self.credit = WINDOW

    @property
    def speaker(self) -> Sender | RawSender | None:
        """Whose words go out, and whose replies come in."""
        return self.sender or self.raw
