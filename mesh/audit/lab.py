# SPDX-License-Identifier: MIT
"""A lab that is listened to: real nodes, real mail, real wires, and the truth beside.

`capture` is one run.  `capture_pieces` is many, each with nodes of its own and kept in
a folder as soon as it is done; called again it goes on where it was.  Nodes renew a
link after 30 minutes at the earliest: pieces are shorter, so each is of one link.

A piece is a folder: WIRE.npz for each wire (trace.py), events.jsonl, blocks.json.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from mesh.audit.cells import Block, bursts, labelled, rows_of
from mesh.audit.counts import Counted
from mesh.audit.nodes import make_nodes, running
from mesh.audit.post import SMTP_PORT, Letters, PlainLetters, Post
from mesh.audit.spaces import (
    SNAP_OCTETS,
    Space,
    Wire,
    check,
    listening,
    spaces,
    started,
)
from mesh.audit.trace import (
    Event,
    Trace,
    joined,
    load,
    load_events,
    save_events,
)
from mesh.audit.wire import read
from mesh.audit.worlds import Plan as Plan  # the lab's, for who runs one
from mesh.audit.worlds import Tick, mail_in_blocks
from mesh.errors import IoError, UsageError

PIECE_SECONDS_MAX: Final = 1200.0
"""Of blocks, without what comes between them: a link lives 30 minutes at least."""
ATTEMPTS: Final = 3
"""At one piece: a run of hours is not ended by one that a busy host has spoilt."""
SPIN: Final = "while True: pass"


@dataclass(frozen=True)
class Captured:
    """What was seen on each wire, by its name, and the truth."""

    traces: Mapping[str, Trace]
    events: Sequence[Event]
    blocks: Sequence[Block]
    late: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The first node's counts of lateness, "idle" and "busy" (counts.py)."""

    def save(self, folder: Path) -> None:
        """Write into a folder, which appears when all is in it."""
        making = folder.with_name(f".{folder.name}")
        making.mkdir(exist_ok=True)
        for name, trace in self.traces.items():
            trace.save(making / f"{name}.npz")
        save_events(self.events, making / "events.jsonl")
        (making / "blocks.json").write_text(json.dumps(self.blocks))
        (making / "late.json").write_text(json.dumps(self.late))
        making.rename(folder)


def load_captured(folder: Path) -> Captured:
    """Read back what `save` wrote."""
    return Captured(
        {path.stem: load(path) for path in sorted(folder.glob("*.npz"))},
        load_events(folder / "events.jsonl"),
        [Block(*each) for each in json.loads((folder / "blocks.json").read_text())],
        json.loads((folder / "late.json").read_text()),
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
        {
            kind: np.sum([piece.late[kind] for piece in pieces], axis=0).tolist()
            for kind in pieces[0].late
        },
    )


def throw(blocks: int, rng: np.random.Generator, busy: float = 0.5) -> list[bool]:
    """Throw so many coins, until each side has come two times in five: else again.

    With fewer there is little to compare; and no snooper knows what was thrown before.
    A share of another than one half is no coin's: so many blocks, but for one at least.
    """
    if busy != 0.5:
        idle = max(1, round((1 - busy) * blocks))
        return [bool(one) for one in rng.permutation(np.arange(blocks) >= idle)]
    while True:
        coins = [bool(coin) for coin in rng.integers(2, size=blocks)]
        if min(sum(coins), blocks - sum(coins)) >= max(
            blocks * 2 // 5, min(2, blocks // 2)
        ):
            return coins


def capture(
    plan: Plan,
    coins: Sequence[bool],
    *,
    letters: Letters | None = None,
    rng: np.random.Generator | None = None,
    tick: Tick = lambda: None,
    keep: Path | None = None,
    snap: int = SNAP_OCTETS,
) -> Captured:
    """Run a lab, a block for each coin; `tick` is called after each.

    `keep`: a folder in which the capture files stay, WIRE.pcap, with `snap` octets of
    each packet, 0: all.  NotPermittedError,
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
                stack.enter_context(listening(made[wire.first], wire, file, snap))
            pids = stack.enter_context(running(homes, made))
            counted = Counted(pids.get("alpha"), plan.rate)
            blocks = mail_in_blocks(plan, coins, post, rng, tick, counted)
            events, end = post.events, time.time()
        traces = {
            str(wire): _look(plan, wire, files[wire], blocks, end) for wire in files
        }
    return Captured(traces, events, blocks, counted.late)


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
            _piece(plan, throw(blocks, rng, plan.busy), letters, rng).save(piece)
        tick()
    done = sorted(folder.glob("piece-*"))[:pieces]
    return together([load_captured(piece) for piece in done])


def _piece(
    plan: Plan,
    coins: Sequence[bool],
    letters: Letters | None,
    rng: np.random.Generator,
) -> Captured:
    """One piece; IoError: each attempt broke off."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return capture(plan, coins, letters=letters, rng=rng)
        except IoError:
            if not left:
                raise
    raise AssertionError  # the loop returns or raises


# what is in it


@contextmanager
def burning() -> Iterator[None]:
    """Keep all cores busy."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
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
