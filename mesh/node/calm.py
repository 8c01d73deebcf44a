# SPDX-License-Identifier: MIT
"""Big work in a thread: no collection of garbage beside it, nor of its fruits after it.

A full collection visits every object that could be part of a cycle and holds the
interpreter meanwhile: while 10,000 descriptors are read several of 30 to 100 ms, and the
Trio loop stands still.  What such work makes has no cycles, so counting references frees
it.  Hence: collection is off while it is done, and what it leaves is set aside
(gc.freeze), where no later collection visits it.

Garbage in cycles that lies about at that moment is set aside too and stays; so this is
for what happens some times a day, not for what happens at each message.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_under_way = 0


@contextmanager
def calm() -> Iterator[None]:
    """No collection until the last of all that are under way ends."""
    global _under_way  # one interpreter, one collector
    with _lock:
        _under_way += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _under_way -= 1
            if not _under_way:
                gc.freeze()
                gc.enable()
