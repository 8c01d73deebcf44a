# SPDX-License-Identifier: MIT
"""Makes a record of a bounce: what core/bounce.py writes, on its way to a remailer here.

It is a message like any other but for its empty reverse-path: if it fails too, nobody
is told.  It takes the place of what failed in the share of whoever brought that in
(shares.py).  The day is the only thing that it says of the time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from mesh.core.bounce import Day, Failure, format_bounce
from mesh.core.crypto import Entropy
from mesh.core.record import NO_ID, Record


class Reporter:
    """Writes bounces; `host` is how they call this node."""

    def __init__(self, host: str, entropy: Entropy) -> None:
        self._host = host
        self._entropy = entropy

    def report(
        self, record: Record, failures: Sequence[Failure], place: str, running: int
    ) -> Record:
        """Tell a record's reverse-path, which `place` serves, of its failures."""
        now = datetime.now(UTC)
        content = format_bounce(
            host=self._host,
            recipient=record.reverse_path,
            failures=failures,
            day=Day(now.year, now.month, now.day, now.weekday()),
            boundary=self._entropy.octets(16).hex(),
        )
        return Record(
            id=self._entropy.octets(16),
            origin=record.origin,
            origin_id=NO_ID,
            destination=place,
            reverse_path="",
            recipients=(record.reverse_path,),
            accepted=running,
            content=content,
        )
