# SPDX-License-Identifier: MIT
"""What a start and a message cost when 0 to 1,000,000 messages are queued.

    python -m benchmarks.backlog [--sizes 0,1000,...] [--messages N] [--pairs N]
                                 [--octets N] [--json FILE] [--html FILE] [--dir DIR]

For each size a node's spool is filled by the spool's own code, as fast as it goes: in
groups of 64, from 16 peers and with their ids, for a peer that is not there.  Then the
node is started as an operator starts it, and measured from outside:

    ready       process start -> it says that it is ready
    accepted    process start -> the first 250 on the local socket
    delivered   process start -> that message is with the remailer's LMTP server
    indexed     process start -> status does not say any more that the spool is read
    MB          greatest memory of the main process until all is read (VmHWM)
    rate        messages a second from the local socket to the LMTP server, each durable;
                a node with an empty spool takes turns with it, and `of empty` is the
                median of the pairs' quotients, with the least and the greatest
    CPU         of the main process: seconds since its start, and microseconds a message;
                on a busy host this says more than the clock

The files are in the disk's cache when the node starts.  5 GB of disk for a million.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.mail import Sink
from benchmarks.processes import (
    MESH,
    cpu_seconds,
    free_port,
    mesh,
    peak_mb,
    running,
    tool,
)
from benchmarks.result import Chart, Figure, Result, Scale, Series, Tell
from benchmarks.sheet import drawn
from mesh.audit.page import page
from mesh.core.control import Ask, Request, encode_request
from mesh.core.crypto import SystemEntropy
from mesh.core.record import Record
from mesh.node.control import READING
from mesh.node.keys import load_spool_key
from mesh.node.spool import Ref, Spool

SIZES = "0,1000,10000,100000,1000000"
PEERS = 16
GROUP = 64
GROUPS_AHEAD = 4
START_SECONDS = 120.0
INDEX_SECONDS = 600.0
MIB = 1 << 20
BOUNDS = {
    "first 250": 2.0,
    "first delivered": 2.0,
    "spool read": 60.0,
    "memory at most": 500.0,
    "of an empty spool's rate": 0.9,
}
"""With a million."""
STEP_SECONDS = 0.02


# a spool with so many messages


async def fill(state: Path, count: int, octets: int) -> None:
    """Accept so many messages, and end in order."""
    entropy = SystemEntropy()
    peers = [entropy.octets(16) for _ in range(PEERS)]
    content = entropy.octets(octets)
    spool = Spool.open(state / "spool", load_spool_key(state), entropy)
    list(spool.recovered())
    places = trio.Semaphore(GROUPS_AHEAD)

    def done(refs: Sequence[Ref] | None) -> None:
        if refs is None:
            sys.exit("the disk is full")
        places.release()

    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        for first in range(0, count, GROUP):
            await places.acquire()
            spool.accept(
                [
                    Record(
                        entropy.octets(16), peers[n % PEERS], entropy.octets(16),
                        "bravo", "a@alpha.test", ("mix@bravo.test",), 0, content,
                    )
                    for n in range(first, min(count, first + GROUP))
                ],
                done,
            )  # fmt: skip
        for _ in range(GROUPS_AHEAD):
            await places.acquire()
        nursery.cancel_scope.cancel()


# a node


class Home:
    """A node that serves one remailer, and the LMTP server of that."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name / "alpha"
        self.sink = folder / name / "sink.sock"
        self.local = self.path / "local.sock"
        for node, deliver in (("alpha", f"lmtp:{self.sink}"), ("bravo", "maildir:M")):
            mesh(
                "init", str(folder / name / node), "--name", node,
                "--address", f"127.0.0.1:{free_port()}",
                "--remailer", f"mix@{node}.test={deliver}",
            )  # fmt: skip
        file = folder / name / "bravo.mesh"
        file.write_text(
            mesh("export", "-c", str(folder / name / "bravo" / "node.toml"))
        )
        mesh(
            "peers", "add", "-c", str(self.path / "node.toml"),
            "--serves", "mix@bravo.test", str(file),
        )  # fmt: skip

    @property
    def command(self) -> list[str]:
        """What starts it."""
        return [MESH, "run", "-c", str(self.path / "node.toml")]

    def is_reading(self) -> bool:
        """Ask the running node whether it still reads its spool."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.path / "state" / "control.sock"))
            sock.sendall(encode_request(Request(Ask.STATUS)))
            answer = b""
            while data := sock.recv(65536):
                answer += data
        return READING.encode() in answer

    def submit(self, sink: Sink, count: int, sessions: int, octets: int) -> float:
        """Hand messages over and wait until the server has them; the seconds."""
        before = sink.taken
        start = time.monotonic()
        subprocess.run(
            [
                tool("smtp-source"), "-d", "-s", str(sessions), "-m", str(count),
                "-l", str(octets), "-f", "from@alpha.test", "-t", "mix@alpha.test",
                f"unix:{self.local}",
            ],
            check=True,
        )  # fmt: skip
        sink.wait(before + count)
        return time.monotonic() - start


def until_ready(node: subprocess.Popen[bytes]) -> None:
    """Wait for its word."""
    if node.stderr is None or b"ready" not in node.stderr.readline():
        sys.exit("the node did not start")


def started(
    home: Home, sink: Sink, node: subprocess.Popen[bytes], began: float
) -> dict[str, Any]:
    """Measure a start to the end of its reading."""
    until_ready(node)
    found: dict[str, Any] = {"ready": time.monotonic() - began}
    found["ready_cpu"] = cpu_seconds(node.pid)
    found["accepted"] = first_accept(home.local) - began
    sink.wait(1)
    found["delivered"] = time.monotonic() - began
    while home.is_reading():
        if time.monotonic() > began + INDEX_SECONDS:
            sys.exit("the node does not end reading its spool")
        time.sleep(STEP_SECONDS * 5)
    found["indexed"] = time.monotonic() - began
    found["indexed_cpu"] = cpu_seconds(node.pid)
    found["mb"] = peak_mb(node.pid)
    return found


def first_accept(path: Path) -> float:
    """Hand one message over; when its 250 came."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(START_SECONDS)
        sock.connect(str(path))
        lines = sock.makefile("rb")
        lines.readline()
        for said in (b"HELO x", b"MAIL FROM:<>", b"RCPT TO:<mix@alpha.test>", b"DATA"):
            sock.sendall(said + b"\r\n")
            lines.readline()
        sock.sendall(b"x\r\n.\r\n")
        if not lines.readline().startswith(b"250"):
            sys.exit("the first message was refused")
        return time.monotonic()


