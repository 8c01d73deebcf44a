# SPDX-License-Identifier: MIT
"""What a directory of thousands costs: to verify, to adopt, and the loop beside it.

    python -m benchmarks.directory [--nodes N] [--json]

Each line is a process of its own, so that its peak of memory is its own:

    verify    read the text and begin with it; nothing is known
    octets    the same from octets, as a link brings it
    again     the next version, whose descriptors are known
    adopt     the next version, every descriptor of it renewed: verified, written to the
              disk, merged with an empty peers.d
    look up   10,000 times whose a link's key is, and where mail for an address goes

`pause` is the longest time that a Trio task of the same process, woken each millisecond,
waited for its turn while a thread worked; `idle` is that without any work.  `computed`
is the most that this process computed between two of its turns: what is ours of the
pause when the machine has other work as well.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.result import Chart, Figure, Points, Result, Scale, Tell, single
from mesh.core.clock import Clock
from mesh.core.crypto import Key, hash256, signing_key, signing_public
from mesh.core.descriptor import Descriptor, create, parse_untrusted
from mesh.core.directory import Us
from mesh.core.document import (
    Document,
    armour,
    from_octets_untrusted,
    to_octets,
)
from mesh.core.document import parse_untrusted as parse_document_untrusted
from mesh.core.signing import draft, sign_document
from mesh.core.trusted import begin_untrusted
from mesh.node.calm import calm
from mesh.node.peers import Peers
from mesh.node.registry import Registry

NOW: Final = 1_800_000_000.0
DAY: Final = 86_400
TICK: Final = 0.001
SIGNERS: Final = 5
SIZES: Final = (100, 1000, 10_000)
LOAD_SECONDS: Final = 3.0
"""For the largest to be read and verified."""
FLAT: Final = 10.0
"""By so much a look-up may cost more in the largest than in the smallest: each of ten
thousand nodes is asked for once, and none of them lies in the processor's caches.  A
search through all would cost a hundred times as much."""
WORDS: Final = {
    "idle": "idle", "verify": "load and verify", "octets": "load and verify octets",
    "again": "the next version", "adopt": "adopt, all renewed", "look up": "a look-up",
}  # fmt: skip
LABELS: Final = ("idle", "verify", "octets", "again", "adopt", "look up")
LOOK_UPS: Final = 10_000
PRIME: Final = 7919
"""So far apart are two that are looked up one after the other."""


@dataclass
class Cost:
    """What one of these took."""

    name: str
    seconds: float
    cpu: float
    pause: float
    computed: float
    peak_mb: float


def key_of(index: int) -> Key:
    """The identity of a node that does not exist."""
    return signing_key(Key.from_bytes(hash256(b"benchmark", index.to_bytes(4, "big"))))


def node(index: int, serial: int) -> Descriptor:
    """Its descriptor, of common size."""
    host = f"node{index:05}.example.net"
    key = key_of(index)
    public = hash256(b"link", index.to_bytes(4, "big"))
    made = Descriptor(
        name=f"node{index:05}", network="main", identity=signing_public(key),
        link_keys=(public,), addresses=(f"{host}:48821",),
        serves=(f"mix@{host}", f"remailer@{host}"), clock=Clock.RENEWAL, klass=3,
        versions=(1,), insecure=(), serial=serial,
        not_before=int(NOW) - DAY, not_after=int(NOW) + 365 * DAY,
    )  # fmt: skip
    return parse_untrusted(create(made, key))[0]


def build(folder: Path, nodes: int, *, quiet: bool) -> None:
    """Write three versions: a first, one with the same descriptors, one with new ones."""
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("sign", total=2 * nodes)
        members: list[list[Descriptor]] = []
        for serial in (7, 8):
            members.append([])
            for index in range(nodes):
                members[-1].append(node(index, serial))
                progress.advance(task)
    signers = [signing_public(key_of(index)) for index in range(SIGNERS)]
    first = signed(draft(None, members[0], now=NOW, network="main", signers=signers))
    for name, document in {
        "first": first,
        "same": signed(draft(first, members[0], now=NOW)),
        "renewed": signed(draft(first, members[1], now=NOW)),
    }.items():
        (folder / name).write_text(armour(document), encoding="ascii")


def signed(document: Document) -> Document:
    """By enough of its signers."""
    for index in range(SIGNERS // 2 + 1):
        document = sign_document(document, key_of(index))
    return document


def work_of(name: str, folder: Path) -> Callable[[], object]:
    """Make ready, and give what is to be measured."""
    first = (folder / "first").read_text(encoding="ascii")
    if name == "idle":
        return lambda: time.sleep(1)
    if name == "verify":
        return lambda: begin_untrusted(parse_document_untrusted(first), "main", NOW)
    if name == "octets":
        octets = to_octets(parse_document_untrusted(first))
        return lambda: begin_untrusted(from_octets_untrusted(octets), "main", NOW)
    if name == "again":
        same = (folder / "same").read_text(encoding="ascii")
        trusted = begin_untrusted(parse_document_untrusted(first), "main", NOW)
        return lambda: trusted.update_untrusted(parse_document_untrusted(same), NOW)
    return (look_ups if name == "look up" else adoption)(folder, first)


def in_force(folder: Path, first: str) -> tuple[Registry, Peers]:
    """A node's registry and peers with the first version in force."""
    home = Path(tempfile.mkdtemp(dir=folder))
    state, peers_dir = home / "state", home / "peers.d"
    state.mkdir(mode=0o700)
    peers_dir.mkdir()
    us = Us("ours", "main", {}, hash256(b"ours"))
    registry = Registry.open(state, us, NOW)
    peers = Peers(peers_dir, us, registry)
    if not registry.consider_document(first, "first", NOW, begin=True).changed:
        raise SystemExit("the first version is not adopted")
    peers.poll()
    return registry, peers


