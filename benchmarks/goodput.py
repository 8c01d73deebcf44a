# SPDX-License-Identifier: MIT
"""How many octets of mail a second one greedy link carries, without spool or disk.

    python -m benchmarks.goodput [--messages N] [--length OCTETS] [--runs N] [--json]

    mesh      an end with messages -> its link -> loopback -> a link -> an end that
              compares each with what was sent, answers it, and keeps nothing
    stunnel   octets -> stunnel -> TLS 1.3 over loopback -> stunnel -> counted

Each end is a process: what a node's own would be (streams, dialogue, cells, socket),
but that a message is made at once and is stored nowhere.  CPU is user and system time:
of both ends, and of both stunnels without those who feed and count.  stunnel (Debian:
stunnel4) runs beside it when it is installed, with the cipher that it likes best.
Runs of the two take turns.

What stands between us and stunnel, in us of CPU for a cell of 4,096 octets, the least of
several looks at each alone:

    OpenSSL's ChaCha20-Poly1305, a call for a cell            2.1   each end
      of it the call, and what a short box costs more         1.0
    OpenSSL's AES-256-GCM in records of 16 KiB, for stunnel   1.0   each end
    send(2) of 64 cells over loopback                         0.5 - 0.7
    recv(2) of them                                           0.3 - 0.5
    a message of lines of 80 octets is looked through for     1.5   receiver
      bare CR and LF (core/content.py)

So with nothing but cipher and kernel an end takes 3 us a cell, 1.4 GB/s, where stunnel's
cipher takes half of ours: its records are four cells long.  (libsodium's takes 3.5 to 6.)
The rest is Python, and that the ends take turns: a
large message has 64 KiB x 4 of credit, which is one send and one read, so whoever waits
for credit does not work.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.links import session, spent
from mesh.core.clock import Clock
from mesh.core.crypto import SystemEntropy
from mesh.core.handshake import Session
from mesh.core.link import Link, Received
from mesh.core.reply import NO_ROOM, OK
from mesh.core.smtp import Finished, Outgoing
from mesh.core.strand import Ident
from mesh.node.guard import Guard
from mesh.node.inside import Inside, Port
from mesh.node.pacing import carry
from mesh.node.peer import FLYING_MAX
from mesh.node.wire import SocketWire

TO: Final = "mix@far.test"
KLASS: Final = 3
MESSAGE_MAX: Final = 30_000_000
PIECE: Final = 262_144
"""Octets of one write into, and of one read out of, the rival."""
STUNNEL: Final = "stunnel4"
SETTINGS: Final = """foreground = yes
pid =
debug = err
sslVersion = TLSv1.3
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[tunnel]
"""


@dataclass
class Result:
    """One run: of this product, and of the rival where it is installed."""

    messages: int
    length: int
    octets_per_second: dict[str, float]
    cpu_ms_per_mb: dict[str, float]


def content(length: int) -> bytes:
    """Make the message: lines of 80 octets."""
    line = b"x" * 78 + b"\r\n"
    return (line * (length // len(line) + 1))[: length - 2] + b"\r\n"


class End:
    """A peer without a spool: what a link belongs to."""

    def __init__(self, messages: int, length: int, *, sends: bool) -> None:
        self.guard = Guard()
        self.content = content(length)
        self.left = self.unanswered = messages if sends else 0
        self.most = max(1, FLYING_MAX // length)  # as a node has on their way at most
        self.started = 0.0
        self.seconds = 0.0
        self.inside: Inside | None = None

    def ident(self, session: Session) -> Ident:
        """Name the one connection."""
        return Ident(session.we_initiated, session.counter)

    def begin(self, port: Port) -> Inside:
        """Begin the link."""
        link = Link(
            name=f"end{int(not port.session.we_initiated)}",
            peer=f"end{int(port.session.we_initiated)}",
            accepts=lambda _: None,
            max_message=MESSAGE_MAX,
        )
        self.inside = Inside(self, link, port)
        return self.inside

    def came_up(self, port: Port) -> None:
        """Do nothing: there is no other connection."""

    def agreed(self, port: Port, link: Link) -> None:
        """Begin the clock."""
        self.started = time.monotonic()
        self.fill()

    def take(self, inside: Inside, received: Received) -> None:
        """Compare, and answer."""
        right = received.message.content == self.content
        inside.answer(received.stream, OK if right else NO_ROOM)

    def finished(self, inside: Inside, event: Finished) -> None:
        """Count; after the last one the link ends."""
        if event.replies != (OK,):
            raise AssertionError("a message came otherwise than it was sent")
        self.unanswered -= 1
        if not self.unanswered:
            self.seconds = time.monotonic() - self.started
            inside.port.close()

    def ids_done(self, ids: tuple[bytes, ...]) -> None:
        """Forget nothing: nothing was kept."""

    def fill(self) -> None:
        """Offer what may be on its way."""
        inside = self.inside
        if inside is None:
            return
        while self.left > 0 and self.unanswered - self.left < self.most:
            if not inside.link.can_offer:
                break
            ident = self.left.to_bytes(16, "big")
            inside.link.offer(
                Outgoing(None, "from@near.test", (TO,), self.content, ident)
            )
            self.left -= 1
        inside.port.on_data()


async def carry_one(sock: socket.socket, side: int, end: End) -> None:
    """Carry one link until it ends, and print what it took."""
    wire = SocketWire(sock)
    wire.fix_buffers()
    ours = session(0, side, Clock.GREEDY, KLASS)
    port = Port(end, ours, trio.current_time() + 86_400)
    port.strand.offer(None)
    before = spent(os.getpid())
    await carry(wire, ours, port, SystemEntropy())
    told = {"seconds": end.seconds, "cpu": spent(os.getpid()) - before}
    print(json.dumps(told), flush=True)


def one_end(args: argparse.Namespace) -> None:
    """Be one of the two processes: 0 listens and sends, 1 connects."""
    end = End(args.messages, args.length, sends=args.side == 0)
    if args.side:
        sock = socket.create_connection(("127.0.0.1", args.port))
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            print(server.getsockname()[1], flush=True)
            sock = server.accept()[0]
    trio.run(carry_one, sock, args.side, end)


def _process(side: int, messages: int, length: int, port: int = 0) -> Any:
    words = [sys.executable, "-m", "benchmarks.goodput", "--side", str(side)]
    words += ["--messages", str(messages), "--length", str(length), "--port", str(port)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def run_mesh(messages: int, length: int) -> tuple[float, float]:
    """Carry the messages over one link; seconds, and CPU seconds of both ends."""
    with _process(0, messages, length) as near:
        port = int(near.stdout.readline())
        with _process(1, messages, length, port) as far:
            told = [json.loads(end.stdout.readline() or "{}") for end in (near, far)]
    return told[0]["seconds"], sum(each["cpu"] for each in told)


def stunnel() -> str | None:
    """Where the rival is, if it is installed."""
    return shutil.which(STUNNEL, path=os.environ.get("PATH", "") + ":/usr/bin")


def _certify(folder: Path) -> None:
    words = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=rival",
        "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
    ]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _start(folder: Path, name: str, lines: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start one stunnel with these settings."""
    file = folder / name
    file.write_text(SETTINGS + "\n".join(lines) + "\n")
    program = stunnel()
    if program is None:
        raise RuntimeError(f"{STUNNEL} is not installed")
    return subprocess.Popen([program, str(file)], stderr=subprocess.DEVNULL)


