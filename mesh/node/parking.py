# SPDX-License-Identifier: MIT
"""A place for one task to wait until somebody says that there is work.

Cheaper than an Event (no object a wait, no waiters' set): `wake` reschedules the
parked task at once and does nothing when nobody is parked.  So the parked task must
look for work *before* it parks, with no checkpoint in between.
"""

import trio


class Parking:
    """One task parks, anybody wakes it."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Let the parked task go on; nothing when none is parked."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def park(self) -> None:
        """Wait for `wake`; cancellation is honoured."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