def measure(args: argparse.Namespace, count: int, folder: Path) -> dict[str, Any]:
    """Fill, start, and measure one size beside an empty spool."""
    homes = full, empty = Home(folder, "full"), Home(folder, "empty")
    mine = [sys.executable, "-m", "benchmarks.backlog", "--octets", str(args.octets)]
    subprocess.run(
        [*mine, "--fill", str(full.path / "state"), "--count", str(count)], check=True
    )
    with ExitStack() as stack:
        sinks = {home: stack.enter_context(closing(Sink(home.sink))) for home in homes}
        other = stack.enter_context(running(*empty.command))
        until_ready(other)
        began = time.monotonic()
        node = stack.enter_context(running(*full.command))
        found = {"queued": count, **started(full, sinks[full], node, began)}
        rates: dict[str, list[float]] = {"full": [], "empty": []}
        cpu: dict[str, list[float]] = {"full": [], "empty": []}
        for home in homes:
            home.submit(sinks[home], args.sessions, args.sessions, args.length)
        for number in range(args.pairs):
            turn = [("full", full, node.pid), ("empty", empty, other.pid)]
            for name, home, pid in turn if number % 2 else turn[::-1]:
                before = cpu_seconds(pid)
                seconds = home.submit(
                    sinks[home], args.messages, args.sessions, args.length
                )
                rates[name].append(args.messages / seconds)
                cpu[name].append((cpu_seconds(pid) - before) / args.messages * 1e6)
        found["peak_mb"] = peak_mb(node.pid)
    return {
        **found,
        "rates": rates,
        "cpu_us": cpu,
        "of_empty": quotients(rates),
        "cpu_of_empty": quotients(cpu),
    }


def quotients(found: dict[str, list[float]]) -> list[float]:
    """Give what each run with the backlog is of the one beside it."""
    return [
        one / other for one, other in zip(found["full"], found["empty"], strict=True)
    ]


# what is shown


def spread(values: Sequence[float], form: str) -> str:
    """Give the median, the least and the greatest."""
    middle = statistics.median(values)
    low, high = min(values), max(values)
    return f"{middle:{form}} ({low:{form}}..{high:{form}})"


