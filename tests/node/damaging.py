# SPDX-License-Identifier: MIT
"""Damage every file of a small node, one way at a time, and start it.

    flipped      every octet, or as many as there is time for
    cut off      at each length that means something, and at drawn ones
    swapped      with each other file, and with the same file of another node
    replaced     by a link, a dangling link, a FIFO, a folder, a socket, nothing
    joined       a second name of another file: what is written to one is in both

What must hold of each start:

    it ends      within SECONDS, whatever lies there: nothing waits for a FIFO
    it says      ready, or one line with an exit code: never a bug's
    it tells     each message that was accepted is found exactly as it was, or there is
                 at least as much in `corrupt` as there are messages missing; of the
                 database at least something: how many a row held that cannot be read
                 nobody knows
    nothing else what is found was accepted; what was delivered is not found

One kind of loss cannot be told: an octet of the WAL that is wrong looks as if the commit
had never been finished.  What follows it in the WAL is then not there; what is found must
be what was accepted all the same, and the node starts.
"""

import argparse
import gc
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mesh.core.record import Record
from mesh.errors import MeshError
from mesh.node import groups
from mesh.node.archive import Archive
from mesh.node.counters import PeerCounters
from mesh.node.index import slot_of
from mesh.node.removed import withhold
from tests.descriptors import NOW
from tests.directories import directory
from tests.disk import memory_folder
from tests.node.homes import Home
from tests.node.spooling import forgotten, message, reopen, running, stored
from tests.system.power.child import shorten

SECONDS: Final = 5.0
"""For a start that takes milliseconds."""
KINDS: Final = ("link", "dangling", "fifo", "folder", "socket", "nothing")
FILES: Final = ("spool.db", "spool.db-wal", "arena.a", "arena.b", "arena.key")
EVEN: Final = 512
"""Octets between two lengths to which a file is cut."""
HOME_FLIPS: Final = 40
"""Octets flipped of each file of a whole node, which starts more slowly."""
SHOWN: Final = 20
ALL: Final = slice(None)
ROOM_AHEAD: Final = 32_768
"""Zeros behind a database, of which a million would be flipped for nothing."""


@dataclass
class Outcome:
    """What came of it."""

    cases: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Slow(BaseException):
    """A start that does not end."""


@dataclass(frozen=True)
class Sample:
    """A spool that is not open, and what was promised of it."""

    folder: Path
    alive: dict[bytes, Record]
    gone: frozenset[bytes]
    in_wal: frozenset[bytes]
    """Of the living: what only the WAL has."""


def records(first: int, count: int) -> list[Record]:
    return [
        message(
            number,
            content=b"%d " % number * (number * 100 % 900 + 1),
            origin_id=bytes([number]) * 16 if number % 2 else bytes(16),
        )
        for number in range(first, first + count)
    ]


async def make_spool(folder: Path, seed: str, *, stopped: bool = False) -> Sample:
    """Make a spool with some that wait, some delivered, some in the WAL only."""
    old, new = records(1, 6), records(20, 4)
    async with running(folder, seed) as spool:
        refs = await stored(spool, *old[:3])
        refs += await stored(spool, *old[3:])
        await forgotten(spool, refs[0], refs[4])
        spool._tidying.checkpoint()
        await stored(spool, *new[:1])
        await stored(spool, *new[1:])
        if not stopped:
            shutil.copytree(folder, folder.with_name("killed"))
    if not stopped:
        shutil.rmtree(folder)
        folder.with_name("killed").rename(folder)
    gone = {old[0].id, old[4].id}
    alive = {each.id: each for each in (*old, *new) if each.id not in gone}
    in_wal = frozenset() if stopped else frozenset(each.id for each in new)
    return Sample(folder, alive, frozenset(gone), in_wal)


def sampled(scratch: Path, *, stopped: bool) -> Sample:
    """Make the spool of a node that was killed, or that ended."""

    async def make() -> Sample:
        folder = scratch / f"spool-{stopped}"
        return await make_spool(folder, f"{stopped}", stopped=stopped)

    return trio.run(make)


