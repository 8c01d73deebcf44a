# SPDX-License-Identifier: MIT
"""Let single calls to the disk fail, and see what became of every message.

    a case     one kind of call   sync, write, open, rename (or link)
               one error          EIO, ENOSPC, EDQUOT, EMFILE
               one number         the call of this kind, counted from the node's start
                                  over all its threads, on files of the node

Each case begins with a copy of one folder: a node in whose spool WAITING messages lie for
a remailer that does not answer, and others in its drop folder.  It is started on the
failing disk, gets messages, a new peer, and the time to forget what it delivered; then
SIGTERM.  A message is left in its drop folder, by a mesh-sendmail on the failing disk.
Then it is started on a good disk, and the remailer answers.

    false       a 250 was given, or exit 0, and the message is not there with its octets
    twice       a Maildir has a message more than once
    foreign     a place has what nobody handed in, or other octets
    trouble     it ended with another code than 0, 73 and 74, with no line or more than
                one, with a traceback, or not at all; it was up and did not answer

must all be none.  faults.c makes the failing disk: a library between the node and the C
library, because a count by the kernel (strace) is each thread's own and has the calls of
the interpreter in it, which reads hundreds of modules first.

A case is short: its node is a fork of a process that has the imports behind it
(forks.py), and several cases wait at the same time.  How many calls of a kind a node
makes is counted first; numbers that are more than MARGIN beyond are passed over, and
said to be.  Each case's result is a line of a journal, where the next run goes on.
"""

import argparse
import errno
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.disk import memory_folder
from tests.system.client import Client
from tests.system.forks import Forge, Process
from tests.system.nodes import (
    ABRT,
    MESH,
    NodeProcess,
    World,
    eventually,
    free_port,
    mesh_here,
)
from tests.system.sink import Sink

KINDS: Final = {"sync": 1, "write": 2, "open": 4, "rename": 8}
ERRORS: Final = ("EIO", "ENOSPC", "EDQUOT", "EMFILE")
SOURCE: Final = Path(__file__).with_name("faults.c")
SENDMAIL: Final = str(Path(MESH).with_name("mesh-sendmail"))

HERE, LATER = "mix@alpha.test", "later@alpha.test"
WAITING: Final = 3
LINE: Final = b"x" * 76 + b"\r\n"
LENGTHS: Final = (0, 3_000, 60_000, 100)
END_SECONDS: Final = 15.0
"""Within which a node that shall end has ended: the contract has 10."""
FORGET_SECONDS: Final = 1.6
"""The spool forgets each second."""
DRAW_SECONDS: Final = 0.3
"""For a node to draw the consequence of a failure."""
STILL_SECONDS: Final = 15.0
STEP_SECONDS: Final = 0.02
NEVER: Final = 1 << 60
"""The number of a call that is not made: calls are only counted."""
MARGIN: Final = 5
"""Calls more than counted: no two runs make quite as many."""
CODES: Final = (73, 74)
"""It cannot create or bind something; the disk failed."""


def build(folder: Path, compiler: str = "gcc") -> Path:
    """Compile the failing disk."""
    library = folder / "faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"],
        check=True, timeout=60,
    )  # fmt: skip
    return library


class FailingDisk:
    """What the library is told, and what it has done; faults.c has the layout."""

    def __init__(self, library: Path, file: Path, root: Path) -> None:
        file.write_bytes(bytes(64))
        with file.open("r+b") as opened:
            self._told = mmap.mmap(opened.fileno(), 64)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAULTS_FILE": str(file),
            "FAULTS_ROOT": f"{root}/",
        }

    def _get(self, place: int) -> int:
        return int(struct.unpack_from("=q", self._told, 8 * place)[0])

    def arm(self, kind: str, error: str, first: int, every: int = 0) -> None:
        """Let calls of this kind fail from now on, counted anew."""
        self.rest()
        number = getattr(errno, error)
        struct.pack_into("=7q", self._told, 0, 0, first, every, number, 0, 0, 0)
        struct.pack_into("=q", self._told, 0, KINDS[kind])

    def rest(self) -> None:
        """Let nothing fail."""
        struct.pack_into("=q", self._told, 0, 0)

    def delay_syncs(self, seconds: float) -> None:
        """Let each sync take so long; 0: as long as it takes."""
        struct.pack_into("=q", self._told, 32, int(seconds * 1e6))

    @property
    def calls(self) -> int:
        """Calls of the armed kind."""
        return self._get(5)

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        return self._get(6)

    @property
    def delayed(self) -> int:
        """Syncs that were held up."""
        return self._get(7)


