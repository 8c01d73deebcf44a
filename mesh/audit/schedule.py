# SPDX-License-Identifier: MIT
"""Which worlds an audit has, and for how long each is listened to.

    key       the world                                      seconds    share     whole
    quiet     pair, renewal, all that a link carries              40     0.22     36.00
    greedy    pair, without cover: a control                      26     0.08      0.20
    chain     alpha, bravo, charlie, and a sink on port 25        28     0.22      4.00
    plain     the same remailers over plain SMTP: a control       16     0.06      0.60
    probed    a node and a port that only reads, on loopback      10     0.10      0.00
    loaded    as quiet, all cores of the host busy                40     0.20     36.00
    half      as quiet, half of what the link carries, briefly    40     0.06      6.00
    tenth     as quiet, a tenth, briefly                          40     0.06      6.00

In a run of HOURS_FROM minutes links have 64 cells a second, in a shorter one 256, and not
the default's one: a figure needs windows, and what leaks, how late a cell is, does not
depend on the rate.  The same lateness shows more at a higher one.  What one cell a second
leaks in an hour is said by the white box, from the lateness itself.  A chain has 64 in both:
its mail is a share of what links carry, and where four times as much of it goes over plain
SMTP messages lie one upon the other, and the control is no control.

In the order of the table worlds are taken in while their seconds, the least with which
they say anything, fit into the run; what is left of the time is shared out: in a run of
minutes by the share, in one of hours as the whole audit needs it.  That is the column
of hours: so long one link, or several side by side all together, has to be listened to for
the number of windows and messages that bounds.py promises.  `whole` is the run that has it.

A world is taken in pieces, since a link is renewed after half an hour at the earliest; a
piece has blocks, for each of which a coin is thrown (lab.py).  The longer a run, the longer
its blocks (BLOCKS), but for those that are brief: windows of one block are alike in more
than their label, so it is blocks that make a figure sure, and short windows have room in
short ones.  Quiet and loaded have blocks enough for both.  Half and tenth have no windows
of 1,024 cells, and of 128 a third of what bounds.py promises.  Pieces go round the worlds,
so that a run that is ended early has some of all.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

from mesh.audit.lab import Plan

LENGTHS: Final = (32, 128, 1_024, 3_600)
"""Cells of a window."""
PIECE_SECONDS: Final = 960.0
BLOCKS: Final = ((60.0, 60), (20.0, 60), (10.0, 40), (5.0, 24))
"""Seconds of a block, and how many must fit into what all links of a world have together.
Into the longest fit 3,600 cells at 64 a second; a bootstrap of blocks wants many, five
folds two of each kind at least."""
BLOCK_LEAST: Final = 2.0
"""Of which one is guard."""
BLOCKS_MIN: Final = 4
BETWEEN_SECONDS: Final = 2.0
"""After a block, on average, until all mail has arrived, and is forgotten."""
RATE: Final = 64.0
"""Cells a second."""
SHORT_RATE: Final = 256.0
APART: Final[dict[str, Any]] = {"load": 0.15, "octets": (2_000, 20_000), "busy": 0.9}
"""Of a chain: where messages lie one upon the other, nobody follows one without cover; and
there is mail nearly always, since messages are compared with each other."""
HOURS_FROM: Final = 60.0
"""Minutes."""


@dataclass(frozen=True)
class World:
    """One, and what part of the time it has."""

    key: str
    """In names of folders."""
    title: str
    """In the report."""
    least: float
    """Seconds."""
    share: float
    """Of what is left, in a run of minutes."""
    whole: float
    """Hours of one link, in the whole audit."""
    plan: Plan | None
    """Of the lab, but for the length of blocks; None: it is not the lab's."""
    block: float = BLOCK_LEAST
    """Seconds that its blocks have at least."""
    most: float = math.inf
    """And at most."""
    burn: bool = False
    """Whether all cores are kept busy."""
    beside: int = sys.maxsize
    """Links that there are side by side at most."""

    @property
    def clock(self) -> str:
        """The links' clock; "": there is no link."""
        if self.plan is None:
            return "renewal"
        return self.plan.clock if self.plan.nodes else ""


def _pair(
    key: str, title: str, share: float, whole: float, load: float, **more: Any
) -> World:
    plan = Plan(load=load)
    return World(key, f"pair, renewal{title}", 40.0, share, whole, plan, **more)