def look(folder: Path) -> tuple[list[Record], int]:
    """Open a spool as a start does: what is found, whole, and how much is corrupt."""
    spool = reopen(folder, "after damage")
    try:
        refs = [ref for ref, _ in spool.recovered()]
        places = [spool._index.place(slot_of(ref)[0]) for ref in refs]
        boxes = spool._groups.fetch(places, bodies=True)
        found = [
            spool._reading._open(ref, sealed, bodies=True)
            for ref, sealed in zip(refs, boxes, strict=True)
        ]
        return [each for each in found if each is not None], spool.corrupt
    finally:
        spool.close()


def check(sample: Sample, name: str, folder: Path, outcome: Outcome) -> None:
    """Start it, and say what came of it."""
    try:
        with within(SECONDS):
            found, corrupt = look(folder)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        what = _said(name, error, outcome)
    else:
        what = _judge(sample, name, found, corrupt, outcome)
    outcome.ends[what] += 1
    close_left(folder)


def _said(name: str, error: BaseException, outcome: Outcome) -> str:
    """Judge what an operator would read."""
    if isinstance(error, MeshError):
        if "\n" in str(error) or not str(error):
            outcome.wrong.append(f"{name}: not one line: {error}")
        return f"{type(error).__name__} {error.exit_code}"
    if isinstance(error, OSError) and error.strerror:
        if not error.filename:
            outcome.wrong.append(f"{name}: a line without a place: {error}")
        return "OSError 74"
    outcome.wrong.append(f"{name}: {error!r}")
    return type(error).__name__


def _judge(
    sample: Sample, name: str, found: list[Record], corrupt: int, outcome: Outcome
) -> str:
    ids = [each.id for each in found]
    if len(ids) != len(set(ids)):
        outcome.wrong.append(f"{name}: one message twice")
    for record in found:
        if record.id in sample.gone:
            outcome.wrong.append(f"{name}: delivered, and back")
        elif record != sample.alive.get(record.id):
            outcome.wrong.append(f"{name}: not as it was accepted")
    missing = sample.alive.keys() - set(ids)
    if "wal" in name:
        missing -= sample.in_wal
    if len(missing) > corrupt and not (corrupt and "spool.db" in name):
        outcome.wrong.append(f"{name}: {len(missing)} missing, {corrupt} corrupt")
    return "all is there" if not missing else "set aside"


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise Slow in whatever waits longer."""

    def stop(*_: object) -> None:
        raise Slow(f"not within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def close_left(folder: Path) -> None:
    """Close what a start that failed left open: its process would have ended."""
    if _left(folder):
        # Whoever still has one would close another's of the same number later.
        gc.collect()
    for descriptor in _left(folder):
        os.close(descriptor)


def _left(folder: Path) -> list[int]:
    found: list[int] = []
    for link in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if link.readlink().is_relative_to(folder):
                found.append(int(link.name))
    return found


# damage

Case = tuple[str, Callable[[Path], None]]


def flips(folder: Path, rng: random.Random, count: int | None) -> Iterator[Case]:
    """Flip some bits of octets of each file: of so many, or of all."""
    places = [
        (name, at)
        for name in FILES
        if (folder / name).exists()
        for at in range((folder / name).stat().st_size)
    ]
    if count is not None:
        # Zeros are most of the octets, and mean the least.
        octets = {name: (folder / name).read_bytes() for name in {n for n, _ in places}}
        full = [(name, at) for name, at in places if octets[name][at]]
        half = min(count // 2, len(full))
        places = rng.sample(full, half) + rng.sample(
            places, min(count - half, len(places))
        )
    for name, at in places:
        yield flip(name, at, rng.randint(1, 255))


def flip(name: str, at: int, mask: int) -> Case:
    """Flip these bits of one octet."""

    def change(copy: Path) -> None:
        with (copy / name).open("r+b") as file:
            octet = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([octet ^ mask]), at)

    return f"flipped {name} {at}", change


def swap(one: Path, two: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    if one != two:
        two.rename(one)
    aside.rename(two)


def cuts(folder: Path, rng: random.Random, every: int) -> Iterator[Case]:
    """Cut each file off."""
    for name in FILES:
        if not (folder / name).exists():
            continue
        length = (folder / name).stat().st_size
        lengths = {0, 1, 24, 32, 100, 128, 169, length // 2, length - 1}
        lengths |= set(range(0, length, every))
        lengths |= {rng.randrange(length + 1) for _ in range(8)}
        for at in sorted(at for at in lengths if 0 <= at < length):
            yield (
                f"cut off {name} {at}",
                lambda copy, name=name, at=at: os.truncate(copy / name, at),  # type: ignore[misc]
            )


def swaps(folder: Path, other: Path) -> Iterator[Case]:
    """Swap files with each other, and take another node's."""
    there = [name for name in FILES if (folder / name).exists()]
    for one in there:
        for two in there:
            if one < two:
                yield (
                    f"swapped {one} {two}",
                    lambda copy, one=one, two=two: swap(copy / one, copy / two),  # type: ignore[misc]
                )
            if one != two:
                yield (
                    f"joined {one} {two}",
                    lambda copy, one=one, two=two: join(copy / one, copy / two),  # type: ignore[misc]
                )
        yield (
            f"another's {one}",
            lambda copy, one=one: shutil.copy(other / one, copy / one),  # type: ignore[misc]
        )