class Case(NamedTuple):
    """Which call fails, and how; `every`: so many calls later another one."""

    kind: str
    error: str
    first: int
    every: int = 0


@dataclass
class Outcome:
    """What became of one case, or of all."""

    cases: int = 0
    failed: int = 0
    unreached: int = 0
    passed_over: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    refused: int = 0
    false: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing was promised falsely, and something failed."""
        bad = self.false or self.twice or self.foreign or self.trouble
        return bool(self.failed) and not bad

    def add(self, other: "Outcome") -> None:
        """Count another one's cases too."""
        for each in fields(self):
            sum_ = getattr(self, each.name) + getattr(other, each.name)
            setattr(self, each.name, sum_)


class Journal:
    """The results of cases that are done, a line each; without a path: of this run."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.done: dict[Case, Outcome] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                case, found = json.loads(line)
                ends = Counter(found.pop("ends"))
                self.done[Case(*case)] = Outcome(ends=ends, **found)

    def note(self, case: Case, outcome: Outcome) -> None:
        """Remember one more."""
        with self._lock:
            self.done[case] = outcome
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps([case, vars(outcome)]) + "\n")


@dataclass
class Mail:
    """What was handed in, and what was said to it."""

    digests: dict[str, bytes] = field(default_factory=dict)
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)

    def note(self, ident: str, places: tuple[str, ...], text: bytes = b"") -> bytes:
        """Remember a message; its octets."""
        octets = b"Subject: %s\r\n\r\n" % ident.encode() + text
        self.digests[ident] = digest(octets)
        self.places[ident] = places
        return octets

    def hand_in(self, client: Client, ident: str, length: int, *places: str) -> None:
        """Hand it to a node; OSError when the node ended."""
        octets = self.note(ident, places, LINE * (length // len(LINE)))
        code = client.send_at_once(places, octets)
        if code == 250:
            self.accepted.add(ident)
        elif code == 0:
            raise ConnectionError("the node ended")

    def leave(
        self,
        node: NodeProcess,
        ident: str,
        env: dict[str, str],
        before: Sequence[str] = (),
        forge: Forge | None = None,
    ) -> int:
        """Give it to mesh-sendmail; its exit code."""
        octets = self.note(ident, (HERE,)).replace(b"\r\n", b"\n")
        words = [*before, SENDMAIL, "-c", str(node.config), "-i", HERE]
        env = {**os.environ, **env}
        if forge is not None:
            code, errors = forge.run(words, octets, env)
        else:
            done = subprocess.run(
                words, input=octets, env=env, check=False, capture_output=True,
                timeout=30,
            )  # fmt: skip
            code, errors = done.returncode, done.stderr
        assert b"Traceback" not in errors, errors
        if not code:
            self.accepted.add(ident)
        return code


class Template:
    """The folder that each case begins with a copy of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "template"
        self.folder.mkdir()
        self.mail = Mail()
        with World(self.folder) as world:
            alpha, bravo = world.node("alpha"), world.node("bravo")
            alpha.also_serves(LATER, f"lmtp:{alpha.home}/later.sock")
            self.peer = folder / "bravo.mesh"
            self.peer.write_text(mesh_here("export", "-c", str(bravo.config)))
            alpha.start()
            with Client(alpha.socket) as client:
                for number in range(WAITING):
                    ident, length = f"waits-{number}", LENGTHS[number]
                    self.mail.hand_in(client, ident, length, LATER)
            drop = alpha.home / "drop"
            eventually("keys to seal to", 15, lambda: any(drop.glob("key.*")))
            assert alpha.stop() == 0
            for number in range(2):
                assert self.mail.leave(alpha, f"left-{number}", {}) == 0
        assert len(self.mail.accepted) == WAITING + 2

    def copy(self, folder: Path) -> tuple[NodeProcess, Mail]:
        """Make a node of it."""
        shutil.copytree(self.folder / "alpha", folder, symlinks=True)
        node = NodeProcess(folder, free_port())
        text = node.config.read_text()
        node.config.write_text(text.replace(str(self.folder / "alpha"), str(folder)))
        node.set(listen=f'["127.0.0.1:{node.port}"]')
        mail = Mail(
            dict(self.mail.digests), dict(self.mail.places), set(self.mail.accepted)
        )
        (folder / "stderr").write_bytes(b"")
        return node, mail


