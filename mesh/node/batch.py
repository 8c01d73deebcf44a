# SPDX-License-Identifier: MIT
"""The node's place among all who want the processor: behind whoever is at work.

Linux takes it from whoever runs when somebody wakes who has had less of it (sched(7)).  A
node under load is woken for each command and each commit, so it is stopped, and stops
others, thousands of times a second, and each time costs caches and two switches.  Under
SCHED_BATCH a thread that wakes waits for its turn, some milliseconds at most, and only
where no processor is idle: so 10 kB cost a tenth less, and a lone message no more.

And what wakes a node is mail: so it takes the processor from no pacer either, where
that one may not run in real time.

Threads and programs inherit it: the writer is to have it, and a remailer's program may.
The pacer puts it off (pacer/hardening.py).
"""

import os
from contextlib import suppress


def run_as_batch() -> None:
    """Have this thread take the processor from nobody; where that is denied, nothing."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
