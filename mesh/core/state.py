# SPDX-License-Identifier: MIT
"""The states of a dialogue and the one table that says which command may come.

    CONNECTED   HELO/EHLO/LHLO -> READY
    READY       MAIL -> SENDER
    SENDER      RCPT taken -> RECIPIENTS
    RECIPIENTS  DATA -> READY, when the message is answered; BDAT -> CHUNKS
    CHUNKS      BDAT -> CHUNKS; BDAT LAST -> READY, when the message is answered
    any         RSET, HELO -> READY; QUIT -> CLOSED; NOOP -> the same

HELP, VRFY and TURN have one answer in every state and change none; what else is not
in the table is 503.  A command that is refused changes no state, but for
DATA and BDAT LAST, which end their transaction, taken or not; a refused BDAT leaves
CHUNKS, where only BDAT, RSET and a new greeting go on (RFC 3030 section 2).
"""

import enum
from collections.abc import Mapping
from typing import Final

from mesh.core.command import Verb


class State(enum.Enum):
    """How far the conversation is."""

    CONNECTED = "no greeting yet"
    READY = "between two messages"
    SENDER = "MAIL was taken"
    RECIPIENTS = "a RCPT was taken"
    CHUNKS = "a BDAT came, not the last"
    CLOSED = "over"

    __hash__ = object.__hash__  # the default one runs Python code


class Intake(enum.Enum):
    """What the next octets are."""

    LINE = "a command"
    TEXT = "message octets up to a line with a dot"
    CHUNK = "message octets by count"
    ANSWER = "not looked at until the message is answered"
    ENDED = "nobody's"

    __hash__ = object.__hash__


# fmt: off
TRANSITIONS: Final[Mapping[State, Mapping[Verb, State]]] = {
    State.CONNECTED: {
        Verb.HELO: State.READY, Verb.EHLO: State.READY, Verb.LHLO: State.READY,
        Verb.NOOP: State.CONNECTED, Verb.RSET: State.CONNECTED, Verb.QUIT: State.CLOSED,
    },
    State.READY: {
        Verb.HELO: State.READY, Verb.EHLO: State.READY, Verb.LHLO: State.READY,
        Verb.MAIL: State.SENDER,
        Verb.NOOP: State.READY, Verb.RSET: State.READY, Verb.QUIT: State.CLOSED,
    },
    State.SENDER: {
        Verb.HELO: State.READY, Verb.EHLO: State.READY, Verb.LHLO: State.READY,
        Verb.RCPT: State.RECIPIENTS,
        Verb.NOOP: State.SENDER, Verb.RSET: State.READY, Verb.QUIT: State.CLOSED,
    },
    State.RECIPIENTS: {
        Verb.HELO: State.READY, Verb.EHLO: State.READY, Verb.LHLO: State.READY,
        Verb.RCPT: State.RECIPIENTS, Verb.DATA: State.READY, Verb.BDAT: State.CHUNKS,
        Verb.NOOP: State.RECIPIENTS, Verb.RSET: State.READY, Verb.QUIT: State.CLOSED,
    },
    State.CHUNKS: {
        Verb.HELO: State.READY, Verb.EHLO: State.READY, Verb.LHLO: State.READY,
        Verb.BDAT: State.CHUNKS,
        Verb.NOOP: State.CHUNKS, Verb.RSET: State.READY, Verb.QUIT: State.CLOSED,
    },
    State.CLOSED: {},
}
# fmt: on