class Bench:
    """What the cases of one thread begin with."""

    def __init__(self, template: Template, library: Path, forge: Forge) -> None:
        self.template, self.library, self.forge = template, library, forge

    def count(self, kind: str, folder: Path) -> int:
        """Count the calls of a kind that a node makes on a good disk."""
        with self._node(folder) as (node, mail, disk):
            disk.arm(kind, "EIO", NEVER)
            code = _live(node, mail, disk, self.template.peer, Outcome())
            assert code == 0, (code, node.errors())
            return disk.calls

    def run(self, case: Case, folder: Path) -> Outcome:
        """Do one case in a folder that is made and removed."""
        name = " ".join(map(str, case))
        outcome = Outcome(cases=1)
        try:
            with self._node(folder) as (node, mail, disk):
                self._run(case, name, node, mail, disk, outcome)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            outcome.trouble.append(f"{name}: {error!r}")
        return outcome

    def _run(
        self,
        case: Case,
        name: str,
        node: NodeProcess,
        mail: Mail,
        disk: FailingDisk,
        outcome: Outcome,
    ) -> None:
        disk.arm(*case)
        code = _live(node, mail, disk, self.template.peer, outcome)
        failed = disk.failed
        outcome.ends[_judge(node, code, case, outcome)] += 1
        disk.arm(case.kind, case.error, 1 + case.first % 12, case.every)
        mail.leave(node, "left-late", disk.env, forge=self.forge)
        outcome.failed += failed + disk.failed
        outcome.unreached += not failed
        disk.rest()
        node.env = {}
        _judge_mail(node, mail, name, outcome)

    @contextmanager
    def _node(self, folder: Path) -> Iterator[tuple[NodeProcess, Mail, FailingDisk]]:
        """Give a node on a failing disk, that is ended and removed."""
        node, mail = self.template.copy(folder)
        file = folder.with_suffix(".faults")
        disk = FailingDisk(self.library, file, folder)
        node.env, node.launch = disk.env, self.forge.launch
        try:
            yield node, mail, disk
        finally:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
                node.process = None
            shutil.rmtree(folder)
            file.unlink()


def _live(
    node: NodeProcess, mail: Mail, disk: FailingDisk, peer: Path, outcome: Outcome
) -> int | None:
    """Let it start, work and end; its exit code, None: it hangs."""
    node.start(wait=False)
    process = node.process
    assert process is not None
    if _wait(lambda: process.poll() is not None or b"ready" in _errors(node)):
        if process.poll() is None:
            _work(node, mail, peer, outcome)
            _wait(lambda: process.poll() is not None or disk.failed > 0, FORGET_SECONDS)
            _wait(lambda: process.poll() is not None, DRAW_SECONDS)
            process.terminate()
        _wait(lambda: process.poll() is not None)
    code = process.poll()
    if code is None:
        _abort(process)
    node.process = None
    return code


def _abort(process: Process) -> None:
    """End what hangs; it writes where on its standard error."""
    process.send_signal(signal.SIGABRT)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _work(node: NodeProcess, mail: Mail, peer: Path, outcome: Outcome) -> None:
    shutil.copy(peer, node.home / "peers.d")
    try:
        with Client(node.socket) as client:
            mail.hand_in(client, "now-0", LENGTHS[0], HERE)
            mail.hand_in(client, "now-1", LENGTHS[1], LATER)
            mail.hand_in(client, "now-2", LENGTHS[2], HERE, LATER)
            mail.hand_in(client, "now-3", LENGTHS[3], HERE)
    except TimeoutError:
        outcome.trouble.append(f"{node.name}: no answer")
    except (OSError, AssertionError):
        pass  # it ended, maybe in the middle of a line


