# SPDX-License-Identifier: MIT
"""The place of a node without cover among all who want the processor: behind the others.

Linux takes it from whoever runs when somebody wakes who has had less of it (sched(7)).  A
node under load is woken for each command and each commit, so it is stopped, and stops
others, thousands of times a second, and each time costs caches and two switches.  Under
SCHED_BATCH a thread that wakes waits for its turn, some milliseconds for each that is
before it, and only where no processor is idle: so 10 kB cost a tenth less, and a lone
message no more.

Only under the clock `greedy`, where when and how much is not hidden anyway.  Elsewhere a
stranger's connection is looked at on time (looks.py), whatever the remailer and its
programs do just then; and a clock carries so little that there is nothing to save.

Threads and programs inherit it: the writer is to have it, and a remailer's program may.
The pacer, which such a node may have for a peer's stricter clock, puts it off
(pacer/hardening.py).
"""

import os
from contextlib import suppress

from mesh.core.clock import Clock


def give_way(clock: Clock) -> None:
    """Have this thread take the processor from nobody, if its links have no cover.

    Who was given another policy by the operator keeps it, and so does who may not choose.
    """
    with suppress(OSError):
        if clock is Clock.GREEDY and os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
