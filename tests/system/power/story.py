# SPDX-License-Identifier: MIT
"""Two nodes under load, to be recorded: `python -m tests.system.power.story` under strace.

    sessions --> alpha ==link==> bravo --> bravo's Maildir
                  |`--> alpha's Maildir (one message in four goes there too; all that is
                  |     not for delta, where no event is wanted and alpha runs alone)
                  `---> delta, which never runs: what is for it waits, and its keys are
                        neighbours of those that change

and all the while, by the main thread, in turn: mail left in alpha's drop folder (while it
runs, and while it does not), a peer added to peers.d and removed, the next shared
directory adopted, alpha or bravo killed or stopped and started again.

The files of the shared directory lie in a state folder of their own, and this process
adopts them by the node's own code: alpha would have to be a member of it.

What strace cannot see stands in FOLDER/marks, a line of JSON a write:

    {"begin": true}                               the homes are as in FOLDER/base
    {"in": ident, "to": [...], "digest": hex}     handed in from now on
    {"left": ident}                               mesh-sendmail has ended with 0
    {"adopting": n}, {"adopted": n}               the directory's version
    {"peer": bool}, {"peer_done": bool}           carol is being listed, or removed
    {"disk": home, "copy": path}                  nobody writes there now; all its files
                                                  lie in FOLDER/path

In the end all that was accepted must lie in the Maildirs, and nothing twice: then what a
rebuilt disk does not have was lost by the cut, or by whoever rebuilt it.
"""

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mesh.cli import dropoff
from mesh.core.document import Document
from mesh.core.drop import Mail
from mesh.errors import TryLaterError
from mesh.node.archive import Archive
from tests.descriptors import NOW
from tests.directories import directory
from tests.system import nodes
from tests.system.client import Client
from tests.system.nodes import NodeProcess, World, mesh_here
from tests.system.power.child import shorten

SESSIONS: Final = 4
PAUSE_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 0.1
SLOW_SECONDS: Final = 60.0
"""For a traced node to do anything while the machine has other things to do."""
PLANTED_SECONDS: Final = 3.0
"""Where a planted bug may have lost what is waited for."""
LENGTHS: Final = (0, 100, 3_000, 10_000, 28_000)
LONG: Final = 200_000
"""Of one message in 64."""
LINE: Final = b"x" * 76 + b"\r\n"
NEAR, FAR, NEVER = "mix@alpha.test", "mix@bravo.test", "mix@delta.test"
WAITING: Final = 24
"""Messages for whom nobody runs, the first ones of all."""
HOMES: Final = ("alpha", "bravo", "papers")
EVENTS: Final = 16
"""In a story, however long it is; without any bravo does not run either."""
KEYS: Final = 8
"""Contents of arena.key to be seen before the end: four re-wraps of the arena."""


