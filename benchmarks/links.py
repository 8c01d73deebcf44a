# SPDX-License-Identifier: MIT
"""What standing links cost: CPU a cell, memory a link, and how late the cells are.

    python -m benchmarks.links [--links 1,10,100,1000] [--seconds N] [--clock C]
                               [--rate R] [--json FILE] [--html FILE]

Two nodes' pacers, each with its main process, on loopback; N links between them, idle
or with mail in every cell, and beside them nothing or a busy loop on every core.  CPU
is the scheduler's own count, in nanoseconds, for the whole process; a cell is one sent
or one received.  Memory a link is the slope over the numbers of links of what a node's
two processes have, in shares (PSS); the kernel's buffers are not in it.  At rest means
a node that runs and has no peers.  Lateness is the pacer's own histogram, whose buckets
double: a figure is a bucket's upper edge.

The floor is what the kernel takes here, measured beside each run: two processes, as many
connections, at each of as many random instants one sleep, one send of 4,096 octets and
one read, and nothing else; no key, no ring, no links that are told apart.  What a sleep
costs, and what it leaves in the processor's caches, is the machine's: on a virtual one
the floor alone may be above the limit where few links make long sleeps.
"""

import argparse
import gc
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.result import Chart, Figure, Result, Scale, Series, Tell, single
from benchmarks.sheet import drawn
from mesh.audit.page import page
from mesh.core.cell import BODY_LEN, CELL_LEN
from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Clock, class_of
from mesh.core.crypto import Key, hash256
from mesh.core.handshake import NO_DIRECTORY, PeerKeys, Session
from mesh.node.bare import RECEIVE_MAX
from mesh.node.pacer.client import Pacer
from mesh.node.pacer.hardening import hurry
from mesh.node.pacer.histogram import quantile
from mesh.node.port import Ending
from mesh.node.wire import SocketWire

SETTLE_SECONDS: Final = 3.0
REST_SECONDS: Final = 5.0
BODY: Final = bytes([1, 0, 0, 0x0F, 0xEB]).ljust(BODY_LEN, b"x")
SHARES: Final = (0.5, 0.99, 0.999)
FLOOR: Final = "kernel alone"
LIMIT_US: Final = 45.0
"""CPU of the pacer for a cell that is sent or received."""
LIMIT_KB: Final = 100.0
"""Memory of a link."""
LATE_PART: Final = 30
"""Of T: how late a cell may be, but for one in a thousand."""


class Box:
    """A link's inside that always, or never, has something to say."""

    def __init__(self, busy: bool) -> None:
        self.has_data = busy
        self.ending: Ending | None = None
        self.finished = False
        self.on_data: Callable[[], None] = self.received

    def next_body(self) -> bytes:
        """Give mail."""
        return BODY

    def receive_body(self, body: bytes) -> None:
        """Take what comes."""

    def received(self) -> None:
        """Go on."""


def session(number: int, side: int, clock: Clock, klass: int) -> Session:
    """Make what a handshake would have given, from the link's number."""
    keys = [Key.from_bytes(hash256(b"%d %d" % (number, way))) for way in (0, 1)]
    return Session(
        peer=PeerKeys("peer", bytes(32), (bytes(32),)),
        peer_link_key=bytes(32),
        sealer=CellSealer(keys[side]),
        opener=CellOpener(keys[1 - side]),
        clock=clock,
        klass=klass,
        counter=number + 1,
        we_initiated=side == 0,
        directory_version=NO_DIRECTORY[0],
        directory_hash=NO_DIRECTORY[1],
    )


def spent(pid: int) -> float:
    """CPU seconds of a process's threads so far, user and kernel."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int, what: str = "Pss") -> int:
    """Octets of memory that are this process's share; Rss: that it can touch."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(rollup.split(f"\n{what}:")[1].split()[0])