def join(one: Path, two: Path) -> None:
    one.unlink()
    one.hardlink_to(two)


def plants(folder: Path) -> Iterator[Case]:
    """Put something else in a file's place."""
    for name in FILES:
        if (folder / name).exists():
            for kind in KINDS:
                yield (
                    f"{kind} for {name}",
                    lambda copy, name=name, kind=kind: plant(copy / name, kind),  # type: ignore[misc]
                )


def plant(path: Path, kind: str) -> None:
    """Put this under the name of a file."""
    content = path.with_name(f"{path.name}.was")
    if path.exists():
        path.rename(content)
    if kind == "link":
        path.symlink_to(content)
    elif kind == "dangling":
        path.symlink_to("nothing-there")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "x").mkdir(parents=True)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(
                f"/proc/self/fd/{(fd := os.open(path.parent, os.O_RDONLY))}/{path.name}"
            )
            os.close(fd)


# a whole node


def make_home(folder: Path) -> Home:
    """Make a node with something in each of its files, that does not run."""
    alpha, bravo = Home(folder, "alpha"), Home(folder, "bravo")
    alpha.add(bravo)
    state = alpha.path / "state"
    counters = PeerCounters(state / "counters")
    counters.save(counters.prove(b"k" * 32, 7))
    archive = Archive(state)
    archive.begin(None, directory())
    archive.note_signed(1, b"h" * 32)
    withhold(state / "directory.removed", ["mix@gone.test"], NOW)
    start(alpha)
    return alpha


def start(home: Home) -> None:
    """Go through a start up to its sockets, and end."""
    node = home.make()
    try:
        node._qmgr.recover()
    finally:
        node._spool.close()
        node._drop.close()
        node._starting.close()
        os.close(node._lock)


def check_home(name: str, home: Home, outcome: Outcome) -> None:
    """Start it, and say what came of it."""
    try:
        with within(SECONDS):
            start(home)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        what = _said(name, error, outcome)
    else:
        what = "started"
    outcome.ends[what] += 1
    close_left(home.path)


