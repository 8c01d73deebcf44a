# SPDX-License-Identifier: MIT
"""`mesh` without the trial of its host's wake-ups, for benchmarks and nobody else.

    python -m benchmarks.untried run -c node.toml

A node refuses a fast class on a host that wakes it too late, because how late a cell is
shows how busy the host is.  How much a class carries can be measured there all the same.
Nothing of the product knows of this: no link that hides anything may be made so.
"""

import sys

from mesh.cli.main import main
from mesh.core.clock import Clock
from mesh.node.pacer.lateness import Lateness


def take(lateness: Lateness, clock: Clock, klass: int) -> None:
    """Take every class."""


if __name__ == "__main__":
    Lateness.check_class = take  # type: ignore[method-assign, assignment]
    sys.exit(main())
