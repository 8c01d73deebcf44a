# SPDX-License-Identifier: MIT
"""Cut the power of two nodes at every instant of a recording, and count what is missing.

`run` records a story, then goes through its calls.  Where the story has kept the files,
the disk made of the calls must be just this.  After each call that changed a disk,
and for each kind of loss (medium.py), it rebuilds that node's files as the cut may leave
them and opens them (judge.py).  What must hold of each state, whatever the cut leaves of
the other node at that instant:

    lost      what got a 250, or mesh-sendmail's 0, is in a spool, in the drop folder or
              in the Maildir that it was for, in some place at least
    corrupt   nothing is damaged, and everything opens; what is found is what was handed
              in, octet for octet
    twice     what one node would send again, the other one knows when it has it; mail in
              the drop folder is known when it is in the spool
    back      what was forgotten for certain is not found again, and no count goes back
    lists     peers.d and the shared directory are as they were or as they became

The states of a node are counted that differ from those looked at a moment before.

At one instant any state of one node may meet any of the other: a cut takes both, and
what one disk has written says nothing of the other.  So a node that has heard DONE may
have forgotten an id in one state only if in none of its peer's is the message still there.

When something is wrong the folder stays, and its place is printed: `story.trace` has the
calls, `story` the files.  `--again FOLDER` goes through such a recording once more.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mesh.node.drop import ORIGIN
from tests.system.nodes import find_tool
from tests.system.power import calls
from tests.system.power.child import PLANTED, shorten
from tests.system.power.judge import Judge, Message, State, Wrong
from tests.system.power.medium import LOSSES, Cut, Medium, Tree
from tests.system.power.story import EVENTS, HOMES

ROOT: Final = Path(__file__).parents[3]
STORY_SECONDS: Final = 900
RECENT: Final = 64
"""States of a node that are known again."""
AT_ONCE: Final = 6
"""Losses tried at one cut, where there is not time for all at each: `nothing` and these."""
ENOUGH: Final = 3
"""Findings after which a planted bug counts as found."""
MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a folder of our own in it
"""Where states are laid down, if there is room: no fsync of theirs waits for a disk."""
MEMORY_FREE: Final = 1 << 30
"""Octets that must be free there: a state has some ten million."""
SHOWN: Final = 3
_SUBJECT: Final = re.compile(rb"Subject: ([a-z]+-[0-9]+)\r\n")
_DONE: Final = re.compile(rb"(?m)^250 ")


@dataclass
class Outcome:
    """What came of it."""

    accepts: int = 0
    left: int = 0
    cuts: int = 0
    states: int = 0
    spools: int = 0
    wrong: dict[str, list[str]] = field(
        default_factory=lambda: {
            kind: [] for kind in ("lost", "corrupt", "twice", "back", "lists")
        }
    )
    recorded_seconds: float = 0.0
    judged_seconds: float = 0.0
    events: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Nothing is wrong, and there was something to lose."""
        return bool(self.accepts and self.states) and not any(self.wrong.values())


@dataclass
class Seen:
    """One state of a node at the present instant."""

    state: State
    loss: str
    has: int
    """Messages as bits."""
    received: int
    """Those that are in the spool or in the Maildir."""
    ids: frozenset[bytes]
    """Of the records."""


class Session:
    """One conversation with a node, as its system calls show it."""

    def __init__(self) -> None:
        self.ident = ""
        self.done = 0


