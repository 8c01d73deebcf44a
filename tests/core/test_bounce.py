# SPDX-License-Identifier: MIT
"""Bounces are read by another program's parser, and no reply breaks them."""

import email
import email.policy
from datetime import UTC, date, datetime
from email.message import EmailMessage, Message
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bounce import (
    DIAGNOSTIC_MAX,
    LINE_MAX,
    Day,
    Failure,
    format_bounce,
    judge,
)
from mesh.core.content import is_lawful
from mesh.core.reply import Reply

BOUNDARY = "0123456789abcdef" * 2


def bounce(*failures: Failure, recipient: str = "mix@a.test") -> bytes:
    return format_bounce(
        host="a.test",
        recipient=recipient,
        failures=failures,
        day=Day(2026, 11, 22, 6),
        boundary=BOUNDARY,
    )


def parsed(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def statuses(message: EmailMessage) -> list[Message]:
    _, report = message.iter_parts()
    groups = report.get_payload()
    assert isinstance(groups, list)
    return [group for group in groups if isinstance(group, Message)]


def test_what_a_mail_program_reads() -> None:
    message = parsed(
        bounce(
            Failure("who@b.test", Reply(550, "5.1.1 no such user\nreally")),
            Failure("x@c.test", Reply(451, "greylisted")),
        )
    )
    assert message["To"] == "mix@a.test"
    assert message["From"].addresses[0].addr_spec == "postmaster@a.test"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] is None
    assert message["Date"].datetime == datetime(2026, 11, 22, tzinfo=UTC)
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    words, _ = message.iter_parts()
    text = words.get_content().replace("\r\n", "\n")
    assert "<who@b.test>:\n    550 5.1.1 no such user really\n" in text
    assert "<x@c.test> (given up after 5 days):\n    451 greylisted\n" in text
    whole, *each = statuses(message)
    assert whole["Reporting-MTA"] == "dns; a.test"
    assert [one["Final-Recipient"] for one in each] == [
        "rfc822; who@b.test",
        "rfc822; x@c.test",
    ]
    assert [one["Action"] for one in each] == ["failed", "failed"]
    assert [one["Status"] for one in each] == ["5.1.1", "4.0.0"]
    assert each[0]["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user really"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(554, "5.7.1 no"), "5.7.1"),
        (Reply(554, "4.7.1 no"), "5.0.0"),
        (Reply(450, "4.2.0"), "4.2.0"),
        (Reply(554, "5.7.1.2 no"), "5.0.0"),
        (Reply(554, "5.7"), "5.0.0"),
        (Reply(554, "no 5.7.1"), "5.0.0"),
        (Reply(554, ""), "5.0.0"),
    ],
)
def test_status_is_the_receivers_own_where_it_agrees(reply: Reply, status: str) -> None:
    assert statuses(parsed(bounce(Failure("x@y", reply))))[1]["Status"] == status


@pytest.mark.parametrize("month", range(1, 13))
def test_every_date(month: int) -> None:
    on = date(2027, month, month)
    octets = format_bounce(
        host="a",
        recipient="x",
        failures=[],
        day=Day(on.year, on.month, on.day, on.weekday()),
        boundary=BOUNDARY,
    )
    header = octets.split(b"Date: ")[1].split(b"\r\n")[0].decode()
    assert parsedate_to_datetime(header).date() == on
    assert header.startswith(on.strftime("%a"))


replies = st.builds(
    Reply,
    st.integers(400, 599),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=3000)
    | st.just("a\n\n--x\n" * 50),
)


@given(st.lists(replies, max_size=5))
def test_no_reply_breaks_the_bounce(replies: list[Reply]) -> None:
    octets = bounce(*(Failure("x@y.test", reply) for reply in replies))
    assert is_lawful(octets)
    assert octets.isascii()
    assert octets.endswith(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= LINE_MAX
    assert octets.count(b"--" + BOUNDARY.encode()) == 3
    assert len(list(parsed(octets).iter_parts())) == 2


def test_a_long_reply_is_cut() -> None:
    octets = bounce(Failure("x@y", Reply(550, "z" * 2000)))
    assert b"550 " + b"z" * (DIAGNOSTIC_MAX - 4) + b"\r\n" in octets


def test_who_failed_and_who_is_tried_again() -> None:
    who = ["taken", "later", "never"]
    replies = [Reply(250, "ok"), Reply(451, "later"), Reply(550, "never")]
    failures, left = judge(who, replies, too_old=False)
    assert (failures, left) == ([Failure("never", replies[2])], ["later"])
    failures, left = judge(who, replies, too_old=True)
    assert [each.recipient for each in failures] == ["later", "never"]
    assert left == []
