# SPDX-License-Identifier: MIT
"""A real link as its snooper sees it: two nodes, a veth pair, the kernel's timestamps.

    python -m benchmarks.capture [--rate R] [--blocks N] [--seconds S] [--json FILE]

As root, with ip (iproute2), ethtool and tcpdump.  Each node has a network namespace of
its own; MTU 1500, TSO, GSO and GRO off, so that a packet is what the wire would carry.
A coin is thrown for each block of S seconds: idle, or mail from one to the other all
the time.  What is captured becomes a table, a row a cell of the first node:

    at, gap     seconds: its first segment, since the cell before
    sizes       octets of its segments
    ack_delay   seconds from its last segment to the segment that acknowledges all of it
    acks        bare acknowledgements between its first segment and the next cell's
    busy        what the coin said for its block
"""

import argparse
import json
import os
import secrets
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from mesh.core.cell import CELL_LEN

MESH: Final = (sys.executable, "-m", "mesh")
NAMES: Final = ("alpha", "bravo")
PORT: Final = 7000
UP_SECONDS: Final = 20.0
GUARD_SECONDS: Final = 0.5
"""At a block's edges, whose cells are left out."""
MAIL: Final = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n"


class Packet(NamedTuple):
    """One TCP segment: when, from the first node or not, numbers, payload's length."""

    at: float
    ours: bool
    sequence: int
    acknowledged: int
    length: int


@dataclass
class Row:
    """One cell."""

    at: float
    gap: float
    sizes: tuple[int, ...]
    ack_delay: float
    acks: int
    busy: bool


def address(side: int) -> str:
    """A node's, in the network of the two."""
    return f"10.83.0.{side + 1}"


def run(*words: str) -> str:
    """Run a program of the system; its output."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a wire."""
    one, other = (f"mesh-{name}-{os.getpid()}" for name in NAMES)
    with ExitStack() as stack:
        for name in (one, other):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
        run(
            "ip", "link", "add", "wire0", "netns", one, "mtu", "1500", "type", "veth",
            "peer", "name", "wire0", "netns", other, "mtu", "1500",
        )  # fmt: skip
        for side, name in enumerate((one, other)):
            inside = ("ip", "netns", "exec", name)
            run(*inside, "ethtool", "-K", "wire0", "tso", "off", "gso", "off",
                "gro", "off")  # fmt: skip
            run(*inside, "ip", "address", "add", f"{address(side)}/24", "dev", "wire0")
            for link in ("lo", "wire0"):
                run(*inside, "ip", "link", "set", link, "up")
        yield one, other


