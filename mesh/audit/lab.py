# SPDX-License-Identifier: MIT
"""A lab that is listened to: real nodes, real mail, real wires, and the truth beside.

    world   machines and wires
    pair    alpha ---- bravo
    chain   alpha ---- bravo ---- charlie ---- sink       charlie to sink is port 25
    plain   as a chain, but without nodes: each relay sends to the next's port 25

A coin is thrown for each block: idle, or mail all through it.  The next block begins
when all has arrived, and rows near a block's edge belong to none (cells.py): an idle
block is idle.  The load is a share of what a link carries.  A load of 1 means that the
next message is always there, where a clock limits the link; else messages come at the
instants of a Poisson process, and their octets are drawn log-uniformly.

    pair    all from alpha to bravo
    chain   half of what alpha sends goes through to the sink, half is for bravo; bravo
            sends half as much itself, half to the sink, half to charlie: so what comes
            to bravo and what leaves it are not the same

`capture` is one run.  `capture_pieces` is many, each with nodes of its own and kept in
a folder as soon as it is done; called again it goes on where it was.  Nodes renew a
link after 30 minutes at the earliest: pieces are shorter, so each is of one link.

Numbers of a piece: NAME.npz for each wire (trace.py), events.jsonl, and blocks.json.
"""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from mesh.audit.cells import Block, bursts, labelled, rows_of
from mesh.audit.nodes import make_nodes, running
from mesh.audit.post import SMTP_PORT, Letters, PlainLetters, Post
from mesh.audit.spaces import Space, Wire, check, listening, spaces, started
from mesh.audit.trace import (
    Event,
    Trace,
    joined,
    load,
    load_events,
    save_events,
)
from mesh.audit.wire import read
from mesh.core.cell import BODY_LEN
from mesh.errors import IoError, UsageError

PIECE_SECONDS_MAX: Final = 1500.0
"""Of blocks, without what comes between them: a link lives 30 minutes at least."""
AHEAD_SECONDS: Final = 1.0
"""Of a link, full: so much is on its way at a load of 1, and three messages at least."""
AHEAD_MESSAGES: Final = 3
STUCK_SECONDS: Final = 300.0
"""Until all has arrived, after a block: long queues at one cell a second."""
QUIET_SECONDS: Final = 1.0
"""After the links are up, before the first block: what nodes tell each other first."""
SPIN: Final = "while True: pass"

Tick = Callable[[], None]


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
    burn: bool = False
    """Whether all cores are kept busy, in idle blocks, too."""
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


@dataclass(frozen=True)
class Captured:
    """What was seen on each wire, by its name, and the truth."""

    traces: Mapping[str, Trace]
    events: Sequence[Event]
    blocks: Sequence[Block]

    def save(self, folder: Path) -> None:
        """Write into a folder, which appears when all is in it."""
        making = folder.with_name(f".{folder.name}")
        making.mkdir(exist_ok=True)
        for name, trace in self.traces.items():
            trace.save(making / f"{name}.npz")
        save_events(self.events, making / "events.jsonl")
        (making / "blocks.json").write_text(json.dumps(self.blocks))
        making.rename(folder)


def load_captured(folder: Path) -> Captured:
    """Read back what `save` wrote."""
    return Captured(
        {path.stem: load(path) for path in sorted(folder.glob("*.npz"))},
        load_events(folder / "events.jsonl"),
        [Block(*each) for each in json.loads((folder / "blocks.json").read_text())],
    )


def together(pieces: Sequence[Captured]) -> Captured:
    """Several captures as one, whose blocks have numbers of their own.

    UsageError: there is none.
    """
    if not pieces:
        raise UsageError("no pieces were captured")
    names = pieces[0].traces
    return Captured(
        {name: joined(piece.traces[name] for piece in pieces) for name in names},
        [event for piece in pieces for event in piece.events],
        [block for piece in pieces for block in piece.blocks],
    )