class Cutter:
    """Goes through a recording."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        states: int,
        outcome: Outcome,
        scratch: Path,
        losses: Sequence[str] = LOSSES[1:],
    ) -> None:
        """`losses` are those drawn from, beside `nothing`."""
        self._folder = folder
        self._rng = random.Random(seed)  # noqa: S311  # a plan, to be repeated
        self._wanted = states
        self._losses = losses
        self.outcome = outcome
        base = folder / "base"
        self._media = {
            name: Medium(str(folder / name), _tree(base / name)) for name in HOMES
        }
        self._judges = {name: Judge(name, base / name, scratch) for name in HOMES}
        self._seen: dict[str, list[Seen]] = {name: [] for name in HOMES}
        self._recent: dict[str, dict[Any, Seen]] = {name: {} for name in HOMES}
        self._bits: dict[Message, int] = {}
        self._accepted = 0
        self._gone: dict[str, set[bytes]] = {name: set() for name in HOMES}
        self._held: dict[str, frozenset[bytes]] = {n: frozenset() for n in HOMES}
        self._floor: dict[str, tuple[int, dict[bytes, int]]] = {}
        self._sessions: dict[str, Session] = {}
        self._carol: bool | None = False
        self._versions = (0, 0)
        self._begun = False
        self._stamps: dict[str, int] = {}

    # the recording

    def go(
        self,
        trace: Path,
        advance: Callable[[float], None] = lambda _: None,
        enough: Callable[[Outcome], bool] = lambda _: False,
        late: float = 0.0,
    ) -> None:
        """Read it all, or until it is enough; before this part of it nothing is drawn."""
        recorded = [each for each in calls.read(trace) if self._concerns(each)]
        left = sum(map(calls.may_change, recorded))
        for number, call in enumerate(recorded):
            share = max(0, self._wanted - self.outcome.states) / max(1, left)
            left -= calls.may_change(call)
            self._take(call, share if number >= late * len(recorded) else 0.0)
            advance(number / len(recorded))
            if enough(self.outcome):
                break
        self.outcome.spools = sum(judge.opened for judge in self._judges.values())

    def _concerns(self, call: calls.Call) -> bool:
        if call.name in ("sendto", "recvfrom"):
            return bool(call.texts)
        root = str(self._folder)
        texts = [each.decode("latin-1") for each in call.texts[:2]]
        return any(path.startswith(root) for path in (*call.paths, call.opened, *texts))

    def _take(self, call: calls.Call, share: float) -> None:
        if call.name in ("sendto", "recvfrom"):
            if not call.killed:
                self._hear(call)
            return
        if call.paths and call.paths[0] == f"{self._folder}/marks":
            for line in b"".join(call.texts).splitlines():
                self._mark(json.loads(line))
            return
        if not self._begun:
            return
        for name, medium in self._media.items():
            if medium.feed(call):
                kind = call.name.removesuffix("64").removesuffix("at")
                self.outcome.events[kind] = self.outcome.events.get(kind, 0) + 1
                self._cut(name, medium, share)
                self._compare()

    def _hear(self, call: calls.Call) -> None:
        """Follow a session: whose message, and whether it has its 250."""
        where, octets = call.paths[0] if call.paths else "", b"".join(call.texts)
        if call.name == "recvfrom":
            session = self._sessions.get(where)
            found = _SUBJECT.search(octets)
            if session and found:
                session.ident = found[1].decode()
        elif octets.startswith(b"220 "):
            self._sessions[where] = Session()
        elif session := self._sessions.get(where):
            session.done += len(_DONE.findall(octets))
            _, to = self._judges["alpha"].handed_in.get(session.ident, ("", ()))
            if to and session.done >= len(to) + 3:  # EHLO, MAIL, each RCPT, the content
                self.outcome.accepts += 1
                self._promise(session.ident)
                del self._sessions[where]

    def _mark(self, mark: dict[str, Any]) -> None:
        if "in" in mark:
            for judge in self._judges.values():
                judge.handed_in[mark["in"]] = (mark["digest"], frozenset(mark["to"]))
        elif "disk" in mark:
            self._settle(mark["disk"], mark["copy"])
        elif "left" in mark:
            self.outcome.left += 1
            self._promise(mark["left"])
        elif "peer" in mark:
            self._carol = None
        elif "peer_done" in mark:
            self._carol = mark["peer_done"]
        elif "adopting" in mark:
            self._versions = self._versions[0], mark["adopting"]
        elif "adopted" in mark:
            self._versions = mark["adopted"], mark["adopted"]
        else:
            self._begun = True

    def _promise(self, ident: str) -> None:
        for recipient in self._judges["alpha"].handed_in[ident][1]:
            self._accepted |= self._bit((ident, recipient))
        self._compare()

    def _bit(self, message: Message) -> int:
        return 1 << self._bits.setdefault(message, len(self._bits))

    def _settle(self, name: str, kept: str) -> None:
        """Compare with the files: what a kill ended shows only there."""
        if self._media[name].settle(_tree(self._folder / kept)):
            self._cut(name, self._media[name], 0.0)
            self._compare()

    # cuts

    def _cut(self, name: str, medium: Medium, share: float) -> None:
        """Cut this node's power now, in some of all ways."""
        if self._stamps.get(name) == medium.stamp and self._seen[name]:
            return
        self._stamps[name] = medium.stamp
        self.outcome.cuts += 1
        losses = ["nothing"]
        if self._rng.random() * AT_ONCE < share and not medium.is_durable:
            losses += self._rng.sample(self._losses, AT_ONCE)
        self._seen[name] = []
        for loss in losses:
            seen = self._look(name, medium, loss)
            if seen is not None:
                self._seen[name].append(seen)

    def _look(self, name: str, medium: Medium, loss: str) -> Seen | None:
        """Rebuild and judge one state, or know it again."""
        left = Cut(loss, self._rng).of(medium.root)
        key, recent = left.key(), self._recent[name]
        seen = recent.get(key)
        if seen is None:
            self.outcome.states += 1
            try:
                state = self._judges[name].judge(left)
            except Wrong as wrong:
                self._say("corrupt", name, loss, str(wrong))
                return None
            seen = recent[key] = self._sum_up(state, loss)
            if len(recent) > RECENT:
                del recent[next(iter(recent))]
        self._check(name, seen, loss)
        return seen

    def _sum_up(self, state: State, loss: str) -> Seen:
        spooled = [each for record in state.spool.records for each in record.messages]
        received = self._mask((*spooled, *state.letters))
        has = received | self._mask(each for _, whose in state.left for each in whose)
        ids = frozenset(record.id for record in state.spool.records)
        return Seen(state, loss, has, received, ids)

    def _mask(self, messages: Any) -> int:
        mask = 0
        for message in messages:
            mask |= self._bit(message)
        return mask

    def _say(self, kind: str, name: str, loss: str, what: str) -> None:
        self.outcome.wrong[kind].append(
            f"{name}, {loss}, cut {self.outcome.cuts}: {what}"
        )

    # what must hold of one state

    def _check(self, name: str, seen: Seen, loss: str) -> None:
        state = seen.state
        if name == "papers":
            low, high = self._versions
            if not low <= state.version <= high:
                self._say(
                    "lists", name, loss, f"directory {state.version} of {low} to {high}"
                )
            return
        again = [each for record in state.spool.records for each in record.messages]
        if len(again) != len(set(again)):
            self._say("twice", name, loss, "two records of one message")
        if seen.ids & self._gone[name]:
            self._say("back", name, loss, f"{len(seen.ids & self._gone[name])} records")
        self._check_counters(name, state, loss)
        others = {"alpha": {"bravo", "delta"}, "bravo": {"alpha", "delta"}}[name]
        carol = {"carol"} if name == "alpha" and self._carol else set()
        maybe = {"carol"} if name == "alpha" and self._carol is None else set()
        if not others | carol <= state.peers <= others | carol | maybe:
            self._say("lists", name, loss, f"peers {sorted(state.peers)}")
        if loss == "nothing":
            self._gone[name] |= self._held[name] - seen.ids
            self._held[name] = seen.ids

    def _check_counters(self, name: str, state: State, loss: str) -> None:
        own, peers = self._floor.get(name, (0, {}))
        if state.counter < own or any(
            state.counters.get(k, 0) < peers[k] for k in peers
        ):
            self._say("back", name, loss, "a counter")
        if loss == "nothing":
            self._floor[name] = (state.counter, state.counters)

    # what must hold of all together

    def _compare(self) -> None:
        alphas, bravos = self._seen["alpha"], self._seen["bravo"]
        for name, mine, theirs in (
            ("alpha", alphas, bravos),
            ("bravo", bravos, alphas),
        ):
            certain = -1
            for other in theirs:
                certain &= other.has
            for seen in mine:
                missing = self._accepted & ~(seen.has | (certain if theirs else 0))
                if missing:
                    self._say("lost", name, seen.loss, ", ".join(self._names(missing)))
        for alpha in alphas:
            self._compare_drop(alpha, bravos)
            for bravo in bravos:
                self._compare_ids(alpha, bravo)

    def _names(self, mask: int) -> list[str]:
        return [
            f"{ident} to {to}"
            for (ident, to), bit in self._bits.items()
            if mask >> bit & 1
        ]

    def _compare_ids(self, alpha: Seen, bravo: Seen) -> None:
        """What alpha would send again, bravo must know if it has it."""
        known: frozenset[bytes] | None = None
        for record in alpha.state.spool.records:
            if not record.is_local and bravo.received & self._mask(record.messages):
                if known is None:
                    known = frozenset(each[16:] for each in bravo.state.spool.known)
                if record.id not in known:
                    self._say("twice", "bravo", bravo.loss, f"{record.messages}")

    def _compare_drop(self, alpha: Seen, bravos: list[Seen]) -> None:
        for ident, messages in alpha.state.left:
            mask = self._mask(messages)
            there = alpha.received & mask or any(b.received & mask for b in bravos)
            if there and ORIGIN + ident not in alpha.state.spool.known:
                self._say("twice", "alpha", alpha.loss, f"left and taken: {messages}")