def quiet(words: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a program whose words nobody reads."""
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End a program of ours at the end."""
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def make_nodes(folder: Path, rate: float) -> list[Path]:
    """Make two nodes that know each other; their node.toml."""
    configs = []
    for side, name in enumerate(NAMES):
        home = folder / name
        where = f"{address(side)}:{PORT}"
        run(*MESH, "init", str(home), "--name", name, "--address", where,
            "--remailer", f"mix@{name}.test")  # fmt: skip
        config = home / "node.toml"
        lines = []
        for line in config.read_text().splitlines():
            key = line.partition(" =")[0]
            changed = {
                "listen": f'["{where}"]',
                "cells_per_second": f"{rate:g}",
                "exit": "false",
            }.get(key)
            lines.append(f"{key} = {changed}" if changed else line)
        config.write_text("\n".join(lines) + "\n")
        configs.append(config)
    for side, config in enumerate(configs):
        other = folder / f"{NAMES[1 - side]}.mesh"
        other.write_text(run(*MESH, "export", "-c", str(configs[1 - side])))
        run(*MESH, "peers", "add", "-c", str(config),
            f"--serves=mix@{NAMES[1 - side]}.test", str(other))  # fmt: skip
    return configs


def wait_up(config: Path) -> None:
    """Wait for the link; RuntimeError when there is none."""
    until = time.monotonic() + UP_SECONDS
    while time.monotonic() < until:
        asked = subprocess.run(
            [*MESH, "status", "-c", str(config)], check=False, capture_output=True
        )
        if asked.returncode == 0:
            return
    raise RuntimeError("the link does not come up")


def send_mail(config: Path, stop: threading.Event) -> None:
    """Hand in one message after the other."""
    while not stop.is_set():
        subprocess.run(
            [*MESH, "sendmail", "-c", str(config), f"mix@{NAMES[1]}.test"],
            input=MAIL * 1000, check=False, capture_output=True,
        )  # fmt: skip


def capture(rate: float, coins: Sequence[bool], seconds: float) -> list[Row]:
    """Run the two nodes, block after block; the table."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # tcpdump writes as a user of its own
        configs = make_nodes(folder, rate)
        pair = stack.enter_context(namespaces())
        file = folder / "wire.pcap"
        words = ["ip", "netns", "exec", pair[0], "tcpdump", "-i", "wire0", "-w"]
        words += [str(file), "-s", "96", "-B", "8192", "-U", "-Z", "root"]
        words += ["--time-stamp-precision=nano", "tcp"]
        snooper = quiet(words)
        stack.enter_context(ended(snooper))
        for config, space in zip(configs, pair, strict=True):
            words = ["ip", "netns", "exec", space, *MESH, "run", "-c", str(config)]
            stack.enter_context(ended(quiet(words)))
        wait_up(configs[0])
        blocks = []
        for busy in coins:
            stop = threading.Event()
            sender = threading.Thread(target=send_mail, args=(configs[0], stop))
            if busy:
                sender.start()
            begin = time.time()
            time.sleep(seconds)
            blocks.append((begin, time.time(), busy))
            stop.set()
            if busy:
                sender.join()
        snooper.terminate()
        snooper.wait()
        return table(packets(file.read_bytes()), blocks)


def packets(pcap: bytes) -> list[Packet]:
    """Read a capture of tcpdump: nanoseconds, Ethernet, IPv4, TCP; the largest link."""
    flows: dict[tuple[int, int], list[Packet]] = {}
    at = 24
    while at + 16 <= len(pcap):
        second, nano, held, _ = struct.unpack_from("=IIII", pcap, at)
        frame = pcap[at + 16 : at + 16 + held]
        at += 16 + held
        if len(frame) < 54:  # cut off in the middle of the last one
            continue
        begin = 14 + 4 * (frame[14] & 15)
        source, target, sequence, acknowledged = struct.unpack_from(
            "!HHII", frame, begin
        )
        total = struct.unpack_from("!H", frame, 16)[0]
        length = total - (begin - 14) - 4 * (frame[begin + 12] >> 4)
        ours = frame[29] == 1
        flow = (source, target) if ours else (target, source)
        when = second + nano / 1e9
        packet = Packet(when, ours, sequence, acknowledged, length)
        flows.setdefault(flow, []).append(packet)
    return max(flows.values(), key=len, default=[])


def table(
    seen: Sequence[Packet], blocks: Sequence[tuple[float, float, bool]]
) -> list[Row]:
    """Make a row of each whole cell of the first node that lies in a block."""
    sent = [packet for packet in seen if packet.ours and packet.length]
    # A cell ends with a short segment: that tells where cells lie in the stream.
    longest = max((packet.length for packet in sent), default=0)
    ends = [_end(packet) % CELL_LEN for packet in sent if packet.length < longest]
    phase = max(set(ends), key=ends.count, default=0)
    groups = groupby(sent, lambda p: (p.sequence - phase) % (1 << 32) // CELL_LEN)
    cells = [list(group) for _, group in groups]
    cells = [cell for cell in cells if sum(p.length for p in cell) == CELL_LEN]
    rows = []
    for before, cell, after in zip(cells, cells[1:], cells[2:], strict=False):
        first, end = cell[0].at, _end(cell[-1])
        busy = _coin(first, blocks)
        theirs = [p for p in seen if not p.ours and first <= p.at]
        acked = next((p.at for p in theirs if p.acknowledged == end), None)
        if busy is None or acked is None:
            continue
        acks = sum(not p.length and p.at < after[0].at for p in theirs)
        sizes = tuple(packet.length for packet in cell)
        gap = first - before[0].at
        rows.append(Row(first, gap, sizes, acked - cell[-1].at, acks, busy))
    return rows


def _end(packet: Packet) -> int:
    return (packet.sequence + packet.length) % (1 << 32)


def _coin(at: float, blocks: Sequence[tuple[float, float, bool]]) -> bool | None:
    for begin, end, busy in blocks:
        if begin + GUARD_SECONDS <= at < end - GUARD_SECONDS:
            return busy
    return None


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "-"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{1e3 * middle:8.3f} [{1e3 * low:.3f}, {1e3 * high:.3f}]"


def main() -> None:
    """Capture, and look at it for the first time: idle against busy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=8.0)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    coins = [bool(secrets.randbits(1)) for _ in range(args.blocks)]
    rows = capture(args.rate, coins, args.seconds)
    for busy in (False, True):
        some = [row for row in rows if row.busy is busy]
        sizes = {row.sizes for row in some}
        print(f"{'busy' if busy else 'idle'}: {len(some)} cells, sizes {sizes}")
        print(f"  gap ms        {_spread([row.gap for row in some])}")
        print(f"  ack delay ms  {_spread([row.ack_delay for row in some])}")
        print(f"  acks a cell   {statistics.fmean([r.acks for r in some] or [0]):.3f}")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
