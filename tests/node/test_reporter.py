# SPDX-License-Identifier: MIT
"""A bounce is a message to a remailer here, from nobody."""

from datetime import UTC, datetime

from mesh.core.bounce import Failure
from mesh.core.record import NO_ID
from mesh.core.reply import NO_SUCH_RECIPIENT
from mesh.node.reporter import Reporter
from tests.harness import FixedEntropy
from tests.node.spooling import PEER, message


def test_a_bounce_comes_from_nobody_and_says_the_day() -> None:
    record = message(5, origin_id=b"i" * 16)
    before = datetime.now(UTC)
    reporter = Reporter("alpha.test", FixedEntropy())
    report = reporter.report(record, [Failure("x@y", NO_SUCH_RECIPIENT)], "local:1", 77)
    assert report.reverse_path == ""
    assert report.recipients == (record.reverse_path,)
    assert (report.destination, report.accepted) == ("local:1", 77)
    # It is in the share of whoever brought the record; no peer offers it.
    assert (report.origin, report.origin_id) == (PEER, NO_ID)
    assert report.id not in {record.id, NO_ID}
    days = {when.strftime("%d %b %Y") for when in (before, datetime.now(UTC))}
    assert any(f"{day} 00:00:00 +0000".encode() in report.content for day in days)
    assert b"postmaster@alpha.test" in report.content