def _tree(folder: Path) -> Tree:
    return {
        path.name: _tree(path) if path.is_dir() else path.read_bytes()
        for path in folder.iterdir()
        if not path.is_socket()
    }


def record(
    folder: Path, accepts: int, seed: int, planted: str = "", events: int = EVENTS
) -> Path:
    """Have a story told under strace, in this folder; the recording."""
    strace = find_tool("strace")
    assert strace, "strace is not installed (Debian: apt-get install strace)"
    trace = folder.with_suffix(".trace")
    done = subprocess.run(
        [strace, *calls.STRACE[1:], "-o", str(trace), sys.executable, "-bb", "-m",
         "tests.system.power.story", str(folder), str(accepts), str(seed), str(events), planted],
        check=False, capture_output=True, text=True, timeout=STORY_SECONDS, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return trace


def run(
    folder: Path,
    accepts: int,
    states: int,
    seed: int = 1,
    planted: str = "",
    events: int = EVENTS,
    advance: Callable[[float], None] = lambda _: None,
    *,
    again: bool = False,
) -> Outcome:
    """Record in an empty folder, and cut; `advance` hears how much is done.

    With a planted bug it ends when that is found.  `again`: the recording is there.
    """
    home = folder / "story"
    began = time.monotonic()
    if not again:
        home.mkdir()
        record(home, accepts, seed, planted, events)
    recorded = time.monotonic()
    outcome = judge(home, seed, states, advance, _found if planted else lambda _: False)
    outcome.recorded_seconds = recorded - began
    outcome.judged_seconds = time.monotonic() - recorded
    return outcome


def _found(outcome: Outcome) -> bool:
    """Say whether a planted bug is found."""
    return sum(map(len, outcome.wrong.values())) >= ENOUGH


def judge(
    home: Path,
    seed: int,
    states: int,
    advance: Callable[[float], None] = lambda _: None,
    enough: Callable[[Outcome], bool] = lambda _: False,
    late: float = 0.0,
    losses: Sequence[str] = LOSSES[1:],
) -> Outcome:
    """Cut the power in the recording that lies here, until it ends or is enough."""
    shorten()
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="mesh-cut-", dir=_place(home)) as scratch:
        cutter = Cutter(home, seed, states, outcome, Path(scratch), losses)
        cutter.go(home.with_suffix(".trace"), advance, enough, late)
    return outcome