def table(found: Sequence[dict[str, Any]]) -> Table:
    """Everything, a line a size."""
    names = ("queued", "ready", "accepted", "delivered", "indexed", "MB", "MB after")
    shown = Table(*names, "rate", "of empty", "CPU us", "of empty")
    for one in found:
        shown.add_row(
            f"{one['queued']:,}",
            f"{one['ready']:.2f} s, CPU {one['ready_cpu']:.2f}",
            *(f"{one[n]:.2f} s" for n in ("accepted", "delivered")),
            f"{one['indexed']:.1f} s, CPU {one['indexed_cpu']:.1f}",
            *(f"{one[n] * MIB / 1e6:.0f}" for n in ("mb", "peak_mb")),
            spread(one["rates"]["full"], ",.0f"), spread(one["of_empty"], ".0%"),
            spread(one["cpu_us"]["full"], ",.0f"), spread(one["cpu_of_empty"], ".0%"),
        )  # fmt: skip
    return shown


def charts(found: Sequence[dict[str, Any]]) -> Sequence[Chart]:
    """The same as curves."""

    def line(name: str) -> list[tuple[float, float]]:
        return [(max(1, one["queued"]), one[name]) for one in found]

    def middle(name: str) -> list[tuple[float, float]]:
        return [
            (max(1, one["queued"]), statistics.median(one["rates"][name]))
            for one in found
        ]

    seconds = {name: line(name) for name in ("ready", "accepted", "delivered")}
    return (
        Chart("seconds from the start", "messages queued", seconds),
        Chart("seconds until all is read", "messages queued", {"all": line("indexed")}),
        Chart("memory, MB", "messages queued", {"main process": line("peak_mb")}),
        Chart(
            "accepted and delivered, messages a second", "messages queued",
            {"with the backlog": middle("full"), "an empty spool": middle("empty")},
        ),
    )  # fmt: skip


def run(scale: Scale, tell: Tell) -> Result:
    """Measure spools that grow, for the suite."""
    sizes = scale.of_each((0, 1000, 10_000, 100_000, 1_000_000), (0, 500))
    args = argparse.Namespace(
        messages=scale.of(10_000, 40), pairs=scale.of(min(scale.rounds, 3), 1),
        sessions=20, length=10_000, octets=1000,
    )  # fmt: skip
    found = []
    for number, size in enumerate(sizes):
        tell(f"{size:,} queued", number / len(sizes))
        with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
            found.append(measure(args, size, Path(folder)))
        scale.found(result_of(found))
    return result_of(found)


def result_of(found: Sequence[dict[str, Any]]) -> Result:
    """Make figures and curves of it."""
    figures: list[Figure] = []
    for one in found:
        for name, unit, values, at_least in (
            ("ready", "s", [one["ready"]], False),
            ("first 250", "s", [one["accepted"]], False),
            ("first delivered", "s", [one["delivered"]], False),
            ("spool read", "s", [one["indexed"]], False),
            ("memory at most", "MB", [one["peak_mb"] * MIB / 1e6], False),
            ("accepted and delivered", "messages/s", one["rates"]["full"], True),
            ("of an empty spool's rate", "share", one["of_empty"], True),
        ):
            bound = BOUNDS.get(name) if one["queued"] == 1_000_000 else None
            series = Series("mesh", tuple(values))
            said = f"{name}, {one['queued']:,} queued"
            figures.append(Figure(said, unit, (series,), bound, at_least=at_least))
    return Result("backlog", "A backlog", tuple(figures), tuple(charts(found)))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--length", type=int, default=10_000, help="of each message")
    parser.add_argument("--octets", type=int, default=1000, help="of each one queued")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--dir", help="where to make the nodes (default: TMPDIR)")
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fill is not None:
        trio.run(fill, args.fill, args.count, args.octets)
        return
    found = []
    with Progress(console=Console(stderr=True)) as progress:
        sizes = [int(size) for size in args.sizes.split(",")]
        for size in progress.track(sizes, description="backlog"):
            with tempfile.TemporaryDirectory(prefix="mesh-", dir=args.dir) as folder:
                found.append(measure(args, size, Path(folder)))
    Console(width=190).print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    if args.html:
        args.html.write_text(page("A backlog", *map(drawn, charts(found))))


if __name__ == "__main__":
    main()
