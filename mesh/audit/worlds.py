# SPDX-License-Identifier: MIT
"""The worlds of a lab: which machines and wires, and what mail there is in a block.

    world   machines and wires
    pair    alpha ---- bravo
    chain   alpha ---- bravo ---- charlie ---- sink       charlie to sink is port 25
    plain   as a chain, but without nodes: each relay sends to the next's port 25

A coin is thrown for each block: idle, or mail all through it.  The next block begins
when all has arrived, an idle one when nodes have forgotten it, too, and rows near a
block's edge belong to none (cells.py): an idle block is idle.

The load is a share of what a link carries.  A load of 1 means that the next message is
always there, where a clock limits the link; else messages come at the instants of a
Poisson process.  Their octets are drawn log-uniformly.

    pair    all from alpha to bravo
    chain   half of what alpha sends goes through to the sink, half is for bravo; bravo
            sends half as much itself, half to the sink, half to charlie: so what comes
            to bravo and what leaves it are not the same
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from mesh.audit.cells import Block
from mesh.audit.counts import Counted
from mesh.audit.post import Post
from mesh.audit.spaces import Wire
from mesh.core.cell import BODY_LEN
from mesh.errors import IoError, UsageError

AHEAD_SECONDS: Final = 1.0
"""Of a link, full: so much is on its way at a load of 1, and three messages at least."""
AHEAD_MESSAGES: Final = 3
STUCK_SECONDS: Final = 300.0
"""Until all has arrived, after a block: long queues at one cell a second."""
QUIET_SECONDS: Final = 0.5
"""After the links are up, before the first block: what nodes tell each other first."""
FORGET_SECONDS: Final = 2.5
"""From the last message's arrival to an idle block: nodes still forget what went."""

Tick: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Plan:
    """What a lab is, and what it does in its busy blocks."""

    world: str = "pair"
    clock: str = "renewal"
    rate: float = 64.0
    load: float = 1.0
    seconds: float = 10.0
    """A block."""
    octets: tuple[int, int] = (2_000, 60_000)
    """Of a message: from, to."""
    busy: float = 0.5
    """Share of blocks with mail; of another than one half, so many, drawn by chance."""
    loss: float = 0.0
    pool: str = "timed"
    tick_seconds: float = 1.0
    """The pool of the last node, before port 25."""

    @property
    def names(self) -> tuple[str, ...]:
        """The machines."""
        return ("alpha", "bravo", *(("charlie", "sink") * (self.world != "pair")))

    @property
    def wires(self) -> tuple[Wire, ...]:
        """The wires, each with a snooper."""
        return tuple(map(Wire, self.names, self.names[1:]))

    @property
    def nodes(self) -> tuple[str, ...]:
        """The machines that run one."""
        if self.world == "plain":
            return ()
        return tuple(name for name in self.names if name != "sink")

    @property
    def octets_a_second(self) -> float:
        """What a link carries."""
        return self.rate * BODY_LEN

    @property
    def mean_octets(self) -> float:
        """Of a message."""
        low, high = self.octets
        return (high - low) / math.log(high / low) if high > low else float(low)

    def has_cells(self, wire: Wire) -> bool:
        """Whether a wire carries a link."""
        return wire.second in self.nodes

    def check(self) -> None:
        """UsageError: no such plan."""
        if self.world not in ("pair", "chain", "plain"):
            raise UsageError(f"no world {self.world!r}: pair, chain, plain")
        if not 0 <= self.load <= 1 or self.rate <= 0 or not self.octets[0] > 0:
            raise UsageError("a load is from 0 to 1; rate and octets are above 0")
        if not 0 < self.busy <= 1:
            raise UsageError("of the blocks some have mail")


@dataclass(frozen=True)
class _Source:
    """Who writes mail, along which routes, each as likely; how much of the load."""

    place: str
    routes: tuple[tuple[str, ...], ...]
    share: float


PAIR: Final = (_Source("alpha", (("alpha", "bravo"),), 1.0),)
CHAIN: Final = (
    _Source("alpha", (("alpha", "bravo", "charlie", "sink"), ("alpha", "bravo")), 1.0),
    _Source("bravo", (("bravo", "charlie", "sink"), ("bravo", "charlie")), 0.5),
)


def mail_in_blocks(
    plan: Plan,
    coins: Sequence[bool],
    post: Post,
    rng: np.random.Generator,
    tick: Tick,
    counted: Counted,
) -> list[Block]:
    """Idle or busy for each coin; IoError: mail does not arrive."""
    if plan.nodes:
        post.wait(QUIET_SECONDS, lambda: False)
    sources = PAIR if plan.world == "pair" else CHAIN
    is_limited = bool(plan.nodes) and plan.clock != "greedy"
    fill = _fill if plan.load == 1 and is_limited else _trickle
    blocks: list[Block] = []
    for busy in coins:
        if not busy and blocks and blocks[-1].busy:
            post.wait(FORGET_SECONDS, lambda: False)
        begin = time.time()
        with counted.block(busy):
            if busy and plan.load:
                fill(plan, sources, post, rng, time.monotonic() + plan.seconds)
            else:
                post.wait(plan.seconds, lambda: False)
        blocks.append(Block(begin, time.time(), busy))
        if not post.wait(STUCK_SECONDS, lambda: not post.left):
            raise IoError(f"{post.left} messages do not arrive")
        tick()
    return blocks


def _fill(
    plan: Plan,
    sources: Sequence[_Source],
    post: Post,
    rng: np.random.Generator,
    until: float,
) -> None:
    """Let so much be on its way from each source that its link is never empty."""
    ahead = max(AHEAD_SECONDS * plan.octets_a_second, AHEAD_MESSAGES * plan.mean_octets)

    def hungry() -> list[_Source]:
        return [one for one in sources if post.on_the_way_from(one.place) < ahead]

    while (left := until - time.monotonic()) > 0:
        for source in hungry():
            _send(plan, source, post, rng)
        post.wait(left, lambda: bool(hungry()))


def _trickle(
    plan: Plan,
    sources: Sequence[_Source],
    post: Post,
    rng: np.random.Generator,
    until: float,
) -> None:
    """Send at the instants of a Poisson process for each source."""
    means = [
        plan.mean_octets / (source.share * plan.load * plan.octets_a_second)
        for source in sources
    ]
    due = [time.monotonic() + float(rng.exponential(mean)) for mean in means]
    while min(due) < until:
        number = due.index(min(due))
        post.wait(max(0.0, due[number] - time.monotonic()), lambda: False)
        _send(plan, sources[number], post, rng)
        due[number] += float(rng.exponential(means[number]))
    post.wait(max(0.0, until - time.monotonic()), lambda: False)


def _send(plan: Plan, source: _Source, post: Post, rng: np.random.Generator) -> None:
    low, high = plan.octets
    octets = round(math.exp(rng.uniform(math.log(low), math.log(high))))
    post.send(source.routes[int(rng.integers(len(source.routes)))], octets)
