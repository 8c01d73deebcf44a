# SPDX-License-Identifier: MIT
"""What an audit says: figures, and the controls without which a figure means nothing.

A figure is what one attacker reached in one world, how sure that is, and what the project
promises.  A control is the same attacker, with as much data, where he must win (a link
without cover, a leak that was planted) or must not (labels shuffled).

    verdict      when
    not shown    no control, or one of them did not come out as wanted
    open         no bound is promised
    missed       the 95 % limit lies on the wrong side of the bound, or is not a number
    holds        else

An attacker who does not find what was planted proves nothing: so "not shown" comes first,
and is never counted as good.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Verdict: TypeAlias = Literal["holds", "missed", "not shown", "open"]
Curve: TypeAlias = tuple[tuple[float, float], ...]
"""Of a receiver: false positive rate, true positive rate, from (0, 0) to (1, 1)."""

HOLDS: Final = "holds"
MISSED: Final = "missed"
NOT_SHOWN: Final = "not shown"
OPEN: Final = "open"


@dataclass(frozen=True)
class Control:
    """One attacker where the answer is known."""

    name: str
    """What was tried: "greedy", "1 ms late", "labels shuffled"."""
    value: float
    wanted: str
    """In words: "> 0.9"."""
    found: bool
    """Whether the value is as wanted."""
    roc: Curve = ()


@dataclass(frozen=True)
class Figure:
    """What one attacker reached."""

    name: str
    attacker: str
    value: float
    upper: float
    """One-sided 95 % limit: the upper one; the lower one where `at_least`."""
    bound: float | None
    """What the limit must not pass; None: nothing is promised."""
    unit: str
    """"AUC", "bit", "rate", "rho", "share"."""
    count: int
    """Windows a class, messages or probes that it rests on."""
    smallest: str
    """The smallest planted leak that this attacker found with so much data; "": none."""
    controls: tuple[Control, ...]
    roc: Curve = ()
    note: str = ""
    at_least: bool = False
    """Whether the bound is from below."""
    world: str = ""
    """Where it was measured: "pair, renewal, 64 cells/s, both cores loaded"."""
    rate: float = 0.0
    """Cells a second of that world's links, for the cost of cover; 0: no link of ours."""

    @property
    def shown(self) -> bool:
        """Whether the attacker has proved himself: controls, and all as wanted."""
        return bool(self.controls) and all(each.found for each in self.controls)

    @property
    def verdict(self) -> Verdict:
        """What may be said of it; see above."""
        if not self.shown:
            return NOT_SHOWN
        if self.bound is None:
            return OPEN
        if math.isnan(self.upper):
            return MISSED
        kept = self.upper >= self.bound if self.at_least else self.upper <= self.bound
        return HOLDS if kept else MISSED

    @property
    def holds(self) -> bool:
        """Whether what is promised was shown."""
        return self.verdict == HOLDS
