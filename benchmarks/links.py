# SPDX-License-Identifier: MIT
"""What standing links cost: CPU a cell, memory a link, and how late the cells are.

    python -m benchmarks.links [--links 1,10,100,1000] [--seconds N] [--clock C]
                               [--rate R] [--json FILE] [--html FILE]

Two nodes' pacers, each with its main process, on loopback; N links between them, idle
or with mail in every cell, and beside them nothing or a busy loop on every core.  CPU
is the kernel's count for the whole pacer process, a cell is one sent or one received.
Memory a link is what the pacer's and the main process's private memory grew by since
no link was there; the kernel's buffers are not in it.  Lateness is the pacer's own
histogram, whose buckets double: a figure is a bucket's upper edge.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.page import chart, page
from mesh.core.cell import BODY_LEN
from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Clock, class_of
from mesh.core.crypto import Key, hash256
from mesh.core.handshake import NO_DIRECTORY, PeerKeys, Session
from mesh.node.pacer.client import Pacer
from mesh.node.pacer.histogram import BUCKETS, quantile
from mesh.node.port import Ending
from mesh.node.wire import SocketWire

SETTLE_SECONDS: Final = 3.0
TICK: Final = os.sysconf("SC_CLK_TCK")
BODY: Final = bytes([1, 0, 0, 0x0F, 0xEB]).ljust(BODY_LEN, b"x")
SHARES: Final = (0.5, 0.99, 0.999)


class Box:
    """A link's inside that always, or never, has something to say."""

    ending: Ending | None = None
    finished = False

    def __init__(self, busy: bool) -> None:
        self.has_data = busy

    def next_body(self) -> bytes:
        """Give mail."""
        return BODY

    def receive_body(self, body: bytes) -> None:
        """Take what comes."""

    def received(self) -> None:
        """Go on."""

    def on_data(self) -> None:
        """Be replaced by the carrier."""


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
    """CPU seconds of a process so far, user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def private(pid: int) -> int:
    """Octets of memory that are this process's share (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(rollup.split("\nPss:")[1].split()[0])


class Side:
    """One node's half of the run, in a process of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._klass = class_of(args.rate)
        self._pacer = Pacer()

    async def run(self) -> None:
        """Say the port, carry the links, say what they cost."""
        args = self._args
        async with trio.open_nursery() as nursery:
            await nursery.start(self._pacer.run)
            (pid,) = _children()
            before = private(pid), private(os.getpid())
            wires = await self._connect()
            for number, wire in enumerate(wires):
                clock = Clock[args.clock.upper()]
                ours = session(number, args.side, clock, self._klass)
                nursery.start_soon(self._pacer.carry, wire, ours, Box(args.busy))
            await trio.sleep(SETTLE_SECONDS + 2 / args.rate)
            told = await self._measure(pid)
            told["pacer"], told["main"] = before
            told["pacer_grew"] = private(pid) - before[0]
            told["main_grew"] = private(os.getpid()) - before[1]
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
        import socket

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


def _children() -> list[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in listed.split()]


def _side(args: argparse.Namespace, side: int, *more: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "benchmarks.links", "--side", str(side), *more]
    words += ["--seconds", str(args.seconds), "--clock", args.clock]
    words += ["--rate", str(args.rate)]
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def measure(
    args: argparse.Namespace, count: int, busy: bool, load: bool
) -> dict[str, Any]:
    """Run N links once, and add both sides up."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range((os.cpu_count() or 1) if load else 0)
    ]
    more = ["--count", str(count), *(["--busy"] if busy else [])]
    first = _side(args, 0, *more)
    try:
        assert first.stdout is not None
        port = first.stdout.readline().strip()
        second = _side(args, 1, "--port", port, *more)
        with first, second:
            assert second.stdout is not None
            told = [json.loads(end.stdout.readline()) for end in (first, second)]  # type: ignore[union-attr]
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    counts = [sum(each) for each in zip(*(one["counts"] for one in told), strict=True)]
    cells = 2 * sum(counts)  # each instant sends one; as many are received
    assert len(counts) == BUCKETS
    return {
        "links": count,
        "busy": busy,
        "load": load,
        "cells": cells,
        "us_a_cell": 1e6 * sum(one["cpu"] for one in told) / max(cells, 1),
        "main_us_a_cell": 1e6 * sum(one["main_cpu"] for one in told) / max(cells, 1),
        "kb_a_link": sum(o["pacer_grew"] + o["main_grew"] for o in told) / 2000 / count,
        "pacer_mb": max(one["pacer"] for one in told) / 1e6,
        "late_us": [round(1e6 * (quantile(counts, share) or 0)) for share in SHARES],
        "on_time": sum(counts) / 2 / (told[0]["seconds"] * args.rate * count),
    }


def _table(found: Sequence[dict[str, Any]], args: argparse.Namespace) -> Table:
    table = Table(title=f"{args.clock} links at {args.rate:g} cells/s")
    for name in (
        "links", "mail", "cores", "pacer us/cell", "main us/cell", "kB/link",
        "late us p50", "p99", "p99.9", "cells of its class",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            f"{one['links']:,}", "busy" if one["busy"] else "idle",
            "loaded" if one["load"] else "free",
            f"{one['us_a_cell']:.0f}", f"{one['main_us_a_cell']:.0f}",
            f"{one['kb_a_link']:.0f}", *(f"{late:,}" for late in one["late_us"]),
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
    parser.add_argument("--busy", action="store_true", help=argparse.SUPPRESS)
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
    found = []
    with Progress(console=Console(stderr=True)) as progress:
        for run in progress.track(runs, description="links"):
            found.append(measure(args, *run))
    Console().print(_table(found, args))
    print(f"limit for p99.9 (T/30): {1e6 / args.rate / 30:,.0f} us")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    if args.html:
        args.html.write_text(_page(found, args))


def _page(found: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    def lines(key: str) -> dict[str, list[tuple[float, float]]]:
        curves: dict[str, list[tuple[float, float]]] = {}
        for one in found:
            name = f"{'busy' if one['busy'] else 'idle'}, "
            name += f"cores {'loaded' if one['load'] else 'free'}"
            value = one[key][-1] if key == "late_us" else one[key]
            curves.setdefault(name, []).append((one["links"], value))
        return curves

    title = f"Standing links: {args.clock} at {args.rate:g} cells/s"
    return page(
        title,
        chart("CPU of the pacer, us a cell", "links", lines("us_a_cell")),
        chart("memory, kB a link", "links", lines("kb_a_link")),
        chart("lateness p99.9, us", "links", lines("late_us")),
    )


if __name__ == "__main__":
    main()