def home_cases(home: Path, rng: random.Random, flipped: int) -> Iterator[Case]:
    """Damage each file that a start may read, in each way."""
    files = sorted(
        str(path.relative_to(home))
        for place in ("state", "state/spool", "drop", "peers.d")
        for path in (home / place).iterdir()
        if path.is_file() and not path.is_symlink()
    )
    for name in files:
        for kind in KINDS:
            yield (
                f"{kind} for {name}",
                lambda copy, name=name, kind=kind: plant(copy / name, kind),  # type: ignore[misc]
            )
        length = (home / name).stat().st_size
        for at in sorted({0, 1, length // 2, max(0, length - 1)}):
            yield (
                f"cut off {name} {at}",
                lambda copy, name=name, at=at: os.truncate(copy / name, at),  # type: ignore[misc]
            )
        other = rng.choice(files)
        yield (
            f"swapped {name} {other}",
            lambda copy, name=name, other=other: swap(copy / name, copy / other),  # type: ignore[misc]
        )
        for at in sorted(rng.sample(range(length), min(flipped, length))):
            yield flip(name, at, rng.randint(1, 255))


def run_home(
    scratch: Path,
    flipped: int,
    seed: int,
    advance: Callable[[float], None] = lambda _: None,
    most: int = sys.maxsize,
    part: slice = ALL,
) -> Outcome:
    """Damage the files of a whole node, in at most so many ways."""
    rng, outcome = random.Random(seed), Outcome()  # noqa: S311  # a plan
    home = make_home(scratch)
    sound = scratch / "sound"
    home.path.rename(sound)
    cases = list(home_cases(sound, rng, flipped))
    cases = rng.sample(cases, min(most, len(cases)))[part]
    for number, (name, damage) in enumerate(cases):
        shutil.rmtree(home.path, ignore_errors=True)
        shutil.copytree(sound, home.path)
        damage(home.path)
        outcome.cases[name.split()[0]] += 1
        check_home(name, home, outcome)
        advance(number / len(cases))
    return outcome


def run(
    scratch: Path,
    flipped: int | None,
    every: int,
    seed: int,
    advance: Callable[[float], None] = lambda _: None,
    most: int = sys.maxsize,
    part: slice = ALL,
) -> Outcome:
    """In at most so many ways damage two spools: of a node killed, and of one ended."""
    rng = random.Random(seed)  # noqa: S311  # a plan, to be repeated
    outcome = Outcome()
    samples = [sampled(scratch, stopped=stopped) for stopped in (False, True)]
    trio.run(make_spool, scratch / "other", "other")
    for index, sample in enumerate(samples):
        share = None if flipped is None else flipped // len(samples)
        cases = [
            *plants(sample.folder),
            *swaps(sample.folder, scratch / "other"),
            *cuts(sample.folder, rng, every),
            *flips(sample.folder, rng, share),
        ]
        cases = rng.sample(cases, min(most // len(samples), len(cases)))[part]
        for number, (name, damage) in enumerate(cases):
            copy = scratch / "damaged"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(sample.folder, copy)
            damage(copy)
            ended = "ended" if index else "killed"
            outcome.cases[name.split()[0]] += 1
            check(sample, f"{ended}: {name}", copy, outcome)
            advance((index + number / len(cases)) / len(samples))
    return outcome


@contextmanager
def _bar() -> Iterator[Callable[[float], None]]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("damage", total=1.0)
        yield lambda done: progress.update(task, completed=done)


def show(outcome: Outcome, title: str) -> None:
    """Print the figures."""
    table = Table("what", "figure", title=title)
    for name, count in (*sorted(outcome.cases.items()), *sorted(outcome.ends.items())):
        table.add_row(name, str(count))
    table.add_row("wrong", str(len(outcome.wrong)))
    Console().print(table)
    for line in outcome.wrong[:SHOWN]:
        Console().print(line, markup=False)


def main() -> None:
    """Damage as much as asked for; exit code 1 when a start is wrong."""
    parser = argparse.ArgumentParser(
        prog="damage", description="damage each file of a node, and start it"
    )
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--all", action="store_true", help="flip every octet: an hour")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--part", default="1/1", help="K/N: the K-th of N parts, spread"
    )
    args = parser.parse_args()
    number, count = map(int, args.part.split("/"))
    part = slice(number - 1, None, count)
    shorten()
    groups.ROOM_AHEAD = ROOM_AHEAD  # type: ignore[misc]
    # What was there before is no garbage: many collections follow.
    gc.collect()
    gc.freeze()
    good = True
    place = memory_folder()
    with tempfile.TemporaryDirectory(prefix="mesh-damage-", dir=place) as name:
        spool, home = Path(name) / "s", Path(name) / "h"
        spool.mkdir()
        home.mkdir()
        with _bar() as bar:
            flipped = None if args.all else args.flips
            outcome = run(spool, flipped, EVEN, args.seed, bar, part=part)
        show(outcome, f"spools, seed {args.seed}, part {args.part}")
        good &= not outcome.wrong
        with _bar() as bar:
            outcome = run_home(home, HOME_FLIPS, args.seed, bar, part=part)
        show(outcome, f"a whole node, seed {args.seed}, part {args.part}")
        good &= not outcome.wrong
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