def _place(home: Path) -> Path:
    """Choose where states are laid down."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_FREE:
        return MEMORY
    return home.parent


@contextmanager
def _bar() -> Iterator[Callable[[float], None]]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("power cuts", total=1.0)
        yield lambda done: progress.update(task, completed=done)


def show(outcome: Outcome, title: str) -> None:
    """Print the figures."""
    table = Table("what", "figure", title=title)
    events = sorted(outcome.events.items(), key=lambda item: -item[1])
    for what, figure in {
        "accepted with 250": outcome.accepts,
        "left in the drop folder": outcome.left,
        "calls": ", ".join(f"{name} {count}" for name, count in events),
        "cuts": outcome.cuts,
        "states": outcome.states,
        "spools opened": outcome.spools,
        "seconds of recording": f"{outcome.recorded_seconds:.0f}",
        "seconds of cutting": f"{outcome.judged_seconds:.0f}",
        "a state": f"{1000 * outcome.judged_seconds / max(1, outcome.states):.1f} ms",
        **{kind: len(found) for kind, found in outcome.wrong.items()},
    }.items():
        table.add_row(what, str(figure))
    Console().print(table)
    for found in outcome.wrong.values():
        for line in found[:SHOWN]:
            Console().print(line, markup=False)


def main() -> None:
    """Run as asked; exit code 1 when a state is wrong, or when a planted bug is not."""
    parser = argparse.ArgumentParser(
        prog="power-cut", description="cut two nodes' power at every instant"
    )
    parser.add_argument("--states", type=int, default=20_000)
    parser.add_argument("--accepts", type=int, help="500; 60 with a planted bug")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--planted", choices=("", "all", *PLANTED), default="")
    parser.add_argument("--again", type=Path, help="a folder that was kept")
    args = parser.parse_args()
    wanted = PLANTED if args.planted == "all" else (args.planted,)
    good = [_run_and_show(args, planted) for planted in wanted]
    sys.exit(0 if all(good) else 1)


def _run_and_show(args: argparse.Namespace, planted: str) -> bool:
    """Run once; the folder stays unless all is well."""
    folder = args.again or Path(tempfile.mkdtemp(prefix="mesh-power-"))
    good = False
    try:
        with _bar() as bar:
            outcome = run(
                folder, args.accepts or (60 if planted else 500), args.states, args.seed, planted,
                advance=bar, again=bool(args.again),
            )  # fmt: skip
        show(outcome, f"seed {args.seed}{planted and f', planted: {planted}'}")
        good = any(outcome.wrong.values()) if planted else outcome.good
    finally:
        if good and not args.again:
            shutil.rmtree(folder)
        else:
            Console(stderr=True).print(f"kept in {folder}", markup=False)
    return good


if __name__ == "__main__":
    main()