class Side:
    """One node's half of the run, in a process of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._klass = class_of(args.rate)
        self._pacer = Pacer()

    async def run(self) -> None:
        """Say the port, carry the links, say what they cost."""
        args = self._args
        if args.bare:
            wires = await self._connect()
            told = bare([wire.socket for wire in wires], args.rate, args.seconds)
            print(json.dumps(told), flush=True)
            sys.stdin.read()
            return
        async with trio.open_nursery() as nursery:
            await nursery.start(self._pacer.run)
            (pid,) = children(os.getpid())
            wires = await self._connect()
            for number, wire in enumerate(wires):
                clock = Clock[args.clock.upper()]
                ours = session(number, args.side, clock, self._klass)
                nursery.start_soon(self._pacer.carry, wire, ours, Box(args.busy))
            await trio.sleep(SETTLE_SECONDS + 2 / args.rate)
            told = await self._measure(pid)
            told["memory"] = memory(pid) + memory(os.getpid())
            print(json.dumps(told), flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)
            nursery.cancel_scope.cancel()

    async def _connect(self) -> list[SocketWire]:
        args = self._args
        made = []
        if args.side:
            for _ in range(args.count):
                stream = await trio.open_tcp_stream("127.0.0.1", args.port)
                made.append(stream.socket)
        else:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            print(listener.socket.getsockname()[1], flush=True)
            made = [(await listener.socket.accept())[0] for _ in range(args.count)]
            await listener.aclose()
        wires = [SocketWire(socket.socket(fileno=each.detach())) for each in made]
        for wire in wires:
            wire.fix_buffers()
        return wires

    async def _measure(self, pid: int) -> dict[str, Any]:
        row = self._pacer.histogram.row
        began, cpu, main = row(self._klass), spent(pid), spent(os.getpid())
        start = time.monotonic()
        await trio.sleep(self._args.seconds)
        counts = [now - then for now, then in zip(row(self._klass), began, strict=True)]
        return {
            "counts": counts,
            "cpu": spent(pid) - cpu,
            "main_cpu": spent(os.getpid()) - main,
            "seconds": time.monotonic() - start,
        }


def bare(socks: list[socket.socket], rate: float, seconds: float) -> dict[str, Any]:
    """Do what no program can spare at as many instants, and nothing else."""
    hurry()
    gc.disable()
    cell, place = bytes(CELL_LEN), bytearray(RECEIVE_MAX)
    rate *= len(socks)
    due = time.monotonic()
    end, instants, began = due + seconds, 0, spent(os.getpid())
    while due < end:
        due += random.expovariate(rate)  # no secret
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        sock = random.choice(socks)  # noqa: S311
        with suppress(BlockingIOError, ConnectionError):
            sock.send(cell)
        with suppress(BlockingIOError, ConnectionError):
            sock.recv_into(place)
        instants += 1
    return {"instants": instants, "cpu": spent(os.getpid()) - began}


def children(pid: int) -> list[int]:
    """Processes that a process's main thread started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in listed.split()]