class Story:
    """What happens, and the marks that tell of it."""

    def __init__(
        self, folder: Path, accepts: int, seed: int, events: int, *, planted: bool
    ) -> None:
        self._planted = planted
        self._folder = folder
        self._accepts = accepts
        self._events = events
        self._rng = random.Random(seed)  # noqa: S311  # a plan, to be repeated
        self._lock = threading.Lock()
        self._marks = os.open(folder / "marks", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._count = 0
        self._copies = 0
        self._document: Document | None = None
        self.accepted = 0
        self.handed_in: list[tuple[str, tuple[str, ...]]] = []

    def mark(self, **what: object) -> None:
        """Note something at this place of the recording."""
        os.write(self._marks, json.dumps(what).encode() + b"\n")

    def message(self, kind: str) -> tuple[str, tuple[str, ...], bytes]:
        """Draw a message, and note that it is handed in."""
        with self._lock:
            self._count += 1
            ident = f"{kind}-{self._count}"
            length = LONG if self._count % 64 == 63 else self._rng.choice(LENGTHS)
            near = 0.25 if self._events else 1.0  # alone, nothing else is delivered
            to = (FAR, NEAR) if self._rng.random() < near else (FAR,)
            if self._count % 2 and self._count < 2 * WAITING:
                to = (NEVER,)
        octets = b"Subject: %s\r\n\r\n" % ident.encode() + LINE * (length // len(LINE))
        self.mark(**{"in": ident}, to=to, digest=digest_of(octets))
        return ident, to, octets

    # the load

    def session(self) -> None:
        """Hand in messages until enough have been accepted."""
        while self.accepted < self._accepts:
            ident, to, octets = self.message("mail")
            try:
                with Client(self._folder / "alpha" / "local.sock") as client:
                    code = client.send_at_once(to, octets)
            except (OSError, AssertionError):
                code = 0
            with self._lock:
                if code == 250:
                    self.accepted += 1
                    self.handed_in.append((ident, to))
            time.sleep(PAUSE_SECONDS if code == 250 else RETRY_SECONDS)

    def leave(self, count: int) -> None:
        """Leave mail in alpha's drop folder, as mesh-sendmail does."""
        for _ in range(count):
            ident, to, octets = self.message("left")
            mail = Mail("mix@alpha.test", to, octets)
            try:
                dropoff.drop(str(self._folder / "alpha" / "drop"), [mail])
            except TryLaterError:
                continue
            self.mark(left=ident)
            self.handed_in.append((ident, to))

    # events

    def adopt(self) -> None:
        """Put the next shared directory in force."""
        before = self._document
        archive = Archive(self._folder / "papers")
        if before is None:
            document = directory()
        else:
            document = directory(before, now=NOW + 60 * (before.roster.version + 1))
        version = document.roster.version
        self.mark(adopting=version)
        with archive.lock():
            if before is None:
                archive.begin(None, document)
            else:
                archive.adopt(document)
        self.mark(adopted=version)
        self._document = document

    def peers(self, alpha: NodeProcess, carol: Path, *, listed: bool) -> None:
        """List a third node in alpha's peers.d, or remove it."""
        self.mark(peer=listed)
        if listed:
            mesh_here(
                "peers", "add", "-c", str(alpha.config),
                "--serves=mix@carol.test", str(carol),
            )  # fmt: skip
        else:
            mesh_here("peers", "remove", "-c", str(alpha.config), "carol")
        self.mark(peer_done=listed)

    def events(self, world: World, carol: Path) -> list[Callable[[], None]]:
        """What happens beside the load, in its order."""
        alpha, bravo = world.nodes[:2]

        def again(node: NodeProcess, end: Callable[[], object], left: int) -> None:
            end()
            self.copy(node.home)
            self.leave(left)
            node.start()

        one = [
            lambda: self.leave(2),
            self.adopt,
            lambda: self.peers(alpha, carol, listed=True),
            lambda: again(alpha, alpha.kill, 3),
            self.adopt,
            lambda: again(bravo, bravo.kill, 0),
            lambda: self.peers(alpha, carol, listed=False),
            lambda: again(alpha, alpha.stop, 3),
        ]
        return (one * self._events)[: self._events]

    def run(self) -> None:
        """Make the world, record, end."""
        folder = self._folder
        with World(folder) as world:
            for name in ("alpha", "bravo", "delta", "carol"):
                world.node(name, clock='"greedy"', cells_per_second="512")
            carol = folder / "carol.mesh"
            carol.write_text(mesh_here("export", "-c", str(world.nodes[3].config)))
            world.nodes.pop()
            world.introduce()
            world.nodes.pop()
            (folder / "papers").mkdir()
            for name in HOMES:
                shutil.copytree(folder / name, folder / "base" / name)
            self.mark(begin=True)
            running = world.nodes if self._events else world.nodes[:1]
            world.start(running)
            sessions = [threading.Thread(target=self.session) for _ in range(SESSIONS)]
            for session in sessions:
                session.start()
            events = self.events(world, carol)
            for number, event in enumerate(events):
                goal = self._accepts * (number + 1) // (len(events) + 1)
                while self.accepted < goal:
                    time.sleep(0.02)
                event()
            for session in sessions:
                session.join()
            if self._events:
                self.drain(world)
            else:
                self.see_rewraps()
            for node in running:
                assert node.stop() == 0, node.errors()
            for home in (*(node.home for node in running), folder / "papers"):
                self.copy(home)

    def copy(self, home: Path) -> None:
        """Keep what the files are now that nobody writes them."""
        self._copies += 1
        kept = f"copies/{self._copies}"
        copy_tree(home, self._folder / kept)
        self.mark(disk=home.name, copy=kept)

    def see_rewraps(self) -> None:
        """Wait until the arena has had some other keys."""
        path = self._folder / "alpha/state/spool/arena.key"
        seen: set[bytes] = set()
        until = time.monotonic() + SLOW_SECONDS
        while len(seen) < KEYS and time.monotonic() < until:
            seen.add(path.read_bytes())
            time.sleep(0.02)

    def drain(self, world: World) -> None:
        """Wait until all has arrived: each message that was accepted, and none twice.

        With a planted bug what is lost never will; then only for a while.
        """
        patience = PLANTED_SECONDS if self._planted else SLOW_SECONDS
        until = time.monotonic() + patience
        places = {FAR: world.nodes[1], NEAR: world.nodes[0]}
        there: dict[str, collections.Counter[str]] = {}
        missing = self.handed_in
        while missing and time.monotonic() < until:
            time.sleep(0.05)
            there = {to: arrived(node.home) for to, node in places.items()}
            missing = [
                (ident, to)
                for ident, to in self.handed_in
                if any(ident not in there[place] for place in to if place != NEVER)
            ]
        if not self._planted:
            assert not missing, f"accepted, and not delivered: {missing}"
            twice = [
                (ident, to)
                for to, idents in there.items()
                for ident, count in idents.items()
                if count > 1
            ]
            assert not twice, f"delivered twice: {twice}"


def arrived(home: Path) -> collections.Counter[str]:
    """Say which messages lie in this Maildir, and how often."""
    idents: collections.Counter[str] = collections.Counter()
    for path in (home / "Maildir" / "new").glob("*"):
        with path.open("rb") as letter:
            idents[letter.readline().decode().strip().removeprefix("Subject: ")] += 1
    return idents


def copy_tree(source: Path, target: Path) -> None:
    """Copy files and folders."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_dir():
            copy_tree(path, target / path.name)
        elif not path.is_socket():
            shutil.copyfile(path, target / path.name)


def digest_of(octets: bytes) -> str:
    """Name a content, whatever its line ends are."""
    lines = octets.replace(b"\r\n", b"\n")
    return hashlib.blake2b(lines, digest_size=16).hexdigest()


def main() -> None:
    """Tell a story in an empty folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("accepts", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("events", type=int)
    parser.add_argument("planted")
    args = parser.parse_args()
    shorten()
    root = Path(__file__).parents[3]
    program = args.folder / "mesh"
    program.write_text(
        f"#!{sys.executable} -bb\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        f"from tests.system.power.child import main\nmain({args.planted!r})\n"
    )
    program.chmod(0o700)
    nodes.MESH = str(program)
    nodes.READY_SECONDS = nodes.STOP_SECONDS = SLOW_SECONDS
    planted = bool(args.planted)
    Story(args.folder, args.accepts, args.seed, args.events, planted=planted).run()


if __name__ == "__main__":
    main()
