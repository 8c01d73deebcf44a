# SPDX-License-Identifier: MIT
"""Delivery: what arrived for a remailer of this node goes to its Maildir.

    maildir:PATH           groups of up to GROUP_MAX, one thread hop a group, fsynced
    lmtp:PATH, HOST:PORT   lmtp.py

Delivered means forgotten: the record's key is overwritten once the Maildir is on the
disk.  What cannot be written is deferred; the remailer is an untrusted peer.

`end` begins nothing new; what is under way may finish while it is `busy`, so that an
end in order repeats nothing.  A Maildir on a disk that hangs does not keep the node.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from mesh.core.content import to_lf
from mesh.core.record import Record
from mesh.core.reply import Reply
from mesh.node.maildir import Letter, deliver
from mesh.node.parking import Parking
from mesh.node.qmgr import QueueManager
from mesh.node.records import Records
from mesh.node.spool import Ref

GROUP_MAX: Final = 64
"""Messages of one hop to the thread: as many as one commit of the spool."""
NOT_WRITTEN: Final = Reply(451, "4.2.0 its Maildir cannot be written")


class MaildirDelivery:
    """One remailer's Maildir."""

    def __init__(
        self,
        *,
        maildir: Path,
        destination: str,
        qmgr: QueueManager,
        name_of: Callable[[bytes], str],
    ) -> None:
        self._maildir = maildir
        self._is_known = False
        """Its folders are durable."""
        self._qmgr = qmgr
        self._records = Records(qmgr, qmgr.queue(destination))
        self._release = partial(qmgr.release, destination)
        self._name_of = name_of
        self._parking = Parking()
        qmgr.queue(destination).wake = self._parking.wake
        self._ending = False
        self.busy = False
        """A group is on its way to the disk."""

    def end(self) -> None:
        """Begin nothing new."""
        self._ending = True

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            if self._ending or not self._records:
                await self._parking.park()
                continue
            self.busy = True
            await self._deliver(await self._records.take(GROUP_MAX))
            self.busy = False

    async def _deliver(self, group: Sequence[tuple[Ref, Record]]) -> None:
        written = 0
        try:
            with self._qmgr.guard():
                written = await self._write(group)
        except trio.Cancelled:  # the thread may be writing still
            for ref, _ in group:
                self._qmgr.doubt(ref)
            self._release([ref for ref, _ in group])
            raise
        for ref, _ in group[:written]:
            self._qmgr.delivered(ref)
        for ref, record in group[written:]:
            self._qmgr.doubt(ref)
            with self._qmgr.guard():
                replies = [NOT_WRITTEN] * len(record.recipients)
                self._qmgr.settle(ref, record, replies)

    async def _write(self, group: Sequence[tuple[Ref, Record]]) -> int:
        letters = [
            Letter(
                self._name_of(record.id),
                to_lf(record.content),
                self._qmgr.may_lie_there(ref),
            )
            for ref, record in group
        ]
        written = await trio.to_thread.run_sync(
            partial(deliver, is_known=self._is_known),
            self._maildir,
            letters,
            abandon_on_cancel=True,
        )
        self._is_known = self._is_known or written > 0
        return written
