# SPDX-License-Identifier: MIT
"""The streams of a link, each with its credit, and what comes out of them.

    theirs   a Dialogue, its replies that wait, octets received and granted so far
    ours     whoever speaks, mail (Sender) or a person (RawSender), and the credit left
    large    which of theirs has credit for a message larger than SMALL_MESSAGE_LEN: who
             has waited longest, so that no backlog on some streams stops the others

Credit is counted in octets of commands and message; both ends begin with WINDOW.
Who speaks and when is link.py's.
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
SMALL_MESSAGE_LEN: Final = 65_536
"""Octets of a message in arrival past which it must be the link's one large one."""
STORED_MAX: Final = 4_194_304
"""Octets of a large message that may be with the disk while the next one comes: a link
that waits for each commit of 1 MB carries nothing meanwhile, at 1,024 cells a second a
twelfth of the time.  A larger one takes long to come and short to store."""
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


class Large:
    """The place for a large message of theirs, and who waits for it, in their order.

    One comes, or is whole and has no answer yet; one more, of STORED_MAX at most, may be
    whole and unanswered beside it.
    """

    __slots__ = ("_coming", "_length", "_stored", "_waiting")

    def __init__(self) -> None:
        self._coming: int | None = None
        self._length = 0  # of the last whole message of the stream that has the place
        self._stored: int | None = None
        self._waiting: dict[int, None] = {}

    def take(self, number: int) -> bool:
        """Have the place for a stream, if nobody has it; whether it has it now."""
        if self._coming is None:
            self._coming = number
        elif self._coming != number:
            self._waiting[number] = None
        return self._coming == number

    def store(self, number: int, length: int) -> None:
        """Hear that a stream's message is whole: it waits for its answer."""
        if number != self._coming:
            return
        self._length = length
        if self._stored is None and SMALL_MESSAGE_LEN < length <= STORED_MAX:
            self._stored = number

    def answer(self, number: int) -> None:
        """Hear that it is answered."""
        if number == self._stored:
            self._stored = None

    def leave(self, number: int, dialogue: Dialogue) -> list[int]:
        """Give the place back if this stream has it and needs it no more.

        Gives whoever waited, in their order: each is to `take` it anew.
        """
        if number != self._coming:
            return []
        if dialogue.awaiting_answer:
            needed = self._length > SMALL_MESSAGE_LEN and number != self._stored
        else:
            needed = dialogue.content_octets > SMALL_MESSAGE_LEN
        if needed:
            return []
        self._coming = None
        waiting, self._waiting = list(self._waiting), {}
        return waiting