def _judge(node: NodeProcess, code: int | None, case: Case, outcome: Outcome) -> str:
    """Say how it ended; what may not be is noted."""
    name = " ".join(map(str, case))
    lines = _errors(node).decode().splitlines()
    said = [line for line in lines if line != "mesh: ready"]
    if code is None:
        outcome.trouble.append(f"{name}: hangs {said[:1]} {lines[-60:]}")
        return "hangs"
    is_well = code == 0 and not said
    # One call that failed is one mistake; of several calls each may be told.
    is_told = code in CODES and (len(said) == 1 or (case.every and said))
    is_told = is_told and all(line.startswith("mesh: ") for line in said)
    if not (is_well or is_told):
        outcome.trouble.append(f"{name}: {code} {said[:1]}")
    return f"{'ready, ' if 'mesh: ready' in lines else ''}ended with {code}"


def _judge_mail(node: NodeProcess, mail: Mail, name: str, outcome: Outcome) -> None:
    """Start it on a good disk and look for every message."""
    with Sink(node.home / "later.sock") as sink:
        node.start()
        waiting = {(to, ident) for ident in mail.accepted for to in mail.places[ident]}
        moved, found = time.monotonic(), 0
        while time.monotonic() < moved + STILL_SECONDS:
            there = _places(node, sink)
            if waiting <= there.keys():
                break
            if there.total() > found:
                moved, found = time.monotonic(), there.total()
            time.sleep(STEP_SECONDS)
        assert node.stop() == 0
        there = _places(node, sink)
        octets = [(HERE, each) for each in node.letters().values()]
        octets += [(LATER, copy.content) for copy in sink.copies]
    outcome.accepted += len(mail.accepted)
    outcome.refused += len(mail.digests) - len(mail.accepted)
    outcome.false += [f"{name}: {to} {who}" for to, who in waiting - there.keys()]
    for place, content in octets:
        ident = ident_of(content)
        if (
            mail.digests.get(ident) != digest(content)
            or place not in mail.places[ident]
        ):
            outcome.foreign.append(f"{name}: {place} {ident[:20]}")
    outcome.twice += [
        f"{name}: {who}" for (to, who), n in there.items() if to == HERE and n > 1
    ]


def _places(node: NodeProcess, sink: Sink) -> Counter[tuple[str, str]]:
    """What is where, by name."""
    there = Counter((HERE, ident_of(each)) for each in node.letters().values())
    there.update((LATER, ident_of(copy.content)) for copy in sink.copies)
    return there


def _wait(holds: Callable[[], bool], seconds: float = END_SECONDS) -> bool:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(STEP_SECONDS)
    return True


def _errors(node: NodeProcess) -> bytes:
    return (node.home / "stderr").read_bytes()


def ident_of(octets: bytes) -> str:
    """Read a message's own name, which stands in its first line."""
    line = octets.split(b"\n", 1)[0].rstrip(b"\r")
    return line.removeprefix(b"Subject: ").decode("latin-1")


def digest(octets: bytes) -> bytes:
    """Of the octets as a Maildir has them."""
    return hashlib.blake2b(octets.replace(b"\r\n", b"\n"), digest_size=16).digest()


class Benches:
    """A bench for each thread that asks for one; a context."""

    def __init__(self, folder: Path) -> None:
        self._library = build(folder)
        self._template = Template(folder)
        self._forges = ExitStack()
        self._forging = threading.Lock()
        self._own = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._forges.close()

    def own(self) -> Bench:
        """Give this thread's."""
        found: Bench | None = getattr(self._own, "bench", None)
        if found is None:
            forge = Forge({**ABRT, "LD_PRELOAD": str(self._library)})
            with self._forging:
                self._forges.enter_context(forge)
            found = self._own.bench = Bench(self._template, self._library, forge)
        return found


