# SPDX-License-Identifier: MIT
"""Bounces: the message that says what could not be delivered (RFC 3464, RFC 6522).

    multipart/report
        text/plain                 the same in words
        message/delivery-status    Reporting-MTA, then for each recipient:
                                   Final-Recipient, Action, Status, Diagnostic-Code

The message itself is not repeated, nor any header of it: a bounce comes to lie in
clear where its message was to be forgotten, and RFC 6522 leaves that part free.  There
is no time finer than the day, no message id of ours or of anybody's, no address of the
machine.

Status is the receiver's own enhanced code where its reply begins with one that agrees
with its first digit, else N.0.0.  A 4yz here means that patience ended.

Invariant: the bounce is lawful content (CR LF only) of printable ASCII in lines of at
most LINE_MAX octets, whatever a receiver replied.  Its reverse-path is to be empty, so
that no bounce makes another one.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from mesh.core.reply import Reply

DIAGNOSTIC_MAX: Final = 400
"""Octets that are kept of a reply's text: more than a line is advertisement."""
LINE_MAX: Final = 900
"""Octets of a line without its CR LF: below RFC 5322 2.1.1's 998."""
_STATUS: Final = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905


class Failure(NamedTuple):
    """One recipient and the last reply about it."""

    recipient: str
    reply: Reply


class Day(NamedTuple):
    """A date, and its day of the week (0 is Monday)."""

    year: int
    month: int
    day: int
    weekday: int


def judge(
    recipients: Sequence[str], replies: Sequence[Reply], *, too_old: bool
) -> tuple[list[Failure], list[str]]:
    """Part recipients that were not served, by their replies: failed, to be tried again.

    With `too_old` nothing is tried again.
    """
    failures: list[Failure] = []
    left: list[str] = []
    for recipient, reply in zip(recipients, replies, strict=True):
        if reply.permanent or (too_old and not reply.positive):
            failures.append(Failure(recipient, reply))
        elif not reply.positive:
            left.append(recipient)
    return failures, left


def format_bounce(
    *,
    host: str,
    recipient: str,
    failures: Sequence[Failure],
    day: Day,
    boundary: str,
) -> bytes:
    """Write the bounce to `recipient`; `host` is how mail systems call this node.

    `boundary` is 32 hex digits that nobody foresaw: no reply can end a part.
    """
    date = (
        f"{_DAYS[day.weekday]}, {day.day:02} {_MONTHS[day.month - 1]} "
        f"{day.year} 00:00:00 +0000"
    )
    lines = [
        f"From: Mail Delivery System <postmaster@{host}>",
        f"To: <{recipient}>",
        "Subject: Mail could not be delivered",
        f"Date: {date}",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f' boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is the mesh node at {host}.",
        "",
        "A message from you could not be delivered to",
        "",
        *_in_words(failures),
        "The message itself is not repeated here and was forgotten.",
        "",
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns; {host}",
        "",
        *_for_programs(failures),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _in_words(failures: Iterable[Failure]) -> Iterable[str]:
    for recipient, reply in failures:
        patience = "" if reply.permanent else " (given up after 5 days)"
        yield f"<{recipient}>{patience}:"
        yield f"    {_diagnostic(reply)}"
        yield ""


def _for_programs(failures: Iterable[Failure]) -> Iterable[str]:
    for recipient, reply in failures:
        yield f"Final-Recipient: rfc822; {recipient}"
        yield "Action: failed"
        yield f"Status: {_status(reply)}"
        yield f"Diagnostic-Code: smtp; {_diagnostic(reply)}"
        yield ""


def _diagnostic(reply: Reply) -> str:
    text = " ".join(reply.text.split())
    return f"{reply.code} {text}"[:DIAGNOSTIC_MAX].rstrip()


def _status(reply: Reply) -> str:
    first = str(reply.code)[0]
    match = _STATUS.match(reply.text)
    return match[0] if match is not None and match[1] == first else f"{first}.0.0"
