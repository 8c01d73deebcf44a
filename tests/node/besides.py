# SPDX-License-Identifier: MIT
"""Large spools of a few records: read beside the running node, as far as a test lets it."""

import math

import pytest
import trio

from mesh.node import recovery, restore


class Reader:
    """Holds up the reading of what a start found; each stretch needs leave."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(restore, "SLOTS_MIN", 64)
        patch.setattr("mesh.node.spool.AT_ONCE_SLOTS", 0)
        patch.setattr("mesh.node.upkeep.STEP_SLOTS", 32)
        patch.setattr("mesh.node.upkeep.FREE_MIN", 8)
        patch.setattr(recovery, "STEP_RECORDS", 1)
        patch.setattr(recovery, "READ_RECORDS", 2)
        patch.setattr(recovery, "pause", self._pause)
        self._leave = trio.Semaphore(0)
        self._is_free = False

    async def _pause(self) -> None:
        if not self._is_free:
            await self._leave.acquire()
        await trio.lowlevel.checkpoint()

    @property
    def is_held(self) -> bool:
        """The reading waits for leave, and not for the disk."""
        return self._leave.statistics().tasks_waiting > 0

    def go_on(self, stretches: float = math.inf) -> None:
        """Give leave for so many stretches, or for all there are."""
        if stretches == math.inf:
            self._is_free = True
            stretches = self._leave.statistics().tasks_waiting
        for _ in range(int(stretches)):
            self._leave.release()
