# SPDX-License-Identifier: MIT
"""What the sender's half of the dialogue speaks of: messages, steps, outcomes.

    Outgoing      a message to be sent
    Finished      its outcome: a reply for each recipient
    StartTls      the connection is to be encrypted now, by whoever holds it
    SenderClosed  nothing more will be sent or understood
    Transfer      one message under way, and who of its recipients waits for what

smtp.py drives them.
"""

import enum
from collections import deque
from dataclasses import dataclass, field

from mesh.core.reply import Reply


class SenderDialect(enum.Enum):
    """Whom we talk to."""

    LINK = "a peer, inside a link"
    LMTP = "a remailer or sink, RFC 2033"
    SMTP = "a mail server"


class Step(enum.Enum):
    """What a reply answers."""

    GREETING = "the connection"
    HELLO = "HELO, EHLO or LHLO"
    STARTTLS = "STARTTLS"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    TEXT = "the final dot"
    CHUNK = "BDAT"
    ASIDE = "RSET or NOOP: nothing depends on it"
    QUIT = "QUIT"

    __hash__ = object.__hash__  # the default one runs Python code


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be sent; `token` is the caller's and comes back in Finished."""

    token: object
    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    id: bytes | None = None  # LINK: 16 octets, new for every hop


@dataclass(frozen=True, slots=True)
class Finished:
    """The outcome of one message: a reply for each recipient, in their order."""

    token: object
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class SenderClosed:
    """Nothing more will be sent or understood: close the connection."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """Encrypt the connection, then call `tls_started`; nothing is sent before."""


Event = Finished | StartTls | SenderClosed


@dataclass(slots=True)
class Transfer:
    """One message under way."""

    outgoing: Outgoing
    outcomes: list[Reply | None]  # of each recipient
    accepted: deque[int] = field(default_factory=deque)  # without a final reply yet
    answered: int = 0  # RCPTs that have their reply
    failure: Reply | None = None  # of MAIL, DATA or a chunk: for all the rest
    all_put: bool = False  # nothing of it is still to be put into the outbox
    octets: int = 0  # of its content that were put there as chunks
    unreplied: int = 0  # chunks without a reply

    def finished(self, otherwise: Reply) -> Finished:
        """The outcome: `otherwise` for a recipient that has none of its own."""
        rest = self.failure or otherwise
        replies = tuple([reply or rest for reply in self.outcomes])
        return Finished(self.outgoing.token, replies)