def throw(blocks: int, rng: np.random.Generator) -> list[bool]:
    """Throw so many coins, until both sides have come twice: nothing to compare else."""
    while True:
        coins = [bool(coin) for coin in rng.integers(2, size=blocks)]
        if min(sum(coins), blocks - sum(coins)) >= min(2, blocks // 2):
            return coins


def capture(
    plan: Plan,
    coins: Sequence[bool],
    *,
    letters: Letters | None = None,
    rng: np.random.Generator | None = None,
    tick: Tick = lambda: None,
    keep: Path | None = None,
) -> Captured:
    """Run a lab, a block for each coin; `tick` is called after each.

    `keep`: a folder in which the capture files stay, WIRE.pcap.  NotPermittedError,
    UnavailableError: no lab here; IoError: it broke off.
    """
    plan.check()
    check()
    rng = rng or np.random.default_rng()
    with tempfile.TemporaryDirectory(prefix="mesh-audit-") as name:
        folder = Path(name)
        files = {wire: (keep or folder) / f"{wire}.pcap" for wire in plan.wires}
        with ExitStack() as stack:
            made = stack.enter_context(spaces(plan.names, plan.wires, plan.loss))
            homes = make_nodes(folder, made, plan.wires, _changes(plan, made, folder))
            doors = {name: home / "local.sock" for name, home in homes.items()}
            post = Post(made, doors, letters or PlainLetters())
            stack.enter_context(post)
            for wire, file in files.items():
                stack.enter_context(listening(made[wire.first], wire, file))
            stack.enter_context(running(homes, made))
            if plan.burn:
                stack.enter_context(burning(folder))
            blocks = _blocks(plan, coins, post, rng, tick)
            events, end = post.events, time.time()
        traces = {
            str(wire): _look(plan, wire, files[wire], blocks, end) for wire in files
        }
    return Captured(traces, events, blocks)


def capture_pieces(
    plan: Plan,
    folder: Path,
    *,
    pieces: int,
    blocks: int,
    letters: Letters | None = None,
    tick: Tick = lambda: None,
) -> Captured:
    """Run a lab until there are so many pieces of so many blocks; all as one.

    What the folder holds already is not made again; a piece is `tick`ed once.
    UsageError: the folder is another plan's, or a piece would outlive a link.
    """
    plan.check()
    if blocks * plan.seconds > PIECE_SECONDS_MAX:
        raise UsageError(f"a piece has {PIECE_SECONDS_MAX:g} s of blocks at most")
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps({**asdict(plan), "blocks": blocks}, indent=1)
    kept = folder / "plan.json"
    if kept.exists() and kept.read_text() != told:
        raise UsageError(f"{folder}: holds pieces of another plan: name a new folder")
    kept.write_text(told)
    rng = np.random.default_rng()
    for number in range(pieces):
        piece = folder / f"piece-{number:04}"
        if not piece.exists():
            captured = capture(plan, throw(blocks, rng), letters=letters, rng=rng)
            captured.save(piece)
        tick()
    done = sorted(folder.glob("piece-*"))[:pieces]
    return together([load_captured(piece) for piece in done])


# what is in it


@contextmanager
def burning(folder: Path) -> Iterator[None]:
    """Keep all cores busy."""
    with ExitStack() as stack:
        for number in range(os.cpu_count() or 1):
            words = (sys.executable, "-c", SPIN)
            stack.enter_context(started(words, folder, folder / f"burner{number}"))
        yield


def _changes(
    plan: Plan, made: Mapping[str, Space], folder: Path
) -> dict[str, dict[str, str]]:
    """The keys of each node.toml."""
    changes = {}
    for name in plan.nodes:
        box = folder / name / "box.sock"
        changes[name] = {
            "clock": f'"{plan.clock}"',
            "cells_per_second": f"{plan.rate:g}",
            "deliver": f'"lmtp:{box}"',
            "exit": "false",
        }
        if name == "charlie":
            place = f"{made['sink'].address}:{SMTP_PORT}"
            changes[name] |= {
                "exit": "true",
                "routes": f'{{ "sink.test" = "{place}" }}',
                "kind": f'"{plan.pool}"',
                "tick_seconds": f"{plan.tick_seconds:g}",
            }
    return changes


def _look(
    plan: Plan, wire: Wire, file: Path, blocks: Sequence[Block], end: float
) -> Trace:
    """What a snooper saw on a wire, labelled."""
    source = f"{wire} of {plan.world}, load {plan.load:g}"
    if plan.has_cells(wire):
        rows = rows_of(read(file), source)
        return Trace(labelled(rows, blocks), plan.rate, plan.clock, source)
    rows = bursts(read(file), plan.rate, blocks[0].begin, end)
    return Trace(labelled(rows, blocks), plan.rate, "", source)


# what happens in it


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


def _blocks(
    plan: Plan,
    coins: Sequence[bool],
    post: Post,
    rng: np.random.Generator,
    tick: Tick,
) -> list[Block]:
    post.wait(QUIET_SECONDS, lambda: False)
    sources = PAIR if plan.world == "pair" else CHAIN
    is_limited = bool(plan.nodes) and plan.clock != "greedy"
    fill = _fill if plan.load == 1 and is_limited else _trickle
    blocks = []
    for busy in coins:
        begin = time.time()
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