def run(
    folder: Path,
    cases: list[Case],
    advance: Callable[[], None] = lambda: None,
    minutes: float = 60.0,
    at_once: int = 2,
    journal: Journal | None = None,
    counted: dict[str, int] | None = None,
) -> Outcome:
    """Do these cases in an empty folder, or as many as there is time for.

    `counted`: gets how many calls a node makes; then no case goes far beyond them.
    """
    journal = journal or Journal(None)
    until = time.monotonic() + 60 * minutes

    def count(kind: str) -> int:
        return benches.own().count(kind, folder / f"count-{kind}")

    def do(number: int, case: Case) -> None:
        if time.monotonic() < until:
            outcome = benches.own().run(case, folder / f"case{number}")
            journal.note(case, outcome)

    with Benches(folder) as benches, ThreadPoolExecutor(at_once) as pool:
        if counted is not None:
            counted.update(zip(KINDS, pool.map(count, KINDS), strict=True))
        ends = counted or dict.fromkeys(KINDS, NEVER)
        jobs = []
        for number, case in enumerate(cases):
            if case in journal.done:
                advance()
            elif case.first > ends[case.kind] + MARGIN:
                journal.done[case] = Outcome(passed_over=1)
                advance()
            else:
                jobs.append(pool.submit(do, number, case))
        for job in as_completed(jobs):
            job.result()
            advance()
    total = Outcome()
    for case in cases:
        total.add(journal.done.get(case, Outcome()))
    return total


def all_cases(first: int, last: int, errors: list[str], seed: int) -> list[Case]:
    """Each kind, error and number, in an order that the seed draws."""
    cases = [
        Case(kind, error, number)
        for kind in KINDS
        for error in errors
        for number in range(first, last + 1)
    ]
    random.Random(seed).shuffle(cases)  # noqa: S311  # a plan
    return cases


@contextmanager
def _bar(count: int) -> Iterator[Callable[[], None]]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("faults", total=count)
        yield lambda: progress.advance(task)


def main() -> None:
    """Run as asked, print a table; exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="faults", description="let calls to the disk fail, count every message"
    )
    parser.add_argument("--first", type=int, default=1, help="number of a call")
    parser.add_argument("--last", type=int, default=100, help="number of a call")
    parser.add_argument("--errors", nargs="+", choices=ERRORS, default=list(ERRORS))
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    parser.add_argument("--cases", type=int, help="at most so many")
    parser.add_argument("--minutes", type=float, default=240.0, help="at most so long")
    parser.add_argument("--at-once", type=int, default=4, help="cases at a time")
    parser.add_argument("--journal", type=Path, help="a file: go on where it ends")
    args = parser.parse_args()
    cases = all_cases(args.first, args.last, args.errors, args.seed)[: args.cases]
    counted: dict[str, int] = {}
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(
            prefix="mesh-faults-", dir=memory_folder()
        ) as folder,
        _bar(len(cases)) as advance,
    ):
        outcome = run(
            Path(folder), cases, advance, args.minutes, args.at_once,
            Journal(args.journal), counted,
        )  # fmt: skip
    table = Table("what", "figure", title=f"calls {args.first} to {args.last}")
    for what, figure in {
        **{f"{kind} calls of a node": count for kind, count in counted.items()},
        "cases": outcome.cases,
        "of these beyond the last call": outcome.unreached,
        "passed over: never made": outcome.passed_over,
        "not done": len(cases) - outcome.cases - outcome.passed_over,
        "calls that failed": outcome.failed,
        **outcome.ends,
        "messages that got 250 or exit 0": outcome.accepted,
        "refused, or no answer": outcome.refused,
        "false 250": len(outcome.false),
        "twice in a Maildir": len(outcome.twice),
        "foreign": len(outcome.foreign),
        "trouble at the end": len(outcome.trouble),
        "seconds": f"{time.monotonic() - started:.0f}",
    }.items():
        table.add_row(what, str(figure))
    Console().print(table)
    for some in (outcome.false, outcome.twice, outcome.foreign, outcome.trouble):
        for bad in some[:20]:
            Console().print(bad, markup=False)
    sys.exit(0 if outcome.good else 1)


if __name__ == "__main__":
    main()