def at_rest() -> tuple[float, float]:
    """Megabytes (RSS) of a node without peers: main process, pacer."""
    mesh = [sys.executable, "-m", "mesh"]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "node"
        made = [*mesh, "init", str(home), "--name", "rest", "--address"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        made += [f"127.0.0.1:{port}", "--remailer", "mix@rest.test"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        node = subprocess.Popen(
            [*mesh, "run", "-c", str(home / "node.toml")],
            stderr=subprocess.PIPE,
            text=True,
        )
        with node:
            for line in node.stderr or ():
                if "ready" in line:
                    break
            time.sleep(REST_SECONDS)
            (pacer,) = children(node.pid)
            sizes = memory(node.pid, "Rss") / 1e6, memory(pacer, "Rss") / 1e6
            node.terminate()
    return sizes


def _side(args: argparse.Namespace, side: int, *more: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "benchmarks.links", "--side", str(side), *more]
    words += ["--seconds", str(args.seconds), "--clock", args.clock]
    words += ["--rate", str(args.rate)]
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _line(side: "subprocess.Popen[str]") -> str:
    if side.stdout is None or not (line := side.stdout.readline()):
        raise RuntimeError("a side of the run ended before its time")
    return line.strip()


def measure(
    args: argparse.Namespace, count: int, busy: bool, load: bool
) -> dict[str, Any]:
    """Run N links once, and the floor; add both sides up."""
    more = ["--count", str(count), *(["--busy"] if busy else [])]
    told = _both(args, more, load)
    floor = _both(args, [*more, "--bare"], load)
    instants = sum(one["instants"] for one in floor)
    counts = [sum(each) for each in zip(*(one["counts"] for one in told), strict=True)]
    cells = 2 * sum(counts)  # each instant sends one; as many are received
    return {
        "links": count,
        "busy": busy,
        "load": load,
        "cells": cells,
        "us_a_cell": 1e6 * sum(one["cpu"] for one in told) / max(cells, 1),
        "main_us_a_cell": 1e6 * sum(one["main_cpu"] for one in told) / max(cells, 1),
        "floor_us_a_cell": 1e6
        * sum(one["cpu"] for one in floor)
        / max(instants, 1)
        / 2,
        "memory": sum(one["memory"] for one in told) / len(told),
        "late_us": [round(1e6 * (quantile(counts, share) or 0)) for share in SHARES],
        "on_time": sum(counts) / 2 / (told[0]["seconds"] * args.rate * count),
    }


def _both(
    args: argparse.Namespace, more: Sequence[str], load: bool
) -> list[dict[str, Any]]:
    """Run both sides; what they tell."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range((os.cpu_count() or 1) if load else 0)
    ]
    first = _side(args, 0, *more)
    try:
        second = _side(args, 1, "--port", _line(first), *more)
        with first, second:
            return [json.loads(_line(end)) for end in (first, second)]
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _table(found: Sequence[dict[str, Any]], args: argparse.Namespace) -> Table:
    table = Table(title=f"{args.clock} links at {args.rate:g} cells/s")
    for name in (
        "links", "mail", "cores", "pacer us/cell", "floor", "main", "late us p50", "p99",
        "p99.9", "of its rate",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            f"{one['links']:,}", "busy" if one["busy"] else "idle",
            "loaded" if one["load"] else "free",
            f"{one['us_a_cell']:.0f}", f"{one['floor_us_a_cell']:.0f}",
            f"{one['main_us_a_cell']:.0f}",
            *(f"{late:,}" for late in one["late_us"]),
            f"{one['on_time']:.1%}",
        )  # fmt: skip
    return table


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--links", default="1,10,100,1000")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clock", default="renewal")
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path)
    for name in ("side", "count", "port"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    for name in ("busy", "bare"):
        parser.add_argument(f"--{name}", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        trio.run(Side(args).run)
        return
    runs = [
        (int(count), busy, load)
        for load in (False, True)
        for busy in (False, True)
        for count in args.links.split(",")
    ]
    with Progress(console=Console(stderr=True)) as progress:
        track = progress.track(runs, description="links")
        found = [measure(args, *run) for run in track]
    Console(width=110).print(_table(found, args))
    late = 1e6 / args.rate / LATE_PART
    print(
        f"limits: {LIMIT_US:.0f} us a cell, {LIMIT_KB:.0f} kB a link, "
        f"p99.9 (T/{LATE_PART}) {late:,.0f} us late"
    )
    for name, slope in _slopes(found).items():
        print(f"memory, {name}: {slope / 1000:.0f} kB a link")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    if args.html:
        args.html.write_text(_page(found, args))
    print("at rest: main {:.1f} MB, pacer {:.1f} MB (RSS)".format(*at_rest()))


def _name(one: dict[str, Any]) -> str:
    cores = "loaded" if one["load"] else "free"
    return f"{'busy' if one['busy'] else 'idle'}, cores {cores}"


def _slopes(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Octets a link, between the smallest and the largest number of links."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        runs.setdefault(_name(one), []).append(one)
    slopes = {}
    for name, each in runs.items():
        few, many = each[0], each[-1]
        if many["links"] > few["links"]:
            more = many["links"] - few["links"]
            slopes[name] = (many["memory"] - few["memory"]) / more
    return slopes


def _page(found: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    title = f"Standing links: {args.clock} at {args.rate:g} cells/s"
    return page(title, *map(drawn, _charts(found, args)))


def run(scale: Scale, tell: Tell) -> Result:
    """Measure idle and busy links on free cores, for the suite."""
    counts = scale.of_each((1, 10, 100, 1000), (2,))
    args = argparse.Namespace(
        seconds=1.0 if scale.is_quick else 10.0, clock="renewal", rate=1.0
    )
    runs = [(count, busy) for busy in (False, True) for count in counts]
    runs = runs[:1] if scale.is_quick else runs
    found = []
    for number, (count, busy) in enumerate(runs):
        tell(f"{count:,} links", number / len(runs))
        found.append(measure(args, count, busy, load=False))
        scale.found(_result(found, args, []))
    tell("a node at rest", 0.99)
    rest = [
        single(f"{name} at rest", "MB (RSS)", size, at_least=False)
        for name, size in zip(("main process", "pacer"), at_rest(), strict=True)
    ]
    return _result(found, args, rest)


def _result(
    found: Sequence[dict[str, Any]], args: argparse.Namespace, rest: Sequence[Figure]
) -> Result:
    figures = [
        Figure(
            f"{name}, {one['links']:,} links, {_name(one)}", unit,
            (Series("mesh", (value,)),), bound, at_least=False,
        )
        for one in found
        for name, unit, value, bound in (
            ("pacer's CPU", "us a cell", one["us_a_cell"], LIMIT_US),
            ("the kernel alone", "us a cell", one["floor_us_a_cell"], None),
            ("main process' CPU", "us a cell", one["main_us_a_cell"], None),
            ("cells late, p99.9", "us", float(one["late_us"][-1]), None),
        )
    ]  # fmt: skip
    figures += [
        single(f"memory, {name}", "kB a link", slope / 1000, LIMIT_KB, at_least=False)
        for name, slope in _slopes(found).items()
    ]
    figures += rest
    title = f"Standing links: {args.clock} at {args.rate:g} cells/s"
    return Result("links", title, tuple(figures), tuple(_charts(found, args)))


def _charts(
    found: Sequence[dict[str, Any]], args: argparse.Namespace
) -> Sequence[Chart]:
    counts = sorted({float(one["links"]) for one in found})
    ends = [counts[0], counts[-1]]

    def lines(key: str, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
        curves: dict[str, list[tuple[float, float]]] = {}
        for one in found:
            value = one[key][-1] if key == "late_us" else one[key]
            curves.setdefault(_name(one), []).append((one["links"], value * scale))
        return curves

    def floors() -> dict[str, list[tuple[float, float]]]:
        measured: dict[tuple[bool, int], list[float]] = {}
        for one in found:  # idle and busy are the same to it
            each = measured.setdefault((one["load"], one["links"]), [])
            each.append(one["floor_us_a_cell"])
        curves: dict[str, list[tuple[float, float]]] = {}
        for (load, count), each in sorted(measured.items()):
            name = f"{FLOOR}, cores {'loaded' if load else 'free'}"
            curves.setdefault(name, []).append((count, sum(each) / len(each)))
        return curves

    least = min(one["memory"] for one in found) / 1e6
    late = 1e6 / args.rate / LATE_PART
    return (
        Chart(
            "CPU of the pacer, us a cell sent or received", "links",
            {**lines("us_a_cell"), **floors()},
            {f"limit {LIMIT_US:.0f}": [(x, LIMIT_US) for x in ends]},
        ),
        Chart(
            "CPU of the main process, us a cell", "links", lines("main_us_a_cell"),
        ),
        Chart(
            "memory of a node, MB", "links", lines("memory", 1e-6),
            {
                f"limit {LIMIT_KB:.0f} kB a link": [
                    (x, least + (x - ends[0]) * LIMIT_KB / 1e3) for x in counts
                ]
            },
        ),
        Chart(
            "lateness p99.9, us", "links", lines("late_us"),
            {f"limit T/{LATE_PART}": [(x, late) for x in ends]},
            logarithmic=True,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
