# SPDX-License-Identifier: MIT
"""Which worlds an audit has, and for how long each is listened to.

    key       the world                                            seconds    share
    quiet     pair, renewal, all that a link carries                    40     0.22
    greedy    pair, without cover: a control                            26     0.08
    chain     alpha, bravo, charlie, and a sink behind port 25          28     0.22
    plain     the same remailers over plain SMTP: a control             16     0.06
    probed    a node and a port that only reads, on loopback            10     0.10
    loaded    as quiet, all cores of the host busy                      40     0.20
    half      as quiet, half of what the link carries                   40     0.06
    tenth     as quiet, a tenth                                         40     0.06

In a run of HOURS_FROM minutes links have 64 cells a second, in a shorter one 256, and not
the default's one: a figure needs windows, and what leaks, how late a cell is, does not
depend on the rate.  The same lateness shows more at a higher one.  What one cell a second
leaks in an hour is said by the white box, from the lateness itself.

In the order of the table worlds are taken in while their seconds, the least with which
they say anything, fit into the run; what is left of the time is shared out.

A world is taken in pieces, since a link is renewed after half an hour at the earliest; a
piece has blocks, for each of which a coin is thrown (lab.py).  The longer a run, the longer
its blocks (BLOCKS).  Pieces go round the
worlds, so that a run that is ended early has some of all.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from mesh.audit.lab import Plan

PIECE_SECONDS: Final = 600.0
BLOCKS: Final = ((60.0, 100), (20.0, 60), (10.0, 40), (5.0, 24))
"""Seconds of a block, and how many must fit.  Into the longest fit 3,600 cells at 64 a
second; a bootstrap of blocks wants many, five folds two of each kind at least."""
BLOCK_LEAST: Final = 2.0
"""Of which one is guard."""
BLOCKS_MIN: Final = 4
BETWEEN_SECONDS: Final = 2.0
"""After a block, on average, until all mail has arrived, and is forgotten."""
RATE: Final = 64.0
"""Cells a second."""
SHORT_RATE: Final = 256.0
APART_LOAD: Final = 0.15
"""Of a chain: where messages lie one upon the other, nobody follows one without cover."""
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
    """Of what is left."""
    plan: Plan | None
    """Of the lab, but for the length of blocks; None: it is not the lab's."""
    block: float = BLOCK_LEAST
    """Seconds that its blocks have at least."""

    @property
    def clock(self) -> str:
        """The links' clock; "": there is no link."""
        if self.plan is None:
            return "renewal"
        return self.plan.clock if self.plan.nodes else ""


def _pair(key: str, title: str, share: float, load: float, burn: bool = False) -> World:
    return World(key, f"pair, renewal{title}", 40.0, share, Plan(load=load, burn=burn))


QUIET: Final = _pair("quiet", "", 0.22, 1.0)
GREEDY: Final = World(
    "greedy", "pair, greedy: no cover", 26.0, 0.08, Plan(clock="greedy", load=1.0), 4.0
)
"""Its padding comes less often than cells under a clock: longer blocks have windows."""
CHAIN: Final = World(
    "chain", "chain, renewal", 28.0, 0.22, Plan("chain", load=APART_LOAD)
)
PLAIN: Final = World(
    "plain", "chain, plain SMTP: no cover", 16.0, 0.06, Plan("plain", load=APART_LOAD)
)
PROBED: Final = World("probed", "loopback, renewal", 10.0, 0.10, None)
LOADED: Final = _pair("loaded", ", cores busy", 0.20, 1.0, burn=True)
WORLDS: Final = (
    QUIET, GREEDY, CHAIN, PLAIN, PROBED, LOADED,
    _pair("half", ", half full", 0.06, 0.5), _pair("tenth", ", a tenth full", 0.06, 0.1),
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
    def rate(self) -> float:
        """Of the links, cells a second."""
        return RATE if self.minutes >= HOURS_FROM else SHORT_RATE

    def title(self, world: World) -> str:
        """A world's name in the report."""
        if world is PROBED:
            return f"{world.title}, 1 cell/s"
        covered = world.clock not in ("", "greedy")
        return f"{world.title}, {self.rate:g} cells/s" if covered else world.title

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
        return world.least + free * world.share / sum(each.share for each in kept)

    def jobs(self) -> list[Job]:
        """All pieces of the lab's worlds, in the order in which they are best taken."""
        left = [list(self._of(world)) for world in self.worlds]
        found = []
        while any(left):
            found += [jobs.pop(0) for jobs in left if jobs]
        return found

    def _of(self, world: World) -> Iterator[Job]:
        if world.plan is None:
            return
        whole = self.seconds_of(world)
        seconds, blocks = _cut(whole, world.block)
        plan = replace(world.plan, rate=self.rate, seconds=seconds)
        pieces = math.ceil(blocks * (seconds + BETWEEN_SECONDS) / PIECE_SECONDS)
        for number in range(pieces):
            for link in range(self.links):
                yield Job(world, plan, link, number + 1, math.ceil(blocks / pieces))


def _cut(whole: float, least: float) -> tuple[float, int]:
    """How long blocks are where there is so much time, and how many."""
    for seconds, enough in (*BLOCKS, (least, BLOCKS_MIN)):
        blocks = int(whole / (seconds + BETWEEN_SECONDS))
        if blocks >= enough:
            return seconds, blocks
    return least, BLOCKS_MIN
