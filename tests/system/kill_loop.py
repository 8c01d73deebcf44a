# SPDX-License-Identifier: MIT
"""Kill nodes under load, and count what became of every message.

    sessions --> alpha ==link==> bravo --> bravo's Maildir      and the same from bravo
                  |  |              `--> bravo's other remailer, by LMTP
                  |  `--> alpha's Maildir
                  `--> port 25, to a mail server of this program

Some sessions hand messages of unlike sizes to both nodes, without an end: each to the
other node, some also to one of the other places.  At drawn instants the main process, or
the pacer, or both, of one node or of both, get SIGKILL; a main process is started again
at once, a pacer by its node; some are killed again while they start, and the other node
does not wait for that.  Meanwhile `queued` messages wait in alpha's spool for a third
node that is down until the end, so that each start of alpha recovers them.  In the end
the load stops, all nodes are started once more, and when nothing moves any longer:

    lost      a 250 was given, and a place that was named has it not
    twice     a Maildir has it more than once, whether 250 was given or not
    foreign   a place has what nobody handed in, or octets that differ
    unearned  port 25 or LMTP has one more copy of what was not in flight at a kill

must all be none.  In flight: the server had it less than IN_FLIGHT_SECONDS before the
main process that gave it was killed, and after a copy that came before.  What got no 250
(the connection died first) may have arrived or not.  The instants come from the seed;
what the processes do at them is theirs alone, so the same seed is another run with the
same plan.

A killed process shows what the order of commits and replies is worth.  The kernel has
its writes all the same: about fsync and a power cut this says nothing.
"""

import argparse
import hashlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.system.client import Client
from tests.system.nodes import NodeProcess, World
from tests.system.sink import Copy, Sink

SESSIONS: Final = 6
PAUSE_SECONDS: Final = 0.05
"""Of a session between two messages: load, but not more files than can be looked at."""
RETRY_SECONDS: Final = 0.02
FLOW_SECONDS: Final = 8.0
"""For mail to flow again before the next kill: a handshake takes up to 2.2 s, a lost race another 4 s."""
STILL_SECONDS: Final = 60.0
"""Nothing arrives for so long: the rest is lost."""
LOOK_SECONDS: Final = 0.2
BLIND: Final = 0.4
"""Share of kills that do not wait until mail flows: in recovery and handshakes too."""
LATEST_SECONDS: Final = 0.6
"""From the moment at which mail flows to the latest kill."""
AGAIN: Final = 0.4
"""Share of starts that are killed, too, within the time that the last one took."""
READY_SECONDS: Final = 2.0
"""The contract's, for a machine that does little else."""
IN_FLIGHT_SECONDS: Final = 5.0
"""The spool forgets within 1 s of a delivery; the rest is for a machine that is busy."""
PLANS: Final = (
    ("alpha",), ("bravo",), ("alpha",), ("bravo",), ("alpha pacer",), ("bravo pacer",),
    ("alpha pacer", "alpha"), ("bravo pacer", "bravo"), ("alpha", "bravo"),
    ("alpha pacer", "bravo pacer"), ("bravo pacer", "alpha"),
)  # fmt: skip
"""Who dies together; those of more than one are rarer."""
ALSO: Final = (("near", 0.25), ("lmtp", 0.15), ("out", 0.15))
"""Shares of messages with a recipient more: on this node, on bravo by LMTP, outside."""
LENGTHS: Final = (0, 100, 1_000, 3_000, 3_000, 10_000, 28_000)
LONG: Final = 0.01
LONG_LEN: Final = 200_000
LINE: Final = b"x" * 76 + b"\r\n"
LMTP, OUT = "lmtp@bravo.test", "who@sink.test"
WAITING: Final = "mix@charlie.test"
BATCH: Final = 50
"""Messages handed in ahead of their replies, of those that wait."""


def maildir_of(name: str) -> str:
    """The address that is delivered into this node's Maildir."""
    return f"mix@{name}.test"


@dataclass(frozen=True)
class Start:
    """From the start of a process until it said that it is ready."""

    queued: bool
    """On top of what the load left there, its spool holds what waits."""
    wall: float
    """Seconds, on a machine that does much else."""
    cpu: float
    """Seconds of the node and its pacer."""


