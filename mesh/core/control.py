# SPDX-License-Identifier: MIT
"""The control socket's words: what an operator asks the running node, and its answers.

    request   one JSON object in one line      {"ask": "ping", "peer": "bravo"}
    answer    one JSON object in one line      {"ok": true, ...}
                                               {"ok": false, "code": 69, "why": "..."}
    then, after `connect` alone, the octets of a dialogue both ways until the end

    ask       with    the answer has
    status            status: the object that `mesh status --json` prints; notes
    queue             queue: the object that `mesh queue --json` prints
    retry             nothing
    drop      what    nothing; what: deferred, unrouted
    ping      peer    seconds, clock, cells_per_second
    connect   peer

`code` is the exit code of the command that asked.  Counts are rough: the next power of
two, and 0 for none; what was done is not counted.  Whoever reads status each second learns no more than
whoever reads it each ten minutes: control.py of mesh/node changes counts on its ticks
only.  The socket is the operator's own (0600), and its octets are not trusted all the
same: RemoteProtocolError for what is no request or no answer.
"""

import enum
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from mesh.errors import RemoteProtocolError

CONTROL_NAME: Final = "control.sock"
"""The socket's name in the state directory."""
REQUEST_MAX_LEN: Final = 1024
"""Octets of a request's line: two short names."""
ANSWER_MAX_LEN: Final = 4_194_304
"""Octets of an answer's line: 4,096 links with up to 1,000 octets each."""
SCHEMA: Final = 1


class Ask(enum.Enum):
    """What may be asked."""

    STATUS = "status"
    QUEUE = "queue"
    RETRY = "retry"
    DROP = "drop"
    PING = "ping"
    CONNECT = "connect"


class What(enum.Enum):
    """What may be dropped: each by its own word."""

    DEFERRED = "deferred"
    UNROUTED = "unrouted"


_FIELDS: Final[Mapping[Ask, str]] = {
    Ask.DROP: "what",
    Ask.PING: "peer",
    Ask.CONNECT: "peer",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One question; `peer` and `what` are empty where they have no meaning."""

    ask: Ask
    peer: str = ""
    what: What | None = None


def encode_request(request: Request) -> bytes:
    """The line that asks."""
    said: dict[str, str] = {"ask": request.ask.value}
    if request.peer:
        said["peer"] = request.peer
    if request.what:
        said["what"] = request.what.value
    return _line(said)


def parse_request_untrusted(line: bytes) -> Request:
    """What a line asks; RemoteProtocolError says what is wrong with it."""
    said = _object_untrusted(line, REQUEST_MAX_LEN)
    try:
        ask = Ask(said.pop("ask", None))
    except ValueError as error:
        raise RemoteProtocolError(
            "no such question: is mesh of one version?"
        ) from error
    field = _FIELDS.get(ask)
    value = said.pop(field, None) if field else ""
    if said or not isinstance(value, str) or bool(value) != bool(field):
        raise RemoteProtocolError("a question of another form: is mesh of one version?")
    if field != "what":
        return Request(ask, peer=value)
    try:
        return Request(ask, what=What(value))
    except ValueError as error:
        raise RemoteProtocolError("nothing that can be dropped") from error


def encode_answer(answer: Mapping[str, object]) -> bytes:
    """The line that answers."""
    return _line({"ok": True, **answer})


def encode_refusal(code: int, why: str) -> bytes:
    """The line that says why not, for a command that ends with this code."""
    return _line({"ok": False, "code": code, "why": why})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The node's reason, and the exit code that goes with it."""

    code: int
    why: str


def parse_answer_untrusted(line: bytes) -> dict[str, Any] | Refusal:
    """What the node answered; RemoteProtocolError when it is no answer."""
    said = _object_untrusted(line, ANSWER_MAX_LEN)
    ok = said.pop("ok", None)
    if ok is True:
        return said
    code, why = said.get("code"), said.get("why")
    if ok is False and type(code) is int and 0 < code < 128 and isinstance(why, str):
        return Refusal(code, why)
    raise RemoteProtocolError("no answer: is mesh of one version?")


def _line(said: Mapping[str, object]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode("ascii") + b"\n"


def _object_untrusted(line: bytes, limit: int) -> dict[str, Any]:
    if len(line) > limit:
        raise RemoteProtocolError("a line too long")
    try:
        said = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("not JSON") from error
    if not isinstance(said, dict):
        raise RemoteProtocolError("not an object")
    return said


# What is told.


def rough(count: int) -> int:
    """The next power of two, 0 for none: enough to see that something is stuck."""
    return 1 << (count - 1).bit_length() if count > 0 else 0


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One peer's link, live; the fields of status, in their order."""

    peer: str
    up: bool
    reason: str
    clock: str
    cells_per_second: float
    insecure: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What waits, all counts exact but those that `rounded` gives.

    peers      ready to go to peers      remailers  to remailers here
    port_25    to leave the mesh         moving     being handed over
    deferred   refused for now           unrouted   its node left, or two claim it
    """

    waiting: int = 0
    deferred: int = 0
    corrupt: int = 0
    peers: int = 0
    remailers: int = 0
    port_25: int = 0
    unrouted: int = 0
    moving: int = 0

    def rounded(self) -> dict[str, int]:
        """For `mesh queue`: all roughly, but for what is damaged."""
        return {
            name: count if name == "corrupt" else rough(count)
            for name, count in asdict(self).items()
        }


def state_of(links: Sequence[LinkFacts], corrupt: int) -> str:
    """Sum a node up: ok, degraded (a link or a record is), down (no link is up)."""
    up = [link.up for link in links]
    if up and not any(up):
        return "down"
    return "ok" if all(up) and not corrupt else "degraded"


def status(
    name: str,
    links: Sequence[LinkFacts],
    queue: QueueFacts,
    gone: Collection[str] = (),
    directory: Mapping[str, object] | None = None,
    notices: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the object that `mesh status --json` prints.

    `directory` is the one in force (overview.py), `notices` what else an operator should
    know, a line each; neither is there when there is none.  Of several, no link is missing to a peer that has `gone` at the hour it published.
    """
    wanted = [link for link in links if link.peer not in gone] or links
    return {
        "schema": SCHEMA,
        "name": name,
        "state": state_of(wanted, queue.corrupt),
        "links": [asdict(link) for link in links],
        "queue": {
            "waiting": rough(queue.waiting),
            "deferred": rough(queue.deferred),
            "corrupt": queue.corrupt,
        },
    } | {
        key: value
        for key, value in (("directory", directory), ("notices", list(notices)))
        if value
    }
