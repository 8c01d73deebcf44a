# SPDX-License-Identifier: MIT
"""A queue's records with their contents, whether they are still in memory or not."""

from itertools import islice
from typing import Final

from mesh.core.record import Record
from mesh.node.qmgr import Queue, QueueManager
from mesh.node.spool import Ref

GROUP_LEN_MAX: Final = 16_777_216
"""Octets of one group, but for a single larger message."""
COLD_MAX: Final = 8
"""Records read from the disk at once: 160 MiB when all are of the greatest size."""


class Records:
    """What waits in one queue, for the worker that takes it out."""

    def __init__(self, qmgr: QueueManager, queue: Queue) -> None:
        self._qmgr = qmgr
        self._queue = queue

    def __bool__(self) -> bool:
        return bool(self._queue.ready)

    async def take(self, count: int) -> list[tuple[Ref, Record]]:
        """Take the oldest, at most `count` and about GROUP_LEN_MAX octets.

        What is on the disk only is read in one hop, COLD_MAX records at most.
        """
        ready, spool = self._queue.ready, self._qmgr.spool
        found: dict[Ref, Record | None] = {}
        cold: list[Ref] = []
        octets = 0
        for ref in islice(ready, count):
            record = found[ref] = spool.hot(ref)
            if record is None:
                cold.append(ref)
            else:
                octets += len(record.content)
            if octets >= GROUP_LEN_MAX or len(cold) == COLD_MAX:
                break
        for _ in found:
            ready.popleft()
        self._queue.hands += 1
        try:
            if cold:
                found.update(zip(cold, await spool.read(cold), strict=True))
        except BaseException:
            ready.extendleft(reversed(found))
            raise
        finally:
            self._queue.hands -= 1
        taken: list[tuple[Ref, Record]] = []
        for ref, record in found.items():
            if record is None:
                self._qmgr.unreadable(ref)
            else:
                taken.append((ref, record))
        return taken