def look_ups(folder: Path, first: str) -> Callable[[], object]:
    """Whose link's key it is, and who serves an address, many times."""
    _, peers = in_force(folder, first)
    known = peers.snapshot
    listed = list(known.by_link_key.values())
    asked = [listed[n * PRIME % len(listed)].descriptor for n in range(LOOK_UPS)]

    def look_up() -> None:
        for each in asked:
            if known.find(each.link_keys[0], NOW) is None:
                raise SystemExit("a node is not found")
            known.directory.route(each.serves[0])

    return look_up


def adoption(folder: Path, first: str) -> Callable[[], object]:
    """The next version comes to a node with the first one in force."""
    registry, peers = in_force(folder, first)
    octets = to_octets(
        parse_document_untrusted((folder / "renewed").read_text(encoding="ascii"))
    )

    def adopt() -> None:
        with calm():
            take_up()

    def take_up() -> None:
        if not registry.consider_document(octets, "renewed", NOW).changed:
            raise SystemExit("the next version is not adopted")
        peers.poll()

    return adopt


async def beside(work: Callable[[], object]) -> tuple[float, float]:
    """Do the work in a thread; the longest wait of a task that wakes each tick.

    In seconds of the clock, and of this process's CPU.
    """
    waits, computed = [0.0], [0.0]

    async def tick() -> None:
        while True:
            began, cpu = time.perf_counter(), time.process_time()
            await trio.sleep(TICK)
            waits.append(time.perf_counter() - began - TICK)
            computed.append(time.process_time() - cpu)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await trio.to_thread.run_sync(work)
        nursery.cancel_scope.cancel()
    return max(waits), max(computed)


def measure(name: str, folder: Path) -> Cost:
    """Do one thing in this process."""
    work = work_of(name, folder)
    gc.collect()  # as `mesh run` does when it has started
    gc.freeze()
    began, cpu = time.perf_counter(), time.process_time()
    pause, computed = trio.run(beside, work)
    return Cost(
        name,
        time.perf_counter() - began,
        time.process_time() - cpu,
        pause,
        computed,
        peak_mb(),
    )


def peak_mb() -> float:
    """Megabytes of memory at most; getrusage would have the parent's in it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def show(costs: list[Cost], nodes: int) -> None:
    """Print them as a table."""
    table = Table(
        f"{nodes:,} nodes", "seconds", "CPU s", "pause ms", "computed ms", "peak MB"
    )
    for cost in costs:
        table.add_row(
            cost.name,
            f"{cost.seconds:.2f}",
            f"{cost.cpu:.2f}",
            f"{1e3 * cost.pause:.1f}",
            f"{1e3 * cost.computed:.1f}",
            f"{cost.peak_mb:.0f}",
        )
    Console().print(table)


def measured(nodes: int, *, quiet: bool) -> list[Cost]:
    """Make a directory and measure all, each in its own process."""
    with tempfile.TemporaryDirectory(prefix="directory-") as name:
        build(Path(name), nodes, quiet=quiet)
        costs = []
        for label in LABELS:
            command = [sys.executable, "-m", "benchmarks.directory"]
            command += ["--measure", label, "--folder", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            costs.append(Cost(**json.loads(done.stdout)))
    return costs


def run(scale: Scale, tell: Tell) -> Result:
    """Measure directories that grow, for the suite."""
    counts = scale.of_each(SIZES, (20, 50))
    found: dict[int, list[Cost]] = {}
    for number, count in enumerate(counts):
        tell(f"{count:,} nodes", number / len(counts))
        found[count] = measured(count, quiet=True)
        scale.found(result_of(found))
    return result_of(found)


def result_of(found: Mapping[int, Sequence[Cost]]) -> Result:
    """Make figures and curves of what was measured, by the number of nodes."""
    figures: list[Figure] = []
    seconds: dict[str, Points] = {}
    look_ups: list[tuple[float, float]] = []
    for count, costs in found.items():
        for cost in costs:
            what = f"{WORDS[cost.name]}, {count:,} nodes"
            is_load = cost.name == "verify" and count == SIZES[-1]
            if cost.name == "look up":
                us = cost.cpu / LOOK_UPS * 1e6
                look_ups.append((count, us))
                figures.append(single(what, "us each", us, at_least=False))
            elif cost.name != "idle":
                bound = LOAD_SECONDS if is_load else None
                figures.append(single(what, "s", cost.seconds, bound, at_least=False))
                curve = [*seconds.get(cost.name, ()), (count, cost.seconds)]
                seconds[cost.name] = curve
    if SIZES[-1] in found:
        (fewest, least), *_, (most, last) = look_ups
        said = f"a look-up among {most:,} by one among {fewest:,}"
        figures.append(single(said, "x", last / least, FLAT, at_least=False))
    across = "nodes in the directory"
    charts = (
        Chart("Seconds", across, seconds, logarithmic=True),
        Chart("A look-up, us", across, {"mesh": look_ups}),
    )
    return Result("directory", "A directory that grows", tuple(figures), charts)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", choices=LABELS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(asdict(measure(args.measure, args.folder))))
        return
    costs = measured(args.nodes, quiet=args.json)
    if args.json:
        print(json.dumps([asdict(cost) for cost in costs]))
    else:
        show(costs, args.nodes)


if __name__ == "__main__":
    main()
