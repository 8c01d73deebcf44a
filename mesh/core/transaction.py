# SPDX-License-Identifier: MIT
"""One mail on its way in: what the dialogue knows of it before it is a message.

A transaction begins with MAIL and ends with the answer to its octets, a RSET or a
new greeting.  Each forward-path is one recipient, however often it was named; on
LMTP each RCPT that got 250 gets a final reply all the same (RFC 2033 section 4.2).

Invariant: once `failure` is set no octet of content is kept.  No verbs here.
"""

from typing import Final, NamedTuple

from mesh.core import reply as replies_
from mesh.core.content import is_lawful
from mesh.core.reply import Reply

# RCPTs taken for one message: RFC 5321 4.5.3.1.8 asks for at least 100 recipients.
RECIPIENTS_MAX: Final = 100


# Octets of content from which on they are put aside: a buffer that grows to a megabyte
# is moved and mapped anew on its way, which costs more than all else that is done to it.
BLOCK_LEN: Final = 32_768


class MessageReceived(NamedTuple):
    """A whole message, its responsibility not yet taken: `answer` the dialogue for it."""

    reverse_path: str  # "" for nobody
    recipients: tuple[str, ...]  # each once, in the order of their RCPTs
    id: bytes | None  # 16 octets, or none (a remailer's never has one)
    content: bytes


class Transaction:
    """Envelope and chunks so far."""

    __slots__ = (
        "_block",
        "_blocks",
        "_places",
        "_recipients",
        "failure",
        "id",
        "octets",
        "refused",
        "reverse_path",
    )

    def __init__(self, reverse_path: str = "", id_: bytes | None = None) -> None:
        self.reverse_path = reverse_path
        self.id = id_
        self.refused: Reply | None = None
        """The first refusal of a recipient."""
        self.failure: Reply | None = None
        """Why the octets are thrown away."""
        self._recipients: dict[str, int] = {}  # forward-path: its place among them
        self._places: list[int] = []  # of each RCPT that got 250
        self._blocks: list[bytearray] = []
        self._block = bytearray()  # behind them: what came last
        self.octets = 0
        """Octets of content held."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Each once, in the order of their RCPTs."""
        return tuple(self._recipients)

    @property
    def full(self) -> bool:
        """No further RCPT is taken."""
        return len(self._places) >= RECIPIENTS_MAX

    def add_recipient(self, path: str) -> None:
        """A RCPT was taken."""
        recipients = self._recipients
        self._places.append(recipients.setdefault(path, len(recipients)))

    def refuse_recipient(self, refusal: Reply) -> None:
        """A RCPT was refused."""
        self.refused = self.refused or refusal

    def fail(self, failure: Reply) -> None:
        """The octets of this message are not kept; the first reason stands."""
        self.failure = self.failure or failure
        self._clear()

    def add_content(self, octets: bytes | memoryview) -> None:
        """Keep octets of a chunk, if they are wanted."""
        if self.failure is None:
            self.octets += len(octets)
            self._block += octets
            if len(self._block) >= BLOCK_LEN:
                self._blocks.append(self._block)
                self._block = bytearray()

    def take_content(self) -> bytes:
        """The chunks as one; they are no longer here."""
        content = b"".join((*self._blocks, self._block))
        self._clear()
        return content

    def _clear(self) -> None:
        self._blocks.clear()
        self._block.clear()
        self.octets = 0

    def verdict(self, content: bytes, max_message: int) -> Reply | None:
        """Why this whole message is refused, None when it is not."""
        if self.failure is not None:
            return self.failure
        if len(content) > max_message:
            return replies_.TOO_BIG
        return None if is_lawful(content) else replies_.BARE_CR_OR_LF

    def final_replies(self, replies: tuple[Reply, ...], *, each: bool) -> list[Reply]:
        """What to say: one reply for all, or (each) for every RCPT that got 250."""
        if not (each and self._places):
            return [replies[0]]
        if len(replies) == 1:
            return [replies[0]] * len(self._places)
        return [replies[place] for place in self._places]