@dataclass
class Outcome:
    """What became of all messages."""

    kills: Counter[str] = field(default_factory=Counter)
    handed_in: int = 0
    accepted: int = 0
    unanswered: int = 0
    unanswered_but_there: int = 0
    letters: int = 0
    copies: int = 0
    repeated: int = 0
    most_repeated: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unearned: list[str] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    queued: int = 0
    spent: Counter[str] = field(default_factory=Counter)
    """Seconds of the run by what they were for."""

    @property
    def good(self) -> bool:
        """Nothing is lost, twice, foreign or unearned, and there was something to lose."""
        bad = self.lost or self.twice or self.foreign or self.unearned
        return bool(self.accepted) and not bad

    @contextmanager
    def spending(self, what: str) -> Iterator[None]:
        """Count the time within as spent for this."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent[what] += time.monotonic() - began  # type: ignore[assignment]


@dataclass
class Loop:
    """One run: the nodes, the servers outside, and what happened to them."""

    world: World
    rng: random.Random
    outcome: Outcome
    pool: Executor
    died: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When each main process was killed (monotonic)."""

    starting: dict[str, Future[None]] = field(default_factory=dict)
    last_start: float = 1.0
    """Seconds until it was ready."""

    def wait_for(self, name: str) -> None:
        """Return when it is ready, if it was started."""
        start = self.starting.pop(name, None)
        if start is not None:
            with self.outcome.spending("start"):
                start.result()

    @property
    def nodes(self) -> dict[str, NodeProcess]:
        return {node.name: node for node in self.world.nodes}

    @property
    def pair(self) -> list[NodeProcess]:
        """Those that are killed."""
        return self.world.nodes[:2]


