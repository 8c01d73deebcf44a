# SPDX-License-Identifier: MIT
"""Kill nodes under load, and count what became of every message.

    sessions --> alpha ==link==> bravo --> bravo's Maildir
                   `--> alpha's Maildir (one message in four goes there too)

Some sessions hand messages of unlike sizes to alpha, without an end.  At drawn instants
alpha, bravo or both get SIGKILL and are started again at once.  In the end the load
stops, both nodes are started once more, and when nothing moves any longer:

    lost      a 250 was given, and a Maildir that was named has it not
    twice     a Maildir has it more than once, whether 250 was given or not
    foreign   a Maildir has what nobody handed in, or octets that differ

must all be none.  What got no 250 (the connection died first) may have arrived or not.
The instants come from the seed; what the processes do at them is theirs alone, so the
same seed is another run with the same plan.

A killed process shows what the order of commits and replies is worth.  The kernel has
its writes all the same: about fsync and a power cut this says nothing.
"""

import argparse
import hashlib
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.system.client import Client
from tests.system.nodes import NodeProcess, World

SESSIONS: Final = 6
PAUSE_SECONDS: Final = 0.02
"""Of a session between two messages: load, but not more files than can be looked at."""
RETRY_SECONDS: Final = 0.02
FLOW_SECONDS: Final = 8.0
"""For mail to flow again before the next kill: a handshake takes up to 2.2 s, a lost race another 4 s."""
STILL_SECONDS: Final = 60.0
"""Nothing arrives for so long: the rest is lost."""
BLIND: Final = 0.25
"""Share of kills that do not wait until mail flows: in recovery and handshakes too."""
LATEST_SECONDS: Final = 0.6
"""From the moment at which mail flows to the latest kill."""
BOTH: Final = 0.15
"""Share of kills that take both nodes."""
ALSO_NEAR: Final = 0.25
"""Share of messages with a second recipient, on alpha itself."""
LENGTHS: Final = (0, 100, 3_000, 10_000, 28_000, 28_000, 200_000)
LINE: Final = b"x" * 76 + b"\r\n"
NEAR, FAR = "mix@alpha.test", "mix@bravo.test"