def _connect(port: int) -> socket.socket:
    """Connect as soon as somebody listens."""
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise RuntimeError("the rival did not start")


def _count(server: socket.socket, octets: int) -> None:
    """Read so many octets, and say so with one; what is only a look has none."""
    place = bytearray(PIECE)
    while True:
        sock = server.accept()[0]
        with sock:
            came = 0
            while came < octets and (got := sock.recv_into(place)):
                came += got
            if came >= octets:
                sock.sendall(b"!")
                return


def run_stunnel(messages: int, length: int) -> tuple[float, float]:
    """Send as many octets through two stunnels; seconds, and their CPU seconds."""
    octets, piece = messages * length, content(PIECE)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _certify(folder)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        near, far = _free_port(), _free_port()
        ends = [
            _start(folder, "far", [
                f"accept = 127.0.0.1:{far}",
                f"connect = 127.0.0.1:{server.getsockname()[1]}",
                f"cert = {folder}/cert.pem", f"key = {folder}/key.pem",
            ]),
            _start(folder, "near", [
                "client = yes",
                f"accept = 127.0.0.1:{near}", f"connect = 127.0.0.1:{far}",
            ]),
        ]  # fmt: skip
        for end in ends:
            stack.callback(end.wait)
            stack.callback(end.terminate)
        counter = threading.Thread(target=_count, args=(server, octets), daemon=True)
        counter.start()
        _connect(far).close()
        sock = stack.enter_context(_connect(near))
        before = sum(spent(end.pid) for end in ends)
        start = time.monotonic()
        for at in range(0, octets, PIECE):
            sock.sendall(piece[: octets - at])
        if sock.recv(1) != b"!":
            raise RuntimeError("the rival lost octets")
        seconds = time.monotonic() - start
        return seconds, sum(spent(end.pid) for end in ends) - before


def run(messages: int = 200, length: int = 1_000_000) -> Result:
    """Measure both once, one after the other."""
    result = Result(messages, length, {}, {})
    runs = {"mesh": run_mesh, "stunnel": run_stunnel}
    if stunnel() is None:
        del runs["stunnel"]
    for name, measure in runs.items():
        seconds, cpu = measure(messages, length)
        result.octets_per_second[name] = messages * length / seconds
        result.cpu_ms_per_mb[name] = cpu * 1e3 / (messages * length / 1e6)
    return result


def main() -> None:
    """Run as often as asked and print a table or JSON."""
    parser = argparse.ArgumentParser(description="octets a second over one greedy link")
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--length", type=int, default=1_000_000, help="octets")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    for name in ("side", "port"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        one_end(args)
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        track = progress.track(range(args.runs), description="goodput")
        results = [run(args.messages, args.length) for _ in track]
    if args.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    table = Table("", "MB/s", "from", "to", "CPU ms/MB", "from", "to")
    for name in results[0].octets_per_second:
        row = []
        for values in (
            [result.octets_per_second[name] / 1e6 for result in results],
            [result.cpu_ms_per_mb[name] for result in results],
        ):
            row += [statistics.median(values), min(values), max(values)]
        table.add_row(name, *(f"{value:.1f}" for value in row))
    print(f"{args.messages} messages of {args.length} octets, {args.runs} runs")
    Console().print(table)
    if stunnel() is None:
        print(f"{STUNNEL} is not installed: no rival")
        return
    shares = [
        result.octets_per_second["mesh"] / result.octets_per_second["stunnel"]
        for result in results
    ]
    print(
        f"of stunnel's: {statistics.median(shares):.2f}, "
        f"{min(shares):.2f} to {max(shares):.2f}"
    )


if __name__ == "__main__":
    main()