class Load:
    """Sessions that hand in messages until told to stop, and remember what was said."""

    def __init__(self, nodes: list[NodeProcess], rng: random.Random) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._session,
                args=(
                    nodes[number % 2],
                    nodes[1 - number % 2],
                    number,
                    random.Random(rng.random()),  # noqa: S311  # a plan
                ),
            )
            for number in range(SESSIONS)
        ]
        self.digests: dict[str, bytes] = {}
        """Of every message handed in, as a Maildir should have it."""
        self.places: dict[str, tuple[str, ...]] = {}
        self.by: dict[str, str] = {}
        """The node that took it."""
        self.accepted: set[str] = set()

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, each session after the message that it is at."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def last(self, near: NodeProcess, far: NodeProcess, rng: random.Random) -> None:
        """Hand in one message more when all sessions have ended."""
        with Client(near.socket) as client:
            self._hand_in(client, f"last-{near.name}", near, far, rng)

    def wait_for_nobody(self, node: NodeProcess, count: int) -> None:
        """Hand in so many short messages for the node that is down, many at once."""
        with Client(node.socket) as client:
            for first in range(0, count, BATCH):
                idents = [f"w-{n}" for n in range(first, min(first + BATCH, count))]
                for ident in idents:
                    octets = self._note(ident, (WAITING,), node, b"")
                    client.raw(
                        b"MAIL FROM:<mix@alpha.test>\r\nRCPT TO:<%s>\r\n"
                        b"BDAT %d LAST\r\n%s" % (WAITING.encode(), len(octets), octets)
                    )
                for ident in idents:
                    assert [client.reply() for _ in range(3)] == [250] * 3
                    self.accepted.add(ident)

    def _session(
        self, near: NodeProcess, far: NodeProcess, number: int, rng: random.Random
    ) -> None:
        count = 0
        while not self._stop.is_set():
            try:
                with Client(near.socket) as client:
                    while not self._stop.wait(PAUSE_SECONDS):
                        count += 1
                        self._hand_in(client, f"{number}-{count}", near, far, rng)
            except (OSError, AssertionError):
                # The node is dead, or died in the middle of a reply line.
                self._stop.wait(RETRY_SECONDS)

    def _hand_in(
        self,
        client: Client,
        ident: str,
        near: NodeProcess,
        far: NodeProcess,
        rng: random.Random,
    ) -> None:
        also = {"near": maildir_of(near.name), "lmtp": LMTP, "out": OUT}
        places = (
            maildir_of(far.name),
            *(also[kind] for kind, share in ALSO if rng.random() < share),
        )
        length = LONG_LEN if rng.random() < LONG else rng.choice(LENGTHS)
        octets = self._note(ident, places, near, LINE * (length // len(LINE)))
        code = client.send_at_once(places, octets)
        if code == 250:
            with self._lock:
                self.accepted.add(ident)
        else:
            raise ConnectionError(f"ended with {code}")

    def _note(
        self, ident: str, places: tuple[str, ...], node: NodeProcess, text: bytes
    ) -> bytes:
        """Remember a message; its octets."""
        octets = b"Subject: %s\r\n\r\n" % ident.encode() + text
        with self._lock:
            self.digests[ident] = _digest(octets)
            self.places[ident] = places
            self.by[ident] = node.name
        return octets


def run(
    folder: Path,
    kills: int,
    seed: int,
    clock: str = "greedy",
    advance: Callable[[int], None] = lambda _: None,
    *,
    queued: int = 0,
    cells: str = "512",
    minutes: float = 60.0,
) -> Outcome:
    """Do it all in an empty folder; `advance` is called after each kill.

    After so many minutes no further kill begins.
    """
    rng = random.Random(seed)  # noqa: S311  # a plan, to be repeated
    started = time.monotonic()
    outcome = Outcome()
    with World(folder) as world, Sink() as sink, ThreadPoolExecutor(2) as pool:
        for name in ("alpha", "bravo", *(["charlie"] if queued else [])):
            world.node(
                name, clock=f'"{clock}"', cells_per_second=cells,
                exit="true", tick_seconds="0.5",
                routes=f'{{ "sink.test" = "127.0.0.1:{sink.port}" }}',
            )  # fmt: skip
        alpha, bravo, *others = world.nodes
        bravo.also_serves(LMTP, f"lmtp:127.0.0.1:{sink.port}")
        world.introduce()
        loop = Loop(world, rng, outcome, pool)
        load = Load(loop.pair, rng)
        outcome.queued = queued
        with outcome.spending("begin"):
            world.start(loop.pair)
            load.wait_for_nobody(alpha, queued)
        load.start()
        try:
            until = started + 60 * minutes
            while outcome.kills.total() < kills and time.monotonic() < until:
                advance(_kill_once(loop))
            for node in loop.pair:
                loop.wait_for(node.name)
            with outcome.spending("end"):
                for node in loop.pair:
                    _wait_for_flow(node)
        finally:
            load.stop()
        with outcome.spending("end"):
            _end(loop, load, sink, others)
        for node in world.nodes:
            assert node.stop() == 0
            assert set(node.errors().splitlines()) == {"mesh: ready"}
    return outcome


def _end(loop: Loop, load: Load, sink: Sink, others: list[NodeProcess]) -> None:
    """Let all arrive that can, and count it."""
    world = loop.world
    alpha, bravo = loop.pair
    for node in others:
        node.start()
    _drain(world, load, sink)
    for node in world.nodes:
        assert node.stop() == 0
    # What lay in a spool though it was delivered would come again now, before
    # one message more.
    world.start()
    load.last(alpha, bravo, loop.rng)
    load.last(bravo, alpha, loop.rng)
    _drain(world, load, sink)
    _count(loop, load)
    _count_outside(loop, load, sink.copies)


def _kill_once(loop: Loop) -> int:
    """Kill whom the plan names, and start it again; how many processes died."""
    rng, outcome = loop.rng, loop.outcome
    if rng.random() >= BLIND:
        with outcome.spending("flow"):
            _wait_for_flow(rng.choice(loop.pair))
    with outcome.spending("drawn"):
        time.sleep(rng.random() * LATEST_SECONDS)
    before = outcome.kills.total()
    dead: list[NodeProcess] = []
    for victim in rng.choice(PLANS):
        name, _, part = victim.partition(" ")
        node = loop.nodes[name]
        loop.wait_for(name)
        with outcome.spending("kill"):
            if part:
                outcome.kills[victim] += node.kill_pacer()
            else:
                _kill(loop, node, victim)
                dead.append(node)
    for node in dead:
        again: list[float] = []
        while rng.random() < AGAIN:
            again.append(rng.random())
        loop.starting[node.name] = loop.pool.submit(_start, loop, node, again)
    return outcome.kills.total() - before


def _start(loop: Loop, node: NodeProcess, again: list[float]) -> None:
    """Start it, beside all else; before it is ready, so many times, kill it once more."""
    outcome = loop.outcome
    for share in again:
        node.start(wait=False)
        time.sleep(share * loop.last_start)
        _kill(loop, node, f"{node.name} starting")
    try:
        wall = loop.last_start = node.start()
    except AssertionError as error:
        raise AssertionError(f"after {outcome.kills}: {error}") from error
    queued = bool(outcome.queued) and node.name == "alpha"
    outcome.starts.append(Start(queued, wall, node.cpu_seconds()))


def _kill(loop: Loop, node: NodeProcess, what: str) -> None:
    loop.died[node.name].append(time.monotonic())
    loop.outcome.kills[what] += 1
    node.kill()


def _wait_for_flow(node: NodeProcess) -> None:
    """Return when another letter has come, or after a while without."""
    new = _new(node)
    before = new.stat().st_mtime_ns if new.exists() else 0
    until = time.monotonic() + FLOW_SECONDS
    while time.monotonic() < until:
        if new.exists() and new.stat().st_mtime_ns != before:
            return
        time.sleep(RETRY_SECONDS)


def _drain(world: World, load: Load, sink: Sink) -> None:
    """Wait until what was accepted is there, or nothing has moved for long."""
    waiting = {
        (place, ident) for ident in load.accepted for place in load.places[ident]
    }
    seen: set[tuple[str, str]] = set()
    taken = 0
    moved = time.monotonic()
    while waiting and time.monotonic() < moved + STILL_SECONDS:
        before = len(seen) + taken
        for node in world.nodes:
            new, place = _new(node), maildir_of(node.name)
            for path in new.iterdir() if new.exists() else ():
                if (place, path.name) not in seen:
                    seen.add((place, path.name))
                    waiting.discard((place, _ident(path.read_bytes())))
        copies = sink.copies[taken:]
        taken += len(copies)
        waiting -= {(copy.recipient, _ident(copy.content)) for copy in copies}
        if len(seen) + taken > before:
            moved = time.monotonic()
        time.sleep(LOOK_SECONDS)


def _count(loop: Loop, load: Load) -> None:
    """Compare the Maildirs with what was handed in."""
    outcome = loop.outcome
    outcome.handed_in = len(load.digests)
    outcome.accepted = len(load.accepted)
    outcome.unanswered = outcome.handed_in - outcome.accepted
    there: set[str] = set()
    for node in loop.world.nodes:
        place = maildir_of(node.name)
        found: Counter[str] = Counter()
        for path in _new(node).glob("*"):
            octets = path.read_bytes()
            found[_known(loop, load, place, octets, f"{node.name}/{path.name}")] += 1
        outcome.letters += found.total()
        outcome.twice += [f"{place} {ident}" for ident, n in found.items() if n > 1]
        outcome.lost += _missing(load, place, found)
        there |= found.keys()
    outcome.unanswered_but_there = len(there & load.digests.keys() - load.accepted)


def _count_outside(loop: Loop, load: Load, copies: list[Copy]) -> None:
    """The same for what left by port 25 and LMTP, where a kill may repeat something."""
    outcome = loop.outcome
    at_kill: Counter[tuple[str, float]] = Counter()
    for place in (LMTP, OUT):
        found: dict[str, list[float]] = defaultdict(list)
        for number, copy in enumerate(copies):
            if copy.recipient == place:
                where = f"{place} {number}"
                found[_known(loop, load, place, copy.content, where)].append(copy.at)
        outcome.copies += sum(map(len, found.values()))
        outcome.lost += _missing(load, place, found)
        for ident, times in found.items():
            giver = "bravo" if place == LMTP else load.by.get(ident, "")
            for first, again in pairwise(times):
                outcome.repeated += 1
                earned = [
                    kill
                    for kill in loop.died[giver]
                    if first - 1.0 < kill < min(again, first + IN_FLIGHT_SECONDS)
                ]
                if earned:
                    at_kill[giver, earned[0]] += 1
                else:
                    outcome.unearned.append(f"{place} {ident}")
    outcome.most_repeated = max(at_kill.values(), default=0)


def _known(loop: Loop, load: Load, place: str, octets: bytes, where: str) -> str:
    """A message's own name; what nobody handed in for this place is noted."""
    ident = _ident(octets)
    ours = load.digests.get(ident) == _digest(octets)
    if not ours or place not in load.places[ident]:
        loop.outcome.foreign.append(where)
    return ident


def _missing(
    load: Load, place: str, found: "Counter[str] | dict[str, list[float]]"
) -> list[str]:
    return [
        f"{place} {ident}"
        for ident in sorted(load.accepted - found.keys())
        if place in load.places[ident]
    ]


def _new(node: NodeProcess) -> Path:
    return node.home / "Maildir" / "new"


def _ident(octets: bytes) -> str:
    """Read a letter's own name, which stands in its first line."""
    line = octets.split(b"\n", 1)[0].rstrip(b"\r")
    return line.removeprefix(b"Subject: ").decode("latin-1")


def _digest(octets: bytes) -> bytes:
    """Of the octets as a Maildir has them."""
    return hashlib.blake2b(octets.replace(b"\r\n", b"\n"), digest_size=16).digest()


@contextmanager
def _bar(kills: int) -> Iterator[Callable[[int], None]]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("kill -9", total=kills)
        yield lambda count: progress.advance(task, count)


def main() -> None:
    """Run as asked, print a table; exit code 1 when a message was lost or repeated."""
    parser = argparse.ArgumentParser(
        prog="kill-loop", description="kill nodes under load and count every message"
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", choices=("greedy", "renewal"), default="greedy")
    parser.add_argument("--cells", default="64", help="cells a second")
    parser.add_argument("--queued", type=int, default=0, help="messages that wait")
    parser.add_argument("--minutes", type=float, default=240.0, help="at most so long")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mesh-kills-") as folder,
        _bar(args.kills) as advance,
    ):
        outcome = run(
            Path(folder), args.kills, args.seed, args.clock, advance,
            queued=args.queued, cells=args.cells, minutes=args.minutes,
        )  # fmt: skip
    title = f"seed {args.seed}, {args.clock} clock, {args.cells} cells/s"
    table = Table("what", "figure", title=title)
    for what, figure in _figures(outcome).items():
        table.add_row(what, str(figure))
    Console().print(table)
    bad = outcome.lost, outcome.twice, outcome.foreign, outcome.unearned
    for one in (one for some in bad for one in some[:5]):
        Console().print(one)
    sys.exit(0 if outcome.good else 1)


def _figures(outcome: Outcome) -> dict[str, object]:
    kills = outcome.kills.total()
    seconds = outcome.spent.total()
    each = seconds - outcome.spent["begin"] - outcome.spent["end"]
    of = ", ".join(f"{what} {spent:.0f}" for what, spent in outcome.spent.items())
    queue = [start for start in outcome.starts if start.queued]
    rest = [start for start in outcome.starts if not start.queued]
    return {
        "kills": kills,
        "of whom": ", ".join(f"{who} {n}" for who, n in sorted(outcome.kills.items())),
        "seconds": f"{seconds:.0f} ({of}), {each / max(1, kills):.2f} a kill",
        f"ready, {outcome.queued} queued": _spread(queue),
        "ready, others": _spread(rest),
        "messages handed in": outcome.handed_in,
        "of these got 250": outcome.accepted,
        "no answer, yet there": f"{outcome.unanswered_but_there} of {outcome.unanswered}",
        "letters in Maildirs": outcome.letters,
        "copies by port 25 and LMTP": outcome.copies,
        "of these repeated, in flight at a kill": outcome.repeated,
        "most repeated at one kill": outcome.most_repeated,
        "repeated, not in flight": len(outcome.unearned),
        "lost": len(outcome.lost),
        "twice in a Maildir": len(outcome.twice),
        "foreign": len(outcome.foreign),
    }


def _spread(starts: list[Start]) -> str:
    """Median, 95 % and slowest, by the clock and of the processors."""
    if not starts:
        return "-"
    told = []
    for what in ("wall", "cpu"):
        some = sorted(getattr(start, what) for start in starts)
        high = some[min(len(some) - 1, len(some) * 95 // 100)]
        told.append(f"{what} {statistics.median(some):.2f}, {high:.2f}, {some[-1]:.2f}")
    late = sum(start.wall > READY_SECONDS for start in starts)
    return f"{'; '.join(told)} s; {late} of {len(starts)} above {READY_SECONDS:.0f} s"


if __name__ == "__main__":
    main()
