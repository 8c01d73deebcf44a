# SPDX-License-Identifier: MIT
"""A pacer's own record of how late it was, read from beside: for the white box.

A node and its pacer share counts of lateness (mesh/node/pacer/histogram.py) and nothing
else knows them so finely: what a node tells of them is rough, and late.  Whoever is root
finds that memory among the descriptors of the node's process; a snooper does not.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mesh.core.clock import class_of
from mesh.errors import IoError
from mesh.node.pacer.histogram import BUCKETS, Histogram

KINDS: Final = ("idle", "busy")
_NAME: Final = "memfd:mesh-lateness"


def lateness(pid: int, rate: float) -> list[int]:
    """Counts of a running node's cells of one rate so far; IoError: it has none."""
    for name in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if _NAME not in str(name.readlink()):
                continue
            opened = os.open(name, os.O_RDWR)
        except FileNotFoundError:  # closed since it was listed
            continue
        try:
            return Histogram.attach(opened).row(class_of(rate))
        finally:
            os.close(opened)
    raise IoError("a process without a pacer's counts: is it a node?")


class Counted:
    """Counts of a node's idle blocks and of its busy ones; None: there is no node."""

    def __init__(self, pid: int | None, rate: float) -> None:
        self._pid, self._rate = pid, rate
        self.late = {kind: [0] * BUCKETS for kind in KINDS}

    @contextmanager
    def block(self, busy: bool) -> Iterator[None]:
        """Add what is counted within."""
        before = self._now()
        yield
        mine = self.late[KINDS[busy]]
        for bucket, (now, then) in enumerate(zip(self._now(), before, strict=True)):
            mine[bucket] += now - then

    def _now(self) -> list[int]:
        if self._pid is None:
            return [0] * BUCKETS
        return lateness(self._pid, self._rate)