QUIET: Final = _pair("quiet", "", 0.22, 36.0, 1.0)
GREEDY: Final = World(
    "greedy", "pair, greedy: no cover", 26.0, 0.08, 0.2,
    Plan(clock="greedy", load=1.0), 4.0, beside=4,
)  # fmt: skip
"""Its padding comes less often than cells under a clock: longer blocks have windows.  It
sends as fast as it can: few beside each other."""
CHAIN: Final = World(
    "chain", "chain, renewal", 28.0, 0.22, 4.0, Plan("chain", **APART), beside=8
)
"""Each takes some two messages a second through three nodes: with many more beside each
other two cores do not keep up, and blocks wait for their mail."""
PLAIN: Final = World(
    "plain", "chain, plain SMTP: no cover", 16.0, 0.06, 0.6, Plan("plain", **APART),
    beside=4,
)  # fmt: skip
"""A host that relays for many is late, and hides what it does."""
PROBED: Final = World("probed", "loopback, renewal", 10.0, 0.10, 0.0, None)
BRIEF_SECONDS: Final = 5.0
"""Of a block: beside its guard there is room for seven windows of 32 cells at 64 a second,
and for one of 128."""
LOADED: Final = _pair("loaded", ", cores busy", 0.20, 36.0, 1.0, burn=True)
WORLDS: Final = (
    QUIET, GREEDY, CHAIN, PLAIN, PROBED, LOADED,
    _pair("half", ", half full", 0.06, 6.0, 0.5, most=BRIEF_SECONDS),
    _pair("tenth", ", a tenth full", 0.06, 6.0, 0.1, most=BRIEF_SECONDS),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One piece to take; those before it are taken, too, where they are not there."""

    world: World
    plan: Plan
    link: int
    """From 0: links of one world that are listened to side by side."""
    pieces: int
    """So many of this link when it is done."""
    blocks: int
    """In each."""

    @property
    def seconds(self) -> float:
        """How long one piece takes, about."""
        return self.blocks * (self.plan.seconds + BETWEEN_SECONDS)


@dataclass(frozen=True)
class Schedule:
    """So many minutes of listening, so many links of a world side by side."""

    minutes: float
    links: int = 1

    @property
    def is_long(self) -> bool:
        """Whether it is one of hours."""
        return self.minutes >= HOURS_FROM

    def rate_of(self, world: World) -> float:
        """Of a world's links, cells a second."""
        return RATE if self.is_long or world in (CHAIN, PLAIN) else SHORT_RATE

    def title(self, world: World) -> str:
        """A world's name in the report."""
        if world is PROBED:
            return f"{world.title}, 1 cell/s"
        covered = world.clock not in ("", "greedy")
        rate = self.rate_of(world)
        return f"{world.title}, {rate:g} cells/s" if covered else world.title

    @property
    def worlds(self) -> tuple[World, ...]:
        """Those that fit."""
        kept: list[World] = []
        for world in WORLDS:
            if sum(each.least for each in (*kept, world)) > self.minutes * 60:
                break
            kept.append(world)
        return tuple(kept)

    def seconds_of(self, world: World) -> float:
        """How long one link of a world is listened to."""
        kept = self.worlds
        free = self.minutes * 60 - sum(each.least for each in kept)
        return world.least + free * self._share(world) / sum(map(self._share, kept))

    def _share(self, world: World) -> float:
        """Of what is left, in parts of the whole."""
        return world.whole / self.links_of(world) if self.is_long else world.share

    def links_of(self, world: World) -> int:
        """So many side by side."""
        return min(self.links, world.beside)

    def rounds(self) -> list[list[Job]]:
        """All pieces of the lab's worlds, in the order in which they are best taken.

        A round is one piece of each link of a world: those are taken side by side.
        """
        left = [list(self._of(world)) for world in self.worlds]
        found = []
        while any(left):
            found += [rounds.pop(0) for rounds in left if rounds]
        return found

    def jobs(self) -> list[Job]:
        """The same, one by one."""
        return list(chain.from_iterable(self.rounds()))

    def _of(self, world: World) -> Iterator[list[Job]]:
        if world.plan is None:
            return
        whole, links = self.seconds_of(world), self.links_of(world)
        seconds, blocks = _cut(whole, links, world)
        plan = replace(world.plan, rate=self.rate_of(world), seconds=seconds)
        pieces = math.ceil(blocks * (seconds + BETWEEN_SECONDS) / PIECE_SECONDS)
        each = math.ceil(blocks / pieces)
        for number in range(pieces):
            yield [Job(world, plan, link, number + 1, each) for link in range(links)]


def whole(links: int) -> Schedule:
    """All that bounds.py promises, with so many links side by side."""
    plan = Schedule(math.inf, links)
    hours = sum(world.whole / plan.links_of(world) for world in WORLDS)
    minutes = 60 * hours + sum(world.least for world in WORLDS) / 60
    return Schedule(max(minutes, HOURS_FROM), links)


def _cut(whole: float, links: int, world: World) -> tuple[float, int]:
    """How long blocks are where each link has so much time, and how many each has."""
    for seconds, enough in (*BLOCKS, (world.block, BLOCKS_MIN)):
        blocks = int(whole / (seconds + BETWEEN_SECONDS))
        if seconds > world.most:
            continue
        if blocks >= BLOCKS_MIN and blocks * links >= enough:
            return seconds, blocks
    return world.block, BLOCKS_MIN
