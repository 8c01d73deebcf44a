# SPDX-License-Identifier: MIT
"""What a step of a message costs, and the watch that says so (steps.py, crossing.py)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

QUIET_SECONDS: Final = 2.5
"""After which the spool has forgotten, deleted and folded in what was delivered."""


@dataclass(frozen=True)
class Cost:
    """Microseconds of one message."""

    cpu: float
    wall: float


class Watch:
    """Adds up what passes inside its blocks, by a CPU clock and the wall's."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._began = 0.0, 0.0
        self.cpu = self.wall = 0.0

    def __enter__(self) -> None:
        self._began = self._clock(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu += self._clock() - self._began[0]
        self.wall += time.perf_counter() - self._began[1]

    def cost(self, messages: int) -> Cost:
        """Share it out."""
        return Cost(1e6 * self.cpu / messages, 1e6 * self.wall / messages)


@dataclass(frozen=True)
class Load:
    """How many messages, how long, and how many of them at once."""

    messages: int
    length: int
    at_once: int
    quiet: float = QUIET_SECONDS
    """How long to look at what forgetting costs."""

    @property
    def turns(self) -> int:
        """How often so many come."""
        return max(1, self.messages // self.at_once)

    @property
    def count(self) -> int:
        """Messages of whole turns."""
        return self.turns * self.at_once
