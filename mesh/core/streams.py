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
"""Octets of a large message whose last chunk comes, or that is with the disk, while the next
one has credit: a link that waits for each commit of 1 MB, and then for a way there and
back, carries nothing meanwhile, at 1,024 cells a second a twelfth of the time.  A larger
one takes long to come and short to store."""
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

    @property
    def ends(self) -> bool:
        """All of the message that is coming has come or has credit."""
        dialogue = self.dialogue
        if dialogue is None or not dialogue.concluding:
            return False
        left = dialogue.chunk_left  # 0: it is whole, or nobody wants what is left
        return dialogue.awaiting_answer or 0 < left <= self.granted - self.received


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
    unanswered beside it, all of which has come or has credit: it is ending.
    """

    __slots__ = ("_coming", "_ending", "_length", "_waiting")

    def __init__(self) -> None:
        self._coming: int | None = None
        self._length = 0  # of the last whole message of the stream that has the place
        self._ending: int | None = None
        self._waiting: dict[int, None] = {}

    def take(self, number: int) -> bool:
        """Have the place for a stream, if nobody has it; whether it has it now."""
        if self._coming is None:
            self._coming = number
        elif self._coming != number:
            self._waiting[number] = None
        return self._coming == number

    def end(self, number: int, length: int) -> None:
        """Hear that a stream's message, of so many octets, needs no more credit."""
        if number != self._coming:
            return
        self._length = length
        if self._ending is None and SMALL_MESSAGE_LEN < length <= STORED_MAX:
            self._ending = number

    def answer(self, number: int) -> None:
        """Hear that it is answered."""
        if number == self._ending:
            self._ending = None

    def leave(self, number: int, dialogue: Dialogue) -> list[int]:
        """Give the place back if this stream has it and needs it no more.

        Gives whoever waited, in their order: each is to `take` it anew.
        """
        if number == self._ending and not dialogue.concluding:
            self._ending = None  # it was refused
        if number != self._coming:
            return []
        if dialogue.awaiting_answer:
            needed = self._length > SMALL_MESSAGE_LEN and number != self._ending
        else:
            held = dialogue.content_octets
            needed = held > SMALL_MESSAGE_LEN and number != self._ending
        if needed:
            return []
        self._coming = None
        waiting, self._waiting = list(self._waiting), {}
        return waiting
