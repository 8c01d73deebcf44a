# SPDX-License-Identifier: MIT
"""A queue's records with their contents, whether they are still in memory or not."""

from typing import Final

from mesh.core.record import Record
from mesh.node.qmgr import Queue, QueueManager
from mesh.node.spool import Ref

GROUP_LEN_MAX: Final = 16_777_216
"""Octets of one group, but for a single larger message."""


class Records:
    """What waits in one queue, for the worker that takes it out."""

    def __init__(self, qmgr: QueueManager, queue: Queue) -> None:
        self._qmgr = qmgr
        self._queue = queue

    def __bool__(self) -> bool:
        return bool(self._queue.ready)

    async def take(self, count: int) -> list[tuple[Ref, Record]]:
        """Take the oldest, at most `count` and about GROUP_LEN_MAX octets."""
        taken: list[tuple[Ref, Record]] = []
        octets = 0
        ready, spool = self._queue.ready, self._qmgr.spool
        while ready and len(taken) < count and octets < GROUP_LEN_MAX:
            ref = ready.popleft()
            record = spool.hot(ref)
            if record is None:
                try:
                    record = (await spool.read([ref]))[0]
                except BaseException:
                    ready.appendleft(ref)
                    ready.extendleft(r for r, _ in reversed(taken))
                    raise
                if record is None:
                    self._qmgr.unreadable(ref)
                    continue
            taken.append((ref, record))
            octets += len(record.content)
        return taken