@dataclass
class Outcome:
    """What became of all messages."""

    kills: Counter[str] = field(default_factory=Counter)
    handed_in: int = 0
    accepted: int = 0
    unanswered: int = 0
    unanswered_but_there: int = 0
    letters: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    slowest_start: float = 0.0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Nothing is lost, twice or foreign, and there was something to lose."""
        return bool(self.accepted) and not (self.lost or self.twice or self.foreign)


class Load:
    """Sessions that hand in messages until told to stop, and remember what was said."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._session,
                args=(number, random.Random(rng.random())),  # noqa: S311  # a plan
            )
            for number in range(SESSIONS)
        ]
        self.digests: dict[str, bytes] = {}
        """Of every message handed in, as a Maildir should have it."""
        self.places: dict[str, tuple[str, ...]] = {}
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

    def last(self, rng: random.Random) -> None:
        """Hand in one message more when all sessions have ended."""
        with Client(self._path) as client:
            self._hand_in(client, "last", rng)

    def _session(self, number: int, rng: random.Random) -> None:
        count = 0
        while not self._stop.is_set():
            try:
                with Client(self._path) as client:
                    while not self._stop.wait(PAUSE_SECONDS):
                        count += 1
                        self._hand_in(client, f"{number}-{count}", rng)
            except (OSError, AssertionError):
                # The node is dead, or died in the middle of a reply line.
                self._stop.wait(RETRY_SECONDS)

    def _hand_in(self, client: Client, ident: str, rng: random.Random) -> None:
        octets = b"Subject: %s\r\n\r\n" % ident.encode()
        octets += LINE * (rng.choice(LENGTHS) // len(LINE))
        places = (FAR, NEAR) if rng.random() < ALSO_NEAR else (FAR,)
        with self._lock:
            self.digests[ident] = _digest(octets.replace(b"\r\n", b"\n"))
            self.places[ident] = places
        code = client.send_at_once(places, octets)
        if code == 250:
            with self._lock:
                self.accepted.add(ident)
        else:
            raise ConnectionError(f"ended with {code}")


def run(
    folder: Path,
    kills: int,
    seed: int,
    clock: str = "greedy",
    advance: Callable[[], None] = lambda: None,
) -> Outcome:
    """Do it all in an empty folder; `advance` is called after each kill."""
    rng = random.Random(seed)  # noqa: S311  # a plan, to be repeated
    started = time.monotonic()
    outcome = Outcome()
    with World(folder) as world:
        for name in ("alpha", "bravo"):
            world.node(name, clock=f'"{clock}"', cells_per_second="512")
        world.introduce()
        world.start()
        load = Load(world.nodes[0].socket, rng)
        load.start()
        try:
            for _ in range(kills):
                _kill_once(world.nodes, rng, outcome)
                advance()
            _wait_for_flow(world.nodes[1])
        finally:
            load.stop()
        _drain(world, load)
        for node in world.nodes:
            assert node.stop() == 0
        # What lay in a spool though it was delivered would come again now, before
        # one message more.
        world.start()
        load.last(rng)
        _drain(world, load)
        _count(world, load, outcome)
        for node in world.nodes:
            assert node.stop() == 0
            assert set(node.errors().splitlines()) == {"mesh: ready"}
    outcome.seconds = time.monotonic() - started
    return outcome


def _kill_once(nodes: list[NodeProcess], rng: random.Random, outcome: Outcome) -> None:
    alpha, bravo = nodes
    if rng.random() >= BLIND:
        _wait_for_flow(bravo)
    time.sleep(rng.random() * LATEST_SECONDS)
    victims = [alpha, bravo] if rng.random() < BOTH else [rng.choice(nodes)]
    for node in victims:
        outcome.kills[node.name] += 1
        node.kill()
    for node in victims:
        outcome.slowest_start = max(outcome.slowest_start, node.start())


def _wait_for_flow(node: NodeProcess) -> None:
    """Return when another letter has come, or after a while without."""
    before = len(list(_new(node).glob("*")))
    until = time.monotonic() + FLOW_SECONDS
    while len(list(_new(node).glob("*"))) == before and time.monotonic() < until:
        time.sleep(RETRY_SECONDS)


def _drain(world: World, load: Load) -> None:
    """Wait until what was accepted is there, or nothing has moved for long."""
    waiting = {
        (place, ident) for ident in load.accepted for place in load.places[ident]
    }
    seen: set[Path] = set()
    moved = time.monotonic()
    while waiting and time.monotonic() < moved + STILL_SECONDS:
        for node, place in zip(world.nodes, (NEAR, FAR), strict=True):
            for path in set(_new(node).glob("*")) - seen:
                seen.add(path)
                waiting.discard((place, _ident(path.read_bytes())))
                moved = time.monotonic()
        time.sleep(RETRY_SECONDS)


def _count(world: World, load: Load, outcome: Outcome) -> None:
    outcome.handed_in = len(load.digests)
    outcome.accepted = len(load.accepted)
    outcome.unanswered = outcome.handed_in - outcome.accepted
    for node, place in zip(world.nodes, (NEAR, FAR), strict=True):
        found: Counter[str] = Counter()
        for name, octets in node.letters().items():
            ident = _ident(octets)
            ours = load.digests.get(ident) == _digest(octets)
            if not ours or place not in load.places[ident]:
                outcome.foreign.append(f"{node.name}/{name}")
            found[ident] += 1
        outcome.letters += found.total()
        outcome.twice += [f"{place} {ident}" for ident, n in found.items() if n > 1]
        outcome.lost += [
            f"{place} {ident}"
            for ident in sorted(load.accepted - found.keys())
            if place in load.places[ident]
        ]
        if place == FAR:
            outcome.unanswered_but_there = len(found.keys() - load.accepted)


def _new(node: NodeProcess) -> Path:
    return node.home / "Maildir" / "new"


def _ident(octets: bytes) -> str:
    """Read a letter's own name, which stands in its first line."""
    return octets.split(b"\n", 1)[0].removeprefix(b"Subject: ").decode("latin-1")


def _digest(octets: bytes) -> bytes:
    return hashlib.blake2b(octets, digest_size=16).digest()


@contextmanager
def _bar(kills: int) -> Iterator[Callable[[], None]]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("kill -9", total=kills)
        yield lambda: progress.advance(task)


def main() -> None:
    """Run as asked, print a table; exit code 1 when a message was lost or repeated."""
    parser = argparse.ArgumentParser(
        prog="kill-loop", description="kill nodes under load and count every message"
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", choices=("greedy", "renewal"), default="greedy")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mesh-kills-") as folder,
        _bar(args.kills) as advance,
    ):
        outcome = run(Path(folder), args.kills, args.seed, args.clock, advance)
    table = Table("what", "figure", title=f"seed {args.seed}, {args.clock} clock")
    for what, figure in {
        "kills": ", ".join(f"{name} {n}" for name, n in sorted(outcome.kills.items())),
        "seconds": f"{outcome.seconds:.0f}",
        "slowest start": f"{outcome.slowest_start:.2f} s",
        "messages handed in": outcome.handed_in,
        "of these got 250": outcome.accepted,
        "no answer, yet there": f"{outcome.unanswered_but_there} of {outcome.unanswered}",
        "letters in both Maildirs": outcome.letters,
        "lost": len(outcome.lost),
        "twice": len(outcome.twice),
        "foreign": len(outcome.foreign),
    }.items():
        table.add_row(what, str(figure))
    Console().print(table)
    for bad in [*outcome.lost[:5], *outcome.twice[:5], *outcome.foreign[:5]]:
        Console().print(bad)
    sys.exit(0 if outcome.good else 1)


if __name__ == "__main__":
    main()
